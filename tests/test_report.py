"""The report: complete in itself, safe to open, small, and true to the evaluation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from plotly.offline import get_plotlyjs

import segue
from segue import report
from segue.report import elements, forecasts, numbers, scores
from segue.report.pictures import PICTURES
from segue.report.plain import plain, thin
from segue.report.scored import Scored
from segue.run import Run, rewrite_report
from segue.stream import Sessions
from segue.tasks import TASKS

NASTY = "<script>alert('x & y')</script>"
"""A name that would run, were it not escaped."""

Case = tuple[dict[str, Any], Callable[[], pl.DataFrame]]


def steps(series: int = 6, length: int = 60, classes: int = 3, seed: int = 0) -> pl.DataFrame:
    """A long table with everything that a column can be called and contain."""
    random = np.random.default_rng(seed)
    frames = []
    for key in range(series):
        wave = np.sin(np.arange(length) / 3 + key) + 0.1 * random.normal(size=length)
        other = np.where(random.random(length) < 0.1, np.nan, random.normal(size=length))
        level = np.clip(((wave + 1.2) / 2.4 * classes).astype(int), 0, classes - 1)
        frames.append(
            pl.DataFrame(
                {
                    "key": [f"<em>{key}"] * length,
                    "time": np.arange(length),
                    NASTY: wave,
                    "other": other,
                    "place": [f"<kbd>{key % 2}"] * length,
                    "level": [f"<u>{code:03d}" for code in level],
                    "worth": np.full(length, wave.mean() + key),
                }
            )
        )
    return pl.concat(frames).with_columns(pl.col("other").fill_nan(None))


def one_series() -> pl.DataFrame:
    return steps(series=1, length=80).select("time", NASTY)


def texts() -> pl.DataFrame:
    return pl.DataFrame({"text": ["<script>ab & ab</script>\n", "abab <kbd>", "ba ba"] * 10})


def chords() -> pl.DataFrame:
    bars = [[["<kbd>", "60"], ["64"], [], ["60", "64"]] * 3, [["60"], ["<kbd>", "64"]] * 4]
    return pl.DataFrame({"chord": bars * 6})


KEYED: dict[str, Any] = {"rows": "steps", "key": "key", "time": "time"}
BY_KEY = {"data": {**KEYED, "split": {"by": "key", "valid": 1, "test": 2}}}
BY_TIME = {"data": {**KEYED, "split": {"by": "time", "valid": 10, "test": 20}}}
EXAMPLES = {"data": {"rows": "examples", "split": {"by": "random", "valid": 0.2, "test": 0.3}}}
INPUTS = {
    NASTY: {"kind": "number"},
    "other": {"kind": "number"},
    "place": {"kind": "category", "role": "static"},
}

CASES: dict[str, Case] = {
    "forecast of one series": (
        {
            "data": {"rows": "steps", "time": "time", "split": {"by": "time"}},
            "inputs": {NASTY: {"kind": "number"}},
            "outputs": {NASTY: {"task": "forecast", "horizon": 4, "season": 5}},
        },
        one_series,
    ),
    "forecast of many series": (
        {
            **BY_TIME,
            "inputs": {"place": INPUTS["place"]},
            "outputs": {"[<o]*": {"task": "forecast", "horizon": 5}},
        },
        steps,
    ),
    "forecast of the mean with a known input": (
        {
            **BY_TIME,
            "inputs": {"level": {"kind": "category", "role": "known"}},
            "outputs": {NASTY: {"task": "forecast", "horizon": 3, "quantiles": []}},
        },
        steps,
    ),
    "classify": ({**BY_KEY, "inputs": INPUTS, "outputs": {"place": {"task": "classify"}}}, steps),
    "classify texts": (
        {
            **EXAMPLES,
            "inputs": {"text": {"kind": "text"}},
            "outputs": {"kind": {"task": "classify"}},
        },
        lambda: texts().with_columns(kind=pl.Series(["<a>", "b", "b"] * 10)),
    ),
    "tag": (
        {
            **BY_KEY,
            "inputs": INPUTS,
            "outputs": {"level": {"task": "tag"}},
            "model": {"bidirectional": True},
        },
        steps,
    ),
    "tag with labels": (
        {**BY_KEY, "inputs": INPUTS, "outputs": {"is*": {"task": "tag", "labels": "many"}}},
        lambda: steps().with_columns(
            pl.col("level").str.contains(str(code)).cast(int).alias(f"is<i>{code}")
            for code in (0, 1)
        ),
    ),
    "anomalies": (
        {
            **BY_KEY,
            "inputs": {NASTY: INPUTS[NASTY]},
            "outputs": {NASTY: {"task": "anomaly", "labels": "odd"}},
        },
        lambda: steps().with_columns(odd=pl.col("level").str.contains("2").cast(int)),
    ),
    "tag with many classes": (
        {**BY_KEY, "inputs": INPUTS, "outputs": {"level": {"task": "tag"}}},
        lambda: steps(classes=50, length=200),
    ),
    "regress at the end": (
        {**BY_KEY, "inputs": INPUTS, "outputs": {"worth": {"task": "regress"}}},
        steps,
    ),
    "regress at every step": (
        {
            **BY_KEY,
            "inputs": {"place": INPUTS["place"], "level": {"kind": "category", "unknown": "allow"}},
            "outputs": {"[<o]*": {"task": "regress", "at": "every"}, "worth": {"task": "regress"}},
        },
        steps,
    ),
    "next character": (
        {**EXAMPLES, "inputs": {"text": {"kind": "text"}}, "outputs": {"text": {"task": "next"}}},
        texts,
    ),
    "next chord": (
        {
            **EXAMPLES,
            "inputs": {"chord": {"kind": "many_hot"}},
            "outputs": {"chord": {"task": "next"}},
        },
        chords,
    ),
}

PARTS = {  # of tasks, and of many labels
    "forecast": ["Forecasts and what came", "How far off, how far ahead"],
    "classify": ["What is taken for what", "By class", "How sure, how right"],
    "tag": ["What is taken for what", "By class", "Step by step", "How sure, how right"],
    "regress": ["Truth and answer"],
    "next": [],
    "many": ["By label", "How sure, how right"],
    "anomaly": ["Around the highest score", "The highest scores", "At every threshold"],
}


@cache
def run_of(name: str) -> Run:
    spec, make = CASES[name]
    declared = {**spec, "model": {"hidden": 6, **spec.get("model", {})}}
    if name == "classify":
        declared["inputs"] = {NASTY: INPUTS[NASTY], "other": INPUTS["other"]}
    return segue.fit({**declared, "training": {"epochs": 2}}, make())


@pytest.fixture(params=list(CASES))
def run(request: pytest.FixtureRequest) -> Run:
    return run_of(request.param)


def page_of(run: Run) -> str:
    return report.html(run.declaration, run.facts, run.history, digest_of(run))


def digest_of(run: Run) -> dict[str, Any]:
    return report.digest(run.trained, run.evaluation)


class Page(HTMLParser):
    """The tags, the attributes, the headings and the visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.headings: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        last = self.tags[-1] if self.tags else ""
        if last not in ("script", "style"):
            self.text += data
        if last in ("h2", "h3"):
            self.headings.append(data)

    @property
    def figures(self) -> list[dict[str, Any]]:
        """The charts as plotly gets them."""
        return [json.loads(value or "") for name, value in self.attributes if name == "data-figure"]


