"""`Compiled`: the bits of `unroll`, state in and state out, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import TORCH, Row, cells
from torch import Tensor, nn

from segue import ops
from segue.cells import GRU, LSTM, Elman
from segue.errors import ShapeError, SpecError
from segue.layers import Bidirectional, Compiled, Residual, Stack, TimeDistributed, unroll
from segue.layers.compiled import obstacle
from segue.ragged import Ragged

pytestmark = [
    pytest.mark.skipif(not ops.native_name(), reason="the native module is not built"),
    pytest.mark.usefixtures("one_thread"),
]

LENGTHS = [7, 0, 12, 1, 5, 12, 0, 2, 9]
CUSTOM = "elman-custom"
ROWS = [row for row in cells() if row.name != CUSTOM and TORCH not in row.tags]


def by_name(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def drawn(rows: int, width: int, seed: int = 7) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def some_state(layer: Any, batch: int) -> Any:
    """A state unlike the initial one."""
    seeds = iter(range(100))
    return ops.map_state(
        lambda leaf: 0.3 * drawn(*leaf.shape, seed=next(seeds)), layer.initial_state(batch)
    )


def rows_of(state: Any, rows: slice) -> Any:
    return ops.map_state(lambda leaf: leaf[rows], state)


def hold_equal(actual: Any, expected: Any) -> None:
    """The same structure and the same bits; a NaN is never equal."""
    pairs = list(zip(ops.leaves(actual), ops.leaves(expected), strict=True))
    assert pairs
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)


# The same bits ------------------------------------------------------------------------------------


@by_name(ROWS)
@pytest.mark.parametrize("sizes", [(4, 5), (19, 40)], ids=["small", "wide"])
@torch.no_grad()
def test_all_steps_equal_unroll(row: Row, sizes: tuple[int, int]) -> None:
    layer = row.build(*sizes)
    x, state = drawn(sum(LENGTHS), sizes[0]), some_state(layer, len(LENGTHS))
    expected, final = unroll(layer, Ragged(x, torch.tensor(LENGTHS)), state)
    hold_equal(Compiled(layer).unroll(x, LENGTHS, state), (expected.values, final))


@by_name(ROWS)
@pytest.mark.parametrize("batch", [1, 3, 100])
@torch.no_grad()
def test_a_step_equals_the_cells(row: Row, batch: int) -> None:
    layer = row.build(19, 40)
    step, state = Compiled(layer), some_state(layer, batch)
    after = state
    for seed in range(3):
        x = drawn(batch, 19, seed)
        y, after = step(x, after)
        expected, state = layer.step(x, state)
        hold_equal((y, after), (expected, state))


@by_name(ROWS)
@torch.no_grad()
def test_steps_and_chunks_equal_all_steps_at_once(row: Row) -> None:
    layer = row.build(19, 40)
    step, x, first = Compiled(layer), drawn(12, 19), some_state(layer, 1)
    whole, final = step.unroll(x, [12], first)
    for size in (1, 5):
        outputs, state = [], first
        for part in x.split(size):
            y, state = step(part, state) if size == 1 else step.unroll(part, [len(part)], state)
            outputs.append(y)
        hold_equal((torch.cat(outputs), state), (whole, final))


@by_name(ROWS)
@torch.no_grad()
def test_alone_equals_in_a_batch_whatever_the_threads(row: Row) -> None:
    layer = row.build(19, 40)
    step, x, state = Compiled(layer), drawn(200, 19), some_state(layer, 200)
    together, final = step(x, state)
    torch.set_num_threads(3)
    hold_equal(step(x, state), (together, final))
    for row_index in (0, 7, 199):
        only = slice(row_index, row_index + 1)
        alone = step(x[only], rows_of(state, only))
        hold_equal(alone, (together[only], rows_of(final, only)))


@by_name(ROWS)
@torch.no_grad()
def test_arrays_equal_tensors_and_leave_the_state_as_it_was(row: Row) -> None:
    layer = row.build(4, 5)
    step, x, state = Compiled(layer), drawn(3, 4), some_state(layer, 3)
    before = ops.map_state(torch.clone, state)
    y, after = step(x, state)
    leaves = iter([leaf.numpy() for leaf in ops.leaves(state)])
    arrays = step.initial_state(3)
    plain = _rebuilt(arrays, leaves)
    out, changed = step(x.numpy(), plain)
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, y.numpy())
    for ours, theirs in zip(_arrays(changed), ops.leaves(after), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    if _arrays(plain):
        hold_equal(state, before)


def _arrays(state: Any) -> list[Any]:
    if isinstance(state, np.ndarray):
        return [state]
    return [leaf for part in state for leaf in _arrays(part)]


def _rebuilt(like: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(like, np.ndarray):
        return next(leaves)
    parts = [_rebuilt(part, leaves) for part in like]
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


@by_name(ROWS)
def test_the_initial_state_is_that_of_the_layer(row: Row) -> None:
    layer = row.build(4, 5)
    found, expected = Compiled(layer).initial_state(3), layer.initial_state(3)
    for ours, theirs in zip(_arrays(found), ops.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs.detach().numpy())


def test_weights_that_change_later_are_not_seen() -> None:
    cell = GRU(4, 5).eval()
    step, x = Compiled(cell), drawn(2, 4).numpy()
    before = step(x, step.initial_state(2))[0]
    with torch.no_grad():
        cell.w_hh.mul_(2)
        cell.b_h.add_(1)
    np.testing.assert_array_equal(step(x, step.initial_state(2))[0], before)
    assert not np.array_equal(Compiled(cell)(x, step.initial_state(2))[0], before)


def test_many_threads_may_step_at_once() -> None:
    layer = Stack(LSTM(16, 32), Residual(GRU(32, 32))).eval()
    step = Compiled(layer)

    def run(seed: int) -> Any:
        x, state = drawn(40, 16, seed).numpy(), step.initial_state(1)
        outputs = []
        for t in range(40):
            y, state = step(x[t : t + 1], state)
            outputs.append(y)
        return np.concatenate(outputs)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(run, range(24)))
    for seed, found in enumerate(together):
        np.testing.assert_array_equal(found, run(seed))


# What is refused ----------------------------------------------------------------------------------


def refused(error: type[Exception], call: Any, *arguments: Any) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_has_no_native_form_is_refused_with_the_reason() -> None:
    layer = Stack(GRU(3, 4), TimeDistributed(nn.Tanh(), inputs=4, outputs=4)).eval()
    assert refused(SpecError, Compiled, layer) == (
        "Compiled: expected a layer that has a native form, got TimeDistributed of Tanh, which has "
        "no native form; use its own step, and unroll"
    )
    reasons = {
        "one in training mode (call .eval() on it)": GRU(3, 4),
        "weights of torch.float64 on cpu": GRU(3, 4).double().eval(),
        "Elman: the native kernel has no custom activation": Elman(
            3, 4, activation=torch.sin
        ).eval(),
        "Bidirectional, which has no native form": Bidirectional(GRU(3, 4), GRU(3, 4)).eval(),
    }
    for reason, other in reasons.items():
        assert obstacle(other) == reason


def test_a_subclass_with_a_step_of_its_own_is_refused() -> None:
    class Louder(GRU):
        pass

    assert obstacle(Louder(3, 4).eval()) == "Louder, which has no native form"


def test_other_inputs_are_refused_in_one_line() -> None:
    step = Compiled(LSTM(3, 5).eval())
    x, state = np.zeros((2, 3), np.float32), step.initial_state(2)
    fix = "; pass a contiguous array of this type and shape"
    assert refused(ShapeError, step, np.zeros((2, 4), np.float32), state) == (
        f"x: expected float32 [N, 3], got float32 [2, 4]{fix}"
    )
    assert refused(ShapeError, step, np.zeros((2, 3)), state) == (
        f"x: expected float32 [N, 3], got float64 [2, 3]{fix}"
    )
    assert refused(ShapeError, step, np.zeros((3, 2), np.float32).T, state) == (
        "x: expected float32 [N, 3], got numpy.ndarray that is no contiguous array in the memory "
        f"of the CPU{fix}"
    )
    assert refused(ShapeError, step, x.tolist(), state) == (
        "x: expected float32 [N, 3], got list that is no contiguous array in the memory of the CPU"
        + fix
    )
    assert refused(ShapeError, step, x, step.initial_state(3)) == (
        f"h: expected float32 [B=2, 5], got float32 [3, 5]{fix}"
    )
    fix = "; take it from initial_state or from an earlier step"
    assert refused(ShapeError, step, x, state.h) == (
        f"state: expected a tuple of arrays, got numpy.ndarray{fix}"
    )
    assert refused(ShapeError, step, x, (state.h,)) == (
        "state: expected 2 arrays, got 1; pass one for each"
    )
    stack = Compiled(Stack(LSTM(3, 5), GRU(5, 5)).eval())
    assert refused(ShapeError, stack, x, state[:1]) == (
        f"state: expected a tuple of 2 parts, got 1 parts{fix}"
    )


def test_other_lengths_are_refused_in_one_line() -> None:
    step = Compiled(GRU(3, 5).eval())
    x = np.zeros((4, 3), np.float32)
    fix = "; count the steps of each sequence"
    for lengths, got in (([1, 2], "the sum 3"), ([5, -1], "one below 0"), ([2, 3], "the sum 5")):
        assert refused(ShapeError, step.unroll, x, lengths, step.initial_state(2)) == (
            f"lengths: expected numbers from 0 on that sum to N=4, got {got}{fix}"
        )
    assert refused(ShapeError, step.unroll, x, [4], step.initial_state(2)) == (
        "h: expected float32 [B=1, 5], got float32 [2, 5]; "
        "pass a contiguous array of this type and shape"
    )
