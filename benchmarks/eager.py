"""A layer-normalised LSTM and GRU with zoneout and recurrent dropout, as one writes them in torch.

The input is projected and normalised for all steps at once, and the random masks of all steps are
drawn at once; the rest is a loop over the steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import dropout, layer_norm, linear

from segue.cells import GRU, LSTM


class Rates(NamedTuple):
    """Of zoneout of h and c, and of recurrent dropout."""

    hidden: float
    cell: float
    recurrent: float


def eager_lstm(cell: LSTM, x: Tensor, rates: Rates, is_training: bool) -> Tensor:
    """x ``[T, B, I]`` -> y ``[T, B, H]``."""
    hidden = cell.hidden
    p = layer_norm(linear(x, cell.w_xh), (4 * hidden,), cell.gain_x, cell.b_h)
    h = c = x.new_zeros(x.shape[1], hidden)
    mask = dropout(torch.ones_like(h), rates.recurrent, is_training)
    keep_h, keep_c = (keeps(p, hidden, rate, is_training) for rate in rates[:2])
    y = []
    for t in range(x.shape[0]):
        gates = p[t] + layer_norm(linear(mask * h, cell.w_hh), (4 * hidden,), cell.gain_h)
        i, f, g, o = gates.chunk(4, dim=1)
        new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new_h = o.sigmoid() * layer_norm(new_c, (hidden,), cell.gain_c, cell.b_c).tanh()
        h, c = torch.lerp(new_h, h, keep_h[t]), torch.lerp(new_c, c, keep_c[t])
        y.append(h)
    return torch.stack(y)


def eager_gru(cell: GRU, x: Tensor, rates: Rates, is_training: bool) -> Tensor:
    """x ``[T, B, I]`` -> y ``[T, B, H]``; the reset gate after the product."""
    hidden = cell.outputs
    wide = (2 * hidden,)
    gain_x, gain_xn = cell.gain_x[: 2 * hidden], cell.gain_x[2 * hidden :]
    gain_h, gain_hn = cell.gain_h[: 2 * hidden], cell.gain_h[2 * hidden :]
    u = linear(x, cell.w_xh)
    p = layer_norm(u[..., : 2 * hidden], wide, gain_x, cell.b_h[: 2 * hidden])
    p_n = layer_norm(u[..., 2 * hidden :], (hidden,), gain_xn, cell.b_h[2 * hidden :])
    h = x.new_zeros(x.shape[1], hidden)
    mask = dropout(torch.ones_like(h), rates.recurrent, is_training)
    keep = keeps(p, hidden, rates.hidden, is_training)
    y = []
    for t in range(x.shape[0]):
        u = linear(mask * h, cell.w_hh)
        r, z = (p[t] + layer_norm(u[:, : 2 * hidden], wide, gain_h)).sigmoid().chunk(2, dim=1)
        n = p_n[t] + r * layer_norm(u[:, 2 * hidden :], (hidden,), gain_hn, cell.b_hn)
        new = torch.lerp(n.tanh(), h, z)
        h = torch.lerp(new, h, keep[t])
        y.append(h)
    return torch.stack(y)


def keeps(p: Tensor, hidden: int, rate: float, is_training: bool) -> Tensor:
    """``[T, B, H]``: 1 where a unit keeps its old value; in evaluation the rate everywhere."""
    shape = (*p.shape[:2], hidden)
    return (torch.rand(shape) < rate).to(p.dtype) if is_training else p.new_full(shape, rate)
