"""Clips: the frames of a video file, one at a time."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segue.errors import DataError
from segue.fields.watched import Watched

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
"""How files end that hold a video."""

LIMIT = 30.0
"""Seconds after which the decoder of a file that has given no further frame is killed."""

IDLE: list[Watched] = []
"""Decoders that nobody uses: starting one takes longer than reading a short clip."""
MOST_IDLE = 4


@atexit.register
def _end() -> None:
    for decoder in IDLE:
        decoder.close()


class Clip:
    """One video stream of a file, decoded frame by frame in a process that is watched.

    At any time a handful of frames is in memory, however long the clip. Frames may be asked for in
    any order; those that follow each other cost least.

    Args:
        path: a regular file.
        stream: which of its video streams, from 0.
        where: what to call it in messages.

    Raises:
        DataError: no such file, no video, damaged, or its decoder hangs or crashes.
        SpecError: the package av is not installed.
    """

    def __init__(self, path: Path, stream: int, where: str) -> None:
        regular(path, where)
        self._where = where
        self.decoder = IDLE.pop() if IDLE else Watched(LIMIT, "a further frame", "av", "video")
        self._left = weakref.finalize(self, _leave, self.decoder)
        self._file = {"clip": str(path), "stream": stream}
        self._done(self._file)

    def close(self) -> None:
        """Let go of the file."""
        if self.decoder.process is not None:
            self._done({"close": True})
        self._left()

    def times(self) -> Iterator[float]:
        """The time of every frame in seconds, from the first on.

        Raises:
            DataError: the file ends before its last frame, or is damaged, or hangs.
        """
        self._reopen()
        for head, _ in self.decoder.ask({"times": True}, self._where):
            yield head["time"]

    def frame(self, number: int) -> NDArray[np.uint8]:
        """The frame of this number, from 0: ``[H, W, 3]``, red, green and blue.

        Raises:
            DataError: there is none, or the file is damaged, or hangs.
        """
        self._reopen()
        ((head, data),) = self.decoder.ask({"frame": number}, self._where)
        return np.frombuffer(data, np.uint8).reshape(*head["size"], 3)

    def _reopen(self) -> None:
        """A decoder that was ended has no file open in the next one."""
        if self.decoder.process is None:
            self._done(self._file)

    def _done(self, question: dict[str, object]) -> None:
        for _ in self.decoder.ask(question, self._where):
            pass


def _leave(decoder: Watched) -> None:
    """Keep a decoder for the next file, which closes what is still open."""
    if decoder.process is not None and len(IDLE) < MOST_IDLE:
        IDLE.append(decoder)
    else:
        decoder.close()


def regular(path: Path, where: str) -> None:
    """Refuse what is no regular file: opening a pipe would wait for ever.

    Raises:
        DataError: it is not.
    """
    if not path.is_file():
        got = "something else" if path.exists() else "no such file"
        fix = "check the path, which is relative to the table, or declare `on_error: skip`"
        raise DataError(where, "a file", got, fix)
