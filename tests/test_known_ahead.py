"""What is known ahead moves the forecast; a recurrent decoder also learns its after-effects."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl

import segue
from segue.run import Run

HORIZON = 8


def sales(steps: int = 1500) -> pl.DataFrame:
    """A sale adds 10 at once and, its effect halved from day to day, after it."""
    rng = np.random.default_rng(0)
    sale = (rng.random(steps) < 0.15).astype(float)
    effect = np.zeros(steps)
    for day in range(steps):
        effect[day] = 10 * sale[day] + (effect[day - 1] / 2 if day else 0.0)
    return pl.DataFrame(
        {"day": np.arange(steps), "sale": sale, "y": 50 + effect + 0.3 * rng.normal(size=steps)}
    )


@cache
def model(decoder: str) -> Run:
    spec = {
        "data": {
            "rows": "steps",
            "time": "day",
            "split": {"by": "time", "valid": 200, "test": 300},
        },
        "inputs": {"sale": {"kind": "number", "role": "known", "scale": "none"}},
        "outputs": {"y": {"task": "forecast", "horizon": HORIZON, "season": 1}},
        "model": {
            "hidden": 16,
            "segment": 2,
            "lookback": 60,
            "dropout": 0.0,
            "decoder": decoder,
        },
        "training": {"epochs": 40, "batch": 8, "learning_rate": 0.01},
    }
    return segue.fit(spec, sales())


def test_after_effects_are_learnt_by_a_decoder_that_goes_from_step_to_step() -> None:
    step, recurrent = (
        model(decoder).evaluation.scores["y"].metrics["mae"] for decoder in ("step", "recurrent")
    )
    # The noise alone is 0.24; a sale within the horizon goes on for days that a step cannot see.
    assert recurrent < 0.7 * step


def test_what_comes_later_ahead_changes_nothing_before() -> None:
    frame = sales(300)
    ahead = pl.DataFrame({"day": np.arange(300, 300 + HORIZON), "sale": np.zeros(HORIZON)})
    late = ahead.with_columns(sale=pl.Series([0.0] * 5 + [1.0] * 3))
    for decoder in ("step", "recurrent"):
        run = model(decoder)
        one, other = run.predict(frame, ahead=ahead)["y"], run.predict(frame, ahead=late)["y"]
        assert one[:5].equals(other[:5])
        assert (other[5:] - one[5:]).min() > 1.0
