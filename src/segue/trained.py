"""`Trained`: a declaration with everything that was learnt from data, and its outputs on any data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.clock import Clock
from segue.data.build import build
from segue.data.read import ReadOptions, Table, read
from segue.data.store import Pieces, Store
from segue.fields import Field
from segue.model import Network, NetworkState, known_ahead
from segue.schema import Declaration
from segue.sequences import Part, Sequences, spans
from segue.tasks import Task

CHUNK = 16_384
"""Steps that go through the network at once when nothing is learnt; bounds the memory, never changes an answer."""


@dataclass(frozen=True)
class Trained:
    """A declaration, the fitted fields and tasks, and the network."""

    declaration: Declaration
    fields: dict[str, Field]
    tasks: dict[str, Task]
    network: Network
    clock: Clock

    @property
    def forecasts(self) -> bool:
        """Whether the outputs are forecasts (which stand alone in a declaration)."""
        return any(spec.task == "forecast" for spec in self.declaration.outputs.values())

    @property
    def horizon(self) -> int:
        """S of the forecasts; 0 for other tasks."""
        return max((getattr(task, "horizon", 0) for task in self.tasks.values()), default=0)

    def read(self, source: Any) -> Table:
        """Read data as the declaration says."""
        return source if isinstance(source, Table) else read(source, read_options(self.declaration))

    def sequences(self, source: Any) -> Sequences:
        """The raw sequences in `source`."""
        return build(self.read(source), self.declaration, self.fields, self.tasks)

    def store(self, sequences: Sequences, *, targets: bool) -> Store:
        """The encoded sequences."""
        static = frozenset(
            n for n, spec in self.declaration.inputs.items() if spec.role == "static"
        )
        known = known_ahead(self.declaration)
        return Store(sequences, self.fields, static, known, self.tasks, targets=targets)

    def origins(self, part: Part) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and past-the-last step of each span from which outputs are scored.

        A forecast belongs to the part that owns all of its S target steps, so its origins start one step early.
        """
        if not self.forecasts:
            return part.start, part.stop
        return np.maximum(part.start - 1, 0), np.maximum(part.stop - self.horizon, 0)

    @torch.no_grad()
    def outputs(
        self,
        store: Store,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> dict[str, Tensor]:
        """Raw outputs with the state carried from the start of each sequence.

        Args:
            rows: P sequences of the store.
            first, stop: outputs are wanted at steps ``first[p] .. stop[p] - 1``; tasks at the end answer at
                ``stop[p] - 1``.

        Returns:
            by task: ``[M, ...]``, all wanted steps of the first span, then of the next; at the end ``[P, ...]``.
        """
        self.network.eval()
        found: dict[str, list[Tensor]] = {name: [] for name in self.tasks}
        for group in _groups(stop):
            places: list[NDArray[np.int64]] = []
            ended: list[NDArray[np.int64]] = []
            parts: dict[str, list[Tensor]] = {name: [] for name in self.tasks}
            state = None
            for start, length in self._chunks(stop[group]):
                pieces = Pieces(rows[group], start, length)
                low = np.clip(first[group] - start, 0, length)
                wanted = length - low
                at = spans(np.cumsum(length) - length + low, wanted)
                output, state = self.network.unroll(store.batch(pieces, at), state)
                owner = np.repeat(np.arange(len(group)), wanted)
                places.append(owner * (int(stop.max()) + 1) + spans(start + low, wanted))
                done = np.flatnonzero(
                    (start + length == stop[group]) & (length > 0)
                    | (stop[group] == 0) & (start == 0)
                )
                ended.append(done)
                for name, task in self.tasks.items():
                    parts[name].append(output[name] if task.every else output[name][done])
            step_order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
            end_order = torch.from_numpy(np.argsort(np.concatenate(ended), kind="stable"))
            for name, task in self.tasks.items():
                found[name].append(torch.cat(parts[name])[step_order if task.every else end_order])
        return {name: torch.cat(parts) for name, parts in found.items()}

    def targets(
        self,
        store: Store,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
        limit: NDArray[np.int64],
    ) -> dict[str, Tensor]:
        """The targets of `outputs` with the same arguments; `limit` is where each span's part stops."""
        pieces = Pieces(rows, first, stop - first)
        return store.targets_at(pieces, np.arange(int((stop - first).sum())), limit)

    def _chunks(
        self, stop: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Start and length of the chunks of a group of spans; one chunk where the network reads backwards."""
        longest = int(stop.max(initial=0))
        size = max(1, CHUNK // max(1, len(stop))) if self.network.causal else max(1, longest)
        for begin in range(0, max(1, longest), size):
            start = np.minimum(begin, stop)
            yield start, np.minimum(begin + size, stop) - start

    @torch.no_grad()
    def state_after(self, store: Store) -> NetworkState:
        """The state of every sequence of the store after its last step."""
        self.network.eval()
        state = self.network.initial_state(len(store.lengths))
        rows = np.arange(len(store.lengths))
        for start, length in self._chunks(store.lengths):
            nowhere = np.zeros(0, np.int64)
            _, state = self.network.unroll(store.batch(Pieces(rows, start, length), nowhere), state)
        return state


def read_options(declaration: Declaration) -> ReadOptions:
    """How the declaration says to read files; categories stay text, so that a code such as 007 keeps its zeros."""
    data = declaration.data
    categories = (name for name, spec in declaration.inputs.items() if spec.kind == "category")
    return ReadOptions(
        separator=data.separator,
        header=data.header,
        columns=data.columns,
        lines=data.lines,
        encoding=data.encoding,
        missing=data.missing,
        text_columns=(*data.text_columns, *categories),
    )


def _groups(stop: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Spans in groups whose steps do not exceed `CHUNK` by more than one span."""
    group = np.cumsum(stop) // CHUNK
    for number in np.unique(group):
        yield np.flatnonzero(group == number)
