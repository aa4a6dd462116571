"""What is particular to a layer: statistics of the random ones, wiring, refusals, `explain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import segue.nn
from segue import ops
from segue.cells import GRU, LSTM, S5, CausalConv, ConvGRU, Elman, LSTMState, MinGRU
from segue.errors import CausalError, ShapeError, SpecError
from segue.layers import (
    Bidirectional,
    Chain,
    Decay,
    Dropout,
    Linear,
    Readout,
    RecurrentDropout,
    RecurrentDropoutState,
    Residual,
    Stack,
    TimeDistributed,
    Zoneout,
    explain,
    unroll,
)
from segue.ragged import Ragged

# Dropout


def test_dropout_drops_its_rate_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    layer = Dropout(50, 0.3)
    y, _ = unroll(layer, torch.ones(20, 30, 50))
    dropped = y == 0
    assert 0.29 <= float(dropped.float().mean()) <= 0.31
    assert (y[~dropped] - 1 / 0.7).abs().max() <= 1e-6


def test_dropout_per_step_draws_anew_at_every_step() -> None:
    y, _ = unroll(Dropout(50, 0.5), torch.ones(1, 2, 50))
    assert not torch.equal(y[0, 0], y[0, 1])


def test_dropout_per_sequence_keeps_its_mask_over_all_steps_of_a_sequence() -> None:
    torch.manual_seed(0)
    y, state = unroll(Dropout(50, 0.3, per="sequence"), torch.ones(200, 4, 50))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert torch.equal(y[:, 0], state.mask)
    assert not torch.equal(y[0], y[1])
    assert 0.28 <= float((y[:, 0] == 0).float().mean()) <= 0.32


def test_dropout_per_sequence_keeps_its_mask_over_chunks_and_draws_a_new_one_at_a_reset() -> None:
    layer = Dropout(50, 0.5, per="sequence")
    x = torch.ones(3, 6, 50)
    first, state = unroll(layer, x)
    again, _ = unroll(layer, x, state)
    assert torch.equal(first, again)
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[:, 3] = True
    y, last = unroll(layer, x, state, reset)
    assert torch.equal(y[:, :3], first[:, :3])
    assert not torch.equal(y[:, 3], first[:, 3])
    assert torch.equal(y[:, 3:], y[:, 3:4].expand(3, 3, 50))
    assert torch.equal(y[:, 5], last.mask)


def test_dropout_steps_equal_unroll_in_training() -> None:
    layer = Dropout(5, 0.5, per="sequence")
    x, state = torch.randn(3, 6, 5), layer.initial_state(3)
    whole, _ = unroll(layer, x, state)
    for t in range(6):
        assert torch.equal(layer.step(x[:, t], state)[0], whole[:, t])


# Zoneout


def test_zoneout_keeps_units_at_its_rates() -> None:
    torch.manual_seed(0)
    layer = Zoneout(LSTM(3, 200), hidden=0.2, cell=0.6)
    old = LSTMState(torch.full((100, 200), 0.9), torch.full((100, 200), 5.0))
    x = torch.randn(100, 3)
    y, new = layer.step(x, old)
    plain, expected = layer.body.step(x, old)
    kept_h, kept_c = new.h == old.h, new.c == old.c
    assert 0.18 <= float(kept_h.float().mean()) <= 0.22
    assert 0.58 <= float(kept_c.float().mean()) <= 0.62
    assert torch.equal(new.h[~kept_h], plain[~kept_h])
    assert torch.equal(new.c[~kept_c], expected.c[~kept_c])
    assert torch.equal(y, new.h)


def test_zoneout_in_evaluation_is_the_expectation() -> None:
    layer = Zoneout(LSTM(3, 4), hidden=0.2, cell=0.6).double().eval()
    old = LSTMState(torch.randn(2, 4).double(), torch.randn(2, 4).double())
    x = torch.randn(2, 3).double()
    y, new = layer.step(x, old)
    _, plain = layer.body.step(x, old)
    assert (new.h - (0.2 * old.h + 0.8 * plain.h)).abs().max() <= 1e-15
    assert (new.c - (0.6 * old.c + 0.4 * plain.c)).abs().max() <= 1e-15
    assert torch.equal(y, new.h)


def test_zoneout_draws_for_every_sequence_unit_and_step() -> None:
    torch.manual_seed(0)
    layer = Zoneout(GRU(3, 200), hidden=0.3)
    first = layer.body.initial_state(40)._replace(h=torch.rand(40, 200) + 2)
    y, _ = unroll(layer, torch.randn(40, 8, 3), first)
    before = torch.cat([first.h[:, None], y[:, :-1]], dim=1)
    kept = (y == before).float()
    assert 0.29 <= float(kept.mean()) <= 0.31
    # Kept at two steps, in two sequences or at two units as often as chance has it.
    for one, other in ((kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1])):
        assert abs(float((one * other).mean()) - 0.09) <= 0.01
    assert abs(float((kept[:, :, 1:] * kept[:, :, :-1]).mean()) - 0.09) <= 0.01


def test_zoneout_draws_what_the_seed_and_the_generator_of_torch_say() -> None:
    layer, x = Zoneout(GRU(3, 50), hidden=0.3), torch.randn(4, 8, 3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = unroll(layer, x)[0], unroll(layer, x)[0]
    torch.set_rng_state(state)
    assert torch.equal(unroll(layer, x)[0], first)
    assert not torch.equal(first, second)


def test_the_mean_of_zoneout_in_training_is_its_evaluation() -> None:
    torch.manual_seed(0)
    layer = Zoneout(LSTM(3, 4), hidden=0.2, cell=0.6)
    old = LSTMState(torch.randn(1, 4).expand(20000, 4), torch.randn(1, 4).expand(20000, 4))
    x = torch.randn(1, 3).expand(20000, 3)
    with torch.no_grad():
        y, drawn = layer.step(x, old)
        expected, mean = layer.eval().step(x, old)
    for part, wanted in ((y, expected), (drawn.h, mean.h), (drawn.c, mean.c)):
        assert (part.mean(0) - wanted[0]).abs().max() <= 0.03


def test_zoneout_at_rate_0_is_the_cell() -> None:
    layer = Zoneout(GRU(3, 4))
    x = torch.randn(2, 6, 3)
    assert torch.equal(unroll(layer, x)[0], unroll(layer.body, x)[0])


# Recurrent dropout


def test_recurrent_dropout_drops_its_rate_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    mask = RecurrentDropout(LSTM(3, 8, projection=200), 0.3).initial_state(100).mask
    dropped = mask == 0
    assert mask.shape == (100, 200)
    assert 0.29 <= float(dropped.float().mean()) <= 0.31
    assert (mask[~dropped] - 1 / 0.7).abs().max() <= 1e-6


@pytest.mark.parametrize("reset_after", [True, False])
def test_recurrent_dropout_hides_units_from_the_recurrent_product_alone(reset_after: bool) -> None:
    layer = RecurrentDropout(GRU(3, 50, reset_after=reset_after), 0.5).double()
    x, h = torch.randn(4, 6, 3).double(), torch.randn(4, 50).double()
    state = layer.initial_state(4)
    y, final = unroll(layer, x, state._replace(body=state.body._replace(h=h)))
    # A cell whose recurrent weights do not see the dropped units of one sequence.
    for b in range(4):
        blind = GRU(3, 50, reset_after=reset_after).double()
        blind.load_state_dict(layer.body.state_dict())
        with torch.no_grad():
            blind.w_hh.mul_(state.mask[b])
        plain, last = unroll(blind, x[b : b + 1], layer.body.initial_state(1)._replace(h=h[[b]]))
        assert (y[b] - plain[0]).abs().max() <= 1e-12
        assert (final.body.h[b] - last.h[0]).abs().max() <= 1e-12


def test_recurrent_dropout_keeps_its_mask_over_chunks_and_draws_a_new_one_at_a_reset() -> None:
    layer = RecurrentDropout(GRU(3, 50), 0.5)
    x = torch.randn(3, 6, 3)
    state = layer.initial_state(3)
    whole, final = unroll(layer, x, state)
    first, between = unroll(layer, x[:, :4], state)
    rest, last = unroll(layer, x[:, 4:], between)
    assert torch.equal(final.mask, state.mask) and torch.equal(between.mask, state.mask)
    assert (torch.cat([first, rest], dim=1) - whole).abs().max() <= 1e-6
    assert (last.body.h - final.body.h).abs().max() <= 1e-6
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[1, 3] = True
    y, changed = unroll(layer, x, state, reset)
    assert (y[:, :3] - whole[:, :3]).abs().max() <= 1e-6
    assert torch.equal(changed.mask[[0, 2]], state.mask[[0, 2]])
    assert not torch.equal(changed.mask[1], state.mask[1])
    start = RecurrentDropoutState(changed.mask[1:2], layer.body.initial_state(1))
    anew, _ = unroll(layer, x[1:2, 3:], start)
    assert (y[1, 3:] - anew[0]).abs().max() <= 1e-6


def test_recurrent_dropout_in_evaluation_is_the_cell_to_the_bit() -> None:
    layer = RecurrentDropout(LSTM(3, 4), 0.5).eval()
    x, state = torch.randn(2, 6, 3), layer.initial_state(2)
    assert (state.mask == 1).all()
    with torch.no_grad():
        y, final = unroll(layer, x, state)
        plain, last = unroll(layer.body, x)
    assert torch.equal(y, plain)
    assert torch.equal(final.body.c, last.c)
    assert torch.equal(final.mask, state.mask)


def test_zoneout_keeps_what_recurrent_dropout_hides() -> None:
    torch.manual_seed(0)
    layer = Zoneout(RecurrentDropout(LSTM(3, 200), 0.4), hidden=0.2, cell=0.6)
    state = layer.initial_state(100)
    old = LSTMState(torch.full((100, 200), 0.9), torch.full((100, 200), 5.0))
    x = torch.randn(100, 3)
    y, new = layer.step(x, state._replace(body=old))
    plain, expected = layer.body.step(x, state._replace(body=old))
    kept_h, kept_c = new.body.h == old.h, new.body.c == old.c
    assert 0.38 <= float((state.mask == 0).float().mean()) <= 0.42
    assert 0.18 <= float(kept_h.float().mean()) <= 0.22
    assert 0.58 <= float(kept_c.float().mean()) <= 0.62
    assert torch.equal(new.body.h[~kept_h], plain[~kept_h])
    assert torch.equal(new.body.c[~kept_c], expected.body.c[~kept_c])
    assert torch.equal(new.mask, state.mask)
    assert torch.equal(y, new.body.h)


# Wiring


def test_stack_is_one_cell_after_the_other() -> None:
    lower, upper = LSTM(3, 4), GRU(4, 5)
    x = torch.randn(2, 6, 3)
    y, (first, second) = unroll(Stack(lower, upper), x)
    between, below = unroll(lower, x)
    above, last = unroll(upper, between)
    assert torch.equal(y, above)
    assert torch.equal(first.c, below.c)
    assert torch.equal(second.h, last.h)


def test_residual_adds_the_input() -> None:
    layer = Residual(GRU(4, 4))
    x = torch.randn(2, 6, 4)
    assert torch.equal(unroll(layer, x)[0], x + unroll(layer.cell, x)[0])


def test_bidirectional_is_ahead_then_back() -> None:
    ahead, back = LSTM(3, 4), GRU(3, 5)
    x = Ragged.from_list([torch.randn(n, 3) for n in (4, 0, 6)])
    y, (first, second) = Bidirectional(ahead, back).unroll(x)
    one, forward = unroll(ahead, x)
    other, backward = unroll(back, x.reversed())
    assert (y.values[:, :4] - one.values).abs().max() <= 1e-6
    assert (y.values[:, 4:] - other.reversed().values).abs().max() <= 1e-6
    assert (first.c - forward.c).abs().max() <= 1e-6
    assert (second.h - backward.h).abs().max() <= 1e-6


def test_a_reset_meets_the_backward_direction_one_step_earlier() -> None:
    layer = Bidirectional(GRU(3, 4), GRU(3, 4)).double()
    x = torch.randn(1, 7, 3).double()
    state = ops.map_state(torch.randn_like, layer.initial_state(1))
    reset = torch.zeros(1, 7, dtype=torch.bool)
    reset[0, [0, 3]] = True
    y, (_, first) = unroll(layer, x, state, reset)
    early, after_early = unroll(layer.back, x[:, :3].flip(1))
    late, _ = unroll(layer.back, x[:, 3:].flip(1), state[1])
    expected = torch.cat([early.flip(1), late.flip(1)], dim=1)
    assert (y[:, :, 4:] - expected).abs().max() <= 1e-12
    assert (first.h - after_early.h).abs().max() <= 1e-12


def test_time_distributed_treats_every_step_alike() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh())
    layer = TimeDistributed(module, inputs=3, outputs=5)
    x = torch.randn(2, 6, 3)
    assert (unroll(layer, x)[0] - module(x)).abs().max() <= 1e-6


def test_readout_is_its_equation() -> None:
    layer = Readout(4, 2).double()
    h = torch.randn(3, 4).double()
    expected = h.detach().numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    assert abs(layer(h).detach().numpy() - expected).max() <= 1e-14


# Refusals


@pytest.mark.parametrize("layer", [Bidirectional(GRU(3, 4), GRU(3, 4))])
def test_a_layer_that_looks_ahead_cannot_be_stepped(layer: Bidirectional) -> None:
    reason = "its backward cell starts at the end of the sequence, which a stream does not have"
    with pytest.raises(CausalError) as caught:
        layer.step(torch.zeros(1, 3), layer.initial_state(1))
    assert str(caught.value) == f"Bidirectional cannot be stepped: {reason}"
    chain = Chain(layer, GRU(8, 2))
    with pytest.raises(CausalError) as caught:
        chain.step(torch.zeros(1, 3), chain.initial_state(1))
    assert str(caught.value) == f"Chain cannot be stepped: {reason}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stack(), "Stack: expected at least one layer, got none; give one"),
        (
            lambda: Stack(GRU(3, 4), GRU(5, 2)),
            "Stack, layer 1: expected 4 inputs, got 5 inputs; "
            "make them as many as the outputs of the layer below",
        ),
        (
            lambda: Residual(GRU(3, 4)),
            "Residual: expected as many outputs as inputs, got 3 inputs and 4 outputs; "
            "make them equal, or leave out the residual",
        ),
        (
            lambda: Bidirectional(GRU(3, 4), GRU(2, 4)),
            "Bidirectional: expected cells of equal inputs, got 3 and 2; make them equal",
        ),
        (
            lambda: unroll(GRU(3, 4), torch.zeros(2, 5, 2)),
            "unroll.x: expected [B, T, I=3], got [2, 5, 2]; change the number of inputs",
        ),
        (
            lambda: unroll(GRU(3, 4), torch.zeros(2, 5, 3), None, torch.zeros(2, 4).bool()),
            "reset: expected [B=2, T=5], got [2, 4]; change the number of steps",
        ),
        (
            lambda: unroll(
                GRU(3, 4),
                Ragged.from_list([torch.zeros(2, 3), torch.zeros(3, 3)]),
                None,
                Ragged(torch.zeros(5).bool(), torch.tensor([3, 2])),
            ),
            "reset: expected the lengths of x, got other lengths; take it from "
            "x.with_values(flags)",
        ),
    ],
)
def test_shape_refusals(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Dropout(3, 1.0),
            "Dropout.rate: expected a rate in [0, 1), got 1.0; give such a rate",
        ),
        (
            lambda: Dropout(3, 0.1, per="batch"),
            "Dropout.per: expected step | sequence, got batch; give one of the two",
        ),
        (
            lambda: Zoneout(GRU(3, 4), hidden=-0.1),
            "Zoneout.hidden: expected a rate in [0, 1), got -0.1; give such a rate",
        ),
        (
            lambda: Zoneout(GRU(3, 4), cell=0.1),
            "Zoneout.cell: expected 0, got 0.1 for GRU, whose state has no c; leave it out",
        ),
        (
            lambda: Zoneout(Stack(GRU(3, 4))),  # type: ignore[arg-type]
            "Zoneout: expected an Elman, LSTM or GRU cell, or RecurrentDropout of one, got Stack; "
            "wrap the cell itself",
        ),
        (
            lambda: Zoneout(RecurrentDropout(GRU(3, 4), 0.1), cell=0.1),
            "Zoneout.cell: expected 0, got 0.1 for GRU, whose state has no c; leave it out",
        ),
        (
            lambda: RecurrentDropout(GRU(3, 4), 1.0),
            "RecurrentDropout.rate: expected a rate in [0, 1), got 1.0; give such a rate",
        ),
        (
            lambda: RecurrentDropout(Zoneout(GRU(3, 4)), 0.1),  # type: ignore[arg-type]
            "RecurrentDropout: expected an Elman, LSTM or GRU cell, got Zoneout; "
            "write Zoneout(RecurrentDropout(cell, rate))",
        ),
        (
            lambda: RecurrentDropout(Residual(GRU(4, 4)), 0.1),  # type: ignore[arg-type]
            "RecurrentDropout: expected an Elman, LSTM or GRU cell, got Residual; "
            "wrap the cell itself",
        ),
        (
            lambda: TimeDistributed(torch.nn.Tanh()),
            "TimeDistributed: expected a module with inputs, got Tanh, which says none; "
            "give inputs=",
        ),
    ],
)
def test_option_refusals(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        call()
    assert str(caught.value) == message


# explain


def test_explain_names_the_paths_and_what_rules_out_faster_ones() -> None:
    native = f"native kernel, {ops.native_name()}"
    stack = Stack(
        LSTM(3, 4),
        Zoneout(GRU(4, 4), hidden=0.1),
        Dropout(4, 0.1),
        Residual(Elman(4, 4, activation=torch.sin)),
        TimeDistributed(Linear(4, 2)),
    )
    limit = "the native kernel has no custom activation"
    fused = "torch's fused Elman network has no custom activation"
    assert explain(stack).splitlines() == [
        f"cells.0 LSTM: training and inference: {native}",
        f"cells.1 Zoneout: training and inference: {native}",
        "cells.2 Dropout: training and inference: torch, all steps at once",
        f"cells.3.cell Elman: training and inference: loop ({limit}; {fused})",
        "cells.4.module Linear: training: torch",
        f"cells.4.module Linear: inference: {native}",
    ]


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(3, 4, layer_norm=True, peepholes=True, projection=2),
        GRU(3, 4, reset_after=False),
        Zoneout(RecurrentDropout(GRU(3, 4, layer_norm=True), 0.3), hidden=0.1),
        segue.nn.LSTM(3, 5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_explain_says_that_options_do_not_leave_the_fast_path(layer: torch.nn.Module) -> None:
    path = f"training and inference: native kernel, {ops.native_name()}"
    assert explain(layer) == f"{type(layer).__name__}: {path}"


def test_explain_of_laws_that_are_linear_in_the_state_and_of_convolutions() -> None:
    native = f"native kernel, {ops.native_name()}"
    assert explain(MinGRU(2, 3)) == f"MinGRU: training and inference: {native}"
    assert "loop (the native kernels take float32" in explain(MinGRU(2, 3).double())
    alone = f"torch, then the loop alone: {native}"
    assert explain(MinGRU(2, 3).bfloat16()) == f"MinGRU: training and inference: {alone}"
    assert explain(Decay(MinGRU(2, 3))) == f"Decay: training and inference: {alone}"
    steps = "loop over the steps of GRU (the state fades between them)"
    assert explain(Decay(GRU(2, 3))) == f"Decay: training and inference: {steps}"
    assert explain(S5(2, 3)).splitlines() == [
        f"S5: training: states: {native}; outputs: torch",
        f"S5: inference: states: {native}; outputs: {native}",
    ]
    assert explain(S5(2, 3, gate=True)).count("outputs: torch") == 2
    loop = "loop over torch's convolutions (a kernel for them there is not)"
    assert explain(ConvGRU(1, 2, (3,))) == f"ConvGRU: training and inference: {loop}"
    conv = "CausalConv: training and inference: torch, all steps at once"
    assert explain(CausalConv(2, 3)) == conv


def test_explain_under_autocast() -> None:
    native, both = f"native kernel, {ops.native_name()}", "training and inference"
    with torch.autocast("cpu"):
        assert explain(MinGRU(2, 3)) == f"MinGRU: {both}: {native}"
        assert explain(MinGRU(2, 3).bfloat16()) == f"MinGRU: {both}: {native}"
        assert explain(GRU(2, 3).bfloat16()) == f"GRU: {both}: {native}"
        assert explain(Linear(2, 3)).endswith("inference: torch (under autocast)")
        assert explain(S5(2, 3)).endswith(f"states: {native}; outputs: torch (under autocast)")
        alone = explain(Decay(MinGRU(2, 3)))
    assert alone == f"Decay: {both}: torch, then a loop (under autocast)"


def test_explain_of_other_dtypes() -> None:
    limit = "the native kernels take float32, the weights are torch.float64"
    both = "training and inference"
    assert explain(LSTM(3, 4).double()) == f"LSTM: {both}: torch's fused function ({limit})"
    fused = "torch's fused GRU has no recurrent dropout"
    assert explain(RecurrentDropout(GRU(3, 4).double(), 0.3)).splitlines() == [
        f"RecurrentDropout: training: loop ({limit}; {fused})",
        f"RecurrentDropout: inference: torch's fused function ({limit})",
    ]
    limit = "the native kernels take float32, the weights are torch.bfloat16"
    fused = "torch's fused functions do not take torch.bfloat16"
    assert explain(GRU(3, 4).bfloat16()) == f"GRU: {both}: loop ({limit}; {fused})"


def test_explain_of_torch_s_own_layers() -> None:
    assert explain(torch.nn.LSTM(3, 5)) == "LSTM: training and inference: torch.nn's own"
