"""Every layer of the catalogue with its weights elsewhere than the lengths, which are on the CPU.

torch's meta device has no numbers, but refuses what a real one refuses: two devices in one call.
test_cuda.py has the numbers.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from catalogue import ROWS, Row, cells

from segue.layers import unroll
from segue.ops import leaves
from segue.ragged import Ragged
from segue.torch_defaults import with_torch_defaults

LENGTHS = {"ragged": [7, 0, 12, 1, 5], "equal": [6, 6, 6]}
INPUTS, HIDDEN = 19, 40


def batch(lengths: list[int]) -> Ragged:
    values = torch.randn(sum(lengths), INPUTS, generator=torch.Generator().manual_seed(7))
    return Ragged(values, torch.tensor(lengths))


def by_name(*given: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", given, ids=[row.name for row in given])


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@by_name(*ROWS)
def test_outputs_and_gradients_are_where_the_weights_are(row: Row, lengths: list[int]) -> None:
    layer = row.build(INPUTS, HIDDEN, torch.float32)
    here, _ = unroll(layer, batch(lengths))
    layer, x = layer.to("meta"), batch(lengths).to("meta")
    x.values.requires_grad_()
    y, state = unroll(layer, x)
    assert y.values.device.type == "meta"
    assert y.values.shape == here.values.shape
    total = y.values.sum() + sum(leaf.sum() for leaf in leaves(state) if leaf.is_floating_point())
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(total, [x.values, *weights], materialize_grads=True)
    assert {one.device.type for one in gradients} == {"meta"}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@by_name(*ROWS)
def test_a_default_device_changes_nothing(row: Row, lengths: list[int]) -> None:
    layer = row.build(INPUTS, HIDDEN, torch.float32).eval()
    x = batch(lengths)
    weights = [weight for weight in layer.parameters() if weight.requires_grad]

    def found() -> list[torch.Tensor]:
        y, state = unroll(layer, x.with_values(x.values.clone()))
        total = y.values.sin().sum()
        gradients = torch.autograd.grad(total, weights, materialize_grads=True) if weights else ()
        return [y.values, *leaves(state), *gradients]

    expected = found()
    with torch.device("meta"):
        other = found()
    for one, another in zip(expected, other, strict=True):
        torch.testing.assert_close(another, one, rtol=0, atol=0)


@by_name(*cells())
def test_a_default_device_changes_no_step_and_no_reset(row: Row) -> None:
    layer, x = row.build(INPUTS, HIDDEN, torch.float32), batch([6, 6, 6]).to_padded()
    flags = torch.zeros(3, 6, dtype=torch.bool)
    flags[1, 3] = flags[2, 0] = True

    def found() -> list[torch.Tensor]:
        y, state = layer.step(x[:, 0], layer.initial_state(3))
        reset, after = unroll(layer, x, reset=flags)
        return [y, *leaves(state), reset, *leaves(after)]

    expected = found()
    with torch.device("meta"):
        other = found()
    for one, another in zip(expected, other, strict=True):
        torch.testing.assert_close(another, one, rtol=0, atol=0)


def test_the_defaults_are_the_users_again_when_the_last_has_left() -> None:
    inside, leave = threading.Event(), threading.Event()

    @with_torch_defaults
    def stay() -> torch.dtype:
        inside.set()
        leave.wait(10)
        return torch.empty(0).dtype

    @with_torch_defaults
    def fail() -> None:
        raise KeyError(torch.empty(0).dtype)

    torch.set_default_dtype(torch.float64)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stay)
        inside.wait(10)
        with pytest.raises(KeyError, match="float32"):
            fail()
        leave.set()
        assert first.result() == torch.float32
    found = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    assert found == torch.float64
