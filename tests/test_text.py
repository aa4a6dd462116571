"""Units of texts: characters, bytes, words and pieces of words, there and back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.errors import DataError, SpecError
from segue.fields.text import Text
from segue.run import declare

TEXTS = ["Hello, it's an état-major!", "", None, "日本 Ω 'x' a_b 3.5", "<unk> the\n the"]


def field_of(**options: Any) -> Text:
    return Text("x", ("x",), Text.Spec.model_validate({"kind": "text", **options}))


def fitted(texts: Any, **options: Any) -> Text:
    field = field_of(**options)
    cells = pl.Series("x", texts)
    if field.learns_steps:
        field.fit_steps(cells.to_frame())
    field.fit(field.unfold(cells, "rows")[0].to_frame())
    return field


def units(field: Text, text: str) -> list[Any]:
    found: list[Any] = field.unfold(pl.Series("x", [text]), "rows")[0].to_list()
    return found


# There and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"unit": "byte"}, {"unit": "bpe", "vocabulary": 300}], ids=str
)
def test_units_joined_are_the_text(options: dict[str, Any]) -> None:
    field = fitted(TEXTS, **options)
    cells = pl.Series("x", TEXTS)
    flat, lengths = field.unfold(cells, "rows")
    assert flat.dtype == field.units.dtype
    assert lengths.sum() == len(flat)
    parts = np.split(flat.to_numpy(), np.cumsum(lengths)[:-1])
    joined = [field.units.join(part.tolist()) for part in parts]
    assert joined == [text or "" for text in TEXTS]
    assert field.folded(flat, lengths).to_list() == joined


def test_words_and_signs_are_cut_as_written() -> None:
    field = field_of(unit="word")
    assert units(field, TEXTS[0] or "") == ["Hello", ",", "it's", "an", "état-major", "!"]
    assert units(field, TEXTS[3] or "") == ["日本", "Ω", "'", "x", "'", "a_b", "3", ".", "5"]
    spaced = field_of(unit="word", split="spaces")
    assert units(spaced, " <unk> the\n the ") == ["<unk>", "the", "the"]


def test_a_list_is_a_text_that_was_cut_already() -> None:
    field = field_of(unit="word", lower=True)
    flat, lengths = field.unfold(pl.Series("x", [["New York", "is"], [], ["It's"]]), "rows")
    assert flat.to_list() == ["new york", "is", "it's"]
    assert lengths.tolist() == [2, 0, 1]
    with pytest.raises(DataError) as caught:
        field_of(unit="bpe").unfold(pl.Series("x", [["a"]]), "rows")
    assert str(caught.value) == (
        "rows: column 'x': expected a text in every cell, got List(String); correct it, or its kind"
    )


# What is known ------------------------------------------------------------------------------------


def test_rare_and_new_words_are_unknown_and_counted() -> None:
    field = fitted(["on off on", "off rare"], unit="word", least=2)
    assert field.vocabulary.names == ("off", "on")
    assert field.describe() == "2 different words; 1 of 5 training steps are unknown"
    codes = field.encode(pl.DataFrame({"x": ["on", "rare", "new", None]}), "rows")
    assert codes[:, 0].tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("unit", ["byte", "bpe"])
def test_nothing_is_unknown_to_bytes_and_pieces(unit: str) -> None:
    field = fitted(["plain ascii"] * 3, unit=unit, vocabulary=260)
    flat, _ = field.unfold(pl.Series("x", ["Größe 日本 \x00"]), "rows")
    codes = field.encode(flat.to_frame(), "rows")
    assert int(codes.min()) >= 1 and int(codes.max()) < len(field.vocabulary)


def test_lower_is_the_same_live() -> None:
    field = fitted(["ΟΔΟΣ İx", "Straße"], lower=True)
    for text in ("ΟΔΟΣ", "İX", "STRASSE"):
        flat, _ = field.unfold(pl.Series("x", [text]), "rows")
        live = field.column("x", list(text), "records")
        assert live.to_list() == flat.to_list()
        plain = field.plain([(character,) for character in text])
        assert plain is not None
        assert plain.tolist() == field.encode(flat.to_frame(), "rows").tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"unit": "byte", "lower": True},
            "`lower` with another unit than byte",
        ),
        (
            {"unit": "bpe", "least": 2},
            "`least` with characters or words, not with unit bpe",
        ),
    ],
)
def test_options_that_a_unit_does_not_have_are_refused(options: Any, said: str) -> None:
    spec = {
        "data": {"rows": "examples"},
        "inputs": {"x": {"kind": "text", **options}},
        "outputs": {"x": {"task": "next"}},
    }
    with pytest.raises(SpecError) as caught:
        declare(spec)
    assert f"expected {said}, got" in str(caught.value)


def test_too_few_pieces_are_refused() -> None:
    with pytest.raises(SpecError) as caught:
        field_of(unit="bpe", vocabulary=100)
    assert str(caught.value) == (
        "inputs.x.vocabulary: expected at least 256, the bytes, got 100; make it larger"
    )


def test_a_text_where_rows_are_steps_is_refused() -> None:
    spec = {
        "data": {"rows": "steps"},
        "inputs": {"word": {"kind": "text", "unit": "word"}},
        "outputs": {"tag": {"task": "tag"}},
    }
    frame = pl.DataFrame({"word": ["a", "b"] * 9, "tag": ["x", "y"] * 9})
    with pytest.raises(SpecError) as caught:
        segue.fit(spec, frame)
    assert str(caught.value) == (
        "inputs.word.kind: expected a kind with a value per row, got text where rows are steps; "
        "declare kind category, or rows: examples"
    )


# Pieces -------------------------------------------------------------------------------------------


def test_pieces_are_those_that_are_frequent() -> None:
    field = fitted(["the other then the the"] * 4, unit="bpe", vocabulary=262)
    assert units(field, "the other") == ["the", "Ġothe", "r"]
    assert len(field.vocabulary.names) == 262


def test_pieces_survive_json() -> None:
    field = fitted(TEXTS * 3, unit="bpe", vocabulary=290)
    other = field_of(unit="bpe", vocabulary=290)
    other.restore(json.loads(json.dumps(field.fitted())))
    cells = pl.Series("x", ["état the 3.5 Hello"])
    assert other.unfold(cells, "rows")[0].to_list() == field.unfold(cells, "rows")[0].to_list()
    assert other.fitted() == field.fitted()


LINES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 12


def spec_of(data: dict[str, Any], **text: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "examples", **data},
        "inputs": {"x": {"kind": "text", **text}},
        "outputs": {"x": {"task": "next"}},
        "model": {"hidden": 16},
        "training": {"epochs": 2},
    }


def test_pieces_are_learnt_from_the_training_part_alone() -> None:
    made = []
    for end in ("xyzzy " * 30, "plugh " * 30):
        spec = spec_of({"split": {"by": "time", "test": 180}}, unit="bpe", vocabulary=270)
        made.append(segue.fit(spec, pl.DataFrame({"x": ["the cat sat " * 30 + end]})))
    one, other = (run.trained.fields["x"].fitted() for run in made)
    assert one["merges"] == other["merges"]


def test_a_run_of_pieces_is_live_and_survives(tmp_path: Path) -> None:
    spec = spec_of({"split": {"by": "none"}}, unit="bpe", vocabulary=280)
    run = segue.fit(spec, pl.DataFrame({"x": LINES}))
    run.save(tmp_path / "run")
    loaded = segue.load(tmp_path / "run")
    told = pl.DataFrame({"x": LINES[:1]})
    pieces = loaded.trained.sequences(told).steps["x"].to_list()
    assert "".join(pieces).replace("Ġ", " ") == LINES[0]
    session = loaded.session()
    live = [session.step({"x": piece})["next_x"] for piece in pieces]
    assert live == run.predict(told)["next_x"].to_list()


def test_unknown_words_are_remarked_on() -> None:
    spec = spec_of({"split": {"by": "key", "valid": 0, "test": 3}}, unit="word", least=13)
    run = segue.fit(spec, pl.DataFrame({"x": LINES}))
    assert run.evaluation is not None
    # mat, log and "and" are there twelve times in all.
    assert run.evaluation.remarks == ("x: 3 of 17 steps are unknown",)
    _, remarks = run.predicted(pl.DataFrame({"x": ["the new cat", "on"]}))
    assert remarks == ("x: 1 of 4 steps are unknown",)


@pytest.mark.parametrize(
    ("name", "text", "offset"),
    [
        ("t.csv", b"x,y\n\xff,1\n", 4),
        ("t.tsv", b"x\ty\na\xff\t1\n", 5),
        ("t.jsonl", b'{"x": "\xff"}\n', 7),
        ("t.txt", b"ab\xff", 2),
    ],
)
def test_a_wrong_encoding_names_the_byte(
    name: str, text: bytes, offset: int, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(DataError) as caught:
        segue.fit(spec_of({}), tmp_path / name)
    assert str(caught.value) == (
        f"{name}: expected UTF-8 text, got byte 0xff at offset {offset}; "
        "save the file as UTF-8, or name its encoding (e.g. latin-1)"
    )


@pytest.mark.parametrize(
    "text", [{"unit": "word", "split": "spaces", "least": 5}, {"unit": "bpe", "vocabulary": 600}]
)
def test_a_language_model_of_words_beats_their_frequency(
    text: dict[str, Any], shared_data: Path, tmp_path: Path
) -> None:
    with gzip.open(shared_data / "wikitext2_small" / "test.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if len(line) > 200][:300]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    spec = {
        "data": {"rows": "examples", "lines": True, "split": {"by": "key", "test": 30}},
        "inputs": {"text": {"kind": "text", **text}},
        "outputs": {"text": {"task": "next"}},
        "model": {"hidden": 64, "dropout": 0.0},
        "training": {"epochs": 3, "batch": 16, "learning_rate": 0.01},
    }
    run = segue.fit(spec, tmp_path / "lines.txt")
    assert run.evaluation is not None
    assert run.evaluation.scores["text"].beats_naive
