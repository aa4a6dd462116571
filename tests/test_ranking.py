"""Ranking, calibration and many labels: against scikit-learn, and by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import sequences
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight

import segue
from segue.errors import DataError, SpecError
from segue.tasks import TASKS
from segue.tasks.calibration import (
    calibration_error,
    temperature_of_classes,
    temperature_of_labels,
)
from segue.tasks.classes import class_scores
from segue.tasks.many_labels import label_scores
from segue.tasks.ranking import average_precision, curve, roc_auc


def task_of(kind: str, columns: tuple[str, ...] = ("y",), **options: Any) -> Any:
    spec = TASKS[kind].Spec.model_validate({"task": kind, **options})
    return TASKS[kind]("y", columns, spec)


def static(**columns: Any) -> Any:
    """A sequence of one step per value."""
    frame = pl.DataFrame(columns)
    return sequences(pl.DataFrame({"x": np.zeros(frame.height)}), (1,) * frame.height, frame)


def message(call: Any, *arguments: Any) -> str:
    with pytest.raises((DataError, SpecError)) as caught:
        call(*arguments)
    return str(caught.value)


# Ranking ------------------------------------------------------------------------------------------


def ranked(seed: int, *, ties: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.2
    scores = rng.normal(size=200) + positive
    return (scores.round(0) if ties else scores), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ranking_equals_scikit_learn(seed: int, ties: bool) -> None:
    scores, positive = ranked(seed, ties=ties)
    assert roc_auc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))
    expected = metrics.average_precision_score(positive, scores)
    assert average_precision(scores, positive) == pytest.approx(expected)
    fallout, recall, threshold = metrics.roc_curve(positive, scores, drop_intermediate=False)
    found = curve(scores, positive)
    assert found.threshold.tolist() == threshold[1:].tolist()
    assert found.recall.tolist() == pytest.approx(recall[1:].tolist())
    assert found.fallout.tolist() == pytest.approx(fallout[1:].tolist())


def test_the_area_is_the_chance_of_a_right_order() -> None:
    scores, positive = ranked(3, ties=True)
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert roc_auc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_ranking_of_one_kind_alone_is_nan() -> None:
    scores = np.array([0.1, 0.2])
    assert math.isnan(roc_auc(scores, np.array([True, True])))
    assert math.isnan(average_precision(scores, np.array([False, False])))


def test_two_classes_are_ranked_and_more_are_not() -> None:
    rng = np.random.default_rng(0)
    logits, target = (
        torch.from_numpy(rng.normal(size=(50, 2))),
        torch.from_numpy(rng.integers(2, size=50)),
    )
    found = class_scores(logits, target)
    second = logits.softmax(1)[:, 1].numpy()
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(target, second))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(target, second)
    )
    assert "roc_auc" not in class_scores(torch.zeros(2, 3), torch.tensor([0, 1]))


# Calibration --------------------------------------------------------------------------------------


def drawn(logits: torch.Tensor, seed: int) -> torch.Tensor:
    """Classes drawn with the probabilities of these logits."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_the_temperature_undoes_a_scale() -> None:
    logits = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)) * 2
    target = drawn(logits, 1)
    assert temperature_of_classes(logits * 3, target) == pytest.approx(3.0, rel=0.03)
    pair = logits[:, 0]
    flags = (
        torch.rand(20_000, generator=torch.Generator().manual_seed(2)) < pair.sigmoid()
    ).float()
    assert temperature_of_labels(pair / 2, flags) == pytest.approx(0.5, rel=0.03)
    assert class_scores(logits * 3, target)["ece"] > 5 * class_scores(logits, target)["ece"]


