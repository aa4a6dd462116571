"""The data of the catalogue of models: small, of every kind, and the same on every machine."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import soundfile

from segue.fields.spectrum import Spectrum

KEYS = {"a": 11, "b": 8, "c": 13}
"""Steps of each sequence."""


def _gappy(values: np.ndarray[Any, Any], share: float, seed: int) -> pl.Series:
    gone = np.random.default_rng(seed).random(len(values)) < share
    return pl.Series(np.where(gone, np.nan, values)).fill_nan(None)


def _bursts(rng: np.random.Generator, place: int, steps: int) -> np.ndarray[Any, Any]:
    """How many samples a step has; two in the last sequence, by which the work of steps is held."""
    return np.full(steps, 2) if place == 2 else rng.integers(0, 4, steps)


@cache
def keyed() -> pl.DataFrame:
    """Sequences of unequal length at uneven times: numbers with gaps, a category, statics."""
    rng = np.random.default_rng(3)
    frames = []
    for place, (key, steps) in enumerate(KEYS.items()):
        x = rng.normal(size=steps).cumsum()
        hours = rng.integers(1, 5, steps).cumsum()
        frames.append(
            pl.DataFrame(
                {
                    "key": [key] * steps,
                    "time": [datetime(2026, 1, 1) + timedelta(hours=int(h)) for h in hours],
                    "x": _gappy(x, 0.3, place),
                    "z": rng.normal(size=steps),
                    "word": pl.Series(rng.choice(["red", "green", "blue"], steps)),
                    "site": ["north" if place else "south"] * steps,
                    "size": [None if place == 1 else float(place)] * steps,
                    "kind": ["good" if place else "bad"] * steps,
                    "amount": [float(place)] * steps,
                    "level": x * 2 + 1,
                    "state": np.where(x > 0, "up", "down"),
                    "burst": [
                        rng.normal(size=size).tolist() for size in _bursts(rng, place, steps)
                    ],
                }
            )
        )
    return pl.concat(frames, how="vertical_relaxed")


@cache
def labelled() -> pl.DataFrame:
    """The same with a list of labels per sequence, and labels of 0 and 1 per step."""
    labels = {"a": ["old", "wet"], "b": [], "c": ["wet"]}
    return keyed().with_columns(
        labels=pl.col("key").replace_strict(labels, return_dtype=pl.List(pl.String)),
        is_up=(pl.col("x") > 0).cast(pl.Int8),
        is_red=(pl.col("word") == "red").cast(pl.Int8),
    )


@cache
def series(*, gaps: bool = False, late: bool = False) -> pl.DataFrame:
    """Hourly series of three keys, with columns v0 and v1, and what is known ahead."""
    rng = np.random.default_rng(4)
    frames = []
    for place, (key, steps) in enumerate(KEYS.items()):
        time = np.arange(steps + 9)
        waves = [np.sin(time / 2 + k) * 5 + 20 * k + rng.normal(size=len(time)) for k in (0, 1)]
        columns = [_gappy(wave, 0.25 if gaps else 0, place) for wave in waves]
        if late and place == 0:
            columns[0] = pl.select(
                pl.when(pl.Series(time < 6)).then(None).otherwise(columns[0])
            ).to_series()
        frames.append(
            pl.DataFrame(
                {
                    "key": [key] * len(time),
                    "time": [datetime(2026, 1, 1) + timedelta(hours=int(h)) for h in time],
                    "v0": columns[0],
                    "v1": columns[1],
                    "heat": rng.normal(size=len(time)),
                    "sold": np.random.default_rng(place).poisson(3, len(time)).astype(float),
                    "sale": pl.Series(rng.choice(["yes", "no"], len(time))),
                    "site": ["north" if place else "south"] * len(time),
                }
            )
        )
    return pl.concat(frames)


def one_series() -> pl.DataFrame:
    """A single series."""
    return series().filter(pl.col("key") == "c").drop("key")


def counted() -> pl.DataFrame:
    """The series without a clock."""
    return series().drop("time")


def texts() -> pl.DataFrame:
    """A text per row; one is empty."""
    return pl.DataFrame({"x": ["hello there", "abracadabra", "", "what a day"]})


def sentences() -> pl.DataFrame:
    """Words and signs; one row is empty."""
    rows = ["To be, or not to be.", "That is the question: to BE!", "", "Or not?"]
    return pl.DataFrame({"x": rows})


def marks() -> pl.DataFrame:
    """Numbers that come and go, and a letter for each; one has no steps but the first."""
    rng, rows = np.random.default_rng(7), []
    for count in (4, 1, 3, 5):
        letters = rng.choice(list("ab"), count)
        levels = [[0.0, *[float(letter == "a") + 1.0] * 2] for letter in letters]
        rows.append({"x": [value for level in levels for value in level], "y": "".join(letters)})
    return pl.DataFrame(rows)


def chords() -> pl.DataFrame:
    """A list of sets of notes per row."""
    rng = np.random.default_rng(5)
    notes = ["c", "d", "e", "f"]
    steps = [9, 6, 11]
    lists = [[[n for n in notes if rng.random() < 0.4] for _ in range(s)] for s in steps]
    return pl.DataFrame({"x": pl.Series(lists, dtype=pl.List(pl.List(pl.String)))})


RECORDED = Spectrum(rate=8000, size=5)


@cache
def recordings() -> pl.DataFrame:
    """Recordings of noise, loud or not, and what to call them."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    rng, rows = np.random.default_rng(8), []
    for place, steps in enumerate((12, 7, 20)):
        samples = rng.normal(size=RECORDED.window + RECORDED.hop * (steps - 1)) * 0.1 ** (place + 1)
        soundfile.write(folder / f"{place}.wav", samples, 8000, subtype="FLOAT")
        rows.append({"x": str(folder / f"{place}.wav"), "kind": "good" if place else "bad"})
    return pl.DataFrame(rows)


