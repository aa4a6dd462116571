"""Clips: the frames of a video file, one at a time, and its sound track; by PyAV."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segue.errors import DataError
from segue.fields.extras import package

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
"""How files end that hold a video."""

PATIENCE = 30.0
"""Seconds after which a file that has given no further frame is given up."""

LOCAL = {"protocol_whitelist": "file"}
"""What a file may lead to: a playlist inside must not open connections."""


class Clip:
    """One video stream of a file, decoded frame by frame.

    At any time a handful of frames is in memory, however long the clip. A frame further on is
    decoded up to; for one further back the clip starts again at the key frame before it.

    Args:
        path: a regular file.
        stream: which of its video streams, from 0.
        where: what to call it in messages.

    Raises:
        DataError: no such file, no video, or damaged.
    """

    def __init__(self, path: Path, stream: int, where: str) -> None:
        self._path, self._stream, self._where = path, stream, where
        self._container = _opened(path, where)
        self._shown = _stream(self._container, "video", stream, where)
        self._starts: list[int] | None = None
        self._stamps: list[int] = []
        self._frames = self._decoded()
        self._next = 0

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """All frames from the first on, each with its time in seconds.

        Raises:
            DataError: the file ends before its last frame, or is damaged, or hangs.
        """
        self._rewind()
        for frame in self._frames:
            self._next += 1
            yield float(frame.time or 0.0), frame
        wanted = max(1, self._shown.frames)
        if self._next < wanted:
            got = f"only {self._next} that can be read"
            raise _damaged(self._where, f"the frames that it speaks of ({wanted})", got)

    def frame(self, number: int) -> VideoFrame:
        """The frame of this number, from 0.

        Raises:
            DataError: there is none, or the file is damaged.
        """
        if number < self._next or number - self._next > 64:
            self._go_before(number)
        frame: VideoFrame
        for frame in self._frames:
            self._next += 1
            if self._next > number:
                return frame
        got = f"only {self._next}"
        raise DataError(self._where, f"a frame {number}", got, "correct the reference")

    def _rewind(self) -> None:
        self._container.seek(self._start, stream=self._shown)
        self._frames, self._next = self._decoded(), 0

    @property
    def _start(self) -> int:
        return self._shown.start_time or 0

    def _go_before(self, number: int) -> None:
        """Go on from the last key frame up to this number, if that is nearer than here."""
        if self._starts is None:
            self._starts = self._index()
        begin = self._starts[bisect_right(self._starts, number) - 1] if self._starts else 0
        if self._next <= number and begin <= self._next:
            return
        if begin == 0:
            self._rewind()
            return
        stamp = self._stamps[begin]
        self._container.seek(stamp, stream=self._shown)
        self._frames, self._next = self._decoded(stamp), begin

    def _index(self) -> list[int]:
        """The numbers of the frames that can be begun with; without decoding any."""
        self._container.seek(self._start, stream=self._shown)
        found = [(p.pts, p.is_keyframe) for p in self._container.demux(self._shown) if p.size]
        self._rewind()
        stamps = sorted(stamp for stamp, _ in found if stamp is not None)
        if len(set(stamps)) < len(found):
            return [0]  # without times that tell frames apart there is no place to go to
        self._stamps, place = stamps, {stamp: number for number, stamp in enumerate(stamps)}
        return sorted({0} | {place[stamp] for stamp, begins in found if begins})

    def _decoded(self, since: int | None = None) -> Iterator[Any]:
        """Frames from here on, or from a time stamp on."""
        av = package("av", "video", self._where)
        last = monotonic()
        try:
            for packet in self._container.demux(self._shown):
                for frame in packet.decode():
                    last = monotonic()
                    if since is None or frame.pts is None or frame.pts >= since:
                        yield frame
                if monotonic() - last > PATIENCE:
                    got = f"none for {PATIENCE:g} seconds"
                    raise _damaged(self._where, "a further frame", got)
        except av.FFmpegError as error:
            got = f"a damaged one ({error.strerror})"
            raise _damaged(self._where, "a whole video", got) from None


def sound(path: Path, where: str, stream: int = 0) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The rate of the sound track of a file, and its samples ``[n, channels]``, from -1 to 1, block
    by block.

    Args:
        stream: which of its sound tracks, from 0.

    Raises:
        DataError: no such file, no sound track, or damaged.
    """
    container = _opened(path, where)
    heard = _stream(container, "audio", stream, where)
    av = package("av", "video", where)
    resampler = av.AudioResampler(format="fltp", layout=heard.layout, rate=heard.rate)
    try:
        with container:
            for frame in chain(container.decode(heard), (None,)):
                for block in resampler.resample(frame):
                    yield int(heard.rate), np.ascontiguousarray(block.to_ndarray().T)
    except av.FFmpegError as error:
        raise _damaged(where, "a whole sound track", f"a damaged one ({error.strerror})") from None


def _opened(path: Path, where: str) -> InputContainer:
    av = package("av", "video", where)
    if not path.is_file():
        got = "something else" if path.exists() else "no such file"
        fix = "check the path, which is relative to the table, or declare `on_error: skip`"
        raise DataError(where, "a file", got, fix)
    try:
        container: InputContainer = av.open(str(path), options=LOCAL, timeout=PATIENCE)
    except (av.FFmpegError, OSError) as error:
        got = f"none ({error.strerror})"
        fix = "copy or convert it again, or declare `on_error: skip`"
        raise DataError(where, "a video file", got, fix) from None
    return container


def _stream(container: InputContainer, kind: str, number: int, where: str) -> Any:
    streams = [stream for stream in container.streams if stream.type == kind]
    if number >= len(streams):
        container.close()
        name = "video stream" if kind == "video" else "sound track"
        fix = "correct `stream`" if streams else "take it out, or declare `on_error: skip`"
        expected = f"a {name}" + (f" {number}" if streams else "")
        raise DataError(where, expected, f"{len(streams)} of them" if streams else "none", fix)
    return streams[number]


def _damaged(where: str, expected: str, got: str) -> DataError:
    return DataError(where, expected, got, "copy the file again, or declare `on_error: skip`")
