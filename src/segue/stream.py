"""Live: one record in, one prediction out, with the state carried along.

A session's prediction after some records is the one that `predict` gives for the sequence of these
records, to the bit where the native kernels run (see `segue.explain`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from segue import ops
from segue.data.store import Batch, Pieces
from segue.errors import CausalError, DataError, RunError
from segue.fields.field import raw_column
from segue.fields.number import numbers
from segue.fields.timestamp import moments, seconds
from segue.model import REASON, NetworkState
from segue.sequences import Sequences
from segue.tasks import Forecast
from segue.trained import Trained

Reading: TypeAlias = Mapping[str, Any]
"""A record as it comes in: a value for every per-step input, None where it is not observed."""

Prediction: TypeAlias = dict[str, Any]
"""A record as it goes out, in the user's terms; a forecast has a list of S values per column."""

Key: TypeAlias = str | int
"""What tells one sequence from another."""

SINGLE = ""
"""The key of a session that has only one."""


class Sessions:
    """Many keyed sequences, live, stepped as one batch; each has its own state and none ever sees
    another's.

    The cost and the memory of a step depend neither on how many came before nor on how many other
    keys there are.

    Args:
        trained: a causal model.

    Raises:
        CausalError: the model reads the future.
    """

    def __init__(self, trained: Trained) -> None:
        if not trained.network.causal:
            raise CausalError(REASON)
        trained.network.eval()
        self.trained = trained
        # Row r of the state is that of the key with row r; rows beyond these are initial ones.
        self._rows: dict[Key, int] = {}
        self._static: dict[Key, Reading] = {}
        self._state = trained.network.initial_state(0)

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the sequences that have a state, from the first to the last that came."""
        return tuple(self._rows)

    def step(self, records: Mapping[Key, Reading]) -> dict[Key, Prediction]:
        """One record for each of some keys; a new key starts a new sequence.

        Raises:
            DataError: a record lacks something, holds something of another kind, or is not later
                than the one before; all states are then as they were.
        """
        made = self.chunks({key: [record] for key, record in records.items()})
        return {key: several[0] for key, several in made.items()}

    @torch.no_grad()
    def chunks(self, records: Mapping[Key, list[Reading]]) -> dict[Key, list[Prediction]]:
        """Some records for each of some keys, as if stepped one by one, in one go.

        Raises:
            DataError: as `step`.
        """
        given = {key: several for key, several in records.items() if several}
        if not given:
            return {key: [] for key in records}
        fresh = [key for key in given if key not in self._rows]
        static = {
            key: _static_of(self.trained, given[key][0], _place(key, 0, len(given) == 1))
            for key in fresh
        }
        self._make_room(len(fresh))
        rows = self._rows | {key: len(self._rows) + place for place, key in enumerate(fresh)}
        index = torch.tensor([rows[key] for key in given])
        before = ops.map_state(lambda leaf: leaf[index], self._state)
        batch, times = _batch(self.trained, given, self._static | static, before.clock)
        outputs, after = self.trained.network.unroll(batch, before, running=True)
        made = iter(_decoded(self.trained, outputs, times))
        predictions = {key: [next(made) for _ in several] for key, several in records.items()}
        # Nothing is remembered before this point, where nothing can fail any more.
        self._rows = rows
        self._static.update(static)
        self._write(index, after)
        return predictions

    def drop(self, key: Key) -> None:
        """Forget a sequence; a later record of this key starts anew.

        Raises:
            DataError: there is no such sequence.
        """
        if key not in self._rows:
            expected, got = "a key that has a state", f"one of {len(self._rows)} others"
            raise DataError(f"drop: {key!r}", expected, got, "see `keys`")
        row = self._rows.pop(key)
        self._static.pop(key)
        # The last row moves into the place that falls free.
        last = len(self._rows)
        self._rows = {other: row if r == last else r for other, r in self._rows.items()}
        self._write(torch.tensor([row]), ops.map_state(lambda leaf: leaf[[last]], self._state))
        self._write(torch.tensor([last]), self.trained.network.initial_state(1))

    def fork(self) -> Sessions:
        """A copy that goes on from here on its own."""
        other = Sessions(self.trained)
        other._rows, other._static = dict(self._rows), dict(self._static)
        other._state = ops.map_state(torch.clone, self._state)
        return other

    def snapshot(self) -> bytes:
        """All that the sessions remember, as safetensors.

        `restore` takes it in this or in another process.
        """
        leaves = {
            str(index): leaf[: len(self._rows)].clone()
            for index, leaf in enumerate(ops.leaves(self._state))
        }
        about = {
            "model": self._signature(),
            "keys": list(self._rows.items()),
            "static": list(self._static.items()),
        }
        text = json.dumps(about, default=str)
        # One entry, because safetensors writes several in no fixed order.
        sealed = json.dumps({"about": text, "sha256": _seal(text, leaves)})
        return safetensors.torch.save(leaves, {"segue": sealed})

    def restore(self, snapshot: bytes) -> None:
        """Go back to a snapshot of the same model.

        Raises:
            RunError: it is damaged or was taken from another model.
        """
        try:
            leaves = safetensors.torch.load(snapshot)
            size = int.from_bytes(snapshot[:8], "little")
            sealed = json.loads(json.loads(snapshot[8 : 8 + size])["__metadata__"]["segue"])
            is_whole = sealed["sha256"] == _seal(sealed["about"], leaves)
        except (SafetensorError, ValueError, KeyError, TypeError):
            expected, got = "bytes that `snapshot` gave", f"{len(snapshot)} other bytes"
            raise RunError("snapshot", expected, got, "take a new snapshot") from None
        if not is_whole:
            expected, got = "a snapshot as it was taken", "another SHA-256 than it says"
            raise RunError("snapshot", expected, got, "take a new snapshot")
        about = json.loads(sealed["about"])
        if about["model"] != self._signature():
            got, fix = "one of another model", "restore it with its own run"
            raise RunError("snapshot", "a snapshot of this model", got, fix)
        count = iter(range(len(leaves)))
        self._state = ops.map_state(lambda _: leaves[str(next(count))], self._state)
        self._rows, self._static = dict(about["keys"]), dict(about["static"])

    def _signature(self) -> str:
        """Tells a model from another: the SHA-256 of its weights."""
        weights = safetensors.torch.save(self.trained.network.state_dict())
        return hashlib.sha256(weights).hexdigest()

    def _make_room(self, fresh: int) -> None:
        """Have initial rows for so many new keys; room doubles, so that it is seldom made."""
        room = len(self._state.clock)
        if len(self._rows) + fresh <= room:
            return
        more = self.trained.network.initial_state(max(room, fresh))
        self._state = ops.map_state(lambda old, new: torch.cat([old, new]), self._state, more)

    def _write(self, index: Tensor, state: NetworkState) -> None:
        """Put the rows of `state` into the rows `index` of ours, which nobody else holds."""
        for ours, theirs in zip(ops.leaves(self._state), ops.leaves(state), strict=True):
            ours[index] = theirs


class Session:
    """One sequence, live; see `Sessions` for many."""

    def __init__(self, trained: Trained) -> None:
        self._one = Sessions(trained)

    def step(self, record: Reading) -> Prediction:
        """The prediction after `record`: a dict with a value for every per-step input.

        None says that a value is not observed. A forecast needs the new values of its series.
        Static inputs are taken from the first record. Inputs that are known ahead are given as
        ``{"ahead": {column: [the next S values]}}``; calendars need nothing.

        Raises:
            DataError: the record lacks something, holds something of another kind, or is not later
                than the one before; the state is then as it was.
        """
        return self.chunk([record])[0]

    def chunk(self, records: Iterable[Reading]) -> list[Prediction]:
        """The predictions after each of `records`, as if stepped one by one, in one go.

        Raises:
            DataError: as `step`.
        """
        return self._one.chunks({SINGLE: list(records)})[SINGLE]

    def snapshot(self) -> bytes:
        """All that the session remembers; see `Sessions.snapshot`."""
        return self._one.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Go back to a snapshot; see `Sessions.restore`."""
        self._one.restore(snapshot)

    def fork(self) -> Session:
        """A second session that goes on from here on its own."""
        other = Session(self._one.trained)
        other._one = self._one.fork()
        return other