def test_the_temperature_has_the_lowest_log_loss() -> None:
    logits = torch.randn(300, 3, generator=torch.Generator().manual_seed(3)) * 5
    target = drawn(logits / 4, 4)
    best = temperature_of_classes(logits, target)
    losses = [
        class_scores(logits / t, target)["log_loss"] for t in (best * 0.97, best, best * 1.03)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_calibration_does_not_change_what_is_answered() -> None:
    logits = torch.randn(100, 3, generator=torch.Generator().manual_seed(5))
    target = drawn(logits, 6)
    one, other = class_scores(logits, target), class_scores(logits / 7, target)
    assert all(one[name] == other[name] for name in ("accuracy", "macro_f1", "balanced_accuracy"))
    assert one["ece"] != other["ece"]


def test_the_calibration_error_by_hand() -> None:
    sure = np.array([0.95, 0.97, 0.55, 0.56])
    right = np.array([True, False, True, True])
    # Groups of 1/15: the first two answers, and the last two.
    gaps = abs(0.95 + 0.97 - 1) + abs(0.55 + 0.56 - 2)
    assert calibration_error(sure, right) == pytest.approx(gaps / 4)
    assert math.isnan(calibration_error(sure[:0], right[:0]))


# Weights ------------------------------------------------------------------------------------------


def test_balanced_weights_equal_scikit_learn() -> None:
    values = ["a"] * 6 + ["b"] * 3 + ["c"]
    task = task_of("classify", weights="balanced")
    task.fit(static(y=values), {})
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=values)
    output, target = torch.zeros(3, 3), torch.arange(3)
    assert task.losses(output, target).tolist() == pytest.approx((expected * np.log(3)).tolist())


def test_weights_by_hand() -> None:
    task = task_of("classify", weights={7: 3})
    task.fit(static(y=[2, 7]), {})
    losses = task.losses(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert losses.tolist() == pytest.approx([math.log(2), 3 * math.log(2)])
    many = task_of("tag", ("a", "b"), labels="many", weights="balanced")
    frame = pl.DataFrame({"a": [1, 0, 0, None], "b": [1, 1, 0, 1]})
    many.fit(sequences(frame, (4,)), {})
    found = many.losses(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]))
    # A label weighs as often as it does not apply for each time that it does.
    assert found.tolist() == pytest.approx([2 * math.log(2), math.log(2) / 3])


def test_a_weight_of_no_class_is_an_error() -> None:
    task = task_of("classify", weights={"z": 3})
    assert message(task.fit, static(y=["a", "b"]), {}) == (
        "outputs.y.weights.z: expected one of a, b, got 'z'; correct or remove it"
    )


# Many labels --------------------------------------------------------------------------------------


def test_label_scores_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((80, 4)) < [0.5, 0.2, 0.1, 0.3]).astype(np.float32)
    logits = torch.from_numpy(rng.normal(size=(80, 4)) + truth)
    found, claimed = label_scores(logits, torch.from_numpy(truth)), (logits > 0).numpy()
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(truth, claimed, average="micro"))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, claimed, average="macro"))
    shares = logits.sigmoid().numpy()
    assert found["mean_average_precision"] == pytest.approx(
        metrics.average_precision_score(truth, shares, average="macro")
    )
    losses = [metrics.log_loss(truth[:, k], shares[:, k]) for k in range(4)]
    assert found["log_loss"] == pytest.approx(np.mean(losses))


def test_an_unknown_label_counts_nowhere() -> None:
    logits = torch.tensor([[2.0, -1.0], [3.0, 2.0], [-4.0, 5.0]])
    target = torch.tensor([[1.0, 0.0], [torch.nan, 1.0], [0.0, torch.nan]])
    other = torch.where(target.isnan(), -logits, logits)
    assert label_scores(logits, target) == label_scores(other, target)


def test_labels_in_lists_and_in_columns_are_the_same_labels() -> None:
    lists = task_of("classify", labels="many")
    lists.fit(static(y=[["b", "a"], [], ["b"]]), {})
    columns = task_of("classify", ("a", "b"), labels="many")
    known = static(a=[True, False, False], b=[True, False, True])
    columns.fit(known, {})
    target = lists.encode(static(y=[["b", "a"], [], ["b"]]))
    assert target.tolist() == columns.encode(known).tolist() == [[1, 1], [0, 0], [0, 1]]
    assert lists.counts == columns.counts == [1, 2]
    logits = torch.tensor([[1.0, -2.0]])
    assert lists.decode(logits).to_dicts() == [
        {"y": ["a"], "y_p_a": pytest.approx(0.7310586), "y_p_b": pytest.approx(0.1192029)}
    ]
    assert columns.decode(logits).to_dicts() == [
        {"a": True, "b": False, "a_p": pytest.approx(0.7310586), "b_p": pytest.approx(0.1192029)}
    ]


