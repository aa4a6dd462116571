"""The scores and the naive answers of the next element, by hand and by counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import LENGTHS, sequences
from catalogue_tasks import TASK_ROWS, TaskRow

from segue.errors import SpecError
from segue.sequences import Part
from segue.tasks import TASKS, Task


def next_of(column: str) -> Any:
    return TASKS["next"](column, (column,), TASKS["next"].Spec.model_validate({"task": "next"}))


def named(name: str) -> TaskRow:
    return next(row for row in TASK_ROWS if row.name == name)


def test_the_target_of_a_step_is_the_next_and_of_the_last_none() -> None:
    row = named("next")
    task: Any = row.fitted()
    codes = task.vocabulary.encode(row.train.steps["y"])
    target = task.encode(row.train).tolist()
    ends = set((np.cumsum([n for n in LENGTHS if n]) - 1).tolist())
    assert target == [-1 if k in ends else int(codes[k + 1]) for k in range(len(codes))]


def test_next_scores_equal_numpy() -> None:
    row = named("next")
    task: Any = row.fitted()
    target = task.encode(row.train)
    output = torch.randn(
        len(target), len(task.vocabulary), generator=torch.Generator().manual_seed(0)
    )
    scores = task.metrics(output, target)
    seen = target.numpy() >= 0
    x, y = output.double().numpy()[seen], target.numpy()[seen]
    nll = (np.log(np.exp(x).sum(1)) - x[np.arange(len(y)), y]).mean()
    assert scores["nll"] == pytest.approx(nll)
    assert scores["perplexity"] == pytest.approx(np.exp(nll))
    assert scores["accuracy"] == pytest.approx((x.argmax(1) == y).mean())


def test_next_baselines_equal_counting() -> None:
    row = named("next")
    task: Any = row.fitted()
    target, present = task.encode(row.train).numpy(), task.vocabulary.encode(row.train.steps["y"])
    seen = target >= 0
    size = len(task.vocabulary)
    pairs = np.ones((size, size))
    np.add.at(pairs, (present[seen], target[seen]), 1)
    single = np.ones(size)
    np.add.at(single, target[seen], 1)
    found = task.baselines(row.train, Part.whole(row.train))
    frequency = -np.log(single / single.sum())[target[seen]].mean()
    assert found["frequency"]["nll"] == pytest.approx(frequency)
    shares = pairs / pairs.sum(1, keepdims=True)
    assert found["pairs"]["nll"] == pytest.approx(
        -np.log(shares)[present[seen], target[seen]].mean()
    )


def test_chord_scores_are_the_sums_of_bernoulli_losses() -> None:
    row = named("next-chords")
    task: Any = row.fitted()
    target = task.encode(row.train)
    output = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    seen = target[:, 0].isfinite().numpy()
    p = 1 / (1 + np.exp(-output.double().numpy()[seen]))
    y = target.double().numpy()[seen]
    nll = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1)
    assert task.metrics(output, target) == {"nll": pytest.approx(nll.mean())}
    counts = y.sum(0)
    shares = (counts + 1) / (len(y) + 2)
    frequency = -(y * np.log(shares) + (1 - y) * np.log(1 - shares)).sum(1).mean()
    found = task.baselines(row.train, Part.whole(row.train))
    assert found["frequency"]["nll"] == pytest.approx(frequency, rel=1e-6)


def test_a_head_starts_from_the_frequencies() -> None:
    for name in ("next", "next-chords"):
        row = named(name)
        task: Any = row.fitted()
        target = task.encode(row.train)
        head = task.head(4)
        with torch.no_grad():
            output = head(torch.zeros(len(target), 4))
        found = task.baselines(row.train, Part.whole(row.train))["frequency"]["nll"]
        assert task.metrics(output, target)["nll"] == pytest.approx(found, rel=1e-5)


def test_next_needs_an_input_with_a_vocabulary() -> None:
    known = sequences(pl.DataFrame({"y": ["a", "b"]}), (2,))
    with pytest.raises(SpecError) as caught:
        next_of("y").fit(known, {})
    assert str(caught.value) == (
        "outputs.y: expected an input of kind text, category or many_hot of the same name, "
        "got no such input; declare that input, or use task forecast for numbers"
    )


def test_many_elements_have_no_table_of_pairs() -> None:
    task: Task = named("next").fitted()
    assert isinstance(task, TASKS["next"])
    count = 400
    values = pl.Series([str(k) for k in range(count)])
    from_row = named("next")
    field = type(from_row.fields["y"])("y", ("y",), from_row.fields["y"].Spec(kind="text"))
    field.fit(pl.DataFrame({"y": values}))
    wide = next_of("y")
    known = sequences(pl.DataFrame({"y": values}), (count,))
    wide.fit(known, {"y": field})
    assert set(wide.baselines(known, Part.whole(known))) == {"frequency"}
