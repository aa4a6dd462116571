"""Sequences of unequal length, training: ours on Ragged against torch padded and packed.

    python benchmarks/ragged.py --save

64 sequences of 5 to 200 steps, 64 inputs, 128 hidden. The padded and the packed batch are made
before the clock runs; no gradient comes back to padding, so all contestants do the same work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from clock import medians
from contest import OURS, Contestant, Options, Results, options, publish, race, rounded
from peers import MODULES, Size, cell_of, torch_gradients, weights_of, with_gradients
from torch import Tensor, nn

from segue import Ragged
from segue.layers import unroll

LAWS = ("GRU", "LSTM")
SHORTEST = 5
RESET = 50
"""Steps from one reset to the next, on average."""


def cases(said: Options) -> Iterator[dict[str, Any]]:
    """A line per law."""
    size = Size(4, 12, 5, 16) if said.quick else Size(64, 200, 64, 128)
    for law in said.only:
        torch.manual_seed(0)
        module = MODULES[law](size.inputs, size.hidden)
        lengths = torch.randint(SHORTEST, size.steps + 1, (size.batch,), device="cpu")
        x = Ragged(torch.randn(int(lengths.sum()), size.inputs), lengths)
        dy = torch.randn(x.total, size.hidden)
        contestants = {OURS: by_us(law, module, x, dy, None)}
        for name, batch_first in (("torch padded", True), ("torch padded time-major", False)):
            contestants[name] = by_padding(law, module, x, dy, batch_first=batch_first)
        contestants["torch packed"] = by_packing(law, module, x, dy)
        found = race(contestants, said.pace)
        ms = found["ms"]
        padded = min(ms["torch padded"], ms["torch padded time-major"])
        found["over_padded"] = rounded(padded / ms[OURS])
        found["over_packed"] = rounded(ms["torch packed"] / ms[OURS])
        found["real_share"] = rounded(x.total / (x.batch * x.longest))
        found["resets"] = resetting(law, module, x, dy, said)
        yield said.line("ragged", {"law": law, "mode": "training", "size": list(size), **found})


def by_us(law: str, module: nn.RNNBase, x: Ragged, dy: Tensor, reset: Ragged | None) -> Contestant:
    """``unroll`` over the ragged batch."""
    cell = cell_of(law, module)
    values = x.values.clone().requires_grad_()
    weights = weights_of(cell)

    def train() -> tuple[Tensor, tuple[Tensor, ...]]:
        # Made anew, as a batch is new in every step of training.
        y, _ = unroll(cell, Ragged(values, x.lengths), reset=reset)
        return y.values, torch.autograd.grad(y.values, [values, *weights], dy)

    return Contestant(train, lambda found: with_gradients(found[0], found[1]))


def by_padding(
    law: str, module: nn.RNNBase, x: Ragged, dy: Tensor, *, batch_first: bool
) -> Contestant:
    """torch's layer over the padded batch."""
    layer = type(module)(module.input_size, module.hidden_size, batch_first=batch_first)
    layer.load_state_dict(module.state_dict())
    padded, back = x.to_padded(), x.with_values(dy).to_padded()
    if not batch_first:
        padded, back = (one.transpose(0, 1).contiguous() for one in (padded, back))
    padded.requires_grad_()

    def train() -> tuple[Tensor, tuple[Tensor, ...]]:
        y, _ = layer(padded)
        return y, torch.autograd.grad(y, [padded, *layer.parameters()], back)

    def real(values: Tensor) -> Tensor:
        rows = values.detach() if batch_first else values.detach().transpose(0, 1)
        return Ragged.from_padded(rows, x.lengths).values

    def read(found: Any) -> Results:
        y, (dx, *rest) = found
        return with_gradients(real(y), [real(dx), *torch_gradients(law, rest)])

    return Contestant(train, read)


def by_packing(law: str, module: nn.RNNBase, x: Ragged, dy: Tensor) -> Contestant:
    """torch's layer over a PackedSequence."""
    packed, back = x.to_packed(), x.with_values(dy).to_packed().data
    data = packed.data.requires_grad_()
    given = packed._replace(data=data)

    def train() -> tuple[Tensor, tuple[Tensor, ...]]:
        y = module(given)[0].data
        return y, torch.autograd.grad(y, [data, *module.parameters()], back)

    def real(values: Tensor) -> Tensor:
        return Ragged.from_packed(packed._replace(data=values.detach())).values

    def read(found: Any) -> Results:
        y, (dx, *rest) = found
        return with_gradients(real(y), [real(dx), *torch_gradients(law, rest)])

    return Contestant(train, read)


def resetting(law: str, module: nn.RNNBase, x: Ragged, dy: Tensor, said: Options) -> dict[str, Any]:
    """Ours with a reset in one of 50 steps, over ours without."""
    chance = torch.rand(x.total, generator=torch.Generator().manual_seed(1), device="cpu")
    flags = (chance < 1 / RESET).to(x.values.device)
    calls = {
        "with": by_us(law, module, x, dy, x.with_values(flags)).call,
        "without": by_us(law, module, x, dy, None).call,
    }
    seconds = medians(calls, said.pace)
    with_ms, ratio = 1e3 * seconds["with"], seconds["with"] / seconds["without"]
    return {"ms": rounded(with_ms), "over_plain": rounded(ratio), "count": int(flags.sum())}


if __name__ == "__main__":
    asked = options("ragged", LAWS, ("torch",), "sequences of unequal length, training")
    publish(asked, cases(asked))
