"""The next frames of five real clips; all their frames and sound tracks are decoded."""

from __future__ import annotations

from typing import Any

import line
import numpy as np
import polars as pl

import segue
from segue.errors import DataError
from segue.fields.clip import Clip, sound

SPEC = line.ROOT / "examples" / "video_clips.yaml"
FOLDER = line.DATA / "video_clips"
NAMES = (
    "bikes.mp4",
    "bigbuckbunny.mp4",
    "carphone_distorted.mp4",
    "carphone_pristine.mp4",
    "nasa_13013.mp4",
)


def decoded() -> dict[str, int]:
    """Frames and samples of all streams of all clips."""
    frames = samples = tracks = streams = 0
    for name in NAMES:
        for stream in range(8):
            try:
                clip = Clip(FOLDER / name, stream, name)
            except DataError:
                break
            streams, frames = streams + 1, frames + sum(1 for _ in clip.frames())
        for stream in range(8):
            try:
                heard = sum(len(block) for _, block in sound(FOLDER / name, name, stream))
            except DataError:
                break
            tracks, samples = tracks + 1, samples + heard
    return {"streams": streams, "frames": frames, "sound tracks": tracks, "samples": samples}


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed: the last fifth of every clip is the test."""
    table = pl.DataFrame({"clip": [str(FOLDER / name) for name in NAMES], "name": NAMES})
    run = segue.fit(SPEC, table, training={"seed": seed})
    assert run.evaluation is not None
    score = run.evaluation.scores["clip"]
    said = run.declaration.to_dict()
    return line.result(
        run,
        value=score.metrics["mse"] / score.baselines["last frame"]["mse"],
        naive={
            name: metrics["mse"] / score.baselines["last frame"]["mse"]
            for name, metrics in score.baselines.items()
        },
        seed=seed,
        settings={"model": said["model"], "training": said["training"]},
        more={
            **{name: float(f"{value:.5g}") for name, value in score.metrics.items()},
            "last frame psnr": float(np.round(score.baselines["last frame"]["psnr"], 2)),
            **decoded(),
        },
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="video_clips",
        data="five clips at 32 x 56, the last fifth of each is the test",
        task="next frame, 2 ahead",
        metric="MSE over that of the last frame",
        target="",
    )
