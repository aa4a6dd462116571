"""Laws that are given the time between steps, against their equations; their other laws:
test_conformance.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segue.cells import GRU, GRUD, LSTM, CfC, LinearCell, MinGRU
from segue.errors import ShapeError, SpecError
from segue.layers import Decay, Dropout, unroll
from segue.ragged import Ragged

F, H, T = 3, 5, 12


def shaken(cell: Any) -> Any:
    torch.manual_seed(0)
    cell = cell.double()
    for weight in cell.parameters():
        nn.init.uniform_(weight, -0.7, 0.7)
    return cell


def records(values: bool) -> Tensor:
    """``[B, T, 1 + F]``: times that differ from row to row, and features; or flags besides."""
    generator = torch.Generator().manual_seed(4)
    elapsed = torch.rand(2, T, 1, generator=generator, dtype=torch.float64) * 3
    x = torch.randn(2, T, F, generator=generator, dtype=torch.float64)
    if not values:
        return torch.cat([elapsed, x], dim=2)
    flags = (torch.rand(2, T, F, generator=generator) < 0.5).double()
    return torch.cat([elapsed, torch.where(flags > 0, x, torch.nan), flags], dim=2)


def gru_d(cell: GRUD, x: Tensor) -> Tensor:
    """One sequence ``[T, 1 + 2 F]``, feature by feature as the paper has it."""
    h, last, rows = torch.zeros(H).double(), cell.mean.clone(), []
    since = torch.zeros(F).double()
    flags_before = torch.zeros(F).double()
    w, v = cell.w_xh.split(F, dim=1)
    for step in x:
        elapsed, values, m = step[0], step[1 : 1 + F], step[1 + F :]
        since = elapsed + (1 - flags_before) * since
        gx = torch.exp(-torch.clamp(cell.w_gx * since + cell.b_gx, min=0))
        gh = torch.exp(-torch.clamp(cell.w_gh @ since + cell.b_gh, min=0))
        seen = m * values.nan_to_num() + (1 - m) * (gx * last + (1 - gx) * cell.mean)
        last = torch.where(m > 0, values, last)
        h = gh * h
        p = w @ seen + v @ m + cell.b_h
        r = torch.sigmoid(p[:H] + cell.w_hh[:H] @ h)
        z = torch.sigmoid(p[H : 2 * H] + cell.w_hh[H : 2 * H] @ h)
        n = torch.tanh(p[2 * H :] + cell.w_hh[2 * H :] @ (r * h))
        h = (1 - z) * h + z * n
        flags_before = m
        rows.append(h)
    return torch.stack(rows)


def cfc(cell: CfC, x: Tensor) -> Tensor:
    h, rows = torch.zeros(H).double(), []
    w_f, w_g, w_a, w_b = cell.w_vh.chunk(4)
    b_f, b_g, b_a, b_b = cell.b_h.chunk(4)
    for step in x:
        both = torch.cat([step[1:], h])
        v = 1.7159 * torch.tanh(2 / 3 * (cell.w_v @ both + cell.b_v))
        s = torch.sigmoid((w_a @ v + b_a) * step[0] + w_b @ v + b_b)
        h = (1 - s) * torch.tanh(w_f @ v + b_f) + s * torch.tanh(w_g @ v + b_g)
        rows.append(h)
    return torch.stack(rows)


def decay(layer: Decay, x: Tensor) -> Tensor:
    state, rows = layer.initial_state(1), []
    for step in x:
        parts = [
            s * torch.exp(-torch.log1p(torch.exp(rate)) * step[0])
            for s, rate in zip(state, layer.rates, strict=True)
        ]
        y, state = layer.body.step(step[None, 1:], type(state)(*parts))
        rows.append(y[0])
    return torch.stack(rows)


@pytest.mark.parametrize("name", ["gru-d", "cfc", "decay-gru", "decay-lstm", "decay-min-gru"])
def test_a_law_is_its_equation(name: str) -> None:
    layer, equation = {
        "gru-d": (lambda: GRUD(F, H), gru_d),
        "cfc": (lambda: CfC(F, H, backbone=7), cfc),
        "decay-gru": (lambda: Decay(GRU(F, H)), decay),
        "decay-lstm": (lambda: Decay(LSTM(F, H)), decay),
        "decay-min-gru": (lambda: Decay(MinGRU(F, H)), decay),
    }[name]
    cell = shaken(layer())
    if isinstance(cell, GRUD):
        cell.mean.copy_(torch.tensor([0.5, -1.0, 0.0]))
    x = records(values=isinstance(cell, GRUD))
    y, _ = unroll(cell, x)
    want = torch.stack([equation(cell, one) for one in x])  # type: ignore[operator]
    torch.testing.assert_close(y, want)
    dy = torch.randn_like(y)
    weights = list(cell.parameters())
    got = torch.autograd.grad(y, weights, dy, allow_unused=True)
    for a, b in zip(got, torch.autograd.grad(want, weights, dy, allow_unused=True), strict=True):
        torch.testing.assert_close(a, b)


def test_gaps_that_differ_by_row_touch_that_row_alone() -> None:
    for cell in (GRUD(F, H), CfC(F, H), Decay(LSTM(F, H)), Decay(MinGRU(F, H))):
        x = records(values=isinstance(cell, GRUD)).float()
        y = unroll(cell, x)[0]
        later = x.clone()
        later[1, 5, 0] += 10
        changed = unroll(cell, later)[0]
        torch.testing.assert_close(changed[0], y[0])
        torch.testing.assert_close(changed[1, :5], y[1, :5])
        assert float((changed[1, 5] - y[1, 5]).detach().abs().max()) > 1e-6


def test_two_short_waits_are_one_long_one() -> None:
    layer = shaken(Decay(MinGRU(F, H)))
    state = layer.body.initial_state(1)
    state = type(state)(torch.randn(1, H, dtype=torch.float64))
    x = torch.zeros(1, 1 + F, dtype=torch.float64)

    def kept(elapsed: float) -> Tensor:
        return layer._kept(x[:, :1] + elapsed, 0)

    torch.testing.assert_close(kept(1.0) * kept(2.5), kept(3.5))
    assert torch.equal(kept(-1.0), torch.ones(1, H, dtype=torch.float64))


def test_a_law_linear_in_the_state_decays_in_one_scan() -> None:
    torch.manual_seed(0)
    layer = Decay(MinGRU(F, H))
    assert isinstance(layer.body, LinearCell)
    x = records(values=False).float()
    with torch.no_grad():
        y, _ = unroll(layer, Ragged.rectangular(x))
        state = layer.initial_state(2)
        for t in range(T):
            one, state = layer.step(x[:, t], state)
            torch.testing.assert_close(one, y.values.reshape(2, T, H)[:, t])


def test_what_was_not_observed_is_not_read() -> None:
    cell = GRUD(1, H)
    x = torch.tensor([[[1.0, 7.0, 1.0], [1.0, torch.nan, 0.0], [1.0, 1e30, 0.0]]])
    y, state = unroll(cell, x)
    assert y.isfinite().all() and state.last.tolist() == [[7.0]] and state.since.tolist() == [[2.0]]


def test_others_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match="Decay: expected a recurrent cell, got Dropout"):
        Decay(Dropout(3, 0.1))  # type: ignore[arg-type]
    for cell, x in ((GRUD(F, H), 1 + 2 * F), (CfC(F, H), 1 + F)):
        with pytest.raises(ShapeError, match=r"the state of \w+: expected \[1, 5\], got \[3, 5\]"):
            cell.step(torch.zeros(1, x), cell.initial_state(3))
