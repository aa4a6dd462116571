"""Which path runs, in words."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import S5, ConvCell, LawCell, LinearCell
from segue.layers.decay import Decay
from segue.layers.linear import Linear
from segue.layers.noise import RecurrentDropout, Zoneout


def explain(layer: nn.Module) -> str:
    """Names the path on which each part of a layer runs, in training and in inference, and what
    rules out a faster one.

    >>> from segue.cells import GRU
    >>> from segue.layers import Zoneout
    >>> print(explain(Zoneout(GRU(3, 5, layer_norm=True).half(), hidden=0.1)).partition(" (")[0])
    Zoneout: training and inference: loop
    """
    return "\n".join(line for name, part in _parts("", layer) for line in _paths(name, part))


def _parts(place: str, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts that run by themselves, and what to call them."""
    name = f"{place} {type(layer).__name__}".strip()
    parts = list(layer.named_children())
    if not parts or isinstance(layer, RecurrentDropout | Zoneout | Decay):
        yield name, layer
        return
    for child, part in parts:
        yield from _parts(f"{place}.{child}".strip("."), part)


def _paths(name: str, layer: nn.Module) -> list[str]:
    if isinstance(layer, Linear):
        return [f"{name}: training: torch", f"{name}: inference: {_product(layer.weight)}"]
    if isinstance(layer, nn.RNNBase):
        return _paths_of_torch(name, layer)
    if isinstance(layer, LawCell | RecurrentDropout | Zoneout):
        return _paths_of_law(name, layer)
    both = f"{name}: training and inference"
    if isinstance(layer, LinearCell):
        is_native = layer.law and not _not_native(layer.w_xh)
        return [f"{both}: {_native() if is_native else _loop_alone(layer)}"]
    if isinstance(layer, S5):
        return _paths_of_s5(name, layer)
    if isinstance(layer, Decay):
        return [f"{both}: {_path_of_decay(layer)}"]
    if isinstance(layer, ConvCell):
        return [f"{both}: loop over torch's convolutions (a kernel for them there is not)"]
    return [f"{both}: torch, all steps at once"]


def _paths_of_s5(name: str, layer: S5) -> list[str]:
    limit = _not_native(layer.b)
    states = f"loop ({limit})" if limit else _native()
    outputs = "torch" if layer.w_g is not None else _product(layer.d)
    lines = {"training": "torch", "inference": outputs}
    return [f"{name}: {when}: states: {states}; outputs: {path}" for when, path in lines.items()]


def _path_of_decay(layer: Decay) -> str:
    if not isinstance(layer.body, LinearCell):
        return f"loop over the steps of {type(layer.body).__name__} (the state fades between them)"
    return _loop_alone(layer.body)


def _loop_alone(cell: LinearCell) -> str:
    """How a cell runs whose gates torch makes."""
    carried = cell.w_xh.new_empty(0, dtype=ops.carried_dtype(cell.w_xh))
    limit = _not_native(carried) or _not_cast()
    return f"torch, then a loop ({limit})" if limit else f"torch, then the loop alone: {_native()}"


def _paths_of_law(name: str, layer: LawCell | RecurrentDropout | Zoneout) -> list[str]:
    cell, at_training, at_inference = _around(layer)
    law, weight = cell.law(), next(cell.parameters())

    def path(around: tuple[str, ...]) -> str:
        limit = law.not_native(*around) or _not_native(weight)
        if not limit:
            return _native()
        slow = law.not_fused(*around) or _not_fused(weight)
        return f"loop ({limit}; {slow})" if slow else f"{_fused(weight)} ({limit})"

    training, inference = path(at_training), path(at_inference)
    if training == inference:
        return [f"{name}: training and inference: {training}"]
    return [f"{name}: training: {training}", f"{name}: inference: {inference}"]


def _around(
    layer: LawCell | RecurrentDropout | Zoneout,
) -> tuple[LawCell, tuple[str, ...], tuple[str, ...]]:
    """The cell with a law of its own, and what is around it in training and in inference."""
    if isinstance(layer, LawCell):
        return layer, (), ()
    cell, training, inference = _around(layer.body)
    if isinstance(layer, RecurrentDropout):
        return cell, (*training, "recurrent dropout") if layer.rate else training, inference
    word = ("zoneout",) if any(layer.rates) else ()
    return cell, (*training, *word), (*inference, *word)


def _paths_of_torch(name: str, layer: nn.RNNBase) -> list[str]:
    """torch.nn's layers, and those of `segue.nn`, which run as segue's cells do."""
    both = f"{name}: training and inference"
    if "lengths" not in signature(layer.forward).parameters:
        return [f"{both}: torch.nn's own"]
    weight = next(layer.parameters())
    limit = _not_native(weight)
    if not limit:
        return [f"{both}: {_native()}"]
    slow = _not_fused(weight)
    general = f"loop ({limit}; {slow})" if slow else f"{_fused(weight)} ({limit})"
    plain = f"{name}: padded, without lengths or reset: torch.nn's own"
    return [plain, f"{name}: with lengths, reset, PackedSequence or Ragged: {general}"]


def _fused(weight: Tensor) -> str:
    return "torch's cuDNN function" if weight.is_cuda else "torch's fused function"


def _native() -> str:
    return f"native kernel, {ops.native_name()}"


def _product(weight: Tensor) -> str:
    """How W x + b runs where no gradient is needed."""
    limit = _not_native(weight) or _not_cast()
    return f"torch ({limit})" if limit else _native()


def _not_cast() -> str | None:
    return "under autocast" if torch.is_autocast_enabled("cpu") else None


def _not_fused(weight: Tensor) -> str | None:
    if ops.fused_runs([weight]):
        return None
    if _not_cast():
        return "torch's fused functions do not run under autocast"
    return f"torch's fused functions do not take {weight.dtype}"


def _not_native(weight: Tensor) -> str | None:
    if ops.native_name() is None:
        return "the native module is not built"
    if weight.device.type != "cpu":
        return f"the native kernels run on the CPU, the weights are on {weight.device.type}"
    if not ops.native_runs([weight]):
        return f"the native kernels take float32, the weights are {weight.dtype}"
    return None
