"""The next chord of Bach's chorales: a set of notes per quarter note, on the official split."""

from __future__ import annotations

import json
from typing import Any

import line
import polars as pl

import segue

SPEC: dict[str, Any] = {
    "data": {"rows": "steps", "key": "chorale", "split": {"by": "given", "column": "part"}},
    "inputs": {"notes": {"kind": "many_hot"}},
    "outputs": {"notes": {"task": "next"}},
}
SETTINGS: dict[str, Any] = {}


def table() -> pl.DataFrame:
    """A row per step: the chorale, its part of the split, and the notes."""
    path = line.DATA / "jsb_chorales" / "jsb-chorales-quarter.json"
    parts = json.loads(path.read_text())
    rows = [
        {"chorale": f"{part} {number}", "part": part, "notes": notes}
        for part, chorales in parts.items()
        for number, chorale in enumerate(chorales)
        for notes in chorale
    ]
    return pl.DataFrame(rows, schema_overrides={"notes": pl.List(pl.Int64)})


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    run = segue.fit(SPEC, table(), training={"seed": seed}, **SETTINGS)
    score = run.evaluation.scores["notes"]
    naive = {name: metrics["nll"] for name, metrics in score.baselines.items()}
    return line.result(run, value=score.metrics["nll"], naive=naive, seed=seed, settings=SETTINGS)


if __name__ == "__main__":
    line.main(
        once,
        benchmark="jsb_chorales",
        data="382 chorales, official split; every step but the first of a chorale",
        task="next chord (many-hot)",
        metric="negative log-likelihood per step, nats",
        target="<= 8.6",
    )
