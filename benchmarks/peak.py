"""The fastest float32 matrix product that the machine was seen to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from clock import Pace, turns

SHAPES = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (4096, 1024, 1024),
    (3200, 384, 1024),
    (3200, 192, 512),
    (512, 512, 512),
)
"""Rows, inner extent, columns; two are those of an LSTM's input product in the benchmarks."""

multiply = jax.jit(jnp.matmul)


def peak(pace: Pace, is_quick: bool) -> dict[str, Any]:
    """GFLOP/s of the fastest turn of any library and shape, and which that was."""
    best: dict[str, Any] = {"gflops": 0.0}
    for shape in SHAPES[-1:] if is_quick else SHAPES:
        rows, inner, columns = shape
        for library, seconds in turns(dict(products(*shape)), pace).items():
            gflops = 2e-9 * rows * inner * columns / min(seconds)
            if gflops > best["gflops"]:
                best = {"gflops": round(gflops, 1), "library": library, "shape": list(shape)}
    return best


def products(rows: int, inner: int, columns: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """The same product by several libraries."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, inner), dtype=np.float32)
    b = rng.standard_normal((inner, columns), dtype=np.float32)
    out, c = torch.empty(rows, columns), np.empty((rows, columns), dtype=np.float32)
    a_torch, b_torch = torch.from_numpy(a), torch.from_numpy(b)
    a_jax, b_jax = jnp.asarray(a), jnp.asarray(b)
    yield "torch", lambda: torch.mm(a_torch, b_torch, out=out)
    yield "numpy", lambda: np.matmul(a, b, out=c)
    yield "jax", lambda: multiply(a_jax, b_jax).block_until_ready()
