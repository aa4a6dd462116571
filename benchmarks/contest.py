"""What the benchmarks of the layers share: command line, threads, agreement, lines of results."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from clock import QUICK, Pace, medians
from line import machine
from numpy.typing import NDArray

Results: TypeAlias = dict[str, NDArray[Any]]
"""What a contestant computes, by name, in the layout of segue: y, and d with a name: a gradient."""

RESULTS = Path(__file__).resolve().parent / "results"
OURS = "segue"
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


class Disagreement(RuntimeError):
    """A contestant computes something else, so its time says nothing."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
        call: what is timed.
        read: names what `call` gave.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Results]


@dataclass(frozen=True)
class Options:
    """What the command line asks for, of which benchmark; its lines say the libraries' versions."""

    benchmark: str
    libraries: tuple[str, ...]
    only: tuple[str, ...]
    pace: Pace
    threads: int
    quick: bool
    save: bool

    def line(self, case: str, figures: Mapping[str, Any]) -> dict[str, Any]:
        """A line of results: what was measured, the figures, and where they come from."""
        versions = {name: version(name) for name in self.libraries}
        where = {"machine": machine(), "threads": self.threads, "rounds": self.pace.rounds}
        head = {"benchmark": self.benchmark, "case": case}
        return {**head, **figures, **where, "versions": versions}


def options(
    benchmark: str, cases: Sequence[str], libraries: Sequence[str], description: str
) -> Options:
    """Read the command line and settle the threads; the process may start anew for that."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run?")
    parser.add_argument("--only", nargs="+", choices=cases, default=list(cases), metavar="NAME")
    parser.add_argument("--threads", type=int, help="of every contestant; default: all cores")
    parser.add_argument("--rounds", type=int, default=Pace.rounds, help="turns of a contestant")
    parser.add_argument("--save", action="store_true", help=f"append to results/{benchmark}.jsonl")
    said = parser.parse_args()
    if said.quick and said.save:
        parser.error("figures of --quick are not worth keeping")
    threads = settle(said.threads)
    pace = QUICK if said.quick else Pace(rounds=said.rounds)
    named = benchmark, ("segue", *libraries), tuple(said.only)
    return Options(*named, pace, threads, said.quick, said.save)


def settle(threads: int | None) -> int:
    """Give every contestant the same processors; gives their number.

    XLA sizes its pool by the processors that the process may use, and the pools of OpenMP and BLAS
    are sized when their libraries load. So the process is bound to as many processors as there are
    threads, and starts anew where its environment says something else.

    OpenMP's threads spin for some milliseconds between two pieces of work unless OMP_WAIT_POLICY is
    PASSIVE. Measured on two cores, PASSIVE makes torch's recurrent layers 3 to 13 times slower,
    because it sleeps and wakes at every product of every step. So torch keeps the default, and a
    pause before each turn (`clock.Pace`) lets the spinning end before somebody else is timed.
    """
    usable = processors()
    count = len(usable) if threads is None else threads
    if not 1 <= count <= len(usable):
        raise SystemExit(f"--threads: from 1 to {len(usable)}, as many as there are processors")
    is_sized = all(int(os.environ.get(name, len(usable))) == count for name in POOLS)
    if count < len(usable) or not is_sized or any(name in os.environ for name in WAITING):
        if count < len(usable):
            os.sched_setaffinity(0, usable[:count])
        kept = {name: value for name, value in os.environ.items() if name not in WAITING}
        sized = {name: str(count) for name in POOLS}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**kept, **sized})
    torch.set_num_threads(count)
    return count


def processors() -> list[int]:
    """Those that this process may use; all where the system, as macOS, cannot bind it to some."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0))


def race(contestants: Mapping[str, Contestant], pace: Pace) -> dict[str, Any]:
    """Check every contestant against ours, then time all of them.

    Returns:
        milliseconds of each, the best peer, how many times as fast as it ours is, and how far from
        ours each peer's results are.

    Raises:
        Disagreement: results differ.
    """
    own = contestants[OURS].read(contestants[OURS].call())
    peers = {name: one for name, one in contestants.items() if name != OURS}
    errors = {name: agree(name, own, one.read(one.call())) for name, one in peers.items()}
    seconds = medians({name: one.call for name, one in contestants.items()}, pace)
    return {**ranked(seconds), "largest_error": errors}


def ranked(seconds: Mapping[str, float]) -> dict[str, Any]:
    """Milliseconds, the best peer, and the ratio of its time to ours."""
    best = min((name for name in seconds if name != OURS), key=lambda name: seconds[name])
    return {
        "ms": {name: rounded(1e3 * one) for name, one in seconds.items()},
        "best_peer": best,
        "ratio": rounded(seconds[best] / seconds[OURS]),
    }


TOLERANCE = 1e-4
"""How far results may be apart, as a share of the largest value of each."""


def agree(name: str, own: Results, other: Results) -> float:
    """The distance of two contestants' results.

    What a peer cannot compute may lack among its results, but y may not.

    Raises:
        Disagreement: it is above the tolerance, or not a number.
    """
    largest = 0.0
    for key in sorted({"y", *other}):
        if own[key].shape != other[key].shape:
            raise Disagreement(f"{name}: {key} is {other[key].shape}, ours {own[key].shape}")
        error = distance({key: other[key]}, {key: own[key]})
        if not error <= TOLERANCE:
            raise Disagreement(f"{name}: {key} differs from ours by {error:.1e} of its scale")
        largest = max(largest, error)
    return float(f"{largest:.1e}")


def distance(found: Results, exact: Results) -> float:
    """The largest difference of any result, relative to the largest value of that result."""

    def of(key: str) -> float:
        scale = float(np.abs(exact[key]).max())
        return float(np.abs(found[key] - exact[key]).max()) / max(scale, 1e-30)

    return max(of(key) for key in exact)


def publish(said: Options, lines: Iterable[dict[str, Any]]) -> None:
    """Print each line when it is there, and append it to the results if that was asked for."""
    for one in lines:
        print(json.dumps(one), flush=True)
        if said.save:
            RESULTS.mkdir(exist_ok=True)
            with (RESULTS / f"{said.benchmark}.jsonl").open("a") as file:
                file.write(json.dumps(one) + "\n")


def skip(case: str, reason: str) -> None:
    """Say that a case is left out, and why."""
    print(f"{case}: left out, {reason}", file=sys.stderr, flush=True)


def rounded(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")
