"""Spans of tags, against conlleval's own answers."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

import segue
from segue.tasks.spans import Span, are_bio, span_f1, spans_of


def spans(tags: str, *lengths: int) -> list[tuple[int, int, str]]:
    words = [None if tag == "-" else tag for tag in tags.split()]
    return sorted(spans_of(words, np.array(lengths or [len(words)])))


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", []),
        ("B-a I-a O B-b", [(0, 2, "a"), (3, 4, "b")]),
        ("B-a B-a I-a", [(0, 1, "a"), (1, 3, "a")]),
        ("I-a I-a O I-b", [(0, 2, "a"), (3, 4, "b")]),
        ("B-a I-b I-b", [(0, 1, "a"), (1, 3, "b")]),
        ("B-a - I-a", [(0, 1, "a"), (2, 3, "a")]),
        ("B-x-y I-x-y", [(0, 2, "x-y")]),
    ],
)
def test_spans_begin_and_end_as_in_conlleval(tags: str, found: list[tuple[int, int, str]]) -> None:
    assert spans(tags) == found


def test_a_span_ends_with_its_sequence() -> None:
    assert spans("B-a I-a I-a", 2, 0, 1) == [(0, 2, "a"), (2, 3, "a")]


def test_a_hit_has_the_same_steps_and_the_same_kind() -> None:
    right = {Span(0, 2, "a"), Span(3, 4, "b"), Span(5, 6, "b")}
    found = {Span(0, 2, "a"), Span(3, 4, "a")}
    assert span_f1(found, right) == 2 * 1 / 5
    assert span_f1(set(), right) == 0.0
    assert math.isnan(span_f1(set(), set()))


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["O", "B-a", "I-a"], True),
        (["B-a", "I-b"], True),
        (["O", "I-a"], False),
        (["O", "B-", "B-a"], False),
        (["on", "off"], False),
        (["O", "B"], False),
    ],
)
def test_tags_that_look_like_spans(names: list[str], answer: bool) -> None:
    assert are_bio(names) is answer


def test_a_tagger_of_spans_is_scored_by_spans() -> None:
    words = [["to", "new", "york"], ["york"], ["to", "rome", "now"], ["new"]] * 6
    places = {"new": "B-city", "rome": "B-city", "to": "O", "now": "O"}
    tags = [[places.get(w, "I-city" if "new" in row else "B-city") for w in row] for row in words]
    run = segue.fit(
        {
            "data": {"rows": "examples", "split": {"by": "key", "test": 4}},
            "inputs": {"words": {"kind": "text", "unit": "word"}},
            "outputs": {"tags": {"task": "tag"}},
            "training": {"epochs": 40, "learning_rate": 0.02},
        },
        pl.DataFrame({"words": words, "tags": tags}),
    )
    assert run.evaluation is not None
    score = run.evaluation.scores["tags"]
    assert score.metrics["span_f1"] == 1.0
    # Always the most frequent tag: B-city at every step; three of four spans are one step long.
    assert score.baselines["majority"]["span_f1"] == pytest.approx(2 * 3 / (8 + 4))
