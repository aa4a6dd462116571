"""How sure and how right, and what is found at every threshold: curves of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.report.charts import ACCENT, GREY, axes, chart, grid, line, paragraph
from segue.report.plain import figures, label, thin
from segue.tasks.ranking import curve

POINTS = 200
"""Points of a curve."""


def groups(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> list[list[float]]:
    """Per tenth of the claimed probability: its mean, the share that was right, and how many."""
    tenth = np.minimum((sure * 10).astype(np.int64), 9)
    rows = []
    for one in np.unique(tenth):
        own = tenth == one
        rows.append([float(sure[own].mean()), float(right[own].mean()), int(own.sum())])
    return rows


def reliability(sure: list[list[float]]) -> str:
    """The reliability diagram (DeGroot and Fienberg, 1983) of what `groups` gave."""
    traces = [
        line([0, 1], [0, 1], "as sure as right", GREY, width=1.2, dash="dash"),
        line(
            [row[0] for row in sure],
            [row[1] for row in sure],
            "model",
            ACCENT,
            mode="lines+markers",
        ),
    ]
    most = max((row[2] for row in sure), default=1)
    traces[1]["marker"]["size"] = [5 + 13 * (row[2] / most) ** 0.5 for row in sure]
    traces[1]["text"] = [f"{row[2]:,.0f} answers" for row in sure]
    layout = axes("probability the model gives to its answer", "share that is right")
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"range": [-0.02, 1.05], "tickformat": ".0%"}
    note = (
        "Answers in groups by the probability that the model gave them; larger dots stand for more"
        " answers. On the dashed line it is exactly as sure as it should be; below it is too sure."
    )
    return grid([chart("", traces, layout)]) + paragraph(note, "note")


def ranked(
    name: str, scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> dict[str, Any] | None:
    """The curves of scores ``[M]`` for `name`; None where all or none are positive."""
    found = curve(scores, positive)
    if not found.positives or not found.negatives:
        return None
    some = thin(len(found.threshold), POINTS)
    return {
        "name": label(name),
        "share": found.positives / (found.positives + found.negatives),
        "recall": figures(found.recall[some]),
        "fallout": figures(found.fallout[some]),
        "precision": figures(found.precision[some]),
    }


def thresholds(found: dict[str, Any]) -> str:
    """The ROC curve, and precision over recall, of what `ranked` gave."""
    recall, share = found["recall"], found["share"]
    charts = []
    for title, x, y, chance, across, up in (
        ("ROC", [0, *found["fallout"]], [0, *recall], [0, 1], "share of the others", "recall"),
        ("Precision and recall", recall, found["precision"], [share] * 2, "recall", "precision"),
    ):
        traces = [
            line([0, 1], chance, "by chance", GREY, width=1.2, dash="dash"),
            line(x, y, "model", ACCENT),
        ]
        layout = axes(across, up)
        for axis in ("xaxis", "yaxis"):
            layout[axis] |= {"range": [-0.02, 1.05], "tickformat": ".0%"}
        charts.append(chart(title, traces, layout))
    note = (
        f"What is found of {found['name']} if everything above a threshold counts as it, for all"
        " thresholds. Left: the share of it that is found, over the share of the others that is"
        " taken for it. Right: the share of such answers that is right."
    )
    return grid(charts) + paragraph(note, "note")
