"""Live: one record in, one prediction out, with the state carried along.

A session's prediction after some records is the one that `predict` gives for the sequence of these records, to the bit
where the native kernels run (see `segue.explain`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
from segue.data.store import Pieces
from segue.errors import CausalError, DataError, RunError
from segue.fields.field import raw_column
from segue.fields.timestamp import moments, seconds
from segue.model import REASON, NetworkState
from segue.sequences import Sequences
from segue.tasks import Forecast
from segue.trained import Trained

Reading: TypeAlias = Mapping[str, Any]
"""A record as it comes in: a value for every per-step input, None where it is not observed."""

Prediction: TypeAlias = dict[str, Any]
"""A record as it goes out, in the user's terms; a forecast has a list of S values for every column."""


class Sessions:
    """Many keyed sequences, live, stepped as one batch; each has its own state and none ever sees another's.

    The cost and the memory of a step do not depend on how many came before.

    Args:
        trained: a causal model.

    Raises:
        CausalError: the model reads the future.
    """

    def __init__(self, trained: Trained) -> None:
        if not trained.network.causal:
            raise CausalError(REASON)
        self.trained = trained
        self._rows: dict[str, int] = {}
        self._static: dict[str, Reading] = {}
        self._state = trained.network.initial_state(0)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the sequences that have a state."""
        return tuple(self._rows)

    def step(self, records: Mapping[str, Reading]) -> dict[str, Prediction]:
        """One record for each of some keys; a new key starts a new sequence.

        Raises:
            DataError: a record lacks something or holds something of another kind; all states are then as they were.
        """
        return {
            key: made[0]
            for key, made in self.chunks({key: [record] for key, record in records.items()}).items()
        }

    @torch.no_grad()
    def chunks(self, records: Mapping[str, list[Reading]]) -> dict[str, list[Prediction]]:
        """Some records for each of some keys, as if stepped one by one, in one go."""
        filled = {key: several for key, several in records.items() if several}
        if not filled:
            return {key: [] for key in records}
        static = {
            key: self._static.get(key) or _static_of(self.trained, several[0], key)
            for key, several in filled.items()
        }
        state, rows = self._gathered(tuple(filled))
        sequences = _sequences(self.trained, filled, static)
        _refuse_past(sequences, state.clock, self.trained)
        store = self.trained.store(sequences, targets=False)
        pieces = Pieces(
            np.arange(sequences.count), np.zeros(sequences.count, np.int64), sequences.lengths
        )
        batch = store.batch(pieces, np.arange(sequences.total))
        flat = [record for several in filled.values() for record in several]
        if self.trained.forecasts:
            batch = replace(batch, ahead=_ahead(self.trained, sequences.times, flat))
        self.trained.network.eval()
        outputs, after = self.trained.network.unroll(batch, state, running=True)
        predictions = self._decoded(outputs, sequences.times)
        self._scatter(after, tuple(filled), rows)
        self._static.update(static)
        made = iter(predictions)
        return {key: [next(made) for _ in several] for key, several in records.items()}

    def drop(self, key: str) -> None:
        """Forget a sequence; a later record of this key starts anew."""
        row = self._rows.pop(key)
        self._static.pop(key, None)
        keep = torch.tensor(
            [r for r in range(len(self._state.clock)) if r != row], dtype=torch.int64
        )
        self._state = ops.map_state(lambda leaf: leaf[keep], self._state)
        self._rows = {other: r - (r > row) for other, r in self._rows.items()}

    def fork(self) -> Sessions:
        """A copy that goes on from here on its own."""
        other = Sessions(self.trained)
        # States are values: a step makes new ones and never writes into the old.
        other._rows, other._static, other._state = dict(self._rows), dict(self._static), self._state
        return other

    def snapshot(self) -> bytes:
        """All that the sessions remember, as safetensors; `restore` takes it in this or in another process."""
        leaves = {
            str(index): leaf.contiguous().clone()
            for index, leaf in enumerate(ops.leaves(self._state))
        }
        about = {"model": self._signature(), "rows": self._rows, "static": self._static}
        return safetensors.torch.save(leaves, {"segue": json.dumps(about, default=str)})

    def restore(self, snapshot: bytes) -> None:
        """Go back to a snapshot of the same model.

        Raises:
            RunError: it is damaged or was taken from another model.
        """
        try:
            leaves = safetensors.torch.load(snapshot)
            header = json.loads(snapshot[8 : 8 + int.from_bytes(snapshot[:8], "little")])
            about = json.loads(header["__metadata__"]["segue"])
        except (SafetensorError, ValueError, KeyError) as error:
            raise RunError(
                "snapshot", "bytes that `snapshot` gave", str(error), "take a new snapshot"
            ) from None
        if about["model"] != self._signature():
            raise RunError(
                "snapshot",
                "a snapshot of this model",
                "one of another model",
                "restore it with its own run",
            )
        count = iter(range(len(leaves)))
        self._state = ops.map_state(lambda _: leaves[str(next(count))], self._state)
        self._rows, self._static = about["rows"], about["static"]

    def _signature(self) -> str:
        """Tells a model from another: the sum of its weights, to the bit."""
        return str(
            [float(value.double().sum()) for value in self.trained.network.state_dict().values()]
        )

    def _gathered(self, keys: tuple[str, ...]) -> tuple[NetworkState, list[int | None]]:
        """The states of some keys, initial ones for new keys."""
        rows = [self._rows.get(key) for key in keys]
        fresh = self.trained.network.initial_state(rows.count(None))
        place = iter(range(len(self._state.clock), len(self._state.clock) + rows.count(None)))
        index = torch.tensor([next(place) if row is None else row for row in rows])
        return ops.map_state(
            lambda old, new: torch.cat([old, new])[index], self._state, fresh
        ), rows

    def _scatter(self, after: NetworkState, keys: tuple[str, ...], rows: list[int | None]) -> None:
        for key, row in zip(keys, rows, strict=True):
            if row is None:
                self._rows[key] = len(self._rows)
        index = torch.tensor([self._rows[key] for key in keys])
        size = len(self._rows)
        if len(keys) == size and bool((index == torch.arange(size)).all()):
            self._state = after
            return

        def written(old: Tensor, new: Tensor) -> Tensor:
            grown = torch.cat([old, new.new_zeros(size - len(old), *new.shape[1:])])
            grown[index] = new
            return grown

        self._state = ops.map_state(written, self._state, after)

    def _decoded(
        self, outputs: Mapping[str, Tensor], times: NDArray[np.float64]
    ) -> list[Prediction]:
        made: list[Prediction] = [{} for _ in times]
        for name, task in self.trained.tasks.items():
            rows = task.decode(outputs[name])
            if not isinstance(task, Forecast):
                for prediction, row in zip(made, rows.iter_rows(named=True), strict=True):
                    prediction.update(row)
                continue
            for index, prediction in enumerate(made):
                span = rows[index * task.horizon : (index + 1) * task.horizon]
                prediction.update(span.to_dict(as_series=False))
        if self.trained.forecasts and self.trained.clock.column is not None:
            ahead = self.trained.clock.after(times, self.trained.horizon)
            for prediction, future in zip(made, ahead, strict=True):
                prediction[self.trained.clock.column] = self.trained.clock.values(future).to_list()
        return made


class Session:
    """One sequence, live; see `Sessions` for many."""

    def __init__(self, trained: Trained) -> None:
        self._one = Sessions(trained)

    def step(self, record: Reading) -> Prediction:
        """The prediction after `record`: a dict with a value for every per-step input (None where not observed).

        A model of a series needs the series' own new value; static inputs are taken from the first record. Inputs that are
        known ahead are given as ``{"ahead": {column: [the next S values]}}``; calendars need nothing.

        Raises:
            DataError: the record lacks something or holds something of another kind; the state is then as it was.
        """
        return self.chunk([record])[0]

    def chunk(self, records: Iterable[Reading]) -> list[Prediction]:
        """The predictions after each of `records`, as if stepped one by one, in one go."""
        return self._one.chunks({"": list(records)})[""]

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


def _static_of(trained: Trained, record: Reading, key: str) -> Reading:
    return {
        column: _value(record, column, f"the first record of {key!r}")
        for column in _columns(trained, static=True)
    }


def _columns(trained: Trained, *, static: bool) -> list[str]:
    """The columns that records must have, of static inputs or of the others and the series to forecast."""
    inputs = trained.declaration.inputs
    found = [
        c
        for n, f in trained.fields.items()
        if (inputs[n].role == "static") == static
        for c in f.columns
    ]
    if not static:
        found += [
            c for task in trained.tasks.values() if isinstance(task, Forecast) for c in task.columns
        ]
    return list(dict.fromkeys(found))


def _sequences(
    trained: Trained, records: Mapping[str, list[Reading]], static: Mapping[str, Reading]
) -> Sequences:
    """Records as raw sequences, each continuing one that is remembered."""
    flat = [record for several in records.values() for record in several]
    owner = {c: field for field in trained.fields.values() for c in field.columns}
    steps = []
    for column in _columns(trained, static=False):
        values = [
            _value(record, column, f"record {index + 1}") for index, record in enumerate(flat)
        ]
        if column in owner:
            steps.append(owner[column].column(column, values, "records"))
        else:
            steps.append(raw_column(column, values, pl.Float64, "a number", "records"))
    fixed = [
        owner[column].column(column, [static[key][column] for key in records], "records")
        for column in _columns(trained, static=True)
    ]
    lengths = np.array([len(several) for several in records.values()], np.int64)
    return Sequences(
        steps=pl.DataFrame(steps),
        lengths=lengths,
        keys=pl.Series("key", list(records)),
        static=pl.DataFrame(fixed),
        times=_times(trained, flat, lengths),
        has_time=trained.clock.column is not None,
        origin="records",
    )


def _value(record: Reading, column: str, where: str) -> Any:
    if column not in record:
        got = "only " + ", ".join(map(str, record)) if record else "an empty record"
        raise DataError(
            where, f"a value for {column!r}", got, "add it; null says that it is not observed"
        )
    return record[column]


def _times(
    trained: Trained, flat: list[Reading], lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    clock = trained.clock
    if clock.column is None:
        return np.full(len(flat), np.nan)
    values = [
        _value(record, clock.column, f"record {index + 1}") for index, record in enumerate(flat)
    ]
    if clock.dates:
        return seconds(moments(clock.column, values, "records"), "records")
    column = raw_column(clock.column, values, pl.Float64, "a number", "records")
    return column.to_numpy().astype(np.float64)


def _refuse_past(sequences: Sequences, clock: Tensor, trained: Trained) -> None:
    """Count the steps where there is no time, and refuse times that do not rise."""
    first, times = sequences.offsets[:-1], sequences.times
    before = clock.numpy()
    if not sequences.has_time:
        since = np.where(np.isnan(before), -1.0, before)
        index = np.arange(sequences.total) - np.repeat(first, sequences.lengths)
        times[:] = np.repeat(since, sequences.lengths) + 1 + index
        return
    previous = np.empty_like(times)
    previous[1:] = times[:-1]
    previous[first] = np.where(np.isnan(before), -np.inf, before)
    late = times <= previous
    if late.any():
        row = int(late.argmax())
        shown = trained.clock.values(np.array([previous[row], times[row]])).to_list()
        where = f"record {row + 1}: {trained.clock.column!r}"
        raise DataError(
            where,
            f"a time after {shown[0]}",
            str(shown[1]),
            "send the records of a sequence in time order",
        )


def _ahead(trained: Trained, times: NDArray[np.float64], flat: list[Reading]) -> dict[str, Tensor]:
    """The encoded inputs known ahead of every record, ``[M, S, ...]``."""
    horizon, clock = trained.horizon, trained.clock
    future = clock.after(times, horizon).reshape(-1)
    found = {}
    for name in trained.network.known:
        field = trained.fields[name]
        columns = []
        for column in field.columns:
            if column == clock.column:
                columns.append(clock.values(future).alias(column))
                continue
            values: list[Any] = []
            for index, record in enumerate(flat):
                given = record.get("ahead", {}).get(column, ())
                if len(given) != horizon:
                    where, got = f"record {index + 1}: ahead.{column}", f"{len(given)} values"
                    raise DataError(
                        where, f"the next {horizon} values", got, "it is declared as known ahead"
                    )
                values.extend(given)
            columns.append(field.column(column, values, "records"))
        found[name] = field.encode(pl.DataFrame(columns), "records").unflatten(
            0, (len(flat), horizon)
        )
    return found
