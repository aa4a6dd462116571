"""Layer norm inside a recurrence (Ba et al., 2016, arXiv:1607.06450).

    n(u) = (u - mean u) / sqrt(var u + 1e-5)

mean and var (the biased one) are those of a group of columns of one row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segue import ops

EPSILON = 1e-5


def normed(u: Tensor, gain: Tensor | None, groups: tuple[int, ...] | None = None) -> Tensor:
    """n(u) * gain; without a gain u itself.

    Args:
        u: ``[..., G]``.
        gain: ``[G]``, or None for no norm.
        groups: the widths of the groups of columns, G in sum; None for all columns together.
    """
    if gain is None:
        return u
    parts = torch.split(u, list(groups), dim=-1) if groups else (u,)
    scaled = [torch.nn.functional.layer_norm(v, v.shape[-1:], eps=EPSILON) for v in parts]
    return (torch.cat(scaled, dim=-1) * gain).to(u.dtype)


def projected(
    x: Tensor, w: Tensor, b: Tensor, gain: Tensor | None, groups: tuple[int, ...] | None = None
) -> Tensor:
    """W x + b, and with a gain n(W x) * gain + b: ``[..., I] -> [..., G]``."""
    if gain is None:
        return ops.linear(x, w, b)
    return (normed(ops.linear(x, w), gain, groups) + b).to(x.dtype)


def rounded(x: Tensor, half: bool) -> Tensor:
    """x, in half rounded to bfloat16 and kept in its own dtype; a gradient passes as it is."""
    return x + (x.bfloat16().to(x.dtype) - x).detach() if half else x
