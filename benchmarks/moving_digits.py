"""The next 10 frames of two digits that move about, after 10; made of the digits of mnist_8k."""

from __future__ import annotations

from typing import Any

import digits
import line
import numpy as np
import polars as pl

import segue

SPEC = line.ROOT / "examples" / "moving_digits.yaml"
SIZE, FRAMES = 32, 20
TRAIN, VALID, TEST = 3000, 200, 500


def moving(chosen: digits.Pictures, count: int, seed: int) -> digits.Pictures:
    """Clips of two digits, ``[count, FRAMES, SIZE, SIZE]``, after Srivastava et al., 2015
    (arXiv:1502.04681), at half their size.

    Digits of 14 x 14, the means of 2 x 2 places, move straight on at 1.8 places a frame, each in a
    direction of its own, and are thrown back by the edges; where they meet, the brighter place is
    seen.
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
        for clip, both, corners in zip(clips[:, step], which, corner, strict=True):
            for one, (top, left) in zip(both, corners, strict=True):
                seen = clip[top : top + 14, left : left + 14]
                np.maximum(seen, small[one], out=seen)
    return clips


def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Clips that train, the last of them to choose the epoch, and clips of other digits."""
    pictures, _ = digits.digits()
    own, valid = pictures[: digits.TRAIN - 800], pictures[digits.TRAIN - 800 : digits.TRAIN]
    train = np.concatenate([moving(own, TRAIN, 0), moving(valid, VALID, 1)])
    return _table(train), _table(moving(pictures[digits.TRAIN :], TEST, 2))


def _table(clips: digits.Pictures) -> pl.DataFrame:
    column = pl.Series("clip", clips).cast(pl.List(pl.List(pl.List(pl.UInt8))))
    return pl.DataFrame([column])


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed; the clips are the same for all seeds."""
    train, test = tables()
    run = segue.fit(SPEC, train, training={"seed": seed})
    score = run.evaluate(test).scores["clip"]
    last, mean = (score.baselines[name]["mse"] for name in ("last frame", "mean frame"))
    said = run.declaration.to_dict()
    return line.result(
        run,
        value=score.metrics["mse"] / last,
        naive={"last frame": 1.0, "mean frame": mean / last},
        seed=seed,
        settings={"model": said["model"], "training": said["training"]},
        more={name: float(f"{value:.5g}") for name, value in score.metrics.items()},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="moving_digits",
        data=f"two digits on {SIZE} x {SIZE}, {TRAIN} clips train, {TEST} test",
        task="next frame, 10 to 10",
        metric="MSE over that of the last frame",
        target="<= 0.6",
    )
