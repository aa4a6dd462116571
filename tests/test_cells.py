"""The equations once more in NumPy, the first weights, and the refusals of the cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segue.cells import (
    CELLS,
    GRU,
    INITS,
    LSTM,
    Elman,
    ElmanState,
    GRUState,
    Init,
    LSTMState,
    chrono,
    identity,
    orthogonal,
    uniform,
)
from segue.errors import InputError, ShapeError, SpecError
from segue.ragged import Ragged

Array = NDArray[np.float64]
I, H, P = 3, 4, 2  # noqa: E741


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def weights_of(cell: torch.nn.Module) -> dict[str, Array]:
    """Random weights, given to the cell, as arrays by name."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return {name: weight.detach().numpy() for name, weight in cell.named_parameters()}


def draw(*sizes: int) -> torch.Tensor:
    return torch.randn(
        *sizes, generator=torch.Generator().manual_seed(len(sizes)), dtype=torch.float64
    )


def hold_close(actual: torch.Tensor, expected: Array) -> None:
    assert np.abs(actual.detach().numpy() - expected).max() <= 1e-13


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("tanh", np.tanh),
        ("relu", lambda x: np.maximum(x, 0)),
        ("sigmoid", sigmoid),
        ("identity", lambda x: x),
        (torch.cos, np.cos),
    ],
)
def test_elman_is_its_equation(activation: Any, function: Callable[[Array], Array]) -> None:
    cell = Elman(I, H, activation=activation).double()
    w = weights_of(cell)
    x, h = draw(2, I), draw(2, H).mul(0.3)
    y, state = cell.step(x, ElmanState(h))
    expected = np.stack(
        [function(w["w_hh"] @ h[b].numpy() + w["w_xh"] @ x[b].numpy() + w["b_h"]) for b in (0, 1)]
    )
    hold_close(y, expected)
    hold_close(state.h, expected)


@pytest.mark.parametrize("projection", [None, P])
def test_lstm_is_its_equation(projection: int | None) -> None:
    cell = LSTM(I, H, projection=projection).double()
    w = weights_of(cell)
    x, h, c = draw(2, I), draw(2, cell.outputs).mul(0.3), draw(2, H)
    y, state = cell.step(x, LSTMState(h, c))
    for b in (0, 1):
        gates = w["w_xh"] @ x[b].numpy() + w["w_hh"] @ h[b].numpy() + w["b_h"]
        i, f = sigmoid(gates[:H]), sigmoid(gates[H : 2 * H])
        g, o = np.tanh(gates[2 * H : 3 * H]), sigmoid(gates[3 * H :])
        memory = f * c[b].numpy() + i * g
        hidden = o * np.tanh(memory)
        if projection is not None:
            hidden = w["w_hr"] @ hidden
        hold_close(state.c[b], memory)
        hold_close(state.h[b], hidden)
        hold_close(y[b], hidden)


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_is_its_equation(reset_after: bool) -> None:
    cell = GRU(I, H, reset_after=reset_after).double()
    w = weights_of(cell)
    x, h = draw(2, I), draw(2, H).mul(0.3)
    y, state = cell.step(x, GRUState(h))
    w_hr, w_hz, w_hn = w["w_hh"][:H], w["w_hh"][H : 2 * H], w["w_hh"][2 * H :]
    for b in (0, 1):
        old = h[b].numpy()
        xr, xz, xn = np.split(w["w_xh"] @ x[b].numpy() + w["b_h"], 3)
        r, z = sigmoid(xr + w_hr @ old), sigmoid(xz + w_hz @ old)
        after = r * (w_hn @ old + w["b_hn"]) if reset_after else w_hn @ (r * old)
        expected = (1 - z) * np.tanh(xn + after) + z * old
        hold_close(y[b], expected)
        hold_close(state.h[b], expected)


# First weights


def gates_of(cell: Any) -> int:
    return len(cell.w_hh) // H


@pytest.mark.parametrize("name", CELLS)
def test_every_recurrent_gate_starts_orthogonal(name: str) -> None:
    cell = CELLS[name](I, H)
    for gate in cell.w_hh.detach().chunk(gates_of(cell)):
        assert (gate @ gate.T - torch.eye(H)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CELLS)
def test_every_input_gate_starts_within_the_bound_of_xavier(name: str) -> None:
    cell = CELLS[name](40, 60)
    bound = (6 / (40 + 60)) ** 0.5
    largest = float(cell.w_xh.detach().abs().max())
    assert 0.95 * bound <= largest <= bound


def test_biases_start_at_zero_but_for_the_forget_gate() -> None:
    assert not Elman(I, H).b_h.any()
    assert not GRU(I, H).b_h.any()
    i, f, g, o = LSTM(I, H).b_h.chunk(4)
    assert not torch.cat([i, g, o]).any()
    assert (f == 1).all()
    assert (LSTM(I, H, forget_bias=0.5).b_h.chunk(4)[1] == 0.5).all()