def test_every_task_has_pictures() -> None:
    assert set(PICTURES) <= set(TASKS)


def test_the_page_loads_nothing(run: Run) -> None:
    page = page_of(run)
    assert page.count(get_plotlyjs()) == 1
    rest = page.replace(get_plotlyjs(), "")
    assert re.findall(r"https?:|//[a-z]|@import|url\(|<link|<img|<iframe| src=", rest) == []
    assert "default-src 'none'" in rest
    links = [value for name, value in Page(rest).attributes if name == "href"]
    assert links and all((link or "").startswith("#") for link in links)


def test_names_of_the_user_never_become_markup(run: Run) -> None:
    page = Page(page_of(run).replace(get_plotlyjs(), ""))
    assert page.tags.count("script") == 2
    assert {"em", "kbd", "u"}.isdisjoint(page.tags)
    for figure in page.figures:
        assert not re.search(r"<(script|kbd|em|u)>", json.dumps(figure, ensure_ascii=False))


def test_every_section_is_there(run: Run) -> None:
    page = Page(page_of(run))
    outputs = run.declaration.outputs
    answers = [f"Answers: {name}" for name in outputs]
    sections = ["Data", "Scores", "Learning", *answers, "Calling the model", "Declaration"]
    assert [heading for heading in page.headings if heading in sections] == sections
    for spec in outputs.values():
        parts = PARTS["many" if getattr(spec, "labels", "") == "many" else spec.task]
        assert set(parts) <= set(page.headings)
    assert run.declaration.to_yaml() in page.text
    assert page.figures
    for answer in ("model", *next(iter(run.evaluation.scores.values())).baselines):  # type: ignore[union-attr]
        assert answer in page.text


