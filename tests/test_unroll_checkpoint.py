"""unroll(checkpoint=): the same numbers as without, in memory for the square root of the steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from catalogue import EXACT, RANDOM, Row, cells
from test_conformance import batch, by_name, flags_for, hold_close, some_state
from torch import Tensor, nn

from segue.cells import GRU, LSTM, Cell
from segue.errors import SpecError
from segue.layers import Bidirectional, Dropout, Stack, Zoneout, unroll
from segue.layers.segments import Checkpoint, segment_steps
from segue.ops import State, leaves, map_state
from segue.ragged import Ragged

pytestmark = pytest.mark.usefixtures("one_thread")

CHECKPOINTS: list[Checkpoint] = ["sqrt", 1, 3, 100]
segments_of = pytest.mark.parametrize("checkpoint", CHECKPOINTS)


def gradients(y: Tensor, final: State, inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Of a sum in which every output has a weight of its own."""
    generator = torch.Generator().manual_seed(9)
    parts = [part for part in (y, *leaves(final)) if part.requires_grad]
    weighed = [part * torch.randn(part.shape, generator=generator).to(part) for part in parts]
    total = torch.stack([part.sum() for part in weighed]).sum()
    return torch.autograd.grad(total, inputs, allow_unused=True)


def hold_gradients(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            hold_close(a, b, tolerance)


def by_hand(cell: Cell, x: Ragged, state: State, steps: int) -> tuple[Tensor, State]:
    """Sequences of equal length, unrolled segment by segment with torch's own graph."""
    outputs = []
    for part in x.to_padded().split(steps, dim=1):
        y, state = unroll(cell, part, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1).flatten(0, 1), state


# Equal numbers ------------------------------------------------------------------------------------


@by_name(*cells())
@segments_of
@pytest.mark.parametrize("resets", [False, True], ids=["", "resets"])
def test_outputs_and_gradients_are_those_without(
    row: Row, checkpoint: Checkpoint, resets: bool
) -> None:
    cell = row.build(4, 5, torch.float64)
    x = batch(4, torch.float64)
    x = x.with_values(x.values.requires_grad_())
    state = some_state(cell, x.batch)
    inputs = [x.values, *(s.requires_grad_() for s in leaves(state)), *cell.parameters()]
    reset = x.with_values(flags_for(x)) if resets else None
    y, final = unroll(cell, x, state, reset)
    other, last = unroll(cell, x, state, reset, checkpoint=checkpoint)
    for a, b in zip(leaves((other.values, last)), leaves((y.values, final)), strict=True):
        hold_close(a, b, 1e-12)
    found = gradients(other.values, last, inputs)
    hold_gradients(found, gradients(y.values, final, inputs))


@by_name(*cells())
def test_gradients_reach_the_initial_state(row: Row) -> None:
    cell = row.build(4, 5, torch.float64)
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    inputs = [x, *cell.parameters()]
    found = gradients(*unroll(cell, x, checkpoint="sqrt"), inputs)
    hold_gradients(found, gradients(*unroll(cell, x), inputs))


@by_name(*cells())
@segments_of
def test_without_gradients_it_changes_nothing(row: Row, checkpoint: Checkpoint) -> None:
    cell = row.build(19, 40)
    x = batch(19, torch.float32)
    with torch.no_grad():
        y, final = unroll(cell, x)
        other, last = unroll(cell, x, checkpoint=checkpoint)
    for a, b in zip(leaves((other.values, last)), leaves((y.values, final)), strict=True):
        assert torch.equal(a, b)


@by_name(*cells(RANDOM))
@pytest.mark.parametrize("steps", [1, 4, 12])
def test_random_layers_draw_the_same_numbers_on_the_way_back(row: Row, steps: int) -> None:
    cell = row.build(4, 5, torch.float64).train()
    x = batch(4, torch.float64, [12, 12, 12])
    x = x.with_values(x.values.requires_grad_())
    inputs = [x.values, *cell.parameters()]
    torch.manual_seed(5)
    y, final = by_hand(cell, x, cell.initial_state(3), steps)
    torch.manual_seed(5)
    other, last = unroll(cell, x, checkpoint=steps)
    for a, b in zip(leaves((other.values, last)), leaves((y, final)), strict=True):
        hold_close(a, b, 1e-12)
    torch.manual_seed(77)
    before = torch.get_rng_state()
    found = gradients(other.values, last, inputs)
    assert torch.equal(torch.get_rng_state(), before)
    hold_gradients(found, gradients(y, final, inputs))


def test_random_layers_take_unequal_lengths_and_resets() -> None:
    cell = Stack(Dropout(4, 0.4, per="sequence"), Zoneout(LSTM(4, 5), hidden=0.3), Dropout(5, 0.3))
    cell = cell.double().train()
    x = batch(4, torch.float64, [5, 0, 3, 1])
    reset = x.with_values(flags_for(x))

    def run(values: Tensor, w: Tensor) -> Tensor:
        torch.manual_seed(5)
        y, _ = unroll(cell, x.with_values(values), None, reset, checkpoint=2)
        return y.values

    weight = cast(Zoneout, cell.cells[1]).body.w_hh
    assert torch.autograd.gradcheck(run, (x.values.requires_grad_(), weight))


@by_name(*cells(EXACT))
def test_forward_bits_are_those_of_chunks(row: Row) -> None:
    cell = row.build(19, 40)
    x = batch(19, torch.float32, [12, 12])
    y, final = by_hand(cell, x, cell.initial_state(2), 5)
    other, last = unroll(cell, x, checkpoint=5)
    for a, b in zip(leaves((other.values, last)), leaves((y, final)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("lengths", [[0, 0], [1], [0, 1, 0], [2, 50, 2]])
def test_any_lengths(lengths: list[int]) -> None:
    cell = cells()[0].build(4, 5, torch.float64)
    x = batch(4, torch.float64, lengths)
    x = x.with_values(x.values.requires_grad_())
    state = map_state(Tensor.requires_grad_, some_state(cell, x.batch))
    inputs = [x.values, *leaves(state), *cell.parameters()]
    y, final = unroll(cell, x, state)
    other, last = unroll(cell, x, state, checkpoint="sqrt")
    found = gradients(other.values, last, inputs)
    hold_gradients(found, gradients(y.values, final, inputs))


def test_only_the_final_state_may_be_used() -> None:
    cell = LSTM(3, 4).double()
    x = torch.randn(2, 10, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(unroll(cell, x)[1].c.sum(), [x, *cell.parameters()])
    state = unroll(cell, x, checkpoint=3)[1]
    hold_gradients(torch.autograd.grad(state.c.sum(), [x, *cell.parameters()]), expected)


def test_what_needs_no_gradient_gets_none() -> None:
    cell = LSTM(3, 4).double()
    cell.w_xh.requires_grad_(False)
    x = torch.randn(2, 10, 3, dtype=torch.float64)
    y, state = unroll(cell, x, checkpoint=3)
    y.sum().backward()
    expected = torch.autograd.grad(unroll(cell, x)[0].sum(), cell.w_hh)
    hold_gradients([cell.w_hh.grad, cell.w_xh.grad], [*expected, None])


def test_a_second_call_of_backward_gives_the_same() -> None:
    cell = LSTM(3, 4)
    y, _ = unroll(cell, torch.randn(2, 10, 3), checkpoint=3)
    first, second = (
        torch.autograd.grad(y.sum(), list(cell.parameters()), retain_graph=True) for _ in range(2)
    )
    assert all(map(torch.equal, first, second))


def test_hooks_of_weights_see_the_whole_gradient_once() -> None:
    cell = GRU(3, 4)
    seen = []
    handle = cell.w_hh.register_hook(seen.append)
    unroll(cell, torch.randn(2, 10, 3), checkpoint=3)[0].sum().backward()
    handle.remove()
    assert len(seen) == 1 and torch.equal(seen[0], cast(Tensor, cell.w_hh.grad))


def test_a_weight_lent_by_functional_call_gets_the_gradient() -> None:
    cell = GRU(3, 4).double()
    x = torch.randn(2, 10, 3, dtype=torch.float64)

    class Through(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, checkpoint: Checkpoint | None) -> Tensor:
            return unroll(self.cell, x, checkpoint=checkpoint)[0]

    weight = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    found, expected = (
        torch.func.functional_call(Through(), {"cell.w_hh": weight}, (checkpoint,)).sum()
        for checkpoint in (3, None)
    )
    hold_gradients(torch.autograd.grad(found, weight), torch.autograd.grad(expected, weight))


def test_autocast_holds_on_the_way_back() -> None:
    cell = GRU(3, 4)
    x = batch(3, torch.float32, [12, 12])
    x = x.with_values(x.values.requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        y, final = by_hand(cell, x, cell.initial_state(2), 4)
        other, last = unroll(cell, x, checkpoint=4)
    assert torch.equal(other.values, y)
    # Not of the weights, whose gradients torch sums in bfloat16 where segments share a cast.
    found = gradients(other.values, last, [x.values])
    hold_gradients(found, gradients(y, final, [x.values]), 1e-6)


# Cells of one's own -------------------------------------------------------------------------------


class Counting(Cell):
    """h_t = tanh(W [x_t, h_{t-1}]) / n_t, where n counts the steps; a state of two dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.outputs = 3, 4
        self.w = nn.Parameter(torch.randn(4, 7, dtype=torch.float64))
        self.unused = nn.Parameter(torch.zeros(1))

    def initial_state(self, batch: int) -> State:
        # float32 although the later ones are float64.
        return {"h": torch.zeros(batch, 4), "n": (torch.zeros(batch, 1, dtype=torch.int64),)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        n = state["n"][0] + 1
        h = torch.tanh(torch.cat([x, state["h"].to(x.dtype)], dim=1) @ self.w.T) / n
        return h, {"h": h, "n": (n,)}


class Remembering(Cell):
    """y_t = the sum of all x up to t, from a state that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = self.outputs = 3

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0, 3, dtype=torch.float64)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.cat([state, x[:, None]], dim=1)
        return (state**2).sum(1), state


@segments_of
@pytest.mark.parametrize("make", [Counting, Remembering])
def test_a_cell_of_ones_own(make: type[Cell], checkpoint: Checkpoint) -> None:
    cell = make()
    x = torch.randn(2, 10, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, *cell.parameters()]
    y, final = unroll(cell, x)
    other, last = unroll(cell, x, checkpoint=checkpoint)
    for a, b in zip(leaves((other, last)), leaves((y, final)), strict=True):
        assert a.dtype == b.dtype and a.requires_grad == b.requires_grad
        hold_close(a, b, 1e-12)
    hold_gradients(gradients(other, last, inputs), gradients(y, final, inputs))


def test_unequal_lengths_of_a_cell_of_ones_own() -> None:
    cell = Counting()
    x = batch(3, torch.float64)
    y, final = unroll(cell, x)
    other, last = unroll(cell, x, checkpoint="sqrt")
    assert torch.equal(last["n"][0], final["n"][0])
    hold_gradients(gradients(other.values, last, [cell.w]), gradients(y.values, final, [cell.w]))


class Hidden(Counting):
    """One that reads a tensor with a gradient that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = [torch.ones(4, requires_grad=True)]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = super().step(x, state)
        return y * self.scale[0], state


# Refusals -----------------------------------------------------------------------------------------


def test_a_tensor_whose_gradient_would_be_lost_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        unroll(Hidden(), torch.randn(2, 10, 3, dtype=torch.float64), checkpoint="sqrt")
    assert str(caught.value) == (
        "unroll.checkpoint: expected gradients for x, the state and the parameters of the layer "
        "alone, got a layer that reads another tensor with a gradient, of shape [4]; "
        "make it a parameter of the layer, or leave checkpoint out"
    )


def test_a_layer_that_looks_ahead_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        unroll(Bidirectional(GRU(3, 4), GRU(3, 4)), torch.randn(2, 5, 3), checkpoint="sqrt")
    assert str(caught.value) == (
        "unroll.checkpoint: expected a cell, got Bidirectional: its backward cell starts at the "
        "end of the sequence, which a stream does not have; leave checkpoint out"
    )


@pytest.mark.parametrize("checkpoint", [0, -1, True, 2.0, "root"])
def test_another_checkpoint_is_refused(checkpoint: Any) -> None:
    with pytest.raises(SpecError) as caught:
        unroll(GRU(3, 4), torch.randn(2, 5, 3), checkpoint=checkpoint)
    assert str(caught.value) == (
        f'unroll.checkpoint: expected "sqrt" or a number of steps from 1, got {checkpoint!r}; '
        "give one of the two, or leave checkpoint out"
    )


def test_a_weight_changed_before_the_way_back_is_an_error() -> None:
    cell = GRU(3, 4)
    y, _ = unroll(cell, torch.randn(2, 10, 3), checkpoint=3)
    with torch.no_grad():
        cell.w_hh.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_of_gradients_are_refused() -> None:
    cell = GRU(3, 4)
    y, _ = unroll(cell, torch.randn(2, 10, 3), checkpoint=3)
    with pytest.raises(SpecError) as caught:
        torch.autograd.grad(y.sum(), cell.w_hh, create_graph=True)
    assert str(caught.value) == (
        "unroll.checkpoint: expected a plain backward, got create_graph=True, for gradients of "
        "gradients; leave checkpoint out"
    )


# Memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("longest", "steps"), [(0, 1), (1, 1), (2, 2), (9, 3), (10, 4), (16, 4), (100_000, 317)]
)
def test_a_segment_has_the_root_of_the_steps(longest: int, steps: int) -> None:
    assert segment_steps("sqrt", longest) == steps


MEASURE = """
import sys

import torch

from segue.cells import LSTM, Elman
from segue.layers import unroll


def memory(kind):
    # Not from getrusage, whose peak begins with that of the process that started this one.
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(kind))
    return int(line.split()[1]) * 1024


def train(steps):
    x = torch.ones(1, steps, 64, requires_grad=True)
    y, _ = unroll(cell, x, checkpoint="sqrt")
    y.backward(torch.ones_like(y))


torch.set_num_threads(1)
# The latter runs as a loop, whose graph has nodes for every step.
cell = LSTM(64, 128) if sys.argv[1] == "LSTM" else Elman(64, 128, activation=torch.sin)
train(400)
base = memory("VmRSS")
# x [1, T, 64], y [1, T, 128] and their gradients are not counted.
above = []
for steps in (5_000, 20_000):
    train(steps)
    above.append(memory("VmHWM") - base - 4 * steps * 2 * (64 + 128))
print(above)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
@pytest.mark.parametrize("cell", ["LSTM", "Elman"])
def test_memory_grows_with_the_root_of_the_steps(cell: str) -> None:
    command = [sys.executable, "-c", MEASURE, cell]
    # Freed memory goes back at once, so that the peak is of what is needed at a time.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    short, long = json.loads(done.stdout)
    # Without segments the longer one takes 250 MB and more. The root of 20,000 steps are 142.
    assert long <= 16e6, f"{short / 1e6} MB, then {long / 1e6} MB"
