"""Calibrated bands hold on what comes after, and change nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.conformal import _kth
from segue.errors import SpecError
from segue.evaluate import Score
from segue.run import Run
from segue.tasks import Forecast

LAWS = ["quantiles", "gaussian", "student_t", "negative_binomial"]


def noise(law: str, *, steps: int = 3000, seed: int = 0) -> pl.DataFrame:
    """Values without memory, spread as no law of the catalogue says; counts where it wants them."""
    rng = np.random.default_rng(seed)
    values = 50 + rng.exponential(8.0, steps) * rng.choice([-1, 2], steps)
    return pl.DataFrame({"x": values.clip(0).round() if law == "negative_binomial" else values})


def trained(law: str, *, conformal: bool, **options: Any) -> Run:
    """A model that has learnt little, so that its own band is wrong."""
    # A law of counts starts far from these, and a band never leaves out the point forecast.
    counts = law == "negative_binomial"
    spec = {
        "data": {"rows": "steps", "split": {"by": "time", "valid": 1000, "test": 1000}},
        "outputs": {
            "x": {
                "task": "forecast",
                "horizon": 3,
                "season": 1,
                "distribution": law,
                "conformal": conformal,
                **options,
            }
        },
        "model": {"hidden": 4, "segment": 2, "lookback": 6, "dropout": 0.0},
        "training": {"epochs": 3, "batch": 32, "learning_rate": 0.05 if counts else 2e-3},
    }
    return segue.fit(spec, noise(law))


def score(run: Run) -> Score:
    return run.evaluation.scores["x"]


@pytest.mark.parametrize("law", LAWS)
def test_a_calibrated_band_holds_what_it_says_on_held_out_values(law: str) -> None:
    plain, calibrated = trained(law, conformal=False), trained(law, conformal=True)
    metrics = score(calibrated).metrics
    assert metrics["nominal"] == 0.8
    # 1,000 values to calibrate on and 1,000 to score: two deviations of both are 0.036.
    assert abs(metrics["coverage"] - 0.8) < 0.036
    assert abs(score(plain).metrics["coverage"] - 0.8) > 0.05


@pytest.mark.parametrize("law", ["quantiles", "student_t"])
def test_each_tail_is_calibrated_by_itself(law: str) -> None:
    run = trained(law, conformal=True, quantiles=[0.05, 0.3, 0.5, 0.9])
    task = run.trained.tasks["x"]
    assert isinstance(task, Forecast)
    found, truth = task.values(run.evaluation.outputs["x"]), run.evaluation.targets["x"].values
    below = (truth[..., None] <= found).double().mean((0, 1, 2))
    for level, share in zip(task.quantiles, below.tolist(), strict=True):
        if level != 0.5:
            assert abs(share - level) < 0.036


@pytest.mark.parametrize("law", LAWS)
def test_the_point_forecast_and_the_training_stay_as_they_were(law: str) -> None:
    plain, calibrated = trained(law, conformal=False), trained(law, conformal=True)
    assert score(plain).metrics["mae"] == score(calibrated).metrics["mae"]
    frame = noise(law, steps=40, seed=1)
    assert plain.predict(frame)["x"].equals(calibrated.predict(frame)["x"])


@pytest.mark.parametrize("law", LAWS)
def test_calibrated_quantiles_are_in_order_live_and_after_saving(law: str, tmp_path: Path) -> None:
    run, frame = trained(law, conformal=True), noise(law, steps=40, seed=2)
    made = run.predict(frame)
    rows = made.select("x_q10", "x_q50", "x_q90").to_numpy()
    assert (np.diff(rows, axis=1) >= 0).all()
    session = run.session()
    live = [session.step(record) for record in frame.to_dicts()][-1]
    for column in ("x", "x_q10", "x_q90"):
        assert live[column] == made[column].to_list()
    run.save(tmp_path / "run")
    assert segue.load(tmp_path / "run").predict(frame).equals(made)


def test_the_rank_is_that_of_the_equation() -> None:
    task = Forecast(
        "x", ("x",), Forecast.Spec(task="forecast", horizon=1, quantiles=(0.1, 0.5, 0.9))
    )
    scores = torch.arange(1.0, 31.0, dtype=torch.float64)[torch.randperm(30)]
    scores = scores.view(30, 1, 1, 1).expand(-1, 1, 1, 3).clone()
    # 31 * 0.9 = 27.9 and 31 * 0.1 = 3.1; the median stays.
    assert _kth(scores, task, nothing=0.0).tolist() == [[3.0, 0.0, 28.0]]
    scores[5:] = torch.nan
    # Of five values none is as rare as 0.1: the outermost ones stand for it.
    assert _kth(scores, task, nothing=0.0)[0, [0, 2]].tolist() == [
        float(scores[:5].min()),
        float(scores[:5].max()),
    ]
    scores[:] = torch.nan
    assert _kth(scores, task, nothing=0.0).tolist() == [[0.0, 0.0, 0.0]]


def test_without_a_validation_part_there_is_nothing_to_calibrate_on() -> None:
    spec = {
        "data": {"rows": "steps", "split": {"by": "time", "valid": 0, "test": 100}},
        "outputs": {"x": {"task": "forecast", "horizon": 2, "conformal": True}},
    }
    with pytest.raises(SpecError) as refused:
        segue.fit(spec, noise("quantiles"))
    assert str(refused.value) == (
        "outputs.x.conformal: expected a validation part, got none; "
        "give one by data.split.valid, or leave it out"
    )


def test_a_single_quantile_has_no_band() -> None:
    with pytest.raises(SpecError) as refused:
        trained("quantiles", conformal=True, quantiles=[0.5])
    assert "at least two quantiles with `conformal: true`" in str(refused.value)


def test_counts_are_whole_and_not_below_zero() -> None:
    spec = {
        "data": {"rows": "steps"},
        "outputs": {"x": {"task": "forecast", "horizon": 2, "distribution": "negative_binomial"}},
    }
    with pytest.raises(segue.errors.DataError) as refused:
        segue.fit(spec, pl.DataFrame({"x": [1.0, 2.0, 2.5, 4.0] * 20}))
    assert str(refused.value) == (
        "frame: column 'x': expected counts 0, 1, 2, ... for negative_binomial, got 2.5; "
        "choose another distribution"
    )
