"""segue.nn against torch.nn: same weights, same inputs; outputs, final states and all gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

import segue.nn
from segue.errors import ShapeError
from segue.layers import unroll
from segue.ragged import Ragged

I, H, P, T = 3, 4, 2, 5  # noqa: E741
UNSORTED = [3, 5, 1, 4]
SORTED = [5, 4, 3, 1]

# torch says once that oneDNN has no projections.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.usefixtures("one_thread"),
]


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn-tanh": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm-projected": ("LSTM", {"proj_size": P}),
    "gru": ("GRU", {}),
}


def pair(kind: str, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    """Ours and torch's, with the same weights; loading is strict, so the names agree."""
    torch.manual_seed(3)
    name, more = KINDS[kind]
    theirs = getattr(torch.nn, name)(I, H, dtype=dtype, **more, **options)
    ours = getattr(segue.nn, name)(I, H, dtype=dtype, **more, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def first_state(module: Any, *, is_given: bool, batch: int | None) -> Any:
    """hx in torch's layout, or None."""
    if not is_given:
        return None
    depth = module.num_layers * (2 if module.bidirectional else 1)
    rows = [depth] if batch is None else [depth, batch]
    dtype = module.weight_ih_l0.dtype
    h = torch.randn(*rows, module.proj_size or H, dtype=dtype, requires_grad=True)
    if module.mode != "LSTM":
        return h
    return h, torch.randn(*rows, H, dtype=dtype, requires_grad=True)


def parts(value: Any) -> list[Tensor]:
    """All tensors of an output or a state."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Ragged):
        return [value.values]
    return [] if value is None else [part for one in value for part in parts(one)]


def gradients(module: Any, x: Tensor, hx: Any, result: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    weighed = [
        (part * torch.randn(part.shape, generator=generator).to(part.dtype)).sum()
        for part in parts(result)
    ]
    wanted = [x, *parts(hx), *module.parameters()]
    return list(torch.autograd.grad(sum(weighed[1:], weighed[0]), wanted, allow_unused=True))


def hold_same(ours: Any, theirs: Any, tolerance: float) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is None:
            continue
        assert a.shape == b.shape
        scale = max(1.0, float(b.detach().abs().max()))
        assert float((a - b).detach().abs().max()) <= tolerance * scale


Run = Callable[[Any, Tensor, Any], Any]


def compare(ours: Any, theirs: Any, x: Tensor, hx: Any, ours_run: Run, theirs_run: Run) -> None:
    """Ours against torch's in float64, so that float32 is measured by its own errors alone."""
    tolerance = 1e-6 if x.dtype == torch.float32 else 1e-12
    exact, wide = copy.deepcopy(theirs).double(), [in_double(part) for part in (x, hx)]
    actual, expected = ours_run(ours, x, hx), theirs_run(exact, *wide)
    hold_same(parts(actual), parts(expected), tolerance)
    hold_same(gradients(ours, x, hx, actual), gradients(exact, *wide, expected), tolerance)
    with torch.no_grad():
        hold_same(parts(ours_run(ours, x, hx)), parts(expected), tolerance)


def in_double(value: Any) -> Any:
    """A leaf tensor, or a tuple of them, as leaves in float64."""
    if isinstance(value, tuple):
        return tuple(map(in_double, value))
    return None if value is None else value.detach().double().requires_grad_()


def draw(*sizes: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(*sizes, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


GRID = pytest.mark.parametrize(
    ("kind", "layers", "bidirectional", "bias", "dtype"),
    list(product(KINDS, [1, 2], [False, True], [False, True], [torch.float32, torch.float64])),
)
GIVEN = pytest.mark.parametrize("is_given", [False, True], ids=["zeros", "hx"])
FIRST = pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])


@GRID
@GIVEN
@FIRST
def test_padded(
    kind: str,
    layers: int,
    bidirectional: bool,
    bias: bool,
    dtype: torch.dtype,
    is_given: bool,
    batch_first: bool,
) -> None:
    ours, theirs = pair(
        kind,
        dtype,
        num_layers=layers,
        bidirectional=bidirectional,
        bias=bias,
        batch_first=batch_first,
    )
    x = draw(*((4, T) if batch_first else (T, 4)), I, dtype=dtype)
    hx = first_state(ours, is_given=is_given, batch=4)

    def run(module: Any, x: Tensor, hx: Any) -> Any:
        return module(x, hx)

    def run_full(module: Any, x: Tensor, hx: Any) -> Any:
        return module(x, hx, lengths=[T] * 4)

    compare(ours, theirs, x, hx, run, run)
    compare(ours, theirs, x, hx, run_full, run)


@GRID
@GIVEN
@FIRST
def test_lengths(
    kind: str,
    layers: int,
    bidirectional: bool,
    bias: bool,
    dtype: torch.dtype,
    is_given: bool,
    batch_first: bool,
) -> None:
    ours, theirs = pair(
        kind,
        dtype,
        num_layers=layers,
        bidirectional=bidirectional,
        bias=bias,
        batch_first=batch_first,
    )
    steps = T + 2
    x = draw(*((4, steps) if batch_first else (steps, 4)), I, dtype=dtype)
    hx = first_state(ours, is_given=is_given, batch=4)

    def run(module: Any, x: Tensor, hx: Any) -> Any:
        return module(x, hx, lengths=torch.tensor(UNSORTED))

    def run_packed(module: Any, x: Tensor, hx: Any) -> Any:
        packed = pack_padded_sequence(x, UNSORTED, batch_first, enforce_sorted=False)
        y, final = module(packed, hx)
        return pad_packed_sequence(y, batch_first, total_length=steps)[0], final

    compare(ours, theirs, x, hx, run, run_packed)


@GRID
@GIVEN
@pytest.mark.parametrize("lengths", [SORTED, UNSORTED], ids=["sorted", "unsorted"])
def test_packed(
    kind: str,
    layers: int,
    bidirectional: bool,
    bias: bool,
    dtype: torch.dtype,
    is_given: bool,
    lengths: list[int],
) -> None:
    ours, theirs = pair(
        kind, dtype, num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=True
    )
    x = draw(sum(lengths), I, dtype=dtype)
    hx = first_state(ours, is_given=is_given, batch=4)

    def run(module: Any, x: Tensor, hx: Any) -> Any:
        packed = pack_sequence(list(x.split(lengths)), enforce_sorted=lengths == SORTED)
        y, final = module(packed, hx)
        assert torch.equal(y.batch_sizes, packed.batch_sizes)
        return y, final

    compare(ours, theirs, x, hx, run, run)


@GRID
@GIVEN
def test_one_sequence_without_a_batch(
    kind: str, layers: int, bidirectional: bool, bias: bool, dtype: torch.dtype, is_given: bool
) -> None:
    ours, theirs = pair(
        kind, dtype, num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=True
    )
    x = draw(T, I, dtype=dtype)
    hx = first_state(ours, is_given=is_given, batch=None)

    def run(module: Any, x: Tensor, hx: Any) -> Any:
        return module(x, hx)

    def run_full(module: Any, x: Tensor, hx: Any) -> Any:
        return module(x, hx, lengths=[T])

    compare(ours, theirs, x, hx, run, run)
    compare(ours, theirs, x, hx, run_full, run)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_ragged_in_and_out(kind: str, bidirectional: bool) -> None:
    ours, _ = pair(kind, torch.float64, num_layers=2, bidirectional=bidirectional, batch_first=True)
    x = draw(4, T, I, dtype=torch.float64)
    padded, final = ours(x, lengths=UNSORTED)
    ragged, last = ours(Ragged.from_padded(x, UNSORTED))
    hold_same(parts((ragged.to_padded(), last)), parts((padded, final)), 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_without_steps_keep_their_state(kind: str) -> None:
    ours, _ = pair(kind, torch.float64, num_layers=2, bidirectional=True, batch_first=True)
    hx = first_state(ours, is_given=True, batch=3)
    y, final = ours(draw(3, T, I, dtype=torch.float64), hx, lengths=[0, T, 0])
    assert not y[[0, 2]].any()
    for a, b in zip(parts(final), parts(hx), strict=True):
        assert torch.equal(a[:, [0, 2]], b[:, [0, 2]])


# Reset


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["ahead", "both"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_a_reset_sequence_equals_two_sequences(
    kind: str, bidirectional: bool, batch_first: bool
) -> None:
    ours, theirs = pair(
        kind, torch.float64, num_layers=2, bidirectional=bidirectional, batch_first=batch_first
    )
    time = 1 if batch_first else 0
    x = draw(*((4, 8) if batch_first else (8, 4)), I, dtype=torch.float64)
    reset = torch.zeros(x.shape[:2], dtype=torch.bool)
    reset.select(time, 3).fill_(True)
    y, _ = ours(x, reset=reset)
    first, second = x.split([3, 5], dim=time)
    expected = torch.cat([theirs(first)[0], theirs(second)[0]], dim=time)
    hold_same([y], [expected], 1e-12)


@pytest.mark.parametrize("kind", ["rnn-tanh", "lstm", "gru"])
def test_the_final_state_after_a_reset_is_that_of_the_last_piece(kind: str) -> None:
    ours, theirs = pair(kind, torch.float64, batch_first=True)
    x = draw(2, 8, I, dtype=torch.float64)
    reset = torch.zeros(2, 8, dtype=torch.bool)
    reset[0, 3] = True
    reset[1, [0, 6]] = True
    hx = first_state(ours, is_given=True, batch=2)
    _, final = ours(x, hx, reset=reset)
    for b, start in ((0, 3), (1, 6)):
        _, expected = theirs(x[b : b + 1, start:])
        hold_same([part[:, b : b + 1] for part in parts(final)], parts(expected), 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_in_any_container(kind: str) -> None:
    ours, _ = pair(kind, torch.float64, num_layers=2, bidirectional=True, batch_first=True)
    x = draw(4, T, I, dtype=torch.float64).detach()
    reset = torch.rand(4, T, generator=torch.Generator().manual_seed(1)) < 0.4
    expected, final = ours(x, reset=reset, lengths=UNSORTED)
    ragged, flags = Ragged.from_padded(x, UNSORTED), Ragged.from_padded(reset, UNSORTED)
    from_ragged, last = ours(ragged, reset=flags)
    from_packed, end = ours(ragged.to_packed(), reset=flags.to_packed())
    hold_same(parts((from_ragged.to_padded(), last)), parts((expected, final)), 0.0)
    unpacked = pad_packed_sequence(from_packed, batch_first=True)[0]
    hold_same(parts((unpacked, end)), parts((expected, final)), 0.0)
    alone, _ = ours(x[1], reset=reset[1])
    hold_same([alone], [expected[1]], 1e-12)


# Dropout, bits, weights


def test_dropout_between_layers_draws_anew_at_every_step_and_only_there() -> None:
    torch.manual_seed(0)
    ours = segue.nn.RNN(I, 200, num_layers=2, dropout=0.25, batch_first=True)
    torch.nn.init.zeros_(ours.weight_ih_l0)
    torch.nn.init.zeros_(ours.weight_hh_l0)
    torch.nn.init.ones_(ours.bias_ih_l0)
    torch.nn.init.zeros_(ours.bias_hh_l0)
    torch.nn.init.eye_(ours.weight_ih_l1)
    torch.nn.init.zeros_(ours.weight_hh_l1)
    torch.nn.init.zeros_(ours.bias_ih_l1)
    torch.nn.init.zeros_(ours.bias_hh_l1)
    x = torch.randn(4, 50, I)
    y, _ = ours(x, lengths=[50] * 4)
    dropped = y == 0
    assert 0.24 <= float(dropped.float().mean()) <= 0.26
    assert (y[~dropped] - torch.tanh(torch.tanh(torch.tensor(1.0)) / 0.75)).abs().max() <= 1e-6
    assert not torch.equal(dropped[:, 0], dropped[:, 1])
    ours.eval()
    assert not (ours(x, lengths=[50] * 4)[0] == 0).any()


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_weights_that_changed_are_seen(name: str) -> None:
    ours = getattr(segue.nn, name)(I, H, batch_first=True)
    x = torch.randn(2, T, I)
    with torch.no_grad():
        before, _ = ours(x, lengths=[T, 2])
        ours.weight_hh_l0.data.mul_(2)
        after, _ = ours(x, lengths=[T, 2])
        expected, _ = getattr(torch.nn, name).forward(ours, x)
    assert not torch.equal(before, after)
    hold_same([after[0]], [expected[0]], 1e-6)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_weights_load_both_ways(name: str) -> None:
    theirs = getattr(torch.nn, name)(I, H, num_layers=2, bidirectional=True)
    ours = getattr(segue.nn, name)(I, H, num_layers=2, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(T, 2, I)
    hold_same(parts(ours(x)), parts(theirs(x)), 1e-6)


def test_one_bias_per_gate_is_the_sum_of_the_two_of_torch() -> None:
    theirs = torch.nn.LSTM(I, H, batch_first=True)
    cell = segue.cells.LSTM(I, H)
    with torch.no_grad():
        cell.w_xh.copy_(theirs.weight_ih_l0)
        cell.w_hh.copy_(theirs.weight_hh_l0)
        cell.b_h.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
        x = torch.randn(2, T, I)
        hold_same([unroll(cell, x)[0]], [theirs(x)[0]], 1e-6)


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x: m(x[:, :, :2], lengths=[1, 1]),
            "input: expected [B, T, I=3], got [2, 5, 2]; change the number of inputs",
        ),
        (
            lambda m, x: m(x, lengths=[1, 2, 3]),
            "lengths: expected [B=2], got [3]; change the number of sequences",
        ),
        (
            lambda m, x: m(pack_sequence(list(x)), lengths=[5, 5]),
            "lengths: expected a padded input, got PackedSequence; "
            "leave lengths out: the input has its own",
        ),
        (
            lambda m, x: m(x, torch.zeros(1, 3, H), lengths=[5, 5]),
            "hx: expected [D L=1, B=2, 4], got [1, 3, 4]; "
            "give one row per layer, direction and sequence",
        ),
        (
            lambda m, x: m(pack_sequence(list(x)), reset=torch.zeros(2, 5, dtype=torch.bool)),
            "reset: expected PackedSequence, got Tensor; give both in one container",
        ),
        (
            lambda m, x: m(x, reset=torch.zeros(2, 5)),
            "reset: expected bool, got float32; convert it with .to(torch.bool)",
        ),
        (
            lambda m, x: m(x, reset=torch.zeros(2, 4, dtype=torch.bool)),
            "reset: expected [B=2, T=5], got [2, 4]; change the number of steps",
        ),
    ],
)
def test_refusals(call: Callable[[Any, Tensor], object], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        call(segue.nn.GRU(I, H, batch_first=True), torch.zeros(2, T, I))
    assert str(caught.value) == message