def samples_of(path: str) -> np.ndarray[Any, Any]:
    """The samples of a recording."""
    samples: np.ndarray[Any, Any] = soundfile.read(path, dtype="float32")[0]
    return samples


def cut_recording(path: str, stop: int) -> str:
    """A recording of the first steps of another; where it is."""
    cut = Path(path).with_suffix(f".{stop}.wav")
    samples = samples_of(path)[: RECORDED.window + RECORDED.hop * (stop - 1)]
    soundfile.write(cut, samples, 8000, subtype="FLOAT")
    return str(cut)


@cache
def beside() -> pl.DataFrame:
    """Examples of two sequences with clocks of their own; some lack the second one."""
    rng = np.random.default_rng(6)
    lists = [rng.normal(size=steps).tolist() for steps in (5, 9, 1, 7)]
    notes = ["all well", None, "", "not well"]
    return pl.DataFrame({"x": lists, "note": notes, "kind": ["up", "down", "up", "down"]})


@cache
def tales() -> pl.DataFrame:
    """Texts, and what is to be written about them."""
    x = ["hello there", "abracadabra", "what a day"]
    return pl.DataFrame({"x": x, "y": ["Good day.", "Be gone!", "Good, a day."]})


@cache
def pictures() -> pl.DataFrame:
    """Clips of 4 x 6 places that drift, their labels, and a picture beside each."""
    rng = np.random.default_rng(7)
    clips = [
        (100 + 50 * np.sin(np.arange(24)[None] / 3 + np.arange(steps)[:, None] + place)).tolist()
        for place, steps in enumerate((9, 6, 11))
    ]
    stills = rng.integers(0, 256, (3, 8, 8)).tolist()
    return pl.DataFrame(
        {
            "x": pl.Series(clips, dtype=pl.List(pl.List(pl.Float64))),
            "still": pl.Series(stills, dtype=pl.List(pl.List(pl.UInt8))),
            "kind": ["up", "down", "up"],
        }
    )


def videos() -> pl.DataFrame:
    """Videos at hand of unequal length."""
    rng = np.random.default_rng(8)
    clips = [rng.integers(0, 256, (steps, 5, 6)).tolist() for steps in (8, 5, 10)]
    dtype = pl.List(pl.List(pl.List(pl.UInt8)))
    return pl.DataFrame({"x": pl.Series(clips, dtype=dtype), "kind": ["up", "down", "up"]})
