"""The simplified state space layer against its equation written out in NumPy; see also
test_conformance and test_linear.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segue.cells import S5
from segue.errors import ShapeError, SpecError
from segue.layers import unroll

Complex = NDArray[np.complex128]


def shaken(gate: bool = False) -> S5:
    """A cell in float64, none of whose numbers are 0."""
    torch.manual_seed(0)
    cell = S5(3, 5, state=4, gate=gate).double()
    if cell.b_g is not None:
        torch.nn.init.uniform_(cell.b_g)
    return cell


def numbers(cell: S5) -> dict[str, NDArray[np.float64]]:
    return {name: weight.detach().numpy() for name, weight in cell.named_parameters()}


def system(w: dict[str, NDArray[np.float64]]) -> tuple[Complex, Complex, Complex]:
    """l, B and C as complex numbers."""
    modes = len(w["log_decay"])
    return (
        -np.exp(w["log_decay"]) + 1j * w["frequency"],
        w["b"][:modes] + 1j * w["b"][modes:],
        w["c"][:, :modes] + 1j * w["c"][:, modes:],
    )


def by_hand(
    w: dict[str, NDArray[np.float64]], x: NDArray[np.float64], h: Complex
) -> tuple[NDArray[np.float64], Complex]:
    """The equations of the docstring, step by step."""
    rate, b, c = system(w)
    a = np.exp(rate * np.exp(w["log_step"]))
    held = ((a - 1) / rate)[:, None] * b
    outputs = []
    for step in x:
        h = a * h + held @ step
        u = 2 * (c @ h).real + w["d"] @ step
        if "w_g" in w:
            g = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
            u = g / (1 + np.exp(-(w["w_g"] @ g + w["b_g"])))
        outputs.append(u)
    return np.stack(outputs), h


@pytest.mark.parametrize("gate", [False, True])
def test_the_layer_is_its_equation(gate: bool) -> None:
    cell, x = shaken(gate), torch.randn(1, 9, 3, dtype=torch.float64)
    start = torch.randn(1, 8, dtype=torch.float64)
    y, state = unroll(cell, x, cell.initial_state(1)._replace(h=start))
    first = start[0, :4].numpy() + 1j * start[0, 4:].numpy()
    want, last = by_hand(numbers(cell), x[0].numpy(), first)
    np.testing.assert_allclose(y[0].detach().numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(
        state.h[0].detach().numpy(), np.concatenate([last.real, last.imag]), rtol=1e-12
    )


@pytest.mark.parametrize("gate", [False, True])
def test_every_gradient_is_the_slope_of_the_equation(gate: bool) -> None:
    cell, x = shaken(gate), torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    weights = dict(cell.named_parameters())
    dy = np.cos(np.arange(30.0)).reshape(6, 5)
    y = unroll(cell, x)[0]
    grads = torch.autograd.grad(y, [x, *weights.values()], torch.from_numpy(dy)[None])
    held = {"x": x.detach()[0].numpy().copy(), **{n: w.copy() for n, w in numbers(cell).items()}}

    def loss() -> float:
        w = {name: value for name, value in held.items() if name != "x"}
        return float((by_hand(w, held["x"], np.zeros(4, complex))[0] * dy).sum())

    for (name, value), grad in zip(held.items(), grads, strict=True):
        flat, found = value.reshape(-1), grad.detach().numpy().reshape(-1)
        for place in range(flat.size):
            before = flat[place]
            flat[place] = before + 1e-6
            above = loss()
            flat[place] = before - 1e-6
            slope = (above - loss()) / 2e-6
            flat[place] = before
            assert abs(slope - found[place]) < 1e-7 * max(1.0, abs(slope)), name


def test_the_native_path_has_the_outputs_and_gradients_of_the_equation() -> None:
    torch.manual_seed(1)
    cell = S5(7, 20, state=19)
    wide = S5(7, 20, state=19).double()
    wide.load_state_dict(cell.state_dict())
    x = torch.randn(3, 40, 7)

    def run(cell: S5, x: torch.Tensor) -> list[torch.Tensor]:
        x = x.clone().requires_grad_()
        y, state = unroll(cell, x)
        loss = y.sin().sum() + state.h.cos().sum()
        return [y, *torch.autograd.grad(loss, [x, *cell.parameters()])]

    for got, want in zip(run(cell, x), run(wide, x.double()), strict=True):
        scale = float(want.detach().abs().max())
        assert float((got - want).detach().abs().max()) <= 2e-5 * max(1.0, scale)


def test_zero_order_hold_is_exact_for_inputs_that_stay() -> None:
    # dh/dt = l h + B x has h(t) = (exp(l t) - 1) / l B x from h = 0.
    cell = shaken()
    rate, b, _ = system(numbers(cell))
    x, steps = np.array([0.3, -0.5, 0.2]), 50
    state = cell.initial_state(1)
    for _ in range(steps):
        _, state = cell.step(torch.from_numpy(x)[None], state)
    time = steps * np.exp(numbers(cell)["log_step"])
    want = (np.exp(rate * time) - 1) / rate * (b @ x)
    got = state.h[0].detach().numpy()
    np.testing.assert_allclose(got[:4] + 1j * got[4:], want, rtol=1e-10)


def test_hippo_starts_at_the_eigenvalues_of_its_matrix() -> None:
    # A of HiPPO-LegS, plus the outer product that makes it normal.
    n = np.arange(16)
    size = np.sqrt(2 * n + 1)
    a = -np.tril(np.outer(size, size), -1) - np.diag(n + 1.0)
    normal = a + np.outer(np.sqrt(n + 0.5), np.sqrt(n + 0.5))
    values = np.linalg.eigvals(normal)
    above = values[values.imag > 0]
    w = numbers(S5(2, 3, state=8))
    np.testing.assert_allclose(-np.exp(w["log_decay"]), above.real, rtol=1e-6)
    np.testing.assert_allclose(np.sort(w["frequency"]), np.sort(above.imag), rtol=1e-5)


def test_the_other_start_is_that_of_s4d_lin() -> None:
    w = numbers(S5(2, 3, state=5, init="linear"))
    np.testing.assert_allclose(w["frequency"], np.pi * np.arange(5), rtol=1e-6)
    np.testing.assert_allclose(-np.exp(w["log_decay"]), -0.5, rtol=1e-6)


def test_a_hippo_system_is_real_in_its_own_basis() -> None:
    # With all eigenvectors at hand, C h of the real system is 2 Re of half of it: the answer to an
    # impulse is that of a real matrix exponential.
    torch.manual_seed(3)
    cell = S5(1, 1, state=6).double()
    torch.nn.init.zeros_(cell.d)
    torch.nn.init.constant_(cell.log_step, np.log(0.05))
    w = numbers(cell)
    rate, b, c = system(w)
    both, into, out = np.r_[rate, rate.conj()], np.r_[b, b.conj()], np.c_[c, c.conj()]
    x = torch.zeros(1, 8, 1, dtype=torch.float64)
    x[0, 0] = 1
    y = unroll(cell, x)[0][0, :, 0].detach().numpy()
    held = ((np.exp(both * 0.05) - 1) / both)[:, None] * into
    want = [out @ (np.exp(both * 0.05 * t)[:, None] * held) for t in range(8)]
    np.testing.assert_allclose(np.array(want).reshape(-1).imag, 0, atol=1e-12)
    np.testing.assert_allclose(y, np.array(want).reshape(-1).real, rtol=1e-6, atol=1e-12)


def test_a_state_never_grows_by_itself() -> None:
    cell = S5(2, 3, state=16)
    with torch.no_grad():
        cell.log_decay.uniform_(-20, 5)
        cell.log_step.uniform_(-20, 5)
    a = cell.system()[0].detach().reshape(2, 16)
    assert float(torch.hypot(*a).max()) <= 1 + 1e-6


def test_other_arguments_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"^S5.init: expected hippo \| linear, got x; "):
        S5(2, 3, init="x")
    with pytest.raises(SpecError, match=r"^S5.gate: expected true or false, got 'no'; "):
        S5(2, 3, gate="no")  # type: ignore[arg-type]
    cell = S5(2, 3, state=4)
    with pytest.raises(ShapeError, match=r"the state of S5: expected \[1, 8\], got \[3, 8\]"):
        cell.step(torch.zeros(1, 2), cell.initial_state(3))
