"""How calls are timed against each other: alternating, in one process, as medians."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Pace:
    """How much is measured.

    Attributes:
        rounds: how often each contestant has its turn.
        least: seconds that one turn lasts at least; a short call is repeated to fill them.
        pause: seconds of rest before a turn, in which the threads of the one before stop spinning.
        patience: seconds that a round waits for the whole machine; see `Machine`.
    """

    rounds: int = 7
    least: float = 1e-2
    pause: float = 2e-2
    patience: float = 5.0


QUICK = Pace(rounds=1, least=0.0, pause=0.0, patience=0.0)
"""Whether everything runs, not how fast."""


class Machine:
    """Whether all of the machine is there.

    The processors of a virtual machine may be put on one core for seconds, or share theirs with
    others: then two do the work of one. A matrix product on all threads shows it.
    """

    share = 0.85
    """Of the fastest product seen so far."""

    def __init__(self) -> None:
        self.a, self.b = torch.rand(384, 384), torch.rand(384, 384)
        self.least = math.inf

    def wait(self, patience: float) -> None:
        """Until the product is nearly as fast as it ever was, or patience is at an end."""
        until = time.perf_counter() + patience
        while time.perf_counter() < until:
            torch.mm(self.a, self.b)
            spent = min(_seconds(lambda: torch.mm(self.a, self.b), 1) for _ in range(3))
            self.least = min(self.least, spent)
            if spent * self.share <= self.least:
                return
            time.sleep(0.1)


@cache
def machine() -> Machine:
    """This one; the first rounds of a process know it less well."""
    return Machine()


def turns(calls: Mapping[str, Callable[[], object]], pace: Pace) -> dict[str, list[float]]:
    """Seconds of a call in each round. Every other round goes backwards through the contestants."""
    repeats = {name: _repeats(call, pace.least) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(pace.rounds):
        machine().wait(pace.patience)
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            found[name].append(_turn(calls[name], repeats[name], pace))
    return found


def medians(calls: Mapping[str, Callable[[], object]], pace: Pace) -> dict[str, float]:
    """Seconds of a call, as the median over the rounds."""
    return {name: statistics.median(seconds) for name, seconds in turns(calls, pace).items()}


def _repeats(call: Callable[[], object], least: float) -> int:
    """How many calls fill a turn. The first call may compile, so the second one is timed."""
    call()
    count, spent = 1, _seconds(call, 1)
    while spent < least:
        count = max(2 * count, math.ceil(count * least / spent))
        spent = _seconds(call, count)
    return count


def _turn(call: Callable[[], object], repeats: int, pace: Pace) -> float:
    time.sleep(pace.pause)
    # Threads that slept wake up, which may take milliseconds, and weights come back into the cache.
    call()
    return _seconds(call, repeats) / repeats


def _seconds(call: Callable[[], object], repeats: int) -> float:
    collects = gc.isenabled()
    gc.disable()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    spent = time.perf_counter() - began
    if collects:
        gc.enable()
    return spent
