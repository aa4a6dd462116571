"""Many labels at once: how well each is found, and how sure the model is."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from segue.report import curves
from segue.report.charts import paragraph, percent, table
from segue.report.plain import label
from segue.tasks.ranking import average_precision

MOST = 30
"""Labels in the table: the most frequent ones."""


def gather(names: list[str], logits: Tensor, target: Tensor) -> dict[str, Any]:
    """What the pictures of labels need, of logits and targets ``[M, K]``."""
    shares, truth = logits.sigmoid().numpy(), target.numpy()
    seen = np.isfinite(truth)
    actual = (truth == 1).sum(0)
    rows = []
    for place in np.argsort(-actual, kind="stable")[:MOST]:
        own = seen[:, place]
        true, share = truth[own, place] == 1, shares[own, place]
        hits, claimed = int((true & (share > 0.5)).sum()), int((share > 0.5).sum())
        rows.append(
            [
                label(names[place]),
                int(true.sum()),
                hits / int(true.sum()) if true.any() else None,
                hits / claimed if claimed else None,
                2 * hits / (claimed + int(true.sum())) if claimed or true.any() else None,
                average_precision(share, true),
            ]
        )
    return {
        "labels": len(names),
        "by_label": rows,
        "sure": curves.groups(shares[seen], truth[seen] == 1),
    }


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    rows = [
        [name, count, percent(recall), percent(precision), f1, average]
        for name, count, recall, precision, f1, average in picture["by_label"]
    ]
    note = (
        "Recall: the share of its cases that is found. Precision: the share of such answers that is"
        " right. Both at a probability of one half; average precision: over all thresholds."
    )
    if picture["labels"] > len(rows):
        note += f" The {len(rows)} most frequent of {picture['labels']:,} labels."
    header = ["label", "count", "recall", "precision", "F1", "average precision"]
    return (
        "<h3>By label</h3>"
        + table(header, rows, "numbers")
        + paragraph(note, "note")
        + "<h3>How sure, how right</h3>"
        + curves.reliability(picture["sure"])
    )
