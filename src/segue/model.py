"""The network of a declaration: encoders, a body, heads. A causal one is itself a cell over records."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue.cells import CELLS, Cell, LawCell
from segue.data.store import Batch
from segue.errors import CausalError, SpecError
from segue.fields import Encoder, EncoderState, Field
from segue.forecaster import Forecaster, ForecasterState
from segue.layers import Acausal, Bidirectional, Chain, Dropout, Residual, Stack, Zoneout, unroll
from segue.ops import State
from segue.ragged import Ragged
from segue.schema import Declaration, Model
from segue.tasks import Forecast, Task


class NetworkState(NamedTuple):
    """All that a network remembers of P sequences; every leaf has leading axis P.

    Attributes:
        clock: when the last step was, float64 ``[P]``; NaN before the first.
        encoders: the state of each per-step input's encoder.
        body: the state of the recurrent layers; () for forecasts alone.
        pool: running sum of the hidden states, float64 ``[P, H]``, and their count ``[P]``; () without pooling.
        forecasters: the state of each forecast.
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
    """

    def __init__(
        self, fields: Mapping[str, Field], tasks: Mapping[str, Task], declaration: Declaration
    ) -> None:
        super().__init__()
        roles = {name: spec.role for name, spec in declaration.inputs.items()}
        spec = declaration.model
        self.known = tuple(sorted(known_ahead(declaration)))
        self.encoders = nn.ModuleDict(
            {_safe(n): f.encoder() for n, f in fields.items() if roles[n] != "static"}
        )
        self.static = nn.ModuleDict(
            {_safe(n): f.encoder() for n, f in fields.items() if roles[n] == "static"}
        )
        self._names = {_safe(name): name for name in fields}
        features = sum(e.features for e in _encoders(self.encoders)) + sum(
            e.features for e in _encoders(self.static)
        )
        ordinary = {name: task for name, task in tasks.items() if not isinstance(task, Forecast)}
        self.forecasters = nn.ModuleDict(
            {
                _safe(name): self._forecaster(task, features, spec)
                for name, task in tasks.items()
                if isinstance(task, Forecast)
            }
        )
        self._series = {
            name: len(task.columns) for name, task in tasks.items() if isinstance(task, Forecast)
        }
        self._every = {name: task.every for name, task in tasks.items()}
        self.pool = spec.pool
        self.body = _body(features, spec) if ordinary else None
        width = 0 if self.body is None else self.body.outputs
        wide = width * 2 if spec.pool == "both" else width
        self.heads = nn.ModuleDict(
            {_safe(n): task.head(width if task.every else wide) for n, task in ordinary.items()}
        )

    def _forecaster(self, task: Forecast, features: int, spec: Model) -> Forecaster:
        segment, lookback = spec.segment or 1, spec.lookback or 2
        ahead = sum(self._encoder(name).features for name in self.known)
        return Forecaster(
            _causal_body(Forecaster.inputs(segment, features, task.gaps), spec),
            features=features,
            ahead=ahead,
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

    @property
    def causal(self) -> bool:
        """Whether every output depends on the past alone, so that the network can run live."""
        return not isinstance(self.body, Acausal)

    def initial_state(self, batch: int) -> NetworkState:
        """The state of `batch` sequences before their first step."""
        body: State = () if self.body is None else self.body.initial_state(batch)
        pool: State = ()
        if self.body is not None and self.pool != "last":
            width = self.body.outputs
            pool = (
                torch.zeros(batch, width, dtype=torch.float64),
                torch.zeros(batch, dtype=torch.float64),
            )
        return NetworkState(
            clock=torch.full((batch,), torch.nan, dtype=torch.float64),
            encoders={
                name: self._encoder(self._names[name]).initial_state(batch)
                for name in self.encoders
            },
            body=body,
            pool=pool,
            forecasters={
                name: self._forecaster_of(name).initial_state(batch, self._series[name])
                for name in self._series
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
            outputs by task: ``[M, ...]`` at `batch.at` for tasks at every step (and all if `running`), ``[P, ...]`` at the
            end of each span otherwise; and the state after the last step of each span.

        Raises:
            CausalError: `running` is asked of a network that reads the future.
        """
        if running and not self.causal:
            raise CausalError(REASON)
        state = self.initial_state(len(batch.lengths)) if state is None else state
        features, clock, encoded = self._encode(batch, state)
        outputs, forecasters = {}, {}
        for name in self._series:
            forecaster = self._forecaster_of(name)
            series = Ragged(batch.series[name], batch.lengths)
            ahead = self._encode_ahead(batch)
            outputs[name], forecasters[name] = forecaster.unroll(
                series,
                features.values,
                batch.at,
                ahead[:, : forecaster.horizon],
                state.forecasters[name],
            )
        body, pool = state.body, state.pool
        if self.body is not None:
            hidden, body = unroll(self.body, features, state.body)
            pooled, pool = self._pooled(hidden, body, state.pool, batch.at if running else None)
            for name, head in self.heads.items():
                task = self._task_name(name)
                outputs[task] = head(hidden.values[batch.at] if self._every[task] else pooled)
        return outputs, NetworkState(clock, encoded, body, pool, forecasters)

    def windows(self, batch: Batch) -> dict[str, Tensor]:
        """Forecasts for training, each span one chain through the steps `batch.at`; see `Forecaster.windows`."""
        features, _, _ = self._encode(batch, self.initial_state(len(batch.lengths)))
        ahead = self._encode_ahead(batch)
        outputs = {}
        for name in self._series:
            forecaster = self._forecaster_of(name)
            series = Ragged(batch.series[name], batch.lengths)
            outputs[name] = forecaster.windows(
                series, features.values, batch.at, ahead[:, : forecaster.horizon]
            )
        return outputs

    def _forecaster_of(self, name: str) -> Forecaster:
        forecaster = self.forecasters[_safe(name)]
        assert isinstance(forecaster, Forecaster)
        return forecaster

    def _task_name(self, safe: str) -> str:
        return next(name for name in self._every if _safe(name) == safe)

    def _encode(
        self, batch: Batch, state: NetworkState
    ) -> tuple[Ragged, Tensor, dict[str, EncoderState]]:
        """Features of every step ``[n, F]``, the clock ``[P]`` and the encoders' states."""
        steps = Ragged(batch.times, batch.lengths)
        before, clock = _previous(steps, state.clock)
        elapsed = torch.nan_to_num(batch.times - before, nan=0.0)
        parts, states = [], {}
        for name in self.encoders:
            values = Ragged(batch.inputs[self._names[name]], batch.lengths)
            part, states[name] = self._encoder(self._names[name]).unroll(
                values, batch.times, elapsed, state.encoders[name]
            )
            parts.append(part)
        rows = steps.rows()
        none = torch.zeros(len(batch.lengths))
        for name, encoder in self.static.items():
            value = Ragged(batch.static[self._names[name]], torch.ones_like(batch.lengths))
            parts.append(encoder.unroll(value, none, none, ())[0][rows])
        features = torch.cat(parts, dim=1) if parts else torch.zeros(steps.total, 0)
        return steps.with_values(features), clock, states

    def _encode_ahead(self, batch: Batch) -> Tensor:
        """Features known ahead ``[M, S, K]``."""
        parts = []
        for name in self.known:
            values = batch.ahead[name]
            flat = Ragged(
                values.flatten(0, 1),
                torch.ones(values.shape[0] * values.shape[1], dtype=torch.int64),
            )
            zeros = torch.zeros(flat.total, dtype=torch.float64)
            encoder = self._encoder(name)
            part, _ = encoder.unroll(flat, zeros, zeros, encoder.initial_state(flat.batch))
            parts.append(part.unflatten(0, values.shape[:2]))
        horizon = next(iter(batch.ahead.values())).shape[1] if batch.ahead else 0
        return torch.cat(parts, dim=2) if parts else torch.zeros(len(batch.at), horizon, 0)

    def _pooled(
        self, hidden: Ragged, body: State, pool: State, at: Tensor | None
    ) -> tuple[Tensor, State]:
        """What outputs at the end see: at the end of every span, or at each of `at`; and the pool's state."""
        if self.pool == "last":
            return (_finals(self.body, hidden, body) if at is None else hidden.values[at]), pool
        total, count = pool
        padded = hidden.to_padded().double()
        # A running sum in one fixed order, so that chunks give the bits of the whole.
        sums = torch.cat([total[:, None], padded], dim=1).cumsum(1)
        end = sums[torch.arange(hidden.batch), hidden.lengths]
        after = (end, count + hidden.lengths)
        if at is None:
            mean = end / after[1].clamp(min=1)[:, None]
            last = _finals(self.body, hidden, body)
        else:
            rows, times = hidden.rows()[at], hidden.times()[at]
            mean = sums[rows, times + 1] / (count[rows] + times + 1)[:, None]
            last = hidden.values[at]
        mean = mean.to(last.dtype)
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


