"""The digits of mnist_8k: pictures, labels and parts, for the benchmarks that read them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import line
import numpy as np
import polars as pl
from numpy.typing import NDArray

import segue

TRAIN = 6400
"""Digits that train, of 8,000 in an order drawn once: those first in the file are easier."""

Pictures = NDArray[np.uint8]


def digits(folder: Path = line.DATA / "mnist_8k") -> tuple[Pictures, NDArray[np.uint8]]:
    """Pictures ``[8000, 28, 28]`` and labels in the order in which they are split."""
    images = gzip.decompress((folder / "images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "labels-idx1-ubyte.gz").read_bytes())[8:]
    order = np.random.default_rng(0).permutation(8000)
    pictures = np.frombuffer(images, np.uint8).reshape(-1, 28, 28)
    return pictures[order], np.frombuffer(labels, np.uint8)[order]


def table(cells: Pictures) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What trains and what is scored: a row per digit, whose cell is that of `cells` ``[8000,
    ...]``.
    """
    dtype: Any = pl.UInt8
    for _ in cells.shape[1:]:
        dtype = pl.List(dtype)
    column = pl.Series("picture", cells).cast(dtype)
    frame = pl.DataFrame([column, pl.Series("digit", digits()[1])])
    return frame[:TRAIN], frame[TRAIN:]


def result(run: segue.Run, test: pl.DataFrame, seed: int) -> dict[str, Any]:
    """The line of a run that says which digit it is."""
    score = run.evaluate(test).scores["digit"]
    naive = {answer: metrics["accuracy"] for answer, metrics in score.baselines.items()}
    said = run.declaration.to_dict()
    settings = {"model": said["model"], "training": said["training"]}
    return line.result(
        run, value=score.metrics["accuracy"], naive=naive, seed=seed, settings=settings
    )
