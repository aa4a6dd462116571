"""`Trained`: a declaration with all that was learnt from data, and its outputs on any data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from segue.inference import Arrays, ready
from segue.model import Network, known_ahead
from segue.schema import Declaration
from segue.sequences import Part, Sequences, spans
from segue.tasks import TASKS, Task

CHUNK = 2**22
"""Numbers that the network may make at once when nothing is learnt: this bounds the memory (to some
hundreds of megabytes), and never changes an answer.
"""


@dataclass(frozen=True)
class Pass:
    """What goes through the network at once: a stretch of several spans.

    Attributes:
        spans: which spans.
        start, length: the steps of each that are answered, ``start .. start + length - 1``.
        ends: which of `spans` end here.
        outputs: by task, at the answered steps of all, or of those that end here.
    """

    spans: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    ends: NDArray[np.int64]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """A declaration, the fitted fields and tasks, and the network.

    Attributes:
        chunk: numbers that go through the network at once, see `CHUNK`.
    """

    declaration: Declaration
    fields: dict[str, Field]
    tasks: dict[str, Task]
    network: Network
    clock: Clock
    chunk: int = CHUNK

    @property
    def forecasts(self) -> bool:
        """Whether the outputs are forecasts (which stand alone in a declaration)."""
        return any(spec.task == "forecast" for spec in self.declaration.outputs.values())

    @property
    def horizon(self) -> int:
        """S of the forecasts, or the frames ahead; 0 for other tasks."""
        return max((getattr(task, "horizon", 0) for task in self.tasks.values()), default=0)

    @property
    def cuts(self) -> bool:
        """Whether a sequence may go through the network piece by piece."""
        return self.network.causal and not any(task.whole for task in self.tasks.values())

    def read(self, source: Any) -> Table:
        """Read data as the declaration says."""
        if isinstance(source, Table):
            return source
        wanted = tuple(column for field in self.fields.values() for column in field.columns)
        return read(source, replace(read_options(self.declaration), wanted=wanted))

    def sequences(self, source: Any) -> Sequences:
        """The raw sequences in `source`."""
        return build(self.read(source), self.declaration, self.fields, self.tasks)

    def store(self, sequences: Sequences, *, targets: bool) -> Store:
        """The encoded sequences."""
        roles = {name: given.role for name, given in self.declaration.inputs.items()}
        static = frozenset(name for name, role in roles.items() if role == "static")
        apart = frozenset(name for name, role in roles.items() if role == "apart")
        known = known_ahead(self.declaration)
        return Store(sequences, self.fields, static, apart, known, self.tasks, targets=targets)

    def origins(self, part: Part) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and past-the-last step of each span from which outputs are scored.

        A forecast belongs to the part that owns all of its S target steps, so its origins start one
        step early.
        """
        if not self.horizon:
            return part.start, part.stop
        first = max(getattr(task, "after", 1) for task in self.tasks.values()) - 1
        return np.maximum(part.start - 1, first), np.maximum(part.stop - self.horizon, 0)

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
            rows: P sequences of the store, at least one.
            first, stop: outputs are wanted at steps ``first[p] .. stop[p] - 1``; tasks at the end
                answer at ``stop[p] - 1``.

        Returns:
            by task: ``[M, ...]``, all wanted steps of the first span, then of the next; at the end
            ``[P, ...]``.
        """
        # Where each output belongs: a number that rises with the span, then with the step.
        places: list[NDArray[np.int64]] = []
        ended: list[NDArray[np.int64]] = []
        parts: dict[str, list[Tensor]] = {name: [] for name in self.tasks}
        for passed in self.passes(store, rows, first, stop):
            steps = spans(passed.start, passed.length)
            owner = np.repeat(passed.spans, passed.length)
            places.append(owner * (int(stop.max()) + 1) + steps)
            ended.append(passed.spans[passed.ends])
            for name in self.tasks:
                parts[name].append(passed.outputs[name])
        order = {every: _order(places if every else ended) for every in (True, False)}
        return {
            name: torch.cat(parts[name])[order[task.every]] for name, task in self.tasks.items()
        }

    @torch.no_grad()
    def passes(
        self,
        store: Store,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> Iterator[Pass]:
        """`outputs`, as much at a time as goes through the network at once."""
        network = ready(self.network)
        for group in self._groups(stop):
            state = network.initial_state(len(group))
            for begin, (start, length) in enumerate(self._chunks(stop[group])):
                low = np.clip(first[group] - start, 0, length)
                wanted = length - low
                at = spans(np.cumsum(length) - wanted, wanted)
                batch = store.batch(Pieces(rows[group], start, length), at)
                found, state = network.run(Arrays.of(batch), state, running=False)
                output = {name: torch.from_numpy(values) for name, values in found.items()}
                # A span without steps ends, before it begins, in the first chunk.
                over = (length > 0) & (start + length == stop[group])
                ends = np.flatnonzero(over | (stop[group] == 0) & (begin == 0))
                answered = {
                    n: output[n] if t.every else output[n][ends] for n, t in self.tasks.items()
                }
                yield Pass(group, start + low, wanted, ends, answered)

    def targets(
        self,
        store: Store,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        stop: NDArray[np.int64],
        limit: NDArray[np.int64],
    ) -> dict[str, Any]:
        """The targets of `outputs` with the same arguments: tensors, or the `Future` of a forecast.

        Args:
            limit: the step of each span from which on nothing may be used: where its part stops.
        """
        pieces = Pieces(rows, first, stop - first)
        at = np.arange(int((stop - first).sum()))
        return dict(store.targets_at(pieces, at, limit, from_start=True))

    def _groups(self, stop: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Spans, in their order, that together have about as many steps as go through at once."""
        number = np.cumsum(stop) // self._steps_at_once
        return [np.flatnonzero(number == group) for group in np.unique(number)]

    def _chunks(
        self, stop: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Start and length of the chunks of a group of spans; one chunk if it is read backwards."""
        longest, begin = int(stop.max()), 0
        while begin < longest or begin == 0:
            running = max(1, int((stop > begin).sum()))
            size = max(1, self._steps_at_once // running) if self.cuts else longest
            start = np.minimum(begin, stop)
            yield start, np.minimum(stop - start, size)
            begin += max(1, size)

    @property
    def _steps_at_once(self) -> int:
        return max(1, self.chunk // self.network.numbers_per_step)


def _order(places: list[NDArray[np.int64]]) -> Tensor:
    """The order that sorts the chunks' places, which are all different."""
    return torch.from_numpy(np.argsort(np.concatenate(places)))


def read_options(declaration: Declaration) -> ReadOptions:
    """How the declaration says to read files; words stay text, so that 007 keeps its zeros."""
    data = declaration.data
    events = None if data.events is None else (data.events.name, data.events.value)
    kinds = ("category", "text")
    words = [name for name, spec in declaration.inputs.items() if spec.kind in kinds]
    words += [name for name, spec in declaration.outputs.items() if TASKS[spec.task].whole]
    return ReadOptions(
        separator=data.separator,
        header=data.header,
        columns=data.columns,
        lines=data.lines,
        encoding=data.encoding,
        missing=data.missing,
        text_columns=(*data.text_columns, *words),
        key=data.key,
        time=data.time,
        clocks=data.clocks,
        events=events,
    )