@pytest.mark.parametrize("name", CELLS)
def test_identity_init(name: str) -> None:
    cell = CELLS[name](I, H, init=identity(0.5))
    for gate in cell.w_hh.detach().chunk(gates_of(cell)):
        assert torch.equal(gate, 0.5 * torch.eye(H))


def test_uniform_init_has_the_bound_of_torch() -> None:
    cell = LSTM(50, 100, init=uniform())
    assert 0.099 <= float(cell.w_hh.detach().abs().max()) <= 0.1
    assert 0.099 <= float(cell.w_xh.detach().abs().max()) <= 0.1
    assert float(LSTM(50, 100, init=uniform(0.01)).w_hh.detach().abs().max()) <= 0.01


def test_chrono_init_of_an_lstm() -> None:
    i, f, g, o = LSTM(I, 500, init=chrono(100)).b_h.detach().chunk(4)
    assert torch.equal(i, -f)
    assert 0 <= float(f.min())
    assert np.log(90) <= float(f.max()) <= np.log(99)
    assert not torch.cat([g, o]).any()


def test_chrono_init_of_a_gru_sets_the_gate_that_keeps() -> None:
    r, z, n = GRU(I, 500, init=chrono(100)).b_h.detach().chunk(3)
    assert not torch.cat([r, n]).any()
    assert np.log(90) <= float(z.max()) <= np.log(99)


def test_an_init_by_name_is_the_init() -> None:
    for name, make in INITS.items():
        torch.manual_seed(0)
        by_name = GRU(I, H, init=name)
        torch.manual_seed(0)
        by_value = GRU(I, H, init=make())
        assert torch.equal(by_name.w_hh, by_value.w_hh)


def test_gain_of_the_orthogonal_init() -> None:
    gate = Elman(I, H, init=orthogonal(2.0)).w_hh.detach()
    assert (gate @ gate.T - 4 * torch.eye(H)).abs().max() <= 1e-5


def test_an_init_may_be_of_the_users_own() -> None:
    cell = Elman(I, H, init=Init(recurrent=torch.nn.init.ones_, inputs=torch.nn.init.zeros_))
    assert (cell.w_hh == 1).all()
    assert not cell.w_xh.any()


# States


@pytest.mark.parametrize("name", CELLS)
def test_a_learned_initial_state_gets_a_gradient(name: str) -> None:
    cell = CELLS[name](I, H, learn_initial=True)
    y, _ = cell.step(torch.randn(2, I), cell.initial_state(2))
    y.sum().backward()
    learned = [weight for key, weight in cell.named_parameters() if key in ("h_0", "c_0")]
    assert learned
    for weight in learned:
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CELLS)
def test_the_state_of_half_precision_weights_is_float32(name: str, dtype: torch.dtype) -> None:
    cell = CELLS[name](I, H).to(dtype)
    exact = CELLS[name](I, H)
    exact.load_state_dict({key: weight.float() for key, weight in cell.state_dict().items()})
    x = torch.randn(2, I).to(dtype)
    y, state = cell.step(x, cell.initial_state(2))
    _, expected = exact.step(x.float(), exact.initial_state(2))
    assert y.dtype == dtype
    for part, wanted in zip(state, expected, strict=True):
        assert part.dtype == torch.float32
        assert (part - wanted).abs().max() <= 0.03


def test_state_of_float64_weights_is_float64() -> None:
    assert LSTM(I, H).double().initial_state(2).c.dtype == torch.float64


def test_autocast_keeps_the_state_in_float32() -> None:
    cell = LSTM(I, H)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = cell.scan(Ragged(torch.randn(5, I), torch.tensor([2, 3])), cell.initial_state(2))
    assert state.c.dtype == state.h.dtype == torch.float32


# Refusals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Elman(I, H, activation="sin"),
            SpecError,
            "Elman.activation: expected tanh | relu | sigmoid | identity, got sin; "
            "give one of these names or a function",
        ),
        (
            lambda: Elman(I, H, init=chrono(10)),
            SpecError,
            "Elman.init: expected an init without gates, got chrono; "
            "use an LSTM or a GRU, or another init",
        ),
        (
            lambda: GRU(I, H, init="zeros"),
            SpecError,
            "init: expected orthogonal | xavier | uniform | identity, got zeros; "
            "give one of these names, or an Init such as chrono(max_steps)",
        ),
        (
            lambda: chrono(2),
            SpecError,
            "chrono.max_steps: expected at least 3, got 2; give the longest lag",
        ),
        (
            lambda: LSTM(I, H).step(torch.zeros(2, I + 1), LSTM(I, H).initial_state(2)),
            ShapeError,
            "LSTM.step: expected [B, I=3], got [2, 4]; change the number of inputs",
        ),
        (
            lambda: LSTM(I, H).step(torch.zeros(2, I), LSTM(I, H).initial_state(3)),
            ShapeError,
            "the state of LSTM: expected [B=2, 4], got [3, 4]; "
            "take it from initial_state(B) or from an earlier step",
        ),
    ],
)
def test_refusals(call: Callable[[], object], error: type[InputError], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
