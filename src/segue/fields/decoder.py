"""The program that decodes sound files, in a process of its own: what hangs or crashes in a decoder
then ends this process and nothing else (see `segue.fields.recording`).

It reads a path per line of its input, as JSON, and answers with messages: a line of JSON, and
behind it as many bytes as its ``bytes`` says::

    {"rate": 8000, "channels": 2}
    {"bytes": 65536}                                   float32 [n, channels], again and again
    {"end": true}  or  {"expected": ..., "got": ..., "fix": ...}

Nothing is believed of a header: samples are read block by block until there are none, and what was
promised is compared with what came. This file imports nothing of segue, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from collections.abc import Iterator
from importlib import import_module
from io import FileIO
from typing import Any

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG")
BLOCK = 16_384
"""Samples of each channel in a message."""
OPEN_ENDED = 0xFFFF_FFFF
"""What a WAV file has as its size when the writer did not know it."""
PAGE = 65_307
"""The most bytes that a page of an Ogg stream can have."""


class Refused(Exception):
    """A file that is no good: what was expected, what there was, and what to do."""


def messages(soundfile: Any, path: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The messages on the file at `path`.

    Raises:
        Refused: it is no sound file, or damaged, or shorter than it says.
    """
    with open(_descriptor(path), "rb", buffering=0) as file:
        start = file.read(4)
        missing = {b"RIFF": _cut_wave, b"RF64": _cut_wave, b"OggS": _cut_ogg}.get(start)
        if missing is not None:
            missing(file)
        file.seek(0)
        try:
            sound = soundfile.SoundFile(file.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            got = str(error.error_string).rstrip(".") if start else "an empty file"
            raise Refused("a WAV, FLAC or OGG file", got, "convert it or leave it out") from None
        with sound:
            yield from _blocks(soundfile, sound)
    yield {"end": True}, b""


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


def _blocks(soundfile: Any, sound: Any) -> Iterator[tuple[dict[str, Any], bytes]]:
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


def main() -> None:
    """Answer the paths that come in until there are no more."""
    try:
        soundfile = import_module("soundfile")
    except (ImportError, OSError) as error:
        say({"missing": str(error)}, b"")
        return
    say({"ready": True}, b"")
    for line in sys.stdin.buffer:
        try:
            for head, data in messages(soundfile, json.loads(line)):
                say(head, data)
        except Refused as refused:
            say(dict(zip(("expected", "got", "fix"), refused.args, strict=True)), b"")


def say(head: dict[str, Any], data: bytes) -> None:
    """Write a message."""
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