REASON = "a bidirectional model reads each sequence to its end before it answers; train with `bidirectional: false`"


def _previous(times: Ragged, clock: Tensor) -> tuple[Tensor, Tensor]:
    """The time of the step before each step ``[n]`` (NaN before the first), and of the last step of each span."""
    before = torch.empty_like(times.values)
    before[1:] = times.values[:-1]
    filled = times.lengths > 0
    before[times.offsets[:-1][filled]] = clock[filled]
    after = clock.clone()
    after[filled] = times.values[times.offsets[1:][filled] - 1]
    return before, after


def _finals(body: nn.Module | None, hidden: Ragged, state: State) -> Tensor:
    """The last hidden state of each span; of both directions what each has read last."""
    if not isinstance(body, Acausal):
        return hidden.last()
    ahead, back = hidden.values.chunk(2, dim=1)
    filled = hidden.lengths > 0
    first = torch.zeros(hidden.batch, back.shape[1]).to(back)
    first[filled] = back[hidden.offsets[:-1][filled]]
    return torch.cat([hidden.with_values(ahead).last(), first], dim=1)


def _cell(spec: Model, inputs: int) -> LawCell:
    said = spec.cell or "gru"
    name, options = (said, {}) if isinstance(said, str) else next(iter(said.items()))
    if name not in CELLS or (isinstance(said, dict) and len(said) != 1):
        fix = "choose one of these"
        raise SpecError("model.cell", "one of " + ", ".join(CELLS), repr(said), fix)
    known = list(signature(CELLS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            where = f"model.cell.{name}"
            raise SpecError(where, "one of " + ", ".join(known), repr(option), "remove it")
    return CELLS[name](inputs, spec.hidden or 64, **options)


def _body(features: int, spec: Model) -> Cell | Acausal:
    """The recurrent layers, with dropout after each."""
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
        return Zoneout(cell, hidden=spec.zoneout) if spec.zoneout else cell

    return Bidirectional(one(), one()) if spec.bidirectional else one()


def _encoders(modules: nn.ModuleDict) -> list[Encoder]:
    return [module for module in modules.values() if isinstance(module, Encoder)]


def _safe(name: str) -> str:
    """A name that nn.ModuleDict takes: no dots, and not one of its own attributes."""
    return "_" + name.replace(".", "·")
