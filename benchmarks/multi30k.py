"""Captions of pictures from German into English, Multi30k task 1, on the test file of 2016.

The captions are for non-commercial research; no picture is read.
"""

from __future__ import annotations

import gzip
from typing import Any

import line
import polars as pl

import segue

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "given", "column": "part"}},
    "inputs": {"german": {"kind": "text", "unit": "bpe", "size": 192}},
    "outputs": {"english": {"task": "translate", "hidden": 256, "size": 192}},
}
SETTINGS: dict[str, Any] = {
    "model": {"bidirectional": True, "hidden": 192, "dropout": 0.3},
    "training": {"epochs": 8, "learning_rate": 2e-3},
}
PARTS = {"train": "train", "val": "valid", "test_2016_flickr": "test"}


def pairs(name: str) -> dict[str, list[str]]:
    """The sentences of a part in both languages."""
    found = {}
    for column, suffix in (("german", "de"), ("english", "en")):
        path = line.DATA / "multi30k_de_en" / f"{name}.{suffix}.gz"
        text = gzip.decompress(path.read_bytes()).decode()
        found[column] = [sentence.strip() for sentence in text.removesuffix("\n").split("\n")]
    return found


def table() -> pl.DataFrame:
    """A row per pair, with its part."""
    return pl.concat(
        pl.DataFrame(pairs(name)).with_columns(part=pl.lit(part)) for name, part in PARTS.items()
    )


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    said = {**SETTINGS, "training": {**SETTINGS["training"], "seed": seed}}
    run = segue.fit(SPEC, table(), **said)
    score = run.evaluation.scores["english"]
    later = run.evaluate(pl.DataFrame(pairs("test_2017_flickr"))).scores["english"]
    return line.result(
        run,
        value=score.metrics["bleu"],
        naive={name: metrics["bleu"] for name, metrics in score.baselines.items()},
        seed=seed,
        settings=SETTINGS,
        more={
            "chrf": round(score.metrics["chrf"], 2),
            "token_accuracy": round(score.metrics["token_accuracy"], 4),
            "nll": round(score.metrics["nll"], 4),
            "bleu_2017": round(later.metrics["bleu"], 2),
        },
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="multi30k",
        data="Multi30k task 1, 29,000 pairs, German to English, test_2016_flickr",
        task="translate",
        metric="BLEU (sacrebleu, cased, raw text)",
        target=">= 28",
    )
