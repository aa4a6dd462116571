"""The cases of layers.py that compare our options: layer norm and its company, resets, bfloat16."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from clock import medians
from contest import (
    OURS,
    TOLERANCE,
    Contestant,
    Disagreement,
    Options,
    Results,
    agree,
    distance,
    ranked,
    rounded,
    skip,
)
from eager import Rates, eager_gru, eager_lstm
from peers import CELLS, SIZES, TINY, Gated, Problem, batch_major, cell_of, ours, problem
from torch import Tensor

from segue import layers
from segue.cells import GRU, LSTM
from segue.layers import unroll

RATES = Rates(hidden=0.1, cell=0.1, recurrent=0.25)
RESET = 50
"""Steps from one reset to the next, on average."""
WIDE = 256
"""The hidden size from which bfloat16 is compared."""
COARSE = 2e-2
"""How far gradients in bfloat16 may be from those in float32, as a share of their norm."""


def layer_norm(said: Options) -> Iterator[dict[str, Any]]:
    """Layer norm, zoneout and recurrent dropout at once: against our plain cell and an eager loop,
    training.
    """
    if not hasattr(layers, "RecurrentDropout"):
        skip("layer_norm", "segue.layers has no RecurrentDropout")
        return
    for size in TINY if said.quick else SIZES:
        for law in ("GRU", "LSTM"):
            work = problem(law, size, is_training=True)
            seconds, errors = normed(work, said)
            yield said.line("layer_norm", {**named(work), **compared(seconds, errors)})


def normed(work: Problem, said: Options) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the layer with everything, of the plain one and of the loop, and the errors."""
    rates = RATES if work.law == "LSTM" else RATES._replace(cell=0.0)
    cell = CELLS[work.law](work.size.inputs, work.size.hidden, layer_norm=True)
    dropped = layers.RecurrentDropout(cell, rates.recurrent)
    body = layers.Zoneout(dropped, hidden=rates.hidden, cell=rates.cell)
    own = training(work, cell, lambda x: unroll(body, x)[0], batch_first=True)
    # In evaluation nothing is drawn at random, so that the two can be compared.
    body.eval()
    errors = held_to_double(own, work, cell, rates)
    body.train()
    eager = training(work, cell, loop(cell, rates, is_training=True), batch_first=False)
    calls = {OURS: own.call, "plain": ours(work).call, "eager": eager.call}
    return medians(calls, said.pace), errors


def held_to_double(own: Contestant, work: Problem, cell: Gated, rates: Rates) -> dict[str, float]:
    """How far ours and the eager loop are from the loop in double.

    Layer norm lets small differences grow from step to step, so that two correct answers in float32
    may be more than the usual tolerance apart.

    Raises:
        Disagreement: ours is above the tolerance, and three times as far away as the loop.
    """
    exact_work = replace(work, x=work.x.double(), dy=work.dy.double())
    exact_cell = copy.deepcopy(cell).double()
    found: dict[str, Results] = {OURS: own.read(own.call())}
    for name, job, one in (("eager", work, cell), ("double", exact_work, exact_cell)):
        calm = training(job, one, loop(one, rates, is_training=False), batch_first=False)
        found[name] = calm.read(calm.call())
    exact = found.pop("double")
    errors = {name: distance(results, exact) for name, results in found.items()}
    if not errors[OURS] <= max(TOLERANCE, 3 * errors["eager"]):
        raise Disagreement(
            f"layer_norm: ours is {errors[OURS]:.1e} off, the loop {errors['eager']:.1e}"
        )
    return {name: float(f"{error:.1e}") for name, error in errors.items()}


def loop(cell: Gated, rates: Rates, *, is_training: bool) -> Callable[[Tensor], Tensor]:
    """The eager loop with this cell's weights."""
    if isinstance(cell, LSTM):
        return lambda x: eager_lstm(cell, x, rates, is_training)
    assert isinstance(cell, GRU), "the loops are of a GRU and an LSTM"
    return lambda x: eager_gru(cell, x, rates, is_training)


def compared(seconds: dict[str, float], errors: dict[str, float]) -> dict[str, Any]:
    """Milliseconds, our time over that of our plain cell, and that of the eager loop over ours."""
    return {
        "ms": {name: rounded(1e3 * one) for name, one in seconds.items()},
        "over_plain": rounded(seconds[OURS] / seconds["plain"]),
        "ratio": rounded(seconds["eager"] / seconds[OURS]),
        "largest_error": errors,
    }


def training(
    work: Problem, cell: Gated, layer: Callable[[Tensor], Tensor], *, batch_first: bool
) -> Contestant:
    """Forward and backward through a layer with this cell's weights.

    Args:
        layer: x -> y, with the axes in the order that ``batch_first`` says.
    """
    x = batch_major(work.x, batch_first).clone(memory_format=torch.contiguous_format)
    x.requires_grad_()
    dy = batch_major(work.dy, batch_first).contiguous()
    weights = dict(cell.named_parameters())

    def train() -> tuple[Tensor, tuple[Tensor, ...]]:
        y = layer(x)
        return y, torch.autograd.grad(y, [x, *weights.values()], dy)

    def read(found: Any) -> Results:
        y, (dx, *rest) = found
        turned = {"y": batch_major(y.detach(), batch_first), "dx": batch_major(dx, batch_first)}
        tensors = turned | {f"d{name}": one for name, one in zip(weights, rest, strict=True)}
        return {name: one.double().cpu().numpy() for name, one in tensors.items()}

    return Contestant(train, read)


