"""The native recurrences, and what goes with them, as differentiable functions of torch.

A call is made in the cheapest way: without a gradient the kernel itself, else an autograd function,
and where calls are traced an operator of `segue.ops.library`, which has the same gradients. A
second derivative is that of the definition, the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from segue.errors import SpecError
from segue.ops import library, native
from segue.ops.given import Given, Kept
from segue.ops.gradients import Gradients, Outer, way_back
from segue.ragged import is_traced

Outputs: TypeAlias = tuple[Tensor, Tensor, Tensor]
Definition: TypeAlias = Callable[[Any], tuple[Tensor, ...]]
Grads: TypeAlias = tuple[Tensor | None, ...]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + b: ``torch.nn.functional.linear``, natively where no gradient is needed.

    Args:
        x: ``[..., I]``.
        weight: ``[O, I]``.
        bias: ``[O]`` or None.

    Returns:
        y ``[..., O]``.
    """
    given = (x, weight) if bias is None else (x, weight, bias)
    is_cast = torch.is_autocast_enabled("cpu")
    if is_cast or needs_grad(given) or not native.native_runs(given):
        return torch.nn.functional.linear(x, weight, bias)
    call = torch.ops.segue.affine if is_traced(x) else native.affine
    y: Tensor = call(x.reshape(-1, weight.shape[1]), weight, bias)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def needs_grad(given: tuple[Any, ...]) -> bool:
    """Whether a gradient will be asked of a function of these, tensors or not."""
    if torch.is_grad_enabled():
        for x in given:
            if isinstance(x, Tensor) and x.requires_grad:
                return True
    return False


def scan(given: Given, definition: Definition) -> Outputs:
    """Takes all sequences through time; differentiable in all tensors but lengths, mask and draws.

    Under autocast it computes in float32, whatever the dtype of what is given, and returns y in the
    dtype of autocast; the states stay float32.

    Args:
        given: what the kernel is given.
        definition: what it means, written in torch: the second derivative is taken of it.

    Returns:
        y ``[N, R]``, the last h ``[B, R]``, and the last c ``[B, H]``, empty without one.
    """
    if torch.is_autocast_enabled("cpu"):
        y, h, c = _scan(type(given)(*map(_as_float32, given)), definition)
        return y.to(torch.get_autocast_dtype("cpu")), h, c
    return _scan(given, definition)


def _scan(given: Given, definition: Definition) -> Outputs:
    if is_traced(given.x):
        y, h, c = library.OPERATORS[type(given)](*given)
        return y, h, c
    if not needs_grad(given):
        return native.scan(given)
    y, h, c = _Scan.apply(_DIRECT, definition, type(given), *given)  # type: ignore[no-untyped-call]
    return y, h, c


def _as_float32(x: Any) -> Any:
    is_half = isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if is_half else x


def _keep(given: Given) -> tuple[Outputs, Kept]:
    kept = native.make_kept(given)
    return native.scan(given, kept), kept


# How the kernel is called: the scan that keeps, and the way back.
Calls: TypeAlias = tuple[Callable[..., Any], Callable[..., Gradients]]
_DIRECT: Calls = (_keep, way_back)
_TRACED: Calls = (library.keep, library.back)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, calls: Calls, definition: Definition, kind: type[Given], *fields: Any
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        given = kind(*fields)
        outputs: Outputs
        outputs, kept = calls[0](given)
        ctx.calls, ctx.definition, ctx.kind, ctx.is_spent = calls, definition, kind, False
        ctx.plain = [None if isinstance(x, Tensor) else x for x in fields]
        tensors = [x if isinstance(x, Tensor) else None for x in fields]
        ctx.save_for_backward(*tensors, outputs[0], *kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None) -> Grads:
        size, tensors = len(ctx.plain), ctx.saved_tensors
        fields = [p if t is None else t for p, t in zip(ctx.plain, tensors[:size], strict=True)]
        given: Given = ctx.kind(*fields)
        needed = zip(given._fields, ctx.needs_input_grad[3:], strict=True)
        need = [name for name, is_needed in needed if is_needed]
        if torch.is_grad_enabled():
            grads = _differentiable(ctx.definition, given, (dy, dh, dc), need)
        else:
            y, kept = tensors[size], Kept(*tensors[size + 1 :])
            call = ctx.calls[1]
            if ctx.calls is _DIRECT and native.gates_serve_once(given):
                # The memory of the gates is used again for their gradients, unless an earlier way
                # back through a retained graph has done so: then the gates are made anew.
                kept = _keep(given)[1] if ctx.is_spent else kept
                ctx.is_spent, call = True, partial(way_back, in_place=True)
            grads = call(given, kept, y, (dy, dh, dc), need)
        return None, None, None, *(grads.get(name) for name in given._fields)


def _differentiable(
    definition: Definition, given: Given, outer: Outer, need: list[str]
) -> dict[str, Tensor | None]:
    def outputs(*views: Tensor) -> tuple[Tensor, ...]:
        changed: dict[str, Any] = dict(zip(need, views, strict=True))
        return definition(given._replace(**changed))

    grads = _again(outputs, [getattr(given, name) for name in need], outer)
    return dict(zip(need, grads, strict=True))


def _again(
    definition: Callable[..., tuple[Tensor, ...]], inputs: list[Tensor], outer: Grads
) -> Grads:
    """The gradients by way of the definition, so that they can be differentiated again."""
    # Views, because one input may have been made of another: these are the partial derivatives.
    views = [x.view_as(x) for x in inputs]
    # Where there is no c, the definition need not return one.
    pairs = [(y, dy) for y, dy in zip(definition(*views), outer, strict=False) if dy is not None]
    outputs, dys = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, views, dys, create_graph=True, allow_unused=True)


def _only_once(*_: Any) -> NoReturn:
    where, fix = "the gradient of an operator of segue", "use the layer outside of a trace"
    raise SpecError(where, "a first derivative", "create_graph=True", fix)


def _below(operator: Any, *fields: Any) -> Any:
    """The operator itself, without its gradients."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*fields)


def _give_gradients(name: str, function: Callable[..., Any]) -> None:
    """Gives an operator the gradients of a function, which is called where they are needed."""
    operator = getattr(torch.ops.segue, name).default

    def call(*fields: Any) -> Any:
        if needs_grad(fields):
            return function(*fields)
        return _below(operator, *fields)

    library.differentiate(name, call)


for _kind, _name in library.NAMES.items():
    _give_gradients(_name, partial(_Scan.apply, _TRACED, _only_once, _kind))
_give_gradients("affine", torch.nn.functional.linear)
