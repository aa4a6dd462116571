"""Three problems of the UCR / UEA archive, on their official training and test files."""

from __future__ import annotations

import sys
from typing import Any

import line

import segue

TARGETS = {"JapaneseVowels": ">= 0.96", "ItalyPowerDemand": ">= 0.95", "BasicMotions": ">= 0.95"}
SETTINGS: dict[str, Any] = {}


def spec(name: str) -> dict[str, Any]:
    """The declaration; all training cases train."""
    column = "value" if name == "ItalyPowerDemand" else "dim_*"
    return {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {column: {"kind": "number"}},
        "outputs": {"label": {"task": "classify"}},
    }


def once(name: str, seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    folder = line.DATA / "ucr_uea" / name
    run = segue.fit(spec(name), folder / f"{name}_TRAIN.ts", training={"seed": seed}, **SETTINGS)
    score = run.evaluate(folder / f"{name}_TEST.ts").scores["label"]
    naive = {answer: metrics["accuracy"] for answer, metrics in score.baselines.items()}
    return line.result(
        run, value=score.metrics["accuracy"], naive=naive, seed=seed, settings=SETTINGS
    )


if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit("usage: python benchmarks/ucr.py " + "|".join(TARGETS) + " [--seeds N]")
    line.main(
        lambda seed: once(name, seed),
        benchmark=name,
        data=f"{name}, official files",
        task="classify",
        metric="accuracy",
        target=TARGETS[name],
        first=10 if name == "BasicMotions" else 0,
    )
