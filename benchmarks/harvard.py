"""Read sentences to text: eight are learnt by heart, which says that all parts fit together."""

from __future__ import annotations

from typing import Any

import line
import polars as pl

import segue

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "key": "id", "split": {"by": "none"}},
    "inputs": {"recording": {"kind": "audio", "rate": 16_000, "stack": 3}},
    "outputs": {"words": {"task": "transcribe"}},
}
SETTINGS: dict[str, Any] = {
    "model": {"cell": "lstm", "hidden": 128, "dropout": 0.0},
    "training": {"epochs": 300, "batch": 8, "learning_rate": 5e-3},
}


def table(split: str) -> pl.DataFrame:
    """A row per sentence of a part: its recording and its words."""
    folder = line.DATA / "harvard_asr_mini"
    told = pl.read_csv(folder / "transcripts.tsv", separator="\t").filter(pl.col("split") == split)
    places = [str(folder / "wav" / f"{name}.wav") for name in told["id"]]
    return told.select("id", "words", recording=pl.Series(places))


def once(seed: int) -> dict[str, Any]:
    """Train and score on the same sentences with one seed."""
    spec = {**SPEC, "model": SETTINGS["model"], "training": {**SETTINGS["training"], "seed": seed}}
    run = segue.fit(spec, table("train"))
    known, new = (run.evaluate(table(split)).scores["words"] for split in ("train", "dev"))
    return line.result(
        run,
        value=known.metrics["character_error_rate"],
        naive={name: metrics[known.main] for name, metrics in known.baselines.items()},
        seed=seed,
        settings=SETTINGS,
        more={"two_new_sentences": round(new.metrics["character_error_rate"], 3)},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="harvard",
        data="eight sentences of two speakers, scored on the same eight",
        task="transcribe",
        metric="character error rate",
        target="<= 0.0",
    )
