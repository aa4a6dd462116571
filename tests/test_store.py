"""Batches are gathered by index: the right steps, nothing beyond a part, no copy of the data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import sequences

from segue.data.order import draws, permutation
from segue.data.store import Pieces, Store, batches, tiles, without
from segue.fields import KINDS
from segue.sequences import Part
from segue.tasks import TASKS

# Order --------------------------------------------------------------------------------------------


GOLDEN = 0x9E3779B97F4A7C15


def splitmix(state: int) -> int:
    """The next number of SplitMix64 in this state, in whole numbers of Python."""
    z = (state + GOLDEN) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_draws_are_splitmix() -> None:
    # The first two numbers of the published test vector for the seed 1234567.
    stream = [splitmix(1234567 + k * GOLDEN) for k in range(2)]
    assert stream == [6457827717110365317, 3203168211198807973]
    for seed, epoch in ((0, 0), (1, 2), (2**63 - 1, 10**6), (-1, 3)):
        key = splitmix((seed * GOLDEN + epoch) % 2**64)
        expected = [splitmix((key + k * GOLDEN) % 2**64) for k in range(5)]
        assert draws(seed, epoch, 5).tolist() == expected


def test_an_order_is_pinned_by_value() -> None:
    """A place in training is the same integer on every machine and in every version."""
    assert permutation(0, 0, 8).tolist() == [5, 7, 2, 0, 3, 1, 6, 4]
    assert permutation(7, 3, 8).tolist() == [4, 3, 2, 7, 6, 0, 1, 5]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_order_has_every_position_once(count: int) -> None:
    assert sorted(permutation(3, 4, count).tolist()) == list(range(count))


def test_an_order_is_another_for_another_seed_or_epoch() -> None:
    orders = {tuple(permutation(seed, epoch, 20)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_first_place_is_uniform() -> None:
    firsts = np.array([permutation(0, epoch, 4)[0] for epoch in range(4000)])
    # Four standard deviations of a share of a quarter.
    assert np.abs(np.bincount(firsts) / 4000 - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 4000)


@pytest.mark.parametrize("size", [1, 3, 10, 100, None])
def test_batches_have_every_position_once(size: int | None) -> None:
    made = list(batches(10, size, seed=1, epoch=2))
    assert np.concatenate(made).tolist() == permutation(1, 2, 10).tolist()
    assert all(len(some) == size for some in made[:-1])
    assert list(batches(0, size, 0, 0)) == []


# Windows ------------------------------------------------------------------------------------------

PART = Part(np.array([0, 2, 3, 4]), np.array([5, 0, 3, 2]), np.array([105, 7, 3, 12]))


@pytest.mark.parametrize("window", [1, 3, 7, 10, 99, 100, 1000])
def test_windows_cover_every_step_once_in_every_epoch(window: int) -> None:
    for epoch in range(20):
        pieces, stop = tiles(PART, window, seed=5, epoch=epoch)
        taken = [
            (row, step)
            for row, start, length in zip(pieces.row, pieces.start, pieces.length, strict=True)
            for step in range(start, start + length)
        ]
        expected = [
            (row, step)
            for row, start, end in zip(PART.rows, PART.start, PART.stop, strict=True)
            for step in range(start, end)
        ]
        assert taken == expected
        assert pieces.length.max() <= window
        ends = dict(zip(PART.rows.tolist(), PART.stop.tolist(), strict=True))
        assert stop.tolist() == [ends[row] for row in pieces.row.tolist()]


def test_windows_start_elsewhere_in_every_epoch() -> None:
    part = Part(np.array([0]), np.array([0]), np.array([100]))
    starts = {int(tiles(part, 10, 0, epoch)[0].start[1]) % 10 for epoch in range(100)}
    assert starts == set(range(10))


def test_what_fits_in_a_window_is_not_cut() -> None:
    for epoch in range(5):
        pieces, _ = tiles(PART, 100, 0, epoch)
        assert pieces.length.tolist() == [100, 7, 0, 10]
    whole, stop = tiles(PART, None, 0, 0)
    assert (whole.start.tolist(), stop.tolist()) == ([5, 0, 3, 2], [105, 7, 3, 12])


# Batches ------------------------------------------------------------------------------------------


def forecast(columns: tuple[str, ...], horizon: int) -> Any:
    kind = TASKS["forecast"]
    return kind("f", columns, kind.Spec.model_validate({"task": "forecast", "horizon": horizon}))


def store_of(frame: pl.DataFrame, lengths: tuple[int, ...], horizon: int = 2) -> Store:
    """Forecasts of the columns, which are inputs known ahead, too."""
    known = sequences(frame, lengths)
    columns = tuple(frame.columns)
    spec = KINDS["number"].Spec.model_validate({"kind": "number", "scale": "none", "role": "known"})
    fields = {"x": KINDS["number"]("x", columns, spec)}
    fields["x"].fit(frame)
    task = forecast(columns, horizon)
    task.fit(known, fields)
    return Store(
        known, fields, frozenset(), frozenset(), frozenset({"x"}), {"f": task}, targets=True
    )


def pieces(row: list[int], start: list[int], length: list[int]) -> Pieces:
    return Pieces(np.array(row), np.array(start), np.array(length))


STORE = store_of(pl.DataFrame({"a": np.arange(12.0), "b": np.arange(12.0) * 10}), (5, 0, 7))


def test_a_batch_reads_spans() -> None:
    batch = STORE.batch(pieces([2, 0, 1], [3, 1, 0], [3, 2, 0]), np.array([0, 4]))
    assert batch.inputs["x"][:, 0].tolist() == [8, 9, 10, 1, 2]
    assert batch.series["f"].tolist() == [[8, 80], [9, 90], [10, 100], [1, 10], [2, 20]]
    assert batch.series["f"].dtype == torch.float64
    assert batch.lengths.tolist() == [3, 2, 0]
    assert (batch.times / 3600).tolist() == [3, 4, 5, 1, 2]
    assert batch.at.tolist() == [0, 4]


def test_what_is_known_ahead_is_that_of_the_next_steps_of_the_same_sequence() -> None:
    batch = STORE.batch(pieces([0, 2], [2, 4], [3, 3]), np.array([0, 1, 2, 5]))
    # Beyond the end of its sequence the last values stand in.
    assert batch.ahead["x"][..., 0].tolist() == [[3, 4], [4, 4], [4, 4], [11, 11]]


def test_targets_are_the_next_steps_of_the_part() -> None:
    future: Any = STORE.targets_at(
        pieces([0, 2], [0, 3], [3, 3]), np.array([0, 2, 3, 4, 5]), np.array([4, 7])
    )["f"]
    nan = torch.nan
    expected = [[1, 2], [3, nan], [9, 10], [10, 11], [11, nan]]
    assert torch.equal(future.values[:, 0].nan_to_num(-1), torch.tensor(expected).nan_to_num(-1))
    assert torch.equal((future.values[:, 1] / 10).isnan(), future.values[:, 0].isnan())


def test_units_are_those_of_the_sequence() -> None:
    future: Any = STORE.targets_at(pieces([2, 0], [0, 0], [1, 1]), np.arange(2), np.array([7, 5]))[
        "f"
    ]
    assert future.spread[:, 0].tolist() == [np.arange(5, 12).std(), np.arange(5).std()]


NONE = float("nan")
GAPPY = store_of(
    pl.DataFrame({"a": [NONE, NONE, 3.0, NONE, 5.0, 6.0, NONE, 8.0]}).fill_nan(None), (8,), 1
)


def test_gaps_are_nan_in_the_past_and_in_the_targets() -> None:
    batch = GAPPY.batch(pieces([0], [0], [8]), np.arange(8))
    assert batch.series["f"][:, 0].isnan().tolist() == [
        True,
        True,
        False,
        True,
        *[False] * 2,
        True,
        False,
    ]
    assert batch.series["f"][2, 0] == 3.0


def test_nothing_is_asked_for_before_something_was_seen() -> None:
    def seen(start: int, from_start: bool) -> list[bool]:
        span = pieces([0], [start], [8 - start])
        at = np.arange(8 - start)
        future: Any = GAPPY.targets_at(span, at, np.array([8]), from_start=from_start)["f"]
        return (~future.values[:, 0, 0].isnan()).tolist()

    # The target of step t is step t + 1; of the steps 1 and 3 there is one, but only 3 has a past.
    assert seen(0, True) == [False, False, False, True, True, False, True, False]
    assert seen(3, True) == [True, True, False, True, False]
    assert seen(3, False) == [False, True, False, True, False]


def test_without_takes_targets_away() -> None:
    gone = torch.tensor([True, False])
    assert without(torch.tensor([3, 4]), gone).tolist() == [-1, 4]
    assert without(torch.tensor([[3.0], [4.0]]), gone).isnan().tolist() == [[True], [False]]


# Memory -------------------------------------------------------------------------------------------

MEASURE = """
import json, sys
import numpy as np, polars as pl, torch
from segue import train
from segue.data.read import Table
from segue.run import declare

