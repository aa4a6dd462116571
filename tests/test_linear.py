"""The linear recurrence and its laws, against their equations; see also test_conformance."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from segue import ops
from segue.cells import RGLRU, LinearCell, LinearState, MinGRU, MinLSTM
from segue.errors import ShapeError, SpecError
from segue.layers import unroll
from segue.ops.linear import _Scan
from segue.ragged import Ragged

LENGTHS = [3, 0, 7, 1, 0, 12]
H = 35


def given(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Ragged]:
    """a, b, the first h, and sequences."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        return values.to(dtype).requires_grad_()

    n, lengths = sum(LENGTHS), torch.tensor(LENGTHS)
    return draw(n, H), draw(n, H), draw(len(LENGTHS), H), Ragged(torch.zeros(n, 1), lengths)


def by_hand(a: Tensor, b: Tensor, h: Tensor, lengths: list[int], reverse: bool = False) -> Tensor:
    """The recurrence, step by step, one sequence after another; y and then the last h."""
    last, start = [], 0
    rows = [h[0]] * sum(lengths)
    for sequence, length in enumerate(lengths):
        state = h[sequence]
        for t in range(start, start + length)[:: -1 if reverse else 1]:
            state = a[t] * state + b[t]
            rows[t] = state
        last.append(state)
        start += length
    return torch.cat([torch.stack(rows), torch.stack(last)])


