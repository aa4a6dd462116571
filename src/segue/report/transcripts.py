"""Transcripts: those that are wrong most, beside what is right."""

from __future__ import annotations

from typing import Any

from segue.report.charts import Cell, paragraph, table
from segue.report.plain import label
from segue.report.scored import Scored
from segue.tasks import Transcribe, Whole
from segue.tasks.edits import edits

WORST = 15
"""Transcripts that are shown."""


def gather(scored: Scored) -> dict[str, Any]:
    """What the picture of transcripts needs."""
    task, target = scored.task, scored.target
    assert isinstance(task, Transcribe) and isinstance(target, Whole)
    found, right = task.transcripts(scored.output, target.steps), task.right(target.labels)
    pairs = zip(found, right, strict=True)
    counts = [edits(ours, theirs) if theirs else 0 for ours, theirs in pairs]
    worst = sorted(range(len(counts)), key=lambda span: -counts[span])[:WORST]
    rows = [
        [scored.key(span), label(right[span]), label(found[span]), counts[span], len(right[span])]
        for span in worst
        if right[span]
    ]
    return {"rows": rows, "wrong": sum(count > 0 for count in counts), "all": len(counts)}


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    rows: list[list[Cell]] = [
        [key or "", right, found, made, count] for key, right, found, made, count in picture["rows"]
    ]
    header = ["sequence", "right", "transcript", "edits", "of characters"]
    share = f"{picture['wrong']:,} of {picture['all']:,} transcripts are not right altogether."
    return "<h3>The worst transcripts</h3>" + table(header, rows) + paragraph(share, "note")
