"""What a native scan is given, what it keeps for its way back, and what comes back."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from torch import Tensor


class Shared(NamedTuple):
    """What every scan is given.

    Attributes:
        x: the inputs ``[N, I]``.
        lengths: int64 ``[B]``.
        w_xh, b, w_hh: weights ``[G, I]``, ``[G]``, ``[G, R]``.
        gain_x, gain_h: of the norms of both products ``[G]``, or None.
        mask: of recurrent dropout ``[B, R]``, or None.
        h: the first state ``[B, R]``.
        keep_h: draws of zoneout, bool ``[N, R]``; None: the share rate_h is kept.
        rate_h: as a float.
        reverse: take each sequence from its end.
    """

    x: Tensor
    lengths: Tensor
    w_xh: Tensor
    b: Tensor
    w_hh: Tensor
    gain_x: Tensor | None
    gain_h: Tensor | None
    mask: Tensor | None
    h: Tensor
    keep_h: Tensor | None
    rate_h: float
    reverse: bool


class Elman(NamedTuple):
    """`Shared`, and the activation, a key of `ACTIVATIONS`; half: round what is multiplied to
    bfloat16.
    """

    x: Tensor
    lengths: Tensor
    w_xh: Tensor
    b: Tensor
    w_hh: Tensor
    gain_x: Tensor | None
    gain_h: Tensor | None
    mask: Tensor | None
    h: Tensor
    keep_h: Tensor | None
    rate_h: float
    reverse: bool
    activation: str
    half: bool = False


class LSTM(NamedTuple):
    """`Shared`, and the projection w_hr ``[P, H]``, peepholes w_c ``[3, H]``, gain and bias of the
    norm of c ``[H]``, c ``[B, H]`` and its zoneout; half as in `Elman`.
    """

    x: Tensor
    lengths: Tensor
    w_xh: Tensor
    b: Tensor
    w_hh: Tensor
    gain_x: Tensor | None
    gain_h: Tensor | None
    mask: Tensor | None
    h: Tensor
    keep_h: Tensor | None
    rate_h: float
    reverse: bool
    w_hr: Tensor | None
    w_c: Tensor | None
    gain_c: Tensor | None
    b_c: Tensor | None
    c: Tensor
    keep_c: Tensor | None
    rate_c: float
    half: bool = False


class GRU(NamedTuple):
    """`Shared`, and b_hn ``[H]``, None for the form that resets before; half as in `Elman`."""

    x: Tensor
    lengths: Tensor
    w_xh: Tensor
    b: Tensor
    w_hh: Tensor
    gain_x: Tensor | None
    gain_h: Tensor | None
    mask: Tensor | None
    h: Tensor
    keep_h: Tensor | None
    rate_h: float
    reverse: bool
    b_hn: Tensor | None
    half: bool = False


class Diagonal(NamedTuple):
    """A law whose state enters linearly, each unit by itself.

    Attributes:
        x: the inputs ``[N, I]``.
        lengths: int64 ``[B]``.
        w_xh, b: of the sums of its gates, ``[G H, I]``, ``[G H]``; of the last gate alone,
            v = W x + b, where there is w_g.
        rates: what the law knows of each unit besides ``[W]``, or None.
        h: the first state ``[B, R]``.
        law: a key of `DIAGONAL`.
        w_g, b_g: of the sums of the other gates, read off v in equal blocks of K units, each of
            them by itself: ``[(G - 1) H, K]``, ``[(G - 1) H]``; or None.
    """

    x: Tensor
    lengths: Tensor
    w_xh: Tensor
    b: Tensor
    rates: Tensor | None
    h: Tensor
    law: str
    w_g: Tensor | None = None
    b_g: Tensor | None = None


Recurrent: TypeAlias = Elman | LSTM | GRU
Given: TypeAlias = Recurrent | Diagonal

DIAGONAL = {"min_gru": 0, "min_lstm": 1, "rg_lru": 2, "s5": 3}
"""Diagonal laws by name, as csrc/kernels.h counts them."""

GATES = {"min_gru": 2, "min_lstm": 3, "rg_lru": 3, "s5": 2}
"""How many gates each of them has."""


class Kept(NamedTuple):
    """What the way back needs beside what was given; an empty tensor stands for what there is not.

    Attributes:
        gates: see `Recurrence` and `DiagonalScan` in kernels.h.
        xhat_x, rstd_x, xhat_h, rstd_h: of the norms of both products.
        c, chat, rstd_c, m: of an LSTM, see `Lstm` in kernels.h.
    """

    gates: Tensor
    xhat_x: Tensor
    rstd_x: Tensor
    xhat_h: Tensor
    rstd_h: Tensor
    c: Tensor
    chat: Tensor
    rstd_c: Tensor
    m: Tensor


class Back(NamedTuple):
    """What comes back; an empty tensor stands for what there is not.

    Attributes:
        d: of the gates before their activation.
        du_x, du_h: of both products, with norms.
        d_sum, dgain_x, dgain_h: the sum of d over the steps of each sequence ``[B, ...]``, and the
            gradients of the gains, likewise.
        dh, dc: of the first state.
        dm_out: of an LSTM's h before zoneout, with a projection.
        dgain_c, db_c: of an LSTM's norm of c, sums like d_sum.
    """

    d: Tensor
    du_x: Tensor
    du_h: Tensor
    d_sum: Tensor
    dgain_x: Tensor
    dgain_h: Tensor
    dh: Tensor
    dc: Tensor
    dm_out: Tensor
    dgain_c: Tensor
    db_c: Tensor
