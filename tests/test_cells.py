"""The equations once more in NumPy, the first weights, and the refusals of the cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import LAW, Row, cells
from numpy.typing import NDArray

from segue.cells import (
    GRU,
    GRUD,
    INITS,
    LSTM,
    RGLRU,
    S5,
    CausalAttention,
    CausalConv,
    CfC,
    ConvGRU,
    ConvLSTM,
    ConvRNN,
    Elman,
    ElmanState,
    GRUState,
    Init,
    Law,
    LSTMState,
    MinGRU,
    MinLSTM,
    Noise,
    chrono,
    identity,
    orthogonal,
    uniform,
)
from segue.errors import InputError, ShapeError, SpecError
from segue.ragged import Ragged

Array = NDArray[np.float64]
I, H, P = 3, 4, 2  # noqa: E741
CELLS = {"elman": Elman, "lstm": LSTM, "gru": GRU}


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


def normed(u: Array) -> Array:
    """n(u) of one row."""
    return (u - u.mean()) / np.sqrt(((u - u.mean()) ** 2).mean() + 1e-5)


def gates_as_read(w: dict[str, Array], x: Array, seen: Array, groups: list[slice]) -> Array:
    """W_xh x + W_hh h' + b_h of one row, with the norms of the groups where there are gains."""
    xs, hs = w["w_xh"] @ x, w["w_hh"] @ seen
    if "gain_x" in w:
        xs = np.concatenate([normed(xs[group]) for group in groups]) * w["gain_x"]
        hs = np.concatenate([normed(hs[group]) for group in groups]) * w["gain_h"]
    return xs + hs + w["b_h"]


