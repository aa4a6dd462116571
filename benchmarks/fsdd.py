"""Which digit is spoken, in the Free Spoken Digit Dataset.

The official split: recordings 0-4 of each digit and speaker are the test. Of the others 5-9 are not
trained on; they choose the epoch, and the settings were chosen on them.
"""

from __future__ import annotations

from typing import Any

import line
import polars as pl

import segue
from segue.run import declare

SPEC = declare(line.ROOT / "examples" / "spoken_digits.yaml")


def table() -> pl.DataFrame:
    """A row per recording."""
    rows = []
    for path in sorted((line.DATA / "fsdd" / "recordings").glob("*.wav")):
        digit, speaker, index = path.stem.split("_")
        part = "test" if int(index) < 5 else "valid" if int(index) < 10 else "train"
        rows.append({"path": str(path), "digit": digit, "speaker": speaker, "part": part})
    return pl.DataFrame(rows)


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    run = segue.fit(SPEC, table(), training={"seed": seed})
    evaluation = run.evaluation
    score = evaluation.scores["digit"]
    said = SPEC.to_dict()
    return line.result(
        run,
        value=score.metrics["accuracy"],
        naive={name: metrics["accuracy"] for name, metrics in score.baselines.items()},
        seed=seed,
        settings={name: said[name] for name in ("model", "training")},
        more={"recordings": evaluation.count},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="fsdd",
        data="Free Spoken Digit Dataset, four speakers, official split",
        task="classify recordings",
        metric="accuracy",
        target=">= 0.97",
    )
