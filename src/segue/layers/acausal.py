"""Layers that need the whole sequence: they cannot run live."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.cells import Cell
from segue.errors import ShapeError
from segue.layers.causal import check_chain
from segue.layers.time import Acausal, backward_flags, scan_of, scan_resetting, unroll
from segue.ops import State
from segue.ragged import Ragged


class Bidirectional(Acausal):
    """Two cells, one of which reads each sequence backwards (Schuster and Paliwal, 1997).

    "Backwards" is within each sequence's own length.
    y_t = [forward_t, backward_t]; the state is the pair of theirs. The backward cell's state enters
    after the last step, and its final state is the one after it has read the first step. A reset
    before step t also starts the backward cell anew before it reads t - 1.

    Args:
        forward: a cell of I inputs.
        backward: a cell of I inputs.

    Raises:
        ShapeError: the two take different inputs.
    """

    def __init__(self, forward: Cell, backward: Cell) -> None:
        super().__init__()
        if forward.inputs != backward.inputs:
            got = f"{forward.inputs} and {backward.inputs}"
            raise ShapeError("Bidirectional", "cells of equal inputs", got, "make them equal")
        # nn.Module has a method called forward.
        self.ahead, self.back = forward, backward
        self.inputs, self.outputs = forward.inputs, forward.outputs + backward.outputs

    def initial_state(self, batch: int) -> State:
        """The pair of the cells' states."""
        return self.ahead.initial_state(batch), self.back.initial_state(batch)

    def scan(self, x: Ragged, state: State | None, flags: Tensor | None) -> tuple[Tensor, State]:
        """All steps in both directions: ``[N, I] -> [N, O]``."""
        starts = self.initial_state(x.batch) if state is None else state
        ahead, ahead_state = _run(self.ahead, x, starts[0], flags)
        turned = None if flags is None else backward_flags(x, flags)
        back, back_state = _run(self.back, x.reversed(), starts[1], turned)
        back = x.with_values(back).reversed().values
        return torch.cat([ahead, back], dim=1), (ahead_state, back_state)

    def reason(self) -> str:
        """Why it cannot be stepped."""
        return "its backward cell starts at the end of the sequence, which a stream does not have"


def _run(cell: Cell, x: Ragged, state: State, flags: Tensor | None) -> tuple[Tensor, State]:
    return scan_resetting(scan_of(cell), cell.initial_state, x, state, flags)


class Chain(Acausal):
    """Layers one on top of the other, some of them not causal (else use `Stack`, which is a cell).

    The state is the tuple of the layers' states.

    Raises:
        ShapeError: no layers, or the outputs of one are not the inputs of the next.
    """

    def __init__(self, *layers: Cell | Acausal) -> None:
        super().__init__()
        check_chain("Chain", layers)
        self.layers = nn.ModuleList(layers)
        self.inputs, self.outputs = layers[0].inputs, layers[-1].outputs

    def _parts(self) -> list[Cell | Acausal]:
        return [layer for layer in self.layers if isinstance(layer, Cell | Acausal)]

    def initial_state(self, batch: int) -> State:
        """One state per layer."""
        return tuple(layer.initial_state(batch) for layer in self._parts())

    def scan(self, x: Ragged, state: State | None, flags: Tensor | None) -> tuple[Tensor, State]:
        """All steps of the first layer, then all steps of the next: ``[N, I] -> [N, O]``."""
        starts = self.initial_state(x.batch) if state is None else state
        reset = None if flags is None else x.with_values(flags)
        finals = []
        for layer, start in zip(self._parts(), starts, strict=True):
            x, final = unroll(layer, x, start, reset)
            finals.append(final)
        return x.values, tuple(finals)

    def reason(self) -> str:
        """Why it cannot be stepped: the reason of the first layer that is not causal."""
        reasons = [layer.reason() for layer in self._parts() if isinstance(layer, Acausal)]
        return reasons[0] if reasons else "no layer looks ahead, but only a Stack of them is a cell"
