"""Every law that a cell or layer promises, over every row of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import EXACT, LAW, ROWS, Row, cells, rows
from safetensors.torch import load_file, save_file
from torch import Tensor

from segue import ops
from segue.layers import unroll
from segue.ops import map_state
from segue.ragged import Ragged

LENGTHS = [7, 0, 12, 1, 5, 12, 0, 2, 9]
SIZES = [(4, 5), (19, 40)]

# Within one path of float32 that is not the native one, sums may be taken in another order.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def by_name(*given: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", given, ids=[row.name for row in given])


@pytest.fixture(params=SIZES, ids=["small", "wide"])
def sizes(request: pytest.FixtureRequest) -> tuple[int, int]:
    """I and H."""
    sizes: tuple[int, int] = request.param
    return sizes


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    dtype: torch.dtype = request.param
    return dtype


pytestmark = pytest.mark.usefixtures("one_thread")


def batch(inputs: int, dtype: torch.dtype, lengths: list[int] | None = None) -> Ragged:
    lengths = LENGTHS if lengths is None else lengths
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(sum(lengths), inputs, generator=generator, dtype=torch.float64)
    return Ragged(values.to(dtype), torch.tensor(lengths))


def some_state(layer: Any, size: int) -> Any:
    """A state unlike the initial one."""
    generator = torch.Generator().manual_seed(8)

    def draw(leaf: Tensor) -> Tensor:
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        return (0.3 * noise).to(leaf.dtype)

    return map_state(draw, layer.initial_state(size))


def hold_equal(row: Row, actual: Any, expected: Any) -> None:
    """To the bit on the native path, within the tolerance elsewhere; a NaN is never equal."""
    pairs = list(zip(ops.leaves(actual), ops.leaves(expected), strict=True))
    for a, b in pairs:
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        if EXACT in row.tags and a.dtype == torch.float32 and not a.requires_grad:
            assert torch.equal(a, b), f"bits differ by up to {(a - b).abs().max()}"
        else:
            hold_close(a, b, TOLERANCE[a.dtype])


def hold_close(a: Tensor, b: Tensor, tolerance: float) -> None:
    scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
    difference = float((a - b).detach().abs().max()) if b.numel() else 0.0
    assert difference <= tolerance * scale


def test_comparison_fails_on_nan() -> None:
    nan = torch.tensor([float("nan")])
    with pytest.raises(AssertionError):
        hold_close(nan, nan, 1.0)
    with pytest.raises(AssertionError):
        hold_equal(cells(EXACT)[0], nan, nan)


# Time


def in_chunks(cell: Any, x: Ragged, state: Any, size: int) -> tuple[Tensor, Any]:
    """Outputs and state of one sequence taken ``size`` steps at a time."""
    outputs = []
    for part in x.values.split(size):
        y, state = unroll(cell, part[None], state)
        outputs.append(y[0])
    return torch.cat(outputs), state


@by_name(*cells())
def test_steps_equal_unroll(row: Row, sizes: tuple[int, int], dtype: torch.dtype) -> None:
    cell = row.build(*sizes, dtype)
    x = batch(sizes[0], dtype, [9])
    state = some_state(cell, 1)
    with torch.no_grad():
        whole = unroll(cell, x, state)
        outputs = []
        for step in x.values:
            y, state = cell.step(step[None], state)
            outputs.append(y)
    hold_equal(row, (torch.cat(outputs), state), (whole[0].values, whole[1]))


@by_name(*cells())
@pytest.mark.parametrize("size", [1, 2, 4])
def test_chunks_equal_unroll(
    row: Row, size: int, sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    cell = row.build(*sizes, dtype)
    x = batch(sizes[0], dtype, [9])
    state = some_state(cell, 1)
    with torch.no_grad():
        whole, final = unroll(cell, x, state)
        hold_equal(row, in_chunks(cell, x, state, size), (whole.values, final))


@by_name(*cells())
def test_chunks_equal_unroll_where_gradients_flow(row: Row, dtype: torch.dtype) -> None:
    cell = row.build(4, 5, dtype)
    x = batch(4, dtype, [9])
    whole, final = unroll(cell, x.with_values(x.values.requires_grad_()))
    chunks, last = in_chunks(cell, x, cell.initial_state(1), 4)
    for a, b in zip(ops.leaves((chunks, last)), ops.leaves((whole.values, final)), strict=True):
        hold_close(a, b, TOLERANCE[dtype])


@by_name(*cells())
def test_a_step_leaves_its_state_as_it_was(row: Row) -> None:
    cell = row.build(4, 5)
    state = some_state(cell, 3)
    before = map_state(torch.clone, state)
    with torch.no_grad():
        cell.step(torch.randn(3, 4), state)
        unroll(cell, torch.randn(3, 6, 4), state)
    hold_equal(row, state, before)


@by_name(*cells())
def test_the_past_does_not_see_the_future(row: Row) -> None:
    cell = row.build(4, 5)
    x = batch(4, torch.float32, [9])
    other = x.values.clone()
    other[6:] += 1
    with torch.no_grad():
        y, changed = unroll(cell, x)[0].values, unroll(cell, x.with_values(other))[0].values
    hold_equal(row, y[:6], changed[:6])
    assert not torch.equal(y[6:], changed[6:])


# Batch


@by_name(*ROWS)
def test_alone_equals_in_a_batch(row: Row, sizes: tuple[int, int], dtype: torch.dtype) -> None:
    layer = row.build(*sizes, dtype)
    x = batch(sizes[0], dtype)
    state = some_state(layer, x.batch)
    with torch.no_grad():
        y, final = unroll(layer, x, state)
        for b in range(x.batch):
            rows = torch.tensor([b])
            alone = unroll(layer, x.select(rows), map_state(lambda s, r=rows: s[r], state))
            together = y.select(rows).values, map_state(lambda s, r=rows: s[r], final)
            hold_equal(row, (alone[0].values, alone[1]), together)


@by_name(*ROWS)
def test_the_order_of_a_batch_does_not_matter(row: Row, dtype: torch.dtype) -> None:
    layer = row.build(19, 40, dtype)
    x = batch(19, dtype)
    state = some_state(layer, x.batch)
    order = torch.randperm(x.batch, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        y, final = unroll(layer, x, state)
        shuffled = unroll(layer, x.select(order), map_state(lambda s: s[order], state))
    expected = y.select(order).values, map_state(lambda s: s[order], final)
    hold_equal(row, (shuffled[0].values, shuffled[1]), expected)


@by_name(*ROWS)
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_does_not_matter(row: Row, threads: int) -> None:
    layer = row.build(19, 40)
    x = batch(19, torch.float32, LENGTHS * 5)
    with torch.no_grad():
        y, final = unroll(layer, x)
        torch.set_num_threads(threads)
        other, last = unroll(layer, x)
    hold_equal(row, (other.values, last), (y.values, final))


@by_name(*ROWS)
def test_nan_stays_in_its_sequence(row: Row) -> None:
    layer = row.build(4, 5)
    x = batch(4, torch.float32)
    spoiled = x.values.clone()
    spoiled[x.offsets[2] + 3] = float("nan")
    kept = torch.tensor([b for b in range(x.batch) if b != 2])
    with torch.no_grad():
        y, final = unroll(layer, x)
        other, last = unroll(layer, x.with_values(spoiled))
    assert other.select([2]).values.isnan().any()
    expected = y.select(kept).values, map_state(lambda s: s[kept], final)
    hold_equal(row, (other.select(kept).values, map_state(lambda s: s[kept], last)), expected)


# Containers and lengths


@by_name(*ROWS)
def test_ragged_equals_padded(row: Row, dtype: torch.dtype) -> None:
    layer = row.build(4, 5, dtype)
    x = torch.randn(3, 6, 4, dtype=dtype)
    with torch.no_grad():
        padded, final = unroll(layer, x)
        ragged, last = unroll(layer, Ragged.from_list(list(x)))
    hold_equal(row, (ragged.to_padded(), last), (padded, final))


@by_name(*ROWS)
def test_what_lies_in_the_padding_does_not_matter(row: Row) -> None:
    layer = row.build(4, 5)
    x = torch.randn(3, 6, 4)
    junk = x.clone()
    lengths = torch.tensor([6, 2, 0])
    junk[torch.arange(6) >= lengths[:, None]] = float("nan")
    with torch.no_grad():
        clean = unroll(layer, Ragged.from_padded(x, lengths))
        other = unroll(layer, Ragged.from_padded(junk, lengths))
    hold_equal(row, (other[0].values, other[1]), (clean[0].values, clean[1]))


@by_name(*ROWS)
def test_a_sequence_without_steps_keeps_its_state(row: Row, dtype: torch.dtype) -> None:
    layer = row.build(4, 5, dtype)
    x = batch(4, dtype)
    state = some_state(layer, x.batch)
    empty = x.lengths == 0
    with torch.no_grad():
        _, final = unroll(layer, x, state)
    hold_equal(row, map_state(lambda s: s[empty], final), map_state(lambda s: s[empty], state))


@by_name(*ROWS)
def test_a_batch_of_no_steps_is_legal(row: Row, dtype: torch.dtype) -> None:
    layer = row.build(4, 5, dtype)
    state = some_state(layer, 2)
    with torch.no_grad():
        y, final = unroll(layer, batch(4, dtype, [0, 0]), state)
        none, _ = unroll(layer, batch(4, dtype, [3]).select([]))
    assert y.values.shape == (0, layer.outputs) == none.values.shape
    hold_equal(row, final, state)


@by_name(*cells())
def test_the_final_state_is_that_of_the_own_last_step(row: Row, dtype: torch.dtype) -> None:
    cell = row.build(4, 5, dtype)
    x = batch(4, dtype)
    with torch.no_grad():
        _, final = unroll(cell, x)
        for b, length in enumerate(x.lengths.tolist()):
            state = cell.initial_state(1)
            for step in x.to_list()[b][:length]:
                _, state = cell.step(step[None], state)
            hold_equal(row, map_state(lambda s, b=b: s[b : b + 1], final), state)


# Reset


def flags_for(x: Ragged) -> Tensor:
    flags = torch.rand(x.total, generator=torch.Generator().manual_seed(5)) < 0.3
    flags[0] = True
    flags[x.offsets[1:][x.lengths > 0] - 1] |= torch.arange(int((x.lengths > 0).sum())) % 2 == 0
    return flags


@by_name(*cells())
def test_a_reset_takes_the_initial_state_before_its_step(row: Row, dtype: torch.dtype) -> None:
    cell = row.build(4, 5, dtype)
    x = batch(4, dtype)
    flags = flags_for(x)
    state = some_state(cell, x.batch)
    outputs, finals = [], []
    with torch.no_grad():
        y, final = unroll(cell, x, state, x.with_values(flags))
        for b, part in enumerate(x.to_list()):
            now = map_state(lambda s, b=b: s[b : b + 1], state)
            for step, is_reset in zip(part, x.with_values(flags).to_list()[b], strict=True):
                now = cell.initial_state(1) if is_reset else now
                output, now = cell.step(step[None], now)
                outputs.append(output)
            finals.append(now)
    expected = torch.cat(outputs), map_state(lambda *parts: torch.cat(parts), *finals)
    hold_equal(row, (y.values, final), expected)


@by_name(*ROWS)
def test_a_reset_sequence_equals_two_sequences(row: Row, dtype: torch.dtype) -> None:
    layer = row.build(4, 5, dtype)
    x = torch.randn(3, 8, 4, dtype=dtype)
    reset = torch.zeros(3, 8, dtype=torch.bool)
    reset[:, 5] = True
    with torch.no_grad():
        y, _ = unroll(layer, x, None, reset)
        first, second = unroll(layer, x[:, :5])[0], unroll(layer, x[:, 5:])[0]
    hold_equal(row, y, torch.cat([first, second], dim=1))


@by_name(*ROWS)
def test_no_reset_flag_is_no_reset(row: Row) -> None:
    layer = row.build(4, 5)
    x = torch.randn(3, 8, 4)
    with torch.no_grad():
        expected = unroll(layer, x)
        actual = unroll(layer, x, None, torch.zeros(3, 8, dtype=torch.bool))
    hold_equal(row, actual, expected)


# Gradients and paths


@by_name(*rows())
def test_gradients_are_those_of_the_function(row: Row) -> None:
    layer = row.build(3, 4, torch.float64)
    x = batch(3, torch.float64, [3, 0, 2])
    weights = list(layer.parameters())
    state = some_state(layer, 3)
    leaves = [leaf.requires_grad_() for leaf in ops.leaves(state)]

    def run(values: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        y, final = unroll(layer, x.with_values(values), state)
        return y.values, *(leaf for leaf in ops.leaves(final) if leaf.requires_grad)

    assert torch.autograd.gradcheck(run, (x.values.clone().requires_grad_(), *leaves, *weights))


@by_name(*cells(LAW))
def test_every_path_equals_the_equation(
    row: Row, sizes: tuple[int, int], dtype: torch.dtype
) -> None:
    cell = row.build(*sizes, dtype)
    law = cell.law()
    x = batch(sizes[0], dtype, [*LENGTHS, 40, 3])
    state = some_state(cell, x.batch)
    slow = ops.loop(lambda step, now: law.advance(law.project(step), now), x, state)
    with torch.no_grad():
        quick = cell.scan(x, state)
    fast = cell.scan(x, state)
    for name, other in (("inference", quick), ("training", fast)):
        for a, b in zip(ops.leaves(other), ops.leaves(slow), strict=True):
            assert a.dtype == b.dtype, name
            hold_close(a, b, TOLERANCE[dtype])


@by_name(*cells(LAW))
def test_every_path_has_the_gradients_of_the_equation(row: Row, dtype: torch.dtype) -> None:
    cell = row.build(4, 5, dtype)
    law = cell.law()
    x = batch(4, dtype, [*LENGTHS, 40, 3])
    values = x.values.requires_grad_()
    state = some_state(cell, x.batch)
    inputs = [values, *(leaf.requires_grad_() for leaf in ops.leaves(state)), *law.weights()]

    def gradients(y: Tensor, final: Any) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(9)
        parts = [y, *ops.leaves(final)]
        weighed = [part * torch.randn(part.shape, generator=generator).to(dtype) for part in parts]
        return torch.autograd.grad(sum(part.sum() for part in weighed), inputs)

    slow = gradients(*ops.loop(lambda step, now: law.advance(law.project(step), now), x, state))
    fast = gradients(*cell.scan(x, state))
    for a, b in zip(fast, slow, strict=True):
        hold_close(a, b, TOLERANCE[dtype])


# Files


@by_name(*ROWS)
def test_saved_weights_give_the_same_bits(row: Row, tmp_path: Path) -> None:
    layer = row.build(4, 5)
    x = batch(4, torch.float32)
    save_file(layer.state_dict(), tmp_path / "weights.safetensors")
    other = row.make(4, 5).eval()
    with torch.no_grad():
        # A first call, so that nothing kept from the old weights may survive the load.
        unroll(other, x)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        expected, final = unroll(layer, x)
        actual, last = unroll(other, x)
    assert torch.equal(actual.values, expected.values)
    for a, b in zip(ops.leaves(last), ops.leaves(final), strict=True):
        assert torch.equal(a, b)
