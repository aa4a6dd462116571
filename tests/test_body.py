"""The layers that a declaration means: laws in one stack, sizes of their own, time that is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segue.body import body, causal_body, reads
from segue.cells import CELLS, GRU, LSTM, CausalAttention, CausalConv, Cell, CfC
from segue.errors import SpecError
from segue.layers import Beside, Decay, Residual, Stack, TimeDistributed, unroll
from segue.ragged import Ragged
from segue.schema import Model

F = 6


def stack(**options: Any) -> list[Any]:
    """The layers of a causal body over F features."""
    found = body(F, Model(**{"hidden": 8, **options}))
    assert isinstance(found, Stack)
    return list(found.cells)


def message(**options: Any) -> str:
    with pytest.raises(SpecError) as caught:
        body(F, Model(**{"hidden": 8, **options}))
    return str(caught.value)


def test_a_list_of_layers_mixes_laws_and_sizes() -> None:
    mixed = ({"conv": {"hidden": 5, "kernel": 4}}, {"lstm": {"hidden": 12}}, "attention")
    conv, lstm, attention = stack(layers=mixed)
    assert [type(conv), type(lstm), type(attention)] == [CausalConv, LSTM, CausalAttention]
    assert (conv.inputs, conv.outputs, conv.kernel) == (F, 5, 4)
    assert (lstm.inputs, lstm.outputs, attention.inputs, attention.outputs) == (5, 12, 12, 8)


def test_residual_and_norm_stand_between_layers() -> None:
    first, norm, second = stack(layers=2, cell="gru", residual=True, norm=True)
    assert type(first) is GRU and type(second) is Residual
    assert type(norm) is TimeDistributed and norm.module.normalized_shape == (8,)


@pytest.mark.parametrize("name", [n for n, law in CELLS.items() if not n.startswith("conv_")])
def test_every_law_over_vectors_runs_by_its_name(name: str) -> None:
    spec = Model(cell=name, hidden=8)
    cell = body(F, spec)
    width = {"": F, "elapsed": 1 + F, "observed": 1 + 2 * F}[reads(spec)]
    y, _ = unroll(cell, torch.rand(2, 5, width))
    assert y.shape == (2, 5, 8 + (reads(spec) != ""))


@pytest.mark.parametrize("name", ["conv_rnn", "conv_lstm", "conv_gru"])
@pytest.mark.parametrize("size", [(7,), (4, 5), (3, 4, 2)])
def test_every_law_over_maps_runs_by_its_name(name: str, size: tuple[int, ...]) -> None:
    cell = body(2, Model(cell=name, hidden=3, layers=2), size)
    steps = Ragged(torch.rand(6, 2, *size), torch.tensor([4, 2]))
    assert unroll(cell, steps)[0].values.shape == (6, 3, *size)


def test_time_goes_along_beside_layers_that_do_not_read_it() -> None:
    torch.manual_seed(0)
    gru, cfc = stack(layers=("gru", "cfc"))
    assert type(gru) is Beside and type(gru.cell) is GRU and type(cfc.cell) is CfC
    x = torch.rand(1, 4, 1 + F)
    y, _ = unroll(Stack(gru, cfc), x)
    h, _ = unroll(gru.cell, x[:, :, 1:])
    expected, _ = unroll(cfc.cell, torch.cat([x[:, :, :1], h], 2))
    assert torch.equal(y, torch.cat([x[:, :, :1], expected], 2))


def test_decay_wraps_every_layer() -> None:
    assert [type(layer.cell) for layer in stack(layers=2, decay=True)] == [Decay, Decay]


def gradient(cell: Cell, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    unroll(cell, x)[0].square().sum().backward()
    assert x.grad is not None
    return x.grad


def test_gaps_that_differ_by_row_change_each_row_alone() -> None:
    torch.manual_seed(1)
    cell = body(2, Model(cell="cfc", hidden=4))
    assert isinstance(cell, Cell)
    x = torch.rand(3, 5, 3)
    other = x.clone()
    other[1, :, 0] *= 4
    assert np.array_equal((gradient(cell, x) != gradient(cell, other)).any(2).any(1), [0, 1, 0])


def test_inputs_without_features_are_refused() -> None:
    with pytest.raises(SpecError, match="^inputs: expected elements in some training row, got no"):
        body(0, Model(hidden=8))


def test_layers_that_cannot_be_are_refused() -> None:
    assert message(layers=("gru", "gru_d")) == (
        "model.layers.1: expected gru_d as the first layer, got a later one; "
        "put it first: above it nothing is missing any more"
    )
    assert message(layers=("gru", {"lstm": {"hidden": 5}}), residual=True) == (
        "model.residual: expected model.layers.1.lstm as wide as its input, got 8 and 5; "
        "give these layers one size"
    )
    assert message(cell="gru", layers=("gru",)) == (
        "model.cell: expected nothing beside a list of layers, got 'gru'; say it in each layer"
    )
    assert message(layers=({"gru": {"hidden": 0}},)) == (
        "model.layers.0.gru.hidden: expected a positive integer, got 0; correct it"
    )
    assert message(layers=("gru", "grue")).startswith("model.layers.1: expected one of elman, ")
    assert message(cell="cfc", bidirectional=True) == (
        "model.bidirectional: expected false with a cell that reads time, got true; "
        "leave it out: backwards in time other times have passed"
    )
    assert message(cell="attention", zoneout=0.1) == (
        "model.zoneout: expected 0 with cell attention, got 0.1; leave it out"
    )
    assert message(cell="conv_lstm") == (
        "model.cell: expected pictures, which this cell takes, got vectors; "
        "declare an input that keeps its maps, or another cell"
    )
    assert message(cell={"min_gru": {"kernel": 3}}) == (
        "model.cell.min_gru: expected no options, got 'kernel'; remove it"
    )
    with pytest.raises(SpecError, match="reads no time, for a forecast"):
        causal_body(F, Model(cell="gru_d"))
    with pytest.raises(SpecError, match="expected features that are vectors, got maps of 4 x 4"):
        body(2, Model(cell="gru"), (4, 4))
