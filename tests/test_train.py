"""Training does what its declaration says, update by update."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import segue
from segue.data.read import Table, read
from segue.data.store import Batch
from segue.errors import DataError, SpecError, TrainingError
from segue.run import declare, of_arrays, with_settings
from segue.schema import Declaration
from segue.train import (
    OPTIMIZERS,
    Epoch,
    Record,
    Started,
    Update,
    examples,
    fit,
    loss_of,
    mean_loss,
    prepare,
    schedule,
)
from segue.trained import Trained

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULES = ("constant", "step", "cosine", "one_cycle", "plateau")
LENGTHS = [5, 12, 1, 8, 12, 3]


def problem(
    model: dict[str, Any] | None = None,
    *,
    every: bool = False,
    split: dict[str, Any] | None = None,
    **training: Any,
) -> tuple[Table, Declaration]:
    """The mean of what was seen so far, at the end or at every step."""
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, 2)) for n in LENGTHS * 2]
    means = [one.mean(1).cumsum() / np.arange(1, len(one) + 1) for one in x]
    table, declaration = of_arrays(x, means if every else np.array([one[-1] for one in means]))
    model = {"hidden": 8, "dropout": 0.0, **(model or {})}
    training = {"epochs": 2, "batch": 4, "learning_rate": 0.01, **training}
    return table, with_settings(declaration, model, training, split)


def run(training: Generator[Record, None, Trained]) -> tuple[Trained, list[Record]]:
    returned: list[Trained] = []

    def kept() -> Generator[Record, None, None]:
        returned.append((yield from training))

    records = list(kept())
    return returned[0], records


def updates(records: list[Record]) -> list[Update]:
    return [record for record in records if isinstance(record, Update)]


def epochs(records: list[Record]) -> list[Epoch]:
    return [record for record in records if isinstance(record, Epoch)]


def weights(trained: Trained) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trained.network.named_parameters()}


def hold_same_bits(ours: Trained, theirs: Trained) -> None:
    for name, value in weights(ours).items():
        assert torch.equal(weights(theirs)[name], value), name


def windows_of(
    table: Table, declaration: Declaration, epoch: int = 0
) -> tuple[Trained, list[list[tuple[Batch, dict[str, Any]]]]]:
    """A fresh network, and the windows of every batch of an epoch."""
    trained, sequences, parts = prepare(table, declaration)
    store = trained.store(sequences, targets=True)
    batches = examples(trained, store, parts["train"], epoch)
    return trained, [[window() for window in windows] for windows in batches]


def gradients(
    trained: Trained, windows: list[tuple[Batch, dict[str, Any]]]
) -> tuple[float, list[Tensor]]:
    """The loss and the gradients of the sum over windows, with the state carried."""
    trained.network.train()
    trained.network.zero_grad()
    state, total = None, 0.0
    for batch, targets in windows:
        loss, state = loss_of(trained, batch, targets, state)
        assert loss is not None
        loss.backward()
        total += float(loss.detach())
    return total, [weight.grad.clone() for weight in trained.network.parameters()]


# Updates ------------------------------------------------------------------------------------------


class ByHand:
    """The update rules as they are written in their papers, one weight at a time."""

    def __init__(self, name: str, rate: float, decay: float) -> None:
        self.name, self.rate, self.decay = name, rate, decay
        self.first: dict[int, Tensor] = {}
        self.second: dict[int, Tensor] = {}
        self.count: dict[int, int] = {}

    def step(self, index: int, w: Tensor, g: Tensor) -> Tensor:
        t = self.count[index] = self.count.get(index, 0) + 1
        m = self.first.get(index, torch.zeros_like(w))
        v = self.second.get(index, torch.zeros_like(w))
        if self.name == "adamw":
            w = w - self.rate * self.decay * w
        else:
            g = g + self.decay * w
        if self.name in ("momentum", "nesterov"):
            m = 0.9 * m + g
            change = m if self.name == "momentum" else g + 0.9 * m
        elif self.name == "rmsprop":
            v = 0.99 * v + 0.01 * g**2
            change = g / (v.sqrt() + 1e-8)
        elif self.name == "adagrad":
            v = v + g**2
            change = g / (v.sqrt() + 1e-10)
        elif self.name in ("adam", "adamw"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            change = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        else:
            change = g
        self.first[index], self.second[index] = m, v
        return w - self.rate * change


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_takes_the_steps_of_its_equations(name: str, decay: float) -> None:
    settings = {"optimizer": name, "weight_decay": decay, "schedule": "constant", "clip": {}}
    table, declaration = problem(batch="all", epochs=3, **settings)
    trained, _ = run(fit(table, declaration))
    network, batches = windows_of(table, declaration)
    rule = ByHand(name, 0.01, decay)
    for _ in range(3):
        _, found = gradients(network, batches[0])
        with torch.no_grad():
            for index, weight in enumerate(network.network.parameters()):
                weight.copy_(rule.step(index, weight.clone(), found[index]))
    for name, value in weights(network).items():
        torch.testing.assert_close(weights(trained)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_learns(name: str) -> None:
    rate = 0.1 if name in ("sgd", "momentum", "nesterov", "adagrad") else 0.01
    table, declaration = problem(optimizer=name, epochs=25, learning_rate=rate, batch=3)
    _, records = run(fit(table, declaration))
    losses = [epoch.train_loss for epoch in epochs(records)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_learns(name: str) -> None:
    table, declaration = problem(schedule=name, epochs=15)
    _, records = run(fit(table, declaration))
    losses = [epoch.train_loss for epoch in epochs(records)]
    assert losses[-1] < 0.7 * losses[0]


def test_schedules_are_their_curves() -> None:
    assert [schedule("constant", p) for p in (0.0, 0.5, 1.0)] == [1, 1, 1]
    assert [schedule("step", p) for p in (0.0, 0.34, 0.67)] == pytest.approx([1, 0.1, 0.01])
    assert [schedule("cosine", p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    curve = [schedule("one_cycle", p) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert curve == pytest.approx([0.04, 0.52, 1, 0.5, 0])


def test_the_learning_rate_follows_the_schedule_over_all_updates() -> None:
    table, declaration = problem(schedule="cosine", epochs=3, batch=5)
    _, records = run(fit(table, declaration))
    done = updates(records)
    assert len(done) == 9
    assert [one.progress for one in done] == pytest.approx([k / 9 for k in range(9)])
    expected = [0.01 * schedule("cosine", k / 9) for k in range(9)]
    assert [one.learning_rate for one in done] == pytest.approx(expected)


@pytest.mark.parametrize(("batch", "count"), [(1, 12), (5, 3), (100, 1), ("all", 1)])
def test_a_batch_has_so_many_sequences(batch: int | str, count: int) -> None:
    table, declaration = problem(batch=batch, epochs=2)
    _, records = run(fit(table, declaration))
    started = records[0]
    assert isinstance(started, Started)
    assert started.updates == len(updates(records)) == 2 * count
    assert [record.epoch for record in updates(records)] == [0] * count + [1] * count


@pytest.mark.parametrize("clip", [{"norm": 0.01}, {"value": 0.001}])
def test_clipping_bounds_the_gradient(clip: dict[str, float]) -> None:
    settings = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 1.0}
    table, declaration = problem(batch="all", epochs=1, clip=clip, **settings)
    trained, _ = run(fit(table, declaration))
    fresh, batches = windows_of(table, declaration)
    _, found = gradients(fresh, batches[0])
    norm = math.sqrt(sum(float(g.square().sum()) for g in found))
    assert norm > 0.01
    for before, after, g in zip(
        fresh.network.parameters(), trained.network.parameters(), found, strict=True
    ):
        bound = clip.get("value", math.inf)
        expected = (g * min(1.0, clip.get("norm", math.inf) / norm)).clamp(-bound, bound)
        torch.testing.assert_close(before - after, expected, rtol=1e-3, atol=1e-7)


# Sequences of unequal length ----------------------------------------------------------------------


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_a_batch_of_unequal_lengths_is_the_mean_of_each_alone(every: bool, cell: str) -> None:
    table, declaration = problem({"cell": cell}, every=every, batch="all")
    trained, batches = windows_of(table, declaration)
    loss, found = gradients(trained, batches[0])
    table, declaration = problem({"cell": cell}, every=every, batch=1)
    _, alone = windows_of(table, declaration)
    parts = [gradients(trained, one) for one in alone]
    steps = [int(one[0][0].lengths.sum()) if every else 1 for one in alone]
    shares = [n / sum(steps) for n in steps]
    assert loss == pytest.approx(sum(s * p[0] for s, p in zip(shares, parts, strict=True)))
    for index, expected in enumerate(found):
        mean = sum(s * p[1][index] for s, p in zip(shares, parts, strict=True))
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-6)


def test_sequences_without_steps_train_and_predict() -> None:
    texts = ["aab", "", "bba", "", "abab", "bb"]
    frame = pl.DataFrame({"x": texts, "y": [0.5, 1.0, 2.0, 1.0, 3.0, 2.0]})
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "text"}},
        "outputs": {"y": {"task": "regress"}},
        "model": {"hidden": 8, "pool": "both"},
        "training": {"epochs": 60, "batch": 3, "truncate": 2, "learning_rate": 0.02},
    }
    run = segue.fit(spec, frame)
    answers = run.predict(frame)["y"].to_list()
    assert answers[1] == answers[3]
    assert answers[1] == pytest.approx(1.0, abs=0.2)


# Truncated back-propagation -----------------------------------------------------------------------


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("pool", ["last", "both"])
def test_a_window_of_the_whole_length_is_the_full_gradient(every: bool, pool: str) -> None:
    full, _ = run(fit(*problem({"pool": pool, "dropout": 0.2}, every=every)))
    same, _ = run(fit(*problem({"pool": pool, "dropout": 0.2}, every=every, truncate=12)))
    hold_same_bits(same, full)


def test_the_state_is_carried_from_window_to_window() -> None:
    # Without updates that matter the windows' losses are those of the whole sequences.
    still = {"learning_rate": 1e-30, "epochs": 1, "batch": "all"}
    _, whole = run(fit(*problem(every=True, **still)))
    _, parts = run(fit(*problem(every=True, truncate=5, **still)))
    assert [len(updates(whole)), len(updates(parts))] == [1, 3]
    steps = [sum(min(5, max(0, n - start)) for n in LENGTHS) for start in (0, 5, 10)]
    mean = sum(n * u.loss for n, u in zip(steps, updates(parts), strict=True)) / sum(steps)
    assert mean == pytest.approx(updates(whole)[0].loss, rel=1e-5)


def test_one_mask_holds_for_all_windows_of_a_sequence() -> None:
    model = {"dropout": 0.5, "dropout_per": "sequence"}
    trained, parts = windows_of(*problem(model, every=True, batch="all", truncate=4))
    trained.network.train()
    state = None
    masks = []
    for batch, targets in parts[0]:
        _, state = loss_of(trained, batch, targets, state)
        assert state is not None
        masks.append(state.body[1].mask)
    assert bool((masks[0] == 0).any())
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_truncation_cuts_the_gradient_but_not_the_loss() -> None:
    trained, whole = windows_of(*problem(every=True, batch="all"))
    _, parts = windows_of(*problem(every=True, batch="all", truncate=4))
    _, full = gradients(trained, whole[0])
    _, cut = gradients(trained, parts[0])
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(full, cut, strict=True))


def test_a_sequence_answers_once_where_it_ends() -> None:
    trained, whole = windows_of(*problem(batch="all"))
    _, parts = windows_of(*problem(batch="all", truncate=4))
    answered = torch.stack([~targets["y"][:, 0].isnan() for _, targets in parts[0]])
    lengths = whole[0][0][0].lengths
    assert torch.equal(answered.long().argmax(0), (lengths - 1) // 4)
    assert torch.equal(answered.sum(0), torch.ones(len(lengths), dtype=torch.int64))
    state, total, count = None, 0.0, 0
    with torch.no_grad():
        for batch, targets in parts[0]:
            loss, state = loss_of(trained, batch, targets, state)
            answers = int((~targets["y"].isnan()).sum())
            total, count = total + answers * float(loss if loss is not None else 0), count + answers
        expected, _ = loss_of(trained, *whole[0][0], None)
    assert expected is not None
    assert total / count == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "outputs", "message"),
    [
        (
            {},
            {"v": {"task": "forecast", "horizon": 2}},
            "training.truncate: expected nothing with a forecast, got 4; "
            "set training.window, the steps that a forecast learns from at once",
        ),
        (
            {"bidirectional": True},
            {"v": {"task": "regress", "at": "every"}},
            "training.truncate: expected nothing with model.bidirectional: true, got 4; "
            "set training.window instead",
        ),
    ],
)
def test_truncation_is_refused_where_no_state_goes_on(
    model: dict[str, Any], outputs: dict[str, Any], message: str
) -> None:
    frame = pl.DataFrame({"w": np.arange(40.0), "v": np.arange(40.0)})
    spec = {
        "data": {"rows": "steps", "split": {"by": "none"}},
        "inputs": {"w": {"kind": "number"}},
        "outputs": outputs,
        "model": model,
        "training": {"truncate": 4},
    }
    with pytest.raises(SpecError) as caught:
        segue.fit(spec, frame)
    assert str(caught.value) == message


# What random numbers there are --------------------------------------------------------------------


def test_training_neither_reads_nor_moves_the_callers_random_numbers() -> None:
    model = {"dropout": 0.4, "layers": 2, "zoneout": 0.2}
    expected, _ = run(fit(*problem(model, truncate=4)))
    torch.manual_seed(77)
    before = torch.random.get_rng_state()
    training = fit(*problem(model, truncate=4))
    for _ in training:
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(3)
        before = torch.random.get_rng_state()
    disturbed, _ = run(fit(*problem(model, truncate=4)))
    hold_same_bits(disturbed, expected)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_training_can_be_abandoned_at_any_point(count: int) -> None:
    before = torch.random.get_rng_state()
    training = fit(*problem({"dropout": 0.4}))
    for _ in range(count):
        next(training)
    training.close()
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(StopIteration):
        next(training)


def test_an_epoch_does_not_depend_on_the_epochs_before_it() -> None:
    table, declaration = problem(every=True, window=5, batch=2)
    trained, sequences, parts = prepare(table, declaration)
    store = trained.store(sequences, targets=True)

    def lengths(epoch: int) -> list[list[int]]:
        batches = examples(trained, store, parts["train"], epoch)
        return [window()[0].lengths.tolist() for windows in batches for window in windows]

    in_turn = [lengths(epoch) for epoch in range(4)]
    assert [lengths(epoch) for epoch in (3, 1)] == [in_turn[3], in_turn[1]]
    assert len({str(one) for one in in_turn}) == 4


@torch.no_grad()
def test_training_needs_no_gradients_of_its_caller() -> None:
    trained, _ = run(fit(*problem()))
    assert not torch.is_grad_enabled()
    with torch.enable_grad():
        expected, _ = run(fit(*problem()))
    hold_same_bits(trained, expected)


# When to stop -------------------------------------------------------------------------------------

HELD = {"by": "random", "valid": 4, "test": 0}


def test_the_best_epoch_is_kept() -> None:
    # So high a rate makes the loss jump about.
    table, declaration = problem(split=HELD, epochs=12, learning_rate=0.3, schedule="constant")
    trained, records = run(fit(table, declaration))
    losses = [epoch.valid_loss for epoch in epochs(records)]
    best = min(loss for loss in losses if loss is not None)
    assert losses[-1] != best
    sequences = trained.sequences(table)
    _, _, parts = prepare(table, declaration)
    found = mean_loss(trained, trained.store(sequences, targets=True), parts["valid"])
    assert found == pytest.approx(best, rel=1e-6)
    kept = [epoch.best for epoch in epochs(records)]
    assert losses[max(k for k, is_best in enumerate(kept) if is_best)] == best


def test_without_a_validation_part_the_last_weights_are_kept() -> None:
    _, records = run(fit(*problem(epochs=5, learning_rate=0.3, schedule="constant")))
    assert [epoch.best for epoch in epochs(records)] == [True] * 5
    assert [epoch.valid_loss for epoch in epochs(records)] == [None] * 5


@pytest.mark.parametrize("split", [HELD, None])
def test_training_stops_after_patience_epochs_without_a_better_loss(split: Any) -> None:
    settings = {"learning_rate": 1.0, "schedule": "constant", "optimizer": "sgd", "clip": {}}
    table, declaration = problem(split=split, epochs=30, patience=3, **settings)
    _, records = run(fit(table, declaration))
    looks = epochs(records)
    losses = [look.train_loss if look.valid_loss is None else look.valid_loss for look in looks]
    best = int(np.argmin(losses))
    assert len(looks) == best + 4 < 30


def test_a_plateau_halves_the_learning_rate() -> None:
    settings = {"schedule": "plateau", "patience": 4, "optimizer": "sgd", "learning_rate": 1e-30}
    table, declaration = problem(split=HELD, epochs=8, **{**settings, "patience": 6})
    _, records = run(fit(table, declaration))
    # Nothing is learnt at such a rate, so the first look stays the best; it is half of patience.
    rates = [epoch.learning_rate / 1e-30 for epoch in epochs(records)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5])


def test_many_epochs_are_looked_at_forty_times() -> None:
    _, records = run(fit(*problem(epochs=85, batch="all")))
    looks = [epoch.epoch for epoch in epochs(records)]
    assert looks == [*range(1, 84, 2), 84]


# What goes wrong ----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_saves_its_batch(tmp_path: Path) -> None:
    settings = {"learning_rate": 1e30, "schedule": "constant", "optimizer": "sgd", "clip": {}}
    table, declaration = problem(batch=6, **settings)
    with pytest.raises(TrainingError) as caught:
        run(fit(table, declaration, tmp_path / "run"))
    path = tmp_path / "run" / "bad_batch.safetensors"
    saved = load_file(path)
    largest = float(saved["inputs.x*"].abs().max())
    assert str(caught.value) == (
        f"training: expected a finite loss, got inf in epoch 1; its batch is in {path};"
        " try a smaller learning_rate (it was 1e+30), a smaller clip.norm,"
        f" or look for extreme inputs (the largest encoded value is {largest:.3g})"
    )
    assert saved["lengths"].sum() == len(saved["inputs.x*"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["bad_batch.safetensors"]


def test_a_loss_that_is_not_finite_stops_without_a_folder() -> None:
    settings = {"learning_rate": 1e30, "schedule": "constant", "optimizer": "sgd", "clip": {}}
    with pytest.raises(TrainingError) as caught:
        run(fit(*problem(batch=6, **settings)))
    assert "got inf in epoch 1; try a smaller learning_rate" in str(caught.value)


def test_a_validation_loss_that_is_not_finite_stops() -> None:
    y = np.array([0.5, 1.0, 0.2, 0.1, 1e30])
    table, declaration = of_arrays(np.random.default_rng(0).normal(size=(5, 4, 1)), y)
    split = {"by": "key", "valid": 1, "test": 0}
    with pytest.raises(TrainingError) as caught:
        run(fit(table, with_settings(declaration, {"hidden": 4}, {"epochs": 1}, split)))
    assert str(caught.value) == (
        "validation: expected a finite loss, got inf in epoch 1;"
        " try a smaller learning_rate, or look for extreme inputs in the validation part"
    )


NEXT = {
    "data": {"rows": "examples", "split": {"by": "none"}},
    "inputs": {"x": {"kind": "text"}},
    "outputs": {"x": {"task": "next"}},
    "model": {"hidden": 4},
    "training": {"epochs": 2},
}


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(DataError) as caught:
        segue.fit(NEXT, pl.DataFrame({"x": ["a", "b"]}))
    assert str(caught.value) == (
        "frame: expected targets to learn from, got none in the training part; "
        "correct the target column"
    )


def test_the_first_element_that_is_held_out_is_not_learnt() -> None:
    split = {"by": "time", "valid": 0, "test": 3}
    one = segue.fit(NEXT, pl.DataFrame({"x": ["abcabcabcabc"]}), split=split)
    other = segue.fit(NEXT, pl.DataFrame({"x": ["abcabcabcbcb"]}), split=split)
    hold_same_bits(other.trained, one.trained)


def test_the_trained_network_answers_without_dropout() -> None:
    trained, _ = run(fit(*problem({"dropout": 0.5})))
    assert not trained.network.training
    again = copy.deepcopy(trained.network)
    assert not any(module.training for module in again.modules())


# Forecasts ----------------------------------------------------------------------------------------


def test_a_forecast_learns_from_every_segment_of_its_window() -> None:
    frame = pl.DataFrame({"v": np.random.default_rng(0).normal(size=50).cumsum()})
    spec = {
        "data": {"rows": "steps", "split": {"by": "time", "valid": 0, "test": 8}},
        "inputs": {},
        "outputs": {"v": {"task": "forecast", "horizon": 3}},
        "model": {"hidden": 4, "segment": 5, "lookback": 8},
        "training": {"epochs": 1, "window": 15, "batch": 1},
    }
    trained, batches = windows_of(read(frame), declare(spec))
    ends = []
    for ((batch, targets),) in batches:
        at, steps = batch.at.numpy(), int(batch.lengths[0])
        assert (np.diff(at) == 5).all()
        first = int(np.flatnonzero(frame["v"].to_numpy() == float(batch.series["v"][0, 0]))[0])
        ends += (first + at).tolist()
        assert at[-1] == steps - 1
        for place, end in enumerate(first + at):
            future = frame["v"].to_numpy()[end + 1 : end + 4].copy()
            future[max(0, 42 - (end + 1)) :] = np.nan
            np.testing.assert_array_equal(targets["v"].values[place, 0].numpy(), future)
    assert len(ends) == len(set(ends)) >= 7
    assert trained.declaration.model.lookback == 8


def test_a_batch_that_is_read_anew_has_segments_of_all_phases() -> None:
    frame = pl.DataFrame({"v": np.arange(1000.0)})
    spec = {
        "data": {"rows": "steps", "split": {"by": "time", "valid": 0, "test": 8}},
        "inputs": {},
        "outputs": {"v": {"task": "forecast", "horizon": 3}},
        "model": {"hidden": 4, "segment": 5, "lookback": 8, "memory": "window"},
        "training": {"epochs": 1, "window": 20, "batch": "all"},
    }
    _, [[(batch, _)]] = windows_of(read(frame), declare(spec))
    found = batch.series["v"][batch.at, 0].long() % 5
    share = torch.bincount(found, minlength=5) / len(found)
    assert bool(((share - 0.2).abs() < 0.1).all())
