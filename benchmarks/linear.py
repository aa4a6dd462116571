"""Laws whose state enters linearly, against our GRU: training on long sequences.

python benchmarks/linear.py --save
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from clock import medians
from contest import Options, options, publish, rounded

from segue.cells import GRU, RGLRU, Cell, MinGRU, MinLSTM
from segue.layers import unroll

SIZE = 4, 10_000, 256, 256
"""Sequences, steps, inputs, hidden."""


def training(cell: Cell, x: torch.Tensor) -> Callable[[], object]:
    """Forward and backward: the gradients of x and of all weights."""
    inputs, dy = [x, *cell.parameters()], torch.ones(*x.shape[:2], cell.outputs)
    return lambda: torch.autograd.grad(unroll(cell, x)[0], inputs, dy)


def linear(said: Options) -> Iterator[dict[str, Any]]:
    """Milliseconds of each, and how many times as fast as the GRU it is."""
    batch, steps, inputs, hidden = (2, 10, 4, 8) if said.quick else SIZE
    x = torch.randn(batch, steps, inputs, requires_grad=True)
    cells = {law.__name__: law(inputs, hidden) for law in (GRU, MinGRU, MinLSTM, RGLRU)}
    seconds = medians({name: training(cell, x) for name, cell in cells.items()}, said.pace)
    ms = {name: rounded(1e3 * one) for name, one in seconds.items()}
    ratios = {name: rounded(seconds["GRU"] / one) for name, one in seconds.items() if name != "GRU"}
    figures = {"mode": "training", "size": [batch, steps, inputs, hidden], "ms": ms}
    yield said.line("linear", {**figures, "over_gru": ratios})


if __name__ == "__main__":
    asked = options("linear", ["linear"], ("torch",), "laws linear in the state, against our GRU")
    publish(asked, linear(asked))
