"""Texts that were written: beside what was right, and what the model looked at while it wrote."""

from __future__ import annotations

from html import escape
from typing import Any

import polars as pl

from segue.report.charts import ACCENT, Cell, chart, paragraph, table
from segue.report.plain import figures, label, thin
from segue.report.scored import Scored
from segue.tasks.task import Whole
from segue.tasks.writing import Writing

EXAMPLES = 8
WIDE = 60
"""Steps, and units, of the picture of the attention."""
LONG = 300
"""Characters of a text that are shown."""


def gather(scored: Scored) -> dict[str, Any]:
    """What the pictures of texts need: some of the sequences, written once more."""
    task, target = scored.task, scored.target
    assert isinstance(task, Writing) and isinstance(target, Whole)
    spans = thin(scored.part.count, EXAMPLES).tolist()
    raw = target.raw()
    written = task.written(scored.output, target, spans)
    rows = [
        [scored.key(span) or "the sequence", _short(source), _short(references[0]), _short(text)]
        for span, (text, references, source, _, _) in zip(spans, written, strict=True)
    ]
    picture = None
    for span, (_, _, _, units, weights) in zip(spans, written, strict=True):
        if picture is None and len(units) and max(weights.shape) <= WIDE:
            own = slice(int(raw.offsets[span]), int(raw.offsets[span + 1]))
            picture = {
                "key": scored.key(span),
                "steps": _names(raw.steps, own),
                "units": [label(unit) for unit in units],
                "weights": [figures(row) for row in weights.numpy()],
            }
    return {"rows": rows, "attention": picture}


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    rows: list[list[Cell]] = picture["rows"]
    has_source = any(row[1] for row in rows)
    shown = rows if has_source else [[row[0], *row[2:]] for row in rows]
    header = ["sequence", *(["source"] if has_source else []), "target", "the model wrote"]
    parts = ["<h3>Some of its texts</h3>", table(header, shown)]
    if picture["attention"] is not None:
        parts += ["<h3>What it looked at</h3>", _attention(picture["attention"])]
    return "".join(parts)


def _attention(found: dict[str, Any]) -> str:
    units, steps = found["units"], found["steps"]
    across, down = list(range(len(steps))), list(range(len(units)))
    layout = {
        "xaxis": {"tickvals": across, "ticktext": [escape(step) for step in steps]},
        "yaxis": {
            "tickvals": down,
            "ticktext": [escape(unit) for unit in units],
            "autorange": "reversed",
        },
        "margin": {"l": 110, "b": 110},
    }
    trace = {
        "type": "heatmap",
        "z": found["weights"],
        "x": across,
        "y": down,
        "colorscale": [[0, "#ffffff"], [1, ACCENT]],
        "zmin": 0,
        "zmax": 1,
        "hovertemplate": "%{z:.2f}<extra></extra>",
    }
    note = (
        "A row for each unit that it wrote, a column for each step that it read: how much of what"
        " it read at that point came from there. Rows sum to 1."
    )
    height = 150 + 20 * len(units)
    return chart(found["key"] or "", [trace], layout, height) + paragraph(note, "note")


def _names(steps: pl.DataFrame, own: slice) -> list[str]:
    """What the steps of a source are called: by the first column of texts, or by their numbers."""
    for column in steps.iter_columns():
        if column.dtype == pl.String:
            return [label(value or "–") for value in column[own].to_list()]
    return [str(place) for place in range(1, own.stop - own.start + 1)]


def _short(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
