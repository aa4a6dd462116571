"""The work that contestants do, with the weights of torch.nn, and ours and torch's way to do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from contest import Contestant, Results
from torch import Tensor, nn

from segue.cells import GRU, LSTM, Elman
from segue.layers import unroll

Gated: TypeAlias = Elman | GRU | LSTM
CELLS: dict[str, type[Elman] | type[GRU] | type[LSTM]] = {"Elman": Elman, "GRU": GRU, "LSTM": LSTM}
MODULES: dict[str, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {
    "Elman": nn.RNN,
    "GRU": nn.GRU,
    "LSTM": nn.LSTM,
}
GATES = {"Elman": 1, "GRU": 3, "LSTM": 4}


class Size(NamedTuple):
    """B sequences of T steps, I inputs, H hidden."""

    batch: int
    steps: int
    inputs: int
    hidden: int


SIZES = (
    Size(1, 100, 64, 128),
    Size(32, 100, 64, 128),
    Size(32, 100, 128, 256),
    Size(64, 200, 256, 512),
    Size(16, 1000, 32, 64),
    Size(256, 50, 32, 64),
    Size(32, 100, 512, 1024),
)
TINY = (Size(2, 6, 5, 16),)


@dataclass(frozen=True)
class Problem:
    """One layer, its input, and the gradient that comes back to its output.

    Attributes:
        law: a name of `CELLS`.
        size: B, T, I, H.
        module: torch's layer, batch-first; all contestants take its weights.
        x: ``[B, T, I]``.
        dy: ``[B, T, H]``.
        is_training: whether the gradients of x and of all weights are computed, too.
    """

    law: str
    size: Size
    module: nn.RNNBase
    x: Tensor
    dy: Tensor
    is_training: bool

    def flops(self) -> float:
        """Operations in the matrix products: one product forward, two of its size backward."""
        batch, steps, inputs, hidden = self.size
        columns = GATES[self.law] * hidden
        return (6.0 if self.is_training else 2.0) * batch * steps * columns * (inputs + hidden)


def problem(law: str, size: Size, is_training: bool) -> Problem:
    """The same numbers for the same arguments.

    The bias inside a GRU's reset product is 0, because flax has none.
    """
    torch.manual_seed(0)
    module = MODULES[law](size.inputs, size.hidden, batch_first=True)
    if law == "GRU":
        with torch.no_grad():
            module.bias_hh_l0[2 * size.hidden :] = 0
    x = torch.randn(size.batch, size.steps, size.inputs)
    return Problem(law, size, module, x, torch.randn(*size[:2], size.hidden), is_training)


def cell_of(law: str, module: nn.RNNBase | nn.RNNCellBase) -> Gated:
    """Our cell with the weights of torch's layer or cell."""
    w_x, w_h, b_x, b_h = (weight.detach() for weight in module.parameters())
    cell = CELLS[law](w_x.shape[1], w_h.shape[1])
    with torch.no_grad():
        cell.w_xh.copy_(w_x)
        cell.w_hh.copy_(w_h)
        cell.b_h.copy_(b_x + b_h)
        if isinstance(cell, GRU) and cell.b_hn is not None:
            hidden = w_h.shape[1]
            cell.b_h[2 * hidden :] = b_x[2 * hidden :]
            cell.b_hn.copy_(b_h[2 * hidden :])
    return cell


def weights_of(cell: Gated) -> list[Tensor]:
    """The weights whose gradients are compared: W_xh, W_hh, b_h, and a GRU's b_hn."""
    return list(cell.law().weights())


def ours(work: Problem) -> Contestant:
    """``unroll`` over our cell."""
    cell = cell_of(work.law, work.module)
    x = work.x.clone().requires_grad_(work.is_training)
    weights = weights_of(cell)

    def forward() -> Tensor:
        with torch.no_grad():
            return unroll(cell, x)[0]

    def train() -> tuple[Tensor, tuple[Tensor, ...]]:
        y, _ = unroll(cell, x)
        return y, torch.autograd.grad(y, [x, *weights], work.dy)

    if work.is_training:
        return Contestant(train, lambda found: with_gradients(found[0], found[1]))
    return Contestant(forward, lambda y: {"y": y.cpu().numpy()})


def by_torch(work: Problem, *, batch_first: bool) -> Contestant:
    """torch.nn's layer, with the axes in the order that is said."""
    module = MODULES[work.law](work.size.inputs, work.size.hidden, batch_first=batch_first)
    module.load_state_dict(work.module.state_dict())
    x = (work.x if batch_first else work.x.transpose(0, 1)).clone(
        memory_format=torch.contiguous_format
    )
    x.requires_grad_(work.is_training)
    dy = work.dy if batch_first else work.dy.transpose(0, 1).contiguous()

    def forward() -> Tensor:
        with torch.no_grad():
            return module(x)[0]

    def train() -> tuple[Tensor, tuple[Tensor, ...]]:
        y, _ = module(x)
        return y, torch.autograd.grad(y, [x, *module.parameters()], dy)

    def read(found: Any) -> Results:
        if not work.is_training:
            return {"y": batch_major(found, batch_first).cpu().numpy()}
        y, (dx, *rest) = found
        turned = batch_major(y, batch_first), batch_major(dx, batch_first)
        return with_gradients(turned[0], [turned[1], *torch_gradients(work.law, rest)])

    return Contestant(train if work.is_training else forward, read)


def batch_major(values: Tensor, batch_first: bool) -> Tensor:
    """``[B, T, ...]`` from a tensor with either order of the axes."""
    return values if batch_first else values.transpose(0, 1)


def torch_gradients(law: str, found: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of torch's four weights as those of ours.

    torch has two biases per gate, whose gradients are the same but in a GRU's n.
    """
    dw_x, dw_h, db_x, db_h = found
    own = [dw_x, dw_h, db_x]
    return [*own, db_h[2 * dw_h.shape[1] :]] if law == "GRU" else own


def with_gradients(y: Tensor, gradients: Sequence[Tensor]) -> Results:
    """y and the gradients of x, W_xh, W_hh, b_h and b_hn, as far as there are such."""
    names = ("dx", "dw_xh", "dw_hh", "db_h", "db_hn")
    named = {"y": y.detach(), **dict(zip(names, gradients, strict=False))}
    return {name: one.cpu().numpy() for name, one in named.items()}