def resets(said: Options) -> Iterator[dict[str, Any]]:
    """Training with a reset in one of 50 steps, against the same without resets."""
    for size in TINY if said.quick else SIZES:
        for law in CELLS:
            work = problem(law, size, is_training=True)
            chance = torch.rand(work.x.shape[:2], generator=torch.Generator().manual_seed(1))
            flags = chance < 1 / RESET
            flags[0, size.steps // 2] = True
            cell = cell_of(law, work.module)
            own = training(
                work, cell, lambda x, c=cell, f=flags: unroll(c, x, reset=f)[0], batch_first=True
            )
            error = agree("torch in pieces", first_of(own), in_pieces(work, flags[0]))
            calls = {OURS: own.call, "without": ours(work).call}
            seconds = medians(calls, said.pace)
            figures = {
                "ms": {name: rounded(1e3 * one) for name, one in seconds.items()},
                "over_plain": rounded(seconds[OURS] / seconds["without"]),
                "resets": int(flags.sum()),
                "largest_error": {"torch in pieces": error},
            }
            yield said.line("resets", {**named(work), **figures})


def first_of(own: Contestant) -> Results:
    """y and dx of the first sequence."""
    found = own.read(own.call())
    return {name: found[name][0] for name in ("y", "dx")}


def in_pieces(work: Problem, flags: Tensor) -> Results:
    """y and dx of the first sequence by torch, one piece between resets after the other."""
    x = work.x[0].clone().requires_grad_()
    cuts = [0, *flags.nonzero().flatten().tolist(), len(x)]
    pieces = [x[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if b > a]
    y = torch.cat([work.module(piece)[0] for piece in pieces])
    (dx,) = torch.autograd.grad(y, [x], work.dy[0])
    return {"y": y.detach().numpy(), "dx": dx.numpy()}


def bfloat16(said: Options) -> Iterator[dict[str, Any]]:
    """Training in bfloat16 against torch's layer in bfloat16; gradients against float32."""
    if "dtype" not in inspect.signature(LSTM).parameters:
        skip("bfloat16", "segue.cells.LSTM takes no dtype")
        return
    wide = [size for size in SIZES if size.hidden >= WIDE]
    for size in TINY if said.quick else wide:
        for law in ("GRU", "LSTM"):
            work = problem(law, size, is_training=True)
            exact, own = ours(work), ours_in_bfloat16(work)
            error = far(own.read(own.call()), exact.read(exact.call()))
            if not error <= COARSE:
                raise Disagreement(f"bfloat16: a gradient is {error:.1e} of its norm off")
            calls = {OURS: own.call, "float32": exact.call, "torch": torch_in_bfloat16(work)}
            calls["torch autocast"] = torch_in_autocast(work)
            seconds = medians(calls, said.pace)
            figures = ranked({name: seconds[name] for name in seconds if name != "float32"})
            figures["ms"]["float32"] = rounded(1e3 * seconds["float32"])
            far_off = {"largest_error": {"float32": rounded(error)}, "amx": has_amx()}
            yield said.line("bfloat16", {**named(work), **figures, **far_off})


def ours_in_bfloat16(work: Problem) -> Contestant:
    """Our cell with products in bfloat16 and the weights of the problem."""
    cell = CELLS[work.law](work.size.inputs, work.size.hidden, dtype=torch.bfloat16)
    cell.load_state_dict(cell_of(work.law, work.module).state_dict())
    return training(work, cell, lambda x: unroll(cell, x)[0], batch_first=True)


def torch_in_bfloat16(work: Problem) -> Callable[[], object]:
    """torch's layer with weights, input and state in bfloat16."""
    module = type(work.module)(*work.size[2:], batch_first=True).to(torch.bfloat16)
    module.load_state_dict(work.module.state_dict())
    x = work.x.to(torch.bfloat16).requires_grad_()
    weights, dy = [x, *module.parameters()], work.dy.to(torch.bfloat16)
    return lambda: torch.autograd.grad(module(x)[0], weights, dy)


def torch_in_autocast(work: Problem) -> Callable[[], object]:
    """torch's layer with weights in float32, under autocast."""
    x = work.x.clone().requires_grad_()
    weights = [x, *work.module.parameters()]

    def train() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, _ = work.module(x)
        return torch.autograd.grad(y, weights, work.dy.to(y.dtype))

    return train


def far(found: Results, exact: Results) -> float:
    """The largest distance of any gradient from the exact one, as a share of that one's norm."""
    pairs = [(found[f"d{name}"], exact[f"d{name}"]) for name in ("x", "w_xh", "w_hh", "b_h")]
    return max(float(((a - b) ** 2).sum() / (b**2).sum()) ** 0.5 for a, b in pairs)


def has_amx() -> bool:
    """Whether the processor multiplies tiles of bfloat16."""
    return bool(torch.cpu._is_amx_tile_supported())


def named(work: Problem) -> dict[str, Any]:
    """What a line says about its problem."""
    mode = "training" if work.is_training else "forward"
    return {"law": work.law, "mode": mode, "size": list(work.size)}
