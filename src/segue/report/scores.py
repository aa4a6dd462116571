"""The table of scores, what the metrics mean, and the sentence on whether learning was worth it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from segue.report.charts import Cell, Marked, bullets, number, percent, table
from segue.schema import Output


class Metric(NamedTuple):
    """How a metric is called, what it means, and which way it goes (None: towards a goal)."""

    name: str
    meaning: str
    lower_is_better: bool | None = True
    share: bool = False


METRICS = {
    "mase": Metric(
        "MASE",
        "mean absolute error in units of the mean change over a season in the training rows",
    ),
    "mae": Metric("MAE", "mean absolute error, in {unit}"),
    "rmse": Metric("RMSE", "root of the mean squared error, in {unit}"),
    "mse_scaled": Metric(
        "scaled MSE", "mean squared error in units of the variance of the training rows; no unit"
    ),
    "smape": Metric("sMAPE", "symmetric absolute error, 0 to 200 per cent"),
    "coverage": Metric("inside the band", "share of the values inside the band", None, True),
    "nominal": Metric("asked of the band", "share that should be inside the band", None, True),
    "accuracy": Metric("accuracy", "share of right answers", False, True),
    "macro_f1": Metric(
        "macro-F1", "mean over the classes of F1, the harmonic mean of recall and precision", False
    ),
    "balanced_accuracy": Metric(
        "balanced accuracy", "mean over the classes of the share that is found", False, True
    ),
    "log_loss": Metric(
        "log-loss", "mean of −log of the probability given to the right class, in nats"
    ),
    "ece": Metric(
        "calibration error",
        "how far the probabilities of the answers are from the share that is right, on average",
    ),
    "roc_auc": Metric(
        "ROC AUC",
        "chance that a case is scored above one of the other class, 0.5 by guessing",
        False,
    ),
    "average_precision": Metric(
        "average precision", "precision over all thresholds, averaged by recall", False
    ),
    "micro_f1": Metric("micro-F1", "F1 over all labels together", False),
    "mean_average_precision": Metric(
        "mean average precision", "average precision of each label, averaged", False
    ),
    "r2": Metric(
        "R²", "1 is exact, 0 is no better than the mean of what was scored; no unit", False
    ),
    "nll": Metric(
        "NLL", "mean of −log of the probability given to what came next, in nats per step"
    ),
    "perplexity": Metric(
        "perplexity",
        "as unsure as between this many equally likely elements; the exponential of NLL",
    ),
    "bleu": Metric(
        "BLEU", "how many runs of one to four words are those of a target, of 100", False
    ),
    "chrf": Metric("chrF", "the same for runs of one to six characters, of 100", False),
    "rouge1": Metric("ROUGE-1", "words in common with the best target, of 100", False),
    "rouge2": Metric("ROUGE-2", "pairs of words in common with the best target, of 100", False),
    "rougeL": Metric("ROUGE-L", "words in common, in the same order, of 100", False),
    "token_accuracy": Metric(
        "token accuracy",
        "share of a target's units that are the likeliest, given those before them",
        False,
        True,
    ),
}
"""By the name that the tasks give; the order is that of the table's notes."""


def metric(name: str) -> Metric:
    """What is known of a metric."""
    return METRICS.get(name, Metric(name.replace("_", " "), "", None))


def show(name: str, value: float | None) -> str:
    """A metric's value for a reader."""
    return percent(value) if metric(name).share else number(value)


def verdict(score: dict[str, Any]) -> tuple[bool | None, str]:
    """Whether the model beats every naive answer (None: nobody can say), and the sentence on it."""
    main, best = score["main"], score["best"]
    ours = score["answers"]["model"].get(main)
    theirs = None if best is None else score["answers"][best].get(main)
    name = metric(main).name
    if ours is None or theirs is None:
        shown = f"{show(main, ours)} against {show(main, theirs)}"
        return None, f"Whether it beats the naive answers cannot be said: {name} {shown}."
    better = ours < theirs if score["lower_is_better"] else ours > theirs
    against = f"{name} {show(main, ours)} against {show(main, theirs)} for “{best}”"
    if not better:
        return False, f"It does not beat the best naive answer: {against}."
    gain = ""
    if score["lower_is_better"] and theirs > 0:
        gain = f", {percent(1 - ours / theirs, 0)} lower"
    return True, f"It beats the best naive answer: {against}{gain}."


def banded(score: dict[str, Any], share: float | None) -> str:
    """The sentence on how much of the truth was inside the band; empty without a band."""
    inside = score["answers"]["model"].get("coverage")
    if inside is None or share is None:
        return ""
    return f" Its {percent(share, 0)} band held {percent(inside)} of the values."


def draw(score: dict[str, Any], spec: Output, columns: int, name: str) -> str:
    """The table of one output, best values marked, with the meaning of its metrics below."""
    answers = score["answers"]
    names = list(answers["model"])
    best = {one: _best(one, [answer.get(one) for answer in answers.values()]) for one in names}
    rows = []
    for answer, values in answers.items():
        cells: list[Cell] = [Marked(answer, "ours") if answer == "model" else answer]
        for one in names:
            value = values.get(one)
            style = "num best" if value is not None and value == best[one] else "num"
            cells.append(Marked(show(one, value) if one in values else "", style))
        rows.append(cells)
    header = ["answer", *(metric(one).name for one in names)]
    unit = f"the unit of {name}" if columns == 1 else "the units of the columns"
    notes = [_note(one, unit, spec) for one in names if metric(one).meaning]
    return table(header, rows, "scores") + bullets(notes)


def _note(name: str, unit: str, spec: Output) -> str:
    one = metric(name)
    text = f"{one.name}: {one.meaning.format(unit=unit)}"
    quantiles = getattr(spec, "quantiles", ())
    if name == "coverage" and len(quantiles) > 1:
        return f"{text} ({percent(max(quantiles) - min(quantiles), 0)} asked)"
    if one.lower_is_better is None:
        return text
    return f"{text} ({'lower' if one.lower_is_better else 'higher'} is better)"


def _best(name: str, values: list[float | None]) -> float | None:
    seen = [value for value in values if value is not None and math.isfinite(value)]
    lower = metric(name).lower_is_better
    if lower is None or len(seen) < 2:
        return None
    return min(seen) if lower else max(seen)
