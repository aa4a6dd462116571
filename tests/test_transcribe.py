"""Transcription: CTC against its definition, what is refused, live answers, language models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from catalogue_kinds import sequences

import segue
from segue import ops
from segue.errors import CausalError, DataError, SpecError
from segue.ragged import Ragged
from segue.run import Run
from segue.sequences import Sequences
from segue.tasks import TASKS, Transcribe, Whole
from segue.tasks.transcribe import STRANGE, transcript_scores


def task_of(texts: Sequence[str | None], steps: Sequence[int], **options: Any) -> Any:
    spec = Transcribe.Spec.model_validate({"task": "transcribe", **options})
    task = Transcribe("y", ("y",), spec)
    task.fit(known(texts, steps), {})
    return task


def known(texts: Sequence[Any], steps: Sequence[int]) -> Sequences:
    frame = pl.DataFrame({"x": np.zeros(sum(steps))})
    return sequences(frame, tuple(steps), pl.DataFrame({"y": texts}))


def output_of(task: Transcribe, steps: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    head = task.head(6)
    with torch.no_grad():
        y, _ = segue.layers.unroll(head, 2 * torch.randn(1, steps, 6))  # type: ignore[arg-type]
    return y[0]


# The loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["ab", "aa", "b"])
def test_the_loss_is_that_of_all_paths_together(text: str) -> None:
    task = task_of(["ab", text], [5, 5])
    output = output_of(task, 5).double()
    labels = task.encode(known([text], [5]))
    (loss,) = task.losses(output, Whole(labels, torch.tensor([5])))
    blank = len(task.vocabulary)
    shares = torch.softmax(output[:, : blank + 1], 1)
    total = 0.0
    for path in itertools.product(range(blank + 1), repeat=5):
        merged = [code for code, _ in itertools.groupby(path) if code != blank]
        if merged == labels.values.tolist():
            total += float(torch.stack([shares[t, k] for t, k in enumerate(path)]).prod())
    assert float(loss) == pytest.approx(-np.log(total) / len(text))


def test_sequences_without_a_transcript_have_no_loss() -> None:
    task = task_of(["ab", "a"], [5, 5], on_error="skip")
    labels = task.encode(known(["", ""], [5, 2]))
    losses = task.losses(output_of(task, 7), Whole(labels, torch.tensor([5, 2])))
    assert losses.shape == (0,)


def test_the_loss_of_a_sequence_does_not_depend_on_the_others() -> None:
    task = task_of(["ab", "aab"], [4, 9])
    labels = task.encode(known(["ab", "aab"], [4, 9]))
    output = torch.cat([output_of(task, 4, 1), output_of(task, 9, 2)])
    both = task.losses(output, Whole(labels, torch.tensor([4, 9])))
    first, second = labels.to_list()
    one = task.losses(output[:4], Whole(Ragged.from_list([first]), torch.tensor([4])))
    two = task.losses(output[4:], Whole(Ragged.from_list([second]), torch.tensor([9])))
    torch.testing.assert_close(both, torch.cat([one, two]))


# What is refused ----------------------------------------------------------------------------------

SKIP = "or skip such with `outputs.y: {on_error: skip}`"


@pytest.mark.parametrize(
    ("text", "steps", "said"),
    [
        (
            None,
            5,
            f"expected a transcript for every sequence, got none; fill it in, {SKIP}",
        ),
        (" ", 5, f"expected a transcript for every sequence, got none; fill it in, {SKIP}"),
        (
            "aba",
            2,
            "expected at least 3 steps for a transcript of 3 symbols, got 2 steps; "
            f"give more steps per second or join fewer of them, {SKIP}",
        ),
        (
            "aab",
            3,
            "expected at least 4 steps for a transcript of 3 symbols, got 3 steps; "
            f"give more steps per second or join fewer of them, {SKIP}",
        ),
        (
            "a",
            0,
            "expected at least 1 steps for a transcript of 1 symbols, got 0 steps; "
            f"give more steps per second or join fewer of them, {SKIP}",
        ),
    ],
)
def test_a_transcript_that_cannot_be_learnt_is_named_or_skipped(
    text: str | None, steps: int, said: str
) -> None:
    task = task_of(["ab"], [9])
    with pytest.raises(DataError) as caught:
        task.encode(known(["ab", text], [9, steps]))
    assert str(caught.value) == f"rows: column 'y', key 'k1': {said}"
    lenient = task_of(["ab"], [9], on_error="skip")
    labels = lenient.encode(known(["ab", text], [9, steps]))
    assert labels.lengths.tolist() == [2, 0]
    output = torch.cat([output_of(lenient, 9), output_of(lenient, steps)])
    target = Whole(labels, torch.tensor([9, steps]))
    assert lenient.losses(output, target).shape == (1,)
    alone = Whole(labels.select([0]), torch.tensor([9]))
    assert lenient.metrics(output, target) == lenient.metrics(output[:9], alone)


def test_as_many_steps_as_a_transcript_needs_are_enough() -> None:
    task = task_of(["aab"], [4])
    labels = task.encode(known(["aab"], [4]))
    output = output_of(task, 4)
    assert task.losses(output, Whole(labels, torch.tensor([4]))).isfinite().all()


def test_symbols_that_the_training_part_lacks_are_always_wrong() -> None:
    task = task_of(["ab"], [9])
    labels = task.encode(known(["axb"], [9]))
    assert task.right(labels) == [f"a{STRANGE}b"]
    assert STRANGE not in "".join(task.transcripts(output_of(task, 9), torch.tensor([9])))


@pytest.mark.parametrize("option", ["window", "truncate"])
def test_whole_sequences_are_not_cut(option: str) -> None:
    with pytest.raises(SpecError) as caught:
        segue.fit(SPEC, frame(40), training={option: 8})
    assert str(caught.value) == (
        f"training.{option}: expected nothing with task transcribe, got 8; "
        "leave it out: whole sequences are learnt"
    )


# Scores -------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    scores = transcript_scores(["on off", "", "x"], ["on of", "ab", ""])
    assert scores == {
        "character_error_rate": (1 + 2) / (5 + 2),
        "word_error_rate": (1 + 1) / (2 + 1),
        "exact": 0.0,
    }


def test_naive_answers_are_the_most_frequent_transcript_and_none() -> None:
    task = task_of(["b", "ab", "b"], [5, 5, 5])
    told = known(["b", "ba"], [5, 5])
    found = task.baselines(told, segue.sequences.Part.whole(told))
    assert found["majority"]["character_error_rate"] == 1 / 3
    assert found["empty"]["character_error_rate"] == 1.0


# A whole model ------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "key", "valid": 0, "test": 30}},
    "inputs": {"x": {"kind": "number"}},
    "outputs": {"y": {"task": "transcribe"}},
    "model": {"hidden": 32, "dropout": 0.0},
    "training": {"epochs": 25, "learning_rate": 0.02, "batch": 16},
}
LETTERS = "0ab"


def frame(count: int, between: str = "") -> pl.DataFrame:
    """Levels that stand for letters, each for some steps, with silence between."""
    rng, rows = np.random.default_rng(8), []
    for _ in range(count):
        letters = rng.choice(list(LETTERS), int(rng.integers(1, 6)))
        x: list[float] = []
        for letter in letters:
            x += [0.0] * int(rng.integers(1, 3))
            x += [LETTERS.index(letter) + 1.0] * int(rng.integers(1, 4))
        rows.append({"x": x, "y": between.join(letters)})
    return pl.DataFrame(rows)


@cache
def run(unit: str = "character") -> Run:
    spec = {**SPEC, "outputs": {"y": {"task": "transcribe", "unit": unit}}}
    return segue.fit(spec, frame(200, "" if unit == "character" else " "))


@pytest.mark.parametrize("unit", ["character", "word"])
def test_it_learns_to_transcribe(unit: str) -> None:
    evaluation = run(unit).evaluation
    assert evaluation is not None
    assert evaluation.count == 30
    assert evaluation.scores["y"].metrics["character_error_rate"] <= 0.02
    assert evaluation.scores["y"].beats_naive


@pytest.mark.parametrize("unit", ["character", "word"])
@pytest.mark.parametrize("size", [1, 4])
def test_live_answers_end_equal_to_the_transcript(unit: str, size: int) -> None:
    made, count = run(unit), 0
    rows = frame(40)["x"].to_list()
    for row, text in zip(rows, made.predict(frame(40))["y"].to_list(), strict=True):
        session, added, sizes = made.session(), [], set()
        for start in range(0, len(row), size):
            records = [{"x": value} for value in row[start : start + size]]
            added += [answer["y"] for answer in session.chunk(records)]
            leaves = ops.leaves(session._one._state)
            sizes.add(sum(leaf.numel() * leaf.element_size() for leaf in leaves))
        assert len(added) == len(row)
        assert "".join(added) == text
        assert len(sizes) == 1
        count += len(text)
    assert count > 40


def test_a_model_that_reads_the_future_does_not_run_live() -> None:
    spec = {**SPEC, "model": {"hidden": 8, "bidirectional": True}, "training": {"epochs": 1}}
    made = segue.fit(spec, frame(40))
    with pytest.raises(CausalError):
        made.session()
    assert made.predict(frame(3)).height == 3


def test_digits_in_a_file_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "digits.csv"
    path.write_text("x,digits\n" + "".join(f"{'ab' * 3},00{k}\n" for k in range(1, 4)))
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"x": {"kind": "text"}},
        "outputs": {"digits": {"task": "transcribe"}},
        "training": {"epochs": 1},
    }
    assert set(segue.fit(spec, path).trained.tasks["digits"].vocabulary.names) == set("0123")


def test_what_was_skipped_is_counted() -> None:
    told = frame(60).with_columns(
        y=pl.when(pl.int_range(pl.len()).is_in([3, 59])).then(None).otherwise("y")
    )
    spec = {**SPEC, "outputs": {"y": {"task": "transcribe", "on_error": "skip"}}}
    made = segue.fit(spec, told, training={"epochs": 1})
    assert made.evaluation is not None
    assert made.evaluation.remarks == ("y: 1 of 30 examples have no target to use",)


# A language model ---------------------------------------------------------------------------------


def language(folder: Path, texts: Sequence[str], **text: Any) -> str:
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"line": {"kind": "text", **text}},
        "outputs": {"line": {"task": "next"}},
        "model": {"hidden": 16, "dropout": 0.0},
        "training": {"epochs": 20, "learning_rate": 0.02},
    }
    segue.fit(spec, pl.DataFrame({"line": texts})).save(folder / "language")
    return str(folder / "language")


def test_a_language_model_says_what_its_own_session_says(tmp_path: Path) -> None:
    path = language(tmp_path, ["ab0ab0ab", "b0ab0"] * 8)
    spec = {
        **SPEC,
        "outputs": {"y": {"task": "transcribe", "beam": 4, "language_model": path}},
        "training": {"epochs": 2},
    }
    made = segue.fit(spec, frame(60))
    task = made.trained.tasks["y"]
    assert isinstance(task, Transcribe) and task.language_model is not None
    session = segue.load(path).session()
    _, state = task.language_model.first()
    for letter in "ab0":
        answer = session.step({"line": letter})
        code = 1 + task.vocabulary.names.index(letter)
        ((following, state),) = task.language_model.step([code], [state])
        best = task.vocabulary.names[int(following[1:].argmax())]
        assert best == answer["next_line"]
        assert np.exp(following[1:].max()) == pytest.approx(answer["next_line_p"], abs=1e-6)
    made.save(tmp_path / "run")
    again = segue.load(tmp_path / "run")
    assert again.predict(frame(9)).equals(made.predict(frame(9)))


def test_a_language_model_decides_what_the_steps_leave_open(tmp_path: Path) -> None:
    path = language(tmp_path, ["ab" * 6] * 12)
    task = task_of(["ab", "ba"], [9, 9], beam=8, language_model=path, language_weight=1.0)
    segue.language.attach(  # type: ignore[attr-defined]
        segue.trained.Trained(None, {}, {"y": task}, None, None)  # type: ignore[arg-type]
    )
    a, b, blank = task.vocabulary.encode(pl.Series(["a", "b"])).tolist() + [3]
    logits = torch.full((4, 6), -20.0)
    logits[0, a] = logits[1, blank] = logits[3, blank] = 5.0
    # Here the steps favour a second a; after an a, the language model expects a b.
    logits[2, a], logits[2, b] = 5.0, 4.5
    plain = task_of(["ab", "ba"], [9, 9], beam=8)
    assert plain.transcripts(logits, torch.tensor([4])) == ["aa"]
    assert task.transcripts(logits, torch.tensor([4])) == ["ab"]


def test_a_run_of_another_kind_is_no_language_model(tmp_path: Path) -> None:
    path = language(tmp_path, ["a b c", "b c"] * 8, unit="word")
    spec = {**SPEC, "outputs": {"y": {"task": "transcribe", "language_model": path}}}
    with pytest.raises(SpecError) as caught:
        segue.fit(spec, frame(60))
    assert str(caught.value) == (
        "outputs.y.language_model: expected a causal run of task next on one text, whose unit is "
        "character, got next on text; train one, or leave it out"
    )


def test_every_option_of_the_task_is_checked() -> None:
    assert TASKS["transcribe"] is Transcribe
    with pytest.raises(SpecError) as caught:
        segue.fit({**SPEC, "outputs": {"y": {"task": "transcribe", "beam": 0}}}, frame(4))
    assert "expected a positive integer, got 0" in str(caught.value)
