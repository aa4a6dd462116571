"""Recurrent layers on a CUDA device: ours against torch.nn, a loop in torch, and packed sequences.

    python benchmarks/on_cuda.py --save

The kernels of this package are for the CPU. On a device its laws run by cuDNN where that has them,
and else step by step or by a scan in torch: these figures say what that costs. cuDNN multiplies in
float32 here, for all contestants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ragged
import torch
from contest import OURS, Options, options, publish, race
from linear import linear
from peers import CELLS, SIZES, TINY, by_torch, ours, problem
from variants import layer_norm, named


def plain(said: Options) -> Iterator[dict[str, Any]]:
    """Elman, GRU and LSTM, forward and training, over all sizes."""
    for size in TINY if said.quick else SIZES:
        for law in CELLS:
            for is_training in (False, True):
                work = problem(law, size, is_training)
                peers = {
                    "torch": by_torch(work, batch_first=True),
                    "torch time-major": by_torch(work, batch_first=False),
                }
                found = race({OURS: ours(work), **peers}, said.pace)
                yield said.line("plain", {**named(work), **found})


def unequal(said: Options) -> Iterator[dict[str, Any]]:
    """Sequences of unequal length, against padded and packed ones."""
    for one in ragged.cases(replace(said, only=ragged.LAWS)):
        yield {**one, "case": "ragged"}


CASES = {"plain": plain, "ragged": unequal, "linear": linear, "layer_norm": layer_norm}

if __name__ == "__main__":
    asked = options("on_cuda", list(CASES), ("torch",), "recurrent layers on a CUDA device")
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")
    torch.set_default_device("cuda")
    torch.backends.cudnn.allow_tf32 = False
    # What the clock waits for is the processors' own business; here the device does the work.
    asked = replace(asked, pace=replace(asked.pace, patience=0.0))
    for case in asked.only:
        publish(asked, CASES[case](asked))
