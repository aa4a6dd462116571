"""The network of a declaration: encoders, a body, heads. A causal one is a cell over records."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from segue.cells import CELLS, LSTM, Cell, LawCell
from segue.data.store import Batch
from segue.errors import CausalError, SpecError
from segue.fields import Encoder, EncoderState, Field
from segue.fields.field import Reading
from segue.forecaster import Forecaster, ForecasterState
from segue.layers import (
    Acausal,
    Bidirectional,
    Chain,
    Dropout,
    RecurrentDropout,
    Residual,
    Stack,
    Zoneout,
    unroll,
)
from segue.layers.compiled import NoForm, Place, emit, emit_linear
from segue.ops import State
from segue.ops.program import NOWHERE, Program, Slot
from segue.ragged import Ragged
from segue.schema import Declaration, Model
from segue.tasks import Forecast, Task


class NetworkState(NamedTuple):
    """All that a network remembers of P sequences; every leaf has leading axis P.

    Attributes:
        clock: when the last step was, float64 ``[P]``; NaN before the first.
        encoders: the state of each per-step input's encoder, by input.
        body: the state of the recurrent layers; () for forecasts alone.
        pool: running sum of the hidden states, float64 ``[P, H]``, and their count, int64 ``[P]``;
            () where outputs see the last state alone.
        forecasters: the state of each forecast, by output.
    """

    clock: Tensor
    encoders: dict[str, EncoderState]
    body: State
    pool: State
    forecasters: dict[str, ForecasterState]


class Network(nn.Module):
    """Encoded records to raw outputs::

        f_t = [encoder_1(x_1t), ..., encoder_n(x_nt), static encoders]
        h_t = body(f_1 .. f_t)                     layers of cells, each unrolled over the steps
        y_t = head(h_t)                            every step, or at the end: head(pool(h_1 .. h_T))

    and for each forecast a `Forecaster` over the series' own past and f_t.

    Args:
        fields, tasks: fitted.
        declaration: with a model section that leaves nothing to infer.

    Raises:
        SpecError: an unknown cell, or a forecast that is to read the future.
    """

    def __init__(
        self, fields: Mapping[str, Field], tasks: Mapping[str, Task], declaration: Declaration
    ) -> None:
        super().__init__()
        spec = declaration.model
        static = {n for n, given in declaration.inputs.items() if given.role == "static"}
        forecasts = {name: task for name, task in tasks.items() if isinstance(task, Forecast)}
        ordinary = {name: task for name, task in tasks.items() if name not in forecasts}
        self._steps = tuple(name for name in fields if name not in static)
        self._static = tuple(name for name in fields if name in static)
        self.known = tuple(sorted(known_ahead(declaration)))
        self.encoders = nn.ModuleDict({_safe(n): field.encoder() for n, field in fields.items()})
        features = sum(self._encoder(name).features for name in fields)
        self._series = {name: len(task.columns) for name, task in forecasts.items()}
        self.forecasters = nn.ModuleDict(
            {_safe(n): self._new_forecaster(t, features, spec) for n, t in forecasts.items()}
        )
        self._every = {name: task.every for name, task in ordinary.items()}
        self.pool = spec.pool
        self.body = _body(features, spec) if ordinary else None
        width = 0 if self.body is None else self.body.outputs
        wide = width * 2 if spec.pool == "both" else width
        self.heads = nn.ModuleDict(
            {_safe(n): task.head(width if task.every else wide) for n, task in ordinary.items()}
        )

    def _new_forecaster(self, task: Forecast, features: int, spec: Model) -> Forecaster:
        segment, lookback = spec.segment or 1, spec.lookback or 2
        return Forecaster(
            _causal_body(Forecaster.inputs(segment, features, task.gaps), spec),
            features=features,
            ahead=sum(self._encoder(name).features for name in self.known),
            horizon=task.horizon,
            outputs=task.outputs,
            segment=segment,
            lookback=lookback,
            gaps=task.gaps,
        )

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[_safe(name)]
        assert isinstance(encoder, Encoder)
        return encoder

    def _forecaster(self, name: str) -> Forecaster:
        forecaster = self.forecasters[_safe(name)]
        assert isinstance(forecaster, Forecaster)
        return forecaster

    @property
    def causal(self) -> bool:
        """Whether every output depends on the past alone, so that the network can run live."""
        return not isinstance(self.body, Acausal)

    @property
    def numbers_per_step(self) -> int:
        """About how many numbers a step of one sequence makes; for bounds on memory."""
        body = 0 if self.body is None else 8 * self.body.outputs
        forecasts = (self._forecaster(n).numbers_per_step * c for n, c in self._series.items())
        return 64 + body + sum(forecasts)

    def initial_state(self, batch: int) -> NetworkState:
        """The state of `batch` sequences before their first step."""
        pool: State = ()
        if self.body is not None and self.pool != "last":
            total = torch.zeros(batch, self.body.outputs, dtype=torch.float64)
            pool = (total, torch.zeros(batch, dtype=torch.int64))
        return NetworkState(
            clock=torch.full((batch,), torch.nan, dtype=torch.float64),
            encoders={name: self._encoder(name).initial_state(batch) for name in self._steps},
            body=() if self.body is None else self.body.initial_state(batch),
            pool=pool,
            forecasters={
                name: self._forecaster(name).initial_state(batch, series)
                for name, series in self._series.items()
            },
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
            raise CausalError(REASON)
        state = self.initial_state(len(batch.lengths)) if state is None else state
        features, clock, encoded = self._encode(batch, state)
        ahead = self._encode_ahead(batch)
        outputs, forecasters = {}, {}
        for name in self._series:
            series = Ragged(batch.series[name], batch.lengths)
            forecast, forecasters[name] = self._forecaster(name).unroll(
                series, features.values, batch.at, ahead, state.forecasters[name]
            )
            # Quantiles are learnt side by side and may cross; put in order they are never worse
            # (Chernozhukov, Fernandez-Val and Galichon 2010).
            outputs[name] = forecast.sort(dim=-1).values
        body, pool = state.body, state.pool
        if self.body is not None:
            hidden, body = unroll(self.body, features, state.body)
            pooled, pool = self._pooled(hidden, state.pool, batch.at if running else None)
            for name, every in self._every.items():
                head = self.heads[_safe(name)]
                outputs[name] = head(hidden.values[batch.at] if every else pooled)
        return outputs, NetworkState(clock, encoded, body, pool, forecasters)

    def windows(self, batch: Batch) -> dict[str, Tensor]:
        """Forecasts for training ``[M, C, S, Q]``, from the steps `batch.at` of spans on their own.

        See `Forecaster.windows`.
        """
        features, _, _ = self._encode(batch, self.initial_state(len(batch.lengths)))
        ahead = self._encode_ahead(batch)
        return {
            name: self._forecaster(name).windows(
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
        horizon = max((self._forecaster(name).horizon for name in series), default=0)
        ahead = [
            self._encoder(name).emit(Reading(program, name, "M", (horizon,)))[0]
            for name in self.known
        ]
        known, forecasters = program.join(ahead) if ahead else NOWHERE, {}
        for name, values in series.items():
            outputs[name], forecasters[name] = self._forecaster(name).emit(
                program, values, features, at, known
            )
        numbered: Any = NetworkState
        return outputs, numbered(clock, states, body, pool, forecasters)

    def _emit_body(
        self, program: Program, features: Slot, at: Slot, ends: Slot
    ) -> tuple[dict[str, Slot], State, State]:
        """Body, pool and heads: the slots of the outputs, and the two states."""
        if self.body is None:
            return {}, (), ()
        hidden, body = emit(self.body, Place(program), features)
        pooled, pool = program.take(hidden, ends), cast(State, ())
        if self.pool != "last":
            total = program.state("sum of hidden states", [self.body.outputs], torch.float64)
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
        parts, states = [torch.zeros(steps.total, 0)], {}
        for name in self._steps:
            part, states[name] = self._encoder(name).unroll(
                steps.with_values(batch.inputs[name]), batch.times, elapsed, state.encoders[name]
            )
            parts.append(part)
        for name in self._static:
            parts.append(self._encode_alone(name, batch.static[name])[steps.rows()])
        return steps.with_values(torch.cat(parts, dim=1)), clock, states

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
        last = _finals(self.body, hidden) if at is None else hidden.values[at]
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
        if spec.role == "known" or spec.kind == "timestamp"
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


def _finals(body: nn.Module | None, hidden: Ragged) -> Tensor:
    """The last hidden state of each span; of both directions what each has read last."""
    if not isinstance(body, Acausal):
        return hidden.last()
    ahead, back = hidden.values.chunk(2, dim=1)
    first = hidden.with_values(back).reversed().last()
    return torch.cat([hidden.with_values(ahead).last(), first], dim=1)


def _cell(spec: Model, inputs: int) -> LawCell:
    said = "gru" if spec.cell is None else spec.cell
    name, options = (said, {}) if isinstance(said, str) else next(iter(said.items()), ("", {}))
    if name not in CELLS or (isinstance(said, dict) and len(said) != 1):
        fix = "choose one of these"
        raise SpecError("model.cell", "one of " + ", ".join(CELLS), repr(said), fix)
    where, known = f"model.cell.{name}", list(signature(CELLS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise SpecError(where, "one of " + ", ".join(known), repr(option), "remove it")
    try:
        return CELLS[name](inputs, spec.hidden or 64, **options)
    except (TypeError, RuntimeError) as error:
        got = f"{options} ({str(error).splitlines()[0]})"
        raise SpecError(where, "options that the cell takes", got, "see docs/cells.md") from None


def _body(features: int, spec: Model) -> Cell | Acausal:
    """The recurrent layers, with dropout after each."""
    if spec.bidirectional and spec.residual:
        fix = "leave out one of the two"
        raise SpecError("model.residual", "false with bidirectional: true", "true", fix)
    layers: list[Cell | Acausal] = []
    width = features
    for depth in range(spec.layers):
        layer: Cell | Acausal = _layer(spec, width)
        if spec.residual and depth and isinstance(layer, Cell):
            layer = Residual(layer)
        layers.append(layer)
        width = layer.outputs
        if spec.dropout:
            layers.append(Dropout(width, spec.dropout, per=spec.dropout_per))
    if spec.bidirectional:
        return Chain(*layers)
    return Stack(*(layer for layer in layers if isinstance(layer, Cell)))


def _causal_body(features: int, spec: Model) -> Cell:
    body = _body(features, spec)
    if isinstance(body, Cell):
        return body
    fix = "a forecast cannot read the future; leave it out"
    raise SpecError("model.bidirectional", "false with a forecast", "true", fix)


def _layer(spec: Model, inputs: int) -> Cell | Acausal:
    def one() -> Cell:
        cell = _cell(spec, inputs)
        rate, keep = spec.recurrent_dropout, spec.zoneout
        body = RecurrentDropout(cell, rate) if rate else cell
        if not keep:
            return body
        return Zoneout(body, hidden=keep, cell=keep if isinstance(cell, LSTM) else 0.0)

    return Bidirectional(one(), one()) if spec.bidirectional else one()


def _safe(name: str) -> str:
    """A name that nn.ModuleDict takes: no dots, and not one of its own attributes."""
    return "_" + name.replace(".", "·")
