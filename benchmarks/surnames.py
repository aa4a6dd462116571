"""The language of a surname, read character by character; repeated names are removed first."""

from __future__ import annotations

from typing import Any

import line
import polars as pl

import segue

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "random", "valid": 0, "test": 0.2}},
    "inputs": {"name": {"kind": "text"}},
    "outputs": {"language": {"task": "classify"}},
}
SETTINGS: dict[str, Any] = {}


def table() -> pl.DataFrame:
    """A row per surname and language, each pair once."""
    rows = [
        {"name": name, "language": path.stem}
        for path in sorted((line.DATA / "surnames" / "names").glob("*.txt"))
        for name in path.read_text(encoding="utf-8").split("\n")
        if name
    ]
    return pl.DataFrame(rows).unique(maintain_order=True)


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed, which draws the split too."""
    run = segue.fit(SPEC, table(), training={"seed": seed}, **SETTINGS)
    evaluation = run.evaluation
    score = evaluation.scores["language"]
    return line.result(
        run,
        value=score.metrics["macro_f1"],
        naive={name: metrics["macro_f1"] for name, metrics in score.baselines.items()},
        seed=seed,
        settings=SETTINGS,
        more={
            "accuracy": round(score.metrics["accuracy"], 4),
            "majority_accuracy": round(score.baselines["majority"]["accuracy"], 4),
            "names": evaluation.count,
        },
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="surnames",
        data="18 languages, repeats removed, 20 % of the names drawn for test",
        task="classify text",
        metric="macro-F1",
        target="",
    )
