"""Anomalies: surprise, its score, the benchmark's own score, and the windowed Gaussian."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import LENGTHS, sequences
from catalogue_tasks import TASK_ROWS, TaskRow
from numpy.typing import NDArray

import segue
from segue.errors import SpecError
from segue.fields import KINDS
from segue.layers import unroll
from segue.ragged import Ragged
from segue.tasks import TASKS, nab
from segue.tasks.recent import Recent, fresh
from segue.tasks.surprise import LEAST, ElementSurprise, NumberSurprise, Surprise
from segue.tasks.windowed_gaussian import minus_log_density, rolling, tail

# The benchmark's score ----------------------------------------------------------------------------


def slow_best(series: list[tuple[NDArray[Any], list[tuple[int, int]], int]]) -> float:
    """The definition: try every threshold, and add up what its alarms are worth."""
    thresholds = {math.inf} | {float(s) for scores, _, p in series for s in scores[p:]}
    counted = sum(stop > p for _, windows, p in series for _, stop in windows)
    best = max(sum(slow_score(*one, threshold) for one in series) for threshold in thresholds)
    return 100 * (best + counted) / (2 * counted)


def slow_score(
    scores: NDArray[Any], windows: list[tuple[int, int]], probation: int, threshold: float
) -> float:
    def sigma(y: float) -> float:
        return -1.0 if y > 3 else 2 / (1 + math.exp(5 * y)) - 1

    total = 0.0
    for first, stop in windows:
        alarms = [t for t in range(max(first, probation), stop) if scores[t] >= threshold]
        worth = [sigma(-(stop - t) / (stop - first)) / sigma(-1) for t in alarms]
        if stop > probation:
            total += max(worth, default=-1.0)
    for t in range(probation, len(scores)):
        if scores[t] < threshold or any(first <= t < stop for first, stop in windows):
            continue
        before = [(first, stop) for first, stop in windows if stop <= t]
        if not before:
            total -= 0.11
        else:
            first, stop = before[-1]
            total += 0.11 * sigma((t - stop + 1) / (stop - first - 1))
    return total


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_score_equals_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = [
        (rng.integers(0, 9, 60).astype(float), [(4, 9), (20, 31), (40, 44)], 6),
        (rng.normal(size=50), [(30, 40)], 0),
        (rng.normal(size=20), [], 3),
    ]
    for scores, windows, _ in series:
        for first, stop in windows:
            scores[first + rng.integers(stop - first)] += 3
    found = nab.best(nab.steps_of(*one) for one in series)
    assert found.score == pytest.approx(slow_best(series), abs=1e-9)
    again = nab.at((nab.steps_of(*one) for one in series), found.threshold)
    assert again == pytest.approx(found.score, abs=1e-9)


def test_the_score_by_hand() -> None:
    scores = np.zeros(100)
    windows = [(40, 50), (80, 90)]
    scores[40] = 3
    # One window at its first step, the other missed, no false alarm.
    found = nab.best([nab.steps_of(scores, windows)])
    assert found == (50.0, 3.0, 1, 2, 0)
    scores[84] = 2
    scores[10] = 2
    sigma = 2 / (1 + math.exp(5 * -0.6)) - 1
    worth = (1 + sigma / (2 / (1 + math.exp(-5)) - 1) - 0.11 + 2) / 4
    found = nab.best([nab.steps_of(scores, windows)])
    assert found.score == pytest.approx(100 * worth)
    assert (found.found, found.false) == (2, 1)


def test_all_windows_at_once_make_100_and_nothing_makes_0() -> None:
    scores = np.zeros(30)
    scores[[10, 20]] = 1
    windows = [(10, 14), (20, 22)]
    assert nab.best([nab.steps_of(scores, windows)]).score == pytest.approx(100)
    nothing = nab.best([nab.steps_of(np.full(30, -np.inf), windows)])
    assert nothing == (0.0, math.inf, 0, 2, 0)
    assert nab.best([nab.steps_of(np.full(30, np.nan), windows)]) == nothing
    assert math.isnan(nab.best([nab.steps_of(scores, [])]).score)


def test_what_happens_on_probation_does_not_count() -> None:
    scores = np.zeros(30)
    scores[[2, 20]] = 1
    one = nab.best([nab.steps_of(scores, [(1, 4), (20, 22)], probation=5)])
    assert (one.score, one.windows, one.false) == (100.0, 1, 0)
    assert [nab.probation_of(steps) for steps in (100, 4032, 5000, 20_000)] == [15, 604, 750, 750]


def test_the_windowed_gaussian_scores_on_the_benchmark_what_its_published_results_score(
    shared_data: Path,
) -> None:
    folder = shared_data / "nab"
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text("utf-8"))
    series = []
    for name, windows in labels.items():
        frame = pl.read_csv(folder / "data" / name, schema_overrides={"value": pl.Float64})
        times, x = frame["timestamp"].to_list(), frame["value"].to_numpy()
        spans = [(times.index(a[:19]), times.index(b[:19]) + 1) for a, b in windows]
        series.append(nab.steps_of(tail(x, *rolling(x)), spans, nab.probation_of(len(x))))
    found = nab.best(series)
    # The benchmark's repository holds the scores of this detector for every row of these files.
    assert found.score == pytest.approx(37.701082261, abs=1e-8)
    assert (found.found, found.windows, found.false) == (25, 53, 55)


# The windowed Gaussian ----------------------------------------------------------------------------


def slow_rolling(values: NDArray[Any], window: int, slide: int) -> list[tuple[float, float]]:
    """The detector as the benchmark has it, value by value."""
    kept: list[float] = []
    waiting: list[float] = []
    now, found = (0.0, 1.0), []
    for value in values.tolist():
        found.append(now)
        if len(kept) < window:
            kept.append(value)
        else:
            waiting.append(value)
            if len(waiting) < slide:
                continue
            kept, waiting = kept[slide:] + waiting, []
        now = float(np.mean(kept)), float(np.std(kept)) or 1e-6
    return found


def test_the_window_grows_and_then_slides() -> None:
    values = np.random.default_rng(0).normal(1e6, 3, 100)
    mean, deviation = rolling(values, window=20, slide=7)
    expected = np.array(slow_rolling(values, 20, 7))
    assert mean == pytest.approx(expected[:, 0], rel=1e-12)
    assert deviation[2:] == pytest.approx(expected[2:, 1], rel=1e-6)


def test_the_gaussian_is_that_of_torch() -> None:
    x = np.array([0.0, 1.0, -40.0])
    mean, deviation = np.array([0.5, 0.0, 0.0]), np.array([2.0, 1.0, 1.0])
    normal = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(deviation))
    expected = -normal.log_prob(torch.from_numpy(x)).numpy()
    assert minus_log_density(x, mean, deviation) == pytest.approx(expected)
    upper = 0.5 * math.erfc(1 / math.sqrt(2))
    # Far out, where 1 - Q is 1: Q(40) is about exp(-800) / (40 sqrt(2 pi)).
    far = (800 + math.log(40 * math.sqrt(2 * math.pi))) / math.log(10)
    assert tail(x, mean, deviation)[1:] == pytest.approx([-math.log10(upper), far], rel=1e-5)


# Surprise -----------------------------------------------------------------------------------------

HIDDEN = 5


def cell_of(kind: str, **recent: Any) -> Surprise:
    torch.manual_seed(0)
    options = Recent(**{"smooth": 1, "window": 50, "hold": 1, **recent})
    if kind == "elements":
        return ElementSurprise(HIDDEN, shares=torch.tensor([0.2, 0.5, 0.3]).log(), recent=options)
    distribution, spread = kind.split("-")
    return NumberSurprise(HIDDEN, 2, distribution=distribution, spread=spread, recent=options)


def steps_for(cell: Surprise, lengths: tuple[int, ...] = (7, 0, 12, 1)) -> Ragged:
    generator = torch.Generator().manual_seed(1)
    count = sum(lengths)
    hidden = torch.randn(count, HIDDEN, generator=generator)
    if isinstance(cell, ElementSurprise):
        own = torch.randint(3, (count, 1), generator=generator).float()
    else:
        own = torch.randn(count, 2, generator=generator)
        own[torch.rand(count, 2, generator=generator) < 0.2] = torch.nan
        own[3] = torch.nan
    return Ragged(torch.cat([hidden, own], 1), torch.tensor(lengths))


CELLS = [
    "gaussian-learnt",
    "laplace-constant",
    "laplace-learnt",
    "student-learnt",
    "elements",
]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("recent", [{}, {"smooth": 3, "hold": 4}, {"window": None}])
def test_all_steps_at_once_equal_one_by_one(kind: str, recent: dict[str, Any]) -> None:
    cell = cell_of(kind, **recent).eval()
    x = steps_for(cell)
    whole, _ = cell.scan(x, cell.initial_state(x.batch))
    for row, (start, stop) in enumerate(zip(x.offsets[:-1], x.offsets[1:], strict=True)):
        state = cell.initial_state(1)
        for step in range(int(start), int(stop)):
            y, state = cell.step(x.values[[step]], state)
            assert y[0].tolist() == pytest.approx(whole[step].tolist(), rel=1e-5, abs=1e-6), row


@pytest.mark.parametrize("kind", CELLS)
def test_surprise_is_minus_the_log_of_what_was_predicted(kind: str) -> None:
    cell = cell_of(kind).eval()
    x = steps_for(cell, (9,))
    y, _ = cell.scan(x, cell.initial_state(1))
    said = torch.cat([cell.first[None], cell.linear(x.values[:-1, :HIDDEN])])
    own = x.values[:, HIDDEN:]
    if kind == "elements":
        expected = -torch.distributions.Categorical(logits=said).log_prob(own[:, 0])
    else:
        mu = said[:, :2]
        scale = said[:, 2:].exp() if said.shape[1] == 4 else torch.ones(9, 2)
        density = {
            "gaussian": torch.distributions.Normal(mu, scale),
            "laplace": torch.distributions.Laplace(mu, scale),
            "student": torch.distributions.StudentT(4.0, mu, scale),
        }[kind.split("-")[0]]
        seen = ~own.isnan()
        expected = -(density.log_prob(own.nan_to_num(0)) * seen).sum(1)
        assert y[:, 3:].tolist() == mu.tolist()
    assert y[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)


def test_what_was_not_observed_is_no_surprise_and_changes_nothing() -> None:
    cell = cell_of("laplace-learnt").eval()
    x = steps_for(cell, (9,))
    y, _ = cell.scan(x, cell.initial_state(1))
    assert y[3, :3].tolist() == [0, 0, 0]
    # Without the step, and told by it the same as by the one before, the rest scores the same.
    values = x.values.clone()
    values[3, :HIDDEN] = values[2, :HIDDEN]
    one, _ = cell.scan(x.with_values(values), cell.initial_state(1))
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 7, 8])
    other, _ = cell.scan(Ragged(values[kept], torch.tensor([8])), cell.initial_state(1))
    assert one[kept].tolist() == other.tolist()


@pytest.mark.parametrize("kind", CELLS)
def test_the_loss_reaches_what_was_said_one_step_before(kind: str) -> None:
    cell = cell_of(kind).train()
    x = steps_for(cell, (6,))
    values = x.values.clone().requires_grad_()
    y, _ = cell.scan(x.with_values(values), cell.initial_state(1))
    (reach,) = torch.autograd.grad(y[2, 0], values)
    moved = (reach[:, :HIDDEN] != 0).any(1)
    assert moved.tolist() == [False, True, False, False, False, False]


def test_a_scale_that_falls_for_ever_leaves_the_surprise_finite() -> None:
    cell = cell_of("gaussian-learnt")
    prediction = torch.tensor([[1.0, 2.0, -1000.0, -1000.0]], requires_grad=True)
    right = cell.surprise(prediction, torch.tensor([[1.0, 2.0]]))
    assert right.item() == pytest.approx(2 * (LEAST + math.log(2 * math.pi) / 2))
    (reach,) = torch.autograd.grad(
        cell.surprise(prediction, torch.tensor([[1.1, 2.0]])), prediction
    )
    assert reach.isfinite().all()


def test_errors_are_scored_in_place_of_surprises() -> None:
    recent = Recent(smooth=1, window=None, hold=1)
    numbers = NumberSurprise(
        HIDDEN, 2, distribution="laplace", spread="learnt", recent=recent, of_errors=True
    ).eval()
    x = steps_for(numbers, (9,))
    y, _ = numbers.scan(x, numbers.initial_state(1))
    errors = (x.values[:, HIDDEN:] - y[:, 3:]).abs().nansum(1)
    assert y[:, 1].tolist() == pytest.approx(errors.tolist())
    shares = torch.tensor([0.2, 0.5, 0.3]).log()
    elements = ElementSurprise(HIDDEN, shares=shares, recent=recent, of_errors=True).eval()
    y, _ = elements.scan(steps_for(elements, (9,)), elements.initial_state(1))
    assert y[:, 1].tolist() == pytest.approx((1 - (-y[:, 0]).exp()).tolist())


# Scores -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [5, 1000])
def test_scores_are_tails_of_what_was_usual(window: int) -> None:
    u = np.random.default_rng(2).exponential(size=40)
    recent = Recent(smooth=1, window=window, hold=1)
    steps = Ragged(torch.from_numpy(u), torch.tensor([40]))
    found, _ = recent.scan(steps, torch.ones(40, dtype=torch.bool), recent.initial_state(1))
    mean = variance = 0.0
    for t, value in enumerate(u.tolist()):
        # Two steps say what is usual; before, all is.
        z = (value - mean) / math.sqrt(variance + 1e-6) if t >= 2 else 0.0
        expected = -math.log10(0.5 * math.erfc(z / math.sqrt(2)))
        assert float(found[t, 0]) == pytest.approx(expected, rel=1e-9)
        n, d = min(t + 1, window), value - mean
        mean, variance = mean + d / n, (1 - 1 / n) * (variance + d * d / n)
    if window == 1000:
        assert (mean, variance) == pytest.approx((u.mean(), u.var()))


@pytest.mark.parametrize("hold", [1, 2, 7])
def test_what_goes_on_is_told_once(hold: int) -> None:
    u = np.random.default_rng(3).normal(size=60).round(1)
    recent = Recent(smooth=1, window=None, hold=hold)
    steps = Ragged(torch.from_numpy(u), torch.tensor([60]))
    found, _ = recent.scan(steps, torch.ones(60, dtype=torch.bool), recent.initial_state(1))
    told = found[:, 1].numpy() > 0
    assert told.tolist() == fresh(u, hold).tolist()
    assert told.all() == (hold == 1)
    for t in np.flatnonzero(~told):
        last = np.flatnonzero(told[:t])[-1]
        assert t - last < hold and u[t] <= u[last]


# The task -----------------------------------------------------------------------------------------


ROWS = [row for row in TASK_ROWS if row.task == "anomaly"]


def task_of(columns: tuple[str, ...] = ("y",), **options: Any) -> Any:
    spec = TASKS["anomaly"].Spec.model_validate({"task": "anomaly", **options})
    return TASKS["anomaly"]("y", columns, spec)


def test_the_threshold_is_the_quantile_or_that_of_an_exponential_tail() -> None:
    scores = np.random.default_rng(4).exponential(size=20_000)
    target = torch.ones(20_000, 3, dtype=torch.float64)
    output = torch.from_numpy(np.stack([scores, scores, np.ones_like(scores)], 1))
    for options, expected in (
        ({"quantile": 0.99}, np.quantile(scores, 0.99)),
        ({"false_alarms": 10.0}, np.quantile(scores, 0.99)),
        ({"quantile": 0.99999}, -math.log(1e-5)),
    ):
        task = task_of(**options)
        task.calibrate(output, target)
        assert task.threshold == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_heads_give_what_losses_and_answers_take(row: TaskRow) -> None:
    task, columns = row.fitted(), len(row.columns)
    head = task.head(6).eval()
    series = [task.past(column, row.train.steps[column], "rows") for column in row.columns]
    own = torch.from_numpy(np.stack([one.to_numpy() for one in series], 1)).float()
    x = Ragged(torch.cat([torch.randn(row.train.total, 6), own], 1), torch.tensor(LENGTHS))
    output, _ = unroll(head, x)
    target = row.targets(task)
    losses = task.losses(output.values, target)
    assert losses.isfinite().all() and len(losses) == int(target[:, 0].nansum())
    answers = task.decode(output.values.detach())
    if task.vocabulary is None:
        # Before anything was read, what is expected is the mean of the training rows.
        begin = row.train.offsets[:-1][row.train.lengths > 0]
        means = row.train.steps.select(row.columns).mean().row(0)
        for column, mean in zip(row.columns, means, strict=True):
            told = answers[f"{column}_expected"].to_numpy()[begin]
            assert told == pytest.approx(np.full(len(begin), mean))
    assert len(answers.columns) == (3 if task.vocabulary else 3 + columns)


def test_two_ways_to_a_threshold_are_an_error() -> None:
    spec = {
        "data": {"rows": "steps"},
        "inputs": {"y": {"kind": "number"}},
        "outputs": {"y": {"task": "anomaly", "quantile": 0.9, "false_alarms": 1}},
    }
    with pytest.raises(SpecError) as caught:
        segue.fit(spec, pl.DataFrame({"y": [1.0]}))
    assert "expected `quantile` or `false_alarms`, not both" in str(caught.value)


def test_columns_that_are_no_inputs_are_an_error() -> None:
    with pytest.raises(SpecError) as caught:
        task_of().fit(sequences(pl.DataFrame({"y": [1.0, 2.0]}), (2,)), {})
    assert str(caught.value) == (
        "outputs.y: expected inputs of kind number of the same columns, or one of kind category or "
        "text, got none; declare the columns as inputs"
    )


def planted(seed: int, *, columns: int = 1) -> pl.DataFrame:
    """Waves with noise, and now and then a value from elsewhere in the wave."""
    rng = np.random.default_rng(seed)
    time = np.arange(1500)
    odd = (rng.random(1500) < 0.01) & (time > 900)
    waves = {
        f"s{k}": np.sin(time / 3 + k) * 5 + 20 + rng.normal(size=1500) * 0.3 for k in range(columns)
    }
    # As far on the other side of the middle as the wave is on its own.
    waves["s0"] = np.where(odd, 40 - waves["s0"], waves["s0"])
    return pl.DataFrame({**waves, "odd": odd.astype(int)})


SPEC: dict[str, Any] = {
    "data": {"rows": "steps", "split": {"by": "time", "valid": 0, "test": 0.4}},
    "inputs": {"s*": {"kind": "number"}},
    "outputs": {"s*": {"task": "anomaly", "labels": "odd"}},
    "model": {"hidden": 16, "dropout": 0.0},
    "training": {"epochs": 60, "learning_rate": 0.01},
}


def test_what_does_not_fit_the_past_is_found_though_its_values_are_usual() -> None:
    run = segue.fit(SPEC, planted(0, columns=2))
    assert run.evaluation is not None
    score = run.evaluation.scores["s*"]
    assert score.main == "roc_auc" and score.beats_naive
    assert score.metrics["roc_auc"] > 0.95
    assert score.baselines["windowed gaussian"]["roc_auc"] < 0.6
    assert score.metrics["nll"] < score.baselines["windowed gaussian"]["nll"]
    told = run.predict(planted(1, columns=2).drop("odd"))
    assert {"s*_score", "s*_is_anomaly", "s*_surprise", "s0_expected", "s1_expected"} <= set(
        told.columns
    )


def test_an_evaluation_without_labels_scores_the_surprise_alone() -> None:
    spec = {**SPEC, "outputs": {"s*": {"task": "anomaly"}}, "training": {"epochs": 2}}
    run = segue.fit(spec, planted(0).drop("odd"))
    assert run.evaluation is not None
    score = run.evaluation.scores["s*"]
    assert (score.main, list(score.metrics)) == ("nll", ["nll"])


def test_an_element_that_does_not_follow_is_a_surprise() -> None:
    text = pl.Series(list("abcd" * 200))
    text[602] = "a"
    frame = pl.DataFrame({"x": text})
    spec = {
        "data": {"rows": "steps", "split": {"by": "time", "valid": 0, "test": 0.3}},
        "inputs": {"x": {"kind": "category"}},
        "outputs": {"x": {"task": "anomaly", "window": "none"}},
        "model": {"hidden": 16},
        "training": {"epochs": 60, "learning_rate": 0.02},
    }
    told = segue.fit(spec, frame).predict(frame)
    assert int(told["x_surprise"][10:].arg_max() or 0) + 10 == 602
    assert told["x_is_anomaly"][602]


def test_the_naive_answer_of_elements_is_how_often_each_occurs() -> None:
    known = sequences(pl.DataFrame({"y": list("aabaab")}), (6,))
    field = KINDS["text"]("y", ("y",), KINDS["text"].Spec.model_validate({"kind": "text"}))
    field.fit(known.steps)
    task = task_of()
    task.fit(known, {"y": field})
    # Counts with one added: unknown 1, a 5, b 3.
    surprise, _ = task._naive(known)
    assert surprise.tolist() == pytest.approx(
        [-math.log((5 if c == "a" else 3) / 9) for c in "aabaab"]
    )


def test_labels_are_no_input() -> None:
    frame = planted(0)
    spec = {**SPEC, "inputs": {"*": {"kind": "number"}}, "training": {"epochs": 1}}
    run = segue.fit(spec, frame)
    assert run.trained.fields["*"].columns == ("s0",)
    told = run.predict(frame.with_columns(odd=1 - pl.col("odd")))
    assert told.equals(run.predict(frame))


def test_a_declaration_for_anomalies_reads_what_it_watches() -> None:
    declaration = segue.look(planted(0).drop("odd"), target="s0", task="anomaly").declaration
    assert list(declaration.inputs) == ["s0"]
    run = segue.fit(declaration, planted(0), training={"epochs": 1})
    assert run.trained.tasks["s0"].columns == ("s0",)
