"""Anomalies in the series of the Numenta Anomaly Benchmark, scored as the benchmark scores.

Every file has a model of its own, trained on the probationary part alone (the first 15 % of its
rows, at most 750), which then goes through the file step by step: what comes after a step changes
nothing at it. The threshold is the best one for all files together, for every detector likewise,
as the benchmark's own optimiser chooses it; `at_learnt_thresholds` is the score of the alarms that
the models themselves raise, whose thresholds are learnt from the probationary parts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import line
import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

import segue
from segue.tasks import nab, windowed_gaussian
from segue.tasks.recent import fresh

FOLDER = line.DATA / "nab"
SPEC = yaml.safe_load((line.ROOT / "examples" / "anomaly.yaml").read_text(encoding="utf-8"))
HOLD = SPEC["outputs"]["value"]["hold"]


@dataclass(frozen=True)
class Series:
    """A file of the benchmark.

    Attributes:
        name: its group and file.
        frame: timestamp and value.
        windows: first and past-the-last row of each labelled window.
    """

    name: str
    frame: pl.DataFrame
    windows: list[tuple[int, int]]

    @property
    def probation(self) -> int:
        """Rows that are for learning and do not count."""
        return nab.probation_of(self.frame.height)

    def steps(self, scores: NDArray[np.float64]) -> nab.Steps:
        """What alarms at the rows are worth."""
        return nab.steps_of(scores, self.windows, self.probation)


def series() -> list[Series]:
    """All files, in the order of the labels."""
    labels = json.loads((FOLDER / "labels" / "combined_windows.json").read_text(encoding="utf-8"))
    return [read(name, windows) for name, windows in labels.items()]


def read(name: str, windows: list[tuple[str, str]]) -> Series:
    """A file with its windows, whose ends are times."""
    frame = pl.read_csv(FOLDER / "data" / name, schema_overrides={"value": pl.Float64})
    times = frame["timestamp"].to_list()
    # A time that is there twice stands for its first row.
    row = {time: place for place, time in reversed(list(enumerate(times)))}
    spans = [(row[first[:19]], row[last[:19]] + 1) for first, last in windows]
    return Series(name, frame, spans)


def scored(one: Series, seed: int) -> tuple[pl.DataFrame, segue.Run]:
    """What a model that has learnt from the probationary part says of every row."""
    split = {"by": "time", "train": one.probation, "valid": 0, "test": 0.5}
    run = segue.fit(SPEC, rows(one), split=split, training={"seed": seed})
    return run.predict(rows(one)), run


def rows(one: Series) -> pl.DataFrame:
    """The file as a table whose times rise: where a clock was set back, seconds are counted on from
    the last time before, until it has caught up.
    """
    time = one.frame["timestamp"].str.to_datetime("%Y-%m-%d %H:%M:%S")
    place = np.arange(one.frame.height)
    seconds = np.maximum.accumulate(time.dt.epoch("s").to_numpy() - place) + place
    risen = pl.Series("timestamp", seconds * 1_000_000).cast(pl.Datetime("us"))
    return one.frame.with_columns(risen)


def windowed(one: Series) -> NDArray[np.float64]:
    """The scores of the windowed Gaussian."""
    values = one.frame["value"].to_numpy()
    return windowed_gaussian.tail(values, *windowed_gaussian.rolling(values))


def once(seed: int) -> dict[str, Any]:
    """Train and score every file with one seed."""
    ours, alarms, gaussian, held = [], [], [], []
    seconds = parameters = 0.0
    for one in series():
        said, run = scored(one, seed)
        score = said["value_score"].to_numpy()
        ours.append(one.steps(np.where(fresh(score, HOLD), score, -np.inf)))
        alarms.append(one.steps(said["value_is_anomaly"].to_numpy().astype(float)))
        naive = windowed(one)
        gaussian.append(one.steps(naive))
        held.append(one.steps(np.where(fresh(naive, HOLD), naive, -np.inf)))
        seconds, parameters = seconds + run.facts["seconds"], run.facts["parameters"]
    best, theirs = nab.best(ours), nab.best(gaussian)
    return {
        "value": round(best.score, 2),
        "naive": {
            "windowed gaussian": round(theirs.score, 2),
            f"windowed gaussian, hold {HOLD}": round(nab.best(held).score, 2),
        },
        "reached": best.score > theirs.score,
        "seconds": round(seconds, 1),
        "seed": seed,
        "parameters": int(parameters),
        "settings": {"outputs": {"value": SPEC["outputs"]["value"]}, "model": SPEC["model"]},
        "found": f"{best.found} of {best.windows} windows, {best.false} false alarms",
        "windowed_gaussian_found": f"{theirs.found} windows, {theirs.false} false alarms",
        "at_learnt_thresholds": round(nab.at(alarms, 1.0), 2),
    }


if __name__ == "__main__":
    line.main(
        once,
        benchmark="nab",
        data="Numenta Anomaly Benchmark, 31 files of five groups",
        task="anomaly",
        metric="NAB score, standard profile",
        target="> windowed Gaussian",
    )
