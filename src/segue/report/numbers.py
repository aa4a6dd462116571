"""Numbers, at the end or at every step: truth against prediction, and what is left over."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segue.report.charts import ACCENT, GREY, INK, axes, chart, dots, grid, legend, line, paragraph
from segue.report.plain import figures, label, mean, moments, thin
from segue.report.scored import Scored
from segue.tasks.regress import Regress

DOTS = 1200
"""Points of a cloud."""
STEPS = 500
"""Steps of the example."""
COLUMNS = 3
"""Columns with pictures."""

Values = NDArray[np.float64]


def gather(scored: Scored) -> dict[str, Any]:
    """What the pictures of numbers need."""
    task, target = scored.task, scored.target
    assert isinstance(task, Regress) and isinstance(target, Tensor)
    scale, shift = task.scale.numpy(), task.shift.numpy()
    truth = target.double().numpy() * scale + shift
    answer = scored.output.double().numpy() * scale + shift
    columns = [
        _column(scored, label(name), truth[:, index], answer[:, index])
        for index, name in enumerate(task.columns[:COLUMNS])
    ]
    return {"columns": columns, "all": len(task.columns)}


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    columns, parts = picture["columns"], []
    if any(column["examples"] for column in columns):
        parts.append("<h3>Step by step</h3>")
        parts.append(legend([("truth", "what is true"), ("model", "the model")]))
        parts.append(
            grid(_example(one, column["name"]) for column in columns for one in column["examples"])
        )
    parts.append("<h3>Truth and answer</h3>")
    parts.append(grid(one for column in columns for one in _clouds(column)))
    if picture["all"] > len(columns):
        parts.append(paragraph(f"The first {len(columns)} of {picture['all']:,} columns.", "note"))
    return "".join(parts)


def _column(scored: Scored, name: str, truth: Values, answer: Values) -> dict[str, Any]:
    seen = np.flatnonzero(np.isfinite(truth) & np.isfinite(answer))
    kept = seen[thin(len(seen), DOTS)]
    examples = _examples(scored, truth, answer) if scored.task.every else []
    return {
        "name": name,
        "count": len(seen),
        "truth": figures(truth[kept]),
        "answer": figures(answer[kept]),
        "examples": examples,
    }


def _examples(scored: Scored, truth: Values, answer: Values) -> list[dict[str, Any]]:
    """The sequences with the median and with the largest error."""
    errors = np.abs(answer - truth)
    by_span = np.array(
        [float(mean(errors[scored.of_span(p)], 0)) for p in range(scored.part.count)]
    )
    order = np.argsort(by_span, kind="stable")[: int(np.isfinite(by_span).sum())]
    if not len(order):
        return []
    picks = {int(order[-1]): "worst", int(order[len(order) // 2]): "typical"}
    if len(order) == 1:
        picks = {int(order[0]): ""}
    found = []
    for span, why in reversed(picks.items()):
        own = np.arange(len(truth))[scored.of_span(span)]
        own = own[thin(len(own), STEPS)]
        found.append(
            {
                "key": scored.key(span),
                "why": why,
                "steps": moments(scored.trained.clock, scored.times(span, scored.step[own])),
                "truth": figures(truth[own]),
                "answer": figures(answer[own]),
            }
        )
    return found


def _example(example: dict[str, Any], name: str) -> str:
    traces = [
        line(example["steps"], example["truth"], "what is true", INK, width=1.6),
        line(example["steps"], example["answer"], "the model", ACCENT, width=2.2),
    ]
    why = f" ({example['why']})" if example["why"] else ""
    return chart(f"{example['key'] or 'the sequence'}{why}", traces, axes("", name))


def _clouds(column: dict[str, Any]) -> list[str]:
    """Answer by truth, and residual by truth."""
    truth, answer, name = column["truth"], column["answer"], column["name"]
    if not truth:
        return [paragraph(f"{name}: nothing to compare with.")]
    ends = [min(truth), max(truth)]
    residual = [said - true for said, true in zip(answer, truth, strict=True)]
    drawn = "" if len(truth) == column["count"] else f" ({len(truth):,} of {column['count']:,})"
    return [
        chart(
            f"{name}: answer by truth{drawn}",
            [line(ends, ends, "exact", GREY, width=1.2, dash="dash"), dots(truth, answer, name)],
            axes(f"true {name}", "the model's answer"),
        ),
        chart(
            f"{name}: residual by truth",
            [
                line(ends, [0, 0], "exact", GREY, width=1.2, dash="dash"),
                dots(truth, residual, name),
            ],
            axes(f"true {name}", "answer − truth"),
        ),
    ]
