"""The native kernels on tensors, without gradients: the only place that imports the native module.

All of them take float32 on the CPU, and give bits that depend neither on the batch, nor on
chunking, nor on threads. `segue.ops.recurrence` makes differentiable functions of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import weakref
from collections.abc import Callable, Iterable
from functools import cache
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from segue.ops.given import (
    DIAGONAL,
    GATES,
    GRU,
    LSTM,
    Back,
    Diagonal,
    Elman,
    Given,
    Kept,
    Recurrent,
)

Memory: TypeAlias = NDArray[np.generic]

# The dtypes that a call may have, as it is and under autocast: what is less is cast to float32.
_TAKEN = (torch.float32,)
_CAST = (torch.float32, torch.bfloat16, torch.float16)

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


_NATIVE: Any = load("segue._native")


def native_name() -> str | None:
    """What the native module was compiled for, e.g. ``"avx2"``; None where it was not built."""
    return None if _NATIVE is None else str(_NATIVE.compiled_for())


def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16."""
    return native_name() == "amx"


def native_runs(tensors: Iterable[Tensor]) -> bool:
    """Whether a call on these tensors may run natively, with or without gradients."""
    taken = _CAST if torch.is_autocast_enabled("cpu") else _TAKEN
    for tensor in tensors:
        if tensor.dtype not in taken or tensor.device.type != "cpu":
            return False
    return _NATIVE is not None and not is_transformed()


def is_transformed() -> bool:
    """Whether torch differentiates or maps in a way that only its own simple functions see."""
    return forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None


def affine(x: Tensor, weight: Tensor, bias: Tensor | None, *, half: bool = False) -> Tensor:
    """y = x W^T + b: x ``[N, I]``, W ``[O, I]`` -> ``[N, O]``; with half, x and W are rounded to
    bfloat16.
    """
    y = fresh(x.shape[0], weight.shape[0])
    offset = None if bias is None else _memory(bias)
    w = packed(weight, half=half)
    _NATIVE.affine(_memory(x), w, offset, _memory(y), torch.get_num_threads(), half)
    return y


