"""The one line of JSON that a benchmark prints, and what it says about the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import segue

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SEGUE_DATA", ROOT.parent / "shared" / "data"))
"""Where the data sets lie; each has a README with its format, split and reference figures."""


def machine() -> str:
    """The processor, its cores, the threads that torch uses, and a CUDA device in use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    found = f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{found}, {torch.cuda.get_device_name()}" if torch.cuda.is_initialized() else found


def result(
    run: segue.Run,
    *,
    value: float,
    naive: Mapping[str, float],
    seed: int,
    settings: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One seed's part of the line.

    Args:
        value: the metric on the official test part.
        naive: the same metric of simpler answers.
        settings: what the declaration says beyond the data, the inputs and the outputs.
        more: other figures worth printing.
    """
    return {
        "value": float(f"{value:.5g}"),
        "naive": {name: float(f"{score:.5g}") for name, score in naive.items()},
        "seconds": round(run.facts["seconds"], 1),
        "seed": seed,
        "parameters": run.facts["parameters"],
        "settings": dict(settings),
        **(more or {}),
    }


def main(
    once: Callable[[int], dict[str, Any]],
    *,
    benchmark: str,
    data: str,
    task: str,
    metric: str,
    target: str,
    first: int = 0,
    words: Sequence[str] | None = None,
) -> None:
    """Run a benchmark for the seeds that the command line asks for, and print a line for each.

    Args:
        once: trains and scores with one seed and gives its `result`.
        benchmark, data, task, metric: what is measured, in words.
        target: what must be reached, such as ``<= 0.40`` or ``>= 0.96``; empty where nothing must.
        first: the first seed.
        words: of the command line; by default all.
    """
    parser = argparse.ArgumentParser(description=f"{benchmark}: {metric}, target {target}")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--first", type=int, default=first, help="the first of them")
    said = parser.parse_args(words)
    head = {"benchmark": benchmark, "data": data, "task": task, "metric": metric, "target": target}
    tail = {"segue": segue.__version__, "torch": torch.__version__, "machine": machine()}
    lines = []
    for seed in range(said.first, said.first + said.seeds):
        found = once(seed)
        if "reached" not in found:
            found["reached"] = reached(found["value"], target)
        lines.append({**head, **found, **tail})
        print(json.dumps(lines[-1]), flush=True)
    if said.seeds > 1:
        print(json.dumps({**head, **summary(lines, target), **tail}), flush=True)


def summary(lines: list[dict[str, Any]], target: str) -> dict[str, Any]:
    """The median and the worst of several seeds."""
    values = sorted(line["value"] for line in lines)
    seconds = [line["seconds"] for line in lines]
    return {
        "summary": True,
        "value": float(f"{statistics.median(values):.5g}"),
        "worst": values[0] if target.startswith(">") or not target else values[-1],
        "reached": f"{sum(line['reached'] for line in lines)} of {len(lines)} seeds",
        "seconds": round(statistics.median(seconds), 1),
        "slowest": max(seconds),
        "seeds": [line["seed"] for line in lines],
    }


def reached(value: float, target: str) -> bool:
    """Whether a value is on the right side of a target such as ``<= 0.40``; always without one."""
    sign, _, bound = target.partition(" ")
    if not bound:
        return True
    limit = float(bound)
    return {"<": value < limit, "<=": value <= limit, ">=": value >= limit}[sign]
