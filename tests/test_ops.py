"""The choice between the paths, and what each of them needs around it."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from segue import ops
from segue.cells import GRU, LSTM, Elman
from segue.layers import Linear, unroll
from segue.ops import fused, native
from segue.ragged import Ragged

# The loop


def test_the_loop_is_a_loop() -> None:
    x = Ragged.from_list([torch.randn(n, 2) for n in (3, 0, 4, 1)])
    state = torch.randn(4, 2)

    def step(values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return values - state, 0.5 * state + values

    y, final = ops.loop(step, x, state)
    for b, part in enumerate(x.to_list()):
        now = state[b : b + 1]
        for t, values in enumerate(part):
            output, now = step(values[None], now)
            assert torch.equal(x.with_values(y).to_list()[b][t], output[0])
        assert torch.equal(final[b : b + 1], now)


def test_map_state_keeps_the_structure() -> None:
    state = {"a": LSTM(2, 3).initial_state(2), "b": ((), torch.ones(2, 1))}
    mapped = ops.map_state(torch.add, state, state)
    assert type(mapped["a"]) is type(state["a"])
    assert mapped["b"][0] == ()
    assert torch.equal(mapped["b"][1], torch.full((2, 1), 2.0))
    assert len(list(ops.leaves(mapped))) == 3


# The fused path


def padded_share(lengths: Tensor) -> float:
    """The share of padded steps among all steps that are computed."""
    lengths = lengths.sort(descending=True).values
    computed = sum(
        int(lengths[one].max()) * (one.stop - one.start) for one in fused.buckets(lengths)
    )
    return 1 - int(lengths.sum()) / computed


@pytest.mark.parametrize(
    ("lengths", "most"),
    [
        (torch.tensor([1000] + [10] * 63), 1),
        (torch.arange(1, 257), 8),
        (torch.tensor([1] * 100 + [10] * 100 + [100] * 100 + [1000] * 100), 4),
        (torch.full((50,), 20), 1),
        (torch.logspace(0, 3, 200).long(), 10),
    ],
)
def test_at_most_a_third_of_a_batch_is_padding_in_few_buckets(lengths: Tensor, most: int) -> None:
    cuts = fused.buckets(lengths.sort(descending=True).values)
    assert [one.start for one in cuts] == [0, *(one.stop for one in cuts[:-1])]
    assert cuts[-1].stop == len(lengths)
    assert len(cuts) <= most + 1
    assert padded_share(lengths) <= 1 / 3


def test_padded_steps_do_not_run_away() -> None:
    cell = Elman(1, 2, activation="relu").double()
    with torch.no_grad():
        cell.w_hh.copy_(100 * torch.eye(2))
        cell.w_xh.fill_(1.0)
    # In the padding of the short sequences h would overflow, and the gradients become NaN.
    x = Ragged(torch.ones(200 + 15 * 140).double()[:, None], torch.tensor([200] + [140] * 15))
    y, state = cell.scan(x.with_values(x.values * 1e-300), cell.initial_state(16))
    y[:100].sum().backward()
    assert cell.w_hh.grad is not None
    assert cell.w_hh.grad.isfinite().all()
    assert len(fused.buckets(x.lengths)) == 1


def test_flags_hold_the_memory_of_an_lstm_exactly() -> None:
    cell = LSTM(2, 3).double()
    x = Ragged.from_list([torch.randn(n, 2).double() for n in (9, 8, 7, 8)])
    _, together = cell.scan(x, cell.initial_state(4))
    for b, part in enumerate(x.to_list()):
        _, alone = cell.scan(Ragged.from_list([part]), cell.initial_state(1))
        assert (together.c[b] - alone.c[0]).abs().max() <= 1e-15


# The native path


def test_native_runs_in_float32_with_and_without_gradients() -> None:
    x, weight = torch.randn(2, 3), torch.randn(4, 3, requires_grad=True)
    assert ops.native_runs([x, weight]) == (ops.native_name() is not None)
    assert not ops.native_runs([x.double(), weight])
    with torch.no_grad():
        assert ops.native_runs([x, weight]) == (ops.native_name() is not None)


# torch's own import of its forward-mode formulas warns.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_native_does_not_run_under_the_transforms_of_torch_func() -> None:
    cell = GRU(2, 3).requires_grad_(False)
    x, state = torch.randn(4, 2), cell.initial_state(4)

    def total(x: Tensor) -> Tensor:
        y: Tensor = cell.step(x, state)[0].sum()
        return y

    gradient = torch.func.grad(total)(x)
    again = x.clone().requires_grad_()
    total(again).backward()
    assert again.grad is not None
    assert (gradient - again.grad).abs().max() <= 1e-6
    _, tangent = torch.func.jvp(total, (x,), (torch.ones_like(x),))
    assert (tangent - again.grad.sum()).abs() <= 1e-5


@pytest.mark.parametrize("shape", [(3,), (7, 3), (2, 5, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_torch(shape: tuple[int, ...], bias: bool) -> None:
    layer = Linear(3, 4, bias=bias)
    x = torch.randn(shape)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        y = layer(x)
    assert y.shape == expected.shape
    assert torch.allclose(y, expected, rtol=0, atol=1e-6)
    assert torch.equal(layer(x), expected)


def test_linear_takes_views() -> None:
    weight = torch.randn(8, 6)[::2, ::2]
    x = torch.randn(3, 5).t()
    with torch.no_grad():
        assert torch.allclose(ops.linear(x, weight), x @ weight.t(), rtol=0, atol=1e-6)


def test_weights_of_inference_mode_work() -> None:
    with torch.inference_mode():
        layer = LSTM(2, 3)
        x = torch.randn(2, 5, 2)
        before, _ = unroll(layer, x)
        layer.w_hh.mul_(2)
        after, _ = unroll(layer, x)
    assert not torch.equal(before, after)


def test_a_native_module_that_was_not_built_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "segue"):
        assert native.load("segue._absent") is None
        assert native.load("segue._absent") is None
    assert [record.getMessage() for record in caplog.records] == [
        "the native module is not built: running on torch alone; "
        "install segue with a C++17 compiler at hand"
    ]
