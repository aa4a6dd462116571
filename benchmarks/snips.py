"""What is asked of a voice assistant, and the slots of it: one network with two answers."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import line
import numpy as np
import polars as pl

import segue
from segue.fields.units import WORD

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "given", "column": "part"}},
    "inputs": {"words": {"kind": "text", "unit": "word", "lower": True, "least": 2, "size": 128}},
    "outputs": {"intent": {"task": "classify"}, "slots": {"task": "tag"}},
}
SETTINGS: dict[str, Any] = {
    "model": {"cell": "lstm", "hidden": 128, "bidirectional": True, "dropout": 0.5},
    "training": {"epochs": 8},
}
VALID = 700
"""Training queries, drawn with the seed 0, that choose the epoch."""


def table() -> pl.DataFrame:
    """A row per query of the official parts: its words, a slot for each, and the intent."""
    rows = [
        {"intent": intent.name, "part": part, **query}
        for intent in sorted((line.DATA / "snips_nlu").iterdir())
        if intent.is_dir()
        for part, name in (("train", "train_*_full.json.gz"), ("test", "validate_*.json"))
        for query in queries(next(intent.glob(name)))
    ]
    train = [place for place, row in enumerate(rows) if row["part"] == "train"]
    for place in np.random.default_rng(0).choice(train, VALID, replace=False):
        rows[place]["part"] = "valid"
    return pl.DataFrame(rows)


def queries(path: Path) -> Iterator[dict[str, list[str]]]:
    """The queries of a file, as words and as slots in the form ``B-artist I-artist O``."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    # One of the files is Latin-1.
    said = text.decode("latin-1" if path.name.startswith("train_PlayMusic") else "utf-8")
    (listed,) = json.loads(said).values()
    for query in listed:
        words, slots = [], []
        for piece in query["data"]:
            own = re.findall(WORD, piece["text"])
            words += own
            entity = piece.get("entity")
            slots += [
                f"{'I' if place else 'B'}-{entity}" if entity else "O" for place in range(len(own))
            ]
        yield {"words": words, "slots": slots}


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    spec = {**SPEC, "model": SETTINGS["model"], "training": {**SETTINGS["training"], "seed": seed}}
    run = segue.fit(spec, table())
    slots, intent = (run.evaluation.scores[name] for name in ("slots", "intent"))
    return line.result(
        run,
        value=slots.metrics["span_f1"],
        naive={name: metrics["span_f1"] for name, metrics in slots.baselines.items()},
        seed=seed,
        settings=SETTINGS,
        more={
            "intent_accuracy": round(intent.metrics["accuracy"], 4),
            "intent_majority": round(intent.baselines["majority"]["accuracy"], 4),
        },
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="snips",
        data="official parts, 700 training queries held out to choose the epoch",
        task="classify and tag in one network",
        metric="F1 of slots, and accuracy of intents",
        target=">= 0.88",
    )
