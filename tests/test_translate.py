"""Tasks that write a text: units, scores, copying, what is refused; their decoder: test_decoder."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import polars as pl
import pytest
import sacrebleu
import torch
from rouge_score import rouge_scorer

import segue
from segue.errors import CausalError, DataError, SpecError
from segue.layers.decoder import UNKNOWN
from segue.run import Run
from segue.tasks.rouge import rouge
from segue.tasks.units import UNITS, Units

NUMBERS = dict(zip("abcdefgh", "ein zwei drei vier fünf sechs sieben acht".split(), strict=True))

TEXTS = ["A dog, it's wet.", "  Zwei Hunde – nass!  ", "the end", "a  b\nc", "<end> of <unknown>"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_text_of_known_units_comes_back_as_it_was(unit: str) -> None:
    units = UNITS[unit]()
    units.fit(TEXTS * 2, 500)
    again = UNITS[unit]()
    again.restore(units.fitted())
    for text in TEXTS:
        codes = units.encode(text)
        assert min(codes) > UNKNOWN and max(codes) < len(units)
        assert units.decode(codes) == again.decode(again.encode(text)) == text.strip()


def test_what_words_and_characters_lack_is_unknown_and_bytes_lack_nothing() -> None:
    found = {}
    for unit, make in UNITS.items():
        units: Units = make()
        units.fit(["a dog and a dog", "a cat"], 300)
        found[unit] = units
    assert found["word"].encode("a dog") == [2, 3]
    assert found["word"].encode("cat mat")[1] == UNKNOWN  # seen once, and never
    assert UNKNOWN in found["character"].encode("zoo")
    assert found["bpe"].decode(found["bpe"].encode("žüé 字")) == "žüé 字"


def test_a_vocabulary_is_as_large_as_said_and_has_what_is_most_frequent() -> None:
    words = UNITS["word"]()
    words.fit(["a b c", "a b c", "a b", "a"], 4)
    assert words.fitted() == [" a", " b"]
    subwords = UNITS["bpe"]()
    subwords.fit(["the cat sat on the mat"] * 20, 262)
    assert len(subwords) == 262


def test_rouge_is_that_of_the_package() -> None:
    package = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    draw = random.Random(0)
    words = "The cat's sat, on-the mat 3 über a b c d".split()
    for _ in range(200):
        summary = " ".join(draw.choices(words, k=draw.randint(0, 12)))
        references = [
            " ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(draw.randint(1, 3))
        ]
        want = package.score_multi(references, summary)
        for name, value in rouge(summary, references).items():
            assert value == pytest.approx(100 * want[name].fmeasure, abs=1e-9)


@cache
def pairs() -> pl.DataFrame:
    """Letters, and their numbers in words, backwards; some have a second target."""
    draw = random.Random(0)
    rows = []
    for _ in range(400):
        letters = draw.choices("abcdefgh", k=draw.randint(1, 5))
        target = " ".join(NUMBERS[x] for x in reversed(letters)).capitalize() + "."
        rows.append(("".join(letters), [target, "Nichts."] if draw.random() < 0.5 else [target]))
    return pl.DataFrame({"x": [x for x, _ in rows], "y": [y for _, y in rows]})


def spec(**options: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "examples", "split": {"by": "key", "valid": 40, "test": 60}},
        "inputs": {"x": {"kind": "text", "size": 16}},
        "outputs": {
            "y": {"task": "translate", "unit": "word", "size": 24, "dropout": 0, **options}
        },
        "model": {"hidden": 24, "bidirectional": True, "dropout": 0},
        "training": {"epochs": 10, "batch": 16, "learning_rate": 0.01},
    }


@cache
def translated() -> Run:
    return segue.fit(spec(), pairs())


def test_it_learns_to_translate_and_scores_against_every_reference() -> None:
    run, test = translated(), pairs()[-60:]
    evaluation = run.evaluate(pairs())
    score = evaluation.scores["y"]
    answers = run.predict(test.select("x"))["y"].to_list()
    references = test["y"].to_list()
    first = [several[0] for several in references]
    second = [several[1] if len(several) > 1 else None for several in references]
    assert score.metrics["bleu"] == sacrebleu.corpus_bleu(answers, [first, second]).score > 80
    assert score.metrics["chrf"] == sacrebleu.corpus_chrf(answers, [first, second]).score
    copied = sacrebleu.corpus_bleu(test["x"].to_list(), [first, second]).score
    assert score.baselines["copy"]["bleu"] == copied
    assert set(score.baselines) == {"copy", "most frequent"} and score.beats_naive
    assert score.metrics["token_accuracy"] > 0.9 and 0 < score.metrics["nll"] < 0.5


def test_a_saved_model_writes_the_same_texts(tmp_path: Any) -> None:
    run = translated()
    run.save(tmp_path / "run")
    rows = pairs()[:20].select("x")
    assert segue.load(tmp_path / "run").predict(rows).equals(run.predict(rows))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What it looked at" in page and "the model wrote" in page


def test_a_text_does_not_depend_on_what_else_is_translated() -> None:
    run, rows = translated(), pairs()[:12].select("x")
    together = run.predict(rows)["y"].to_list()
    assert together == [run.predict(rows[i : i + 1])["y"][0] for i in range(12)]


def test_there_is_no_translation_before_the_sequence_is_whole() -> None:
    with pytest.raises(CausalError, match="once the whole sequence is there; use `predict` on it"):
        translated().session()


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "character", "feeding": True, "attention": "additive", "cell": "lstm"},
        {"unit": "bpe", "vocabulary": 300, "attention": "scaled_dot", "scheduled_sampling": 0.3},
    ],
)
def test_every_form_learns(options: dict[str, Any]) -> None:
    said = spec(beam=2, **options)
    said["training"]["epochs"], said["data"]["split"] = 8, {"by": "key", "valid": 8, "test": 8}
    run = segue.fit(said, pairs()[:100])
    losses = [epoch.train_loss for epoch in run.history]
    assert losses[-1] < 0.75 * losses[0]
    again = segue.fit(said, pairs()[:100])
    for name, value in run.trained.network.state_dict().items():
        assert torch.equal(value, again.trained.network.state_dict()[name])


def named(count: int, seed: int) -> pl.DataFrame:
    """Sentences about somebody with a name that nobody else has."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        name = "".join(draw.choices("bdfgklmnprst", k=6)).capitalize()
        words = draw.choices("red green blue cold warm".split(), k=draw.randint(1, 4))
        place = draw.randint(0, len(words))
        rows.append(([*words[:place], name, *words[place:]], f"Hello {name}, you."))
    return pl.DataFrame({"x": [x for x, _ in rows], "y": [y for _, y in rows]})


