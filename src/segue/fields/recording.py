"""Recordings: the samples of a sound file, or of the first sound track of a video, at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segue.errors import DataError, SpecError
from segue.fields.clip import SUFFIXES, regular
from segue.fields.watched import Watched

Channel: TypeAlias = Literal["mean", "left", "right"] | int
"""What is heard of several channels: their mean, the first, the second, or one by its number from
0 on.
"""

LIMIT = 20.0
"""Seconds without anything from a decoder before it is killed."""
LONGEST = 6 * 3600
"""Seconds that a recording may last: some kilobytes can promise, and give, days of silence."""


class Decoder:
    """Decodes sound files and the sound tracks of videos, in processes that are watched.

    Args:
        limit: seconds without an answer after which a process is killed.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self.files = Watched(limit, "samples", "soundfile", "audio")
        self.tracks = Watched(limit, "samples", "av", "video")

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self.files.close()
        self.tracks.close()

    def read(
        self, path: Path, where: str, stream: int = 0
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The rate and the samples of a file, ``[n, channels]``, block by block.

        Args:
            stream: which sound track of a video, from 0.

        Raises:
            DataError: it is no sound file, damaged, cut off, too long, or its decoder hangs or
                crashes; `where` names it.
            SpecError: the package that decodes it is not installed.
        """
        rate, channels, count = 0, 0, 0
        if path.suffix.lower() in SUFFIXES:
            regular(path, where)
            messages = self.tracks.ask({"track": str(path), "stream": stream}, where)
        else:
            messages = self.files.ask({"sound": str(path)}, where)
        for head, data in messages:
            rate, channels = head.get("rate", rate), head.get("channels", channels)
            block = np.frombuffer(data, np.float32).reshape(-1, channels)
            count += len(block)
            if count > LONGEST * rate:
                expected, got = f"at most {LONGEST // 3600} hours of sound", "more"
                raise DataError(where, expected, got, "cut it into pieces")
            if len(block):
                yield rate, block


def heard(
    decoder: Decoder, path: Path, rate: int, channel: Channel, where: str
) -> Iterator[NDArray[np.float32]]:
    """The samples of one channel of a recording, or of the first sound track of a video, at `rate`,
    ``[n]``, block by block.

    Another rate becomes this one by soxr's band-limited interpolation (its quality HQ), which gives
    the same bits in chunks of any size.

    Raises:
        DataError: as `Decoder.read`; there is no such channel; or a sample is not finite.
        SpecError: soundfile or soxr are not installed.
    """
    resampler: Any = None
    for own, block in decoder.read(path, where):
        one = mixed(block, channel, where)
        if not np.isfinite(one).all():
            raise DataError(where, "finite samples", "NaN or infinity", "write the file again")
        if not own >= 1000:
            raise DataError(where, "at least 1000 samples per second", str(own), "check its header")
        if own != rate:
            resampler = resampler or _soxr(where).ResampleStream(own, rate, 1, dtype="float32")
            one = resampler.resample_chunk(one)
        yield one
    if resampler is not None:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def mixed(block: NDArray[np.float32], channel: Channel, where: str) -> NDArray[np.float32]:
    """One channel ``[n]`` of several ``[n, channels]``.

    Raises:
        DataError: there is no such channel.
    """
    channels = block.shape[1]
    if channel == "mean":
        # The sum in order, so that it does not depend on how many samples there are.
        total = block[:, 0].copy()
        for other in range(1, channels):
            total += block[:, other]
        return total / np.float32(channels)
    number = _NUMBERS[channel] if isinstance(channel, str) else channel
    if number >= channels:
        expected, fix = f"a channel {channel!r}", "declare another as `channels`"
        raise DataError(where, expected, f"{channels} channels", fix)
    return np.ascontiguousarray(block[:, number])


_NUMBERS = {"left": 0, "right": 1}


def _soxr(where: str) -> ModuleType:
    try:
        return import_module("soxr")
    except ImportError as error:
        # Not the file's fault, so that no row is skipped for it.
        fix = "pip install 'segue[audio]'"
        raise SpecError(where, "the package soxr", str(error), fix) from None