@pytest.fixture(params=[None, 0.5], ids=["whole", "dropped"])
def masked(request: pytest.FixtureRequest) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mask of recurrent dropout for an h; ones without."""

    def mask(h: torch.Tensor) -> torch.Tensor:
        if request.param is None:
            return torch.ones_like(h)
        generator = torch.Generator().manual_seed(6)
        return (torch.rand(h.shape, generator=generator) < request.param).to(h) / request.param

    return mask


Masked = Callable[[torch.Tensor], torch.Tensor]
switch = partial(pytest.mark.parametrize, argvalues=[False, True])


@switch("layer_norm")
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
def test_elman_is_its_equation(
    activation: Any, function: Callable[[Array], Array], layer_norm: bool, masked: Masked
) -> None:
    cell = Elman(I, H, activation=activation, layer_norm=layer_norm).double()
    w = weights_of(cell)
    x, h = draw(2, I), draw(2, H).mul(0.3)
    y, state = cell.step(x, ElmanState(h), Noise(masked(h)))
    for b in (0, 1):
        seen = (masked(h) * h)[b].numpy()
        expected = function(gates_as_read(w, x[b].numpy(), seen, [slice(None)]))
        hold_close(y[b], expected)
        hold_close(state.h[b], expected)


@switch("layer_norm")
@switch("peepholes")
@pytest.mark.parametrize("projection", [None, P])
def test_lstm_is_its_equation(
    projection: int | None, peepholes: bool, layer_norm: bool, masked: Masked
) -> None:
    options = {"projection": projection, "peepholes": peepholes, "layer_norm": layer_norm}
    cell = LSTM(I, H, **options).double()
    w = weights_of(cell)
    x, h, c = draw(2, I), draw(2, cell.outputs).mul(0.3), draw(2, H)
    y, state = cell.step(x, LSTMState(h, c), Noise(masked(h)))
    p_i, p_f, p_o = w["w_c"] if peepholes else np.zeros((3, H))
    for b in (0, 1):
        old, seen = c[b].numpy(), (masked(h) * h)[b].numpy()
        gates = gates_as_read(w, x[b].numpy(), seen, [slice(None)])
        i, f = sigmoid(gates[:H] + p_i * old), sigmoid(gates[H : 2 * H] + p_f * old)
        g = np.tanh(gates[2 * H : 3 * H])
        memory = f * old + i * g
        o = sigmoid(gates[3 * H :] + p_o * memory)
        shown = normed(memory) * w["gain_c"] + w["b_c"] if layer_norm else memory
        hidden = o * np.tanh(shown)
        if projection is not None:
            hidden = w["w_hr"] @ hidden
        hold_close(state.c[b], memory)
        hold_close(state.h[b], hidden)
        hold_close(y[b], hidden)


@switch("layer_norm")
@switch("reset_after")
def test_gru_is_its_equation(reset_after: bool, layer_norm: bool, masked: Masked) -> None:
    cell = GRU(I, H, reset_after=reset_after, layer_norm=layer_norm).double()
    w = weights_of(cell)
    x, h = draw(2, I), draw(2, H).mul(0.3)
    y, state = cell.step(x, GRUState(h), Noise(masked(h)))
    w_hn, of_n = w["w_hh"][2 * H :], slice(2 * H, None)
    groups = [slice(2 * H), of_n]
    gain_x, gain_h = (w[name][of_n] if layer_norm else np.ones(H) for name in ("gain_x", "gain_h"))
    n_of = normed if layer_norm else np.asarray
    for b in (0, 1):
        old, seen, row = h[b].numpy(), (masked(h) * h)[b].numpy(), x[b].numpy()
        r, z, _ = np.split(sigmoid(gates_as_read(w, row, seen, groups)), 3)
        xn = n_of(w["w_xh"][of_n] @ row) * gain_x + w["b_h"][of_n]
        if reset_after:
            n = np.tanh(xn + r * (n_of(w_hn @ seen) * gain_h + w["b_hn"]))
        else:
            n = np.tanh(xn + n_of(w_hn @ (r * seen)) * gain_h)
        expected = (1 - z) * n + z * old
        hold_close(y[b], expected)
        hold_close(state.h[b], expected)


# Noise


LENGTHS = [3, 0, 5, 1]
RATES = (0.3, 0.6)


def noise_for(state: Any, dropout: bool, zoneout: str) -> Noise:
    """Draws for the steps of sequences of LENGTHS."""
    generator = torch.Generator().manual_seed(2)
    mask = (torch.rand(state[0].shape, generator=generator) < 0.5).to(state[0]) * 2
    draws = [
        torch.rand(sum(LENGTHS), part.shape[1], generator=generator) < rate
        for part, rate in zip(state, RATES, strict=False)
    ]
    keep = tuple(draws) if zoneout == "drawn" else (None,) * len(draws)
    if zoneout == "of c alone" and len(draws) > 1:
        return Noise(mask if dropout else None, (0.0, RATES[1]), (None, draws[1]))
    rates = () if zoneout == "none" else RATES[: len(draws)]
    return Noise(mask if dropout else None, rates, keep if rates else ())


def step_by_step(law: Law, x: Ragged, state: Any, noise: Noise) -> tuple[torch.Tensor, Any]:
    """The definition: each sequence alone, each step by the equation, then mixed."""
    outputs, finals, row = [], [], 0
    for b, steps in enumerate(x.to_list()):
        now = type(state)(*(part[b : b + 1] for part in state))
        mask = None if noise.mask is None else noise.mask[b : b + 1]
        for step in steps:
            _, new = law.advance(law.project(step[None]), now, mask)
            kept = [rate if k is None else k[row].to(step) for rate, k in zip_noise(noise, new)]
            mixed = (d * a + (1 - d) * b for d, a, b in zip(kept, now, new, strict=True))
            now = type(state)(*mixed)
            outputs.append(now.h)
            row += 1
        finals.append(now)
    return torch.cat(outputs), type(state)(*map(torch.cat, zip(*finals, strict=True)))


def zip_noise(noise: Noise, state: Any) -> list[tuple[float, torch.Tensor | None]]:
    nothing = [(0.0, None)] * len(state)
    return list(zip(noise.rates, noise.keep, strict=True)) if noise.rates else nothing


def state_of(cell: Any, dtype: torch.dtype) -> Any:
    first = cell.initial_state(len(LENGTHS))
    return type(first)(*(draw(*part.shape).mul(0.4).to(dtype) for part in first))


laws = pytest.mark.parametrize("row", cells(LAW), ids=[row.name for row in cells(LAW)])


@laws
@pytest.mark.parametrize("zoneout", ["none", "expected", "drawn", "of c alone"])
@switch("dropout")
def test_noise_enters_every_path_as_it_is_defined(row: Row, zoneout: str, dropout: bool) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        cell = row.build(I, H, dtype)
        x = Ragged(draw(sum(LENGTHS), I).to(dtype), torch.tensor(LENGTHS))
        state = state_of(cell, dtype)
        noise = noise_for(state, dropout, zoneout)
        expected, last = step_by_step(cell.law(), x, state, noise)
        with torch.no_grad():
            inference = cell.scan(x, state, noise)
        for y, final in (inference, cell.scan(x, state, noise)):
            assert y.dtype == dtype
            assert (y - expected).abs().max() <= tolerance
            for part, wanted in zip(final, last, strict=True):
                assert (part - wanted).abs().max() <= tolerance


@laws
def test_a_step_with_noise_is_a_scan_of_one_step(row: Row) -> None:
    cell = row.build(I, H, torch.float64)
    state = state_of(cell, torch.float64)
    x, ones = draw(len(LENGTHS), I), torch.ones(len(LENGTHS), dtype=torch.int64)
    noise = noise_for(state, True, "drawn")
    noise = replace(noise, keep=tuple(k[: len(LENGTHS)] for k in noise.keep if k is not None))
    y, after = cell.step(x, state, noise)
    whole, final = cell.scan(Ragged(x, ones), state, noise)
    for part, wanted in zip((y, *after), (whole, *final), strict=True):
        assert (part - wanted).abs().max() <= 1e-14


@laws
def test_gradients_with_noise_are_those_of_the_function(row: Row) -> None:
    cell = row.build(I, H, torch.float64)
    law, first = cell.law(), state_of(cell, torch.float64)
    noise = noise_for(first, True, "drawn")
    lengths = torch.tensor(LENGTHS)

    def run(values: torch.Tensor, mask: torch.Tensor, *rest: torch.Tensor) -> tuple[Any, ...]:
        state = type(first)(*rest[: len(first)])
        y, final = law.scan(Ragged(values, lengths), state, replace(noise, mask=mask))
        return y, *final

    inputs = draw(sum(LENGTHS), I), noise.mask, *first
    free = [tensor.clone().requires_grad_() for tensor in inputs if tensor is not None]
    assert torch.autograd.gradcheck(run, (*free, *law.weights()))


@pytest.mark.parametrize("name", CELLS)
@switch("layer_norm")
def test_options_at_their_first_weights(name: str, layer_norm: bool) -> None:
    cell = CELLS[name](I, H, layer_norm=layer_norm)
    held = dict(cell.named_parameters())
    gains = [weight for key, weight in held.items() if key.startswith("gain")]
    assert len(gains) == (0 if not layer_norm else 3 if name == "lstm" else 2)
    assert all((gain == 1).all() for gain in gains)
    assert ("b_c" in held) == (layer_norm and name == "lstm")
    assert not any(held[key].any() for key in held.keys() & {"b_c"})


def test_peepholes_start_without_effect() -> None:
    plain, seeing = LSTM(I, H), LSTM(I, H, peepholes=True)
    assert seeing.w_c is not None and seeing.w_c.shape == (3, H)
    seeing.load_state_dict({**plain.state_dict(), "w_c": seeing.w_c.detach()})
    x, state = torch.randn(2, I), LSTMState(torch.randn(2, H), torch.randn(2, H))
    assert (seeing.step(x, state)[0] - plain.step(x, state)[0]).abs().max() <= 1e-6


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
@switch("layer_norm")
def test_the_state_of_half_precision_weights_is_float32(
    name: str, dtype: torch.dtype, layer_norm: bool
) -> None:
    cell = CELLS[name](I, H, layer_norm=layer_norm).to(dtype)
    exact = CELLS[name](I, H, layer_norm=layer_norm)
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


@switch("option")
def test_autocast_keeps_the_state_in_float32(option: bool) -> None:
    cell = LSTM(I, H, layer_norm=option, peepholes=option)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = cell.scan(Ragged(torch.randn(5, I), torch.tensor([2, 3])), cell.initial_state(2))
    assert y.dtype == torch.bfloat16
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
            "init: expected orthogonal | xavier | uniform | identity | chrono(max_steps), "
            "got zeros; give one of these names, or an Init such as chrono(max_steps)",
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
        (
            lambda: GRU(I, H).step(
                torch.zeros(2, I), GRU(I, H).initial_state(2), Noise(torch.ones(2, H + 1))
            ),
            ShapeError,
            "the mask of GRU: expected [B=2, 4], got [2, 5]; "
            "take it from initial_state(B) or from an earlier step",
        ),
        (
            lambda: GRU(I, H).step(
                torch.zeros(2, I),
                GRU(I, H).initial_state(2),
                Noise(rates=(0.1,), keep=(torch.ones(3, H).bool(),)),
            ),
            ShapeError,
            "the draws of GRU: expected [N=2, 4], got [3, 4]; draw a row for every step",
        ),
        *(
            (
                partial(make, I, H, **{option: "yes"}),
                SpecError,
                f"{make.__name__}.{option}: expected true or false, got 'yes'; give one of the two",
            )
            for make, option in (
                (Elman, "layer_norm"),
                (GRU, "layer_norm"),
                (LSTM, "layer_norm"),
                (LSTM, "peepholes"),
            )
        ),
    ],
)
def test_refusals(call: Callable[[], object], error: type[InputError], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


SIZES: list[tuple[str, Callable[[Any], object]]] = [
    ("Elman.hidden", lambda n: Elman(3, n)),
    ("LSTM.hidden", lambda n: LSTM(3, n)),
    ("LSTM.projection", lambda n: LSTM(3, 4, projection=n)),
    ("GRU.inputs", lambda n: GRU(n, 4)),
    ("GRU.hidden", lambda n: GRU(3, n)),
    ("MinGRU.hidden", lambda n: MinGRU(3, n)),
    ("MinLSTM.hidden", lambda n: MinLSTM(3, n)),
    ("RGLRU.hidden", lambda n: RGLRU(3, n)),
    ("RGLRU.blocks", lambda n: RGLRU(3, 4, blocks=n)),
    ("S5.hidden", lambda n: S5(3, n)),
    ("S5.state", lambda n: S5(3, 4, state=n)),
    ("GRUD.features", lambda n: GRUD(n, 4)),
    ("GRUD.hidden", lambda n: GRUD(3, n)),
    ("CfC.hidden", lambda n: CfC(3, n)),
    ("CfC.backbone", lambda n: CfC(3, 4, backbone=n)),
    ("CausalConv.outputs", lambda n: CausalConv(3, n)),
    ("CausalConv.kernel", lambda n: CausalConv(3, 4, kernel=n)),
    ("CausalConv.dilation", lambda n: CausalConv(3, 4, dilation=n)),
    ("CausalAttention.outputs", lambda n: CausalAttention(3, n)),
    ("CausalAttention.heads", lambda n: CausalAttention(3, 8, heads=n)),
    ("CausalAttention.window", lambda n: CausalAttention(3, 8, window=n)),
    ("ConvRNN.hidden", lambda n: ConvRNN(1, n, (4, 4))),
    ("ConvLSTM.kernel", lambda n: ConvLSTM(1, 2, (4, 4), kernel=n)),
    ("ConvGRU.size", lambda n: ConvGRU(1, 2, (4, n))),
]


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "2", True], ids=repr)
@pytest.mark.parametrize(("where", "make"), SIZES, ids=[where for where, _ in SIZES])
def test_a_size_that_is_none_is_refused(
    where: str, make: Callable[[Any], object], wrong: object
) -> None:
    with pytest.raises(SpecError) as caught:
        make(wrong)
    assert str(caught.value) == f"{where}: expected a whole number above 0, got {wrong!r}; give one"


def test_sizes_may_be_those_of_numpy() -> None:
    y, _ = GRU(np.int64(2), np.int32(4)).step(torch.zeros(1, 2), GRUState(torch.zeros(1, 4)))
    assert y.shape == (1, 4)