def test_messages_about_labels() -> None:
    task = task_of("classify", labels="many")
    task.fit(static(y=[["a"], ["b"]]), {})
    assert message(task.encode, static(y=[["a"], ["b", "z"]])) == (
        "rows: column 'y', key 'k1': expected labels among the 2 of the training rows (a, b), "
        "got 'z'; correct it, or see that the training part has examples of it"
    )
    assert message(task.encode, static(y=[["a"], None])) == (
        "rows: column 'y', key 'k1': expected labels for every sequence, got none; "
        "fill them in (an empty list says that none applies) or remove the sequence"
    )
    columns = task_of("classify", ("a", "b"), labels="many")
    assert message(columns.encode, static(a=[0, 1], b=[1, 2])) == (
        "rows: column 'b', key 'k1': expected 0 or 1 (labels: many), got 2; "
        "correct it, or leave the cell empty"
    )
    assert message(lambda: task_of("classify", ("a", "b"))) == (
        "outputs.y.task: expected one column for task classify, got a, b; "
        "declare each column on its own, or labels: many"
    )


# Whole models -------------------------------------------------------------------------------------


def noisy(seed: int) -> pl.DataFrame:
    """Sequences of a level whose class is often another one, so that no answer is sure."""
    rng = np.random.default_rng(seed)
    level = rng.integers(2, size=400)
    x = [(one + rng.normal(size=6)).tolist() for one in level]
    said = np.where(rng.random(400) < 0.3, 1 - level, level)
    return pl.DataFrame({"x": x, "kind": np.where(said == 1, "high", "low")})


def test_a_model_learns_the_temperature_of_its_validation_part() -> None:
    spec = {
        "data": {"rows": "examples", "split": {"by": "random", "valid": 0.3, "test": 0.0}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"kind": {"task": "classify", "calibrate": True}},
        "model": {"hidden": 8, "dropout": 0.0},
        "training": {"epochs": 3, "learning_rate": 0.004},
    }
    run = segue.fit(spec, noisy(0))
    task, evaluation = run.trained.tasks["kind"], run.evaluation
    assert evaluation is not None
    # Nothing is held out for a test, so the validation part is scored.
    output, target = evaluation.outputs["kind"], evaluation.targets["kind"]
    assert task.temperature == pytest.approx(temperature_of_classes(output, target))
    assert abs(task.temperature - 1) > 0.01
    calibrated, plain = evaluation.scores["kind"].metrics, class_scores(output, target)
    assert calibrated["log_loss"] < plain["log_loss"]
    assert calibrated["roc_auc"] == plain["roc_auc"]
    told = run.predict(noisy(0)[:5])
    shares = told.select("kind_p_high", "kind_p_low").to_numpy()
    before = shares**task.temperature
    task.temperature = 1.0
    again = run.predict(noisy(0)[:5]).select("kind_p_high", "kind_p_low").to_numpy()
    assert again == pytest.approx(before / before.sum(1, keepdims=True), rel=1e-5)


def test_calibration_without_a_validation_part_is_an_error() -> None:
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"kind": {"task": "classify", "calibrate": True}},
    }
    assert message(segue.fit, spec, noisy(0)) == (
        "data.split.valid: expected a part to learn the probabilities of kind from "
        "(calibrate: true), got none; say data.split.valid, such as 0.15, or leave calibrate out"
    )


def test_weights_trade_one_kind_of_mistake_for_the_other() -> None:
    spec = {
        "data": {"rows": "examples", "split": {"by": "random", "valid": 0.0, "test": 0.3}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"kind": {"task": "classify", "weights": {"high": 5.0}}},
        "model": {"hidden": 8},
        "training": {"epochs": 10},
    }
    said = segue.fit(spec, noisy(2)).predict(noisy(3))["kind"]
    plain = {**spec, "outputs": {"kind": {"task": "classify"}}}
    other = segue.fit(plain, noisy(2)).predict(noisy(3))["kind"]
    assert (said == "high").sum() > 1.2 * (other == "high").sum()