def _seal(text: str, leaves: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a snapshot's content."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(leaves):
        digest.update(leaves[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


# From records to a batch --------------------------------------------------------------------------


def _static_of(trained: Trained, record: Reading, place: str) -> Reading:
    """The static inputs in the first record of a sequence."""
    return {column: _value(record, column, place) for column in _columns(trained, static=True)}


def _columns(trained: Trained, *, static: bool) -> list[str]:
    """What records must hold: static inputs, or the other inputs and the series to forecast."""
    inputs = trained.declaration.inputs
    fields = [f for n, f in trained.fields.items() if (inputs[n].role == "static") == static]
    found = [column for field in fields for column in field.columns]
    if not static:
        forecasts = [task for task in trained.tasks.values() if isinstance(task, Forecast)]
        found += [column for task in forecasts for column in task.columns]
    return list(dict.fromkeys(found))


def _batch(
    trained: Trained,
    records: Mapping[Key, list[Reading]],
    static: Mapping[Key, Reading],
    clock: Tensor,
) -> tuple[Batch, NDArray[np.float64]]:
    """Records of P keys, which go on from the time `clock` ``[P]``, as a batch, and their times."""
    flat = [record for several in records.values() for record in several]
    places = [
        _place(key, row, len(records) == 1)
        for key, several in records.items()
        for row in range(len(several))
    ]
    lengths = np.array([len(several) for several in records.values()], np.int64)
    times = _times(trained, flat, places, lengths, clock.numpy())
    owner = {c: field for field in trained.fields.values() for c in field.columns}
    steps = []
    for column in _columns(trained, static=False):
        values = [_value(record, column, place) for record, place in zip(flat, places, strict=True)]
        if column in owner:
            steps.append(owner[column].column(column, values, "records"))
        else:
            steps.append(raw_column(column, values, pl.Float64, "a number", "records"))
    fixed = [
        owner[column].column(column, [static[key][column] for key in records], "records")
        for column in _columns(trained, static=True)
    ]
    sequences = Sequences(
        steps=pl.DataFrame(steps),
        lengths=lengths,
        keys=pl.Series("key", [str(key) for key in records]),
        static=pl.DataFrame(fixed),
        times=times,
        has_time=trained.clock.column is not None,
        origin="records",
    )
    store = trained.store(sequences, targets=False)
    zero = np.zeros(len(lengths), np.int64)
    batch = store.batch(Pieces(np.arange(len(lengths)), zero, lengths), np.arange(len(flat)))
    if trained.forecasts:
        batch = replace(batch, ahead=_ahead(trained, times, flat, places))
    return batch, times


def _place(key: Key, row: int, is_single: bool) -> str:
    """What to call a record in a message."""
    return f"record {row + 1}" if is_single else f"key {key!r}, record {row + 1}"


def _value(record: Reading, column: str, where: str) -> Any:
    if column not in record:
        got = "only " + ", ".join(map(str, record)) if record else "an empty record"
        fix = "add it; null says that it is not observed"
        raise DataError(where, f"a value for {column!r}", got, fix)
    return record[column]


def _times(
    trained: Trained,
    flat: list[Reading],
    places: list[str],
    lengths: NDArray[np.int64],
    clock: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The time of every record: what it says, or, where the data have none, its number.

    Raises:
        DataError: there is none, or it is not later than that of the record before.
    """
    first, column = np.cumsum(lengths) - lengths, trained.clock.column
    if column is None:
        since = np.where(np.isnan(clock), -1.0, clock) + 1 - first
        counted: NDArray[np.float64] = np.arange(len(flat)) + np.repeat(since, lengths)
        return counted
    values = [_value(record, column, place) for record, place in zip(flat, places, strict=True)]
    if trained.clock.dates:
        times = seconds(moments(column, values, "records"), "records")
    else:
        times = numbers(raw_column(column, values, pl.Float64, "a number", "records"), "records")
    before = np.concatenate([[-np.inf], times[:-1]])
    before[first] = np.where(np.isnan(clock), -np.inf, clock)
    refused = ~(times > before)
    if refused.any():
        row = int(refused.argmax())
        expected = "a time"
        if np.isfinite(before[row]):
            expected += f" after {trained.clock.values(before[[row]])[0]}"
        fix = "send the records of a sequence in time order"
        raise DataError(f"{places[row]}: {column!r}", expected, str(values[row]), fix)
    return times


def _ahead(
    trained: Trained, times: NDArray[np.float64], flat: list[Reading], places: list[str]
) -> dict[str, Tensor]:
    """The encoded inputs known ahead of every record, ``[M, S, ...]``."""
    horizon, clock = trained.horizon, trained.clock
    found = {}
    for name in trained.network.known:
        field, columns = trained.fields[name], []
        for column in field.columns:
            if column == clock.column:
                columns.append(clock.values(clock.after(times, horizon).reshape(-1)))
                continue
            values = [
                value
                for record, place in zip(flat, places, strict=True)
                for value in _given_ahead(record, column, horizon, place)
            ]
            columns.append(field.column(column, values, "records"))
        encoded = field.encode(pl.DataFrame(columns), "records")
        found[name] = encoded.reshape(len(flat), horizon, *encoded.shape[1:])
    return found


def _given_ahead(record: Reading, column: str, horizon: int, where: str) -> Sequence[Any]:
    ahead = record.get("ahead")
    given = ahead.get(column) if isinstance(ahead, Mapping) else None
    if not isinstance(given, list | tuple) or len(given) != horizon:
        got = f"{len(given)} values" if isinstance(given, list | tuple) else "none"
        expected, fix = f"a list of the next {horizon} values", "it is declared as known ahead"
        raise DataError(f"{where}: ahead.{column}", expected, got, fix)
    return given


# From outputs to predictions ----------------------------------------------------------------------


def _decoded(
    trained: Trained, outputs: Mapping[str, Tensor], times: NDArray[np.float64]
) -> list[Prediction]:
    """A prediction for each record."""
    made: list[Prediction] = [{} for _ in times]
    for name, task in trained.tasks.items():
        columns = task.decode(outputs[name]).to_dict(as_series=False)
        for column, values in columns.items():
            for index, prediction in enumerate(made):
                # A forecast decodes to S rows per record.
                span = slice(index * trained.horizon, (index + 1) * trained.horizon)
                prediction[column] = values[span] if trained.forecasts else values[index]
    if trained.forecasts and trained.clock.column is not None:
        future = trained.clock.values(trained.clock.after(times, trained.horizon).reshape(-1))
        for index, prediction in enumerate(made):
            span = slice(index * trained.horizon, (index + 1) * trained.horizon)
            prediction[trained.clock.column] = future[span].to_list()
    return made
