"""How many cycles a turbofan engine has left: NASA's C-MAPSS, FD001, capped at 125 cycles."""

from __future__ import annotations

from typing import Any

import line
import polars as pl

import segue

CAP = 125
SENSORS = [f"setting_{n}" for n in (1, 2, 3)] + [f"sensor_{n}" for n in range(1, 22)]
SPEC: dict[str, Any] = {
    "data": {
        "rows": "steps",
        "key": "unit",
        "time": "cycle",
        "split": {"by": "random", "valid": 0.15, "test": 0},
    },
    "inputs": {"se*": {"kind": "number"}},
    "outputs": {"left": {"task": "regress", "at": "every"}},
}
SETTINGS: dict[str, Any] = {}


def engines(part: str) -> pl.DataFrame:
    """The rows of train or test, with named columns."""
    path = line.DATA / "cmapss_fd001" / f"{part}_FD001.txt.gz"
    rows = pl.read_csv(path, separator=" ", has_header=False, infer_schema=False)
    rows = rows.select(rows.columns[: 2 + len(SENSORS)]).cast(pl.Float64)
    rows.columns = ["unit", "cycle", *SENSORS]
    return rows.with_columns(pl.col("unit", "cycle").cast(pl.Int64))


def test_table(truth: pl.Series) -> pl.DataFrame:
    """The test engines, with the true cycles left at the last step of each and nothing before."""
    rows = engines("test")
    last = rows.group_by("unit").agg(pl.col("cycle").max()).sort("unit")
    return rows.join(
        last.with_columns(left=truth), on=["unit", "cycle"], how="left", maintain_order="left"
    )


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    left = pl.col("cycle").max().over("unit") - pl.col("cycle")
    train = engines("train").with_columns(left=left.clip(upper_bound=CAP).cast(pl.Float64))
    run = segue.fit(SPEC, train, training={"seed": seed}, **SETTINGS)
    path = line.DATA / "cmapss_fd001" / "RUL_FD001.txt.gz"
    truth = pl.read_csv(path, has_header=False, infer_schema=False).to_series()
    truth = truth.str.strip_chars().cast(pl.Float64)
    score = run.evaluate(test_table(truth.clip(upper_bound=CAP))).scores["left"]
    uncapped = run.evaluate(test_table(truth)).scores["left"].metrics["rmse"]
    return line.result(
        run,
        value=score.metrics["rmse"],
        naive={name: metrics["rmse"] for name, metrics in score.baselines.items()},
        seed=seed,
        settings=SETTINGS,
        more={"against_uncapped_truth": round(uncapped, 4)},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="cmapss_fd001",
        data="FD001, 100 test engines, 15 % of the training engines held out to choose the epoch",
        task="regress at every step, read at the last",
        metric="RMSE in cycles, truth capped at 125",
        target="<= 16",
    )
