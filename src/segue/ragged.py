"""Sequences of unequal length without padding: the steps of all sequences, one sequence after
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils.rnn import PackedSequence

from segue.errors import ShapeError
from segue.shapes import check


def is_traced(x: Tensor) -> bool:
    """Whether calls on x are recorded rather than made, so that its values are not at hand."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    return type(x) is not Tensor and type(x) is not Parameter


Value = TypeVar("Value")


class _once(Generic[Value]):
    """A property that is computed once; functools.cached_property has a lock, which cannot be
    traced.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    def __get__(self, owner: Any, kind: type) -> Value:
        value = self.make(owner)
        if not torch.compiler.is_compiling():
            owner.__dict__[self.name] = value
        return value


@dataclass(frozen=True, eq=False)
class Ragged:
    """A batch of sequences: no padding, no mask, so what does not exist cannot change an answer.

    Sequence b owns the rows ``offsets[b] : offsets[b + 1]`` of ``values``. Zero-length sequences
    are legal.

    Args:
        values: ``[N, ...]``, the steps of the first sequence, then those of the second, and so on.
        lengths: int64 ``[B]`` on the CPU, the number of steps of each sequence; they sum to N.

    Raises:
        ShapeError: the lengths are not such, or do not sum to N.

    >>> x = Ragged(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 2]))
    >>> x.to_padded()
    tensor([[1., 0.],
            [0., 0.],
            [2., 3.]])
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        check("Ragged.values", self.values, "N ...")
        check("Ragged.lengths", self.lengths, "B", dtype=torch.int64)
        if self.lengths.device.type != "cpu":
            place = str(self.lengths.device)
            raise ShapeError("Ragged.lengths", "a tensor on the CPU", place, "call .cpu() on it")
        if is_traced(self.lengths):
            return
        if self.batch and int(self.lengths.min()) < 0:
            least = str(int(self.lengths.min()))
            raise ShapeError("Ragged.lengths", "no length below 0", least, "correct the lengths")
        if int(self.lengths.sum()) != self.total:
            got = f"values of {self.total} steps and lengths that sum to {int(self.lengths.sum())}"
            raise ShapeError("Ragged", "lengths that sum to N", got, "give one row per step")

    # Sizes and positions

    @property
    def batch(self) -> int:
        """B, the number of sequences."""
        return self.lengths.shape[0]

    @property
    def total(self) -> int:
        """N, the number of steps of all sequences."""
        return self.values.shape[0]

    @_once
    def offsets(self) -> Tensor:
        """int64 ``[B + 1]`` on the CPU: where each sequence starts in ``values``; N at the end."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    @_once
    def longest(self) -> int:
        """T, the number of steps of the longest sequence; 0 for an empty batch."""
        return int(self.lengths.max()) if self.batch else 0

    @_once
    def is_rectangular(self) -> bool:
        """Whether all sequences are equally long."""
        return self.longest * self.batch == self.total

    def rows(self) -> Tensor:
        """int64 ``[N]``: the sequence that each step belongs to."""
        return self._rows.to(self.values.device)

    def times(self) -> Tensor:
        """int64 ``[N]``: the index of each step within its sequence."""
        return self._times.to(self.values.device)

    @_once
    def _rows(self) -> Tensor:
        return torch.repeat_interleave(self.lengths, output_size=self.total)

    @_once
    def _times(self) -> Tensor:
        return torch.arange(self.total, device="cpu") - self.offsets[self._rows]

    @_once
    def by_time(self) -> tuple[Tensor, Tensor, list[int]]:
        """The order of a loop over time, in which finished sequences are always the last ones.

        Returns:
            the sequences from long to short ``[B]``; the steps sorted by time, then by that order
            ``[N]``; and for each time the number of sequences that have such a step (a list of T).
        """
        if self.is_rectangular:
            steps = torch.arange(self.total, device="cpu").reshape(self.batch, self.longest)
            steps = steps.t().flatten()
            return torch.arange(self.batch, device="cpu"), steps, [self.batch] * self.longest
        order = self.lengths.argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.batch, device="cpu")
        steps = (self._times * self.batch + rank[self._rows]).argsort()
        counts: list[int] = torch.bincount(self._times, minlength=self.longest).tolist()
        return order, steps, counts

    # Conversions

    @classmethod
    def rectangular(cls, x: Tensor) -> Ragged:
        """Takes all steps of each row of ``x`` ``[B, T, ...]``, as a view where x is contiguous."""
        check("Ragged.rectangular", x, "B T ...")
        batch, steps = x.shape[:2]
        even = unchecked(x.flatten(0, 1), torch.full((batch,), steps, device="cpu"))
        even.__dict__.update(is_rectangular=True, longest=steps if batch else 0)
        return even

    @classmethod
    def from_padded(cls, x: Tensor, lengths: Tensor | Sequence[int]) -> Ragged:
        """Takes the first ``lengths[b]`` steps of each row of ``x`` ``[B, T, ...]``."""
        check("Ragged.from_padded", x, "B T ...")
        lengths = as_lengths(lengths)
        check("lengths", lengths, "B", {"B": x.shape[0]})
        steps = x.shape[1]
        if x.shape[0] and int(lengths.max()) > steps:
            got = str(int(lengths.max()))
            raise ShapeError("lengths", f"at most T={steps}", got, "correct the lengths")
        if bool((lengths == steps).all()):
            return cls(x.reshape(-1, *x.shape[2:]), lengths)
        real = (torch.arange(steps, device="cpu") < lengths[:, None]).to(x.device)
        return cls(x[real], lengths)

    def to_padded(self, steps: int | None = None) -> Tensor:
        """``[B, T, ...]`` with 0 (False) on the steps that do not exist.

        Args:
            steps: T; by default the longest length.
        """
        steps = self.longest if steps is None else steps
        if steps < self.longest:
            expected = f"at least {self.longest} steps"
            raise ShapeError("to_padded", expected, str(steps), "ask for more")
        rest = self.values.shape[1:]
        if self.is_rectangular and steps == self.longest:
            return self.values.reshape(self.batch, steps, *rest)
        padded = self.values.new_zeros(self.batch * steps, *rest)
        places = (self._rows * steps + self._times).to(self.values.device)
        return padded.index_copy(0, places, self.values).reshape(self.batch, steps, *rest)

    @classmethod
    def from_list(cls, sequences: Sequence[Tensor]) -> Ragged:
        """From one tensor ``[T_i, ...]`` per sequence; at least one, since none says no shape."""
        if not sequences:
            raise ShapeError("Ragged.from_list", "at least one sequence", "none", "give one")
        lengths = torch.tensor([len(one) for one in sequences], device="cpu")
        return cls(torch.cat(list(sequences)), lengths)

    def to_list(self) -> list[Tensor]:
        """One tensor ``[T_i, ...]`` per sequence (views of ``values``)."""
        return [self.values[start:stop] for start, stop in pairwise(self.offsets.tolist())]

    @classmethod
    def from_packed(cls, packed: PackedSequence) -> Ragged:
        """From torch's PackedSequence, in the order that the user had before torch sorted it."""
        lengths, steps = _packed_order(packed)
        return cls(packed.data[steps.to(packed.data.device)], lengths)

    def to_packed(self, like: PackedSequence | None = None) -> PackedSequence:
        """To torch's PackedSequence (which has no zero-length sequences).

        Args:
            like: a packed sequence of the same lengths, whose order is then kept.
        """
        if like is not None:
            _, steps = _packed_order(like)
            places = steps.to(self.values.device)
            data = torch.empty_like(self.values).index_copy(0, places, self.values)
            return like._replace(data=data)
        if self.batch == 0 or int(self.lengths.min()) == 0:
            fix = "leave the empty sequences out with select"
            raise ShapeError("to_packed", "sequences of at least one step", "an empty one", fix)
        order, steps, counts = self.by_time
        device = self.values.device
        unsorted = order.argsort().to(device)
        data = self.values[steps.to(device)]
        return PackedSequence(data, torch.tensor(counts, device="cpu"), order.to(device), unsorted)

    @classmethod
    def from_nested(cls, nested: Tensor) -> Ragged:
        """From a torch nested tensor ``[B, (T_i), ...]`` of the jagged layout."""
        if not nested.is_nested:
            raise ShapeError("from_nested", "a nested tensor", "a plain one", "use from_padded")
        return cls.from_list(list(nested.unbind()))

    def to_nested(self) -> Tensor:
        """To a torch nested tensor ``[B, (T_i), ...]`` of the jagged layout, sharing ``values``."""
        offsets = self.offsets.to(self.values.device)
        nested: Tensor = torch.nested.nested_tensor_from_jagged(self.values, offsets)
        return nested

    def to(self, target: torch.device | torch.dtype | str) -> Ragged:
        """The values on another device or in another dtype; the lengths stay on the CPU."""
        return self.with_values(self.values.to(target))

    # Operations

    def with_values(self, values: Tensor) -> Ragged:
        """Other values ``[N, ...]`` for the same steps."""
        check("Ragged.with_values", values, "N ...", {"N": self.total})
        # The cached positions depend on the lengths alone, so the copy may share them.
        other = replace(self, values=values)
        known = {name: self.__dict__[name] for name in _CACHED if name in self.__dict__}
        other.__dict__.update(known)
        return other

    def select(self, rows: Tensor | Sequence[int]) -> Ragged:
        """The given sequences, in the given order; a sequence may be taken more than once.

        Args:
            rows: int64 ``[B']``, or a list of such.
        """
        rows = torch.as_tensor(rows, dtype=torch.int64).cpu()
        lengths = self.lengths[rows]
        chosen = torch.repeat_interleave(lengths)
        shift = self.offsets[rows] - (lengths.cumsum(0) - lengths)
        steps = torch.arange(len(chosen), device="cpu") + shift[chosen]
        return Ragged(self.values[steps.to(self.values.device)], lengths)

    def last(self) -> Tensor:
        """``[B, ...]``: the last step of each sequence; zeros for an empty one."""
        filled = self.lengths > 0
        if bool(filled.all()):
            return self.values[(self.offsets[1:] - 1).to(self.values.device)]
        rows = filled.nonzero().squeeze(1).to(self.values.device)
        ends = (self.offsets[1:] - 1)[filled].to(self.values.device)
        zeros = self.values.new_zeros(self.batch, *self.values.shape[1:])
        return zeros.index_copy(0, rows, self.values[ends])

    def reversed(self) -> Ragged:
        """Each sequence backwards, within its own length."""
        ends = self.offsets[1:][self._rows] - 1
        return self.with_values(self.values[(ends - self._times).to(self.values.device)])

    def split_at(self, flags: Tensor) -> tuple[Ragged, Tensor]:
        """Cuts sequences into pieces: a flag at step t starts a new piece there.

        A sequence with k flags becomes k + 1 pieces, in order; a flag at its first step leaves an
        empty first piece.

        Args:
            flags: bool ``[N]``.

        Returns:
            the pieces, and the sequence that each piece came from, int64 on the CPU.
        """
        check("flags", flags, "N", {"N": self.total}, dtype=torch.bool)
        cuts = flags.cpu().nonzero().squeeze(1)
        pieces = 1 + torch.bincount(self._rows[cuts], minlength=self.batch)
        owner = torch.repeat_interleave(pieces)
        first = pieces.cumsum(0) - pieces
        starts = torch.empty_like(owner)
        starts[first] = self.offsets[:-1]
        is_later = torch.ones(len(owner), dtype=torch.bool, device="cpu")
        is_later[first] = False
        starts[is_later] = cuts
        ends = torch.cat([starts[1:], starts.new_tensor([self.total])])
        return Ragged(self.values, ends - starts), owner


