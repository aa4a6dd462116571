"""Causal convolution against torch's, step by step and in bad cases; its laws: test_conformance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segue.cells import CausalConv
from segue.errors import ShapeError, SpecError
from segue.layers import unroll
from segue.ragged import Ragged


def by_torch(cell: CausalConv, x: Tensor) -> Tensor:
    """torch's convolution over ``[B, T, I]`` with zeros before it, with the cell's weights."""
    groups = cell.inputs if cell.depthwise else 1
    conv = nn.Conv1d(
        cell.inputs, cell.outputs, cell.kernel, dilation=cell.dilation, groups=groups
    ).to(x.dtype)
    weight = cell.weight.t()[:, None] if cell.depthwise else _by_channel(cell)
    padded = nn.functional.pad(x.transpose(1, 2), (cell.past, 0))
    dilation = conv.dilation
    y = nn.functional.conv1d(padded, weight, cell.bias, dilation=dilation, groups=groups)
    return y.transpose(1, 2)


def _by_channel(cell: CausalConv) -> Tensor:
    return cell.weight.reshape(cell.outputs, cell.kernel, cell.inputs).transpose(1, 2)


@pytest.mark.parametrize("kernel", [1, 2, 5])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("depthwise", [False, True])
def test_it_is_torchs_convolution_with_zeros_before(
    kernel: int, dilation: int, depthwise: bool
) -> None:
    torch.manual_seed(0)
    outputs = 4 if depthwise else 6
    cell = CausalConv(4, outputs, kernel=kernel, dilation=dilation, depthwise=depthwise).double()
    nn.init.uniform_(cell.bias)
    ours = torch.randn(3, 20, 4, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    y, want = unroll(cell, ours)[0], by_torch(cell, theirs)
    torch.testing.assert_close(y, want)
    dy = torch.randn_like(y)
    got = torch.autograd.grad(y, [ours, cell.weight, cell.bias], dy)
    expected = torch.autograd.grad(want, [theirs, cell.weight, cell.bias], dy)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_sequence_sees_nothing_of_its_neighbours() -> None:
    torch.manual_seed(0)
    cell = CausalConv(2, 3, kernel=4, dilation=2)
    pieces = [torch.randn(n, 2) for n in (5, 0, 1, 9)]
    y, state = unroll(cell, Ragged.from_list(pieces))
    for b, (piece, got) in enumerate(zip(pieces, y.to_list(), strict=True)):
        alone, end = unroll(cell, piece[None])
        torch.testing.assert_close(got, alone[0])
        torch.testing.assert_close(state.past[b], end.past[0])


def test_the_last_inputs_are_the_state() -> None:
    cell = CausalConv(1, 1, kernel=3)
    x = torch.arange(1.0, 6.0).reshape(1, 5, 1)
    assert unroll(cell, x)[1].past.flatten().tolist() == [4.0, 5.0]
    assert unroll(cell, x[:, :1])[1].past.flatten().tolist() == [0.0, 1.0]


def test_bad_sizes_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"CausalConv.outputs: expected 2, the inputs, got 3"):
        CausalConv(2, 3, depthwise=True)
    with pytest.raises(SpecError, match=r"CausalConv.depthwise: expected true or false"):
        CausalConv(2, 2, depthwise="no")  # type: ignore[arg-type]
    cell = CausalConv(2, 2)
    with pytest.raises(ShapeError, match=r"the state of CausalConv: expected \[1, 2, 2\]"):
        cell.step(torch.zeros(1, 2), cell.initial_state(3))
