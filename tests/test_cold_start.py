"""A key that was never seen is forecast from its first row on."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest

import segue
from segue.run import Run

HORIZON = 4
SHOPS = 24


def shop(name: str, seed: int, rows: int = 80) -> pl.DataFrame:
    """Values around a level of the key's own, with a spread of a tenth of it and a short season."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(4.0, 0.5))
    wave = 1 + 0.1 * np.sin(np.arange(rows) * np.pi / 2) + 0.05 * rng.normal(size=rows)
    region = ["north", "south"][seed % 2]
    return pl.DataFrame(
        {"shop": name, "day": np.arange(rows), "sales": level * wave, "region": region}
    )


@cache
def model(law: str) -> Run:
    spec = {
        "data": {"rows": "steps", "key": "shop", "time": "day"},
        "inputs": {"region": {"kind": "category", "role": "static", "unknown": "allow"}},
        "outputs": {
            "sales": {"task": "forecast", "horizon": HORIZON, "season": 4, "distribution": law}
        },
        "model": {"hidden": 8, "segment": 2, "lookback": 12, "dropout": 0.0},
        "training": {"epochs": 40, "batch": 16, "learning_rate": 0.01},
    }
    return segue.fit(spec, pl.concat(shop(f"old {k}", k) for k in range(SHOPS)))


@pytest.mark.parametrize("law", ["quantiles", "gaussian", "student_t"])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_new_key_has_a_forecast_from_its_first_row(law: str, rows: int) -> None:
    fresh = shop("new", 1000)
    made = model(law).predict(fresh[:rows])
    low, point, high = (made[f"sales{end}"].to_numpy() for end in ("_q10", "", "_q90"))
    assert made.height == HORIZON and np.isfinite([low, point, high]).all()
    assert ((low <= point) & (point <= high)).all()
    # What its values tell of their spread is little; the usual one stands in, a tenth of the level.
    level = fresh["sales"][:rows].mean()
    assert ((0.03 * level < high - low) & (high - low < 1.0 * level)).all()


@pytest.mark.parametrize("law", ["quantiles", "gaussian"])
def test_bands_for_new_keys_hold_after_a_few_rows(law: str) -> None:
    fresh = [shop(f"new {k}", 1000 + k) for k in range(200)]
    shares = {}
    for rows in (1, 5, 12, 40):
        made = model(law).predict(pl.concat(one[:rows] for one in fresh))
        truth = np.concatenate([one["sales"][rows : rows + HORIZON].to_numpy() for one in fresh])
        low, high = made["sales_q10"].to_numpy(), made["sales_q90"].to_numpy()
        shares[rows] = ((truth >= low) & (truth <= high)).mean()
    # Of 0.8 that were asked for. One row tells neither the level nor the place in the season.
    assert shares[1] > 0.25
    assert all(0.65 < shares[rows] < 0.95 for rows in (5, 12, 40))


def test_an_unknown_static_value_goes_as_unknown() -> None:
    fresh = shop("new", 1000).with_columns(region=pl.lit("west"))
    made = model("quantiles").predict(fresh[:1])
    assert made["sales"].is_finite().all()


@pytest.mark.parametrize("law", ["quantiles", "student_t"])
def test_a_new_key_live_is_forecast_as_predict_does(law: str) -> None:
    run, fresh = model(law), shop("new", 1000)
    session = run.session()
    for rows in range(1, 6):
        live = session.step(fresh[rows - 1].drop("shop").to_dicts()[0])
        made = run.predict(fresh[:rows])
        assert live["sales_q90"] == made["sales_q90"].to_list()


def test_a_score_of_new_keys_is_in_the_mean_unit_of_the_others() -> None:
    task = model("quantiles").trained.tasks["sales"]
    spread, naive, level = task.units(pl.Series(["new"]))
    known = task.units(pl.Series([f"old {k}" for k in range(SHOPS)]))
    for unit, others in zip((spread, naive, level), known, strict=True):
        assert float(unit) == pytest.approx(float(others.mean()))
