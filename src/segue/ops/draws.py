"""Draws that a seed of torch decides, made faster than torch makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from segue.ops import native
from segue.ops.library import define_drawing
from segue.ragged import is_traced


def draw(like: Tensor, rows: int, rate: float) -> Tensor:
    """bool ``[rows, units]`` on the device of ``like`` ``[B, units]``, True with this probability.

    Torch draws one number after the other on a CPU; the native module counts on several threads,
    from a key that is drawn from torch, so that torch's seed and generator state decide as
    everywhere.
    """
    if like.device.type == "cpu" and is_traced(like):
        drawn: Tensor = torch.ops.segue.draw(like, rows, rate)
        return drawn
    return _draw(like, rows, rate)


def _draw(like: Tensor, rows: int, rate: float) -> Tensor:
    shape = rows, like.shape[1]
    if like.device.type == "cpu":
        drawn = native.draw(rows * like.shape[1], rate)
        if drawn is not None:
            return drawn.view(shape)
    return torch.empty(shape, dtype=torch.bool, device=like.device).bernoulli_(rate)


define_drawing("draw", _draw)
