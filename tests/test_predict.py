"""Predictions of every shape: per sequence, per step, and of the future."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from catalogue_models import HORIZON, hold_equal, row_named
from model_data import KEYS

import segue
from segue.errors import DataError

KNOWN = row_named("forecast-known-ahead-plain")
COUNTED = row_named("forecast-many-series-plain")
FUTURE = [datetime(2026, 1, 1) + timedelta(hours=h) for h in range(40)]


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments)
    return str(caught.value)


# Shapes -------------------------------------------------------------------------------------------


def test_an_answer_at_the_end_is_a_row_per_sequence() -> None:
    row = row_named("classify-plain")
    found = row.run.predict(row.frame)
    assert found.columns == ["key", "kind", "kind_p_bad", "kind_p_good"]
    assert found["key"].to_list() == list(KEYS)


def test_an_answer_at_every_step_is_a_row_per_step() -> None:
    row = row_named("regress-every-plain")
    found = row.run.predict(row.frame)
    assert found.columns == ["key", "time", "level"]
    assert found.select("key", "time").equals(row.frame.select("key", "time"))


def test_sequences_without_a_key_are_counted() -> None:
    row = row_named("next-characters-plain")
    found = row.run.predict(row.frame)
    assert found.columns == ["row", "step", "next_x", "next_x_p"]
    assert found["row"].to_list() == [0] * 11 + [1] * 11 + [3] * 10
    assert found["step"].to_list() == [*range(11), *range(11), *range(10)]


def test_answers_at_the_end_stand_on_every_step_beside_answers_at_every_step() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    frame = pl.DataFrame({"x": x.tolist(), "sign": (x > 0).astype(int).tolist(), "y": x.sum(1)})
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"y": {"task": "regress"}, "sign": {"task": "tag"}},
        "model": {"hidden": 4},
        "training": {"epochs": 1},
    }
    run = segue.fit(spec, frame)
    found = run.predict(frame)
    assert found.columns[:4] == ["row", "y", "step", "sign"]
    assert found.height == 24
    assert found.group_by("row").agg(pl.col("y").n_unique())["y"].to_list() == [1] * 6
    session = run.session()
    for value in x[0][:-1]:
        session.step({"x": value})
    last = session.step({"x": x[0][-1]})
    hold_equal(last, found[3].select(list(last)).to_dicts()[0])


def test_a_forecast_is_the_real_future() -> None:
    frame = KNOWN.frame.filter(pl.col("time") < FUTURE[12])
    after = KNOWN.frame.filter(pl.col("time") >= FUTURE[12])
    found = KNOWN.run.predict(frame, after)
    assert found["key"].to_list() == [key for key in KEYS for _ in range(HORIZON)]
    assert found["time"].to_list() == FUTURE[12:15] * 3
    assert not found.null_count().pipe(lambda nulls: nulls.sum_horizontal().sum())
    counted = COUNTED.run.predict(COUNTED.frame)
    lengths = COUNTED.frame.group_by("key", maintain_order=True).len()["len"]
    assert counted["step"].to_list() == [n + k for n in lengths for k in range(HORIZON)]


def test_targets_are_not_needed() -> None:
    for name in ("classify-plain", "regress-every-plain", "tag-plain"):
        row = row_named(name)
        without = row.frame.drop(list(row.spec["outputs"]))
        assert row.run.predict(without).equals(row.run.predict(row.frame))


def test_the_order_of_keys_in_the_table_does_not_matter() -> None:
    for name in ("classify-plain", "regress-every-plain", "forecast-many-series-plain"):
        row = row_named(name)
        row_order = row.frame.with_row_index()
        mixed = pl.concat([row_order[::2], row_order[1::2]]).sort(pl.col("index") % 3, "index")
        shuffled = mixed.sort("index" if row.spec["data"].get("time") is None else "time")
        keys = shuffled["key"].unique(maintain_order=True).to_list()
        found = row.run.predict(shuffled.drop("index"))
        expected = row.run.predict(row.frame)
        for key in keys:
            own = pl.col("key") == key
            assert found.filter(own).equals(expected.filter(own))


# What is known ahead ------------------------------------------------------------------------------


def past_and_future() -> tuple[pl.DataFrame, pl.DataFrame]:
    frame = KNOWN.frame.filter(pl.col("time") < FUTURE[12])
    return frame, KNOWN.frame.filter(pl.col("time") >= FUTURE[12])


def test_only_what_comes_after_the_last_row_is_taken_in_the_order_of_time() -> None:
    past, future = past_and_future()
    expected = KNOWN.run.predict(past, future)
    assert KNOWN.run.predict(past, KNOWN.frame).equals(expected)
    assert KNOWN.run.predict(past, future.reverse()).equals(expected)
    only = future.select("key", "time", "heat", "sale")
    assert KNOWN.run.predict(past, only).equals(expected)


def test_what_is_known_ahead_makes_a_difference_and_only_so_far() -> None:
    past, future = past_and_future()
    expected = KNOWN.run.predict(past, future)
    hot = pl.col("heat") + 5
    near, far = pl.col("time") < FUTURE[15], pl.col("time") >= FUTURE[15]
    changed = future.with_columns(pl.when(near).then(hot).otherwise(pl.col("heat")).alias("heat"))
    assert not KNOWN.run.predict(past, changed).equals(expected)
    later = future.with_columns(pl.when(far).then(hot).otherwise(pl.col("heat")).alias("heat"))
    assert KNOWN.run.predict(past, later).equals(expected)


def test_the_future_of_the_series_is_not_read() -> None:
    past, future = past_and_future()
    spoiled = future.with_columns(v0=pl.lit(1e9), v1=pl.lit(-1e9))
    assert KNOWN.run.predict(past, spoiled).equals(KNOWN.run.predict(past, future))


def test_a_missing_future_is_refused() -> None:
    past, future = past_and_future()
    assert refused(KNOWN.run.predict, past) == (
        "ahead: expected the future of heat, sale, got none; give a table with 3 rows per sequence"
    )
    assert refused(KNOWN.run.predict, past, future.drop("sale")) == (
        "ahead: expected a column 'sale', got the columns key, time, v0, v1, heat, sold, "
        "site; add it"
    )
    assert refused(KNOWN.run.predict, past, future.drop("time")) == (
        "ahead: expected a column 'time', got the columns key, v0, v1, heat, sold, sale, "
        "site; add it"
    )
    short = future.filter((pl.col("key") != "b") | (pl.col("time") < FUTURE[14]))
    assert refused(KNOWN.run.predict, past, short) == (
        "ahead: key 'b': expected 3 rows after the last of the data, got 2; add the missing rows"
    )


# What is refused ----------------------------------------------------------------------------------


def test_a_missing_input_is_refused() -> None:
    row = row_named("classify-plain")
    message = refused(row.run.predict, row.frame.drop("word"))
    assert message.startswith("frame: expected a column 'word', got the columns key, time, x, z, ")


def test_a_category_never_seen_is_refused_or_unknown() -> None:
    past, future = past_and_future()
    spoiled = past.with_columns(site=pl.lit("west"))
    assert "'west'" in refused(KNOWN.run.predict, spoiled, future)
    unknown = past.with_columns(sale=pl.lit("maybe"))
    assert KNOWN.run.predict(unknown, future).height == 9
