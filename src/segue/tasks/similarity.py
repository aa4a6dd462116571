"""How alike two pictures are to the eye."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, SIGMA = 11, 1.5


def ssim(ours: Tensor, theirs: Tensor, span: float) -> Tensor:
    """The structural similarity of Wang et al., 2004 (IEEE Transactions on Image Processing 13),
    averaged over all places and channels::

        (2 m_x m_y + C_1) (2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1) (s_x^2 + s_y^2 + C_2))

    with means m, variances s^2 and the covariance s_xy under a Gaussian window of 11 places and a
    standard deviation of 1.5, the product of one along every extent; only windows that lie in the
    picture count, and a window is no longer than an extent. C_1 = (0.01 span)^2, C_2 = (0.03
    span)^2.

    Args:
        ours, theirs: ``[N, C, *extents]``.
        span: from the least to the largest value that there can be.

    Returns:
        ``[N]``, 1 for equal pictures.
    """
    if not len(ours):
        return ours.new_zeros(0)
    x, y = ours.flatten(0, 1)[:, None].double(), theirs.flatten(0, 1)[:, None].double()
    m_x, m_y = _blurred(x), _blurred(y)
    s_xx, s_yy = _blurred(x * x) - m_x**2, _blurred(y * y) - m_y**2
    s_xy = _blurred(x * y) - m_x * m_y
    c_1, c_2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    alike = (2 * m_x * m_y + c_1) * (2 * s_xy + c_2)
    alike = alike / ((m_x**2 + m_y**2 + c_1) * (s_xx + s_yy + c_2))
    return alike.view(len(ours), -1).mean(1)


def _blurred(x: Tensor) -> Tensor:
    """``[n, 1, *extents]`` under the window, one extent after another."""
    for axis in range(2, x.ndim):
        width = min(WIDTH, x.shape[axis] - (x.shape[axis] + 1) % 2)
        places = torch.arange(width, dtype=x.dtype) - width // 2
        window = torch.exp(-(places**2) / (2 * SIGMA**2))
        lines = x.movedim(axis, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        smooth = nn.functional.conv1d(flat, (window / window.sum()).view(1, 1, -1))
        x = smooth.view(*lines.shape[:-1], -1).movedim(-1, axis)
    return x
