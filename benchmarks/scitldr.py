"""One sentence on a paper from its abstract: SciTLDR, abstracts only, the official parts."""

from __future__ import annotations

import gzip
import json
from typing import Any

import line
import polars as pl

import segue

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "given", "column": "part"}},
    "inputs": {"abstract": {"kind": "text", "unit": "word", "least": 2, "size": 128}},
    "outputs": {
        "summary": {
            "task": "summarise",
            "unit": "word",
            "vocabulary": 5000,
            "size": 128,
            "copying": "abstract",
        }
    },
}
SETTINGS: dict[str, Any] = {
    "model": {"bidirectional": True, "hidden": 128, "dropout": 0.3},
    "training": {"epochs": 15, "batch": 16, "learning_rate": 2e-3},
}
PARTS = {"train": "train", "dev": "valid", "test": "test"}
SCORES = ("rouge1", "rouge2", "rougeL")


def table() -> pl.DataFrame:
    """A row per paper: the abstract, its summaries, and the part."""
    rows = []
    for name, part in PARTS.items():
        path = line.DATA / "scitldr_a" / f"{name}.jsonl.gz"
        for text in gzip.decompress(path.read_bytes()).decode().splitlines():
            paper = json.loads(text)
            abstract = " ".join(sentence.strip() for sentence in paper["source"])
            rows.append({"abstract": abstract, "summary": paper["target"], "part": part})
    return pl.DataFrame(rows)


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    said = {**SETTINGS, "training": {**SETTINGS["training"], "seed": seed}}
    run = segue.fit(SPEC, table(), **said)
    score = run.evaluation.scores["summary"]
    answers = {"model": score.metrics, **score.baselines}
    return line.result(
        run,
        value=score.metrics["rougeL"],
        naive={name: metrics["rougeL"] for name, metrics in score.baselines.items()},
        seed=seed,
        settings=SETTINGS,
        more={
            f"{name}_{answer.replace(' ', '_')}": round(metrics[name], 2)
            for answer, metrics in answers.items()
            for name in SCORES
        },
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="scitldr",
        data="SciTLDR, abstracts only, 1,992 papers, official test part",
        task="summarise",
        metric="ROUGE-L (F, without stemming, the best of the references)",
        target="",
    )