def half_affine_back(dy: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `affine`'s x in half, dy W: dy ``[N, O]``, which may be a part of longer
    rows.
    """
    dx = fresh(dy.shape[0], weight.shape[1])
    w = packed(weight, transpose=True, half=True)
    _NATIVE.affine(_strided(dy), w, None, _memory(dx), torch.get_num_threads(), True)
    return dx


def outer(d: Tensor, x: Tensor, to: Tensor | None = None, *, half: bool = False) -> Tensor:
    """The gradient of `affine`'s W, d^T x: d ``[N, O]``, x ``[N, I]`` -> ``[O, I]``. Both may be
    parts of longer rows. In half they are rounded where the processor multiplies tiles of bfloat16,
    which is faster there, and nowhere else.
    """
    dw = d.new_empty(d.shape[1], x.shape[1]) if to is None else to
    _NATIVE.outer(_strided(d), _strided(x), dw.numpy(), torch.get_num_threads(), half)
    return dw


def cut(lengths: Tensor, flags: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """`segue.ragged.Ragged.split_at` in one call, since small ones cost as much as a short scan.

    Args:
        lengths: int64 ``[B]``.
        flags: bool ``[N]``.

    Returns:
        the lengths of the pieces, and of each sequence the first and the last one, ``[B]``; None
        where the native module was not built.
    """
    if _NATIVE is None:
        return None
    lengths, first, last = map(torch.from_numpy, _NATIVE.cut(lengths.numpy(), _memory(flags.cpu())))
    return lengths, first, last


def scan_linear(
    a: Tensor, b: Tensor, lengths: Tensor, h: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """h_t = a_t h_{t-1} + b_t: a and b ``[N, H]``, h ``[B, H]`` -> y ``[N, H]``, the last h."""
    y, last = fresh(*a.shape), fresh(*h.shape)
    given = _memory(a), _memory(b), _memory(lengths), _memory(h)
    _NATIVE.scan_linear(*given, _memory(y), _memory(last), reverse, torch.get_num_threads())
    return y, last


def draw(size: int, rate: float) -> Tensor | None:
    """bool ``[size]``, True with this probability; None where the native module was not built."""
    if _NATIVE is None:
        return None
    keep = torch.empty(size, dtype=torch.bool, device="cpu")
    key = int(torch.randint(2**63 - 1, (), device="cpu"))
    _NATIVE.draw(key, rate, keep.view(torch.uint8).numpy(), torch.get_num_threads())
    return keep


_GATES = {Elman: 1, LSTM: 4, GRU: 3}
_ALL = slice(0, None)

# Numbers from which memory is worth large pages, which have 2 MB.
_LARGE = 1 << 19


def gate_columns(given: Recurrent) -> tuple[int, int, int]:
    """How many columns of gates are kept, how many have an input part; the norm's groups."""
    hidden = given.w_hh.shape[0] // _GATES[type(given)]
    return {
        Elman: (hidden, hidden, 1),
        LSTM: (4 * hidden, 4 * hidden, 1),
        GRU: (4 * hidden, 3 * hidden, 2),
    }[type(given)]


def fresh(*shape: int) -> Tensor:
    """A float32 tensor that is not cleared; the memory of large ones is used again."""
    size = prod(shape)
    if size < _LARGE:
        return torch.empty(shape, device="cpu")
    return torch.from_numpy(_NATIVE.reserved(size)).view(shape)


# Makes a tensor of a shape, its values left open.
Make: TypeAlias = Callable[..., Tensor]


def make_kept(given: Given, empty: Make = fresh) -> Kept:
    """Memory for what the way back needs."""
    steps, none = given.x.shape[0], empty(0)
    if isinstance(given, Diagonal):
        return Kept(empty(steps, _sums_width(given)), *(none,) * 8)
    columns, gates, groups = gate_columns(given)
    xhat_x = rstd_x = xhat_h = rstd_h = none
    if given.gain_h is not None:
        xhat_x, rstd_x = empty(steps, gates), empty(steps, groups)
        xhat_h, rstd_h = empty(steps, gates), empty(steps, groups)
    c = chat = rstd_c = m = none
    if isinstance(given, LSTM):
        hidden = columns // 4
        c = empty(steps, hidden)
        m = none if given.w_hr is None else empty(steps, hidden)
        if given.gain_c is not None:
            chat, rstd_c = empty(steps, hidden), empty(steps, 1)
    return Kept(empty(steps, columns), xhat_x, rstd_x, xhat_h, rstd_h, c, chat, rstd_c, m)


def make_outputs(given: Given, empty: Make = fresh) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for y ``[N, R]``, the last h ``[B, R]``, the last c ``[B, H]``, empty without."""
    c = empty(*given.c.shape) if isinstance(given, LSTM) else empty(0)
    return empty(given.x.shape[0], given.h.shape[1]), empty(*given.h.shape), c


def scan(given: Given, kept: Kept | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Takes all sequences through time.

    Returns:
        y ``[N, R]``, the last h ``[B, R]`` and the last c ``[B, H]``, empty without one.
    """
    y, h_last, c_last = outputs = make_outputs(given)
    if isinstance(given, Diagonal):
        kept_gates = None if kept is None else kept.gates
        _NATIVE.scan_diagonal(
            *(DIAGONAL[given.law], *_product(given, kept_gates), _optional(given.rates)),
            *(_memory(given.lengths), _memory(given.h)),
            *(_optional(kept_gates), _memory(y), _memory(h_last), torch.get_num_threads()),
        )
        return outputs
    w_x = packed(given.w_xh, gates=_GATES[type(given)], half=given.half)
    rows, gates = _first_product(given)
    w_h = packed(given.w_hh, rows=rows, gates=gates, half=given.half)
    norms: tuple[Memory | None, ...] = (None,) * 4
    if kept is not None and given.gain_h is not None:
        norms = tuple(map(_memory, kept[1:5]))
    arguments = _NATIVE.Scan(
        *(_memory(given.x), w_x, _memory(given.b), _memory(given.lengths)),
        *(w_h, _memory(given.h), _optional(given.mask)),
        *(_optional(given.gain_x), _optional(given.gain_h), _bytes(given.keep_h), given.rate_h),
        *(*norms, None if kept is None else _memory(kept.gates), _memory(y), _memory(h_last)),
        *(given.reverse, torch.get_num_threads(), given.half),
    )
    if isinstance(given, Elman):
        _NATIVE.scan_elman(arguments, ACTIVATIONS[given.activation])
    elif isinstance(given, GRU):
        w_n = None
        if given.b_hn is None:
            w_n = packed(given.w_hh, rows=_of_n(given), half=given.half)
        _NATIVE.scan_gru(arguments, w_n, _optional(given.b_hn))
    else:
        w_r = None if given.w_hr is None else packed(given.w_hr, half=given.half)
        more = _optional(given.w_c), w_r, _optional(given.gain_c), _optional(given.b_c)
        cell = _bytes(given.keep_c), given.rate_c, _memory(given.c), _memory(c_last)
        extra = (None,) * 4 if kept is None else tuple(map(_filled, kept[5:]))
        _NATIVE.scan_lstm(arguments, *more, *cell, *extra)
    return outputs


def _sums_width(given: Diagonal) -> int:
    """G H."""
    return given.w_xh.shape[0] + (0 if given.w_g is None else given.w_g.shape[0])


def _product(given: Diagonal, to: Tensor | None) -> tuple[Memory, Memory | None, Memory | None]:
    """x, w_x and b as the kernel takes them. Where gates are read off the last one, the sums of all
    are made before, in the memory of `to` if that is given, and no weights are left.
    """
    if given.w_g is None or given.b_g is None:
        w_x = packed(given.w_xh, gates=GATES[given.law])
        return _memory(given.x), w_x, _memory(given.b)
    sums = _memory(fresh(given.x.shape[0], _sums_width(given)) if to is None else to)
    others, size = given.w_g.shape
    v, blocks, parts = sums[:, others:], others // size, given.w_xh.shape[0] // size
    w_g, threads = packed(given.w_g, blocks=blocks), torch.get_num_threads()
    _NATIVE.affine(_memory(given.x), packed(given.w_xh), _memory(given.b), v, threads)
    how = threads, False, blocks, parts
    _NATIVE.affine(v, w_g, _memory(given.b_g), sums[:, :others], *how)
    return sums, None, None


def scan_back(
    given: Recurrent,
    kept: Kept,
    y: Tensor,
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    *,
    in_place: bool = False,
) -> Back:
    """The way back through `scan`, from the gradients of its outputs, None for zeros; in_place
    writes those of the gates and of the products over what was kept of them.
    """
    batch = given.h.shape[0]
    d = kept.gates if in_place else fresh(*kept.gates.shape)
    dh0, d_sum = fresh(*given.h.shape), fresh(batch, d.shape[1])
    du_x = du_h = dgain_x = dgain_h = fresh(0)
    if given.gain_h is not None:
        shape = kept.xhat_x.shape
        du_x, du_h = (kept.xhat_x, kept.xhat_h) if in_place else (fresh(*shape), fresh(*shape))
        dgain_x, dgain_h = fresh(batch, shape[1]), fresh(batch, shape[1])
    first = slice(0, 2 * given.h.shape[1] if isinstance(given, GRU) else None)
    w_h_t = packed(given.w_hh, rows=first, transpose=True, half=given.half)
    arguments = _NATIVE.Back(
        *(_memory(given.lengths), w_h_t),
        *(_memory(given.h), _memory(y), _optional(given.mask)),
        *(_optional(given.gain_x), _filled(kept.xhat_x), _filled(kept.rstd_x)),
        *(_optional(given.gain_h), _filled(kept.xhat_h), _filled(kept.rstd_h)),
        *(_bytes(given.keep_h), given.rate_h, _memory(kept.gates), _optional(dy), _optional(dh)),
        *(_memory(d), _filled(du_x), _filled(du_h)),
        *(_memory(d_sum), _filled(dgain_x), _filled(dgain_h), _memory(dh0)),
        *(given.reverse, torch.get_num_threads(), given.half),
    )
    dc0 = dm_out = dgain_c = db_c = fresh(0)
    if isinstance(given, Elman):
        _NATIVE.scan_elman_back(arguments, ACTIVATIONS[given.activation])
    elif isinstance(given, GRU):
        w_n_t = packed(given.w_hh, rows=_of_n(given), transpose=True, half=given.half)
        _NATIVE.scan_gru_back(arguments, w_n_t, given.b_hn is not None)
    else:
        dc0, w_r_t = fresh(*given.c.shape), None
        if given.w_hr is not None:
            w_r_t = packed(given.w_hr, transpose=True, half=given.half)
            dm_out = fresh(*y.shape)
        if given.gain_c is not None:
            dgain_c, db_c = fresh(*given.c.shape), fresh(*given.c.shape)
        more = _optional(given.w_c), w_r_t, _optional(given.gain_c), _optional(given.b_c)
        cell = _bytes(given.keep_c), given.rate_c, _memory(given.c), _memory(kept.c)
        norm = _filled(kept.chat), _filled(kept.rstd_c), _optional(dc), _memory(dc0)
        grads = _filled(dm_out), _filled(dgain_c), _filled(db_c)
        _NATIVE.scan_lstm_back(arguments, *more, *cell, *norm, *grads)
    return Back(d, du_x, du_h, d_sum, dgain_x, dgain_h, dh0, dc0, dm_out, dgain_c, db_c)


def diagonal_back(
    given: Diagonal,
    kept: Kept,
    y: Tensor,
    dy: Tensor | None,
    dh: Tensor | None,
    *,
    in_place: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `scan_back`: the gradients of the gates' sums ``[N, G H]``, of b and of the rates, sums of
    each sequence ``[B, ...]``, and of the first state.
    """
    batch = given.h.shape[0]
    d = kept.gates if in_place else fresh(*kept.gates.shape)
    d_sum, dh0 = fresh(batch, d.shape[1]), fresh(*given.h.shape)
    drates = fresh(0) if given.rates is None else fresh(batch, given.rates.shape[0])
    _NATIVE.scan_diagonal_back(
        *(DIAGONAL[given.law], _optional(given.rates), _memory(given.lengths), _memory(given.h)),
        *(_memory(y), _memory(kept.gates), _optional(dy), _optional(dh)),
        *(_memory(d), _memory(d_sum), _filled(drates), _memory(dh0), torch.get_num_threads()),
    )
    return d, d_sum, drates, dh0


def _first_product(given: Recurrent) -> tuple[slice, int]:
    """The rows of W_hh that the first recurrent product of a step takes, and of how many gates."""
    if isinstance(given, GRU) and given.b_hn is None:
        return slice(0, 2 * given.h.shape[1]), 2
    return _ALL, _GATES[type(given)]


def _of_n(given: GRU) -> slice:
    return slice(2 * given.h.shape[1], None)


def column_sums(d: Tensor) -> Tensor:
    """The sum of d ``[N, G]`` over its rows."""
    sums = d.new_empty(d.shape[1])
    _NATIVE.column_sums(_memory(d), sums.numpy(), torch.get_num_threads())
    return sums


def before(y: Tensor, first: Tensor, mask: Tensor | None, lengths: Tensor, reverse: bool) -> Tensor:
    """The state before each step ``[N, R]`` times the mask, from those after each step and the
    first ones.
    """
    states = fresh(*y.shape)
    given = _memory(y), _memory(first), _optional(mask), _memory(lengths), reverse
    _NATIVE.before(*given, _memory(states), torch.get_num_threads())
    return states


def gates_serve_once(given: Given) -> bool:
    """Whether nothing but the way back through time reads the gates and the normed products."""
    if isinstance(given, LSTM):
        return given.w_c is None
    return not isinstance(given, GRU) or given.b_hn is not None


def uncounted(x: Tensor) -> Tensor:
    """The same memory. Torch does not count what is written to it as a change of x, which would
    forbid another way back through a graph; see `gates_serve_once`.
    """
    return torch.from_numpy(x.numpy())


def _memory(x: Tensor) -> Memory:
    """The memory of a tensor as a NumPy array, which costs a tenth of handing over the tensor."""
    return (x.detach() if x.requires_grad else x).contiguous().numpy()


def _strided(x: Tensor) -> Memory:
    """As `_memory`, of rows that may be apart."""
    plain = x.detach() if x.requires_grad else x
    return (plain if plain.stride(1) == 1 else plain.contiguous()).numpy()


def _optional(x: Tensor | None) -> Memory | None:
    return None if x is None else _memory(x)


def _filled(x: Tensor) -> Memory | None:
    return _memory(x) if x.dim() > 1 else None


def _bytes(keep: Tensor | None) -> Memory | None:
    return None if keep is None else _memory(keep.view(torch.uint8))


class _Packed(NamedTuple):
    """A weight as the kernels read it, and what tells that it has not changed."""

    parts: dict[tuple[int | None, int | None, int, bool, bool, int], Memory]
    weight: weakref.ref[Tensor]
    version: int
    address: int
    sample: Memory
    sampled: bytes

    def is_of(self, weight: Tensor) -> bool:
        return (
            self.weight() is weight
            and self.version == weight._version
            and self.address == weight.data_ptr()
            and self.sample.tobytes() == self.sampled
        )


# By the id of a weight: a look-up by the tensor itself costs as much as a short step.
_packed: dict[int, _Packed] = {}


def packed(
    weight: Tensor,
    *,
    rows: slice = _ALL,
    gates: int = 1,
    transpose: bool = False,
    half: bool = False,
    blocks: int = 1,
) -> Memory:
    """Rows of a weight ``[O, I]``, which are those of so many gates, or their transpose, packed, in
    half rounded to bfloat16; of so many blocks each by itself. Kept until the weight changes.

    A change is seen by the version that torch counts, and by a sample of the elements, because
    writing through ``weight.data`` is not counted. Whoever writes single elements through ``.data``
    makes it miss the change.
    """
    if weight.is_inference():
        return _pack(weight[rows], gates, transpose, half, blocks)
    known = _packed.get(id(weight))
    if known is None or not known.is_of(weight):
        known = _watched(weight)
    key = rows.start, rows.stop, gates, transpose, half, blocks
    part = known.parts.get(key)
    if part is None:
        part = known.parts[key] = _pack(weight.detach()[rows], gates, transpose, half, blocks)
    return part


def _watched(weight: Tensor) -> _Packed:
    key, plain = id(weight), weight.detach()
    sample = plain
    if plain.is_contiguous():
        sample = plain.reshape(-1)[:: max(1, plain.numel() // 32)]
    reference = weakref.ref(weight, lambda _: _packed.pop(key, None))
    seen = sample.numpy()
    known = _Packed({}, reference, weight._version, weight.data_ptr(), seen, seen.tobytes())
    _packed[key] = known
    return known


def _pack(weight: Tensor, gates: int, transpose: bool, half: bool, blocks: int) -> Memory:
    strided = (weight.t() if transpose else weight).numpy()
    rows, columns = strided.shape
    # Torch aligns its memory to 64 bytes, which the kernels need.
    memory = fresh(blocks * _NATIVE.packed_size(rows // blocks, columns, gates, half)).numpy()
    _NATIVE.pack(strided, memory, torch.get_num_threads(), gates, half, blocks)
    return memory
