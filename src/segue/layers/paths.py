"""Which path runs, in words."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import LawCell
from segue.layers.causal import Zoneout
from segue.layers.linear import Linear


def explain(layer: nn.Module) -> str:
    """Names the path on which each part of a layer runs, in training and in inference, and what
    rules out a faster one.

    >>> from segue.cells import GRU
    >>> print(explain(GRU(3, 5, reset_after=False)).splitlines()[0])
    GRU: training: loop (torch's fused GRU has no reset gate before the recurrent product)
    """
    return "\n".join(line for name, part in _parts("", layer) for line in _paths(name, part))


def _parts(place: str, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts that run by themselves, and what to call them."""
    name = f"{place} {type(layer).__name__}".strip()
    parts = list(layer.named_children())
    if not parts or isinstance(layer, Zoneout):
        yield name, layer
        return
    for child, part in parts:
        yield from _parts(f"{place}.{child}".strip("."), part)


def _paths(name: str, layer: nn.Module) -> list[str]:
    if isinstance(layer, Zoneout):
        return [
            f"{name}: training: loop (torch has no fused zoneout)",
            f"{name}: inference: loop over single steps (the native kernels have no zoneout)",
        ]
    if isinstance(layer, Linear):
        limit = _not_native(layer.weight)
        path = f"torch ({limit})" if limit else f"native kernel, {ops.native_name()}"
        return [f"{name}: training: torch", f"{name}: inference: {path}"]
    if isinstance(layer, nn.RNNBase):
        return _paths_of_torch(name, layer)
    if not isinstance(layer, LawCell):
        return [f"{name}: training and inference: torch, all steps at once"]
    law, weight = layer.law(), next(layer.parameters())
    slow = law.not_fused() or _not_fused(weight)
    limit = law.not_native() or _not_native(weight)
    general = "loop" if slow else "torch's fused function"
    training = f"loop ({slow})" if slow else general
    inference = f"{general} ({limit})" if limit else f"native kernel, {ops.native_name()}"
    return [f"{name}: training: {training}", f"{name}: inference: {inference}"]


def _paths_of_torch(name: str, layer: nn.RNNBase) -> list[str]:
    """torch.nn's layers, and those of `segue.nn`, which also take unequal lengths and resets."""
    lines = [f"{name}: padded, without lengths or reset: torch.nn's own"]
    if "lengths" not in signature(layer.forward).parameters:
        return lines
    weight = next(layer.parameters())
    slow, limit = _not_fused(weight), _not_native(weight)
    general = f"loop ({slow})" if slow else "torch's fused function"
    inference = f"{general} ({limit})" if limit else f"native kernel, {ops.native_name()}"
    ragged = f"{name}: with lengths, reset, PackedSequence or Ragged"
    return [*lines, f"{ragged}: training: {general}", f"{ragged}: inference: {inference}"]


def _not_fused(weight: Tensor) -> str | None:
    if ops.fused_runs([weight]):
        return None
    return f"torch's fused functions do not take {weight.dtype}"


def _not_native(weight: Tensor) -> str | None:
    if ops.native_name() is None:
        return "the native module is not built"
    if weight.device.type != "cpu":
        return f"the native kernels run on the CPU, the weights are on {weight.device.type}"
    if weight.dtype != torch.float32:
        return f"the native kernels take float32, the weights are {weight.dtype}"
    return None
