"""Windowed causal attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell
from segue.errors import ShapeError, SpecError
from segue.ragged import Ragged, one_step, unchecked
from segue.shapes import check

_BASE = 10_000.0


class AttentionState(NamedTuple):
    """keys and values ``[B, W - 1, O]`` of the last steps, the oldest first and not yet rotated;
    seen ``[B, 1]``: how many of them there are.
    """

    keys: Tensor
    values: Tensor
    seen: Tensor


class CausalAttention(Cell):
    """Attention of every step to itself and the W - 1 steps before (Vaswani et al., 2017,
    arXiv:1706.03762; with a window: Beltagy et al., 2020, arXiv:2004.05150), so that the memory of
    a live session is bounded. In each head, with D = O / heads,

        q_t, k_t, v_t = W_q x_t + b_q, W_k x_t + b_k, W_v x_t + b_v
        s_tj = (R_t q_t) . (R_j k_j) / sqrt(D),   t - W < j <= t
        y_t = W_o [sum_j softmax_j(s_tj) v_j] + b_o,   heads side by side

    R_t turns the pairs of elements d and d + D / 2 by the angles t 10000^(-2 d / D) (rotary
    positions, Su et al., 2021, arXiv:2104.09864): s depends on t - j alone.

    Shapes: x ``[B, I]``, y ``[B, O]``, w_xh is W_q, W_k and W_v one below the other ``[3 O, I]``,
        b_h alike ``[3 O]``; w_hy ``[O, O]``, b_y ``[O]``.

    Args:
        inputs: I.
        outputs: O, a multiple of twice the heads.
        heads: how many.
        window: W, the steps that are seen, the present one among them.

    Raises:
        SpecError: a size that is none, or outputs that the heads do not divide into even parts.

    >>> cell = CausalAttention(3, 8, heads=2, window=4)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape, state.keys.shape
    (torch.Size([2, 8]), torch.Size([2, 3, 8]))
    """

    def __init__(self, inputs: int, outputs: int, *, heads: int = 4, window: int = 64) -> None:
        super().__init__(inputs=inputs, outputs=outputs, heads=heads, window=window)
        if outputs % (2 * heads):
            fix = "give outputs that are a multiple of twice the heads"
            got = f"{outputs} outputs and {heads} heads"
            raise SpecError("CausalAttention", "an even number of outputs per head", got, fix)
        self.inputs, self.outputs, self.heads, self.window = inputs, outputs, heads, window
        self.w_xh = nn.Parameter(torch.empty(3 * outputs, inputs))
        self.b_h = nn.Parameter(torch.zeros(3 * outputs))
        self.w_hy = nn.Parameter(torch.empty(outputs, outputs))
        self.b_y = nn.Parameter(torch.zeros(outputs))
        for weight in (*torch.split(self.w_xh, outputs), self.w_hy):
            nn.init.xavier_uniform_(weight)

    def initial_state(self, batch: int) -> AttentionState:
        """Nothing seen."""
        past = self.w_hy.new_zeros(batch, self.window - 1, self.outputs)
        return AttentionState(past, past.clone(), self.w_hy.new_zeros(batch, 1))

    def step(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """One step: ``[B, I] -> [B, O]``.

        Raises:
            ShapeError: x is not ``[B, I]``, or the state is that of other sequences.
        """
        check("CausalAttention.step", x, "B I", {"I": self.inputs})
        return self.scan(one_step(x), state)

    def scan(self, x: Ragged, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """All steps: ``[N, I] -> [N, O]``; each sequence in blocks of W steps, which see themselves
        and the W - 1 steps before the block.
        """
        check("CausalAttention.scan", x.values, "N I", {"I": self.inputs})
        self._check(x.batch, state)
        q, k, v = torch.split(ops.linear(x.values, self.w_xh, self.b_h), self.outputs, dim=-1)
        k, v = self._extended(k, state.keys), self._extended(v, state.values)
        y = ops.linear(self._mixed(x, q, k, v, state), self.w_hy, self.b_y)
        return y, self._after(x, k, v, state)

    def _extended(self, values: Tensor, past: Tensor) -> Tensor:
        """The past of all sequences, then their steps, ``[B (W - 1) + N, O]``."""
        return torch.cat([past.flatten(0, 1).to(values.dtype), values])

    def _places(self, x: Ragged, rows: Tensor, times: Tensor) -> Tensor:
        """Where in `_extended` a step of a sequence is; times count below 0 into the past, and what
        is beyond the last step is that one.
        """
        past = self.window - 1
        later = x.batch * past + x.offsets[rows] + torch.minimum(times, x.lengths[rows] - 1)
        return torch.where(times < 0, (rows + 1) * past + times, later)

    def _mixed(self, x: Ragged, q: Tensor, k: Tensor, v: Tensor, state: AttentionState) -> Tensor:
        window, heads = self.window, self.heads
        if x.total == 0:
            return q
        counts = (x.lengths + window - 1) // window
        blocks = unchecked(torch.empty(int(counts.sum()), 0, device="cpu"), counts)
        rows, starts = blocks.rows()[:, None], blocks.times()[:, None] * window
        inside = torch.arange(window, device="cpu")
        around = torch.arange(1 - window, window, device="cpu")
        # Times, [blocks, W] and [blocks, 2 W - 1].
        asked, seen = starts + inside, starts + around
        device = q.device
        known = seen.to(device) >= -state.seen[:, 0][rows.to(device)]
        back = (inside[:, None] - around).to(device)
        allowed = (back >= 0) & (back < window) & (known[:, None] | (back == 0))
        places = self._places(x, rows, seen).to(device)
        lengths = x.lengths[rows]
        real = asked < lengths
        steps = (x.offsets[rows] + asked.where(real, 0)).to(device)
        # What is not a number must be seen in its window alone, but 0 times NaN is NaN.
        broken = ~(k.isfinite() & v.isfinite()).all(dim=-1, keepdim=True)
        k, v = k.masked_fill(broken, 0.0), v.masked_fill(broken, 0.0)
        is_broken = (allowed & broken[places].transpose(1, 2)).any(dim=-1)
        q, k, v = q[steps], k[places], v[places]
        q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in (q, k, v))
        q, k = _turned(q, inside.to(device)), _turned(k, around.to(device))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None])
        mixed = mixed.transpose(1, 2).flatten(2).masked_fill(is_broken[..., None], torch.nan)
        times = x.times()
        block = blocks.offsets.to(device)[x.rows()] + times // window
        return mixed.flatten(0, 1)[block * window + times % window]

    def _after(self, x: Ragged, k: Tensor, v: Tensor, state: AttentionState) -> AttentionState:
        past = self.window - 1
        rows = torch.arange(x.batch, device="cpu")[:, None]
        times = x.lengths[:, None] - torch.arange(past, 0, -1, device="cpu")
        places = self._places(x, rows, times).to(k.device)
        seen = state.seen + x.lengths[:, None].to(state.seen)
        seen = torch.minimum(seen, state.seen.clamp(min=past))  # an empty sequence keeps its own
        dtype = state.keys.dtype
        return AttentionState(k[places].to(dtype), v[places].to(dtype), seen)

    def _check(self, batch: int, state: AttentionState) -> None:
        past = [batch, self.window - 1, self.outputs]
        shapes = {"keys": past, "values": past, "seen": [batch, 1]}
        for name, shape in shapes.items():
            got = list(getattr(state, name).shape)
            if got != shape:
                where, fix = f"{name} of CausalAttention's state", "take it from initial_state(B)"
                raise ShapeError(where, str(shape), str(got), fix)


def _turned(x: Tensor, times: Tensor) -> Tensor:
    """R_t x: ``[blocks, T, heads, D]``, times ``[T]``."""
    half = x.shape[-1] // 2
    rates = _BASE ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angles = times[:, None, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
