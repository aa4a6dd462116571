"""The declaration: what is said survives, and what is wrong is named with its place and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from segue import schema
from segue.errors import SpecError
from segue.fields import KINDS
from segue.schema import Declaration
from segue.tasks import TASKS

KIND_SPECS = {name: kind.Spec for name, kind in KINDS.items()}
TASK_SPECS = {name: task.Spec for name, task in TASKS.items()}


def parse(raw: object) -> Declaration:
    return schema.parse(raw, KIND_SPECS, TASK_SPECS)


def plain(**sections: Any) -> dict[str, Any]:
    """A declaration of one number and a forecast, with some sections changed."""
    return {
        "data": {"rows": "steps"},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"y": {"task": "forecast", "horizon": 2}},
        **sections,
    }


def message(raw: object) -> str:
    with pytest.raises(SpecError) as caught:
        parse(raw)
    return str(caught.value)


def written(declaration: Declaration, folder: Path) -> Declaration:
    path = folder / "spec.yaml"
    path.write_text(declaration.to_yaml(), encoding="utf-8")
    return schema.read(path, KIND_SPECS, TASK_SPECS)


# What is said survives ----------------------------------------------------------------------------

FULL = {
    "data": {
        "rows": "steps",
        "key": "no",
        "time": "2026",
        "sort": True,
        "events": {"name": "what", "value": "how much"},
        "clocks": "apart",
        "split": {"by": "time", "train": 0.6, "valid": 24, "test": 0},
        "lines": False,
        "separator": ";",
        "header": False,
        "columns": ["no", "2026", "ü", "label", "y", "on", "chord"],
        "encoding": "latin-1",
        "missing": ["", "-999"],
        "text_columns": ["label"],
    },
    "inputs": {
        "ü_*": {"kind": "number", "role": "known", "scale": "minmax"},
        "no": {"kind": "category", "role": "static", "unknown": "allow", "size": 3},
        "2026": {"kind": "timestamp"},
        "chord": {"kind": "many_hot"},
    },
    "outputs": {
        "y": {"task": "forecast", "horizon": 3, "quantiles": [0.9, 0.5], "season": 7},
        "on": {"task": "regress", "at": "every", "loss": "huber"},
        "label": {"task": "classify"},
        "tag": {"task": "tag"},
        "chord": {"task": "next"},
    },
    "model": {
        "cell": {"elman": {"activation": "relu"}},
        "hidden": 32,
        "layers": 2,
        "bidirectional": True,
        "residual": True,
        "norm": True,
        "decay": True,
        "join": "gated",
        "input_dropout": 0.2,
        "dropout": 0.25,
        "dropout_per": "sequence",
        "recurrent_dropout": 0.3,
        "zoneout": 0.1,
        "pool": "both",
        "segment": 4,
        "lookback": 9,
        "memory": "window",
        "level": "mean",
        "skip": "seasonal",
        "members": 2,
        "decoder": "recurrent",
    },
    "training": {
        "epochs": 5,
        "batch": "all",
        "optimizer": "nesterov",
        "learning_rate": 1e-05,
        "schedule": "plateau",
        "clip": {"value": 0.5},
        "patience": 3,
        "truncate": 20,
        "window": 100,
        "weight_decay": 0.01,
        "precision": "bf16",
        "seed": 7,
    },
}


def test_the_full_declaration_says_every_option() -> None:
    """So that the round trip below leaves none out."""
    declaration = parse(FULL)
    for section in ("data", "model", "training"):
        part = getattr(declaration, section)
        assert part.model_fields_set == set(type(part).model_fields)


def test_yaml_gives_an_equal_declaration_back(tmp_path: Path) -> None:
    declaration = parse(FULL)
    assert written(declaration, tmp_path) == declaration
    assert declaration.to_dict() == FULL
    assert parse(declaration.to_dict()) == declaration


def test_what_is_said_stays_visible_though_it_is_the_default(tmp_path: Path) -> None:
    said = plain(
        data={"rows": "steps", "sort": False, "split": {"by": "random"}},
        model={"layers": 1, "pool": "last"},
        training={"optimizer": "adamw", "clip": {"norm": 1.0}, "seed": 0},
    )
    declaration = parse(said)
    assert declaration.to_dict() == said
    assert written(declaration, tmp_path).to_dict() == said


def test_what_is_not_said_is_left_out() -> None:
    assert parse(plain()).to_dict() == plain()
    nulls = plain(model={"hidden": None}, training={"clip": {"norm": None}})
    assert parse(nulls).to_dict() == plain(model={}, training={"clip": {}})
    assert parse(parse(nulls).to_dict()) == parse(nulls)


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and the sections in it."""
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models(field.annotation)


