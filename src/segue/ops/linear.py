"""The linear recurrence h_t = a_t h_{t-1} + b_t, each unit by itself, over ragged sequences."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from segue.ops import native
from segue.ops.loop import loop
from segue.ragged import Ragged, is_traced

Outputs: TypeAlias = tuple[Tensor, Tensor]


def scan_linear(a: Tensor, b: Tensor, x: Ragged, h: Tensor) -> Outputs:
    """Takes all sequences through time; differentiable in a, b and h, any number of times.

    Natively for float32 on the CPU; else by the loop, which is the definition.

    Args:
        a, b: ``[N, H]``.
        x: the sequences; its values are not read.
        h: the state before the first steps ``[B, H]``.

    Returns:
        y ``[N, H]``, and the last h ``[B, H]``, that of an empty sequence being h.
    """
    is_native = native.native_runs((a, b, h)) and not torch.is_autocast_enabled("cpu")
    if not is_native or is_traced(a):
        return _definition(a, b, x, h)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or h.requires_grad):
        y, last = _Scan.apply(a, b, h, x.lengths, False)  # type: ignore[no-untyped-call]
        return y, last
    return native.scan_linear(a, b, x.lengths, h, False)


def _definition(a: Tensor, b: Tensor, x: Ragged, h: Tensor) -> Outputs:
    hidden = a.shape[1]

    def step(both: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = both[:, :hidden] * h + both[:, hidden:]
        return h, h

    return loop(step, x.with_values(torch.cat([a, b], dim=1)), h)


class _Scan(torch.autograd.Function):
    """With dy and dh_last, the way back is

        g_t = a_{t+1} g_{t+1} + dy_t,   a_{T+1} g_{T+1} = dh_last
        da_t = g_t h_{t-1}              db_t = g_t              dh_0 = a_1 g_1

    which is the same recurrence in the other direction, so that it is its own second derivative.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, h: Tensor, lengths: Tensor, reverse: bool
    ) -> Outputs:
        ctx.set_materialize_grads(False)
        ctx.reverse = reverse
        y, last = native.scan_linear(a, b, lengths, h, reverse)
        ctx.save_for_backward(a, h, lengths, y)
        return y, last

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        a, h, lengths, y = ctx.saved_tensors
        dy = torch.zeros_like(y) if dy is None else dy
        dlast = torch.zeros_like(h) if dlast is None else dlast
        back = not ctx.reverse
        after = _before(a, torch.ones_like(h), lengths, back)  # of the next step; beyond the end 1
        g, dh = _again(after, dy, dlast, lengths, back)
        starts = _starts(lengths, ctx.reverse)
        dh = dh * torch.cat([a, torch.ones_like(a[:1])])[starts]
        return g * _before(y, h, lengths, ctx.reverse), g, dh, None, None


def _again(a: Tensor, b: Tensor, h: Tensor, lengths: Tensor, reverse: bool) -> Outputs:
    if torch.is_grad_enabled():
        y, last = _Scan.apply(a, b, h, lengths, reverse)  # type: ignore[no-untyped-call]
        return y, last
    return native.scan_linear(a, b, lengths, h, reverse)


def _before(values: Tensor, first: Tensor, lengths: Tensor, reverse: bool) -> Tensor:
    """What stands one step before each, and at the first step `first`: ``[N, H]``."""
    if not torch.is_grad_enabled():
        return native.before(values, first, None, lengths, reverse)
    x = Ragged(values, lengths)
    is_first = x.times() == (lengths[x.rows()] - 1 if reverse else 0)
    earlier = torch.arange(x.total) + (1 if reverse else -1)
    return torch.cat([values, first])[torch.where(is_first, x.total + x.rows(), earlier)]


def _starts(lengths: Tensor, reverse: bool) -> Tensor:
    """The row of the first step of each sequence in the direction of time; N where it has none."""
    ends = lengths.cumsum(0)
    return torch.where(lengths > 0, ends - 1 if reverse else ends - lengths, int(lengths.sum()))