def test_the_digest_is_json_without_nan(run: Run) -> None:
    digest = digest_of(run)
    assert json.loads(json.dumps(digest, allow_nan=False)) == digest


@pytest.mark.parametrize("name", ["forecast of many series", "tag with many classes", "classify"])
def test_the_digest_stays_small_when_the_data_grow(name: str) -> None:
    spec, _ = CASES[name]
    run = run_of(name)
    sizes = []
    for series, length in ((300, 40), (6, 6000)):
        table = steps(series=series, length=length, classes=3, seed=1)
        evaluation = run.evaluate(
            table.with_columns(level=pl.lit("<u>001"), place=pl.lit("<kbd>1"))
        )
        sizes.append(len(json.dumps(report.digest(run.trained, evaluation))))
    assert max(sizes) < 300_000


def test_a_loaded_run_rewrites_the_same_report(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path / "run")
    before = (tmp_path / "run" / "report.html").read_bytes()
    assert rewrite_report(tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize("name", ["forecast of many series", "classify", "next chord"])
def test_without_an_evaluation_the_page_says_that_nothing_was_held_out(
    name: str, tmp_path: Path
) -> None:
    spec, make = CASES[name]
    inputs = {NASTY: INPUTS[NASTY]} if name == "classify" else spec["inputs"]
    run = segue.fit(
        {**spec, "inputs": inputs, "model": {"hidden": 4}, "training": {"epochs": 1}},
        make(),
        split={"by": "none"},
    )
    assert run.evaluation is None
    page = Page(page_of(run))
    assert "Nothing was held out, so nobody knows how good it is" in page.text
    assert "There is no validation part, so the last epoch, 1, was kept." in page.text
    assert not [heading for heading in page.headings if heading.startswith("Answers")]
    run.save(tmp_path / "run")
    before = (tmp_path / "run" / "report.html").read_bytes()
    assert rewrite_report(tmp_path / "run").read_bytes() == before


def test_a_page_can_be_drawn_without_a_digest() -> None:
    run = run_of("classify")
    page = Page(report.html(run.declaration, run.facts, run.history, None))
    assert "Calling the model" in page.headings
    assert "Nothing was held out" in page.text


def test_the_live_record_of_the_page_steps_the_model(run: Run) -> None:
    example = digest_of(run)["call"]
    page = Page(page_of(run))
    if not run.trained.network.causal:
        assert example["answer"] == {}
        assert "it cannot run live" in page.text
        return
    assert json.dumps(example["record"], ensure_ascii=False) in page.text
    record = dict(example["record"])
    key = record.pop(run.declaration.data.key or "", "one")
    answer = Sessions(run.trained).step({str(key): record})[str(key)]
    assert set(example["answer"]) - {"…"} == set(list(answer)[:30])


def test_a_record_of_the_known_future_brings_all_of_it() -> None:
    record = digest_of(run_of("forecast of the mean with a known input"))["call"]["record"]
    assert list(record["ahead"]) == ["level"]
    assert len(record["ahead"]["level"]) == 3


@pytest.mark.parametrize("name", [name for name in CASES if "forecast" in name])
def test_the_naive_forecasts_drawn_are_those_that_were_scored(name: str) -> None:
    run = run_of(name)
    assert run.evaluation is not None
    for output, score in run.evaluation.scores.items():
        scored = Scored(run.trained, run.evaluation, output)
        naive = forecasts.best_naive(scored, scored.task)  # type: ignore[arg-type]
        future = run.evaluation.targets[output]
        error = np.abs(future.values.numpy() - naive) / future.naive.numpy()[:, :, None]
        drawn = float(np.nanmean(error))
        assert drawn == pytest.approx(score.baselines[score.best_baseline]["mase"], abs=1e-12)


def test_forecasts_start_at_origins_spread_over_the_scored_part() -> None:
    panels = digest_of(run_of("forecast of one series"))["pictures"][NASTY]["panels"]
    origins = [panel["origin"] for panel in panels]
    assert len(origins) == 4
    assert origins == sorted(set(origins))
    for panel in panels:
        assert panel["past"]["t"][-1] == panel["origin"]
        assert panel["t"] == [panel["origin"] + ahead for ahead in (1, 2, 3, 4)]


def test_forecasts_of_many_series_show_the_typical_the_worst_and_the_best() -> None:
    panels = digest_of(run_of("forecast of many series"))["pictures"]["[<o]*"]["panels"]
    assert {panel["why"] for panel in panels} == {"typical", "worst", "best"}


@pytest.mark.parametrize("name", ["classify", "tag", "classify texts"])
def test_the_confusion_matrix_holds_the_accuracy(name: str) -> None:
    run = run_of(name)
    assert run.evaluation is not None
    ((output, score),) = run.evaluation.scores.items()
    counts = np.array(digest_of(run)["pictures"][output]["matrix"]["counts"])
    assert counts.sum() == run.evaluation.count
    assert np.trace(counts) / counts.sum() == pytest.approx(score.metrics["accuracy"], abs=1e-12)


def test_many_classes_get_a_table_of_confusions() -> None:
    run = run_of("tag with many classes")
    picture = digest_of(run)["pictures"]["level"]
    assert picture["matrix"] is None
    assert len(picture["by_class"]) == 30
    assert 0 < len(picture["confusions"]) <= 30
    times = [count for _, _, count, _ in picture["confusions"]]
    assert times == sorted(times, reverse=True)
    assert f"There are {picture['classes']} classes" in Page(page_of(run)).text


def test_the_clouds_hold_the_error() -> None:
    run = run_of("regress at the end")
    assert run.evaluation is not None
    column = digest_of(run)["pictures"]["worth"]["columns"][0]
    error = np.array(column["answer"]) - np.array(column["truth"])
    rmse = run.evaluation.scores["worth"].metrics["rmse"]
    assert np.sqrt((error**2).mean()) == pytest.approx(rmse, rel=1e-4)
    assert column["count"] == len(error) <= numbers.DOTS


def test_the_excerpt_holds_the_loss_and_the_text() -> None:
    run = run_of("next character")
    assert run.evaluation is not None
    shown = digest_of(run)["pictures"]["text"]["excerpt"]["elements"]
    surprise = [nats for _, nats, _ in shown if nats is not None]
    assert run.evaluation.count < elements.EXCERPT
    nll = run.evaluation.scores["text"].metrics["nll"]
    assert np.mean(surprise) == pytest.approx(nll, rel=1e-4)
    # A sequence ends where the next begins; the excerpt breaks the line there.
    rows = run.evaluation.part.rows
    told = "\n".join(texts()["text"][int(row)] for row in rows)
    assert "".join(name for name, _, _ in shown) == told


def test_the_roll_marks_what_came() -> None:
    run = run_of("next chord")
    assert run.evaluation is not None
    roll = digest_of(run)["pictures"]["chord"]["roll"]
    assert roll["names"] == ["60", "64", "<kbd>"]
    row = int(roll["key"].removeprefix("sequence ")) - 1
    chord = chords()["chord"][row].to_list()
    came = {
        (name, roll["steps"][at])
        for name, places in zip(roll["names"], roll["came"], strict=True)
        for at in places
    }
    assert came == {(name, step) for step in roll["steps"] for name in chord[step]}


def score_of(ours: float | None, theirs: float, *, lower: bool = True) -> dict[str, Any]:
    answers = {"model": {"mase": ours}, "drift": {"mase": theirs}}
    return {"main": "mase", "best": "drift", "lower_is_better": lower, "answers": answers}


@pytest.mark.parametrize(
    ("ours", "good", "sentence"),
    [
        (
            0.6,
            True,
            "It beats the best naive answer: MASE 0.6 against 0.8 for “drift”, 25\u00a0% lower.",
        ),
        (0.9, False, "It does not beat the best naive answer: MASE 0.9 against 0.8 for “drift”."),
        (0.8, False, "It does not beat the best naive answer: MASE 0.8 against 0.8 for “drift”."),
        (None, None, "Whether it beats the naive answers cannot be said: MASE – against 0.8."),
    ],
)
def test_the_verdict_is_honest(ours: float | None, good: bool | None, sentence: str) -> None:
    assert scores.verdict(score_of(ours, 0.8)) == (good, sentence)


def test_the_best_of_a_table_of_scores_is_marked() -> None:
    run = run_of("forecast of one series")
    spec = run.declaration.outputs[NASTY]
    shown = scores.draw(score_of(0.9, 0.8), spec, 1, NASTY)
    assert '<td class="num best">0.8</td>' in shown
    assert '<td class="num">0.9</td>' in shown


def test_plain_values_have_neither_nan_nor_numpy() -> None:
    found = plain({1: [np.float32(0.5), float("nan"), np.int64(3), (True, "x", None)]})
    assert json.dumps(found) == '{"1": [0.5, null, 3, [true, "x", null]]}'


def test_thinned_positions_keep_the_ends() -> None:
    assert thin(10_001, 3).tolist() == [0, 5000, 10_000]
    assert thin(2, 3).tolist() == [0, 1]
