"""The adding problem: 200 numbers, two of them marked; the answer is the sum of these two.

Source: Hochreiter and Schmidhuber (1997), in the form of Le, Jaitly and Hinton (2015).
"""

from __future__ import annotations

from typing import Any

import line
import numpy as np
from numpy.typing import NDArray

import segue

STEPS, TRAIN, TEST = 200, 20_000, 2_000
SETTINGS: dict[str, Any] = {
    "model": {"cell": "lstm", "hidden": 64, "dropout": 0.0},
    "training": {"epochs": 4},
}


def sequences(count: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """x ``[count, STEPS, 2]`` with one mark in each half, and y ``[count]``."""
    random = np.random.default_rng(seed)
    x = np.zeros((count, STEPS, 2), np.float32)
    x[..., 0] = random.random((count, STEPS))
    rows, half = np.arange(count), STEPS // 2
    first, second = random.integers(0, half, count), random.integers(half, STEPS, count)
    x[rows, first, 1] = x[rows, second, 1] = 1
    return {"x": x, "y": x[rows, first, 0] + x[rows, second, 0]}


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed, which draws the data too."""
    train, test = sequences(TRAIN, 2 * seed), sequences(TEST, 2 * seed + 1)
    training = {**SETTINGS["training"], "seed": seed}
    run = segue.fit(train["x"], train["y"], model=SETTINGS["model"], training=training)
    score = run.evaluate(test).scores["y"]
    naive = {"always 1": float(((test["y"] - 1) ** 2).mean())}
    return line.result(
        run, value=score.metrics["rmse"] ** 2, naive=naive, seed=seed, settings=SETTINGS
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="adding",
        data="generated: 20,000 training and 2,000 test sequences of 200 steps",
        task="regress at the end",
        metric="MSE",
        target="< 0.01",
    )
