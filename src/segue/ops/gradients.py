"""The way back through a native recurrence.

The kernels take the gradients back through time; those of the weights are products over all steps
at once, which torch or a kernel takes, whichever is faster. Derivations: docs/derivations.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import torch
from torch import Tensor

from segue.ops import native
from segue.ops.given import GRU, LSTM, Back, Diagonal, Given, Kept, Recurrent

Gradients: TypeAlias = dict[str, Tensor]
Outer: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]

# Tensors that are given, but without a gradient: lengths and what is drawn.
CONSTANT = {"lengths", "mask", "keep_h", "keep_c"}

# Columns up to which the outer products of the native module are the faster ones.
_FEW_COLUMNS = 64

# Those whose gradient is a sum over all steps.
_SUMS = {"b", "b_hn", "gain_x", "gain_h"}


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
    if isinstance(given, Diagonal):
        return _diagonal(given, kept, y, outer, need, in_place)
    back = native.scan_back(given, kept, y, *outer, in_place=in_place)
    grads = _input(given, back, need)
    if "h" in need:
        grads["h"] = back.dh
    if "c" in need:
        grads["c"] = back.dc
    if "w_hh" in need:
        grads["w_hh"] = _recurrent(given, kept, y, back)
    if not _SUMS.isdisjoint(need):
        grads |= _sums(given, back)
    return grads | _memory(given, kept, back, need) if isinstance(given, LSTM) else grads


def _diagonal(
    given: Diagonal, kept: Kept, y: Tensor, outer: Outer, need: Collection[str], in_place: bool
) -> Gradients:
    """Those of a diagonal law, whose products are all made before the way through time."""
    v = None
    if given.w_g is not None:
        v = kept.gates[:, given.w_g.shape[0] :]
        # The way back may write over the gates, of which v is one.
        v = native.fresh(*v.shape).copy_(v) if in_place else v
    d, d_sum, drates, dh = native.diagonal_back(given, kept, y, *outer[:2], in_place=in_place)
    b, grads = native.column_sums(d_sum), Gradients()
    if given.w_g is not None and v is not None:
        grads, d, b = _of_gates(given.w_g, v, d, b)
    if "x" in need:
        grads["x"] = _of_input(d, given.w_xh, False)
    if "w_xh" in need:
        grads["w_xh"] = _of_weight(d, given.x, False)
    if "b" in need:
        grads["b"] = b
    if "rates" in need:
        grads["rates"] = native.column_sums(drates)
    if "h" in need:
        grads["h"] = dh
    return grads


def _of_gates(w_g: Tensor, v: Tensor, d: Tensor, b: Tensor) -> tuple[Gradients, Tensor, Tensor]:
    """Of gates that are read off the last one, v: the gradients of w_g and b_g, and from those of
    all sums, d and their sums b, that of v, in the memory of d, and its sums.
    """
    others, size = w_g.shape
    d = native.uncounted(d)
    dv, dw, db = d[:, others:], torch.empty_like(w_g), b[others:].clone()
    for m in range(others // size):
        own = slice(m * size, m * size + size)
        part = slice(m * size % v.shape[1], m * size % v.shape[1] + size)
        torch.mm(d[:, own].t(), v[:, part], out=dw[own])
        torch.addmm(dv[:, part], d[:, own], w_g[own], out=dv[:, part])
        db[part] += b[own] @ w_g[own]
    return {"w_g": dw, "b_g": b[:others]}, dv, db


def _input(given: Recurrent, back: Back, need: Collection[str]) -> Gradients:
    """Those of x and w_xh, from that of their product."""
    d = back.du_x
    if given.gain_x is None:
        d = back.d.narrow(1, 0, given.w_xh.shape[0])
    grads: Gradients = {}
    if "x" in need:
        grads["x"] = _of_input(d, given.w_xh, given.half)
    if "w_xh" in need:
        grads["w_xh"] = _of_weight(d, given.x, given.half)
    return grads


def _sums(given: Recurrent, back: Back) -> Gradients:
    """Those of biases and of gains, sums over all sequences."""
    sums, rows = native.column_sums(back.d_sum), given.b.shape[0]
    grads = {"b": sums.narrow(0, 0, rows)}
    if isinstance(given, GRU) and given.b_hn is not None:
        grads["b_hn"] = sums.narrow(0, rows, sums.shape[0] - rows)
    if given.gain_h is not None:
        grads["gain_x"] = native.column_sums(back.dgain_x)
        grads["gain_h"] = native.column_sums(back.dgain_h)
    return grads


def _recurrent(given: Recurrent, kept: Kept, y: Tensor, back: Back) -> Tensor:
    seen = native.before(y, given.h, given.mask, given.lengths, given.reverse)
    d = back.d if given.gain_h is None else back.du_h
    if not isinstance(given, GRU):
        return _of_weight(d, seen, given.half)
    hidden = seen.shape[1]
    n = seen if given.b_hn is not None else kept.gates[:, :hidden] * seen
    if given.gain_h is not None and given.b_hn is not None:
        return _of_weight(d, seen, given.half)
    w_hh = seen.new_empty(3 * hidden, hidden)
    _of_weight(d.narrow(1, 0, 2 * hidden), seen, given.half, w_hh.narrow(0, 0, 2 * hidden))
    _of_weight(_last(d, hidden), n, given.half, w_hh.narrow(0, 2 * hidden, hidden))
    return w_hh


def _of_input(d: Tensor, weight: Tensor, half: bool) -> Tensor:
    """d W, the gradient of what W is multiplied with."""
    if half and native.has_tiles():
        return native.half_affine_back(d, weight)
    # Into memory that is used again: the system clears what torch would ask for.
    return torch.mm(d, weight, out=native.fresh(d.shape[0], weight.shape[1]))


def _of_weight(d: Tensor, x: Tensor, half: bool, to: Tensor | None = None) -> Tensor:
    """d^T x, the gradient of W; where x has many columns torch is faster, measured."""
    if x.shape[1] <= _FEW_COLUMNS or (half and native.has_tiles()):
        return native.outer(d, x, to, half=half)
    return torch.mm(d.t(), x) if to is None else torch.mm(d.t(), x, out=to)


def _last(d: Tensor, hidden: int) -> Tensor:
    """The last columns: of a GRU's gates those of W_hn h + b_hn, of a product those of n."""
    # narrow costs a third of d[:, -hidden:].
    return d.narrow(1, d.shape[1] - hidden, hidden)


def _memory(given: LSTM, kept: Kept, back: Back, need: Collection[str]) -> Gradients:
    """Those of what only an LSTM has."""
    grads: Gradients = {}
    if not {"gain_c", "b_c"}.isdisjoint(need):
        grads["gain_c"], grads["b_c"] = map(native.column_sums, (back.dgain_c, back.db_c))
    if "w_hr" in need:
        grads["w_hr"] = _of_weight(back.dm_out, kept.m, given.half)
    if "w_c" in need:
        i, f, g, _ = kept.gates.chunk(4, dim=1)
        di, df, _, do = back.d.chunk(4, dim=1)
        c = native.before(kept.c, given.c, None, given.lengths, given.reverse)
        sums = (di * c).sum(0), (df * c).sum(0), (do * (f * c + i * g)).sum(0)
        grads["w_c"] = torch.stack(sums)
    return grads
