"""The next 10 frames of two digits that move about, after 10; digits of mnist_8k."""

from __future__ import annotations

import gzip
from pathlib import Path

import line
import numpy as np
from numpy.typing import NDArray

SIZE, FRAMES, AHEAD = 32, 20, 10


def digits(folder: Path = line.DATA / "mnist_8k") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The pictures ``[8000, 28, 28]`` and their labels; the first 6,400 train."""
    images = gzip.decompress((folder / "images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "labels-idx1-ubyte.gz").read_bytes())[8:]
    return np.frombuffer(images, np.uint8).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8)


def moving(chosen: NDArray[np.uint8], count: int, seed: int) -> NDArray[np.uint8]:
    """Clips of two digits, ``[count, FRAMES, SIZE, SIZE]``, after Srivastava et al., 2015
    (arXiv:1502.04681), at half their size.

    Digits of 14 x 14, the means of 2 x 2 places, move straight on at 1.8 places a frame, in a
    direction of their own, and are thrown back by the edges; where they meet, the brighter place
    is seen.
    """
    rng = np.random.default_rng(seed)
    small = chosen.reshape(-1, 14, 2, 14, 2).mean((2, 4)).round().astype(np.uint8)
    room = SIZE - small.shape[1]
    which = rng.integers(len(small), size=(count, 2))
    place = rng.uniform(0, room, (count, 2, 2))
    angle = rng.uniform(0, 2 * np.pi, (count, 2))
    speed = 1.8 * np.stack([np.sin(angle), np.cos(angle)], axis=2)
    clips = np.zeros((count, FRAMES, SIZE, SIZE), np.uint8)
    for step in range(FRAMES):
        # A path that is thrown back at both ends is one that goes on, folded.
        far = (place + speed * step) % (2 * room)
        corner = np.minimum(far, 2 * room - far).round().astype(int)
        for clip, which_two, corners in zip(clips[:, step], which, corner, strict=True):
            for one, (top, left) in zip(which_two, corners, strict=True):
                seen = clip[top : top + 14, left : left + 14]
                np.maximum(seen, small[one], out=seen)
    return clips
