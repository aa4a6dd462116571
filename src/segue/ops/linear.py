"""The linear recurrence h_t = a_t h_{t-1} + b_t, each unit by itself, over ragged sequences."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from segue.ops import native
from segue.ops.loop import loop
from segue.ragged import Ragged, is_traced, unchecked

Outputs: TypeAlias = tuple[Tensor, Tensor]


def scan_linear(a: Tensor, b: Tensor, x: Ragged, h: Tensor) -> Outputs:
    """Takes all sequences through time; differentiable in a, b and h, any number of times.

    Natively for float32 on the CPU, in doublings on another device; else by the loop, which is the
    definition.

    Args:
        a, b: ``[N, H]``; on another device they may be complex.
        x: the sequences; its values are not read.
        h: the state before the first steps ``[B, H]``.

    Returns:
        y ``[N, H]``, and the last h ``[B, H]``, that of an empty sequence being h.
    """
    is_native = native.native_runs((a, b, h)) and not torch.is_autocast_enabled("cpu")
    if is_traced(a) or native.is_transformed() or not (is_native or _is_elsewhere(a)):
        return _definition(a, b, x, h)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or h.requires_grad):
        y, last = _Scan.apply(a, b, h, x.lengths, False)  # type: ignore[no-untyped-call]
        return y, last
    return _whole(a, b, x.lengths, h, False)


def _is_elsewhere(a: Tensor) -> bool:
    """Whether it lies on a device that does many steps in the time of one."""
    return a.device.type != "cpu"


def _whole(a: Tensor, b: Tensor, lengths: Tensor, h: Tensor, reverse: bool) -> Outputs:
    if _is_elsewhere(a):
        return doubled(a, b, lengths, h, reverse)
    return native.scan_linear(a, b, lengths, h, reverse)


def doubled(a: Tensor, b: Tensor, lengths: Tensor, h: Tensor, reverse: bool) -> Outputs:
    """The recurrence in log2 T passes over all steps (Hillis and Steele, 1986): where a_t and b_t
    say how h_t follows from h_{t-d}, the next pass lets them say how it follows from h_{t-2d}.
    """
    x = unchecked(b, lengths)
    rows, times = x.rows(), x.times()
    if reverse:
        times = lengths.to(b.device)[rows] - 1 - times
    # Chosen by place, not by a factor of 0: what is not a number stays in its own sequence.
    b = torch.where((times == 0)[:, None], a * h[rows] + b, b)
    reach = 1
    while reach < x.longest:
        way, inside = -reach if reverse else reach, (times >= reach)[:, None]
        b = torch.where(inside, b + a * b.roll(way, 0), b)
        a = torch.where(inside, a * a.roll(way, 0), a)
        reach *= 2
    return b, _taken(b, h, _starts(lengths, not reverse))


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
        y, last = _whole(a, b, lengths, h, reverse)
        ctx.save_for_backward(a, h, lengths, y)
        return y, last

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        a, h, lengths, y = ctx.saved_tensors
        dy = torch.zeros_like(y) if dy is None else dy
        dlast = torch.zeros_like(h) if dlast is None else dlast
        back = not ctx.reverse
        # Of the next step; beyond the end 1. Complex derivatives are those of the conjugates.
        after = _before(a.conj(), torch.ones_like(h), lengths, back)
        g, dh = _again(after, dy, dlast, lengths, back)
        dh = dh * _taken(a.conj(), torch.ones_like(h), _starts(lengths, ctx.reverse))
        return g * _before(y, h, lengths, ctx.reverse).conj(), g, dh, None, None


def _again(a: Tensor, b: Tensor, h: Tensor, lengths: Tensor, reverse: bool) -> Outputs:
    if torch.is_grad_enabled():
        y, last = _Scan.apply(a, b, h, lengths, reverse)  # type: ignore[no-untyped-call]
        return y, last
    return _whole(a, b, lengths, h, reverse)


def _before(values: Tensor, first: Tensor, lengths: Tensor, reverse: bool) -> Tensor:
    """What stands one step before each, and at the first step `first`: ``[N, H]``."""
    if not (torch.is_grad_enabled() or _is_elsewhere(values)):
        return native.before(values, first, None, lengths, reverse)
    x = unchecked(values, lengths)
    is_first = x.times() == (lengths.to(values.device)[x.rows()] - 1 if reverse else 0)
    earlier = torch.arange(x.total, device=is_first.device) + (1 if reverse else -1)
    return torch.cat([values, first])[torch.where(is_first, x.total + x.rows(), earlier)]


def _starts(lengths: Tensor, reverse: bool) -> Tensor:
    """The row of the first step of each sequence in the direction of time; N where it has none."""
    ends = lengths.cumsum(0)
    return torch.where(lengths > 0, ends - 1 if reverse else ends - lengths, int(lengths.sum()))


def _taken(values: Tensor, others: Tensor, places: Tensor) -> Tensor:
    """``[B, H]``: the rows of values ``[N, H]`` at places ``[B]``; at place N, that of others."""
    found = torch.cat([values, values.new_zeros(1, values.shape[1])])[places]
    return torch.where((places == len(values)).to(values.device)[:, None], others, found)
