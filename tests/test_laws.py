"""Every law that a whole model promises, over every row of the catalogue of models.

Exact means to the bit, on the native path; elsewhere sums may be taken in another
order (`Row.hold`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_models import HORIZON, ROWS, Record, Row, hold_equal, row_named
from torch.utils._python_dispatch import TorchDispatchMode

import segue
from segue import ops
from segue.errors import CausalError, DataError
from segue.ops import native_name
from segue.run import Run
from segue.stream import Sessions

pytestmark = pytest.mark.usefixtures("one_thread")

CAUSAL = [row for row in ROWS if row.causal]
STEPPED = [row for row in CAUSAL if "all-apart" not in row.name]
"""Those whose sequences have more than one step."""
FORECASTS = [row for row in ROWS if row.forecasts]


def by_name(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def so_far(row: Row, name: str, stop: int) -> Record:
    """What a session has said after some steps: its last answer, or all answers together."""
    stepped = row.stepped[name][:stop]
    if not row.whole:
        return stepped[-1]
    return {column: "".join(one[column] for one in stepped) for column in stepped[-1]}


def last_answer(row: Row, frame: pl.DataFrame, like: Record) -> Record:
    """What `predict` says of the last step, in the form in which a session answers."""
    columns: Record = frame.select(list(like)).to_dict(as_series=False)
    return columns if row.foretells else {name: values[-1] for name, values in columns.items()}


def stops(row: Row, name: str) -> list[int]:
    """Some lengths at which a sequence may be cut."""
    steps = len(row.records(name))
    return sorted({1, 2, steps // 2, steps} & set(range(1, steps + 1)))


def test_comparison_fails_on_nan() -> None:
    nan = float("nan")
    with pytest.raises(AssertionError):
        hold_equal({"x": [nan]}, {"x": [nan]})


# Live = predict -----------------------------------------------------------------------------------


@by_name(CAUSAL)
def test_a_step_equals_predict_on_the_sequence_so_far(row: Row) -> None:
    for name in row.sequences:
        for stop in stops(row, name):
            stepped = so_far(row, name, stop)
            told = row.run.predict(row.cut(name, stop), row.ahead(name, stop))
            row.hold(stepped, last_answer(row, told, stepped))


@by_name([row for row in CAUSAL if row.every and not row.foretells])
def test_steps_equal_the_rows_of_predict(row: Row) -> None:
    for name, stepped in row.stepped.items():
        frame = row.run.predict(row.sequences[name])
        assert frame.height == len(stepped)
        if stepped:
            row.hold(frame.select(list(stepped[0])).to_dicts(), stepped)


@by_name(CAUSAL)
@pytest.mark.parametrize("size", [3, 100])
def test_chunks_equal_steps(row: Row, size: int) -> None:
    for name, stepped in row.stepped.items():
        session, records, made = row.run.session(), row.records(name), []
        for start in range(0, len(records), size):
            made += session.chunk(records[start : start + size])
        row.hold(made, stepped)


@by_name(CAUSAL)
def test_many_sessions_in_any_order_equal_each_alone(row: Row) -> None:
    rng = np.random.default_rng(6)
    sessions = row.run.sessions()
    waiting = {name: row.records(name) for name in row.sequences}
    made: dict[str, list[Record]] = {name: [] for name in waiting}
    while any(waiting.values()):
        # Some of the keys, in any order, each with some of its records.
        names = [name for name in rng.permutation(list(waiting)) if rng.random() < 0.7]
        batch = {}
        for name in names:
            size = int(rng.integers(0, 4))
            batch[name], waiting[name] = waiting[name][:size], waiting[name][size:]
        for name, several in sessions.chunks(batch).items():
            made[name] += several
    row.hold(made, row.stepped)


@by_name(ROWS)
def test_alone_equals_in_a_batch(row: Row) -> None:
    ahead = None
    if any(row.ahead(name, 1) is not None for name in row.sequences):
        # What is known ahead, of all sequences; the data end so many steps before.
        ahead = pl.concat(row.sequences[name][-HORIZON:] for name in row.sequences)
    rest = 0 if ahead is None else HORIZON
    alone = {
        name: row.run.predict(own[: own.height - rest], ahead)
        for name, own in row.sequences.items()
    }
    order = list(row.sequences)[::-1]
    whole = pl.concat(own[: own.height - rest] for own in map(row.sequences.get, order))
    together = row.run.predict(whole, ahead)
    drop = ["row"] if "row" in together.columns else []
    expected = pl.concat(alone[name] for name in order)
    row.hold(together.drop(drop).to_dicts(), expected.drop(drop).to_dicts())


@by_name(ROWS)
@pytest.mark.parametrize("steps", [1, 5])
def test_how_much_goes_through_at_once_does_not_matter(row: Row, steps: int) -> None:
    trained = row.run.trained
    numbers = trained.network.numbers_per_step
    store = trained.store(trained.sequences(row.frame), targets=False)
    rows, stop = np.arange(len(store.lengths)), store.lengths
    first = np.maximum(stop - 4, 0)
    whole = trained.outputs(store, rows, first, stop)
    parts = replace(trained, chunk=steps * numbers).outputs(store, rows, first, stop)
    for name, expected in whole.items():
        assert parts[name].shape == expected.shape
        row.hold(parts[name].nan_to_num(-9.0).tolist(), expected.nan_to_num(-9.0).tolist())


@by_name(ROWS)
@pytest.mark.skipif(not native_name(), reason="torch's own sums depend on the number of threads")
def test_the_number_of_threads_does_not_matter(row: Row) -> None:
    data = row.frame if row.forecasts is False else row.cut(*longest_past(row))
    ahead = row.ahead(*longest_past(row)) if row.forecasts else None
    one = row.run.predict(data, ahead)
    torch.set_num_threads(3)
    row.hold(row.run.predict(data, ahead).to_dicts(), one.to_dicts())


def longest_past(row: Row) -> tuple[str, int]:
    """A sequence, and how many of its steps may be read so that all its future is known."""
    name = list(row.sequences)[-1]
    return name, row.sequences[name].height - HORIZON


@by_name([row for row in ROWS if not row.causal])
def test_a_model_that_reads_the_future_refuses_to_run_live(row: Row) -> None:
    reason = (
        "a bidirectional model reads each sequence to its end before it answers; "
        "train with `bidirectional: false`"
    )
    if row.writes:
        reason = "a text is written once the whole sequence is there; use `predict` on it"
    with pytest.raises(CausalError) as caught:
        row.run.session()
    assert str(caught.value) == reason
    with pytest.raises(CausalError) as caught:
        row.run.sessions()
    assert str(caught.value) == reason


# State --------------------------------------------------------------------------------------------


def bytes_of(sessions: Sessions) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in ops.leaves(sessions._state))


@by_name(CAUSAL)
def test_the_state_does_not_grow_with_steps(row: Row) -> None:
    name = list(row.sequences)[-1]
    records, sessions = row.records(name), row.run.sessions()
    sizes = []
    for record in records:
        sessions.step({name: record})
        sizes.append(bytes_of(sessions))
    assert len(set(sizes)) == 1
    assert sizes[0] > 0


class Counting(TorchDispatchMode):
    """Counts what torch is asked to do, and how many numbers it makes."""

    operations = 0
    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.operations += 1
        self.numbers += made.numel() if isinstance(made, torch.Tensor) else 0
        return made


@by_name(STEPPED)
def test_the_work_of_a_step_does_not_grow_with_steps(row: Row) -> None:
    session = row.run.session()
    operations, numbers = [], []
    for record in row.records(list(row.sequences)[-1]):
        with Counting() as counting:
            session.step(record)
        operations.append(counting.operations)
        numbers.append(counting.numbers)
    assert len(set(operations[1:])) == 1
    # How many elements a set has makes a small difference.
    assert max(numbers[1:]) - min(numbers[1:]) < 10


@by_name(CAUSAL)
def test_snapshot_and_fork_go_on_from_where_they_were(row: Row) -> None:
    name = list(row.sequences)[0]
    records, stepped = row.records(name), row.stepped[name]
    session = row.run.session()
    session.chunk(records[:4])
    taken, fork = session.snapshot(), session.fork()
    row.hold(session.chunk(records[4:]), stepped[4:])
    row.hold([fork.step(record) for record in records[4:]], stepped[4:])
    session.restore(taken)
    row.hold(session.chunk(records[4:]), stepped[4:])
    other = row.run.session()
    other.restore(taken)
    assert other.snapshot() == taken
    row.hold(other.chunk(records[4:]), stepped[4:])


@by_name(STEPPED)
def test_a_bad_record_changes_nothing(row: Row) -> None:
    names = list(row.sequences)[:2]
    sessions = row.run.sessions()
    sessions.step({name: row.records(name)[0] for name in names})
    before = sessions.snapshot()
    second = {name: row.records(name)[1] for name in names} | {"new": row.records(names[0])[0]}
    lacking = next(column for column in second[names[-1]] if column != "ahead")
    bad = {key: value for key, value in second[names[-1]].items() if key != lacking}
    with pytest.raises(DataError):
        sessions.step(second | {names[-1]: bad})
    assert sessions.snapshot() == before
    assert sessions.keys == tuple(names)
    made = sessions.step(second)
    for name in names:
        row.hold(made[name], row.stepped[name][1])
    row.hold(made["new"], row.stepped[names[0]][0])


@by_name(CAUSAL)
def test_a_dropped_sequence_starts_anew_and_the_others_go_on(row: Row) -> None:
    names = list(row.sequences)
    sessions = row.run.sessions()
    sessions.step({name: row.records(name)[0] for name in names if row.records(name)})
    sessions.drop(names[0])
    assert names[0] not in sessions.keys
    first = sessions.step({names[0]: row.records(names[0])[0]})
    row.hold(first[names[0]], row.stepped[names[0]][0])
    rest = [name for name in names[1:] if len(row.records(name)) > 1]
    for name, made in sessions.step({name: row.records(name)[1] for name in rest}).items():
        row.hold(made, row.stepped[name][1])


# Files --------------------------------------------------------------------------------------------


@by_name(ROWS)
def test_save_and_load_give_the_same_bits(row: Row, tmp_path: Path) -> None:
    row.run.save(tmp_path / "run")
    loaded = segue.load(tmp_path / "run")
    assert loaded.declaration == row.run.declaration
    assert loaded.history == row.run.history
    assert loaded.fingerprint == row.run.fingerprint
    weights = loaded.trained.network.state_dict()
    assert weights.keys() == row.run.trained.network.state_dict().keys()
    for name, value in row.run.trained.network.state_dict().items():
        assert torch.equal(weights[name], value)
    name, stop = longest_past(row) if row.forecasts else (next(iter(row.sequences)), 5)
    data, ahead = row.cut(name, stop), row.ahead(name, stop) if row.forecasts else None
    assert loaded.predict(data, ahead).equals(row.run.predict(data, ahead))
    if row.causal:
        row.hold(loaded.session().chunk(row.records(name)), row.stepped[name])


PROCESS = """
import sys, json, segue
session = segue.load(sys.argv[1]).session()
session.restore(open(sys.argv[2], "rb").read())
print(json.dumps(session.chunk(json.load(open(sys.argv[3]))), default=str))
"""


def test_another_process_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    row = row_named("classify-deep")
    row.run.save(tmp_path / "run")
    name = list(row.sequences)[0]
    session = row.run.session()
    session.chunk(row.records(name)[:5])
    (tmp_path / "snapshot").write_bytes(session.snapshot())
    (tmp_path / "records").write_text(json.dumps(row.records(name)[5:], default=str))
    command = [sys.executable, "-c", PROCESS, *map(str, _paths(tmp_path))]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    row.hold(json.loads(found.stdout), row.stepped[name][5:])


def _paths(folder: Path) -> list[Path]:
    return [folder / "run", folder / "snapshot", folder / "records"]


# Training -----------------------------------------------------------------------------------------


@by_name(ROWS)
def test_the_same_seed_gives_the_same_bits(row: Row) -> None:
    state = torch.random.get_rng_state()
    again = segue.fit(row.spec, row.frame)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in row.run.trained.network.state_dict().items():
        assert torch.equal(again.trained.network.state_dict()[name], value)
    assert [e.train_loss for e in again.history] == [e.train_loss for e in row.run.history]


def in_two(run: Run, records: list[Record]) -> list[Record]:
    """The answers of a session and, after three records, of a fork of one that was restored."""
    sessions, restored = run.sessions(), run.sessions()
    made = sessions.chunks({"a": records[:3], "b": records[:1]})["a"]
    restored.restore(sessions.snapshot())
    restored.drop("b")
    return made + restored.fork().chunks({"a": records[3:]})["a"]


@pytest.fixture
def other_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@by_name(ROWS)
def test_the_defaults_of_torch_change_nothing(
    row: Row, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, stop = longest_past(row) if row.forecasts else (next(iter(row.sequences)), 5)
    data, ahead = row.cut(name, stop), row.ahead(name, stop) if row.forecasts else None
    expected, weights = row.run.predict(data, ahead), row.run.trained.network.state_dict()
    records, stepped = row.records(name), row.stepped[name] if row.causal else []
    request.getfixturevalue("other_dtype")
    with torch.device("meta"):
        again = segue.fit(row.spec, row.frame)
        again.save(tmp_path / "run")
        loaded = segue.load(tmp_path / "run")
        told = loaded.predict(data, ahead)
        made = in_two(loaded, records) if row.causal else []
        assert (torch.empty(0).device.type, torch.empty(0).dtype) == ("meta", torch.float64)
    for weight, value in again.trained.network.state_dict().items():
        assert value.dtype == weights[weight].dtype and torch.equal(value, weights[weight])
    assert told.equals(expected)
    row.hold(made, stepped)


@by_name(ROWS)
def test_another_seed_gives_other_bits(row: Row) -> None:
    other = segue.fit(row.spec, row.frame, training={"seed": 1, "epochs": 1})
    ours, theirs = row.run.trained.network.state_dict(), other.trained.network.state_dict()
    assert any(not torch.equal(theirs[name], value) for name, value in ours.items())


@by_name([row for row in ROWS if row.spec["data"]["split"]["by"] != "none"])
def test_what_is_held_out_changes_no_weight(row: Row) -> None:
    parts = row.spec["data"]["split"]
    altered = []
    for own in row.sequences.values():
        held = 0 if parts["by"] == "key" else parts["test"]
        altered.append(_altered(own, own.height - held, row))
    if parts["by"] == "key":
        altered[-1] = _altered(list(row.sequences.values())[-1], 0, row)
    other = segue.fit(row.spec, pl.concat(altered))
    for name, value in row.run.trained.network.state_dict().items():
        assert torch.equal(other.trained.network.state_dict()[name], value)
    for name, field in row.run.trained.fields.items():
        assert other.trained.fields[name].fitted() == field.fitted()
    for name, task in row.run.trained.tasks.items():
        assert other.trained.tasks[name].fitted() == task.fitted()
        assert other.evaluation is not None and row.run.evaluation is not None
        assert other.evaluation.scores[name].metrics != row.run.evaluation.scores[name].metrics


def _altered(frame: pl.DataFrame, start: int, row: Row) -> pl.DataFrame:
    """The same frame with other numbers from a row on."""
    index = pl.int_range(pl.len())
    static = [n for n, given in row.spec["inputs"].items() if given.get("role") == "static"]
    found = frame.select(pl.col(pl.Float64).exclude(static)).columns
    words = [name for name in ("state", "kind") if name in row.spec["outputs"]]
    swap = {"up": "down", "down": "up", "good": "bad", "bad": "good"}
    return frame.with_columns(
        *(
            pl.when(index >= start).then(3.5 - 2 * pl.col(n)).otherwise(pl.col(n)).alias(n)
            for n in found
        ),
        *(
            pl.when(index >= start).then(pl.col(n).replace(swap)).otherwise(pl.col(n)).alias(n)
            for n in words
        ),
    )


# Evaluation ---------------------------------------------------------------------------------------


@by_name(FORECASTS)
def test_an_evaluated_forecast_equals_predict_on_the_data_cut_there(row: Row) -> None:
    evaluation = row.run.evaluation
    assert evaluation is not None
    first, stop = row.run.trained.origins(evaluation.part)
    names = list(row.sequences)
    for task, output in evaluation.outputs.items():
        place = 0
        for span, (start, end) in enumerate(zip(first, stop, strict=True)):
            name = names[evaluation.part.rows[span]]
            for origin in (start, end - 1):
                told = row.run.predict(row.cut(name, origin + 1), row.ahead(name, origin + 1))
                decoded = row.run.trained.tasks[task].decode(output[[place + origin - start]])
                shown = told.select(decoded.columns)
                row.hold(shown.to_dict(as_series=False), decoded.to_dict(as_series=False))
            place += end - start
        assert place == len(output)


@by_name([row for row in CAUSAL if row.every and row.key and not row.forecasts])
def test_what_comes_after_changes_no_answer(row: Row) -> None:
    for own in row.sequences.values():
        before, changed = row.run.predict(own), row.run.predict(_altered(own, 6, row))
        row.hold(changed[:6].to_dicts(), before[:6].to_dicts())
        assert not changed[6:].equals(before[6:])
