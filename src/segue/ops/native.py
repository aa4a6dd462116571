"""The native kernels: the only place that imports the native module.

The scans take x ``[N, I]``, the steps of one sequence after those of another, and lengths ``[B]``.
All of them take float32 on the CPU, and give bits that depend neither on the batch, nor on
chunking, nor on threads.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.weak import WeakIdKeyDictionary

Memory: TypeAlias = NDArray[np.generic]

ACTIVATIONS = {"identity": 0, "tanh": 1, "relu": 2, "sigmoid": 3}

_log = logging.getLogger("segue")


@cache
def load(name: str) -> Any:
    """The compiled module of this name, or None where it was not built; said once."""
    if importlib.util.find_spec(name) is None:
        _log.warning(
            "the native module is not built: running on torch alone; "
            "install segue with a C++17 compiler at hand"
        )
        return None
    return importlib.import_module(name)


def _module() -> Any:
    return load("segue._native")


def native_name() -> str | None:
    """What the native module was compiled for, e.g. ``"avx2"``; None where it was not built."""
    module = _module()
    return None if module is None else str(module.compiled_for())


def native_runs(tensors: Iterable[Tensor]) -> bool:
    """Whether a call on these tensors may run natively."""
    grad = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return False
        if grad and tensor.requires_grad:
            return False
    return _module() is not None and not _is_transformed()


def _is_transformed() -> bool:
    """Whether torch traces, casts or differentiates in a way that foreign kernels do not see."""
    return (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or forward_ad._current_level >= 0
        or torch._C._functorch.maybe_current_level() is not None
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + b: ``torch.nn.functional.linear``, natively where no gradient is needed.

    Args:
        x: ``[..., I]``.
        weight: ``[O, I]``.
        bias: ``[O]`` or None.

    Returns:
        y ``[..., O]``.
    """
    if not native_runs((x, weight) if bias is None else (x, weight, bias)):
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.reshape(-1, weight.shape[1])
    y = x.new_empty(flat.shape[0], weight.shape[0])
    offset = None if bias is None else _memory(bias)
    memory = _memory(flat), transposed(weight), offset, _memory(y)
    _module().affine(*memory, torch.get_num_threads())
    return y.reshape(*x.shape[:-1], weight.shape[0])


def scan_elman(
    x: Tensor, lengths: Tensor, w_xh: Tensor, w_hh: Tensor, b: Tensor, activation: str, h: Tensor
) -> tuple[Tensor, Tensor]:
    """The law of `segue.cells.Elman` -> y ``[N, H]``, last h ``[B, H]``."""
    y, h_last = x.new_empty(x.shape[0], w_hh.shape[1]), h.new_empty(h.shape)
    _module().scan_elman(
        *(_memory(x), _memory(lengths), transposed(w_xh), transposed(w_hh), _memory(b)),
        *(ACTIVATIONS[activation], _memory(h), _memory(y), _memory(h_last)),
        torch.get_num_threads(),
    )
    return y, h_last


def scan_lstm(
    x: Tensor,
    lengths: Tensor,
    w_xh: Tensor,
    w_hh: Tensor,
    b: Tensor,
    w_hr: Tensor | None,
    h: Tensor,
    c: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The law of `segue.cells.LSTM` -> y ``[N, R]``, last h ``[B, R]``, last c ``[B, H]``."""
    y = x.new_empty(x.shape[0], w_hh.shape[1])
    h_last, c_last = h.new_empty(h.shape), c.new_empty(c.shape)
    projection = None if w_hr is None else transposed(w_hr)
    _module().scan_lstm(
        *(_memory(x), _memory(lengths), transposed(w_xh), transposed(w_hh), _memory(b), projection),
        *(_memory(h), _memory(c), _memory(y), _memory(h_last), _memory(c_last)),
        torch.get_num_threads(),
    )
    return y, h_last, c_last


def scan_gru(
    x: Tensor,
    lengths: Tensor,
    w_xh: Tensor,
    w_hh: Tensor,
    b: Tensor,
    b_hn: Tensor,
    reset_after: bool,
    h: Tensor,
) -> tuple[Tensor, Tensor]:
    """The law of `segue.cells.GRU` -> y ``[N, H]``, last h ``[B, H]``."""
    y, h_last = x.new_empty(x.shape[0], w_hh.shape[1]), h.new_empty(h.shape)
    _module().scan_gru(
        *(_memory(x), _memory(lengths), transposed(w_xh), transposed(w_hh), _memory(b)),
        *(_memory(b_hn), reset_after, _memory(h), _memory(y), _memory(h_last)),
        torch.get_num_threads(),
    )
    return y, h_last


def _memory(x: Tensor) -> Memory:
    """The memory of a tensor as a NumPy array, which costs a tenth of handing over the tensor."""
    return (x.detach() if x.requires_grad else x).contiguous().numpy()


class _Turned(NamedTuple):
    """A transposed weight, and what tells that the weight has not changed since."""

    turned: Memory
    version: int
    address: int
    sample: Tensor
    sampled: Tensor


_turned: WeakIdKeyDictionary = WeakIdKeyDictionary()


def transposed(weight: Tensor) -> Memory:
    """The contiguous transpose ``[I, O]`` of a weight ``[O, I]``, kept until the weight changes.

    A change is seen by the version that torch counts, and by a sample of the elements, because
    writing through ``weight.data`` is not counted. Whoever writes single elements through ``.data``
    makes it miss the change.
    """
    if weight.is_inference():
        return _memory(weight.t())
    known: _Turned | None = _turned.get(weight)  # type: ignore[no-untyped-call]
    if (
        known is not None
        and known.version == weight._version
        and known.address == weight.data_ptr()
        and torch.equal(known.sample, known.sampled)
    ):
        return known.turned
    plain = weight.detach()
    sample = plain.reshape(-1)[:: max(1, plain.numel() // 32)] if plain.is_contiguous() else plain
    # A copy even where the transpose is contiguous as it is, as that of a column.
    turned = plain.t().clone(memory_format=torch.contiguous_format).numpy()
    _turned[weight] = _Turned(turned, weight._version, weight.data_ptr(), sample, sample.clone())
    return turned