_CACHED = ("offsets", "longest", "is_rectangular", "_rows", "_times", "by_time")


def unchecked(values: Tensor, lengths: Tensor) -> Ragged:
    """A Ragged of lengths that fit. They are not looked at: that costs as much as a short scan, and
    where calls are traced they cannot be.
    """
    made = object.__new__(Ragged)
    made.__dict__.update(values=values, lengths=lengths)
    return made


def one_step(x: Tensor) -> Ragged:
    """The rows of x as B sequences of one step each."""
    # What traces calls would record the cache, too.
    return unchecked(x, _ones(x.shape[0]) if is_traced(x) else _kept_ones(x.shape[0]))


def _ones(batch: int) -> Tensor:
    return torch.ones(batch, dtype=torch.int64, device="cpu")


_kept_ones = lru_cache(maxsize=64)(_ones)


def as_lengths(lengths: Tensor | Sequence[int]) -> Tensor:
    """Lengths in any integer form as int64 ``[B]`` on the CPU."""
    given = torch.as_tensor(lengths, device="cpu")
    if given.is_floating_point():
        raise ShapeError("lengths", "whole numbers", str(given.dtype), "convert them to int64")
    return given.to(torch.int64)


def _packed_order(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """The user's lengths ``[B]``, and the row in ``packed.data`` of each step of the Ragged."""
    counts = packed.batch_sizes.cpu()
    starts = counts.cumsum(0) - counts
    sorted_lengths = (counts[:, None] > torch.arange(int(counts[0]), device="cpu")).sum(0)
    order = packed.unsorted_indices
    ranks = torch.arange(len(sorted_lengths), device="cpu") if order is None else order.cpu()
    lengths = sorted_lengths[ranks]
    rows = torch.repeat_interleave(lengths)
    times = torch.arange(len(rows), device="cpu") - (lengths.cumsum(0) - lengths)[rows]
    return lengths, starts[times] + ranks[rows]
