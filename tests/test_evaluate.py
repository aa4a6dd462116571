"""What is scored, beside which naive answers, and on which rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from catalogue_models import row_named

import segue
from segue.errors import DataError
from segue.evaluate import Evaluation, Score
from segue.run import Run

HOURS = [datetime(2026, 1, 1) + timedelta(hours=h) for h in range(400)]


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments)
    return str(caught.value)


def waves(steps: int = 120) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    wave = 10 + np.sin(np.arange(steps) * 2 * np.pi / 6) + 0.1 * rng.normal(size=steps)
    return pl.DataFrame({"time": HOURS[:steps], "v": wave})


def forecaster(split: dict[str, Any], steps: int = 120) -> Run:
    spec = {
        "data": {"rows": "steps", "time": "time", "split": split},
        "inputs": {},
        "outputs": {"v": {"task": "forecast", "horizon": 4, "season": 6}},
        "model": {"hidden": 4, "segment": 6, "lookback": 12},
        "training": {"epochs": 2},
    }
    return segue.fit(spec, waves(steps))


# Scope --------------------------------------------------------------------------------------------


def test_on_the_training_data_only_the_test_part_counts() -> None:
    run = forecaster({"by": "time", "valid": 20, "test": 30})
    evaluation = run.evaluate(waves())
    assert evaluation.scope == "the test part of the training data (30 steps)"
    assert evaluation.count == 27
    assert run.evaluation is not None
    assert evaluation.frame().equals(run.evaluation.frame())


def test_without_a_test_part_the_validation_part_counts() -> None:
    run = forecaster({"by": "time", "valid": 20, "test": 0})
    assert run.evaluate(waves()).scope == "the valid part of the training data (20 steps)"


def test_without_any_part_held_out_it_says_so() -> None:
    run = forecaster({"by": "none"})
    assert run.evaluation is None
    assert run.evaluate(waves()).scope == (
        "the training data themselves: no part was held out, so this says little"
    )


def test_on_longer_data_only_what_came_after_the_training_part_counts() -> None:
    run = forecaster({"by": "none"})
    evaluation = run.evaluate(waves(150))
    assert evaluation.scope == "the 30 steps after the training part"
    assert evaluation.count == 27
    assert evaluation.part.start.tolist() == [120]


def test_on_other_data_everything_counts() -> None:
    row = row_named("classify-plain")
    other = row.frame.with_columns(z=pl.col("z") + 1)
    evaluation = row.run.evaluate(other)
    assert evaluation.scope == "all 3 sequences (32 steps)"
    assert evaluation.count == 3


def test_data_are_recognised_whatever_they_come_in() -> None:
    run = forecaster({"by": "time", "valid": 0, "test": 30})
    assert run.evaluate(waves().to_dict(as_series=False)).scope.startswith("the test part")


# Scores -------------------------------------------------------------------------------------------


def test_a_forecast_is_scored_against_what_came_and_so_are_the_naive_answers() -> None:
    evaluation = forecaster({"by": "time", "valid": 0, "test": 30}).evaluation
    assert evaluation is not None
    v = waves()["v"].to_numpy()
    origins = np.arange(89, 116)
    target = v[origins[:, None] + np.arange(1, 5)]
    forecast = evaluation.outputs["v"][:, 0, :, 1].numpy()
    np.testing.assert_array_equal(evaluation.targets["v"].values[:, 0].numpy(), target)
    score = evaluation.scores["v"]
    unit = np.abs(v[6:90] - v[:84]).mean()
    assert score.metrics["mae"] == pytest.approx(np.abs(forecast - target).mean())
    assert score.metrics["mase"] == pytest.approx(np.abs(forecast - target).mean() / unit)
    naive = np.abs(v[origins][:, None] - target).mean()
    seasonal = np.abs(v[origins[:, None] + np.arange(1, 5) - 6] - target).mean()
    assert score.baselines["last value"]["mae"] == pytest.approx(naive)
    assert score.baselines["seasonal naive"]["mae"] == pytest.approx(seasonal)
    inside = evaluation.outputs["v"][:, 0, :, [0, 2]].numpy()
    covered = (inside[..., 0] <= target) & (target <= inside[..., 1])
    assert score.metrics["coverage"] == pytest.approx(covered.mean())


def test_the_best_naive_answer_is_that_with_the_best_main_metric() -> None:
    naive = {"a": {"rmse": 2.0, "accuracy": 0.1}, "b": {"rmse": 1.0, "accuracy": 0.3}}
    low = Score("regress", "rmse", True, {"rmse": 1.5}, naive)
    assert (low.best_baseline, low.beats_naive) == ("b", False)
    high = Score("classify", "accuracy", False, {"accuracy": 0.5}, naive)
    assert (high.best_baseline, high.beats_naive) == ("b", True)
    nan = Score("regress", "rmse", True, {"rmse": float("nan")}, naive)
    assert nan.beats_naive is False


def test_the_frame_has_a_row_per_answer() -> None:
    evaluation = forecaster({"by": "time", "valid": 0, "test": 30}).evaluation
    assert isinstance(evaluation, Evaluation)
    frame = evaluation.frame()
    assert frame["answer"].to_list() == [
        "model",
        "last value",
        "drift",
        "seasonal naive",
        "seasonal naive with drift",
    ]
    assert frame["output"].to_list() == ["v"] * 5
    assert frame["mase"][0] == evaluation.scores["v"].metrics["mase"]


def test_scores_depend_on_nothing_after_the_last_target() -> None:
    run = forecaster({"by": "time", "valid": 0, "test": 30})
    frame = waves(150)
    evaluation = run.evaluate(frame[:130])
    longer = run.evaluate(frame)
    count = evaluation.count
    assert longer.count == count + 20
    assert evaluation.outputs["v"].equal(longer.outputs["v"][:count])


# What is refused ----------------------------------------------------------------------------------


def test_a_missing_target_is_refused() -> None:
    row = row_named("tag-plain")
    message = refused(row.run.evaluate, row.frame.drop("state"))
    assert message == (
        "frame: expected the target column 'state' of state, "
        "got the columns key, time, x, z, word, site, size, kind; add it, or use predict"
    )


def test_too_few_steps_to_score_are_refused() -> None:
    run = forecaster({"by": "none"})
    assert refused(run.evaluate, waves(300)[200:203]) == (
        "frame: expected sequences longer than the horizon (4), got 3 steps in 1 sequences; "
        "give more data"
    )
