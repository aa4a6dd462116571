"""Laws whose state enters linearly, against our GRU: training on long sequences.

python benchmarks/linear.py --save

Beside them stand bare products of matrices, made by torch: those that a law of two or of three
gates needs at least, one forward and two on the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from clock import medians
from contest import Options, options, publish, rounded

from segue.cells import GRU, RGLRU, S5, Cell, MinGRU, MinLSTM
from segue.layers import unroll

SIZE = 4, 10_000, 256, 256
"""Sequences, steps, inputs, hidden."""


def training(cell: Cell, x: torch.Tensor) -> Callable[[], object]:
    """Forward and backward: the gradients of x and of all weights."""
    inputs, dy = [x, *cell.parameters()], torch.ones(*x.shape[:2], cell.outputs)
    return lambda: torch.autograd.grad(unroll(cell, x)[0], inputs, dy)


def products(x: torch.Tensor, gates: int, hidden: int) -> Callable[[], object]:
    """x W^T, and from a gradient of it those of x and of W."""
    flat = x.detach().flatten(0, 1)
    weight, d = torch.randn(gates * hidden, x.shape[2]), torch.randn(len(flat), gates * hidden)
    to = torch.empty_like(d), torch.empty_like(flat), torch.empty_like(weight)

    def call() -> None:
        torch.mm(flat, weight.t(), out=to[0])
        torch.mm(d, weight, out=to[1])
        torch.mm(d.t(), flat, out=to[2])

    return call


def linear(said: Options) -> Iterator[dict[str, Any]]:
    """Milliseconds of each, and how many times as fast as the GRU it is."""
    batch, steps, inputs, hidden = (2, 10, 4, 8) if said.quick else SIZE
    x = torch.randn(batch, steps, inputs, requires_grad=True)
    cells = {law.__name__: law(inputs, hidden) for law in (GRU, MinGRU, MinLSTM, RGLRU, S5)}
    calls = {name: training(cell, x) for name, cell in cells.items()}
    calls |= {f"products of {gates} gates": products(x, gates, hidden) for gates in (2, 3)}
    seconds = medians(calls, said.pace)
    ms = {name: rounded(1e3 * one) for name, one in seconds.items()}
    ratios = {name: rounded(seconds["GRU"] / one) for name, one in seconds.items() if name != "GRU"}
    figures = {"mode": "training", "size": [batch, steps, inputs, hidden], "ms": ms}
    yield said.line("linear", {**figures, "over_gru": ratios})


if __name__ == "__main__":
    asked = options("linear", ["linear"], ("torch",), "laws linear in the state, against our GRU")
    publish(asked, linear(asked))
