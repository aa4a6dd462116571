"""Draws that a seed of torch decides, made faster than torch makes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segue.ops.library import define_drawing
from segue.ragged import is_traced


def draw(like: Tensor, rows: int, rate: float) -> Tensor:
    """bool ``[rows, units]`` on the device of ``like`` ``[B, units]``, True with this probability.

    Torch draws one number after the other on a CPU; NumPy's SFC64 is several times as fast. Its
    seed is drawn from torch, so that torch's seed and generator state decide as everywhere.
    """
    if like.device.type != "cpu":
        shape = rows, like.shape[1]
        return torch.empty(shape, dtype=torch.bool, device=like.device).bernoulli_(rate)
    if is_traced(like):
        drawn: Tensor = torch.ops.segue.draw(like, rows, rate)
        return drawn
    return _draw(like, rows, rate)


def _draw(like: Tensor, rows: int, rate: float) -> Tensor:
    size = rows * like.shape[1]
    numbers = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
    drawn = numbers.random_raw(-(-size // 2)).view(np.uint32)[:size]
    threshold = np.uint32(min(round(rate * 2**32), 2**32 - 1))
    return torch.from_numpy(drawn < threshold).reshape(rows, like.shape[1])


define_drawing("draw", _draw)
