"""Anomalies: the highest scores, and the series around the highest one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segue.report import curves
from segue.report.charts import ACCENT, GREY, INK, axes, chart, line, paragraph, table
from segue.report.plain import figures, label, moments
from segue.report.scored import Scored
from segue.tasks.anomaly import Anomaly

AROUND = 300
"""Steps on either side of the highest score."""
MOST = 10


def gather(scored: Scored) -> dict[str, Any]:
    """What the pictures of anomalies need."""
    task, target = scored.task, scored.target
    assert isinstance(task, Anomaly) and isinstance(target, Tensor)
    output, truth = scored.output.double().numpy(), target.numpy()
    score, fresh = output[:, 1], output[:, 2] > 0
    ranked = np.where(fresh & np.isfinite(truth[:, 0]), score, -np.inf)
    top = np.argsort(-ranked, kind="stable")[:MOST]
    known = np.isfinite(truth[:, :2]).all(1)
    return {
        "threshold": task.threshold,
        "highest": [
            _alarm(scored, int(place), score) for place in top if np.isfinite(ranked[place])
        ],
        "around": _around(scored, int(top[0]), output) if len(top) else None,
        "ranked": (
            curves.ranked("an anomaly", score[known], truth[known, 1] > 0) if known.any() else None
        ),
    }


def _alarm(scored: Scored, place: int, score: NDArray[np.float64]) -> list[Any]:
    """Sequence, time and score of a step."""
    span = int(scored.owner[place])
    times = scored.times(span, scored.step[[place]])
    return [
        scored.key(span) or "the sequence",
        str(moments(scored.trained.clock, times)[0]),
        figures(score[[place]])[0],
    ]


def _around(scored: Scored, place: int, output: NDArray[np.float64]) -> dict[str, Any]:
    """The first column, what was expected of it, and the scores around a step."""
    task, span = scored.task, int(scored.owner[place])
    assert isinstance(task, Anomaly)
    whole = scored.of_span(span)
    own = slice(max(whole.start, place - AROUND), min(whole.stop, place + AROUND + 1))
    found: dict[str, Any] = {
        "key": scored.key(span),
        "column": label(task.columns[0]),
        "steps": moments(scored.trained.clock, scored.times(span, scored.step[own])),
        "score": figures(output[own, 1]),
    }
    if task.vocabulary is not None:
        return found
    first = int(scored.sequences.offsets[scored.part.rows[span]])
    values = scored.sequences.steps[task.columns[0]].gather((first + scored.step[own]).tolist())
    return found | {
        "truth": figures(values.cast(float).to_numpy()),
        "expected": figures(output[own, 3] * task.scale[0] + task.shift[0]),
    }


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    parts, around, threshold = [], picture["around"], picture["threshold"]
    if around is not None:
        steps, name = around["steps"], around["key"] or "the sequence"
        parts.append("<h3>Around the highest score</h3>")
        if "truth" in around:
            traces = [
                line(steps, around["truth"], "what came", INK),
                line(steps, around["expected"], "what was expected", ACCENT, width=1.4),
            ]
            parts.append(chart(f"{name}: {around['column']}", traces, axes("", around["column"])))
        traces = [line(steps, around["score"], "score", ACCENT)]
        if threshold is not None:
            ends = [steps[0], steps[-1]]
            traces.append(line(ends, [threshold] * 2, "threshold", GREY, dash="dash"))
        parts.append(chart("", traces, axes("", "score"), 200))
    note = "A step is an anomaly where its score reaches the threshold, which was learnt from the"
    note += f" training rows: {threshold:.4g}." if threshold is not None else " training rows."
    parts.append("<h3>The highest scores</h3>")
    parts.append(table(["sequence", "time", "score"], picture["highest"], "numbers"))
    parts.append(paragraph(note, "note"))
    if picture["ranked"]:
        parts += ["<h3>At every threshold</h3>", curves.thresholds(picture["ranked"])]
    return "".join(parts)
