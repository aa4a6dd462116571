"""One row per kind of whole model; test_laws.py runs every law over every row that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any

import numpy as np
import polars as pl

import segue
from segue.inference import obstacle
from segue.ops import native_name
from segue.run import Run

Record = dict[str, Any]

KEYS = {"a": 11, "b": 8, "c": 13}
"""Steps of each sequence."""

HORIZON = 3


@dataclass(frozen=True)
class Row:
    """A declaration with data that fit it, trained for two epochs.

    Args:
        name: what the test is called.
        spec: the declaration, without what all rows have in common.
        make: the data.
    """

    name: str
    spec: Mapping[str, Any]
    make: Callable[[], pl.DataFrame]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The data."""
        return self.make()

    @cached_property
    def run(self) -> Run:
        """The model; the last steps, or the last sequence, were held out."""
        return segue.fit(self.spec, self.frame)

    @property
    def forecasts(self) -> bool:
        """Whether the output is a forecast."""
        return "forecast" in self.name

    @property
    def causal(self) -> bool:
        """Whether the model can run live."""
        return "bidirectional" not in self.name

    @property
    def every(self) -> bool:
        """Whether there is an answer at every step."""
        return not self.name.startswith(("classify", "regress-end"))

    @property
    def key(self) -> str | None:
        """The key column; None where rows are examples or there is but one sequence."""
        key: str | None = self.spec["data"].get("key")
        return key

    @cached_property
    def sequences(self) -> dict[str, pl.DataFrame]:
        """The data of every sequence on their own."""
        if self.spec["data"]["rows"] == "examples":
            return {str(row): self.frame[row : row + 1] for row in range(self.frame.height)}
        if self.key is None:
            return {"": self.frame}
        return {key: self.frame.filter(pl.col(self.key) == key) for key in KEYS}

    def cut(self, name: str, stop: int) -> pl.DataFrame:
        """The first steps of a sequence."""
        own = self.sequences[name]
        if self.spec["data"]["rows"] == "steps":
            return own[:stop]
        if self.spec["inputs"]["x"].get("role") == "apart":
            return own
        is_text = own["x"].dtype == pl.String
        cut = pl.col("x").str.head(stop) if is_text else pl.col("x").list.head(stop)
        return own.with_columns(cut)

    def records(self, name: str) -> list[Record]:
        """A sequence as it would come in live, without the target where it is not read."""
        own = self.sequences[name]
        if self.spec["data"]["rows"] == "examples":
            return self._of_example(own)
        hidden = [] if self.forecasts else list(self.spec["outputs"])
        found = own.drop(hidden + ([self.key] if self.key else [])).to_dicts()
        known = [n for n, given in self.spec["inputs"].items() if given.get("role") == "known"]
        if known:
            # From the last records on, the future is not in the data.
            found = found[: len(found) - HORIZON]
            for index, record in enumerate(found):
                after = slice(index + 1, index + 1 + HORIZON)
                record["ahead"] = {name: own[name][after].to_list() for name in known}
        return found

    def _of_example(self, own: pl.DataFrame) -> list[Record]:
        roles = {name: given.get("role", "step") for name, given in self.spec["inputs"].items()}
        once = {n: own[n].to_list()[0] for n, role in roles.items() if role != "step"}
        if "step" not in roles.values():
            return [once]
        return [{"x": value, **once} for value in own["x"].to_list()[0]]

    def hold(self, actual: Any, expected: Any) -> None:
        """Holds predictions to each other: to the bit, but where a live model runs by torch."""
        by_torch = self.causal and obstacle(self.run.trained.network) is not None
        hold_equal(actual, expected, max(TOLERANCE, 1e-5 if by_torch else 0.0))

    def ahead(self, name: str, stop: int) -> pl.DataFrame | None:
        """What is known ahead after the first steps of a sequence."""
        known = any(given.get("role") == "known" for given in self.spec["inputs"].values())
        return self.sequences[name][stop : stop + HORIZON] if known else None

    @cached_property
    def stepped(self) -> dict[str, list[Record]]:
        """The predictions after every record of every sequence, each alone and one by one."""
        made = {}
        for name in self.sequences:
            session = self.run.session()
            made[name] = [session.step(record) for record in self.records(name)]
        return made


# Data ---------------------------------------------------------------------------------------------


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


