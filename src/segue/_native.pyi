"""Forward passes on the CPU over ragged batches; float32, contiguous, written into the outputs.

`csrc/kernels.h` states each equation and the law of equal bits. Arrays are NumPy arrays or torch
CPU tensors without gradients. Outputs must not overlap inputs or each other, except that `h_last`
may be `h0` and `c_last` may be `c0`. `threads` is the most threads that may run; results do not
depend on it.

Raises:
    ValueError: a shape, dtype, device or layout is wrong, or the lengths do not add up.
    TypeError: an argument is no array, or an output cannot be written.
    ImportError: at import, where SEGUE_TARGET names no target of this machine.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch

Array: TypeAlias = np.ndarray | torch.Tensor

def compiled_for() -> str: ...
def affine(x: Array, w_t: Array, b: Array | None, y: Array, threads: int) -> None: ...
def scan_elman(
    x: Array,
    lengths: Array,
    w_xh_t: Array,
    w_hh_t: Array,
    b: Array,
    activation: int,
    h0: Array,
    y: Array,
    h_last: Array,
    threads: int,
) -> None: ...
def scan_lstm(
    x: Array,
    lengths: Array,
    w_xh_t: Array,
    w_hh_t: Array,
    b: Array,
    w_hr_t: Array | None,
    h0: Array,
    c0: Array,
    y: Array,
    h_last: Array,
    c_last: Array,
    threads: int,
) -> None: ...
def scan_gru(
    x: Array,
    lengths: Array,
    w_xh_t: Array,
    w_hh_t: Array,
    b_x: Array,
    b_hn: Array,
    reset_after: bool,
    h0: Array,
    y: Array,
    h_last: Array,
    threads: int,
) -> None: ...
