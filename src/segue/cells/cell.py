"""What a cell is, and what the cells with a law of their own have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from segue import ops
from segue.errors import ShapeError
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
        inputs: I, the size of an input.
        outputs: O, the size of an output.
    """

    inputs: int
    outputs: int

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


class Law(ABC):
    """A recurrent law with its weights: the equation, and the faster forms that must equal it.

    The equation has two parts: `project` takes what depends on the input alone, so that it can be
    done for all steps at once, and `advance` takes the step.
    """

    @abstractmethod
    def weights(self) -> Sequence[Tensor]:
        """All weights that take part."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., G H]``: the part of the gates that depends on the input alone."""

    @abstractmethod
    def advance(self, p: Tensor, state: State) -> tuple[Tensor, State]:
        """One step from the projected input ``[B, G H]``: the equation."""

    @abstractmethod
    def native(self, x: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        """All steps ``[N, I]`` of sequences of these lengths by the native kernel."""

    @abstractmethod
    def fused(self, x: Tensor, is_flagged: bool, state: State) -> tuple[Tensor, ...]:
        """All steps of a padded, time-major batch by torch; see `segue.ops.fused`."""

    @abstractmethod
    def not_native(self) -> str | None:
        """What keeps this law from the native kernel, in words, if anything does."""

    @abstractmethod
    def not_fused(self) -> str | None:
        """What keeps this law from torch's fused function, in words, if anything does."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step, ``[B, I]``; native just where `scan` is, so that their bits agree."""
        if self._runs_native(x, state):
            return self.native(x, _ones(x.shape[0]), state)
        return self.advance(self.project(x), state)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps of all sequences, on the fastest path that fits."""
        if self._runs_native(x.values, state):
            return self.native(x.values, x.lengths, state)
        if self.not_fused() is None and ops.fused_runs(self._tensors(x.values, state)):
            return ops.in_buckets(self.fused, x, state)
        return ops.loop(self.advance, x.with_values(self.project(x.values)), state)

    def _runs_native(self, x: Tensor, state: State) -> bool:
        return self.not_native() is None and ops.native_runs(self._tensors(x, state))

    def _tensors(self, x: Tensor, state: State) -> list[Tensor]:
        return [x, *self.weights(), *ops.leaves(state)]


class LawCell(Cell):
    """A cell with weights and a law of its own."""

    @abstractmethod
    def law(self) -> Law:
        """The law with this cell's weights."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of B sequences: ``[B, I] -> [B, O]``; see the equation of the cell.

        Raises:
            ShapeError: x is not ``[B, I]``, or the state is that of another number of sequences.
        """
        check(f"{type(self).__name__}.step", x, "B I", {"I": self.inputs})
        self._check_state(x.shape[0], state)
        return self.law().step(x, state)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps of all sequences, on the fastest path that fits: ``[N, I] -> [N, O]``."""
        check(f"{type(self).__name__}.scan", x.values, "N I", {"I": self.inputs})
        self._check_state(x.batch, state)
        return self.law().scan(x, state)

    def _check_state(self, batch: int, state: State) -> None:
        # The kernels trust the sizes that they are given, so a state is checked where it enters.
        for leaf, width in zip(ops.leaves(state), self._state_widths(), strict=True):
            if leaf.shape != (batch, width):
                where, got = f"the state of {type(self).__name__}", str(list(leaf.shape))
                fix = "take it from initial_state(B) or from an earlier step"
                raise ShapeError(where, f"[B={batch}, {width}]", got, fix)

    @abstractmethod
    def _state_widths(self) -> tuple[int, ...]:
        """The width of each tensor of the state."""


@lru_cache(maxsize=64)
def _ones(batch: int) -> Tensor:
    """The lengths of ``batch`` sequences of one step."""
    return torch.ones(batch, dtype=torch.int64)


def initial(learned: Tensor | None, like: Tensor, batch: int, width: int) -> Tensor:
    """``[B, width]``: the learned first state in every row, or zeros in the dtype of a state."""
    dtype = ops.carried_dtype(like)
    if learned is None:
        return torch.zeros(batch, width, dtype=dtype, device=like.device)
    return learned.to(dtype).expand(batch, width)
