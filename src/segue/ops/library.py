"""The native functions as operators of torch, `torch.ops.segue`, for what traces calls instead of
making them: torch.compile, torch.export, make_fx, fake tensors.

For each law there are three: ``segue::gru`` takes the fields of `segue.ops.given.GRU` and returns
y, the last h and the last c; ``segue::gru_kept`` returns what the way back needs besides; and
``segue::gru_back`` is the way back. Gradients come with the first, under whatever it is traced.

What a call costs, in microseconds, of a GRU with 8 inputs and 16 hidden units over 5 steps, the
least of many calls on one core:

                                              inference   training: there   and back
    the autograd function, called directly        26             48            210
    an operator, gradients by its Autograd key    36             65            357
    an operator, by register_autograd             48            111            321
    an operator, by the decorator custom_op       55            121            333

Hence eager calls take the function itself, and only traces the operators. Their gradients hang on
the Autograd key, because the operator then needs to return what the way back needs nowhere but in
training: the graph that torch.export writes is that of inference, and can be trained all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_type_hints

import torch
from torch import Tensor

from segue.ops import native
from segue.ops.given import GRU, LSTM, Diagonal, Elman, Given, Kept
from segue.ops.gradients import CONSTANT, Gradients, Outer, way_back

Outputs: TypeAlias = tuple[Tensor, ...]

NAMES: dict[type[Given], str] = {
    Elman: "elman",
    LSTM: "lstm",
    GRU: "gru",
    Diagonal: "diagonal",
}

_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", float: "float", bool: "bool", str: "str"}

_LIBRARY: Any = torch.library.Library("segue", "DEF")  # type: ignore[no-untyped-call]


def differentiate(name: str, call: Callable[..., Any]) -> None:
    """Says what an operator does where a gradient may be needed."""
    _LIBRARY.impl(name, call, "Autograd")


def define_drawing(name: str, call: Callable[[Tensor, int, float], Tensor]) -> None:
    """Defines an operator that draws bool ``[rows, units]``; two calls of it are never one."""
    _LIBRARY.define(
        f"{name}(Tensor like, SymInt rows, float rate) -> Tensor",
        tags=(torch.Tag.nondeterministic_seeded,),
    )

    def shapes(like: Tensor, rows: int, rate: float) -> Tensor:
        return like.new_empty((rows, like.shape[1]), dtype=torch.bool)

    _implement(name, call, shapes)


def keep(given: Given) -> tuple[tuple[Tensor, ...], Kept]:
    """As `segue.ops.native.scan`, and what the way back needs: by the operator."""
    outputs = getattr(torch.ops.segue, f"{NAMES[type(given)]}_kept")(*given)
    return outputs[:3], Kept(*outputs[3:])


def back(given: Given, kept: Kept, y: Tensor, outer: Outer, need: list[str]) -> Gradients:
    """As `segue.ops.gradients.way_back`: by the operator."""
    operator = getattr(torch.ops.segue, f"{NAMES[type(given)]}_back")
    found = operator(*given, *kept, y, *outer, need)
    grads = zip(differentiable(type(given)), found, strict=True)
    return {name: d for name, d in grads if name in need}


def differentiable(kind: type[Given]) -> list[str]:
    """The fields that have a gradient."""
    types = get_type_hints(kind)
    return [name for name in types if "Tensor" in _TYPES[types[name]] and name not in CONSTANT]


def _schema(kind: type[Given]) -> str:
    return ", ".join(f"{_TYPES[type_]} {name}" for name, type_ in get_type_hints(kind).items())


def _tensors(names: list[str]) -> str:
    return "(" + ", ".join(f"Tensor {name}" for name in names) + ")"


def _separate(tensors: tuple[Tensor, ...]) -> Outputs:
    """The same, where no two are one: an operator's outputs must not share memory."""
    return tuple(x if x.dim() > 1 else x.new_empty(0) for x in tensors)


def _implement(name: str, call: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    _LIBRARY.impl(name, call, "CPU")
    torch.library.register_fake(f"segue::{name}", shapes, lib=_LIBRARY)


def _define(kind: type[Given]) -> None:
    name, fields, grads = NAMES[kind], _schema(kind), differentiable(kind)
    states, kept = ["y", "h_last", "c_last"], [f"kept_{name}" for name in Kept._fields]
    outer = "Tensor? dy, Tensor? dh_last, Tensor? dc_last, str[] need"
    given = ", ".join(f"Tensor {name}" for name in [*kept, "out"])
    _LIBRARY.define(f"{name}({fields}) -> {_tensors(states)}")
    _LIBRARY.define(f"{name}_kept({fields}) -> {_tensors([*states, *kept])}")
    _LIBRARY.define(
        f"{name}_back({fields}, {given}, {outer}) -> {_tensors([f'd{name}' for name in grads])}"
    )

    def split(fields: tuple[Any, ...]) -> tuple[Given, Kept, Tensor, Outer, list[str]]:
        size = len(kind._fields)
        y, dy, dh, dc, need = fields[-5:]
        return kind(*fields[:size]), Kept(*fields[size:-5]), y, (dy, dh, dc), need

    def scan(*fields: Any) -> Outputs:
        return _separate(native.scan(kind(*fields)))

    def scan_shapes(*fields: Any) -> Outputs:
        given = kind(*fields)
        return native.make_outputs(given, given.x.new_empty)

    def keep(*fields: Any) -> Outputs:
        given = kind(*fields)
        kept = native.make_kept(given)
        return _separate((*native.scan(given, kept), *kept))

    def keep_shapes(*fields: Any) -> Outputs:
        given = kind(*fields)
        empty = given.x.new_empty
        return _separate((*native.make_outputs(given, empty), *native.make_kept(given, empty)))

    def back(*fields: Any) -> Outputs:
        given, kept, y, outer, need = split(fields)
        found = way_back(given, kept, y, outer, need)
        return tuple(found[name] if name in need else y.new_empty(0) for name in grads)

    def back_shapes(*fields: Any) -> Outputs:
        given, _, y, _, need = split(fields)
        shapes = [getattr(given, name).shape if name in need else (0,) for name in grads]
        return tuple(y.new_empty(shape) for shape in shapes)

    _implement(name, scan, scan_shapes)
    _implement(f"{name}_kept", keep, keep_shapes)
    _implement(f"{name}_back", back, back_shapes)


for kind in NAMES:
    _define(kind)
_LIBRARY.define("affine(Tensor x, Tensor w, Tensor? b) -> Tensor y")
_implement("affine", native.affine, lambda x, w, b: x.new_empty(x.shape[0], w.shape[0]))

OPERATORS = {kind: getattr(torch.ops.segue, name).default for kind, name in NAMES.items()}
