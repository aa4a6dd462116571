"""The front door: plain arrays of every shape, settings, and what a run can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import segue
from segue.errors import DataError, SpecError
from segue.run import declare, of_arrays, records
from segue.train import Epoch, Started, Update

pytestmark = pytest.mark.usefixtures("one_thread")

B, T, I = 6, 5, 3  # noqa: E741
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, I))
QUICK: dict[str, Any] = {"model": {"hidden": 4}, "training": {"epochs": 1}}


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises((DataError, SpecError)) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outputs(x: Any, y: Any) -> dict[str, Any]:
    """What would be learnt."""
    _, declaration = of_arrays(x, y)
    return {name: out["task"] for name, out in declaration.to_dict()["outputs"].items()} | {
        "at": next(iter(declaration.to_dict()["outputs"].values())).get("at", "end")
    }


# Arrays -------------------------------------------------------------------------------------------

FLOATS = RNG.normal(size=(B, T, 2))
RAGGED = [RNG.normal(size=(n, I)) for n in (4, 1, 5, 2, 5, 3)]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (X, FLOATS[:, 0, 0], {"y": "regress", "at": "end"}),
        (X, FLOATS[:, :1, 0], {"y": "regress", "at": "end"}),
        (X, FLOATS[:, 0], {"y*": "regress", "at": "end"}),
        (X, FLOATS[:, :, 0], {"y": "regress", "at": "every"}),
        (X, FLOATS[:, :, :1], {"y": "regress", "at": "every"}),
        (X, FLOATS, {"y*": "regress", "at": "every"}),
        (X, [0, 1, 2, 0, 1, 2], {"y": "classify", "at": "end"}),
        (X, ["a", "b"] * 3, {"y": "classify", "at": "end"}),
        (X, [True, False] * 3, {"y": "classify", "at": "end"}),
        (X, np.arange(B)[:, None] % 2, {"y": "classify", "at": "end"}),
        (X, np.arange(12).reshape(B, 2), {"y0": "classify", "y1": "classify", "at": "end"}),
        (X, np.arange(B * T).reshape(B, T) % 3, {"y": "tag", "at": "end"}),
        (X, np.arange(B * T * 2).reshape(B, T, 2), {"y0": "tag", "y1": "tag", "at": "end"}),
        (X[:, :, 0], FLOATS[:, 0, 0], {"y": "regress", "at": "end"}),
        (X[:, :1], FLOATS[:, :1, 0], {"y": "regress", "at": "end"}),
        (RAGGED, FLOATS[:, 0, 0], {"y": "regress", "at": "end"}),
        (RAGGED, FLOATS[:, :5, 0], {"y*": "regress", "at": "end"}),
        (list(X), FLOATS[:, :, 0], {"y": "regress", "at": "every"}),
        (RAGGED, [one[:, 0] for one in RAGGED], {"y": "regress", "at": "every"}),
        (RAGGED, [one[:, :2] for one in RAGGED], {"y*": "regress", "at": "every"}),
        (RAGGED, [(one[:, 0] > 0).astype(int) for one in RAGGED], {"y": "tag", "at": "end"}),
    ],
)
def test_the_task_follows_from_shape_and_type(x: Any, y: Any, expected: dict[str, str]) -> None:
    assert outputs(x, y) == expected


@pytest.mark.parametrize(
    "y",
    [
        FLOATS[:, 0, 0],
        FLOATS[:, 0],
        FLOATS[:, :, 0],
        FLOATS,
        np.arange(B) % 3,
        np.arange(B * T).reshape(B, T) % 3,
        np.arange(B * 2).reshape(B, 2) % 3,
    ],
    ids=lambda y: str(y.dtype) + str(y.shape),
)
def test_arrays_train_and_predict_whatever_library_they_come_from(y: np.ndarray[Any, Any]) -> None:
    expected = segue.fit(X, y, **QUICK).predict(X)
    assert expected.height == (B * T if y.ndim > 1 and y.shape[1] == T else B)
    run = segue.fit(torch.from_numpy(X), torch.from_numpy(y), **QUICK)
    assert run.predict(torch.from_numpy(X)).equals(expected)
    assert run.predict(list(X)).equals(expected)
    if y.ndim == 1:
        assert segue.fit(X, pd.Series(y), **QUICK).predict(X).equals(expected)
        assert segue.fit(X, pl.Series("y", y), **QUICK).predict(X).equals(expected)
        assert segue.fit(X, y.tolist(), **QUICK).predict(X).equals(expected)


def test_named_columns_keep_their_names() -> None:
    x = pl.DataFrame({"speed": X[:, :, 0].tolist(), "load": X[:, :, 1].tolist()})
    y = pd.DataFrame({"price": FLOATS[:, 0, 0], "class": list("aababb")})
    run = segue.fit(x, y, **QUICK)
    assert list(run.declaration.inputs) == ["speed", "load"]
    found = {name: out.task for name, out in run.declaration.outputs.items()}
    assert found == {"price": "regress", "class": "classify"}
    assert run.predict(x).columns == ["row", "price", "class", "class_p_a", "class_p_b"]
    assert set(segue.fit(X, pl.Series("label", [1, 2] * 3), **QUICK).declaration.outputs) == {
        "label"
    }


def test_all_plain_arrays_train_unless_a_split_is_given() -> None:
    run = segue.fit(X, FLOATS[:, 0, 0], **QUICK)
    assert run.facts["steps"] == {"train": B * T, "valid": 0, "test": 0}
    assert run.evaluation is None
    split = {"by": "key", "valid": 1, "test": 2}
    run = segue.fit(X, FLOATS[:, 0, 0], split=split, **QUICK)
    assert run.facts["steps"] == {"train": 3 * T, "valid": T, "test": 2 * T}
    assert run.evaluation is not None and run.evaluation.count == 2


def test_arrays_that_do_not_fit_are_refused() -> None:
    assert refused(segue.fit, X, FLOATS[:4, 0, 0]) == (
        "x and y: expected one target per sequence, got 6 sequences and 4 targets; "
        "give as many of each"
    )
    short = [one[:-1, 0] if len(one) > 1 else one[:, 0] for one in RAGGED]
    assert refused(segue.fit, RAGGED, short) == (
        "frame: row 1: expected 4 steps in 'y', as in 'x0', got 3; "
        "give every per-step column of an example the same length, "
        "or declare one of the two as `role: apart`"
    )
    assert refused(segue.fit, X, [1.0] * 4 + [2]).startswith("x and y: expected one target per")
    assert refused(segue.fit, X[0, 0], FLOATS[:I, 0, 0]).startswith("frame: column 'x'")


def test_texts_and_lists_of_words_are_read_as_such() -> None:
    words = [["good", "day"], ["bad", "rain"], ["good", "rain"], ["bad", "day"]] * 8
    labels = [one[0] for one in words]
    for x in ([" ".join(one) for one in words], words):
        run = segue.fit(x, labels, training={"epochs": 30})
        assert run.declaration.inputs["x"].kind == "text"
        assert run.predict(x[:4])["y"].to_list() == labels[:4]
    tags = [["adjective", "noun"]] * len(words)
    told = segue.fit(words, tags, training={"epochs": 10}).predict([["good", "zebra"]])
    assert told["y"].to_list() == ["adjective", "noun"]


def test_paths_are_those_of_what_lies_there() -> None:
    for names, kind in ((["a.wav", "b.FLAC"], "audio"), (["a.png"] * 2, "image")):
        assert of_arrays(names, [0, 1])[1].inputs["x"].kind == kind


def test_targets_without_a_column_are_refused() -> None:
    expected = "y: expected at least one target per sequence, got shape [2, 0]; give some"
    assert refused(segue.fit, X[:2], np.zeros((2, 0))) == expected


# Declarations and settings ------------------------------------------------------------------------

SPEC = {
    "data": {"rows": "examples", "split": {"by": "none"}},
    "inputs": {"x": {"kind": "number"}},
    "outputs": {"y": {"task": "regress"}},
}


def test_settings_go_over_the_declaration_and_are_checked_as_if_written_there() -> None:
    data = {"x": X[:, :, 0], "y": FLOATS[:, 0, 0]}
    spec = {**SPEC, "model": {"hidden": 7, "layers": 2}, "training": {"epochs": 2}}
    run = segue.fit(spec, data, model={"hidden": 5}, training={"batch": 1})
    assert (run.declaration.model.hidden, run.declaration.model.layers) == (5, 2)
    assert (run.declaration.training.epochs, run.declaration.training.batch) == (2, 1)
    assert "hidden" in refused(segue.fit, spec, data, model={"hiden": 5})
    assert "training.epochs" in refused(segue.fit, spec, data, training={"epochs": 0})


def test_a_declaration_is_known_by_its_inputs_too_and_comes_first() -> None:
    data = {"x": X[:, :, 0], "y": FLOATS[:, 0, 0]}
    lacking = {key: section for key, section in SPEC.items() if key != "outputs"}
    assert "declaration: outputs" in refused(segue.fit, lacking, data)
    expected = "fit: expected the declaration, then the data, got them the other way; swap them"
    assert refused(segue.fit, data, SPEC) == expected


def test_nothing_is_left_open_after_training() -> None:
    run = segue.fit(SPEC, {"x": X[:, :, 0], "y": FLOATS[:, 0, 0]}, training={"epochs": 1})
    model, training = run.declaration.model, run.declaration.training
    assert None not in (model.cell, model.hidden, model.dropout)
    assert None not in (training.epochs, training.batch, training.learning_rate)
    assert declare(run.declaration.to_dict()) == run.declaration


def test_a_declaration_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(declare(SPEC).to_yaml())
    data = {"x": X[:, :, 0], "y": FLOATS[:, 0, 0]}
    run = segue.fit(tmp_path / "spec.yaml", data, **QUICK)
    assert run.predict(data).equals(segue.fit(SPEC, data, **QUICK).predict(data))


def test_a_declaration_without_data_is_refused() -> None:
    assert refused(segue.fit, SPEC) == (
        "fit: expected data beside the declaration, got none; give a table, a file or arrays"
    )


def test_data_alone_are_looked_at() -> None:
    frame = pl.DataFrame({"x": X[:, :, 0].tolist(), "label": ["a", "b"] * 3})
    run = segue.fit(frame, **QUICK, split={"by": "none"})
    assert run.declaration.outputs["label"].task == "classify"


# Records ------------------------------------------------------------------------------------------


def test_training_yields_plain_records_and_returns_the_run() -> None:
    table, declaration = of_arrays(X, FLOATS[:, 0, 0])
    seen = []
    training = records(
        declare({**declaration.to_dict(), "training": {"epochs": 3, "batch": 2}}), table
    )

    def forwarded() -> Iterator[Any]:
        run = yield from training
        seen.append(run)

    found = list(forwarded())
    assert [type(one) for one in found] == [Started, *[*[Update] * 3, Epoch] * 3]
    assert seen[0].history == tuple(one for one in found if isinstance(one, Epoch))
    assert seen[0].facts["seconds"] == seen[0].history[-1].seconds
    assert found[0].parameters == seen[0].facts["parameters"] > 0


def test_a_saved_run_that_is_saved_again_keeps_its_report(tmp_path: Path) -> None:
    split = {"by": "key", "valid": 1, "test": 2}
    segue.fit(X, FLOATS[:, 0, 0], split=split, **QUICK).save(tmp_path / "one")
    segue.load(tmp_path / "one").save(tmp_path / "two")
    for name in ("evaluation.json", "report.html"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_loaded_run_knows_its_training_data(tmp_path: Path) -> None:
    table = {"x": X[:, :, 0], "y": FLOATS[:, 0, 0]}
    split = {"by": "key", "valid": 0, "test": 2}
    run = segue.fit(SPEC, table, split=split, **QUICK)
    run.save(tmp_path / "run")
    loaded = segue.load(tmp_path / "run").evaluate(table)
    assert run.evaluation is not None
    assert loaded.scope == run.evaluation.scope == "the test part of the training data (10 steps)"
    assert loaded.frame().equals(run.evaluation.frame())
