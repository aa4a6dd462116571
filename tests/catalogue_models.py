"""One row per kind of whole model; test_laws.py runs every law over every row that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import polars as pl
from model_data import (
    KEYS,
    RECORDED,
    beside,
    chords,
    counted,
    cut_recording,
    keyed,
    labelled,
    marks,
    one_series,
    pictures,
    recordings,
    samples_of,
    sentences,
    series,
    tales,
    texts,
    videos,
)

import segue
from segue.fields.text import Text
from segue.inference import obstacle
from segue.ops import native_name
from segue.run import Run

Record = dict[str, Any]

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
        return "bidirectional" not in self.name and not self.writes

    @property
    def writes(self) -> bool:
        """Whether the answer is a text, which waits for the whole sequence."""
        return self.name.startswith(("translate", "summarise"))

    @property
    def every(self) -> bool:
        """Whether there is an answer at every step."""
        at_end = ("classify", "regress-end", "transcribe")
        return not self.name.startswith(at_end) and not self.writes

    @property
    def whole(self) -> bool:
        """Whether the answers of all steps together are that of the sequence."""
        return self.name.startswith("transcribe")

    @property
    def recorded(self) -> bool:
        """Whether the cells are paths to recordings."""
        return "recordings" in self.name

    @property
    def foretells(self) -> bool:
        """Whether `predict` answers once a sequence, with what comes after its last step."""
        return self.forecasts or self.name.startswith("next-frame")

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
        if self.recorded:
            return own.with_columns(x=pl.Series([cut_recording(own["x"][0], stop)]))
        if own["x"].dtype != pl.String:
            return own.with_columns(pl.col("x").list.head(stop))
        field = self.run.trained.fields["x"]
        assert isinstance(field, Text)
        return own.with_columns(x=pl.lit(field.units.join(self._units(name)[:stop])))

    def _units(self, name: str) -> list[Any]:
        """The raw steps of an example."""
        return self.run.trained.fields["x"].unfold(self.sequences[name]["x"], "")[0].to_list()

    def records(self, name: str) -> list[Record]:
        """A sequence as it would come in live, without the target where it is not read."""
        own = self.sequences[name]
        if self.recorded:
            return [{"x": frame} for frame in RECORDED(samples_of(own["x"][0]))]
        if self.spec["data"]["rows"] == "examples":
            return self._of_example(name)
        hidden = [
            column
            for column in own.columns
            for name, said in self.spec["outputs"].items()
            if said["task"] not in ("forecast", "anomaly") and fnmatchcase(column, name)
        ]
        found = own.drop(hidden + ([self.key] if self.key else [])).to_dicts()
        known = [n for n, given in self.spec["inputs"].items() if given.get("role") == "known"]
        if known:
            # From the last records on, the future is not in the data.
            found = found[: len(found) - HORIZON]
            for index, record in enumerate(found):
                after = slice(index + 1, index + 1 + HORIZON)
                record["ahead"] = {name: own[name][after].to_list() for name in known}
        return found

    def _of_example(self, name: str) -> list[Record]:
        own = self.sequences[name]
        roles = {name: given.get("role", "step") for name, given in self.spec["inputs"].items()}
        once = {n: own[n].to_list()[0] for n, role in roles.items() if role != "step"}
        if "step" not in roles.values():
            return [once]
        return [{"x": value, **once} for value in self._units(name)]

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
    "classify-recordings": (
        _spec(
            EXAMPLES,
            {"x": {"kind": "audio", "rate": 8000, "size": 5}},
            {"kind": {"task": "classify"}},
        ),
        recordings,
    ),
    "next-characters": (
        _spec(EXAMPLES, {"x": {"kind": "text"}}, {"x": {"task": "next"}}),
        texts,
    ),
    "next-words": (
        _spec(
            EXAMPLES,
            {"x": {"kind": "text", "unit": "word", "lower": True}},
            {"x": {"task": "next"}},
        ),
        sentences,
    ),
    "next-bytes": (
        _spec(EXAMPLES, {"x": {"kind": "text", "unit": "byte"}}, {"x": {"task": "next"}}),
        texts,
    ),
    "transcribe": (
        _spec(EXAMPLES, {"x": {"kind": "number"}}, {"y": {"task": "transcribe"}}),
        marks,
    ),
    "next-many-hot": (
        _spec(EXAMPLES, {"x": {"kind": "many_hot"}}, {"x": {"task": "next"}}),
        chords,
    ),
}

CLASSES = {"task": "classify"}
APART = {"x": {"kind": "number"}, "note": {"kind": "text", "role": "apart"}}
BOTH_APART = {**APART, "x": {"kind": "number", "role": "apart"}}
DRIFTING = {"[xz]": {"kind": "number", "limit": 3.0, "differences": True}, **CLOCK}
LABELS = {"task": "tag", "labels": "many", "weights": "balanced", "calibrate": True}
WEIGHED = {"task": "classify", "weights": {"good": 0.5}}
KINDS |= {
    "classify-weighted": (_spec(KEYED, NUMBERS, {"kind": WEIGHED}), keyed),
    "classify-labels": (
        _spec(KEYED, NUMBERS, {"labels": {"task": "classify", "labels": "many"}}),
        labelled,
    ),
    "anomaly-numbers": (_spec(TIMED, DRIFTING, {"[xz]": {"task": "anomaly", "hold": 3}}), keyed),
    "anomaly-elements": (
        _spec(EXAMPLES, {"x": {"kind": "text"}}, {"x": {"task": "anomaly", "smooth": 2}}),
        texts,
    ),
    "tag-labels": (_spec(TIMED, NUMBERS, {"is_*": LABELS}), labelled),
}
KINDS |= {
    "tag-samples": (
        _spec(TIMED, {**NUMBERS, "burst": {"kind": "samples"}}, {"state": {"task": "tag"}}),
        keyed,
    ),
    "classify-apart": (_spec(EXAMPLES, APART, {"kind": {"task": "classify"}}), beside),
    "classify-all-apart": (_spec(EXAMPLES, BOTH_APART, {"kind": {"task": "classify"}}), beside),
}

WRITING = {"size": 4, "hidden": 6, "beam": 3}
KINDS |= {
    "translate": (
        _spec(EXAMPLES, {"x": {"kind": "text"}}, {"y": {"task": "translate", **WRITING}}),
        tales,
    ),
    "summarise": (
        _spec(
            EXAMPLES,
            {"x": {"kind": "text"}},
            {"y": {"task": "summarise", "unit": "character", "copying": "x", **WRITING}},
        ),
        tales,
    ),
}


DRIFT = {"x": {"kind": "vector", "maps": [1, 4, 6], "patch": 2}}
STILL = {"still": {"kind": "image", "colors": "gray", "role": "static", "features": 5}}
AHEAD = {"task": "next_frame", "horizon": HORIZON, "after": 2}
KINDS |= {
    "next-frame": (_spec(EXAMPLES, DRIFT, {"x": AHEAD}), pictures),
    "classify-maps": (_spec(EXAMPLES, {**DRIFT, **STILL}, {"kind": CLASSES}), pictures),
    "classify-vectors": (
        _spec(EXAMPLES, {"x": {"kind": "vector"}, **STILL}, {"kind": CLASSES}),
        pictures,
    ),
    "classify-video": (
        _spec(EXAMPLES, {"x": {"kind": "video", "size": 4, "features": 3}}, {"kind": CLASSES}),
        videos,
    ),
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
    "linear": {
        "hidden": 6,
        "layers": [
            "min_gru",
            "min_lstm",
            "rg_lru",
            {"rg_lru": {"blocks": 3}},
            {"s5": {"state": 3}},
        ],
    },
    "gru-d": {"cell": "gru_d"},
    "cfc": {"layers": ["cfc", "gru"], "norm": True},
    "decay": {"decay": True, "layers": 2},
}
JOINS = {
    "plain": {},
    "gated": {"join": "gated", "input_dropout": 0.4},
    "attention": {"join": "attention", "pool": "both"},
}
MAPS = {
    "conv-lstm": {"cell": {"conv_lstm": {"kernel": 3}}, "hidden": 3},
    "conv-gru": {"layers": [{"conv_gru": {"hidden": 3}}, "conv_rnn"], "dropout": 0.2},
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
        window = {"memory": "window", "cell": "gru"}
        mean = {"level": "mean"}
        return {**MODELS, "adaptive": {"skip": "adaptive"}, "window": window, "mean": mean}
    if kind == "forecast-with-gaps":
        linear = {"cell": "rg_lru", "layers": 2}
        members = {"members": 2, "skip": "seasonal", "level": "mean"}
        window = {"memory": "window", "members": 2, "dropout": 0.3, "level": "mean"}
        return {**MODELS, "members": members, "linear": linear, "window": window}
    if kind.startswith("forecast"):
        return MODELS
    if kind.endswith("apart"):
        return JOINS
    if kind in ("translate", "summarise"):
        return {"plain": {}, **BACKWARD}
    if kind in ("next-frame", "classify-maps"):
        return MAPS
    if kind in ("tag-samples", "classify-vectors", "classify-video"):
        return {"plain": {}}
    if kind == "regress-every":
        return {**MODELS, **BACKWARD, **LAYERS}
    if kind in ("classify-weighted", "classify-labels", "tag-labels", "anomaly-elements"):
        return {"plain": {}}
    if kind in ("classify", "regress-end"):
        return {**MODELS, **ENDS}
    if kind in ("next-words", "next-bytes"):
        return {"plain": {}}
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