torch.set_num_threads(1)
steps, keys, gaps = 1_600_000, int(sys.argv[1]), sys.argv[2] == "gaps"
hours = np.tile(np.arange(steps // keys), keys) * 3_600_000_000
columns = {"t": pl.Series(hours).cast(pl.Datetime("us"))}
if keys > 1:
    columns["k"] = pl.Series(np.repeat(np.arange(keys), steps // keys))
rng = np.random.default_rng(0)

def memory(kind):
    # Not from getrusage, whose peak begins with that of the process that started this one.
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(kind))
    return int(line.split()[1]) * 1024

before = memory("VmRSS")
for place in range(9):
    values = pl.Series(rng.normal(size=steps))
    if gaps:
        values = pl.select(pl.when(pl.int_range(steps) % 10 > 0).then(values)).to_series()
    columns[f"x{place}"] = values
frame = pl.DataFrame(columns)
del columns, values, hours
size = frame.estimated_size()
base = before - frame.select(pl.exclude("^x.*$")).estimated_size()
spec = declare({
    "data": {"rows": "steps", "time": "t", **({"key": "k"} if keys > 1 else {})},
    "inputs": {"t": {"kind": "timestamp"}},
    "outputs": {"x*": {"task": "forecast", "horizon": 24}},
})
trained, sequences, parts = train.prepare(Table(frame, "steps", "frame", {}, ""), spec)
store = trained.store(sequences, targets=True)
windows = 0
for epoch in range(2):
    for index, made in enumerate(train.examples(trained, store, parts["train"], epoch)):
        windows += sum(len(window()[0].lengths) for window in made)
        if index == 200:
            break
share = (memory("VmHWM") - base) / size
print(json.dumps({"size": size, "share": share, "windows": windows}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
@pytest.mark.parametrize(("keys", "gaps"), [(1, "whole"), (1, "gaps"), (100, "whole")])
def test_windows_take_at_most_twice_the_memory_of_the_frame(keys: int, gaps: str) -> None:
    command = [sys.executable, "-c", MEASURE, str(keys), gaps]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["size"] > 100e6
    assert found["windows"] > 100
    assert found["share"] <= 2.0
