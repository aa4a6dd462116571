"""The 414 hourly series of the M4 competition, 48 hours ahead."""

from __future__ import annotations

from typing import Any

import line
import polars as pl
import yaml

import segue

SPEC: dict[str, Any] = yaml.safe_load((line.ROOT / "examples" / "m4_hourly.yaml").read_text())


def long_table() -> pl.DataFrame:
    """Both files as rows of series, hour and value: the 48 hours of the test file last."""
    folder = line.DATA / "m4_hourly"
    # unpivot goes column by column, so the rows of a series come in the order of its columns.
    rows = pl.concat(
        pl.read_csv(folder / f"Hourly-{part}.csv.gz", infer_schema=False).unpivot(index="V1")
        for part in ("train", "test")
    ).drop_nulls("value")
    return rows.select(
        series="V1",
        hour=pl.int_range(pl.len()).over("V1"),
        value=pl.col("value").cast(pl.Float64),
    )


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    training = {**SPEC.get("training", {}), "seed": seed}
    run = segue.fit({**SPEC, "training": training}, long_table())
    evaluation = run.evaluation
    score = evaluation.scores["value"]
    naive = {name: metrics["smape"] for name, metrics in score.baselines.items()}
    return line.result(
        run,
        value=score.metrics["smape"],
        naive=naive,
        seed=seed,
        settings={
            "outputs": {"season": 24, "unit": "level"},
            **{part: SPEC[part] for part in ("model", "training") if part in SPEC},
        },
        more={"series": evaluation.count, "mase": round(score.metrics["mase"], 4)},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="m4_hourly",
        data="M4 hourly, 414 series, the official test file",
        task="forecast of many series, horizon 48",
        metric="sMAPE in per cent",
        target="<= 11.5",
    )