@pytest.mark.parametrize(
    "model", [*models(Declaration), *KIND_SPECS.values(), *TASK_SPECS.values()]
)
def test_null_is_the_default_of_whatever_may_be_null(model: type[BaseModel]) -> None:
    """Otherwise leaving it out of the file would change it."""
    for name, field in model.model_fields.items():
        if name != "clip" and "None" in str(field.annotation):
            assert field.default is None, name


def test_numbers_with_an_exponent_need_no_dot(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(plain()) + "training: {learning_rate: 1e-3}\n")
    assert schema.read(path, KIND_SPECS, TASK_SPECS).training.learning_rate == 1e-3


def test_numbers_may_name_columns() -> None:
    assert list(parse(plain(inputs={7: {"kind": "number"}})).inputs) == ["7"]


def test_a_forecast_needs_no_inputs() -> None:
    raw = plain()
    del raw["inputs"]
    assert parse(raw).inputs == {}
    assert parse(raw) == parse(parse(raw).to_dict())


# What is wrong ------------------------------------------------------------------------------------

FIX = "correct it"
WRONG: list[tuple[dict[str, Any], str]] = [
    (
        plain(modle={}),
        "declaration: modle: expected one of data, inputs, outputs, model, training, got 'modle'; "
        "did you mean 'model'?",
    ),
    (
        plain(data={"rows": "steps", "xyz": 1}),
        "declaration: data.xyz: expected one of rows, key, time, sort, events, clocks, split, "
        "lines, separator, header, columns, encoding, missing, text_columns, got 'xyz'; "
        "remove it or use one of these",
    ),
    (
        plain(data={"rows": "steps", "split": {"bye": "time"}}),
        "declaration: data.split.bye: expected one of by, train, valid, test, column, got 'bye'; "
        "did you mean 'by'?",
    ),
    (plain(data={}), "declaration: data.rows: expected a value, got nothing; add it"),
    (
        plain(data={"rows": "step"}),
        "declaration: data.rows: expected 'steps' or 'examples', got 'step'; did you mean 'steps'?",
    ),
    (
        plain(data=[1]),
        "declaration: data: expected a mapping of options, got [1]; write it as {...}",
    ),
    (
        plain(data={"rows": "steps", "key": 7}),
        "declaration: data.key: expected a text, got 7; put it in quotes",
    ),
    (
        plain(data={"rows": "steps", "missing": [-999]}),
        "declaration: data.missing.0: expected a text, got -999; put it in quotes",
    ),
    (
        plain(data={"rows": "steps", "columns": "a,b"}),
        "declaration: data.columns: expected a list, got 'a,b'; write it as [...]",
    ),
    (
        plain(data={"rows": "steps", "sort": "yes"}),
        f"declaration: data.sort: expected true or false, got 'yes'; {FIX}",
    ),
    (
        plain(data={"rows": "steps", "split": {"by": "given"}}),
        "declaration: data.split: expected `column` with `by: given`, and only with it, "
        f"got {{'by': 'given'}}; {FIX}",
    ),
    (
        plain(data={"rows": "steps", "split": {"valid": 1.5}}),
        "declaration: data.split.valid: expected a fraction below 1 or a whole number, got 1.5; "
        f"{FIX}",
    ),
    (
        plain(data={"rows": "steps", "split": {"test": "0.1"}}),
        "declaration: data.split.test: expected a fraction below 1 or a whole number, got '0.1'; "
        f"{FIX}",
    ),
    (
        plain(training={"batch": "al"}),
        f"declaration: training.batch: expected a positive integer or 'all', got 'al'; {FIX}",
    ),
    (
        plain(training={"batch": 0}),
        f"declaration: training.batch: expected a positive integer or 'all', got 0; {FIX}",
    ),
    (
        plain(training={"batch": True}),
        f"declaration: training.batch: expected a positive integer or 'all', got True; {FIX}",
    ),
    (
        plain(training={"epochs": 2.5}),
        f"declaration: training.epochs: expected a positive integer, got 2.5; {FIX}",
    ),
    (
        plain(training={"seed": -1}),
        f"declaration: training.seed: expected an integer of at least 0, got -1; {FIX}",
    ),
    (
        plain(training={"learning_rate": 0}),
        f"declaration: training.learning_rate: expected a number above 0, got 0; {FIX}",
    ),
    (
        plain(training={"learning_rate": float("nan")}),
        f"declaration: training.learning_rate: expected a number above 0, got nan; {FIX}",
    ),
    (
        plain(training={"clip": {"norm": "big"}}),
        f"declaration: training.clip.norm: expected a number above 0, got 'big'; {FIX}",
    ),
    (
        plain(training={"clip": 3}),
        "declaration: training.clip: expected a mapping of options, got 3; write it as {...}",
    ),
    (
        plain(training={"optimizer": "adm"}),
        "declaration: training.optimizer: expected 'sgd', 'momentum', 'nesterov', 'rmsprop', "
        "'adagrad', 'adam' or 'adamw', got 'adm'; did you mean 'adam'?",
    ),
    (
        plain(model={"dropout": 1}),
        f"declaration: model.dropout: expected a number of at least 0 and below 1, got 1; {FIX}",
    ),
    (
        plain(model={"recurrent_dropout": -0.1}),
        "declaration: model.recurrent_dropout: expected a number of at least 0 and below 1, "
        f"got -0.1; {FIX}",
    ),
    (
        plain(inputs={"x": {"kind": "numbr"}}),
        f"declaration: inputs.x.kind: expected one of {', '.join(KINDS)}, "
        "got 'numbr'; did you mean 'number'?",
    ),
    (
        plain(inputs={"x": "number"}),
        "declaration: inputs.x: expected a mapping with `kind`, got 'number'; "
        "write `{kind: number}`",
    ),
    (
        plain(inputs={"x": {"kind": ["number"]}}),
        f"declaration: inputs.x.kind: expected one of {', '.join(KINDS)}, "
        "got ['number']; did you mean 'number'?",
    ),
    (
        plain(inputs={"x": {"kind": "number", "scael": "none"}}),
        "declaration: inputs.x.scael: expected one of kind, role, scale, limit, differences, "
        "got 'scael'; did you mean 'scale'?",
    ),
    (
        plain(inputs={"x": {"kind": "text", "role": "static"}}),
        f"declaration: inputs.x.role: expected step or apart for kind text, got 'static'; {FIX}",
    ),
    (
        plain(inputs={"x": {"kind": "number", "role": "steps"}}),
        "declaration: inputs.x.role: expected 'step', 'static', 'known' or 'apart', got 'steps'; "
        "did you mean 'step'?",
    ),
    (
        plain(inputs={False: {"kind": "number"}}),
        "declaration: inputs: expected names of columns, got False; put the name in quotes",
    ),
    (
        plain(inputs=[]) | {"outputs": {"y": {"task": "classify"}}},
        "declaration: inputs: expected at least one column with its kind, got []; "
        "add e.g. `inputs: {load: {kind: number}}`",
    ),
    (
        plain(outputs={}),
        "declaration: outputs: expected at least one column with its task, got {}; "
        "add e.g. `outputs: {load: {task: forecast}}`",
    ),
    (
        plain(outputs={"y": {"task": "forecast"}}),
        "declaration: outputs.y.horizon: expected a value, got nothing; add it",
    ),
    (
        plain(outputs={"y": {"task": "forecast", "horizon": 0}}),
        f"declaration: outputs.y.horizon: expected a positive integer, got 0; {FIX}",
    ),
    (
        plain(outputs={"y": {"task": "forecast", "horizon": 2, "quantiles": [0.5, 1.0]}}),
        f"declaration: outputs.y.quantiles.1: expected a level above 0 and below 1, got 1.0; {FIX}",
    ),
    (
        plain(outputs={"y": {"task": "forecast", "horizon": 2, "quantiles": [0.1, 0.9]}}),
        "declaration: outputs.y.quantiles: expected different levels with 0.5 among them, or [], "
        f"got [0.1, 0.9]; {FIX}",
    ),
]


