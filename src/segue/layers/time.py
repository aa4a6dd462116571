"""`unroll`, the one way through time, for cells and for layers that look ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import Cell
from segue.errors import CausalError, ShapeError, SpecError
from segue.layers.segments import Checkpoint, scan_in_segments, segment_steps
from segue.ops import State, map_state
from segue.ragged import Ragged, unchecked
from segue.shapes import check

Scan: TypeAlias = Callable[[Ragged, State], tuple[Tensor, State]]
Container = TypeVar("Container", Tensor, Ragged)


@runtime_checkable
class Scans(Protocol):
    """A cell with a faster way through time than its steps one by one."""

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: x ``[N, I]``, the state of B rows -> y ``[N, O]``, the final state."""


def unroll(
    layer: Cell | Acausal,
    x: Container,
    state: State | None = None,
    reset: Tensor | Ragged | None = None,
    *,
    checkpoint: Checkpoint | None = None,
) -> tuple[Container, State]:
    """Takes a cell through time. For each sequence it means

        for t in range(length):
            if reset[t]: state = cell.initial_state(1)
            y[t], state = cell.step(x[t], state)

    Args:
        layer: a cell, or a layer that is not causal.
        x: ``[B, T, I]``, or a Ragged of ``[N, I]``.
        state: the state before the first step; by default the initial one.
        reset: bool ``[B, T]``, or a Ragged of bool ``[N]``; where True, the state is the initial
            one *before* that step.
        checkpoint: the steps of a segment, or "sqrt" for the root of T: back-propagation then keeps
            the states between segments alone and runs each segment once more, which takes the time
            of a second way through and memory for one segment instead of all steps. The gradients
            are the same; random numbers are drawn segment by segment. Of a cell only; its gradients
            reach x, the state and the cell's parameters, and cannot be differentiated again.

    Returns:
        y in the container of x (``[B, T, O]``, or a Ragged of ``[N, O]``), and the state of each
        sequence after its own last step; a sequence without steps keeps its state.

    Raises:
        ShapeError: x, the state or reset do not fit.
        SpecError: another checkpoint, or a checkpoint for a layer that is not a cell.

    >>> from segue.cells import LSTM
    >>> y, state = unroll(LSTM(3, 5), torch.zeros(2, 4, 3))
    >>> y.shape, state.c.shape
    (torch.Size([2, 4, 5]), torch.Size([2, 5]))
    """
    if isinstance(x, Ragged):
        check("unroll.x", x.values, "N I ...", {"I": layer.inputs})
        steps = x
    else:
        steps = as_steps(x, layer.inputs)
    flags = None if reset is None else as_flags(reset, steps)
    if isinstance(layer, Acausal):
        if checkpoint is not None:
            got = f"{type(layer).__name__}: {layer.reason()}"
            raise SpecError("unroll.checkpoint", "a cell", got, "leave checkpoint out")
        values, final = layer.scan(steps, state, flags)
    else:
        values, final = _scan_cell(layer, steps, state, flags, checkpoint)
    if isinstance(x, Ragged):
        return x.with_values(values), final
    return values.reshape(*x.shape[:2], *values.shape[1:]), final


def _scan_cell(
    cell: Cell, x: Ragged, state: State | None, flags: Tensor | None, checkpoint: Checkpoint | None
) -> tuple[Tensor, State]:
    def scan(x: Ragged, state: State | None, flags: Tensor | None) -> tuple[Tensor, State]:
        return scan_resetting(scan_of(cell), cell.initial_state, x, state, flags)

    if checkpoint is None:
        return scan(x, state, flags)
    steps = segment_steps(checkpoint, x.longest)
    start = cell.initial_state(x.batch) if state is None else state
    return scan_in_segments(cell, scan, x, start, flags, steps)


def as_steps(x: Tensor, inputs: int) -> Ragged:
    """``[B, T, I, ...]`` as B sequences of T steps (a view where x is contiguous)."""
    check("unroll.x", x, "B T I ..." if x.dim() > 3 else "B T I", {"I": inputs})
    return Ragged.rectangular(x)


