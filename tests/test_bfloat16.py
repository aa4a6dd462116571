"""Cells whose products are those of numbers rounded to bfloat16."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import segue
from segue import ops
from segue.cells import GRU, LSTM, Elman, LawCell
from segue.errors import SpecError
from segue.layers import Compiled, Zoneout, explain, unroll
from segue.ragged import Ragged

CELLS: dict[str, Any] = {
    "elman": Elman,
    "lstm": LSTM,
    "lstm-all": partial(LSTM, layer_norm=True, peepholes=True, projection=9),
    "gru": GRU,
    "gru-before": partial(GRU, reset_after=False, layer_norm=True),
}
BY_NAME = pytest.mark.parametrize("name", CELLS)


def pair(name: str, inputs: int = 7, hidden: int = 33) -> tuple[LawCell, LawCell]:
    """The cell with float32 and with bfloat16 products, of the same weights."""
    torch.manual_seed(1)
    single = CELLS[name](inputs, hidden)
    half = CELLS[name](inputs, hidden, dtype=torch.bfloat16)
    half.load_state_dict(single.state_dict())
    return single, half


def batch() -> Ragged:
    torch.manual_seed(2)
    return Ragged.from_list([torch.randn(n, 7) for n in (9, 0, 4, 12, 1)])


@BY_NAME
def test_steps_chunks_and_batches_have_the_same_bits(name: str) -> None:
    _, cell = pair(name)
    x = batch()
    with torch.no_grad():
        y, last = unroll(cell, x)
        for b, alone in enumerate(x.to_list()):
            state, outputs = cell.initial_state(1), [y.values[:0]]
            for step in alone:
                out, state = cell.step(step[None], state)
                outputs.append(out)
            assert torch.equal(torch.cat(outputs), y.select([b]).values)
            for leaf, whole in zip(ops.leaves(state), ops.leaves(last), strict=True):
                assert torch.equal(leaf[0], whole[b])


@BY_NAME
def test_states_and_outputs_are_those_of_the_equation(name: str) -> None:
    _, cell = pair(name)
    x = batch()
    with torch.no_grad():
        y, _ = unroll(cell, x)
        exact, _ = unroll(cell.double(), x.to(torch.float64))
    assert y.values.dtype == torch.float32
    # Numbers that fall just beside a tie round apart: a last bit of bfloat16, now and then.
    assert float((y.values - exact.values).abs().mean()) <= 1e-5


def gradients(cell: LawCell, x: Ragged) -> list[Tensor]:
    y, _ = unroll(cell, x)
    cell.zero_grad()
    (y.values * y.values.detach().cos()).sum().backward()
    return [weight.grad.clone() for weight in cell.parameters() if weight.grad is not None]


# Layer norm divides by what may be small and magnifies what rounding did.
@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_gradients_are_those_of_float32_within_two_per_cent(name: str) -> None:
    single, half = pair(name, hidden=256)
    x = batch()
    for exact, rounded in zip(gradients(single, x), gradients(half, x), strict=True):
        assert float((rounded - exact).norm()) <= 2e-2 * float(exact.norm())
        assert not torch.equal(rounded, exact)


@BY_NAME
def test_weights_stay_float32_and_the_dtype_may_change(name: str) -> None:
    single, half = pair(name)
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    x = batch()
    with torch.no_grad():
        assert not torch.equal(unroll(half, x)[0].values, unroll(single, x)[0].values)
        half.dtype = "float32"
        assert torch.equal(unroll(half, x)[0].values, unroll(single, x)[0].values)


def test_explain_keeps_the_native_path() -> None:
    layer = Zoneout(GRU(3, 4, dtype="bfloat16"), hidden=0.1)
    assert explain(layer) == f"Zoneout: training and inference: native kernel, {ops.native_name()}"
    limit = "the native kernels take float32, the weights are torch.float64"
    fused = "torch's fused GRU has no bfloat16 products"
    where = "GRU: training and inference"
    assert explain(GRU(3, 4, dtype="bfloat16").double()) == f"{where}: loop ({limit}; {fused})"


def test_another_dtype_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        LSTM(3, 4, dtype="float16")
    expected = "expected float32 | bfloat16, got float16; give one of the two"
    assert str(caught.value) == f"LSTM.dtype: {expected}"


def test_a_compiled_step_of_bfloat16_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        Compiled(GRU(3, 4, dtype="bfloat16").eval())
    assert "GRU with bfloat16 products, which has no native form" in str(caught.value)


def test_training_in_bf16_learns_and_leaves_a_float32_model() -> None:
    x = torch.randn(40, 6, 2)
    runs = [
        segue.fit(x, x[:, -1, 0], training={"epochs": 2, "precision": precision})
        for precision in ("float32", "bf16")
    ]
    weights = [list(run.trained.network.parameters()) for run in runs]
    assert not all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    for run in runs:
        cells = [m for m in run.trained.network.modules() if isinstance(m, LawCell)]
        assert {cell.dtype for cell in cells} == {"float32"}
