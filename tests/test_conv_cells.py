"""Convolutional recurrences against their equations; their other laws: test_conformance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segue.cells import GRU, LSTM, ConvCell, ConvGRU, ConvLSTM, ConvRNN
from segue.errors import ShapeError, SpecError
from segue.layers import unroll
from segue.ragged import Ragged

SIZES = [(5,), (4, 3), (3, 2, 4)]
LAWS = [ConvRNN, ConvLSTM, ConvGRU]


def convolution(cell: ConvCell, x: Tensor, weight: Tensor) -> Tensor:
    """By an unrolled sum over the kernel, without torch's convolution."""
    half = cell.kernel // 2
    padded = nn.functional.pad(x, (half, half) * len(cell.size))
    y = torch.zeros(len(x), len(weight), *cell.size, dtype=x.dtype)
    for place in torch.cartesian_prod(*[torch.arange(cell.kernel)] * len(cell.size)).reshape(
        -1, len(cell.size)
    ):
        offsets = place.tolist()
        window = padded[
            (..., *(slice(at, at + n) for at, n in zip(offsets, cell.size, strict=True)))
        ]
        y = y + torch.einsum("oi,bi...->bo...", weight[(..., *offsets)], window)
    return y


def equation(cell: ConvCell, x: Tensor, state: Any) -> tuple[Tensor, ...]:
    """The states after a step: h, and c of an LSTM."""
    shape = (-1, *(1,) * len(cell.size))

    def gate(k: int, h: Tensor) -> Tensor:
        at = slice(k * cell.outputs, (k + 1) * cell.outputs)
        both = convolution(cell, x, cell.w_xh[at]) + convolution(cell, h, cell.w_hh[at])
        return both + cell.b_h[at].reshape(shape)

    h = state.h
    if isinstance(cell, ConvRNN):
        return (torch.tanh(gate(0, h)),)
    if isinstance(cell, ConvGRU):
        r, z = torch.sigmoid(gate(0, h)), torch.sigmoid(gate(1, h))
        return ((1 - z) * torch.tanh(gate(2, r * h)) + z * h,)
    assert isinstance(cell, ConvLSTM)
    p = torch.zeros(3) if cell.w_c is None else cell.w_c
    i, f = torch.sigmoid(gate(0, h) + p[0] * state.c), torch.sigmoid(gate(1, h) + p[1] * state.c)
    c = f * state.c + i * torch.tanh(gate(2, h))
    return torch.sigmoid(gate(3, h) + p[2] * c) * torch.tanh(c), c


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("law", [*LAWS, "peepholes"])
def test_a_law_is_its_equation(law: Any, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    options = {"peepholes": True} if law == "peepholes" else {}
    cell = (ConvLSTM if law == "peepholes" else law)(2, 3, size, **options).double()
    for weight in cell.parameters():
        nn.init.uniform_(weight, -0.5, 0.5)
    x = torch.randn(4, 5, 2, *size, dtype=torch.float64)
    state, want = cell.initial_state(4), []
    for t in range(5):
        state = type(state)(*equation(cell, x[:, t], state))
        want.append(state.h)
    y, last = unroll(cell, x)
    torch.testing.assert_close(y, torch.stack(want, dim=1))
    for got, expected in zip(last, state, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("law", "plain"), [(ConvLSTM, LSTM), (ConvGRU, GRU)])
def test_a_picture_of_one_point_is_the_plain_law(law: Any, plain: Any) -> None:
    torch.manual_seed(0)
    cell = law(3, 4, (1,), kernel=1)
    other = plain(3, 4, **({"reset_after": False} if plain is GRU else {}))
    with torch.no_grad():
        other.w_xh.copy_(cell.w_xh.flatten(1))
        other.w_hh.copy_(cell.w_hh.flatten(1))
        other.b_h.copy_(cell.b_h)
    x = torch.randn(2, 6, 3)
    torch.testing.assert_close(unroll(cell, x[..., None])[0][..., 0], unroll(other, x)[0])


@pytest.mark.parametrize("law", LAWS)
def test_sequences_of_unequal_length_and_resets(law: Any) -> None:
    torch.manual_seed(0)
    cell = law(1, 2, (4, 4))
    pieces = [torch.randn(n, 1, 4, 4) for n in (5, 0, 2)]
    y, state = unroll(cell, Ragged.from_list(pieces))
    for b, piece in enumerate(pieces):
        alone, end = unroll(cell, piece[None])
        torch.testing.assert_close(y.to_list()[b], alone[0])
        torch.testing.assert_close(state.h[b], end.h[0])
    reset = torch.zeros(1, 5, dtype=torch.bool)
    reset[0, 3] = True
    again = unroll(cell, pieces[0][None], reset=reset)[0]
    torch.testing.assert_close(again[:, 3:], unroll(cell, pieces[0][None, 3:])[0])


@pytest.mark.parametrize("law", LAWS)
def test_gradients_are_those_of_the_equation(law: Any) -> None:
    torch.manual_seed(0)
    cell = law(1, 2, (3, 2)).double()
    x = torch.randn(2, 3, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unroll(cell, x)[0], x)


def test_bad_pictures_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"ConvGRU.kernel: expected an odd number above 0, got 2"):
        ConvGRU(1, 2, (4, 4), kernel=2)
    with pytest.raises(SpecError, match=r"ConvRNN.size: expected 1 to 3 whole numbers above 0"):
        ConvRNN(1, 2, ())
    cell = ConvLSTM(1, 2, (4, 4))
    with pytest.raises(
        ShapeError, match=r"ConvLSTM.scan: expected \[N, 1, 4, 4\], got \[3, 1, 4\]"
    ):
        unroll(cell, torch.zeros(1, 3, 1, 4))
    with pytest.raises(ShapeError, match=r"the state of ConvLSTM: expected \[1, 2, 4, 4\]"):
        cell.step(torch.zeros(1, 1, 4, 4), cell.initial_state(3))