@pytest.mark.parametrize(("raw", "expected"), WRONG, ids=[text.split(" e")[0] for _, text in WRONG])
def test_what_is_wrong_is_named(raw: dict[str, Any], expected: str) -> None:
    assert message(raw) == expected


def test_a_section_that_is_absent_is_named() -> None:
    raw = plain()
    del raw["outputs"]
    assert message(raw) == (
        "declaration: outputs: expected at least one column with its task, got no such section; "
        "add e.g. `outputs: {load: {task: forecast}}`"
    )
    del (other := plain())["data"]
    assert message(other) == "declaration: data: expected a value, got nothing; add it"


@pytest.mark.parametrize(("raw", "got"), [(None, "nothing"), ([], "[]"), ("x", "'x'")])
def test_what_is_no_declaration_is_named(raw: object, got: str) -> None:
    assert message(raw) == (
        f"declaration: expected the sections data, inputs and outputs, got {got}; "
        "see docs/data.md for an example"
    )


FILES: list[tuple[str | bytes, str]] = [
    (
        "data: {rows: steps}\ndata: {rows: examples}\n",
        "spec.yaml, line 2: expected YAML, got the key 'data' a second time; correct it",
    ),
    (
        "inputs:\n  x: {kind: number}\n  x: {kind: text}\n",
        "spec.yaml, line 3: expected YAML, got the key 'x' a second time; correct it",
    ),
    (
        "data: {rows: steps\n",
        "spec.yaml, line 2: expected YAML, got expected ',' or '}', but got '<stream end>'; "
        "correct it",
    ),
    ("? [a]\n: 1\n", "spec.yaml, line 1: expected YAML, got found unhashable key; correct it"),
    (
        "data: 2026-13-01\n",
        "spec.yaml: expected YAML, got month must be in 1..12; correct it",
    ),
    (
        "data: {rows: stpes}\noutputs: {y: {task: forecast, horizon: 1}}",
        "spec.yaml: data.rows: expected 'steps' or 'examples', got 'stpes'; did you mean 'steps'?",
    ),
    (
        "",
        "spec.yaml: expected the sections data, inputs and outputs, got nothing; "
        "see docs/data.md for an example",
    ),
    (
        b"data: \xff\n",
        "{path}: expected UTF-8 text, got byte 0xff at offset 6; save the file as UTF-8",
    ),
]


@pytest.mark.parametrize(("content", "expected"), FILES)
def test_files_that_are_wrong_are_named(
    content: str | bytes, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SpecError) as caught:
        schema.read(path, KIND_SPECS, TASK_SPECS)
    assert str(caught.value) == expected.replace("{path}", str(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        schema.read(tmp_path / "no.yaml", KIND_SPECS, TASK_SPECS)
    assert str(caught.value) == (
        f"{tmp_path / 'no.yaml'}: expected a readable file, got No such file or directory; "
        "check the path"
    )
