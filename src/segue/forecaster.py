"""The network of a forecast: a recurrence over segments, with its state carried from step to step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import Cell
from segue.layers import Linear, unroll
from segue.ops import State
from segue.ragged import Ragged


class ForecasterState(NamedTuple):
    """What a forecast remembers of P sequences of C series.

    Attributes:
        ring: the last L values, float64 ``[P, C, L]``; a missing one is the last one observed before it.
        seen: whether the last k of them were observed, ``[P, C, k]``.
        gap: steps since a value was observed, ``[P, C]``; infinite while none ever was.
        count: steps taken, int64 ``[P]``; step n belongs to chain n mod k.
        hidden: the state of every chain; leaves are ``[P, C * k, ...]``.
    """

    ring: Tensor
    seen: Tensor
    gap: Tensor
    count: Tensor
    hidden: State


class Forecaster(nn.Module):
    """Forecasts S steps of C series from every step, at a cost that does not depend on how much past there was.

    Each series goes through the same weights on its own. A step reads a *segment*, the last k values, and takes the
    hidden state left k steps ago, so k chains are interleaved and each of them runs k times slower than the series (a
    dilated recurrence: Chang et al. 2017). With the last observed value a and the ring of the last L values::

        s = mean |ring - mean(ring)| + 1e-3 mean |ring| + 1e-6
        z = (ring - a) / s
        u = [z_{L-k+1..L}, (a_t - a_{t-k}) / s, features, (where series have gaps: observed flags, log(1 + gap))]
        h_t = cell(u, h_{t-k})
        y_{t+1..t+S} = a + s (V h_t + W z + b + g(h_t, ahead_{t+1..t+S}))

    W starts at zero: a linear autoregression beside the recurrence (Lai et al. 2018). g is there where inputs are known
    ahead: one hidden layer on the projected hidden state and the inputs known for the step ahead.

    Args:
        cell: the law of memory, over ``segment + 1 + features (+ segment + 1 with gaps)`` inputs.
        features: F, other features per step.
        ahead: K, features known ahead per step.
        horizon, outputs: S and Q.
        segment, lookback: k and L.
        gaps: whether series may have missing values.
    """

    HIDDEN_AHEAD = 16

    def __init__(
        self,
        cell: Cell,
        *,
        features: int,
        ahead: int,
        horizon: int,
        outputs: int,
        segment: int,
        lookback: int,
        gaps: bool,
    ) -> None:
        super().__init__()
        self.cell, self.segment, self.lookback, self.gaps = cell, segment, lookback, gaps
        self.horizon, self.outputs = horizon, outputs
        self.head = Linear(cell.outputs, horizon * outputs)
        self.skip = Linear(lookback, horizon * outputs, bias=False)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.skip.weight.zero_()
        if ahead:
            self.ahead_hidden = Linear(cell.outputs, self.HIDDEN_AHEAD)
            self.ahead_known = Linear(ahead, self.HIDDEN_AHEAD, bias=False)
            self.ahead_out = Linear(self.HIDDEN_AHEAD, outputs)
            with torch.no_grad():
                self.ahead_out.weight.zero_()
                self.ahead_out.bias.zero_()
        self._ahead = ahead

    @staticmethod
    def inputs(segment: int, features: int, gaps: bool) -> int:
        """I, the inputs that the cell must take."""
        return segment + 1 + features + (segment + 1 if gaps else 0)

    def initial_state(self, batch: int, series: int) -> ForecasterState:
        """Nothing seen yet."""
        chains = batch * series * self.segment
        hidden = ops.map_state(
            lambda leaf: leaf.unflatten(0, (batch, series * self.segment)),
            self.cell.initial_state(chains),
        )
        return ForecasterState(
            ring=torch.zeros(batch, series, self.lookback, dtype=torch.float64),
            seen=torch.zeros(batch, series, self.segment),
            gap=torch.full((batch, series), torch.inf, dtype=torch.float64),
            count=torch.zeros(batch, dtype=torch.int64),
            hidden=hidden,
        )

    def unroll(
        self, values: Ragged, features: Tensor, at: Tensor, ahead: Tensor, state: ForecasterState
    ) -> tuple[Tensor, ForecasterState]:
        """Takes every step and carries the state.

        Args:
            values: float64 ``[n, C]``, NaN where not observed.
            features: ``[n, F]``.
            at: the steps from which to forecast, int64 ``[M]`` into n.
            ahead: ``[M, S, K]``.

        Returns:
            forecasts float64 ``[M, C, S, Q]`` (NaN from steps before any value was observed), and the state.
        """
        past = _Past(values, state)
        k, series, batch = self.segment, values.values.shape[1], values.batch
        # Steps of one chain one after another: chain (p, c, phase) holds the steps of its phase in time order.
        times, rows = values.times(), values.rows()
        phase = (state.count[rows] + times) % k
        chain = (rows * series)[:, None] * k + torch.arange(series) * k + phase[:, None]
        order = chain.flatten().argsort(stable=True)
        lengths = torch.bincount(chain.flatten(), minlength=batch * series * k)
        step, column = order // series, order % series
        inputs = self._inputs(past, step, column, features)
        flat = ops.map_state(lambda leaf: leaf.flatten(0, 1), state.hidden)
        hidden, last = unroll(self.cell, Ragged(inputs, lengths), flat)
        by_step = torch.empty_like(hidden.values)
        by_step[order] = hidden.values
        wanted = (at[:, None] * series + torch.arange(series)).flatten()
        forecast = self._forecast(past, by_step[wanted], wanted // series, wanted % series, ahead)
        carried = ops.map_state(lambda leaf: leaf.unflatten(0, (batch, series * k)), last)
        return forecast, past.state(self.segment, state.count + values.lengths, carried)

    def windows(self, values: Ragged, features: Tensor, at: Tensor, ahead: Tensor) -> Tensor:
        """For training: one chain per span, through the steps `at` alone, from the initial state.

        Args:
            at: the ends of the segments, ``[M]`` into n: for each span k steps apart, in order.
        """
        series = values.values.shape[1]
        start = self.initial_state(values.batch, series)
        past = _Past(values, start)
        owner = values.rows()[at]
        lengths = torch.bincount(owner, minlength=values.batch)
        # [M, C] steps to one row per (span, column), its segments in order.
        chain = (owner * series)[:, None] + torch.arange(series)
        order = chain.flatten().argsort(stable=True)
        step, column = at[order // series], order % series
        inputs = self._inputs(past, step, column, features)
        hidden, _ = unroll(self.cell, Ragged(inputs, lengths.repeat_interleave(series)))
        by_step = torch.empty_like(hidden.values).index_copy(0, order, hidden.values)
        wanted = torch.arange(len(at) * series)
        return self._forecast(past, by_step, at[wanted // series], wanted % series, ahead)

    def _inputs(self, past: _Past, step: Tensor, column: Tensor, features: Tensor) -> Tensor:
        """u of the equation, ``[rows, I]``."""
        ring, level, scale = past.rings(step, column)
        k = self.segment
        recent = ((ring[:, -k - 1 :] - level) / scale).float()
        parts = [recent[:, 1:], -recent[:, :1], features[step]]
        if self.gaps:
            flags, gap = past.flags(step, column, k)
            parts[0] = parts[0] * flags
            parts += [flags, torch.log1p(gap)[:, None].float()]
        return torch.cat(parts, dim=1)

    def _forecast(
        self, past: _Past, hidden: Tensor, step: Tensor, column: Tensor, ahead: Tensor
    ) -> Tensor:
        ring, level, scale = past.rings(step, column)
        change = self.head(hidden) + self.skip(((ring - level) / scale).float())
        change = change.unflatten(1, (self.horizon, self.outputs))
        if self._ahead:
            series = len(step) // max(1, len(ahead))
            known = self.ahead_known(ahead.flatten(0, 1)).unflatten(0, ahead.shape[:2])
            mixed = torch.tanh(
                self.ahead_hidden(hidden)[:, None] + known.repeat_interleave(series, 0)
            )
            change = change + self.ahead_out(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])
        forecast = level[..., None] + scale[..., None] * change.double()
        forecast = torch.where(past.started(step, column)[:, None, None], forecast, torch.nan)
        return forecast.unflatten(0, (-1, past.series))


class _Past:
    """What the ring, the flags and the gap would hold at any step of a batch, without making them for every step."""

    def __init__(self, values: Ragged, state: ForecasterState) -> None:
        self.series = values.values.shape[1]
        self._rows, self._times = values.rows(), values.times()
        self._lengths = values.lengths
        x = values.with_values(torch.nan_to_num(values.values, nan=0.0)).to_padded().transpose(1, 2)
        observed = values.with_values(~values.values.isnan()).to_padded().transpose(1, 2)
        self._observed = observed
        time = torch.arange(x.shape[2])
        latest = (
            torch.where(observed, time, -1).cummax(2).values if len(time) else time.expand(x.shape)
        )
        never = torch.isinf(state.gap)
        # Before the first value ever, the ring is filled with that value: a constant past.
        first = torch.where(observed, time, len(time)).amin(2) if len(time) else never.long()
        opening = (
            x.gather(2, first.clamp(max=max(len(time) - 1, 0))[..., None])[..., 0]
            if len(time)
            else never * 0.0
        )
        begun = never & (first < len(time))
        ring = torch.where(begun[..., None], opening[..., None], state.ring)
        filled = torch.where(latest >= 0, x.gather(2, latest.clamp(min=0)), ring[..., -1:])
        self._values = torch.cat([ring, filled], dim=2)
        self._seen = torch.cat([state.seen, observed.float()], dim=2)
        self._gap = torch.where(
            latest >= 0, (time - latest).double(), state.gap[..., None] + 1 + time
        )
        self._before = state
        self._lookback = ring.shape[2]

    def _window(
        self, table: Tensor, step: Tensor, column: Tensor, width: int, offset: int
    ) -> Tensor:
        """The `width` entries of `table` up to each (step, column); `offset` entries lie before step 0."""
        windows = table.unfold(2, width, 1)
        return windows[self._rows[step], column, self._times[step] + offset + 1 - width]

    def rings(self, step: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ring ``[rows, L]``, level ``[rows, 1]`` and scale ``[rows, 1]``."""
        ring = self._window(self._values, step, column, self._lookback, self._lookback)
        deviation = (ring - ring.mean(1, keepdim=True)).abs().mean(1, keepdim=True)
        return ring, ring[:, -1:], deviation + 1e-3 * ring.abs().mean(1, keepdim=True) + 1e-6

    def flags(self, step: Tensor, column: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Observed flags ``[rows, k]`` and gap ``[rows]``, 0 where nothing was ever observed."""
        gap = self._gap[self._rows[step], column, self._times[step]]
        return self._window(self._seen, step, column, k, k), torch.where(torch.isinf(gap), 0.0, gap)

    def started(self, step: Tensor, column: Tensor) -> Tensor:
        """Whether anything was observed by then."""
        return ~torch.isinf(self._gap[self._rows[step], column, self._times[step]])

    def state(self, k: int, count: Tensor, hidden: State) -> ForecasterState:
        """The state after the last step of each sequence."""
        rows = torch.arange(len(self._lengths))[:, None]
        columns = torch.arange(self.series)
        end = self._lengths[:, None].expand(-1, self.series)
        ring = self._values.unfold(2, self._lookback, 1)[rows, columns, end]
        seen = self._seen.unfold(2, k, 1)[rows, columns, end]
        gap = torch.cat([self._before.gap[..., None], self._gap], 2)[rows, columns, end]
        # A ring that was never begun stays as it was.
        return ForecasterState(ring, seen, gap, count, hidden)