def gradients(y: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, torch.cos(torch.arange(y.numel())).reshape(y.shape))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_native_scan_and_its_gradients_are_those_of_the_recurrence(reverse: bool) -> None:
    a, b, h, x = given()
    y = torch.cat(_Scan.apply(a, b, h, x.lengths, reverse))  # type: ignore[no-untyped-call]
    want = by_hand(a, b, h, LENGTHS, reverse)
    torch.testing.assert_close(y, want)
    for got, expected in zip(gradients(y, (a, b, h)), gradients(want, (a, b, h)), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_way_back_can_be_differentiated(reverse: bool) -> None:
    a, b, h, x = given()

    def second(y: Tensor) -> tuple[Tensor, ...]:
        inputs = (a, b, h)
        first = torch.autograd.grad(y, inputs, torch.ones_like(y), create_graph=True)
        loss = sum((d * d).sum() for d in first)
        return torch.autograd.grad(loss, inputs)

    y = torch.cat(_Scan.apply(a, b, h, x.lengths, reverse))  # type: ignore[no-untyped-call]
    want = by_hand(a, b, h, LENGTHS, reverse)
    for got, expected in zip(second(y), second(want), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_the_definition_is_the_recurrence() -> None:
    a, b, h, x = given(torch.float64)
    y = torch.cat(ops.scan_linear(a, b, x, h))
    torch.testing.assert_close(y, by_hand(a, b, h, LENGTHS))
    inputs = (a, b, h)

    def run(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        return torch.cat(ops.scan_linear(a, b, x, h))

    assert torch.autograd.gradcheck(run, inputs)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as on a device that is not the CPU: by doublings."""
    # segue.ops.linear, as an attribute, is the function of that name.
    monkeypatch.setattr(sys.modules[_Scan.__module__], "_is_elsewhere", lambda a: True)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_doublings_are_the_recurrence(dtype: torch.dtype, reverse: bool) -> None:
    lengths = [3, 0, 1, 6]
    a, b, h = (torch.randn(rows, 2, dtype=dtype, requires_grad=True) for rows in (10, 10, 4))
    inputs = (a, b, h)

    def run(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        numbers = torch.tensor(lengths)
        return torch.cat(_Scan.apply(a, b, h, numbers, reverse))  # type: ignore[no-untyped-call]

    torch.testing.assert_close(run(*inputs), by_hand(a, b, h, lengths, reverse))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.usefixtures("elsewhere")
def test_in_doublings_what_is_not_a_number_stays_in_its_sequence() -> None:
    x = Ragged(torch.zeros(9, 2), torch.tensor([4, 5]))
    a, b, h = torch.full((9, 2), 0.5), torch.ones(9, 2), torch.zeros(2, 2)
    b[2, 0] = torch.nan
    y, last = ops.scan_linear(a, b, x, h)
    assert y.isnan().nonzero().tolist() == [[2, 0], [3, 0]]
    assert last.isnan().nonzero().tolist() == [[0, 0]]


def test_the_bits_depend_neither_on_threads_nor_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.rand(1200, 257, generator=generator) for _ in range(2))
    h, lengths = torch.rand(3, 257, generator=generator), torch.tensor([500, 0, 700])
    x, before = Ragged(a, lengths), torch.get_num_threads()
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(torch.cat(ops.scan_linear(a, b, x, h)))
    torch.set_num_threads(before)
    alone = ops.scan_linear(a[500:], b[500:], Ragged(a[500:], lengths[2:]), h[2:])[0]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert torch.equal(alone, runs[0][500:1200])


def min_gru(cell: LinearCell, x: Tensor, h: Tensor) -> Tensor:
    w_z, w_n = cell.w_xh.chunk(2)
    b_z, b_n = cell.b_h.chunk(2)
    z = torch.sigmoid(w_z @ x + b_z)
    return (1 - z) * h + z * (w_n @ x + b_n)


def min_lstm(cell: LinearCell, x: Tensor, h: Tensor) -> Tensor:
    gates = [w @ x + b for w, b in zip(cell.w_xh.chunk(3), cell.b_h.chunk(3), strict=True)]
    i, f, g = torch.sigmoid(gates[0]), torch.sigmoid(gates[1]), gates[2]
    return (f * h + i * g) / (f + i)


def rg_lru(cell: LinearCell, x: Tensor, h: Tensor) -> Tensor:
    assert isinstance(cell, RGLRU)
    v = cell.w_xh @ x + cell.b_h
    w_r, w_i = (torch.block_diag(*w.chunk(cell.blocks)) for w in cell.w_g.chunk(2))
    b_r, b_i = cell.b_g.chunk(2)
    r, i = torch.sigmoid(w_r @ v + b_r), torch.sigmoid(w_i @ v + b_i)
    a = torch.exp(-8 * torch.log1p(torch.exp(cell.decay)) * r)
    return a * h + torch.sqrt(1 - a * a) * i * v


Law = Callable[[int, int], LinearCell]
Equation = Callable[[LinearCell, Tensor, Tensor], Tensor]


def with_biases(cell: LinearCell) -> LinearCell:
    torch.manual_seed(2)
    for name, parameter in cell.named_parameters():
        if name.startswith("b_"):
            torch.nn.init.uniform_(parameter, -1, 1)
    return cell


@pytest.mark.parametrize(
    ("law", "equation"),
    [
        (MinGRU, min_gru),
        (MinLSTM, min_lstm),
        (RGLRU, rg_lru),
        (partial(RGLRU, blocks=3), rg_lru),
        (partial(RGLRU, blocks=6), rg_lru),
    ],
)
def test_a_law_is_its_equation(law: Law, equation: Equation) -> None:
    cell = with_biases(law(3, 6)).double()
    x = torch.randn(1, 9, 3, dtype=torch.float64)
    h, want = torch.zeros(6, dtype=torch.float64), []
    for t in range(9):
        h = equation(cell, x[0, t], h)
        want.append(h)
    y, state = unroll(cell, x)
    torch.testing.assert_close(y[0], torch.stack(want))
    torch.testing.assert_close(state.h[0], h)


LAWS = pytest.mark.parametrize("law", [MinGRU, MinLSTM, RGLRU, partial(RGLRU, blocks=5)])


def some(law: Law) -> tuple[LinearCell, Ragged, Tensor]:
    """A cell with biases, sequences, and a first state."""
    cell = with_biases(law(6, H))
    x = Ragged(torch.randn(sum(LENGTHS), 6), torch.tensor(LENGTHS))
    return cell, x, torch.randn(len(LENGTHS), H)


def derivatives(
    cell: LinearCell, x: Ragged, h: Tensor, second: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y and the last state, and the gradients of a loss of both; or those of a loss of these."""
    inputs = [x.values.clone().requires_grad_(), h.clone().requires_grad_(), *cell.parameters()]
    y, state = cell.scan(x.with_values(inputs[0]), LinearState(inputs[1]))
    loss = y.sin().sum() + state.h.cos().sum()
    first = torch.autograd.grad(loss, inputs, create_graph=second)
    if second:
        first = torch.autograd.grad(sum(d.square().sum() for d in first), inputs)
    return torch.cat([y, state.h]), first


@LAWS
@pytest.mark.parametrize("second", [False, True])
def test_the_native_law_has_the_derivatives_of_the_equation(law: Law, second: bool) -> None:
    cell, x, h = some(law)
    got, grads = derivatives(cell, x, h, second)
    want, slopes = derivatives(cell.double(), x.to(torch.float64), h.double(), second)
    assert got.dtype == torch.float32
    for a, b in zip((got, *grads), (want, *slopes), strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        assert float((a - b).detach().abs().max()) <= (2e-4 if second else 2e-5) * scale


@LAWS
def test_a_graph_kept_gives_the_same_gradients_again(law: Law) -> None:
    cell, x, h = some(law)
    y, _ = cell.scan(x, LinearState(h))
    first = torch.autograd.grad(y.sum(), list(cell.parameters()), retain_graph=True)
    again = torch.autograd.grad(y.sum(), list(cell.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@LAWS
def test_the_gradients_depend_neither_on_threads_nor_on_the_batch(law: Law) -> None:
    torch.manual_seed(4)
    cell, before = law(40, 130), torch.get_num_threads()
    x, lengths = torch.randn(900, 40), torch.tensor([500, 0, 400])

    def gradient(x: Tensor, lengths: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        y, _ = unroll(cell, Ragged(x, lengths))
        return torch.autograd.grad(y.values.sin().sum(), x)[0]

    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(gradient(x, lengths))
    torch.set_num_threads(before)
    for other in (
        *runs[1:],
        torch.cat([gradient(x[:500], lengths[:1]), gradient(x[500:], lengths[2:])]),
    ):
        torch.testing.assert_close(other, runs[0], rtol=1e-5, atol=1e-6)


def test_the_blocks_of_an_rg_lru() -> None:
    assert [RGLRU(2, hidden).blocks for hidden in (5, 16, 32, 48, 64, 128, 256, 272, 4096)] == [
        *(1, 1, 2, 2, 4, 8, 16, 16, 16)
    ]
    assert RGLRU(2, 12, blocks=3).w_g.shape == (24, 4)
    with pytest.raises(SpecError, match=r"RGLRU.blocks: expected a divisor of the 12 hidden units"):
        RGLRU(2, 12, blocks=5)


def test_an_rg_lru_starts_with_long_memories() -> None:
    torch.manual_seed(0)
    kept = torch.exp(-8 * torch.nn.functional.softplus(RGLRU(2, 1000).decay.detach()))
    assert 0.89 < float(kept.min()) < 0.92 and 0.99 < float(kept.max()) < 1.0


def test_gates_far_from_0_give_no_nan() -> None:
    for law in (MinGRU, MinLSTM, RGLRU):
        cell = law(1, 4)
        with torch.no_grad():
            cell.w_xh.fill_(1000.0)
        for size in (1.0, -1.0):
            x = torch.full((1, 3, 1), size, requires_grad=True)
            y, _ = unroll(cell, x)
            (dx,) = torch.autograd.grad(y.sum(), x)
            assert y.isfinite().all() and dx.isfinite().all()


def test_a_state_of_others_is_refused_in_one_line() -> None:
    cell = MinGRU(2, 4)
    with pytest.raises(ShapeError, match=r"the state of MinGRU: expected \[1, 4\], got \[3, 4\]"):
        cell.step(torch.zeros(1, 2), cell.initial_state(3))
