"""The program that decodes files of sound and video, in a process of its own: what hangs or crashes
in a decoder then ends this process and nothing else (see `segue.fields.watched`).

It reads a question per line of its input, as JSON, and answers with messages: a line of JSON, and
behind it as many bytes as its ``bytes`` says::

    {"sound": path}                                    the samples of a sound file
    {"track": path, "stream": 0}                       those of a sound track of a video
        {"rate": 8000, "channels": 2}
        {"bytes": 65536}                               float32 [n, channels], again and again
    {"clip": path, "stream": 0}                        opens a video; closes the one before
    {"times": true}
        {"time": 0.04}                                 of each frame, in seconds
    {"frame": 17}
        {"bytes": 6220800, "size": [1080, 1920]}       uint8 [H, W, 3]
    {"close": true}

An answer ends with ``{"end": true}`` or ``{"expected": ..., "got": ..., "fix": ...}``. A message
``{"alive": true}`` says that the decoder gets on; ``{"missing": ...}`` that a package is.

Nothing is believed of a header: samples and frames are read until there are none, and what was
promised is compared with what came. This file imports nothing of segue, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterator
from importlib import import_module
from io import FileIO
from itertools import chain
from typing import Any, TypeAlias

Message: TypeAlias = tuple[dict[str, Any], bytes]

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG")
BLOCK = 16_384
"""Samples of each channel in a message."""
OPEN_ENDED = 0xFFFF_FFFF
"""What a WAV file has as its size when the writer did not know it."""
PAGE = 65_307
"""The most bytes that a page of an Ogg stream can have."""
LOCAL = {"protocol_whitelist": "file"}
"""What a video may lead to: a playlist inside must not open connections."""
PATIENCE = 30.0
"""Seconds that the opening of a video may wait for its file."""


class Refused(Exception):
    """A file that is no good: what was expected, what there was, and what to do."""


class Missing(Exception):
    """A package that is not installed, or whose library is not."""


def package(name: str) -> Any:
    """A module.

    Raises:
        Missing: it is not there.
    """
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        raise Missing(str(error)) from None


# Sound files ----------------------------------------------------------------------------------


def sound(path: str) -> Iterator[Message]:
    """The samples of the file at `path`.

    Raises:
        Refused: it is no sound file, or damaged, or shorter than it says.
    """
    soundfile = package("soundfile")
    with open(_descriptor(path), "rb", buffering=0) as file:
        start = file.read(4)
        missing = {b"RIFF": _cut_wave, b"RF64": _cut_wave, b"OggS": _cut_ogg}.get(start)
        if missing is not None:
            missing(file)
        file.seek(0)
        try:
            opened = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            got = str(error.error_string).rstrip(".") if start else "an empty file"
            raise Refused("a WAV, FLAC or OGG file", got, "convert it or leave it out") from None
        with opened:
            yield from _blocks(soundfile, opened)


def _descriptor(path: str) -> int:
    """The opened file; without waiting, as for the other end of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise Refused("a sound file", error.strerror or "an error", "check the path") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused("a sound file", "a folder, a pipe or a device", "check the path")
    return descriptor


