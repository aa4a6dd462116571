"""A decoder that is watched, in a process of its own (`segue.fields.decoding`).

One that gives nothing for too long is killed; one that crashes takes nothing with it; the next file
has a new one.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, TypeAlias

from segue.errors import DataError, SpecError

START = 120.0
"""Seconds that a decoder may take to start."""

Message: TypeAlias = tuple[dict[str, Any], bytes]


class Watched:
    """Asks the decoder; its process starts with the first question.

    Args:
        limit: seconds without an answer after which the process is killed.
        expected: what is waited for, for messages, such as ``samples``.
        package, extra: what it decodes with, and what of this package installs that.
    """

    def __init__(self, limit: float, expected: str, package: str, extra: str) -> None:
        self._limit, self._expected = limit, expected
        self._package, self._extra = package, extra
        self.process: subprocess.Popen[bytes] | None = None
        """The process; None while there is none."""
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._thread = Thread()

    def ask(self, question: dict[str, Any], where: str) -> Iterator[Message]:
        """The messages of the answer.

        Raises:
            DataError: the file is no good, or the decoder hangs or crashes; `where` names it.
            SpecError: the package is not installed.
        """
        answered = False
        try:
            process = self.process or self._start(where)
            # A process that has died has closed its end; the answer says so.
            with suppress(BrokenPipeError):
                if process.stdin is not None:
                    process.stdin.write(json.dumps(question).encode() + b"\n")
                    process.stdin.flush()
            while True:
                head, data = self._answer(where, self._limit)
                answered = "end" in head or "got" in head
                if "got" in head:
                    raise DataError(where, head["expected"], head["got"], head["fix"])
                if answered:
                    return
                if "alive" not in head:
                    yield head, data
        finally:
            # A process that was left in the middle would answer the next question with this file.
            if not answered:
                self.close()

    def _start(self, where: str) -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("decoding.py")
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
        self._answer(where, START)
        return process

    def _answer(self, where: str, limit: float) -> Message:
        fix = "it may be damaged: convert it or leave it out"
        try:
            message = self._messages.get(timeout=limit)
        except queue.Empty:
            got = f"nothing for {limit:g} s"
            raise DataError(where, self._expected, got, fix) from None
        if message is None:
            raise DataError(where, self._expected, "a crash of the decoder", fix)
        if "missing" in message[0]:
            # Not the file's fault, so that no row is skipped for it.
            got, fix = message[0]["missing"], f"pip install 'segue[{self._extra}]'"
            raise SpecError(where, f"the package {self._package}", got, fix)
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
