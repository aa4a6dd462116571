"""What a cell is, and what the cells with a law of their own have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.law import QUIET, Law, Noise
from segue.errors import ShapeError, SpecError
from segue.ops import State
from segue.ragged import Ragged
from segue.shapes import check


class Cell(nn.Module, ABC):
    """One step of something causal: pure, with the state passed in and handed back.

    A state is a tensor with leading axis B, or a (named) tuple or dict of states; ``()`` for a cell
    without memory. The rows of a batch never influence each other. Time is `segue.layers.unroll`.

    A cell may also offer ``scan(x: Ragged, state) -> (y values [N, O], final state)``, which must
    equal the loop over its steps.

    Attributes:
        reads: what an input holds besides x_t: ``"elapsed"``, in front the time D_t since the step
            before; ``"observed"``, that and behind x_t a flag for each of its features, 1 where it
            was observed. Such a cell is made with the number of features alone.
        inputs: I, the size of an input.
        outputs: O, the size of an output.
    """

    reads: ClassVar[str] = ""
    inputs: int
    outputs: int

    def __init__(self, **sizes: int) -> None:
        """Holds the sizes that a cell is made with, by the names of its arguments.

        Raises:
            SpecError: one is no whole number, or below 1.
        """
        super().__init__()
        for name, size in sizes.items():
            check_count(f"{type(self).__name__}.{name}", size)

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The state of ``batch`` sequences before their first step."""

    @abstractmethod
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of B sequences.

        Args:
            x: ``[B, I]``.
            state: what `initial_state` or an earlier step gave.

        Returns:
            y ``[B, O]``, and the state after the step; the one passed in is left as it was.
        """


class LawCell(Cell):
    """A cell with weights and a law of its own.

    Attributes:
        dtype: ``"float32"``, or ``"bfloat16"``: what is multiplied is rounded to bfloat16. Weights,
            sums, states and outputs are float32 all the same, and dtype may be set at any time.
    """

    dtype: str

    @abstractmethod
    def law(self) -> Law:
        """The law with this cell's weights."""

    def step(self, x: Tensor, state: State, noise: Noise = QUIET) -> tuple[Tensor, State]:
        """One step of B sequences: ``[B, I] -> [B, O]``; see the equation of the cell.

        Args:
            x: ``[B, I]``.
            state: what `initial_state` or an earlier step gave.
            noise: the mask and the draws of this step; what wraps the cell hands them over.

        Raises:
            ShapeError: x is not ``[B, I]``, or the state or the noise is that of other sequences.
        """
        check(f"{type(self).__name__}.step", x, "B I", {"I": self.inputs})
        self._check(x.shape[0], x.shape[0], state, noise)
        return self.law().step(x, state, noise)

    def scan(self, x: Ragged, state: State, noise: Noise = QUIET) -> tuple[Tensor, State]:
        """All steps of all sequences, on the fastest path that fits: ``[N, I] -> [N, O]``."""
        check(f"{type(self).__name__}.scan", x.values, "N I", {"I": self.inputs})
        self._check(x.batch, x.total, state, noise)
        return self.law().scan(x, state, noise)

    def _check(self, batch: int, steps: int, state: State, noise: Noise) -> None:
        # The kernels trust the sizes that they are given, so what has them is checked where it
        # enters.
        name, widths = type(self).__name__, self._state_widths()
        fix = "take it from initial_state(B) or from an earlier step"
        for leaf, width in zip(ops.leaves(state), widths, strict=True):
            _hold_size(f"the state of {name}", leaf, "B", batch, width, fix)
        if noise.mask is not None:
            _hold_size(f"the mask of {name}", noise.mask, "B", batch, widths[0], fix)
        for keep, width in zip(noise.keep, widths, strict=bool(noise.keep)):
            if keep is not None:
                fix = "draw a row for every step"
                _hold_size(f"the draws of {name}", keep, "N", steps, width, fix)

    @abstractmethod
    def _state_widths(self) -> tuple[int, ...]:
        """The width of each tensor of the state."""


def _hold_size(where: str, x: Tensor, axis: str, rows: int, width: int, fix: str) -> None:
    if x.shape != (rows, width):
        raise ShapeError(where, f"[{axis}={rows}, {width}]", str(list(x.shape)), fix)


def check_count(where: str, value: object) -> None:
    """Refuses what is no whole number above 0; True, which would count as 1, is none.

    Raises:
        SpecError: it is none.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
        raise SpecError(where, "a whole number above 0", repr(value), "give one")


def check_switch(where: str, value: object) -> None:
    """Refuses what is neither True nor False, such as the text "false", which would count as true.

    Raises:
        SpecError: it is neither.
    """
    if not isinstance(value, bool):
        raise SpecError(where, "true or false", repr(value), "give one of the two")


def check_dtype(where: str, dtype: torch.dtype | str) -> str:
    """The name of the dtype of products.

    Raises:
        SpecError: another than float32 and bfloat16.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in ("float32", "bfloat16"):
        raise SpecError(where, "float32 | bfloat16", str(dtype), "give one of the two")
    return name


def initial(learned: Tensor | None, like: Tensor, batch: int, width: int) -> Tensor:
    """``[B, width]``: the learned first state in every row, or zeros in the dtype of a state."""
    dtype = ops.carried_dtype(like)
    if learned is None:
        return torch.zeros(batch, width, dtype=dtype, device=like.device)
    return learned.to(dtype).expand(batch, width)
