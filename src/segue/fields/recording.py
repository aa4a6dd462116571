"""Recordings: a sound file to samples of one channel at one rate, block by block.

The decoder runs in a process of its own (`segue.fields.decoder`). One that gives nothing for too
long is killed; one that crashes takes nothing with it; the next file has a new one.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segue.errors import DataError, SpecError
from segue.fields import clip

Channel: TypeAlias = Literal["mean", "left", "right"] | int
"""What is heard of several channels: their mean, the first, the second, or one by its number from
0 on.
"""

LIMIT = 20.0
"""Seconds without anything from a decoder before it is killed."""
START = 120.0
"""Seconds that a decoder may take to start."""
LONGEST = 6 * 3600
"""Seconds that a recording may last: some kilobytes can promise, and give, days of silence."""

Message: TypeAlias = tuple[dict[str, Any], bytes]


class Decoder:
    """Decodes sound files in another process, which it starts when first asked.

    Args:
        limit: seconds without an answer after which the process is killed.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self.process: subprocess.Popen[bytes] | None = None
        """The process; None while there is none."""
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._thread = Thread()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: Path, where: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The rate and the samples of a file, ``[n, channels]``, block by block.

        Raises:
            DataError: it is no sound file, damaged, cut off, too long, or its decoder hangs or
                crashes; `where` names it.
            SpecError: soundfile is not installed.
        """
        answered = False
        try:
            rate, channels, count = 0, 0, 0
            self._ask(path, where)
            while not answered:
                head, data = self._answer(where)
                answered = "end" in head or "got" in head
                if "got" in head:
                    raise DataError(where, head["expected"], head["got"], head["fix"])
                rate, channels = head.get("rate", rate), head.get("channels", channels)
                block = np.frombuffer(data, np.float32).reshape(-1, channels)
                count += len(block)
                if count > LONGEST * rate:
                    expected, got = f"at most {LONGEST // 3600} hours of sound", "more"
                    raise DataError(where, expected, got, "cut it into pieces")
                if len(block):
                    yield rate, block
        finally:
            # A process that was left in the middle would answer the next path with this file.
            if not answered:
                self.close()

    def _ask(self, path: Path, where: str) -> None:
        process = self.process or self._start(where)
        # A process that has died has closed its end; the answer says so.
        with suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.write(json.dumps(str(path)).encode() + b"\n")
                process.stdin.flush()

    def _start(self, where: str) -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("decoder.py")
        # -P: the modules beside the program are not to be taken for those of Python.
        process = subprocess.Popen(
            [sys.executable, "-P", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.process, self._messages = process, queue.Queue(maxsize=8)
        self._thread = Thread(target=_pass_on, args=(process.stdout, self._messages), daemon=True)
        self._thread.start()
        head, _ = self._answer(where, START)
        if "missing" in head:
            raise _not_installed("soundfile", where, head["missing"])
        return process

    def _answer(self, where: str, limit: float | None = None) -> Message:
        limit = self._limit if limit is None else limit
        try:
            message = self._messages.get(timeout=limit)
        except queue.Empty:
            got, fix = f"nothing for {limit:g} s", "it may be damaged: convert it or leave it out"
            raise DataError(where, "samples", got, fix) from None
        if message is None:
            got, fix = "a crash of the decoder", "it may be damaged: convert it or leave it out"
            raise DataError(where, "samples", got, fix)
        return message

    def close(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        # One that waits for a disk may not even die; it is left to itself.
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
        # What is still under way is thrown away, so that the thread gets to the end.
        while process.returncode is not None and self._thread.is_alive():
            with suppress(queue.Empty):
                self._messages.get(timeout=0.01)
        # A thread that still reads would make its stream wait.
        for stream in (process.stdin, None if self._thread.is_alive() else process.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


def _pass_on(stream: IO[bytes], messages: queue.Queue[Message | None]) -> None:
    """Put what a process says into a queue, None at its end."""
    for line in iter(stream.readline, b""):
        # What was killed while it spoke leaves half a message.
        with suppress(ValueError):
            head = json.loads(line)
            messages.put((head, stream.read(head.get("bytes", 0))))
    messages.put(None)


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
    is_video = path.suffix.lower() in clip.SUFFIXES
    for own, block in clip.sound(path, where) if is_video else decoder.read(path, where):
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
        raise _not_installed("soxr", where, str(error)) from None


def _not_installed(package: str, where: str, got: str) -> SpecError:
    # Not the file's fault, so that no row is skipped for it.
    return SpecError(where, f"the package {package}", got, "pip install 'segue[audio]'")
