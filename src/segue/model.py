"""The network of a declaration: encoders, a body, heads. A causal one is a cell over records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from segue.apart import Apart, finals, over_maps
from segue.body import body, causal_body, reads
from segue.cells import Cell
from segue.data.store import Batch
from segue.errors import CausalError, SpecError
from segue.fields import Encoder, EncoderState, Field
from segue.fields.field import Reading
from segue.forecaster import Forecaster, ForecasterState
from segue.joined import Joined
from segue.layers import Acausal, Linear, unroll
from segue.layers.compiled import NoForm, Place, emit, emit_linear
from segue.ops import State
from segue.ops.program import NOWHERE, Program, Slot
from segue.ragged import Ragged
from segue.schema import Declaration, Model
from segue.tasks import Forecast, Task
from segue.tasks.next_frame import FrameHead


class NetworkState(NamedTuple):
    """All that a network remembers of P sequences; every leaf has leading axis P.

    Attributes:
        clock: when the last step was, float64 ``[P]``; NaN before the first.
        encoders: the state of each per-step input's encoder, by input.
        body: the state of the recurrent layers; () for forecasts alone.
        pool: running sum of the hidden states, float64 ``[P, H]``, and their count, int64 ``[P]``;
            () where outputs see the last state alone.
        forecasters: the state of each forecast, by output.
        heads: the state of each head that is a cell, by output.
    """

    clock: Tensor
    encoders: dict[str, EncoderState]
    body: State
    pool: State
    forecasters: dict[str, ForecasterState]
    heads: dict[str, State]


class Network(nn.Module):
    """Encoded records to raw outputs::

        f_t = join(encoder_1(x_1t), ..., encoder_n(x_nt), static encoders, inputs apart)
        h_t = body(f_1 .. f_t)                     layers of cells, each unrolled over the steps
        y_t = head(h_t)                            every step, or at the end: head(pool(h_1 .. h_T))

    and for each forecast a `Forecaster` over the series' own past and f_t. An input that is not
    there, for a step or for a whole sequence, is a vector that is learnt. A head that is a cell is
    unrolled over h (and over the target's own past, where it says ``reads_target``).

    Args:
        fields, tasks: fitted.
        declaration: with a model section that leaves nothing to infer.
        unit: the usual time from one step to the next, in which cells read time.

    Raises:
        SpecError: an unknown cell, or a forecast that is to read the future.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        tasks: Mapping[str, Task],
        declaration: Declaration,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        spec, roles = declaration.model, {n: g.role for n, g in declaration.inputs.items()}
        forecasts = {name: task for name, task in tasks.items() if isinstance(task, Forecast)}
        ordinary = {name: task for name, task in tasks.items() if name not in forecasts}
        self._steps = tuple(name for name in fields if roles[name] in ("step", "known"))
        self._static = tuple(name for name in fields if roles[name] == "static")
        self._apart = tuple(name for name in fields if roles[name] == "apart")
        self.known = tuple(sorted(known_ahead(declaration)))
        self._reads, self._unit = reads(spec) if ordinary else "", unit
        encoders = {name: field.encoder() for name, field in fields.items()}
        for encoder in encoders.values() if self._reads == "observed" else ():
            encoder.leave_flags()
        self.apart = nn.ModuleDict({_safe(n): Apart(n, encoders.pop(n), spec) for n in self._apart})
        self.encoders = nn.ModuleDict({_safe(n): one for n, one in encoders.items()})
        self.joined = Joined(
            {n: one.features for n, one in encoders.items()},
            {n: (self._reader(n).outputs, self._reader(n).width) for n in self._apart},
            spec,
            [n for n, one in encoders.items() if one.absent],
            _extents(encoders),
        )
        features, size = self.joined.features, _extents(encoders)
        self._series = {name: len(task.columns) for name, task in forecasts.items()}
        self.forecasters = nn.ModuleDict(
            {_safe(n): self._new_forecaster(t, features, spec) for n, t in forecasts.items()}
        )
        self._pixels = math.prod(size)
        self._every = {name: task.every for name, task in ordinary.items()}
        self._waits = next((task.waits for task in ordinary.values() if task.waits), "")
        self.pool = spec.pool
        self.body = body(features, spec, size) if ordinary else None
        self.width = 0 if self.body is None else self.body.outputs - (self._reads != "")
        width = self.width
        wide = width * 2 if spec.pool == "both" else width
        self.heads = nn.ModuleDict(
            {_safe(n): task.head(width if task.every else wide) for n, task in ordinary.items()}
        )

    def _new_forecaster(self, task: Forecast, features: int, spec: Model) -> Forecaster:
        segment, lookback = spec.segment or 1, spec.lookback or 2
        inputs = Forecaster.inputs(segment, features, task.gaps, spec.memory)
        return Forecaster(
            [causal_body(inputs, spec) for _ in range(spec.members)],
            task,
            features=features,
            ahead=sum(self._encoder(name).features for name in self.known),
            segment=segment,
            lookback=lookback,
            skip=spec.skip,
            decoder=spec.decoder,
            memory=spec.memory,
            level=spec.level,
        )

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[_safe(name)]
        assert isinstance(encoder, Encoder)
        return encoder

    def _reader(self, name: str) -> Apart:
        reader = self.apart[_safe(name)]
        assert isinstance(reader, Apart)
        return reader

    def forecaster(self, name: str) -> Forecaster:
        """The network of one forecast."""
        forecaster = self.forecasters[_safe(name)]
        assert isinstance(forecaster, Forecaster)
        return forecaster

    @property
    def _cells(self) -> dict[str, Cell]:
        """The heads that are cells, by output."""
        heads = ((name, self.heads[_safe(name)]) for name in self._every)
        return {name: head for name, head in heads if isinstance(head, Cell)}

    @property
    def causal(self) -> bool:
        """Whether every output depends on the past alone, so that the network can run live."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it cannot run live; "" where it can."""
        return self._waits or (REASON if isinstance(self.body, Acausal) else "")

    @property
    def numbers_per_step(self) -> int:
        """About how many numbers a step of one sequence makes; for bounds on memory."""
        body = 0 if self.body is None else 8 * self.body.outputs * self._pixels
        forecasts = (self.forecaster(n).numbers_per_step * c for n, c in self._series.items())
        heads = (getattr(head, "numbers_per_step", 0) for head in self.heads.children())
        return 64 + body + sum(forecasts) + sum(heads)

    def initial_state(self, batch: int) -> NetworkState:
        """The state of `batch` sequences before their first step."""
        pool: State = ()
        if self.body is not None and self.pool != "last":
            total = torch.zeros(batch, self.width, dtype=torch.float64)
            pool = (total, torch.zeros(batch, dtype=torch.int64))
        return NetworkState(
            clock=torch.full((batch,), torch.nan, dtype=torch.float64),
            encoders={name: self._encoder(name).initial_state(batch) for name in self._steps},
            body=() if self.body is None else self.body.initial_state(batch),
            pool=pool,
            forecasters={
                name: self.forecaster(name).initial_state(batch, series)
                for name, series in self._series.items()
            },
            heads={name: head.initial_state(batch) for name, head in self._cells.items()},
        )

    def unroll(
        self, batch: Batch, state: NetworkState | None = None, *, running: bool = False
    ) -> tuple[dict[str, Tensor], NetworkState]:
        """Takes `batch` through time.

        Args:
            batch: P spans of steps.
            state: of P rows; by default the initial one.
            running: give the outputs at the end of a sequence as if it ended at each of `batch.at`.

        Returns:
            outputs by task: ``[M, ...]`` at `batch.at` for tasks at every step (and all if
            `running`), ``[P, ...]`` at the end of each span otherwise; and the state after the last
            step of each span.

        Raises:
            CausalError: `running` is asked of a network that reads the future.
        """
        if running and not self.causal:
            raise CausalError(self.reason)
        state = self.initial_state(len(batch.lengths)) if state is None else state
        features, clock, encoded = self._encode(batch, state)
        ahead = self._encode_ahead(batch)
        outputs, forecasters = {}, {}
        for name in self._series:
            series = Ragged(batch.series[name], batch.lengths)
            forecast, scale, forecasters[name] = self.forecaster(name).unroll(
                series, features.values, batch.at, ahead, state.forecasters[name]
            )
            outputs[name] = self.forecaster(name).settled(forecast, scale)
        body, pool, heads = state.body, state.pool, dict(state.heads)
        if self.body is not None:
            hidden, body = self._hidden(features, batch, state)
            flat = hidden.with_values(over_maps(hidden.values))
            pooled, pool = self._pooled(flat, state.pool, batch.at if running else None)
            for name, every in self._every.items():
                head = self.heads[_safe(name)]
                read = hidden if getattr(head, "reads_maps", False) else flat
                if isinstance(head, Cell):
                    found, heads[name] = unroll(head, _read(head, read, batch, name), heads[name])
                    outputs[name] = found.values[batch.at]
                elif isinstance(head, FrameHead):
                    now = batch.inputs[head.reads_input][batch.at]
                    frame = self._encode_alone(head.reads_input, now)
                    outputs[name] = head(read.values[batch.at], frame)
                else:
                    outputs[name] = head(read.values[batch.at] if every else pooled)
        return outputs, NetworkState(clock, encoded, body, pool, forecasters, heads)

    def _hidden(self, features: Ragged, batch: Batch, state: NetworkState) -> tuple[Ragged, State]:
        """The hidden states of the body ``[n, H, ...]``, and its state."""
        assert self.body is not None
        if not self._reads:
            return unroll(self.body, features, state.body)
        parts = [self._elapsed(batch, state).to(features.values.dtype)[:, None], features.values]
        if self._reads == "observed":
            parts.append(self._observed(batch, features))
        hidden, after = unroll(self.body, features.with_values(torch.cat(parts, 1)), state.body)
        return hidden.with_values(hidden.values[:, 1:]), after

    def _elapsed(self, batch: Batch, state: NetworkState) -> Tensor:
        """The time since the step before ``[n]`` in usual steps; 0 at the first step."""
        before, _ = _previous(Ragged(batch.times, batch.lengths), state.clock)
        return torch.nan_to_num(batch.times - before, nan=0.0) / self._unit

    def _observed(self, batch: Batch, features: Ragged) -> Tensor:
        """A flag for each feature ``[n, F]``, 1 where it was observed."""
        flags = torch.ones_like(features.values)
        first = 0
        for name in self._steps:
            seen = self._encoder(name).observed(batch.inputs[name])
            if seen is not None:
                flags[:, first : first + seen.shape[1]] = seen
            first += self._encoder(name).features
        return flags

    def windows(self, batch: Batch) -> dict[str, Tensor]:
        """Forecasts of each member for training ``[members, M, C, S, P]``, from steps `batch.at` of
        spans on their own; see `Forecaster.windows`.
        """
        features, _, _ = self._encode(batch, self.initial_state(len(batch.lengths)))
        ahead = self._encode_ahead(batch)
        return {
            name: self.forecaster(name).windows(
                Ragged(batch.series[name], batch.lengths), features.values, batch.at, ahead
            )
            for name in self._series
        }

    def gather(self, batch: Any, ends: Any) -> list[Any]:
        """The parts of a batch, be they tensors or arrays, as `emit` takes them; `ends` are the
        last steps.
        """
        return [
            batch.times,
            *(batch.inputs[name] for name in self._steps),
            *(batch.static[name] for name in self._static),
            *(batch.series[name] for name in self._series),
            *(batch.at, ends),
            *(batch.ahead[name] for name in self.known),
        ]

    def emit(self, program: Program) -> tuple[dict[str, Slot], State]:
        """Adds `unroll` to a program, whose inputs are those that `gather` gives.

        Returns:
            the slots of the outputs by task, and the state with the numbers of the program's in
            place of tensors.

        Raises:
            NoForm: a part of the network has none.
        """
        if isinstance(self.body, Acausal):
            raise NoForm("a network that reads the future")
        if self.joined.obstacle is not None:
            raise NoForm(f"{self.joined.obstacle}, which has no native form")
        for name in self._every:
            head = self.heads[_safe(name)]
            if not isinstance(head, Linear):
                raise NoForm(
                    f"the head of {name} ({type(head).__name__}), which has no native form"
                )
        times = program.input("times", "N", [], torch.float64)
        clock = program.state("clock", [], torch.float64)
        elapsed, states = program.elapsed(times, clock), {}
        parts = []
        for name in self._steps:
            here = Reading(program, name, "N", times=times, elapsed=elapsed)
            part, states[name] = self._encoder(name).emit(here)
            parts.append(part)
        for name in self._static:
            parts.append(program.spread(self._encoder(name).emit(Reading(program, name, "B"))[0]))
        features = program.join(parts)
        series = {
            name: program.input(name, "N", [count], torch.float64)
            for name, count in self._series.items()
        }
        at = program.input("wanted steps", "M", [], torch.int64)
        ends = program.input("last steps", "E", [], torch.int64)
        outputs, body, pool = self._emit_body(program, features, at, ends)
        horizon = max((self.forecaster(name).horizon for name in series), default=0)
        ahead = [
            self._encoder(name).emit(Reading(program, name, "M", (horizon,)))[0]
            for name in self.known
        ]
        known, forecasters = program.join(ahead) if ahead else NOWHERE, {}
        for name, values in series.items():
            outputs[name], forecasters[name] = self.forecaster(name).emit(
                program, values, features, at, known
            )
        numbered: Any = NetworkState
        return outputs, numbered(clock, states, body, pool, forecasters, {})

    def _emit_body(
        self, program: Program, features: Slot, at: Slot, ends: Slot
    ) -> tuple[dict[str, Slot], State, State]:
        """Body, pool and heads: the slots of the outputs, and the two states."""
        if self.body is None:
            return {}, (), ()
        hidden, body = emit(self.body, Place(program), features)
        pooled, pool = program.take(hidden, ends), cast(State, ())
        if self.pool != "last":
            total = program.state("sum of hidden states", [self.width], torch.float64)
            count = program.state("count of hidden states", [], torch.int64)
            mean, pool = program.mean(hidden, ends, total, count), (total, count)
            pooled = mean if self.pool == "mean" else program.join([pooled, mean])
        wanted = program.take(hidden, at)
        heads = {
            name: emit_linear(self.heads[_safe(name)], program, wanted if every else pooled)
            for name, every in self._every.items()
        }
        return heads, body, pool

    def _encode(
        self, batch: Batch, state: NetworkState
    ) -> tuple[Ragged, Tensor, dict[str, EncoderState]]:
        """Features of every step ``[n, F]``, the clock ``[P]`` and the encoders' states."""
        steps = Ragged(batch.times, batch.lengths)
        before, clock = _previous(steps, state.clock)
        elapsed = torch.nan_to_num(batch.times - before, nan=0.0)
        parts: dict[str, Tensor] = {}
        states = {}
        for name in self._steps:
            parts[name], states[name] = self._encoder(name).unroll(
                steps.with_values(batch.inputs[name]), batch.times, elapsed, state.encoders[name]
            )
        for name in self._static:
            parts[name] = self._encode_alone(name, batch.static[name])[steps.rows()]
        apart = {name: self._reader(name)(batch.static[name]) for name in self._apart}
        absent = {name: _absent(batch.inputs[name]) for name in self._steps}
        absent |= {name: _absent(batch.static[name])[steps.rows()] for name in self._static}
        return steps.with_values(self.joined(steps, parts, apart, absent)), clock, states

    def _encode_alone(self, name: str, values: Tensor) -> Tensor:
        """Features ``[m, F]`` of values without a past ``[m, ...]``: static, or known ahead."""
        encoder, count = self._encoder(name), len(values)
        x = Ragged(values, torch.ones(count, dtype=torch.int64))
        zero = torch.zeros(count, dtype=torch.float64)
        return encoder.unroll(x, zero, zero, encoder.initial_state(count))[0]

    def _encode_ahead(self, batch: Batch) -> Tensor:
        """Features known ahead ``[M, S, K]``; ``[M, 0, 0]`` where nothing is."""
        parts = []
        for name in self.known:
            values = batch.ahead[name]
            part = self._encode_alone(name, values.flatten(0, 1))
            parts.append(part.reshape(*values.shape[:2], part.shape[1]))
        return torch.cat(parts, dim=2) if parts else torch.zeros(len(batch.at), 0, 0)

    def _pooled(self, hidden: Ragged, pool: State, at: Tensor | None) -> tuple[Tensor, State]:
        """What outputs at the end see: at the end of every span ``[P, ...]``, or at each of `at`
        ``[M, ...]``; and the pool's state.
        """
        last = finals(self.body, hidden) if at is None else hidden.values[at]
        if self.pool == "last":
            return last, pool
        total, count = pool
        # A running sum in one fixed order, so that chunks give the bits of the whole.
        sums = torch.cat([total[:, None], hidden.to_padded().double()], dim=1).cumsum(1)
        rows, steps = torch.arange(hidden.batch), hidden.lengths
        after = (sums[rows, steps], count + steps)
        if at is not None:
            rows, steps = hidden.rows()[at], hidden.times()[at] + 1
        mean = (sums[rows, steps] / (count[rows] + steps).clamp(min=1)[:, None]).to(last.dtype)
        return (mean if self.pool == "mean" else torch.cat([last, mean], dim=1)), after


def known_ahead(declaration: Declaration) -> frozenset[str]:
    """Inputs whose future a forecast may see: those declared so, and timestamps."""
    if not any(spec.task == "forecast" for spec in declaration.outputs.values()):
        return frozenset()
    return frozenset(
        name
        for name, spec in declaration.inputs.items()
        if spec.role == "known" or (spec.kind == "timestamp" and spec.role != "apart")
    )


REASON = (
    "a bidirectional model reads each sequence to its end before it answers; "
    "train with `bidirectional: false`"
)


def _previous(times: Ragged, clock: Tensor) -> tuple[Tensor, Tensor]:
    """The time of the step before each step ``[n]``, NaN before the first, and of the last step of
    each span ``[P]``.
    """
    before = torch.empty_like(times.values)
    before[1:] = times.values[:-1]
    filled = times.lengths > 0
    before[times.offsets[:-1][filled]] = clock[filled]
    after = clock.clone()
    after[filled] = times.values[times.offsets[1:][filled] - 1]
    return before, after


def _extents(encoders: Mapping[str, Encoder]) -> tuple[int, ...]:
    """The extents of the maps that some of these give; () where all give vectors.

    Raises:
        SpecError: maps of several sizes.
    """
    sizes = {name: one.size for name, one in encoders.items() if one.size}
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{name} {' x '.join(map(str, s))}" for name, s in sizes.items())
        raise SpecError("inputs", "maps of one size", got, "declare one size for all")
    return next(iter(sizes.values()), ())


def _absent(values: Any) -> Tensor:
    """Which rows of encoded values ``[n, ...]`` are missing as a whole: they are all NaN."""
    if not values.is_floating_point() or values.dim() < 2:
        return torch.zeros(len(values), dtype=torch.bool)
    missing: Tensor = values.flatten(1).isnan().all(1)
    return missing


def _read(head: nn.Module, hidden: Ragged, batch: Batch, name: str) -> Ragged:
    """What a head that is a cell reads at every step."""
    if not getattr(head, "reads_target", False):
        return hidden
    own = batch.series[name].to(hidden.values.dtype)
    return hidden.with_values(torch.cat([hidden.values, own], dim=1))


def _safe(name: str) -> str:
    """A name that nn.ModuleDict takes: no dots, and not one of its own attributes."""
    return "_" + name.replace(".", "·")
