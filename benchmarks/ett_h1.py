"""Seven columns of an electricity transformer, 96 hours ahead, on the official split of ETTh1."""

from __future__ import annotations

from typing import Any

import line

import segue

SPEC: dict[str, Any] = {
    "data": {
        "rows": "steps",
        "time": "date",
        "split": {"by": "time", "train": 8640, "valid": 2880, "test": 2880},
    },
    "inputs": {"date": {"kind": "timestamp"}},
    "outputs": {"[A-Z]*": {"task": "forecast", "horizon": 96}},
}
SETTINGS: dict[str, Any] = {}


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    run = segue.fit(SPEC, line.DATA / "ett_h1" / "ETTh1.csv", training={"seed": seed}, **SETTINGS)
    evaluation = run.evaluation
    score = evaluation.scores["[A-Z]*"]
    naive = {name: metrics["mse_scaled"] for name, metrics in score.baselines.items()}
    return line.result(
        run,
        value=score.metrics["mse_scaled"],
        naive=naive,
        seed=seed,
        settings=SETTINGS,
        more={"origins": evaluation.count, "mase": round(score.metrics["mase"], 4)},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="ett_h1",
        data="ETTh1, official split, all 2785 origins of the test part",
        task="forecast of 7 columns, horizon 96",
        metric="MSE in units of the training standard deviation",
        target="<= 0.40",
    )