def as_flags(reset: Tensor | Ragged, x: Ragged) -> Tensor:
    """Reset flags, ``[B, T]`` or Ragged, as bool ``[N]`` for the steps of x."""
    if isinstance(reset, Tensor):
        check("reset", reset, "B T", {"B": x.batch, "T": x.longest}, dtype=torch.bool)
        if x.is_rectangular:
            return reset.reshape(-1)
        return Ragged.from_padded(reset, x.lengths).values
    check("reset", reset.values, "N", {"N": x.total}, dtype=torch.bool)
    if not torch.equal(reset.lengths, x.lengths):
        fix = "take it from x.with_values(flags)"
        raise ShapeError("reset", "the lengths of x", "other lengths", fix)
    return reset.values


def scan_of(cell: Cell) -> Scan:
    """The cell's own way through time, or else the loop over its steps."""
    # By name, not by isinstance of Scans, which takes longer than a short scan.
    scan: Scan | None = getattr(cell, "scan", None)
    return scan or (lambda x, state: ops.loop(cell.step, x, state))


def scan_resetting(
    scan: Scan,
    initial_state: Callable[[int], State],
    x: Ragged,
    state: State | None,
    flags: Tensor | None,
) -> tuple[Tensor, State]:
    """A scan with resets, by the law that a reset sequence equals two sequences.

    The first piece of each sequence starts from its state (None: the initial one), the later ones
    from the initial one; the final state is that of the last piece. So a reset costs next to
    nothing, and keeps whatever path the scan takes.
    """
    if flags is not None:
        pieces, first, last = _cut(x, flags)
    if flags is None or pieces.batch == x.batch:
        return scan(x, initial_state(x.batch) if state is None else state)
    start = initial_state(pieces.batch)
    if state is not None:
        start = map_state(lambda given, fresh: _placed(fresh, first, given), state, start)
    values, final = scan(pieces, start)
    return values, map_state(lambda s: s.index_select(0, last.to(s.device)), final)


def _cut(x: Ragged, flags: Tensor) -> tuple[Ragged, Tensor, Tensor]:
    """The pieces between resets, and of each sequence the first and the last one, ``[B]``."""
    found = ops.cut(x.lengths, flags)
    if found is not None:
        lengths, first, last = found
        return unchecked(x.values, lengths), first, last
    pieces, owner = x.split_at(flags)
    rows = torch.arange(x.batch, device="cpu")
    last = torch.searchsorted(owner, rows, right=True) - 1
    return pieces, torch.searchsorted(owner, rows), last


def _placed(rows: Tensor, places: Tensor, others: Tensor) -> Tensor:
    """The rows, with others at some places."""
    return rows.to(others.dtype).index_copy(0, places.to(rows.device), others)


def backward_flags(x: Ragged, flags: Tensor) -> Tensor:
    """Reset flags ``[N]`` as the backward direction meets them.

    A cut before step t is, read backwards, one before step t - 1.
    """
    shifted = flags.roll(-1)
    filled = x.offsets[1:][x.lengths > 0].to(flags.device)
    shifted[filled - 1] = False
    return x.with_values(shifted).reversed().values


class Acausal(nn.Module, ABC):
    """A layer that needs the whole sequence: it has `unroll` only, and cannot run live.

    Attributes:
        inputs: I.
        outputs: O.
    """

    inputs: int
    outputs: int

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of ``batch`` sequences before they are read."""

    @abstractmethod
    def scan(self, x: Ragged, state: State | None, flags: Tensor | None) -> tuple[Tensor, State]:
        """All steps: x ``[N, I]``, reset flags ``[N]`` -> y ``[N, O]``, final state."""

    @abstractmethod
    def reason(self) -> str:
        """Why it cannot be stepped."""

    def unroll(
        self, x: Container, state: State | None = None, reset: Tensor | Ragged | None = None
    ) -> tuple[Container, State]:
        """As `segue.layers.unroll`."""
        return unroll(self, x, state, reset)

    def step(self, x: Tensor, state: State) -> NoReturn:
        """Refused.

        Raises:
            CausalError: always, with the reason.
        """
        raise CausalError(f"{type(self).__name__} cannot be stepped: {self.reason()}")
