"""Recurrent layers, forward and training, against torch.nn, JAX and ONNX Runtime.

    python benchmarks/layers.py --save             # every case, on all cores
    python benchmarks/layers.py --only plain       # one of them

A line per law and size: milliseconds of each contestant, the ratio of the best peer's time to ours,
and our share of the machine's matrix peak, measured in the same process.
"""

from __future__ import annotations

import inspect
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contest import OURS, Contestant, Options, options, publish, race, rounded, skip
from peak import peak
from peers import CELLS, SIZES, TINY, Problem, by_torch, ours, problem
from peers_jax import by_flax, by_scan
from peers_onnx import by_onnx
from variants import bfloat16, layer_norm, named, resets

from segue.layers import unroll

HERE = Path(__file__).resolve().parent
LIBRARIES = ("torch", "jax", "flax", "onnxruntime")
IMPORT = """
import json, time
import torch
began = time.perf_counter()
spent = []
import segue
for names in ((), ("cells", "layers", "nn", "Ragged", "unroll"), segue.__all__):
    for name in names:
        getattr(segue, name)
    spent.append(time.perf_counter() - began)
print(json.dumps(spent))
"""
"""The package imports a name when it is first used, so ``import segue`` alone says little."""


def plain(said: Options) -> Iterator[dict[str, Any]]:
    """Elman, GRU and LSTM, forward and training, over all sizes."""
    fastest = peak(said.pace, said.quick)
    for size in TINY if said.quick else SIZES:
        for law in CELLS:
            for is_training in (False, True):
                work = problem(law, size, is_training)
                found = race(contestants(work, said.threads), said.pace)
                gflops = work.flops() / found["ms"][OURS] / 1e6
                speed = {"gflops": rounded(gflops), "share": rounded(gflops / fastest["gflops"])}
                yield said.line("plain", {**named(work), **found, **speed, "peak": fastest})


def contestants(work: Problem, threads: int) -> dict[str, Contestant]:
    """Ours and every peer that can do the work."""
    found = {
        OURS: ours(work),
        "torch": by_torch(work, batch_first=True),
        "torch time-major": by_torch(work, batch_first=False),
        "flax": by_flax(work),
        "jax scan": by_scan(work, unroll=1),
        "jax scan unrolled": by_scan(work, unroll=4),
    }
    if not work.is_training:
        found["onnxruntime"] = by_onnx(work, threads)
    return found


def memory(said: Options) -> Iterator[dict[str, Any]]:
    """Peak memory of training on one long sequence, with and without checkpoints."""
    if "checkpoint" not in inspect.signature(unroll).parameters:
        skip("memory", "segue.layers.unroll takes no checkpoint")
        return
    steps, hidden = (2_000, 16) if said.quick else (100_000, 128)
    for law in ("LSTM",) if said.quick else CELLS:
        for checkpoint in ("sqrt", "none"):
            words = ["--law", law, "--steps", str(steps), "--hidden", str(hidden)]
            command = [str(HERE / "memory.py"), *words, "--checkpoint", checkpoint]
            found = json.loads(fresh(*command))
            size = {"law": law, "mode": "training", "size": [1, steps, hidden, hidden]}
            yield said.line("memory", {**size, "checkpoint": checkpoint, **found})


def importing(said: Options) -> Iterator[dict[str, Any]]:
    """Seconds of ``import segue`` after ``import torch``, with its layers, and with all names."""
    times = [json.loads(fresh("-c", IMPORT)) for _ in range(said.pace.rounds)]
    medians = [rounded(statistics.median(column)) for column in zip(*times, strict=True)]
    names = ("package", "with_layers", "with_all_names")
    yield said.line("import", {"seconds": dict(zip(names, medians, strict=True))})


def fresh(*words: str) -> str:
    """What Python prints in a process of its own."""
    command = [sys.executable, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


CASES = {
    "plain": plain,
    "layer_norm": layer_norm,
    "resets": resets,
    "bfloat16": bfloat16,
    "memory": memory,
    "import": importing,
}

if __name__ == "__main__":
    asked = options("layers", list(CASES), LIBRARIES, "recurrent layers against their peers")
    for case in asked.only:
        publish(asked, CASES[case](asked))