def test_words_that_the_vocabulary_lacks_are_copied() -> None:
    said = spec(task="summarise", copying="x")
    said["inputs"]["x"] = {"kind": "category", "unknown": "allow"}
    data = named(500, 1)
    run = segue.fit(said, data)
    test = named(30, 2)
    right = sum(a == b for a, b in zip(run.predict(test)["y"], test["y"], strict=True))
    assert right >= 27, right
    score = run.evaluate(test).scores["y"]
    assert score.metrics["rougeL"] > 90 and score.metrics["token_accuracy"] > 0.9


def test_the_lead_is_the_first_sentence() -> None:
    data = pl.DataFrame(
        {"x": ["So it is. And more.", "What? Yes."] * 10, "y": ["So it was", "w"] * 10}
    )
    said = spec(task="summarise", unit="character")
    said["training"]["epochs"] = 1
    said["data"]["split"] = {"by": "key", "valid": 2, "test": 4}
    score = segue.fit(said, data).evaluate(data).scores["y"]
    lead = [rouge("So it is.", ["So it was"]), rouge("What?", ["w"])]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert score.baselines["lead"][name] == pytest.approx((lead[0][name] + lead[1][name]) / 2)


def refused(said: dict[str, Any], data: pl.DataFrame) -> str:
    with pytest.raises((DataError, SpecError)) as error:
        segue.fit(said, data)
    return str(error.value)


def test_what_cannot_be_learnt_is_refused_with_its_row() -> None:
    data = pl.DataFrame({"x": ["ab", "", "c"] * 4, "y": ["ein", "zwei", "drei"] * 4})
    said = spec()
    said["data"]["split"] = {"by": "key", "valid": 2, "test": 2}
    assert "row 2: expected at least one step to read, got none; remove the sequence" in refused(
        said, data
    )
    data = data.with_columns(x=pl.lit("ab"))
    for bad, got in ((None, "none"), (" ", "an empty text")):
        broken = data.with_columns(
            y=pl.when(pl.col("y") == "drei").then(pl.lit(bad)).otherwise("y")
        )
        assert f"column 'y', row 3: expected a text as target, got {got};" in refused(said, broken)
    numbers = data.with_columns(y=pl.lit(1.5))
    assert "column 'y': expected texts, or lists of texts, got Float64" in refused(said, numbers)
    long = spec(longest=3, unit="character")
    long["data"]["split"] = said["data"]["split"]
    assert (
        "column 'y', row 2: expected a target of at most 3 units (character), got 4 units; raise"
        " longest, shorten the text, or remove the sequence" in refused(long, data)
    )


def test_copying_needs_words_on_both_sides() -> None:
    assert "outputs.y.unit: expected word | character with copying, got bpe" in refused(
        spec(unit="bpe", copying="x"), pairs()
    )
    assert "outputs.y.copying: expected an input whose steps are words, got 'z'" in refused(
        spec(copying="z"), pairs()
    )


def test_a_sequence_without_steps_is_not_translated() -> None:
    with pytest.raises(DataError, match="row 2: expected at least one step to read, got none"):
        translated().predict(pl.DataFrame({"x": ["ab", ""]}))
