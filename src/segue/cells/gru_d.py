"""The GRU with decay, for values that are observed now and then."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell
from segue.errors import ShapeError
from segue.ragged import Ragged
from segue.shapes import check


class GRUDState(NamedTuple):
    """h ``[B, H]``; last ``[B, F]``: the last observed values; since ``[B, F]``: how long ago."""

    h: Tensor
    last: Tensor
    since: Tensor


class GRUD(Cell):
    """The GRU-D of Che et al., 2018 (arXiv:1606.01865): a feature that is not observed decays from
    its last value to its mean, and the state decays with the time since the observations. A step is
    given the time D_t since the step before (below 0 it counts as 0), the values x_t and flags m_t,
    1 where a value was observed; a value without a flag is not read and may be NaN.

        d_t = D_t + (1 - m_{t-1}) * d_{t-1}                             since each observation
        gx = exp(-max(0, w_gx * d_t + b_gx)),  gh = exp(-max(0, W_gh d_t + b_gh))
        x^ = m_t * x_t + (1 - m_t) * (gx * last + (1 - gx) * mean)
        h^ = gh * h_{t-1}
        r, z = sigmoid(W_r x^ + R_r h^ + V_r m_t + b_r), likewise z
        n = tanh(W_n x^ + R_n (r * h^) + V_n m_t + b_n)
        h_t = (1 - z) * h^ + z * n        y_t = h_t

    Shapes: the input ``[B, 1 + 2 F]`` is D_t, x_t and m_t side by side; h and y ``[B, H]``; w_xh is
        [W V] of r, z and n one below the other, ``[3 H, 2 F]``, w_hh is R ``[3 H, H]``, b_h
        ``[3 H]``; w_gx, b_gx and mean ``[F]``, w_gh ``[H, F]``, b_gh ``[H]``. mean is a buffer: 0,
        which fits values that were standardised, until it is set.

    Args:
        features: F.
        hidden: H.

    Raises:
        SpecError: a size that is none.

    >>> cell = GRUD(2, 5)
    >>> step = torch.tensor([[0.5, 1.0, torch.nan, 1.0, 0.0]])
    >>> y, state = cell.step(step, cell.initial_state(1))
    >>> y.shape, state.last.tolist()
    (torch.Size([1, 5]), [[1.0, 0.0]])
    """

    reads = "observed"
    mean: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features=features, hidden=hidden)
        self.features, self.inputs, self.outputs = features, 1 + 2 * features, hidden
        self.w_xh = nn.Parameter(torch.empty(3 * hidden, 2 * features))
        self.w_hh = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.b_h = nn.Parameter(torch.zeros(3 * hidden))
        self.w_gx = nn.Parameter(torch.empty(features).uniform_(0, 1))
        self.b_gx = nn.Parameter(torch.zeros(features))
        self.w_gh = nn.Parameter(torch.empty(hidden, features))
        self.b_gh = nn.Parameter(torch.zeros(hidden))
        self.register_buffer("mean", torch.zeros(features))
        for gate in torch.split(self.w_xh, hidden):
            nn.init.xavier_uniform_(gate)
        for gate in torch.split(self.w_hh, hidden):
            nn.init.orthogonal_(gate)
        nn.init.xavier_uniform_(self.w_gh)

    def initial_state(self, batch: int) -> GRUDState:
        """h = 0; nothing was observed, so that values start at their mean."""
        dtype, device = ops.carried_dtype(self.w_hh), self.w_hh.device
        h = torch.zeros(batch, self.outputs, dtype=dtype, device=device)
        last = self.mean.to(dtype).expand(batch, self.features)
        return GRUDState(h, last, torch.zeros_like(last))

    def step(self, x: Tensor, state: GRUDState) -> tuple[Tensor, GRUDState]:
        """One step: ``[B, 1 + 2 F] -> [B, H]``.

        Raises:
            ShapeError: x is not ``[B, 1 + 2 F]``, or the state is that of other sequences.
        """
        check("GRUD.step", x, "B I", {"I": self.inputs})
        if state.h.shape != (x.shape[0], self.outputs):
            got, fix = str(list(state.h.shape)), "take it from initial_state(B)"
            raise ShapeError("the state of GRUD", str([x.shape[0], self.outputs]), got, fix)
        elapsed, values, flags = torch.split(x, [1, self.features, self.features], dim=1)
        observed = flags > 0.5
        since = state.since + elapsed.to(state.since.dtype).clamp_min(0)
        p, kept = self._read(values, observed, state.last, since)
        after = self._gru(p, kept * state.h)
        last = torch.where(observed, values.to(state.last.dtype), state.last)
        return after.to(x.dtype), GRUDState(after, last, since.masked_fill(observed, 0.0))

    def scan(self, x: Ragged, state: GRUDState) -> tuple[Tensor, GRUDState]:
        """All steps: ``[N, 1 + 2 F] -> [N, H]``; what the state h has no part in all at once."""
        check("GRUD.scan", x.values, "N I", {"I": self.inputs})
        if not x.total:
            return x.values.new_zeros(0, self.outputs), state
        elapsed, values, flags = torch.split(x.to_padded(), [1, self.features, self.features], 2)
        observed, width = flags > 0.5, state.last.dtype
        # In one row: the value and the time of what was observed last before each step.
        clock = elapsed.double().clamp_min(0).cumsum(1).expand_as(flags)
        times = torch.cat([-state.since.double()[:, None], clock], 1)
        known = torch.cat([state.last[:, None], values.to(width)], 1)
        seen = torch.nn.functional.pad(observed, (0, 0, 1, 0), value=True)
        steps = torch.arange(seen.shape[1], device=seen.device)[:, None]
        latest = torch.where(seen, steps, 0).cummax(1).values
        since = (clock - times.gather(1, latest)[:, :-1]).to(width)
        last = known.gather(1, latest)
        parts = (values, observed, last[:, :-1], since)
        steps_of = x.rows(), x.times()
        p, kept = self._read(*(part[steps_of] for part in parts))
        y, h = ops.loop(self._recur, x.with_values(torch.cat([p, kept], 1)), state.h)
        ends = x.lengths.to(last.device)
        rows = torch.arange(x.batch, device=last.device)
        ago = (clock[rows, (ends - 1).clamp_min(0)] - times.gather(1, latest)[rows, ends]).to(width)
        ago = torch.where(ends[:, None] > 0, ago, state.since)
        return y.to(x.values.dtype), GRUDState(h, last[rows, ends], ago)

    def _recur(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        after = self._gru(x[:, : 3 * self.outputs], x[:, 3 * self.outputs :] * h)
        return after, after

    def _read(
        self, values: Tensor, observed: Tensor, last: Tensor, since: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a step gives the gates ``[N, 3 H]``, and how much of h it keeps ``[N, H]``."""
        decay = torch.exp(-torch.relu(self.w_gx * since + self.b_gx))
        expected = decay * last + (1 - decay) * self.mean
        # Not by a product with the flag: what was not observed may be NaN.
        seen = torch.where(observed, values.to(expected.dtype), expected)
        kept = torch.exp(-torch.relu(ops.linear(since, self.w_gh, self.b_gh)))
        both = torch.cat([seen, observed.to(seen.dtype)], dim=1)
        return ops.linear(both, self.w_xh, self.b_h), kept

    def _gru(self, p: Tensor, h: Tensor) -> Tensor:
        hidden = self.outputs
        u = ops.linear(h, self.w_hh[: 2 * hidden])
        r, z = torch.sigmoid(p[:, : 2 * hidden] + u).chunk(2, dim=1)
        n = torch.tanh(p[:, 2 * hidden :] + ops.linear(r * h, self.w_hh[2 * hidden :]))
        return (1 - z) * h + z * n
