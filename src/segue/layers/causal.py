"""Layers that are cells: what wraps cells and stays causal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue.cells import Cell
from segue.errors import ShapeError, SpecError
from segue.layers.time import Acausal, scan_of
from segue.ops import State
from segue.ragged import Ragged


class Stack(Cell):
    """Cells one on top of the other: each takes the output of the one before.

    The state is the tuple of the cells' states.

    Raises:
        ShapeError: no cells, or the outputs of one are not the inputs of the next.
    """

    def __init__(self, *cells: Cell) -> None:
        super().__init__()
        check_chain("Stack", cells)
        self.cells = nn.ModuleList(cells)
        self.inputs, self.outputs = cells[0].inputs, cells[-1].outputs

    def _layers(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def initial_state(self, batch: int) -> State:
        """One state per cell."""
        return tuple(cell.initial_state(batch) for cell in self._layers())

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step through all cells: ``[B, I] -> [B, O]``."""
        states = []
        for cell, before in zip(self._layers(), state, strict=True):
            x, after = cell.step(x, before)
            states.append(after)
        return x, tuple(states)

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps of the first cell, then all steps of the next: ``[N, I] -> [N, O]``."""
        states = []
        for cell, before in zip(self._layers(), state, strict=True):
            values, after = scan_of(cell)(x, before)
            x = x.with_values(values)
            states.append(after)
        return x.values, tuple(states)


class Residual(Cell):
    """y_t = x_t + cell(x_t). The state is the cell's.

    Raises:
        ShapeError: the cell's outputs are not as many as its inputs.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        if cell.inputs != cell.outputs:
            got = f"{cell.inputs} inputs and {cell.outputs} outputs"
            fix = "make them equal, or leave out the residual"
            raise ShapeError("Residual", "as many outputs as inputs", got, fix)
        self.cell = cell
        self.inputs = self.outputs = cell.inputs

    def initial_state(self, batch: int) -> State:
        """The cell's."""
        return self.cell.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, I] -> [B, I]``."""
        y, state = self.cell.step(x, state)
        return x + y, state

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: ``[N, I] -> [N, I]``."""
        y, state = scan_of(self.cell)(x, state)
        return x.values + y, state


class DropoutState(NamedTuple):
    """mask ``[B, F]``: 0 where a feature is dropped, else 1 / (1 - rate)."""

    mask: Tensor


class Dropout(Cell):
    """While training, sets features to 0 at a rate and scales the others by 1 / (1 - rate).

    Per ``"step"``, every step draws anew (Srivastava et al., 2014). Per ``"sequence"``, one mask
    holds for all steps of a sequence (Gal and Ghahramani, 2016, arXiv:1512.05287): the mask is the
    cell's state, drawn by `initial_state`, so that chunks of one sequence share it and a reset
    draws a new one.

    Args:
        features: F.
        rate: the probability, in [0, 1).
        per: ``"step"`` or ``"sequence"``.

    Raises:
        SpecError: another rate or another word.
    """

    like: Tensor

    def __init__(self, features: int, rate: float, per: str = "step") -> None:
        super().__init__()
        check_rate("Dropout.rate", rate)
        if per not in ("step", "sequence"):
            raise SpecError("Dropout.per", "step | sequence", per, "give one of the two")
        self.inputs = self.outputs = features
        self.rate, self.per = rate, per
        # The device and dtype of a mask, which no parameter tells.
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def initial_state(self, batch: int) -> State:
        """A mask per sequence, of ones in evaluation; nothing where every step draws anew."""
        if self.per == "step":
            return ()
        mask = torch.ones(batch, self.outputs, dtype=self.like.dtype, device=self.like.device)
        return DropoutState(nn.functional.dropout(mask, self.rate, self.training))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, F] -> [B, F]``."""
        if not self.training:
            return x, state
        if self.per == "step":
            return nn.functional.dropout(x, self.rate), state
        return x * state.mask, state

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps: ``[N, F] -> [N, F]``."""
        if not self.training:
            return x.values, state
        if self.per == "step":
            return nn.functional.dropout(x.values, self.rate), state
        return x.values * state.mask[x.rows()], state


class TimeDistributed(Cell):
    """A module that treats every step by itself, as a cell without memory.

    Args:
        module: ``[N, I] -> [N, O]``, row by row.
        inputs: I; by default what the module says (``inputs`` or ``in_features``).
        outputs: O; likewise (``outputs`` or ``out_features``).

    Raises:
        SpecError: a size that neither was given nor is said by the module.
    """

    def __init__(
        self, module: nn.Module, *, inputs: int | None = None, outputs: int | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self.inputs = _size(module, "inputs", "in_features") if inputs is None else inputs
        self.outputs = _size(module, "outputs", "out_features") if outputs is None else outputs

    def initial_state(self, batch: int) -> State:
        """Nothing."""
        return ()

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, I] -> [B, O]``."""
        return self.module(x), state

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps at once: ``[N, I] -> [N, O]``."""
        return self.module(x.values), state


def check_chain(where: str, layers: tuple[Cell | Acausal, ...]) -> None:
    """Refuses layers of which one does not take what the one below gives."""
    if not layers:
        raise ShapeError(where, "at least one layer", "none", "give one")
    for index, (lower, upper) in enumerate(zip(layers, layers[1:], strict=False)):
        if lower.outputs != upper.inputs:
            place = f"{where}, layer {index + 1}"
            got = f"{upper.inputs} inputs"
            fix = "make them as many as the outputs of the layer below"
            raise ShapeError(place, f"{lower.outputs} inputs", got, fix)


def check_rate(where: str, rate: float) -> None:
    """Refuses a rate that is not in [0, 1)."""
    if not 0 <= rate < 1:
        raise SpecError(where, "a rate in [0, 1)", str(rate), "give such a rate")


def _size(module: nn.Module, *names: str) -> int:
    for name in names:
        size = getattr(module, name, None)
        if isinstance(size, int):
            return size
    got = f"{type(module).__name__}, which says none"
    raise SpecError("TimeDistributed", f"a module with {names[0]}", got, f"give {names[0]}=")
