"""Peak memory of one backward pass through a long sequence, in a process of its own.

Prints a line of JSON: MB above what was there before and above the outputs (y and all gradients).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
from peers import CELLS, weights_of

from segue.layers import unroll

STATUS = Path("/proc/self/status")


def main() -> None:
    """Run one pass and print its line."""
    parser = argparse.ArgumentParser(description="peak memory of training on one long sequence")
    parser.add_argument("--law", choices=list(CELLS), default="LSTM")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--checkpoint", choices=["none", "sqrt"], default="sqrt")
    said = parser.parse_args()
    # A short pass first: what libraries load and allocate once is not the sequence's.
    run(said.law, 100, said.hidden, said.checkpoint)
    extra, seconds = run(said.law, said.steps, said.hidden, said.checkpoint)
    print(json.dumps({"extra_mb": round(extra / 1e6, 1), "seconds": round(seconds, 2)}))


def run(law: str, steps: int, hidden: int, checkpoint: str) -> tuple[int, float]:
    """Bytes at the peak above the inputs and the outputs, and seconds."""
    torch.manual_seed(0)
    cell = CELLS[law](hidden, hidden)
    x = torch.randn(1, steps, hidden, requires_grad=True)
    dy = torch.randn(1, steps, hidden)
    weights = weights_of(cell)
    before, began = resident(), time.perf_counter()
    if checkpoint == "none":
        y, _ = unroll(cell, x)
    else:
        y, _ = unroll(cell, x, checkpoint=checkpoint)
    found = torch.autograd.grad(y, [x, *weights], dy)
    seconds = time.perf_counter() - began
    outputs = sum(one.nbytes for one in (y, *found))
    return highest() - before - outputs, seconds


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return status("VmRSS") if STATUS.exists() else highest()


def highest() -> int:
    """Bytes at the highest so far.

    Linux counts towards ru_maxrss what the parent held before this program was started in its
    place, so its own count is read there.
    """
    if STATUS.exists():
        return status("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def status(field: str) -> int:
    """A field of the status of this process, in bytes."""
    lines = STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
