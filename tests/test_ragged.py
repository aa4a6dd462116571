"""Ragged: conversions there and back, and operations against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from segue import ops
from segue.errors import ShapeError
from segue.ragged import Ragged

LENGTHS = [3, 0, 5, 1, 5]


@pytest.fixture
def x() -> Ragged:
    return Ragged(torch.randn(sum(LENGTHS), 2), torch.tensor(LENGTHS))


def equal(a: Ragged, b: Ragged) -> bool:
    return torch.equal(a.values, b.values) and torch.equal(a.lengths, b.lengths)


# Conversions


def test_padded_and_back(x: Ragged) -> None:
    padded = x.to_padded()
    assert padded.shape == (5, 5, 2)
    assert equal(Ragged.from_padded(padded, LENGTHS), x)
    for row, part in zip(padded, x.to_list(), strict=True):
        assert torch.equal(row[: len(part)], part)
        assert not row[len(part) :].any()


def test_to_padded_of_more_steps(x: Ragged) -> None:
    assert torch.equal(x.to_padded(7)[:, :5], x.to_padded())
    assert not x.to_padded(7)[:, 5:].any()


def test_to_padded_of_too_few_steps(x: Ragged) -> None:
    with pytest.raises(ShapeError) as caught:
        x.to_padded(4)
    assert str(caught.value) == "to_padded: expected at least 5 steps, got 4; ask for more"


def test_padded_flags_are_false() -> None:
    flags = Ragged(torch.tensor([True, True, True]), torch.tensor([1, 2]))
    assert flags.to_padded().tolist() == [[True, False], [True, True]]


def test_list_and_back(x: Ragged) -> None:
    assert [len(part) for part in x.to_list()] == LENGTHS
    assert equal(Ragged.from_list(x.to_list()), x)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_packed_of_torch_and_back(is_sorted: bool) -> None:
    parts = [torch.randn(n, 2) for n in ([5, 3, 3, 1] if is_sorted else [3, 5, 1, 3])]
    packed = pack_sequence(parts, enforce_sorted=is_sorted)
    x = Ragged.from_packed(packed)
    assert equal(x, Ragged.from_list(parts))
    again = x.to_packed(like=packed)
    assert torch.equal(again.data, packed.data)
    assert torch.equal(again.batch_sizes, packed.batch_sizes)


def test_to_packed_is_what_torch_packs() -> None:
    x = Ragged.from_list([torch.randn(n, 2) for n in [3, 5, 1, 4]])
    packed = pack_padded_sequence(x.to_padded(), x.lengths, True, enforce_sorted=False)
    ours = x.to_packed()
    assert torch.equal(ours.data, packed.data)
    assert torch.equal(ours.batch_sizes, packed.batch_sizes)
    assert torch.equal(pad_packed_sequence(ours, True)[0], x.to_padded())


def test_to_packed_refuses_an_empty_sequence(x: Ragged) -> None:
    with pytest.raises(ShapeError) as caught:
        x.to_packed()
    assert str(caught.value) == (
        "to_packed: expected sequences of at least one step, got an empty one; "
        "leave the empty sequences out with select"
    )


def test_nested_and_back(x: Ragged) -> None:
    nested = x.to_nested()
    assert nested.is_nested
    assert nested.layout == torch.jagged
    assert equal(Ragged.from_nested(nested), x)
    of_torch = torch.nested.nested_tensor(x.to_list(), layout=torch.jagged)
    assert equal(Ragged.from_nested(of_torch), x)


# Operations


def test_rows_times_and_offsets(x: Ragged) -> None:
    assert x.offsets.tolist() == [0, 3, 3, 8, 9, 14]
    assert x.rows().tolist() == [0] * 3 + [2] * 5 + [3] + [4] * 5
    assert x.times().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4]
    assert (x.batch, x.total, x.longest) == (5, 14, 5)


def test_by_time_is_the_order_of_a_loop_over_time(x: Ragged) -> None:
    order, steps, counts = x.by_time
    assert order.tolist() == [2, 4, 0, 3, 1]
    assert counts == [4, 3, 3, 2, 2]
    assert steps.tolist() == [3, 9, 0, 8, 4, 10, 1, 5, 11, 2, 6, 12, 7, 13]


def test_select_takes_sequences_in_any_order_and_twice(x: Ragged) -> None:
    parts = x.to_list()
    chosen = x.select([4, 1, 0, 0])
    assert equal(chosen, Ragged.from_list([parts[4], parts[1], parts[0], parts[0]]))
    assert x.select([]).batch == 0


def test_last_is_the_last_step_or_zero(x: Ragged) -> None:
    parts = x.to_list()
    expected = [part[-1] if len(part) else torch.zeros(2) for part in parts]
    assert torch.equal(x.last(), torch.stack(expected))
    assert torch.equal(x.select([0, 2]).last(), torch.stack([parts[0][-1], parts[2][-1]]))


def test_reversed_turns_each_sequence_within_its_length(x: Ragged) -> None:
    assert equal(x.reversed(), Ragged.from_list([part.flip(0) for part in x.to_list()]))
    assert equal(x.reversed().reversed(), x)


def test_split_at_starts_pieces_at_the_flags(x: Ragged) -> None:
    flags = torch.zeros(14, dtype=torch.bool)
    flags[[3, 5, 7, 13]] = True
    pieces, owner = x.split_at(flags)
    assert owner.tolist() == [0, 1, 2, 2, 2, 2, 3, 4, 4]
    assert pieces.lengths.tolist() == [3, 0, 0, 2, 2, 1, 1, 4, 1]
    assert torch.equal(pieces.values, x.values)


def test_split_at_without_flags_changes_nothing(x: Ragged) -> None:
    pieces, owner = x.split_at(torch.zeros(14, dtype=torch.bool))
    assert equal(pieces, x)
    assert owner.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.skipif(ops.native_name() is None, reason="the native module is not built")
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_native_cut_is_that_of_split_at(share: float) -> None:
    for lengths in ([4, 0, 1, 0, 7], [0, 0], [5]):
        x = Ragged(torch.zeros(sum(lengths), 1), torch.tensor(lengths))
        flags = torch.rand(x.total, generator=torch.Generator().manual_seed(1)) < share
        pieces, owner = x.split_at(flags)
        found = ops.cut(x.lengths, flags)
        assert found is not None
        cut, first, last = found
        assert torch.equal(cut, pieces.lengths)
        for b in range(x.batch):
            assert (owner == b).nonzero().flatten().tolist() == list(range(first[b], last[b] + 1))


def test_with_values_keeps_the_steps(x: Ragged) -> None:
    assert x.rows().tolist() == x.with_values(torch.randn(14, 3, 1)).rows().tolist()


def test_to_changes_the_values_alone(x: Ragged) -> None:
    other = x.to(torch.float64)
    assert other.values.dtype == torch.float64
    assert other.lengths.dtype == torch.int64


def test_gradients_flow_through_the_conversions(x: Ragged) -> None:
    values = x.values.double().requires_grad_()

    def there_and_back(values: Tensor) -> Tensor:
        given = x.with_values(values)
        padded = given.to_padded()
        again = Ragged.from_padded(padded, x.lengths).reversed().select([2, 0, 2])
        return again.last() + again.values.sum()

    assert torch.autograd.gradcheck(there_and_back, (values,))


# Refusals


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (
            torch.tensor([1, 3]),
            "Ragged: expected lengths that sum to N, got values of 3 steps and lengths that sum "
            "to 4; give one row per step",
        ),
        (
            torch.tensor([-1, 4]),
            "Ragged.lengths: expected no length below 0, got -1; correct the lengths",
        ),
        (
            torch.tensor([1.0, 2.0]),
            "Ragged.lengths: expected int64, got float32; convert it with .to(torch.int64)",
        ),
        (torch.tensor(3), "Ragged.lengths: expected [B], got []; add or remove axes"),
    ],
)
def test_wrong_lengths(lengths: Tensor, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        Ragged(torch.zeros(3, 1), lengths)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([4, 1], "lengths: expected at most T=3, got 4; correct the lengths"),
        ([1], "lengths: expected [B=2], got [1]; change the number of sequences"),
        ([1.5, 1.0], "lengths: expected whole numbers, got torch.float32; convert them to int64"),
    ],
)
def test_wrong_lengths_of_padded(lengths: list[int], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        Ragged.from_padded(torch.zeros(2, 3), lengths)
    assert str(caught.value) == message


def test_other_refusals(x: Ragged) -> None:
    refused = {
        "Ragged.from_list: expected at least one sequence, got none; give one": (
            lambda: Ragged.from_list([])
        ),
        "from_nested: expected a nested tensor, got a plain one; use from_padded": (
            lambda: Ragged.from_nested(torch.zeros(2, 3))
        ),
        "Ragged.with_values: expected [N=14, ...], got [13]; change the number of steps of all "
        "sequences": lambda: x.with_values(torch.zeros(13)),
        "flags: expected bool, got float32; convert it with .to(torch.bool)": (
            lambda: x.split_at(torch.zeros(14))
        ),
    }
    for message, call in refused.items():
        with pytest.raises(ShapeError) as caught:
            call()
        assert str(caught.value) == message
