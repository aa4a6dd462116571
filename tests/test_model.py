"""The network: encoders, body, heads, and what a whole model's state is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_models import ROWS, Row, row_named
from model_data import keyed
from torch import Tensor

import segue
from segue import ops
from segue.data.store import Batch, Pieces
from segue.errors import SpecError
from segue.layers import Bidirectional, RecurrentDropout, Residual, Zoneout
from segue.predict import predict
from segue.run import declare


def whole_batch(row: Row) -> Batch:
    """All steps of all sequences of a row, with outputs wanted at every step."""
    trained = row.run.trained
    store = trained.store(trained.sequences(row.frame), targets=False)
    rows = np.arange(len(store.lengths))
    return store.batch(Pieces(rows, rows * 0, store.lengths), np.arange(store.lengths.sum()))


def rows_of(state: Any, rows: list[int]) -> Any:
    return ops.map_state(lambda leaf: leaf[rows], state)


def hold_same(actual: Any, expected: Any) -> None:
    for ours, theirs in zip(ops.leaves(actual), ops.leaves(expected), strict=True):
        assert torch.equal(ours.double().nan_to_num(-9), theirs.double().nan_to_num(-9))


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
@torch.no_grad()
def test_every_leaf_of_a_state_has_a_row_per_sequence(row: Row) -> None:
    network, batch = row.run.trained.network, whole_batch(row)
    count = len(batch.lengths)
    _, state = network.unroll(batch)
    for leaf in (*ops.leaves(network.initial_state(count)), *ops.leaves(state)):
        assert leaf.shape[0] == count


@pytest.mark.parametrize("name", ["classify-both", "regress-end-mean", "classify-plain"])
@torch.no_grad()
def test_running_answers_at_the_last_step_are_the_answers_at_the_end(name: str) -> None:
    row = row_named(name)
    network, batch = row.run.trained.network, whole_batch(row)
    at_end, after = network.unroll(batch)
    running, again = network.unroll(batch, running=True)
    last = batch.lengths.cumsum(0) - 1
    for task, expected in at_end.items():
        tolerance = 0.0 if ops.native_name() else 1e-5
        torch.testing.assert_close(running[task][last], expected, rtol=tolerance, atol=tolerance)
    hold_same(after, again)


@torch.no_grad()
def test_the_mean_pool_is_the_mean_of_the_hidden_states() -> None:
    row = row_named("regress-end-mean")
    network, batch = row.run.trained.network, whole_batch(row)
    hidden: list[Tensor] = []
    handle = network.heads["_amount"].register_forward_pre_hook(lambda _, x: hidden.append(x[0]))
    network.unroll(batch)
    network.pool = "last"
    network.unroll(batch, running=True)
    network.pool = "mean"
    handle.remove()
    pooled, every = hidden
    parts = every.split(batch.lengths.tolist())
    expected = torch.stack([part.double().mean(0) for part in parts]).float()
    torch.testing.assert_close(pooled, expected)


@torch.no_grad()
def test_a_bidirectional_model_ends_with_what_each_direction_read_last() -> None:
    row = row_named("classify-bidirectional-both")
    network, batch = row.run.trained.network, whole_batch(row)
    seen: list[Tensor] = []
    handle = network.heads["_kind"].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    _, state = network.unroll(batch)
    handle.remove()
    forward, backward = next(iter(state.body))
    assert torch.equal(seen[0][:, :16], torch.cat([forward.h, backward.h], dim=1))


def spec_of(model: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "steps", "key": "key", "split": {"by": "none"}},
        "inputs": inputs or {"z": {"kind": "number"}},
        "outputs": {"amount": {"task": "regress"}},
        "model": {"hidden": 4, **model},
        "training": {"epochs": 1},
    }


def network_of(model: dict[str, Any]) -> Any:
    return segue.fit(spec_of(model), keyed()).trained.network


def test_the_model_section_builds_the_body() -> None:
    body = network_of({"layers": 3, "residual": True, "dropout": 0.1}).body
    names = [type(layer).__name__ for layer in body.cells]
    assert names == ["GRU", "Dropout", "Residual", "Dropout", "Residual", "Dropout"]
    assert isinstance(body.cells[2], Residual)
    body = network_of({"cell": "lstm", "zoneout": 0.25, "dropout": 0.0}).body
    (layer,) = body.cells
    assert isinstance(layer, Zoneout) and layer.rates == (0.25, 0.25)
    several = {"cell": {"lstm": {"layer_norm": True}}, "zoneout": 0.25, "recurrent_dropout": 0.5}
    (layer,) = network_of({**several, "dropout": 0.0}).body.cells
    assert isinstance(layer, Zoneout) and isinstance(layer.body, RecurrentDropout)
    assert layer.body.rate == 0.5 and layer.body.body.gain_c is not None
    (layer,) = network_of({"recurrent_dropout": 0.5, "dropout": 0.0}).body.cells
    assert isinstance(layer, RecurrentDropout)
    both = network_of({"bidirectional": True, "dropout": 0.0}).body
    assert isinstance(both.layers[0], Bidirectional)


def refused(spec: dict[str, Any], frame: pl.DataFrame) -> str:
    with pytest.raises(SpecError) as caught:
        segue.fit(spec, frame)
    return str(caught.value)


def test_models_that_cannot_be_are_refused() -> None:
    assert refused(spec_of({"residual": True, "bidirectional": True}), keyed()) == (
        "model.residual: expected false with bidirectional: true, got true; "
        "leave out one of the two"
    )
    assert refused(spec_of({"cell": {"gru": {"layer_norm": "no"}}}), keyed()) == (
        "GRU.layer_norm: expected true or false, got 'no'; give one of the two"
    )
    assert refused(spec_of({"cell": {"gru": {"peepholes": True}}}), keyed()) == (
        "model.cell.gru: expected one of reset_after, layer_norm, init, learn_initial, dtype, "
        "got 'peepholes'; remove it"
    )
    series = {
        "data": {"rows": "steps", "key": "key", "split": {"by": "none"}},
        "inputs": {},
        "outputs": {"z": {"task": "forecast", "horizon": 2}},
        "training": {"epochs": 1},
    }
    assert refused({**series, "model": {"bidirectional": True}}, keyed()) == (
        "model.bidirectional: expected false with a forecast, got true; "
        "a forecast cannot read the future; leave it out"
    )
    assert refused({**series, "model": {"segment": 6, "lookback": 6}}, keyed()) == (
        "model.lookback: expected at least 7, one more than model.segment, got 6; lengthen it"
    )
    segue.fit({**series, "model": {"segment": 6, "hidden": 4}}, keyed())


def test_static_inputs_stand_at_every_step_and_missing_ones_are_told_apart() -> None:
    inputs = {"z": {"kind": "number"}, "size": {"kind": "number", "role": "static"}}
    run = segue.fit(spec_of({}, **inputs), keyed())
    frame = keyed().select("key", "z", "size")
    expected = run.predict(frame)["amount"]
    zero = run.predict(frame.with_columns(size=pl.col("size").fill_null(1.0)))["amount"]
    # The mean of the observed sizes, 0 and 2, is 1, which is what a missing one is scaled to.
    assert zero[0] == expected[0] and zero[2] == expected[2]
    assert zero[1] != expected[1]


def test_names_with_dots_are_names() -> None:
    frame = keyed().rename({"z": "a.b", "amount": "keys"})
    spec = spec_of({}, **{"a.b": {"kind": "number"}})
    spec["outputs"] = {"keys": {"task": "regress"}}
    run = segue.fit(spec, frame)
    assert run.predict(frame).columns == ["key", "keys"]


def test_a_batch_without_steps_answers_at_the_end() -> None:
    row = row_named("next-characters-plain")
    found = row.run.predict(pl.DataFrame({"x": ["", ""]}))
    assert found.height == 0


def test_quantiles_never_cross() -> None:
    rows = pl.DataFrame({"t": range(60), "v": np.random.default_rng(0).normal(size=60)})
    declaration = declare(
        {
            "data": {"rows": "steps", "time": "t", "split": {"by": "none"}},
            "inputs": {"t": {"kind": "number"}},
            "outputs": {"v": {"task": "forecast", "horizon": 5, "season": 4}},
            "training": {"epochs": 1},
        }
    )
    future = segue.fit(declaration, rows).predict(rows)
    assert (future["v_q10"] <= future["v_q50"]).all()
    assert (future["v_q50"] <= future["v_q90"]).all()


# In chunks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [1, 300, 2000, 10**6])
def test_chunks_take_every_step_once_and_no_more_at_once_than_allowed(numbers: int) -> None:
    trained = replace(row_named("classify-plain").run.trained, chunk=numbers)
    allowed = max(1, numbers // trained.network.numbers_per_step)
    stop = np.array([3, 0, 50, 7, 1, 0, 120, 2])
    seen = []
    for group in trained._groups(stop):
        assert stop[group].sum() <= allowed + stop[group].max()
        places = np.zeros(len(group), np.int64)
        for start, length in trained._chunks(stop[group]):
            assert length.sum() <= max(allowed, (length > 0).sum())
            np.testing.assert_array_equal(start, places)
            places += length
        np.testing.assert_array_equal(places, stop[group])
        seen += group.tolist()
    assert seen == list(range(len(stop)))


def test_sequences_without_steps_answer_once_however_the_others_are_cut() -> None:
    frame = pl.DataFrame({"x": ["", "abcdefgh", "", "b" * 30], "y": [1.0, 2.0, 3.0, 4.0]})
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "text"}},
        "outputs": {"y": {"task": "regress"}},
        "model": {"hidden": 4, "pool": "both"},
        "training": {"epochs": 1},
    }
    run = segue.fit(spec, frame)
    cut = replace(run.trained, chunk=4 * run.trained.network.numbers_per_step)
    expected = run.predict(frame)["y"]
    assert expected[0] == expected[2]
    assert predict(cut, frame)["y"].to_list() == pytest.approx(expected.to_list(), rel=1e-5)