def _blocks(soundfile: Any, sound: Any) -> Iterator[Message]:
    if sound.format not in FORMATS:
        got = f"a {sound.format} file"
        raise Refused("a WAV, FLAC or OGG file", got, "convert it or leave it out")
    yield {"rate": sound.samplerate, "channels": sound.channels}, b""
    # Otherwise it seeks after every block, which fails at the end of FLAC of unknown length.
    sound.seekable = lambda: False
    promised, count = sound.frames, 0
    while True:
        try:
            block = sound.read(BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            block = None
        if block is None or not len(block) and count < promised < 2**62:
            raise Refused(f"{promised} samples", f"only {count} that can be read", _AGAIN)
        if not len(block):
            return
        count += len(block)
        data = block.tobytes()
        yield {"bytes": len(data)}, data


_AGAIN = "it is cut off or damaged: copy it again or leave it out"


def _cut_wave(file: FileIO) -> None:
    """Refuses a WAV file whose data end before their chunk does."""
    size, place, long = os.fstat(file.fileno()).st_size, 12, None
    while place + 8 <= size:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            long = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        if name == b"data":
            length = long if length == OPEN_ENDED else length
            if length is not None and place + 8 + length > size:
                raise Refused(f"{length} bytes of samples", f"{size - place - 8} bytes", _AGAIN)
            return
        place += 8 + length + length % 2


def _cut_ogg(file: FileIO) -> None:
    """Refuses an Ogg file whose last page is not the last of its stream, or is not whole."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - PAGE))
    tail = file.read(PAGE)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) >= 27:
        lengths = page[27 : 27 + page[26]]
        is_whole = len(lengths) == page[26] and len(page) >= 27 + len(lengths) + sum(lengths)
        if page[5] & 4 and is_whole:
            return
    raise Refused("an end of the stream", "none", _AGAIN)


# Videos ---------------------------------------------------------------------------------------


def track(path: str, stream: int) -> Iterator[Message]:
    """The samples of a sound track.

    Raises:
        Refused: it is no video, or damaged, or has no such track.
    """
    av = package("av")
    container = _opened(av, path)
    with container:
        heard = _stream(container, "audio", stream)
        resampler = av.AudioResampler(format="fltp", layout=heard.layout, rate=heard.rate)
        yield {"rate": int(heard.rate), "channels": len(heard.layout.channels)}, b""
        try:
            for frame in chain(container.decode(heard), (None,)):
                for block in resampler.resample(frame):
                    data = block.to_ndarray().T.astype("float32").tobytes()
                    yield {"bytes": len(data)}, data
        except av.FFmpegError as error:
            got = f"a damaged one ({error.strerror})"
            raise Refused("a whole sound track", got, _COPY) from None


class Clip:
    """One video stream of a file, decoded frame by frame.

    At any time a handful of frames is in memory, however long the clip. A frame further on is
    decoded up to; for one further back the clip starts again at the key frame before it.

    Args:
        path: a regular file.
        stream: which of its video streams, from 0.

    Raises:
        Refused: no video, or damaged.
    """

    def __init__(self, path: str, stream: int) -> None:
        self._av = package("av")
        self._container = _opened(self._av, path)
        self._shown = _stream(self._container, "video", stream)
        self._starts: list[int] | None = None
        self._stamps: list[int] = []
        self._frames = self._decoded()
        self._next = 0

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def times(self) -> Iterator[Message]:
        """The time of every frame, from the first on.

        Raises:
            Refused: the file ends before its last frame, or is damaged.
        """
        self._rewind()
        for frame in self._frames:
            self._next += 1
            yield {"time": float(frame.time or 0.0)}, b""
        wanted = max(1, self._shown.frames)
        if self._next < wanted:
            got = f"only {self._next} that can be read"
            raise Refused(f"the frames that it speaks of ({wanted})", got, _COPY)

    def frame(self, number: int) -> Iterator[Message]:
        """The frame of this number, from 0.

        Raises:
            Refused: there is none, or the file is damaged.
        """
        if number < self._next or number - self._next > 64:
            yield from self._go_before(number)
        for frame in self._frames:
            self._next += 1
            if self._next > number:
                shown = frame.to_ndarray(format="rgb24")
                data = shown.tobytes()
                yield {"bytes": len(data), "size": shown.shape[:2]}, data
                return
            yield ALIVE
        raise Refused(f"a frame {number}", f"only {self._next}", "correct the reference")

    def _rewind(self) -> None:
        self._container.seek(self._start, stream=self._shown)
        self._frames, self._next = self._decoded(), 0

    @property
    def _start(self) -> int:
        return self._shown.start_time or 0

    def _go_before(self, number: int) -> Iterator[Message]:
        """Go on from the last key frame up to this number, if that is nearer than here."""
        if self._starts is None:
            yield from self._index()
        starts = self._starts or [0]
        begin = starts[bisect_right(starts, number) - 1]
        if self._next <= number and begin <= self._next:
            return
        if begin == 0:
            self._rewind()
            return
        stamp = self._stamps[begin]
        self._container.seek(stamp, stream=self._shown)
        self._frames, self._next = self._decoded(stamp), begin

    def _index(self) -> Iterator[Message]:
        """Find the numbers of the frames that can be begun with; without decoding any."""
        self._container.seek(self._start, stream=self._shown)
        found = []
        for packet in self._container.demux(self._shown):
            if packet.size:
                found.append((packet.pts, packet.is_keyframe))
            yield ALIVE
        self._rewind()
        stamps = sorted(stamp for stamp, _ in found if stamp is not None)
        self._starts = [0]
        if len(set(stamps)) < len(found):
            return  # without times that tell frames apart there is no place to go to
        self._stamps, place = stamps, {stamp: number for number, stamp in enumerate(stamps)}
        self._starts = sorted({0} | {place[stamp] for stamp, begins in found if begins})

    def _decoded(self, since: int | None = None) -> Iterator[Any]:
        """Frames from here on, or from a time stamp on."""
        try:
            for packet in self._container.demux(self._shown):
                for frame in packet.decode():
                    if since is None or frame.pts is None or frame.pts >= since:
                        yield frame
        except self._av.FFmpegError as error:
            got = f"a damaged one ({error.strerror})"
            raise Refused("a whole video", got, _COPY) from None


ALIVE: Message = ({"alive": True}, b"")
_COPY = "copy the file again, or declare `on_error: skip`"


def _opened(av: Any, path: str) -> Any:
    try:
        return av.open(path, options=LOCAL, timeout=PATIENCE)
    except (av.FFmpegError, OSError) as error:
        fix = "copy or convert it again, or declare `on_error: skip`"
        raise Refused("a video file", f"none ({error.strerror})", fix) from None


def _stream(container: Any, kind: str, number: int) -> Any:
    streams = [stream for stream in container.streams if stream.type == kind]
    if number >= len(streams):
        container.close()
        name = "video stream" if kind == "video" else "sound track"
        fix = "correct `stream`" if streams else "take it out, or declare `on_error: skip`"
        expected = f"a {name}" + (f" {number}" if streams else "")
        raise Refused(expected, f"{len(streams)} of them" if streams else "none", fix)
    return streams[number]


# The program ----------------------------------------------------------------------------------


class Answers:
    """What is answered to each question; remembers the video that is open."""

    def __init__(self) -> None:
        self._clip: Clip | None = None

    def to(self, question: dict[str, Any]) -> Iterator[Message]:
        """The messages of an answer, but for its end.

        Raises:
            Refused: the file is no good.
        """
        if "sound" in question:
            yield from sound(question["sound"])
        elif "track" in question:
            yield from track(question["track"], question["stream"])
        elif "frame" in question and self._clip is not None:
            yield from self._clip.frame(question["frame"])
        elif "times" in question and self._clip is not None:
            yield from self._clip.times()
        else:
            if self._clip is not None:
                self._clip.close()
            self._clip = None
            if "clip" in question:
                self._clip = Clip(question["clip"], question["stream"])


def main() -> None:
    """Answer the questions that come in until there are no more."""
    answers = Answers()
    say({"ready": True}, b"")
    for line in sys.stdin.buffer:
        try:
            for head, data in answers.to(json.loads(line)):
                say(head, data)
            say({"end": True}, b"")
        except Refused as refused:
            say(dict(zip(("expected", "got", "fix"), refused.args, strict=True)), b"")
        except Missing as missing:
            say({"missing": str(missing)}, b"")


def say(head: dict[str, Any], data: bytes) -> None:
    """Write a message."""
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
