"""The way back through a native recurrence.

The kernels take the gradients back through time; those of the weights are products over all steps
at once, which torch takes. Derivations: docs/derivations.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import torch
from torch import Tensor

from segue.ops import native
from segue.ops.native import GRU, LSTM, Back, Given, Kept

Gradients: TypeAlias = dict[str, Tensor]
Outer: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]

# Whether bfloat16 products of matrices are faster than those of float32, by many times.
_HAS_AMX: bool = getattr(torch.cpu, "_is_amx_tile_supported", bool)()

# Tensors that are given, but without a gradient: lengths and what is drawn.
CONSTANT = {"lengths", "mask", "keep_h", "keep_c"}


def way_back(
    given: Given,
    kept: Kept,
    y: Tensor,
    outer: Outer,
    need: Collection[str],
    *,
    in_place: bool = False,
) -> Gradients:
    """The gradients of what was given, by field, of those fields that are asked for.

    Args:
        given, kept, y: what `segue.ops.native.scan` was given, kept and returned.
        outer: the gradients of y, of the last h and of the last c; None for zeros.
        need: names of fields.
        in_place: write over the gates that were kept, which must serve once.
    """
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return way_back(given, kept, y, outer, need, in_place=in_place)
    back = native.scan_back(given, kept, y, *outer, in_place=in_place)
    grads = _input(given, back, need)
    if "h" in need:
        grads["h"] = back.dh
    if "c" in need:
        grads["c"] = back.dc
    if "w_hh" in need:
        grads["w_hh"] = _recurrent(given, kept, y, back)
    if "gain" in need:
        grads["gain"] = _gain(given, kept, back)
    if isinstance(given, GRU) and "b_hn" in need:
        grads["b_hn"] = native.column_sums(_last(back.d, back.dh.shape[1]))
    return grads | _memory(given, kept, back, need) if isinstance(given, LSTM) else grads


def _input(given: Given, back: Back, need: Collection[str]) -> Gradients:
    """Those of x, w_xh and b, from that of x's part of the gates."""
    d = back.d.narrow(1, 0, 3 * back.dh.shape[1]) if isinstance(given, GRU) else back.d
    grads: Gradients = {}
    if "x" in need:
        grads["x"] = d.contiguous() if given.w_xh is None else _product(d, given.w_xh, given.half)
    if "w_xh" in need:
        grads["w_xh"] = _product(d.t(), given.x, given.half)
    if "b" in need:
        grads["b"] = native.column_sums(d)
    return grads


def _recurrent(given: Given, kept: Kept, y: Tensor, back: Back) -> Tensor:
    seen = native.before(y, given.h, given.mask, given.lengths, given.reverse)
    if not isinstance(given, GRU):
        return _product(back.dproduct.t(), seen, given.half)
    hidden = seen.shape[1]
    d = back.dproduct
    n = seen if given.b_hn is not None else kept.gates[:, :hidden] * seen
    w_hh = seen.new_empty(3 * hidden, hidden)
    _product(d.narrow(1, 0, 2 * hidden).t(), seen, given.half, w_hh.narrow(0, 0, 2 * hidden))
    _product(_last(d, hidden).t(), n, given.half, w_hh.narrow(0, 2 * hidden, hidden))
    return w_hh


def _product(a: Tensor, b: Tensor, half: bool, out: Tensor | None = None) -> Tensor:
    """a b; in half in bfloat16 where the processor has matrix units for it, and is not slower."""
    if not half or not _HAS_AMX:
        return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)
    product = torch.mm(a.bfloat16(), b.bfloat16())
    return product.float() if out is None else out.copy_(product)


def _last(d: Tensor, hidden: int) -> Tensor:
    """Of a GRU's gates, the columns of W_hn h + b_hn."""
    # narrow costs a third of d[:, -hidden:].
    return d.narrow(1, d.shape[1] - hidden, hidden)


def _gain(given: Given, kept: Kept, back: Back) -> Tensor:
    if not isinstance(given, GRU):
        return native.column_products(back.d, kept.xhat)
    hidden = back.dh.shape[1]
    rz = native.column_products(back.d.narrow(1, 0, 2 * hidden), kept.xhat.narrow(1, 0, 2 * hidden))
    n = native.column_products(_last(back.d, hidden), _last(kept.xhat, hidden))
    return torch.cat([rz, n])


def _memory(given: LSTM, kept: Kept, back: Back, need: Collection[str]) -> Gradients:
    """Those of what only an LSTM has."""
    grads: Gradients = {}
    if "gain_c" in need:
        grads["gain_c"] = native.column_products(back.dnorm_c, kept.chat)
    if "b_c" in need:
        grads["b_c"] = native.column_sums(back.dnorm_c)
    if "w_hr" in need:
        grads["w_hr"] = _product(back.dm_out.t(), kept.m, given.half)
    if "w_c" in need:
        i, f, g, _ = kept.gates.chunk(4, dim=1)
        di, df, _, do = back.d.chunk(4, dim=1)
        c = native.before(kept.c, given.c, None, given.lengths, given.reverse)
        sums = (di * c).sum(0), (df * c).sum(0), (do * (f * c + i * g)).sum(0)
        grads["w_c"] = torch.stack(sums)
    return grads
