"""A spoken and a written digit: do they say the same? Two kinds with clocks of their own.

Recordings of the Free Spoken Digit Dataset by their official split (5-9 choose the epoch), pictures
of mnist_8k by the split of digits.py (the last 400 that would train choose the epoch). Half of the
pairs say the same. In a tenth of the examples of each part one of the two is missing, as often
the one as the other.
"""

from __future__ import annotations

from typing import Any

import digits
import line
import numpy as np
import polars as pl

import segue

SPEC = line.ROOT / "examples" / "same_digit.yaml"
COUNTS = {"train": 8000, "valid": 600, "test": 2000}


def pairs(seed: int) -> pl.DataFrame:
    """A row per pair, with the part that it belongs to."""
    random = np.random.default_rng(seed)
    places = sorted((line.DATA / "fsdd" / "recordings").glob("*.wav"))
    said = np.array([int(path.stem[0]) for path in places])
    index = np.array([int(path.stem.rpartition("_")[2]) for path in places])
    pictures, labels = digits.digits()
    place = np.arange(len(labels))
    held = digits.TRAIN - 400
    own = {
        "train": (index >= 10, place < held),
        "valid": ((index >= 5) & (index < 10), (place >= held) & (place < digits.TRAIN)),
        "test": (index < 5, place >= digits.TRAIN),
    }
    frames = []
    for part, count in COUNTS.items():
        spoken, written = (np.flatnonzero(mask) for mask in own[part])
        first = random.choice(spoken, count)
        same = random.random(count) < 0.5
        digit = np.where(same, said[first], (said[first] + random.integers(1, 10, count)) % 10)
        second = np.array([random.choice(written[labels[written] == one]) for one in digit])
        gone = np.where(random.random(count) < 0.1, random.integers(1, 3, count), 0)
        paths = [str(places[row]) for row in first]
        frames.append(
            pl.DataFrame(
                {
                    "spoken": [None if g == 1 else p for p, g in zip(paths, gone, strict=True)],
                    "written": [
                        None if g == 2 else pictures[row].tolist()
                        for row, g in zip(second, gone, strict=True)
                    ],
                    "same": np.where(same, "yes", "no"),
                    "part": [part] * count,
                }
            )
        )
    return pl.concat(frames)


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed, which draws the pairs too."""
    frame = pairs(seed)
    run = segue.fit(SPEC, frame, training={"seed": seed})
    test = frame.filter(pl.col("part") == "test")
    right = run.predict(test)["same"] == test["same"]
    both = test["spoken"].is_not_null() & test["written"].is_not_null()
    baseline = max(float((test.filter(both)["same"] == word).mean()) for word in ("yes", "no"))
    declared = run.declaration.to_dict()
    return line.result(
        run,
        value=float(right.filter(both).mean()),
        naive={"majority": baseline},
        seed=seed,
        settings={"spec": SPEC.name, "model": declared["model"], "training": declared["training"]},
        more={"one_missing": round(float(right.filter(~both).mean()), 3)},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="two_digits",
        data="pairs of fsdd and mnist_8k, official parts",
        task="classify, two kinds, two clocks",
        metric="accuracy where both are there",
        target=">= 0.95",
    )