def chords() -> pl.DataFrame:
    """A list of sets of notes per row."""
    rng = np.random.default_rng(5)
    notes = ["c", "d", "e", "f"]
    steps = [9, 6, 11]
    lists = [[[n for n in notes if rng.random() < 0.4] for _ in range(s)] for s in steps]
    return pl.DataFrame({"x": pl.Series(lists, dtype=pl.List(pl.List(pl.String)))})


@cache
def beside() -> pl.DataFrame:
    """Examples of two sequences with clocks of their own; some lack the second one."""
    rng = np.random.default_rng(6)
    lists = [rng.normal(size=steps).tolist() for steps in (5, 9, 1, 7)]
    notes = ["all well", None, "", "not well"]
    return pl.DataFrame({"x": lists, "note": notes, "kind": ["up", "down", "up", "down"]})


# Rows ---------------------------------------------------------------------------------------------

NUMBERS = {"x": {"kind": "number"}, "z": {"kind": "number", "scale": "minmax"}}
MIXED = {
    **NUMBERS,
    "time": {"kind": "timestamp"},
    "word": {"kind": "category", "unknown": "allow"},
    "site": {"kind": "category", "role": "static", "unknown": "allow"},
    "size": {"kind": "number", "role": "static"},
}
BY_KEY = {"rows": "steps", "key": "key", "time": "time"}
LAST_KEY = {"by": "key", "valid": 0, "test": 1}
LAST_STEPS = {"by": "time", "valid": 4, "test": 5}
FORECAST = {"task": "forecast", "horizon": HORIZON}
CLOCK = {"time": {"kind": "timestamp"}}


def _spec(
    data: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> dict[str, Any]:
    return {"data": dict(data), "inputs": dict(inputs), "outputs": dict(outputs)}


KEYED = {**BY_KEY, "split": LAST_KEY}
TIMED = {**BY_KEY, "split": LAST_STEPS}
EXAMPLES = {"rows": "examples", "split": {"by": "none"}}

KINDS: dict[str, tuple[dict[str, Any], Callable[[], pl.DataFrame]]] = {
    "forecast-univariate": (
        _spec({"rows": "steps", "time": "time", "split": LAST_STEPS}, CLOCK, {"v0": FORECAST}),
        one_series,
    ),
    "forecast-multivariate": (
        _spec(
            {"rows": "steps", "time": "time", "split": LAST_STEPS},
            {**CLOCK, "heat": {"kind": "number"}},
            {"v*": {**FORECAST, "quantiles": []}},
        ),
        one_series,
    ),
    "forecast-many-series": (
        _spec(
            {"rows": "steps", "key": "key", "split": LAST_STEPS},
            {"v0": {"kind": "number"}},
            {"v0": FORECAST},
        ),
        counted,
    ),
    "forecast-with-gaps": (
        _spec(TIMED, {**CLOCK, "heat": {"kind": "number"}}, {"v*": FORECAST}),
        lambda: series(gaps=True, late=True),
    ),
    "forecast-known-ahead": (
        _spec(
            TIMED,
            {
                **CLOCK,
                "heat": {"kind": "number", "role": "known"},
                "sale": {"kind": "category", "role": "known", "unknown": "allow"},
                "site": {"kind": "category", "role": "static"},
            },
            {"v0": FORECAST, "v1": FORECAST},
        ),
        series,
    ),
    "forecast-counts": (
        _spec(
            TIMED,
            CLOCK,
            {"sold": {**FORECAST, "distribution": "negative_binomial", "conformal": True}},
        ),
        series,
    ),
    "forecast-heavy-tails": (
        _spec(TIMED, CLOCK, {"v*": {**FORECAST, "distribution": "student_t", "conformal": True}}),
        lambda: series(gaps=True, late=True),
    ),
    "classify": (_spec(KEYED, MIXED, {"kind": {"task": "classify"}}), keyed),
    "regress-end": (_spec(KEYED, NUMBERS, {"amount": {"task": "regress"}}), keyed),
    "regress-every": (_spec(TIMED, MIXED, {"level": {"task": "regress", "at": "every"}}), keyed),
    "tag": (_spec(TIMED, NUMBERS, {"state": {"task": "tag"}}), keyed),
    "next-characters": (
        _spec(EXAMPLES, {"x": {"kind": "text"}}, {"x": {"task": "next"}}),
        texts,
    ),
    "next-many-hot": (
        _spec(EXAMPLES, {"x": {"kind": "many_hot"}}, {"x": {"task": "next"}}),
        chords,
    ),
}

APART = {"x": {"kind": "number"}, "note": {"kind": "text", "role": "apart"}}
BOTH_APART = {**APART, "x": {"kind": "number", "role": "apart"}}
KINDS |= {
    "tag-samples": (
        _spec(TIMED, {**NUMBERS, "burst": {"kind": "samples"}}, {"state": {"task": "tag"}}),
        keyed,
    ),
    "classify-apart": (_spec(EXAMPLES, APART, {"kind": {"task": "classify"}}), beside),
    "classify-all-apart": (_spec(EXAMPLES, BOTH_APART, {"kind": {"task": "classify"}}), beside),
}

MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"cell": "gru", "layers": 2, "residual": True, "dropout": 0.3},
    "zoneout": {
        "cell": "lstm",
        "zoneout": 0.2,
        "recurrent_dropout": 0.2,
        "dropout": 0.3,
        "dropout_per": "sequence",
    },
}
ELMAN = {"elman": {"cell": "elman", "dropout": 0.0}}
AFTER_EFFECTS = {"after-effects": {"decoder": "recurrent", "skip": "seasonal"}}
ENDS = {
    "mean": {"pool": "mean"},
    "both": {"pool": "both", "layers": 2},
    "bidirectional-both": {"pool": "both", "bidirectional": True},
}
LAYERS = {
    "layers": {
        "layers": [{"conv": {"hidden": 6}}, {"lstm": {"hidden": 8}}, {"attention": {"heads": 2}}],
        "residual": False,
        "norm": True,
    },
    "gru-d": {"cell": "gru_d"},
    "cfc": {"layers": ["cfc", "gru"], "norm": True},
    "decay": {"decay": True, "layers": 2},
}
JOINS = {
    "plain": {},
    "gated": {"join": "gated", "input_dropout": 0.4},
    "attention": {"join": "attention"},
}
BACKWARD = {"bidirectional": {"bidirectional": True, "layers": 2, "dropout": 0.3}}


