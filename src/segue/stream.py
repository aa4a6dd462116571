"""Live: one record in, one prediction out, with the state carried along.

A session's prediction after some records is the one that `predict` gives for the sequence of these
records, to the bit where the native kernels run (see `segue.explain`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from segue import ops
from segue.errors import CausalError, DataError, RunError
from segue.inference import Leaves, ready
from segue.model import NetworkState
from segue.records import Key, Prediction, Reader, Record, place_of
from segue.torch_defaults import with_torch_defaults
from segue.trained import Trained

Index: TypeAlias = slice | NDArray[np.int64]

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

    @with_torch_defaults
    def __init__(self, trained: Trained) -> None:
        if not trained.network.causal:
            raise CausalError(trained.network.reason)
        self.trained = trained
        self._network, self._reader = ready(trained.network), Reader(trained)
        # Row r of the state is that of the key with row r; rows beyond these are initial ones.
        self._rows: dict[Key, int] = {}
        self._static: dict[Key, Record] = {}
        self._state = self._network.nested(self._network.initial_state(0))

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the sequences that have a state, from the first to the last that came."""
        return tuple(self._rows)

    def step(self, records: Mapping[Key, Record]) -> dict[Key, Prediction]:
        """One record for each of some keys; a new key starts a new sequence.

        Raises:
            DataError: a record lacks something, holds something of another kind, or is not later
                than the one before; all states are then as they were.
        """
        made = self.chunks({key: [record] for key, record in records.items()})
        return {key: several[0] for key, several in made.items()}

    @with_torch_defaults
    def chunks(self, records: Mapping[Key, list[Record]]) -> dict[Key, list[Prediction]]:
        """Some records for each of some keys, as if stepped one by one, in one go.

        Raises:
            DataError: as `step`.
        """
        given = {key: several for key, several in records.items() if several}
        if not given:
            return {key: [] for key in records}
        fresh = [key for key in given if key not in self._rows]
        static = {
            key: self._reader.static(given[key][0], place_of(key, 0, len(given) == 1))
            for key in fresh
        }
        self._make_room(len(fresh))
        rows = {key: len(self._rows) + place for place, key in enumerate(fresh)}
        index = _index([self._rows[key] if key in self._rows else rows[key] for key in given])
        before = [leaf[index] for leaf in self._leaves]
        known = {key: static[key] if key in static else self._static[key] for key in given}
        batch, times = self._reader.batch(given, known, before[0])
        outputs, after = self._network.run(batch, before, running=True)
        made = iter(self._reader.predictions(outputs, times))
        predictions = {key: [next(made) for _ in several] for key, several in records.items()}
        # Nothing is remembered before this point, where nothing can fail any more.
        self._rows |= rows
        self._static |= static
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
        self._write(_index([row]), [leaf[[last]] for leaf in self._leaves])
        self._write(_index([last]), self._network.first)

    def fork(self) -> Sessions:
        """A copy that goes on from here on its own."""
        other = Sessions(self.trained)
        other._rows, other._static = dict(self._rows), dict(self._static)
        other._network, other._reader = self._network, self._reader
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
        room = len(self._leaves[0])
        if len(self._rows) + fresh <= room:
            return
        more = self._network.nested(self._network.initial_state(max(room, fresh)))
        self._state = ops.map_state(lambda old, new: torch.cat([old, new]), self._state, more)

    @property
    def _state(self) -> NetworkState:
        """The state of all keys, and of some to come."""
        return self._held

    @_state.setter
    def _state(self, state: NetworkState) -> None:
        # The same memory twice: NumPy takes and puts rows in a fraction of the time.
        self._held, self._leaves = state, [leaf.numpy() for leaf in ops.leaves(state)]

    def _write(self, index: Index, leaves: Leaves) -> None:
        """Put rows into the rows `index` of the state, which nobody else holds."""
        for ours, theirs in zip(self._leaves, leaves, strict=True):
            ours[index] = theirs


class Session:
    """One sequence, live; see `Sessions` for many."""

    def __init__(self, trained: Trained) -> None:
        self._one = Sessions(trained)

    def step(self, record: Record) -> Prediction:
        """The prediction after `record`: a dict with a value for every per-step input.

        None says that a value is not observed. A forecast needs the new values of its series.
        Static inputs are taken from the first record. Inputs that are known ahead are given as
        ``{"ahead": {column: [the next S values]}}``; calendars need nothing.

        Raises:
            DataError: the record lacks something, holds something of another kind, or is not later
                than the one before; the state is then as it was.
        """
        return self.chunk([record])[0]

    def chunk(self, records: Iterable[Record]) -> list[Prediction]:
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


def _index(rows: list[int]) -> Index:
    """Rows as an index, the same row after row as one at a time."""
    return slice(rows[0], rows[0] + 1) if len(rows) == 1 else np.array(rows)


def _seal(text: str, leaves: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a snapshot's content."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(leaves):
        digest.update(leaves[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
