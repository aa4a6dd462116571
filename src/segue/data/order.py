"""An order that is a function of (seed, epoch, position): a place in training is one integer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """A random order of ``0 .. count - 1``; the same for the same arguments on every machine and
    version.

    >>> sorted(permutation(seed=1, epoch=2, count=5).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(draws(seed, epoch, count), kind="stable")


def draws(seed: int, epoch: int, count: int) -> NDArray[np.uint64]:
    """`count` uniform 64-bit integers: SplitMix64 (Steele, Lea and Flood 2014) of a counter, keyed
    by seed and epoch.
    """
    key = int(_mix(np.array([(seed * 0x9E3779B97F4A7C15 + epoch) & _MASK], np.uint64))[0])
    counter = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mix(counter + np.uint64(key))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
