"""A whole network as one native call: the answers of `Network.unroll`, and records read quickly."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
import torch
from catalogue_models import ROWS, Row, hold_equal, row_named

from segue import ops
from segue.data.store import Pieces
from segue.inference import Arrays, ByTorch, Inference, Native, obstacle, ready
from segue.records import Reader

pytestmark = [
    pytest.mark.skipif(not ops.native_name(), reason="the native module is not built"),
    pytest.mark.usefixtures("one_thread"),
]

BY_TORCH = {
    "forecast-counts-plain": "a forecast by NegativeBinomial",
    "forecast-heavy-tails-plain": "a forecast by StudentT",
    "forecast-known-ahead-after-effects": "a recurrent decoder of what is known ahead",
    "forecast-many-series-adaptive": "an adaptive reading of the look-back",
    "regress-every-layers": "CausalConv, which has no native form",
    "regress-every-gru-d": "Beside, which has no native form",
    "regress-every-cfc": "Beside, which has no native form",
    "regress-every-decay": "Beside, which has no native form",
    "translate-plain": "the head of y (Head), which has no native form",
    "summarise-plain": "the head of y (Head), which has no native form",
    "transcribe-*": "the head of y (Emission), which has no native form",
    "anomaly-numbers-*": "the head of [xz] (NumberSurprise), which has no native form",
    "anomaly-elements-*": "the head of x (ElementSurprise), which has no native form",
    "tag-samples-*": "burst, samples inside a step, which have no native form",
    "classify*apart-*": "an input apart, which has no native form",
    "next-frame-*": "maps, which has no native form",
    "classify-maps-*": "maps, which has no native form",
    "classify-vectors-*": "an encoder of pictures",
    "classify-video-*": "an encoder of pictures",
}
"""What keeps a causal model from running as one call, by the names of rows."""


def expected_obstacle(row: Row) -> str | None:
    return next((why for name, why in BY_TORCH.items() if fnmatchcase(row.name, name)), None)


CAUSAL = [row for row in ROWS if row.causal and expected_obstacle(row) is None]
TOLERANCE = 1e-5


def by_name(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def batch_of(row: Row, every: int) -> Arrays:
    """All steps of all sequences, with outputs wanted at some of them."""
    trained = row.run.trained
    store = trained.store(trained.sequences(row.frame), targets=False)
    rows, total = np.arange(len(store.lengths)), int(store.lengths.sum())
    pieces = Pieces(rows, rows * 0, store.lengths)
    return Arrays.of(store.batch(pieces, np.arange(0, total, every)))


def hold_close(ours: Any, theirs: Any) -> None:
    """Within the tolerance; NaN and infinity stand in the same places."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@by_name(CAUSAL)
@pytest.mark.parametrize(("every", "running"), [(1, True), (1, False), (3, False)])
def test_one_call_answers_as_the_network_does(row: Row, every: int, running: bool) -> None:
    network, batch = row.run.trained.network.eval(), batch_of(row, every)
    count = len(batch.lengths)
    native, plain = Native(network), ByTorch(network)
    ours, after = native.run(batch, native.initial_state(count), running=running)
    theirs, expected = plain.run(batch, plain.initial_state(count), running=running)
    assert ours.keys() == theirs.keys()
    for name, output in theirs.items():
        hold_close(ours[name], output)
    for leaf, other in zip(after, expected, strict=True):
        hold_close(leaf, other)


@by_name(ROWS)
def test_what_is_causal_runs_as_one_call(row: Row) -> None:
    network = row.run.trained.network.eval()
    reads_ahead = "bidirectional" in row.name
    expected = "a network that reads the future" if reads_ahead else expected_obstacle(row)
    assert obstacle(network) == expected
    assert isinstance(ready(network), Native if expected is None else ByTorch)


@by_name(CAUSAL)
def test_a_state_has_the_structure_of_the_networks(row: Row) -> None:
    network = row.run.trained.network.eval()
    native = Native(network)
    state = native.nested(native.initial_state(2))
    expected = network.initial_state(2)
    assert type(state) is type(expected) and state._fields == expected._fields
    for ours, theirs in zip(ops.leaves(state), ops.leaves(expected), strict=True):
        assert torch.equal(ours.nan_to_num(-9), theirs.nan_to_num(-9))


@pytest.mark.parametrize("name", ["classify-plain", "forecast-univariate-plain"])
def test_a_session_keeps_the_weights_that_it_was_opened_with(name: str) -> None:
    row = row_named(name)
    network = row.run.trained.network
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    session = row.run.session()
    records, first = row.records("a" if row.key else ""), next(iter(row.stepped.values()))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.5)
    hold_equal([session.step(record) for record in records], first)
    other = row.run.session()
    changed = [other.step(record) for record in records]
    network.load_state_dict(kept)
    assert changed != first


# Records ------------------------------------------------------------------------------------------


def read_both_ways(row: Row, name: str) -> Iterator[tuple[Any, Any]]:
    """Each record of a sequence, and chunks of three, read the short way and the long one."""
    reader, records = Reader(row.run.trained), row.records(name)
    static: dict[Any, Any] = {}
    clock = np.full(1, np.nan)
    for size in (1, 3):
        clock = np.full(1, np.nan)
        for start in range(0, len(records), size):
            given = {name: records[start : start + size]}
            if not static:
                static = {name: reader.static(records[0], "record 1")}
            short, long = (read(given, static, clock) for read in (reader._short, reader._long))
            yield short, long
            clock = long[1][-1:]


@by_name(CAUSAL)
def test_the_short_way_gives_the_bits_of_the_long_one(row: Row) -> None:
    for name in row.sequences:
        for short, long in read_both_ways(row, name):
            assert short is not None
            np.testing.assert_array_equal(short[1], long[1])
            for ours, theirs in zip(short[0], long[0], strict=True):
                _hold_same(ours, theirs)


def _hold_same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            _hold_same(ours[name], theirs[name])
        return
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("column", "value", "same"),
    [
        ("x", True, 1.0),
        ("x", np.int16(3), 3.0),
        ("x", np.float32(0.5), 0.5),
        ("x", 10**30, 1e30),
        ("time", "2026-01-01T05:00:00+02:00", "2026-01-01 03:00:00"),
    ],
)
def test_a_value_that_is_not_plain_is_read_the_long_way(column: str, value: Any, same: Any) -> None:
    row = row_named("classify-plain")
    record = row.records("a")[0]
    expected = row.run.session().step({**record, column: same})
    assert row.run.session().step({**record, column: value}) == expected


def test_what_a_network_is_called_with_is_what_unroll_takes() -> None:
    row = row_named("forecast-known-ahead-plain")
    batch = batch_of(row, 2)
    again = Arrays.of(batch.batch())
    for ours, theirs in zip(again, batch, strict=True):
        _hold_same(ours, theirs)
    assert issubclass(Native, Inference)
