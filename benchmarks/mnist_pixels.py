"""Digits from their 784 places, one after another. Other laws: `laws.py pixels`."""

from __future__ import annotations

from typing import Any

import digits
import line

import segue

SPEC = line.ROOT / "examples" / "mnist_pixels.yaml"


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    train, test = digits.table(digits.digits()[0].reshape(-1, 784))
    run = segue.fit(SPEC, train, training={"seed": seed})
    return digits.result(run, test, seed)


if __name__ == "__main__":
    line.main(
        once,
        benchmark="mnist_pixels",
        data="mnist_8k, 6,400 train and 1,600 test",
        task="classify, a place a step, 784 steps",
        metric="accuracy",
        target=">= 0.93",
    )
