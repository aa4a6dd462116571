"""Causal convolution over time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell, check_switch
from segue.cells.elman import ACTIVATIONS
from segue.errors import ShapeError, SpecError
from segue.ragged import Ragged
from segue.shapes import check


class CausalConvState(NamedTuple):
    """past ``[B, P, I]``: the last P = (kernel - 1) dilation inputs, the oldest first."""

    past: Tensor


class CausalConv(Cell):
    """A convolution over time that sees no later step (Waibel et al., 1989, time-delay networks;
    dilated: van den Oord et al., 2016, arXiv:1609.03499).

        y_t = f(b + sum_k W_k x_{t - (K - 1 - k) D}),   k = 0 ... K - 1

    so that W_{K - 1} weighs x_t itself, as in ``torch.nn.Conv1d`` over a sequence with (K - 1) D
    zeros before it, where f is the identity. Inputs before the first step are those of the state,
    at first 0. Depthwise, every feature has a kernel of its own: O = I, and W_k is a vector.

    Shapes: x ``[B, I]``, y ``[B, O]``, W ``[O, K I]``, the oldest step's columns first, or
        depthwise ``[K, I]``; b ``[O]``; the state ``[B, (K - 1) D, I]``.

    Args:
        inputs: I.
        outputs: O; depthwise the inputs.
        kernel: K, how many steps are seen.
        dilation: D, how many steps lie from one to the next of them.
        depthwise: whether every feature is convolved by itself.
        activation: f, a name of `segue.cells.elman.ACTIVATIONS`.

    Raises:
        SpecError: a size or a switch that is none, depthwise outputs other than the inputs, or an
            unknown activation.

    >>> cell = CausalConv(3, 5, kernel=4)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape, state.past.shape
    (torch.Size([2, 5]), torch.Size([2, 3, 3]))
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        dilation: int = 1,
        depthwise: bool = False,
        activation: str = "identity",
    ) -> None:
        super().__init__(inputs=inputs, outputs=outputs, kernel=kernel, dilation=dilation)
        check_switch("CausalConv.depthwise", depthwise)
        if depthwise and outputs != inputs:
            fix = "make them equal, or leave depthwise out"
            raise SpecError("CausalConv.outputs", f"{inputs}, the inputs", str(outputs), fix)
        if activation not in ACTIVATIONS:
            fix = "give one of these"
            raise SpecError("CausalConv.activation", " | ".join(ACTIVATIONS), activation, fix)
        self.inputs, self.outputs, self.activation = inputs, outputs, activation
        self.kernel, self.dilation, self.depthwise = kernel, dilation, depthwise
        shape = (kernel, inputs) if depthwise else (outputs, kernel * inputs)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # As torch.nn.Conv1d: uniform with variance 1 / (3 fan-in).
        bound = (kernel if depthwise else kernel * inputs) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    @property
    def past(self) -> int:
        """P, the steps that the state holds."""
        return (self.kernel - 1) * self.dilation

    def initial_state(self, batch: int) -> CausalConvState:
        """Zeros."""
        return CausalConvState(self.weight.new_zeros(batch, self.past, self.inputs))

    def step(self, x: Tensor, state: CausalConvState) -> tuple[Tensor, CausalConvState]:
        """One step: ``[B, I] -> [B, O]``.

        Raises:
            ShapeError: x is not ``[B, I]``, or the state is that of other sequences.
        """
        check("CausalConv.step", x, "B I", {"I": self.inputs})
        self._check(state, x.shape[0])
        seen = torch.cat([state.past, x[:, None].to(state.past.dtype)], dim=1)
        return self._convolved(seen[:, :: self.dilation]), CausalConvState(seen[:, 1:])

    def scan(self, x: Ragged, state: CausalConvState) -> tuple[Tensor, CausalConvState]:
        """All steps at once: ``[N, I] -> [N, O]``."""
        check("CausalConv.scan", x.values, "N I", {"I": self.inputs})
        self._check(state, x.batch)
        rows, times = x.rows()[:, None], x.times()[:, None]
        y = self._convolved(self._at(x, state, rows, times - self._back().to(times.device)))
        rows = torch.arange(x.batch, device="cpu")[:, None]
        ends = x.lengths[:, None] - torch.arange(self.past, 0, -1, device="cpu")
        last = self._at(x, state, rows, ends)
        return y, CausalConvState(last)

    def _back(self) -> Tensor:
        """How many steps before the present one each part of the kernel looks, ``[K]``."""
        return torch.arange(self.past, -1, -self.dilation, device="cpu")

    def _at(self, x: Ragged, state: CausalConvState, rows: Tensor, times: Tensor) -> Tensor:
        """The inputs of sequences at times, which count below 0 into the past: ``[..., I]``."""
        pasts = state.past.reshape(x.batch * self.past, self.inputs)
        starts = x.offsets.to(rows.device)[rows]
        earlier, later = (rows + 1) * self.past + times, len(pasts) + starts + times
        places = torch.where(times < 0, earlier, later).to(pasts.device)
        table = torch.cat([pasts, x.values.to(pasts.dtype)])
        return table.index_select(0, places.flatten()).reshape(*places.shape, self.inputs)

    def _convolved(self, seen: Tensor) -> Tensor:
        """``[N, K, I] -> [N, O]``."""
        f = ACTIVATIONS[self.activation]
        if not self.depthwise:
            return f(ops.linear(seen.flatten(1), self.weight, self.bias))
        y = self.bias.expand(seen.shape[0], -1)
        for k in range(self.kernel):  # one by one, so that a row's bits do not depend on the others
            y = y + self.weight[k] * seen[:, k]
        return f(y)

    def _check(self, state: CausalConvState, batch: int) -> None:
        shape = batch, self.past, self.inputs
        if state.past.shape != shape:
            got, fix = str(list(state.past.shape)), "take it from initial_state(B)"
            raise ShapeError("the state of CausalConv", str(list(shape)), got, fix)
