"""Windowed causal attention against its equation; its other laws: test_conformance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from segue.cells import CausalAttention
from segue.errors import ShapeError, SpecError
from segue.layers import unroll


def turned(x: Tensor, t: int) -> Tensor:
    """R_t of one head."""
    half, y = len(x) // 2, x.clone()
    for d in range(half):
        angle = t * 10_000 ** (-2 * d / len(x))
        y[d] = x[d] * math.cos(angle) - x[d + half] * math.sin(angle)
        y[d + half] = x[d] * math.sin(angle) + x[d + half] * math.cos(angle)
    return y


def equation(cell: CausalAttention, x: Tensor) -> Tensor:
    """Step by step, head by head: ``[T, I] -> [T, O]``."""
    size = cell.outputs // cell.heads
    q, k, v = (x @ cell.w_xh.t() + cell.b_h).split(cell.outputs, dim=-1)
    rows = []
    for t in range(len(x)):
        heads = []
        for head in range(cell.heads):
            at, seen = (
                slice(head * size, (head + 1) * size),
                range(max(0, t - cell.window + 1), t + 1),
            )
            query = turned(q[t, at], t)
            scores = torch.stack([query @ turned(k[j, at], j) for j in seen]) / math.sqrt(size)
            heads.append(scores.softmax(0) @ torch.stack([v[j, at] for j in seen]))
        rows.append(cell.w_hy @ torch.cat(heads) + cell.b_y)
    return torch.stack(rows)


@pytest.mark.parametrize("window", [1, 3, 7, 40])
def test_it_is_its_equation(window: int) -> None:
    torch.manual_seed(0)
    cell = CausalAttention(3, 8, heads=2, window=window).double()
    x = torch.randn(2, 17, 3, dtype=torch.float64, requires_grad=True)
    y, _ = unroll(cell, x)
    want = torch.stack([equation(cell, one) for one in x])
    torch.testing.assert_close(y, want)
    inputs, dy = (x, *cell.parameters()), torch.randn_like(y)
    got = torch.autograd.grad(y, inputs, dy)
    for a, b in zip(got, torch.autograd.grad(want, inputs, dy), strict=True):
        torch.testing.assert_close(a, b)


def test_a_live_session_of_any_length_equals_its_last_window() -> None:
    torch.manual_seed(0)
    cell = CausalAttention(2, 4, heads=1, window=5).double()
    x = torch.randn(1, 3000, 2, dtype=torch.float64)
    state, size = cell.initial_state(1), None
    for t in range(3000):
        y, state = cell.step(x[:, t], state)
        held = sum(leaf.numel() for leaf in state)
        assert size in (None, held)
        size = held
    alone, _ = unroll(cell, x[:, -5:])
    torch.testing.assert_close(y, alone[:, -1])


def test_a_later_nan_changes_no_earlier_answer() -> None:
    torch.manual_seed(0)
    cell = CausalAttention(2, 4, heads=1, window=4)
    x = torch.randn(1, 20, 2)
    clean = unroll(cell, x)[0]
    x[0, 9] = torch.nan
    y = unroll(cell, x)[0]
    assert torch.equal(y[0, :9], clean[0, :9]) and torch.equal(y[0, 13:], clean[0, 13:])
    assert y[0, 9:13].isnan().all()


def test_bad_sizes_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match="an even number of outputs per head, got 6 outputs and 2"):
        CausalAttention(2, 6, heads=2)
    cell = CausalAttention(2, 8, heads=2, window=3)
    with pytest.raises(ShapeError, match="keys of CausalAttention's state: expected"):
        cell.step(torch.zeros(1, 2), cell.initial_state(3))