def _row(kind: str, variant: str, model: Mapping[str, Any]) -> Row:
    spec, make = KINDS[kind]
    sizes = {"segment": 4, "lookback": 7} if kind.startswith("forecast") else {}
    learnt = {
        "model": {"hidden": 8, **sizes, **model},
        "training": {"epochs": 2, "batch": 2, "learning_rate": 0.01},
    }
    return Row(f"{kind}-{variant}", {**spec, **learnt}, make)


def _variants(kind: str) -> dict[str, dict[str, Any]]:
    if kind == "forecast-known-ahead":
        return {**MODELS, **AFTER_EFFECTS}
    if kind in ("forecast-counts", "forecast-heavy-tails"):
        return {"plain": {}}
    if kind == "forecast-many-series":
        return {**MODELS, "adaptive": {"skip": "adaptive"}}
    if kind == "forecast-with-gaps":
        return {**MODELS, "members": {"members": 2, "skip": "seasonal"}}
    if kind.startswith("forecast"):
        return MODELS
    if kind.endswith("apart"):
        return JOINS
    if kind == "tag-samples":
        return {"plain": {}}
    if kind == "regress-every":
        return {**MODELS, **BACKWARD, **LAYERS}
    if kind in ("classify", "regress-end"):
        return {**MODELS, **ENDS}
    return {**MODELS, **BACKWARD, **ELMAN} if kind == "tag" else {**MODELS, **BACKWARD}


ROWS = [_row(kind, name, model) for kind in KINDS for name, model in _variants(kind).items()]


def row_named(name: str) -> Row:
    """The row of this name."""
    return next(row for row in ROWS if row.name == name)


# Comparison ---------------------------------------------------------------------------------------

TOLERANCE = 0.0 if native_name() else 1e-4
"""Off the native path sums may be taken in another order."""


def hold_equal(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Predictions, or lists of them, with the same values; a NaN is never equal."""
    assert type(actual) is type(expected)
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for name in actual:
            hold_equal(actual[name], expected[name], tolerance)
    elif isinstance(actual, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            hold_equal(one, other, tolerance)
    elif isinstance(actual, float) and tolerance:
        assert abs(actual - expected) <= tolerance * max(1.0, abs(expected))
    else:
        assert actual == expected
