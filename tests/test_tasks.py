"""Tasks: laws over all, and numbers against NumPy or by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import sequences
from catalogue_tasks import TASK_ROWS, WRITING, TaskRow, futures, windows_of

from segue.cells import Cell
from segue.errors import DataError, SpecError
from segue.layers import unroll
from segue.ragged import Ragged
from segue.sequences import Part, Sequences
from segue.tasks import TASKS, Future, NextFrame, Whole
from segue.tasks.classes import class_scores, majority_scores
from segue.tasks.forecast import Forecast, naive_forecasts

every_row = pytest.mark.parametrize("row", TASK_ROWS, ids=[row.name for row in TASK_ROWS])

# The output of an anomaly is how surprising the target was, not an answer to hold against it;
# test_anomaly.py holds it to its own laws.
ANSWERING = [row for row in TASK_ROWS if row.task != "anomaly"]
answering_row = pytest.mark.parametrize("row", ANSWERING, ids=[row.name for row in ANSWERING])


def part_of(known: Sequences) -> Part:
    """Every sequence from its second step on."""
    rows = np.flatnonzero(known.lengths > 1)
    return Part(rows, np.ones_like(rows), known.lengths[rows])


def task_of(kind: str, columns: tuple[str, ...] = ("y",), **options: Any) -> Any:
    spec = TASKS[kind].Spec.model_validate({"task": kind, **options})
    return TASKS[kind]("y", columns, spec)


def static(values: Any, *, keyed: bool = True) -> Sequences:
    """A sequence of one step per value."""
    count = len(values)
    made = sequences(
        pl.DataFrame({"x": np.zeros(count)}), (1,) * count, pl.DataFrame({"y": values})
    )
    return made if keyed else Sequences(**{**vars_of(made), "keyed": False})


def vars_of(known: Sequences) -> dict[str, Any]:
    return {
        **{name: getattr(known, name) for name in known.__dataclass_fields__},
        "keys": pl.Series("key", np.arange(known.count)),
    }


def message(call: Any, *arguments: Any) -> str:
    with pytest.raises((DataError, SpecError)) as caught:
        call(*arguments)
    return str(caught.value)


# Laws ---------------------------------------------------------------------------------------------


def test_every_task_has_a_row() -> None:
    assert {row.task for row in TASK_ROWS} | WRITING == set(TASKS)


@every_row
def test_what_was_learnt_survives_json(row: TaskRow) -> None:
    task, other = row.fitted(), row.fresh()
    other.restore(json.loads(json.dumps(task.fitted())))
    assert other.fitted() == task.fitted()
    targets = row.targets(task)
    assert other.decode(row.right(other, targets)).equals(task.decode(row.right(task, targets)))
    part = part_of(row.train)
    assert other.baselines(row.train, part) == task.baselines(row.train, part)


@answering_row
def test_right_answers_have_the_least_loss(row: TaskRow) -> None:
    task = row.fitted()
    targets = row.targets(task)
    right = row.right(task, targets)
    wrong = right * 0.01 + torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    assert float(task.losses(right, targets).max()) == pytest.approx(0.0, abs=1e-9)
    assert (task.losses(wrong, targets) >= 0).all()
    assert float(task.losses(wrong, targets).sum()) > 0


@every_row
def test_right_answers_score_best_and_beat_the_naive_ones(row: TaskRow) -> None:
    task = row.fitted()
    targets = row.targets(task)
    ours = task.metrics(row.right(task, targets), targets)
    assert ours[task.main] == pytest.approx(0.0 if task.lower_is_better else 1.0, abs=1e-6)
    for theirs in task.baselines(row.train, Part.whole(row.train)).values():
        assert set(theirs) <= set(ours)
        assert math.isfinite(theirs[task.main])
        better = ours[task.main] < theirs[task.main]
        assert better if task.lower_is_better else ours[task.main] > theirs[task.main]


@every_row
def test_a_nan_answer_has_a_nan_loss(row: TaskRow) -> None:
    task = row.fitted()
    targets = row.targets(task)
    output = torch.full_like(row.right(task, targets), torch.nan)
    assert task.losses(output, targets).isnan().all()
    assert math.isnan(task.losses(output, targets).mean())


@answering_row
def test_answers_are_of_the_type_and_the_values_of_the_targets(row: TaskRow) -> None:
    task = row.fitted()
    targets = row.targets(task)
    right = row.right(task, targets)
    answers = (
        task.decode_whole(right, targets.steps, row.train) if task.whole else task.decode(right)
    )
    for column in row.columns:
        name = f"next_{column}" if row.task == "next" else column
        raw = (row.train.steps if task.every and not task.whole else row.train.static)[column]
        if isinstance(task, Forecast):
            values = targets.values[:, row.columns.index(column)].flatten().numpy()
            raw = pl.Series(values).fill_nan(None)
        elif isinstance(task, NextFrame):
            ahead = [
                s[1 + k] for s in windows_of(raw, row.train, task) for k in range(task.horizon)
            ]
            raw = pl.Series(ahead, dtype=raw.dtype)
        elif row.task == "next":
            seen = targets[:, 0].isfinite() if task.many else targets >= 0
            raw = raw.gather((np.flatnonzero(seen.numpy()) + 1).tolist())
            answers = answers.filter(pl.Series(seen.numpy()))
        assert answers[name].dtype == raw.dtype
        for answer, value in zip(answers[name].to_list(), raw.to_list(), strict=True):
            if isinstance(value, list):
                assert sorted(answer) == sorted(value)
            elif isinstance(value, float):
                assert answer == pytest.approx(value, rel=1e-6)
            elif value is not None:
                assert answer == value


@every_row
def test_a_missing_target_counts_nowhere(row: TaskRow) -> None:
    task = row.fitted()
    targets = row.targets(task)
    right = row.right(task, targets)
    if isinstance(targets, Future):
        gone = targets._replace(values=targets.values.index_fill(0, torch.tensor([0]), torch.nan))
    elif isinstance(targets, Whole):
        labels = targets.labels.to_list()
        gone = targets._replace(labels=Ragged.from_list([labels[0][:0], *labels[1:]]))
    else:
        gone = targets.index_fill(
            0, torch.tensor([0]), -1 if targets.dtype == torch.int64 else torch.nan
        )
    wrong = right.clone()
    wrong[0] = right[1:].flip(0)[0] * -3 + 1
    assert float(task.losses(wrong, gone).sum()) == pytest.approx(0.0, abs=1e-9)
    assert task.metrics(wrong, gone)[task.main] == task.metrics(right, gone)[task.main]


@answering_row
def test_heads_give_what_losses_take(row: TaskRow) -> None:
    task = row.fitted()
    if isinstance(task, NextFrame):
        targets, maps = row.targets(task), task.field.encoder()
        head = task.head(6)
        hidden = torch.randn(len(targets), 6, *maps.size)
        output = head(hidden, torch.randn(len(targets), maps.features, *maps.size))
        assert output.shape == targets.shape
        assert task.losses(output, targets).isfinite().all()
    elif not isinstance(task, Forecast):
        targets = row.targets(task)
        x, head = torch.randn(len(row.right(task, targets)), 6), task.head(6)
        one = torch.tensor([len(x)])
        output = unroll(head, Ragged(x, one))[0].values if isinstance(head, Cell) else head(x)
        assert output.shape == row.right(task, targets).shape
        assert task.losses(output, targets).isfinite().all()


# Classes ------------------------------------------------------------------------------------------

LOGITS = torch.tensor(
    [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 4.0], [9.0, 0, 0]]
)
TARGET = torch.tensor([0, 1, 1, 0, -1])


def test_class_scores_by_hand() -> None:
    # Predicted 0 1 0 2 against 0 1 1 0; the last has no target.
    scores = class_scores(LOGITS, TARGET)
    assert scores["accuracy"] == 0.5
    # F1: class 0: 2*1/(2+2); class 1: 2*1/(2+1); class 2: 0, claimed but never there.
    assert scores["macro_f1"] == pytest.approx((0.5 + 2 / 3 + 0.0) / 3)
    assert scores["balanced_accuracy"] == pytest.approx((0.5 + 0.5) / 2)
    x = LOGITS[:4].double().numpy()
    shares = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    losses = -np.log(shares[np.arange(4), TARGET[:4].numpy()])
    assert scores["log_loss"] == pytest.approx(losses.mean())


def test_majority_scores_by_hand() -> None:
    scores = majority_scores([5, 2, 0], torch.tensor([0, 0, 1, 2, -1]))
    assert scores["accuracy"] == 0.5
    assert scores["balanced_accuracy"] == pytest.approx(1 / 3)
    assert scores["macro_f1"] == pytest.approx((2 * 2 / (2 + 4)) / 3)
    shares = np.array([6, 3, 1]) / 10
    assert scores["log_loss"] == pytest.approx(-np.log(shares[[0, 0, 1, 2]]).mean())


def test_scores_of_nothing_are_nan() -> None:
    scores = class_scores(LOGITS, torch.full((5,), -1))
    assert all(math.isnan(value) for value in scores.values())


def test_the_loss_of_classes_is_the_cross_entropy() -> None:
    losses = task_of("classify").losses(LOGITS, TARGET)
    shares = torch.softmax(LOGITS[:4], 1)[torch.arange(4), TARGET[:4]]
    assert losses.tolist() == pytest.approx((-shares.log()).tolist())


def test_classes_keep_their_own_order_and_shares_sum_to_one() -> None:
    task = task_of("classify")
    task.fit(static(pl.Series([10, 2, 2, 7])), {})
    assert task.classes.names == ["2", "7", "10"]
    assert task.counts == [2, 1, 1]
    answers = task.decode(LOGITS[:2])
    assert answers.columns == ["y", "y_p_2", "y_p_7", "y_p_10"]
    assert answers["y"].to_list() == [2, 7]
    assert answers.drop("y").sum_horizontal().to_list() == pytest.approx([1.0, 1.0])


def test_classes_of_another_type_are_the_same_classes() -> None:
    task = task_of("classify")
    task.fit(static(pl.Series([0, 1, 1])), {})
    assert task.encode(static(pl.Series([1.0, 0.0]))).tolist() == [1, 0]
    assert task.encode(static(pl.Series(["1", "0"]))).tolist() == [1, 0]


def test_one_class_only_is_an_error() -> None:
    expected = "rows: column 'y': expected at least two classes in the training rows, got "
    fix = "; give examples of every class"
    assert message(task_of("classify").fit, static(["a", "a"]), {}) == f"{expected}only 'a'{fix}"
    nothing = static(pl.Series([None, None], dtype=pl.String))
    assert message(task_of("classify").fit, nothing, {}) == f"{expected}no value at all{fix}"


def test_an_unknown_class_is_an_error() -> None:
    task = task_of("classify")
    task.fit(static(["a", "b"]), {})
    expected = "expected one of the 2 classes of the training rows (a, b), got 'z'"
    fix = "correct it, or see that the training part has examples of it"
    assert message(task.encode, static(["a", "z"])) == (
        f"rows: column 'y', key 'k1': {expected}; {fix}"
    )
    assert message(task.encode, static(["a", "a", "z"], keyed=False)) == (
        f"rows: column 'y', row 3: {expected}; {fix}"
    )
    tag = task_of("tag")
    tag.fit(sequences(pl.DataFrame({"y": ["a", "b"]}), (2,)), {})
    steps = sequences(pl.DataFrame({"y": ["a", None, "b", "z"]}), (2, 2))
    assert message(tag.encode, steps) == (f"rows: column 'y', key 'k1', step 2: {expected}; {fix}")


def test_a_sequence_without_a_class_is_an_error_but_not_a_step() -> None:
    task = task_of("classify")
    task.fit(static(["a", "b"]), {})
    assert message(task.encode, static(["a", None])) == (
        "rows: column 'y', key 'k1': expected a class for every sequence, got none; "
        "fill it in or remove the sequence"
    )
    tag = task_of("tag")
    tag.fit(sequences(pl.DataFrame({"y": ["a", "b", None]}), (3,)), {})
    assert tag.counts == [1, 1]
    assert tag.encode(sequences(pl.DataFrame({"y": [None, "b"]}), (2,))).tolist() == [-1, 1]


# Numbers ------------------------------------------------------------------------------------------


def test_regression_scores_equal_numpy() -> None:
    task = task_of("regress", ("y", "z"))
    rng = np.random.default_rng(0)
    y, z = rng.normal(5, 2, 20), rng.normal(0, 300, 20)
    frame = pl.DataFrame({"y": y, "z": z})
    known = sequences(pl.DataFrame({"x": np.zeros(20)}), (1,) * 20, frame)
    task.fit(known, {})
    answer = np.stack([y + rng.normal(0, 1, 20), z + rng.normal(0, 50, 20)], 1)
    output = torch.from_numpy((answer - [y.mean(), z.mean()]) / [y.std(), z.std()]).float()
    scores = task.metrics(output, task.encode(known))
    error = answer - np.stack([y, z], 1)
    assert scores["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert scores["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    r2 = 1 - (error**2).sum(0) / np.array([y.var() * 20, z.var() * 20])
    assert scores["r2"] == pytest.approx(r2.mean(), rel=1e-5)
    assert task.decode(output)["z"].to_numpy() == pytest.approx(answer[:, 1], rel=1e-5)


def test_regression_baselines_are_mean_and_median_of_the_training_rows() -> None:
    task = task_of("regress")
    task.fit(static([1.0, 2.0, 3.0, 10.0]), {})
    other = static([0.0, 4.0])
    found = task.baselines(other, Part.whole(other))
    assert found["mean"]["rmse"] == pytest.approx(math.sqrt((4.0**2 + 0) / 2))
    assert found["mean"]["r2"] == pytest.approx(1 - 16 / 8)
    assert found["median"]["mae"] == pytest.approx((2.5 + 1.5) / 2)


@pytest.mark.parametrize(
    ("loss", "expected"), [("mse", [0.25, 4.0]), ("mae", [0.5, 2.0]), ("huber", [0.125, 1.5])]
)
def test_regression_losses_by_hand(loss: str, expected: list[float]) -> None:
    task = task_of("regress", loss=loss)
    output, target = torch.tensor([[1.5], [0.0], [7.0]]), torch.tensor([[1.0], [2.0], [torch.nan]])
    assert task.losses(output, target).tolist() == expected


def test_a_constant_target_is_not_blown_up() -> None:
    task = task_of("regress")
    known = static([0.1] * 1000)
    task.fit(known, {})
    assert float(task.encode(known).abs().max()) < 1e-12
    assert math.isnan(task.metrics(task.encode(known), task.encode(known))["r2"])


def test_a_sequence_without_a_number_is_an_error() -> None:
    task = task_of("regress", ("y", "z"))
    frame = pl.DataFrame({"y": [1.0, 2.0], "z": [1.0, None]})
    known = sequences(pl.DataFrame({"x": [0.0, 0.0]}), (1, 1), frame)
    assert message(task.encode, known) == (
        "rows: column 'z', key 'k1': expected a number for every sequence, got none; "
        "fill it in or remove the sequence"
    )
    empty = known.static.with_columns(y=pl.lit(None, dtype=pl.Float64))
    assert message(task.fit, sequences(known.steps, (1, 1), empty), {}) == (
        "rows: column 'y': expected numbers in the training rows, got no value at all; "
        "fill in the target"
    )


# Forecasts ----------------------------------------------------------------------------------------


def test_naive_forecasts_by_hand() -> None:
    past = np.array([[1.0, 5.0, 2.0, 7.0, 3.0, 9.0, 99.0]])
    found = naive_forecasts(past, np.array([5, 1]), horizon=3, season=2)
    assert found["last value"].tolist() == [[[9, 9, 9], [5, 5, 5]]]
    # Mean slope: (9 - 1) / 5 and (5 - 1) / 1.
    assert found["drift"][0] == pytest.approx(np.array([[10.6, 12.2, 13.8], [9.0, 13.0, 17.0]]))
    assert found["seasonal naive"].tolist() == [[[3, 9, 3], [1, 5, 1]]]
    # Changes over a season up to step 5: 1, 2, 1, 2, whose mean is 1.5; none up to step 1.
    drifting = [[3 + 1.5, 9 + 1.5, 3 + 3.0], [1, 5, 1]]
    assert found["seasonal naive with drift"][0] == pytest.approx(np.array(drifting))


def test_naive_forecasts_of_less_than_a_season() -> None:
    past = np.array([[1.0, 5.0]])
    found = naive_forecasts(past, np.array([0, 1]), horizon=2, season=12)
    assert found["drift"].tolist() == [[[1, 1], [9, 13]]]
    assert found["seasonal naive"].tolist() == [[[1, 1], [1, 1]]]
    assert found["seasonal naive with drift"].tolist() == [[[1, 1], [1, 1]]]
    assert set(naive_forecasts(past, np.array([1]), 1, 1)) == {"last value", "drift"}


def test_naive_forecasts_do_not_see_the_future() -> None:
    past = np.random.default_rng(0).normal(size=(2, 50))
    origins = np.arange(5, 20)
    changed = past.copy()
    changed[:, 20:] = 1e9
    one = naive_forecasts(past, origins, 4, 7)
    other = naive_forecasts(changed, origins, 4, 7)
    for name in one:
        assert one[name].tolist() == other[name].tolist()


SERIES = [3.0, 5.0, 4.0, 8.0, 6.0, 9.0]


def forecast(values: Any = SERIES, **options: Any) -> tuple[Any, Sequences]:
    known = sequences(pl.DataFrame({"y": values}), (len(values),))
    task = task_of("forecast", **{"horizon": 2, "season": 2, **options})
    task.fit(known, {})
    return task, known


def test_units_are_those_of_each_key() -> None:
    task = task_of("forecast", horizon=2, season=2)
    values = pl.Series([*SERIES, 10.0, 10.0, 10.0, 10.0, *[None] * 3, 1.0, None, 3.0], strict=False)
    known = sequences(pl.DataFrame({"y": values}), (6, 4, 3, 3))
    task.fit(known, {})
    spread, naive, level = task.units(pl.Series(["k0", "k1", "k2", "k3", "new"]))
    own = [np.std(SERIES), 1.0, 1.0]
    # A series that never changes has the unit 1, one without values the mean of the others.
    assert spread[:, 0].tolist() == pytest.approx([own[0], 1, sum(own) / 3, 1, sum(own) / 3])
    change = (1 + 3 + 2 + 1) / 4
    mean = (change + 1 + 2) / 3
    assert naive[:, 0].tolist() == pytest.approx([change, 1.0, mean, 2.0, mean])
    high = np.mean(SERIES)
    assert level[:4, 0].tolist() == pytest.approx([high, 10.0, (high + 10 + 2) / 3, 2.0])
    assert task.gaps


def test_forecast_scores_by_hand() -> None:
    task, known = forecast()
    target = futures(task, known)
    answer = target.values + torch.tensor([[[1.0, -2.0]]])
    output = answer[..., None] + torch.tensor([-1.5, 0.0, 1.5])
    scores = task.metrics(output, target)
    spread, naive = np.std(SERIES), (1 + 3 + 2 + 1) / 4
    assert scores["mae"] == 1.5
    assert scores["rmse"] == pytest.approx(math.sqrt(2.5))
    assert scores["mase"] == pytest.approx(1.5 / naive)
    assert scores["mse_scaled"] == pytest.approx(2.5 / spread**2)
    y, f = target.values.numpy(), answer.numpy()
    assert scores["smape"] == pytest.approx((200 * np.abs(y - f) / (np.abs(y) + np.abs(f))).mean())
    # An error of 1 lies within 1.5 of the middle, one of 2 does not.
    assert scores["coverage"] == 0.5


def test_the_loss_of_quantiles_is_twice_the_pinball_loss() -> None:
    task, known = forecast(quantiles=[0.9, 0.5, 0.2])
    assert task.quantiles == (0.2, 0.5, 0.9)
    target = futures(task, known)
    output = torch.randn(
        *target.values.shape, 3, generator=torch.Generator().manual_seed(0)
    ).double()
    error = (target.values.numpy()[..., None] - output.numpy()) / np.std(SERIES)
    levels = np.array([0.2, 0.5, 0.9])
    pinball = np.where(error >= 0, levels * error, (levels - 1) * error)
    expected = 2 * pinball.mean(-1).reshape(-1)
    assert task.losses(output, target).numpy() == pytest.approx(expected, rel=1e-5)


def test_the_loss_without_quantiles_is_the_squared_error() -> None:
    task, known = forecast(quantiles=[])
    target = futures(task, known)
    output = target.values[..., None] + 3.0
    assert task.losses(output, target).tolist() == pytest.approx([9 / np.var(SERIES)] * 8)
    assert "coverage" not in task.metrics(output, target)


def test_forecast_answers_stand_series_beside_series() -> None:
    task = task_of("forecast", ("a", "b"), horizon=2)
    output = torch.arange(12.0).reshape(1, 2, 2, 3)
    assert task.decode(output).to_dict(as_series=False) == {
        "a": [1, 4],
        "a_q10": [0, 3],
        "a_q50": [1, 4],
        "a_q90": [2, 5],
        "b": [7, 10],
        "b_q10": [6, 9],
        "b_q50": [7, 10],
        "b_q90": [8, 11],
    }


def test_the_point_forecast_is_the_median_wherever_it_stands() -> None:
    assert task_of("forecast", horizon=1, quantiles=[0.5, 0.9]).middle == 0
    assert task_of("forecast", horizon=1, quantiles=[0.9, 0.1, 0.5, 0.2]).middle == 2
    assert task_of("forecast", horizon=1, quantiles=[]).middle == 0


def test_forecast_baselines_equal_those_of_each_origin() -> None:
    values = np.random.default_rng(3).normal(size=40).cumsum()
    task, known = forecast(values, horizon=3, season=4)
    part = Part(np.array([0]), np.array([30]), np.array([40]))
    found = task.baselines(known, part)
    origins = np.arange(29, 37)
    for name, made in naive_forecasts(values[None], origins, 3, 4).items():
        error = made[0] - values[origins[:, None] + [1, 2, 3]]
        assert found[name]["mae"] == pytest.approx(np.abs(error).mean())
        assert found[name]["rmse"] == pytest.approx(np.sqrt((error**2).mean()))


def test_what_comes_before_the_first_value_is_not_scored() -> None:
    values = pl.Series([None] * 10 + [5.0, 6.0, 8.0, 7.0, 9.0])
    task, known = forecast(values, horizon=1, season=1)
    found = task.baselines(known, Part.whole(known))
    # From the steps 10 to 13: 5 for 6, 6 for 8, 8 for 7, 7 for 9.
    assert found["last value"]["mae"] == pytest.approx((1 + 2 + 1 + 2) / 4)


def test_a_horizon_longer_than_the_data_is_an_error() -> None:
    assert (
        message(
            forecast,
            SERIES,
        )
        if False
        else True
    )
    known = sequences(pl.DataFrame({"y": SERIES}), (6,))
    assert message(task_of("forecast", horizon=6).fit, known, {}) == (
        "rows: outputs.y.horizon: expected fewer steps than the longest training sequence has (6), "
        "got 6; shorten the horizon or give longer sequences"
    )


def test_a_series_without_values_is_an_error() -> None:
    known = sequences(pl.DataFrame({"y": pl.Series([None] * 6, dtype=pl.Float64)}), (6,))
    assert message(task_of("forecast", horizon=2).fit, known, {}) == (
        "rows: column 'y': expected numbers in the training rows, got no value at all; "
        "fill in the target"
    )
