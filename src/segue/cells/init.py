"""First values of weights, gate by gate.

A cell's weights hold its gates one below the other, ``[G H, I]`` and ``[G H, R]``; each gate is
filled as a matrix of its own, since an orthogonal ``[G H, R]`` is not made of orthogonal gates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from segue.errors import SpecError

Fill: TypeAlias = Callable[[Tensor], object]


@dataclass(frozen=True)
class Init:
    """How a cell's weights start.

    Args:
        recurrent: fills the recurrent weights of one gate, ``[H, R]``.
        inputs: fills the input weights of one gate, ``[H, I]``.
        max_steps: the longest dependency, for chrono biases of the gates that keep the state; None
            for none.
    """

    recurrent: Fill
    inputs: Fill = nn.init.xavier_uniform_
    max_steps: int | None = None


def orthogonal(gain: float = 1.0) -> Init:
    """The default: recurrent gates orthogonal (Saxe et al., arXiv:1312.6120), inputs Xavier."""
    return Init(recurrent=partial(nn.init.orthogonal_, gain=gain))


def xavier() -> Init:
    """Every gate uniform with variance 2 / (in + out). Glorot and Bengio, 2010."""
    return Init(recurrent=nn.init.xavier_uniform_)


def uniform(bound: float | None = None) -> Init:
    """Every gate uniform in (-bound, bound); by default bound = 1 / sqrt(H), as torch.nn does."""

    def fill(gate: Tensor) -> None:
        limit = 1 / math.sqrt(gate.shape[0]) if bound is None else bound
        nn.init.uniform_(gate, -limit, limit)

    return Init(recurrent=fill, inputs=fill)


def identity(scale: float = 1.0) -> Init:
    """Recurrent gates scale times the identity: with relu, IRNN (Le et al., arXiv:1504.00941)."""

    def fill(gate: Tensor) -> None:
        nn.init.eye_(gate)
        with torch.no_grad():
            gate.mul_(scale)

    return Init(recurrent=fill)


def chrono(max_steps: int) -> Init:
    """As `orthogonal`, and the gates that keep the state start with long memories.

    The bias of the gate that keeps is log u with u uniform in (1, max_steps - 1), that of an LSTM's
    input gate its negative. Tallec and Ollivier, 2018, arXiv:1804.11188.
    """
    if max_steps < 3:
        raise SpecError("chrono.max_steps", "at least 3", str(max_steps), "give the longest lag")
    return Init(recurrent=nn.init.orthogonal_, max_steps=max_steps)


INITS: dict[str, Callable[[], Init]] = {
    "orthogonal": orthogonal,
    "xavier": xavier,
    "uniform": uniform,
    "identity": identity,
}


def find(init: Init | str) -> Init:
    """An Init, also by its name, ``chrono`` with the longest lag, such as ``chrono(784)``."""
    if isinstance(init, Init):
        return init
    lag = re.fullmatch(r"chrono\((\d+)\)", init)
    if lag:
        return chrono(int(lag[1]))
    if init not in INITS:
        fix = "give one of these names, or an Init such as chrono(max_steps)"
        raise SpecError("init", " | ".join([*INITS, "chrono(max_steps)"]), init, fix)
    return INITS[init]()


def fill_gates(weight: Tensor, gates: int, fill: Fill) -> None:
    """Fills each gate of a weight ``[G H, ...]`` as a matrix of its own."""
    for gate in weight.detach().chunk(gates):
        fill(gate)


def fill_chrono(keep: Tensor, max_steps: int) -> None:
    """Fills the bias ``[H]`` of a gate that keeps the state."""
    with torch.no_grad():
        keep.uniform_(1, max_steps - 1).log_()
