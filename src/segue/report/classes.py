"""Classes, of sequences or of steps: what is taken for what, and how sure the model is."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.report import curves, labels
from segue.report.charts import PALE, Cell, Marked, Trace, chart, paragraph, percent, table
from segue.report.plain import figures, label, moments
from segue.report.scored import Scored
from segue.tasks.classes import NONE
from segue.tasks.classify import Classify
from segue.tasks.many_labels import ManyLabels

MOST = 30
"""Classes of a whole confusion matrix, and rows of the tables that stand in for a larger one."""
STRIP = 300
"""Steps of the example."""
MISTAKES = 8
COLOURS = (
    "#0b6e7f", "#e0a458", "#7b6ba8", "#5a9367", "#c65d57",
    "#8fb8de", "#b5838d", "#c9c19f", "#4f5d75", "#a3b18a",
)  # fmt: skip
"""Of the classes in the strip that occur in it most."""


def gather(scored: Scored) -> dict[str, Any]:
    """What the pictures of classes need."""
    task, target = scored.task, scored.target
    assert isinstance(task, Classify) and isinstance(target, Tensor)
    output = scored.output.double() / task.temperature
    if isinstance(task.labelling, ManyLabels):
        return labels.gather(task.labelling.names, output, target)
    shares, seen = torch.softmax(output, 1), target != NONE
    sure, claimed = shares.max(1)
    pairs, counts = _pairs(target[seen], claimed[seen], len(task.classes))
    actual = torch.bincount(target[seen], minlength=len(task.classes)).numpy()
    names = task.classes.names
    return {
        "classes": len(names),
        "matrix": _matrix(names, pairs, counts),
        "confusions": _confusions(names, pairs, counts, actual),
        "by_class": _by_class(names, pairs, counts, actual),
        "sure": curves.groups(sure[seen].numpy(), (claimed == target)[seen].numpy()),
        "ranked": (
            curves.ranked(names[1], shares[seen, 1].numpy(), (target == 1)[seen].numpy())
            if len(names) == 2
            else None
        ),
        "strip": _strip(scored, names, claimed, target, sure) if task.every else None,
        "mistakes": [] if task.every else _mistakes(scored, names, claimed, target, sure),
    }


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    if "labels" in picture:
        return labels.draw(picture)
    parts = ["<h3>What is taken for what</h3>", _confusion(picture)]
    parts += ["<h3>By class</h3>", _class_table(picture)]
    if picture["strip"] is not None:
        parts += ["<h3>Step by step</h3>", _strip_chart(picture["strip"])]
    parts += ["<h3>How sure, how right</h3>", curves.reliability(picture["sure"])]
    if picture.get("ranked"):
        parts += ["<h3>At every threshold</h3>", curves.thresholds(picture["ranked"])]
    if picture["mistakes"]:
        parts += ["<h3>Its surest mistakes</h3>", _mistake_table(picture["mistakes"])]
    return "".join(parts)


def _pairs(
    target: Tensor, claimed: Tensor, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different (true class, claimed class) ``[U, 2]`` and how often each occurs ``[U]``."""
    found, counts = torch.unique(target * classes + claimed, return_counts=True)
    return np.stack(np.divmod(found.numpy(), classes), axis=1), counts.numpy()


def _matrix(
    names: list[str], pairs: NDArray[np.int64], counts: NDArray[np.int64]
) -> dict[str, Any] | None:
    if len(names) > MOST:
        return None
    matrix = np.zeros((len(names), len(names)), np.int64)
    matrix[pairs[:, 0], pairs[:, 1]] = counts
    return {"names": [label(name) for name in names], "counts": matrix.tolist()}


def _confusions(
    names: list[str],
    pairs: NDArray[np.int64],
    counts: NDArray[np.int64],
    actual: NDArray[np.int64],
) -> list[list[Any]]:
    """True class, claimed class, how often, and the share of the true class: the worst mistakes."""
    wrong = np.flatnonzero(pairs[:, 0] != pairs[:, 1])
    top = wrong[np.argsort(-counts[wrong], kind="stable")][:MOST]
    return [
        [label(names[a]), label(names[b]), int(count), float(count / actual[a])]
        for (a, b), count in zip(pairs[top], counts[top], strict=True)
    ]


def _by_class(
    names: list[str],
    pairs: NDArray[np.int64],
    counts: NDArray[np.int64],
    actual: NDArray[np.int64],
) -> list[list[Any]]:
    """Name, count, recall, precision and F1 of all classes, or of the most frequent ones."""
    claimed = np.bincount(pairs[:, 1], weights=counts, minlength=len(names))
    right = pairs[:, 0] == pairs[:, 1]
    hits = np.bincount(pairs[right, 0], weights=counts[right], minlength=len(names))
    rows = []
    order = np.arange(len(names)) if len(names) <= MOST else np.argsort(-actual, kind="stable")
    for code in order[:MOST]:
        recall = hits[code] / actual[code] if actual[code] else None
        precision = hits[code] / claimed[code] if claimed[code] else None
        both = actual[code] + claimed[code]
        f1 = 2 * hits[code] / both if both else None
        rows.append([label(names[code]), int(actual[code]), recall, precision, f1])
    return rows


def _strip(
    scored: Scored, names: list[str], claimed: Tensor, target: Tensor, sure: Tensor
) -> dict[str, Any]:
    """A typical sequence: the one whose share of right steps is the median."""
    right = torch.where(target == NONE, torch.nan, (claimed == target).double()).numpy()
    seen = np.add.reduceat(np.isfinite(right), scored.first)
    share = np.add.reduceat(np.nan_to_num(right), scored.first) / np.maximum(seen, 1)
    order = np.argsort(np.where(seen > 0, share, np.inf), kind="stable")
    span = int(order[int((seen > 0).sum()) // 2])
    own = np.arange(scored.first[span], scored.first[span] + min(scored.counts[span], STRIP))
    return {
        "key": scored.key(span),
        "share": figures(share[[span]])[0],
        "steps": moments(scored.trained.clock, scored.times(span, scored.step[own])),
        "truth": [label(names[code]) if code != NONE else None for code in target[own].tolist()],
        "claimed": [label(names[code]) for code in claimed[own].tolist()],
        "sure": figures(sure[own].numpy()),
    }


def _mistakes(
    scored: Scored, names: list[str], claimed: Tensor, target: Tensor, sure: Tensor
) -> list[list[Any]]:
    """Sequence, its text where it is one, true class, claimed class and its probability."""
    wrong = np.flatnonzero(((claimed != target) & (target != NONE)).numpy())
    top = wrong[np.argsort(-sure.numpy()[wrong], kind="stable")][:MISTAKES]
    return [
        [
            scored.key(int(span)) or "the sequence",
            *scored.text(int(span)),
            label(names[int(target[span])]),
            label(names[int(claimed[span])]),
            float(sure[span]),
        ]
        for span in top
    ]


def _confusion(picture: dict[str, Any]) -> str:
    matrix = picture["matrix"]
    if matrix is None:
        rows = [[a, b, count, percent(share)] for a, b, count, share in picture["confusions"]]
        note = f"There are {picture['classes']:,} classes: these are the most frequent mistakes."
        header = ["true class", "taken for", "times", "share of the true class"]
        return table(header, rows) + paragraph(note, "note")
    rows = []
    for code, (name, counts) in enumerate(zip(matrix["names"], matrix["counts"], strict=True)):
        total = sum(counts)
        cells: list[Cell] = [Marked(name, "rowhead")]
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            level = "" if not count else f" heat{min(9, int(share * 10))}"
            diagonal = " diagonal" if code == column else ""
            shown = f"{count:,}\n{percent(share, 0)}" if count else "·"
            cells.append(Marked(shown, f"cell{level}{diagonal}"))
        rows.append(cells)
    note = "Rows are what is true, columns what the model says: count and share of the row."
    return table(["true ↓ · said →", *matrix["names"]], rows, "matrix") + paragraph(note, "note")


def _class_table(picture: dict[str, Any]) -> str:
    rows = [
        [name, count, percent(recall), percent(precision), f1]
        for name, count, recall, precision, f1 in picture["by_class"]
    ]
    note = (
        "Recall: the share of the class that is found."
        " Precision: the share of such answers that is right."
    )
    if picture["classes"] > len(rows):
        note += f" The {len(rows)} most frequent of {picture['classes']:,} classes."
    header = ["class", "count", "recall", "precision", "F1"]
    return table(header, rows, "numbers") + paragraph(note, "note")


def _strip_chart(strip: dict[str, Any]) -> str:
    """Two rows of colours, the truth above the answer, and a mark where they differ."""
    texts = [name for name in [*strip["truth"], *strip["claimed"]] if name is not None]
    names = sorted(dict.fromkeys(texts), key=lambda name: -texts.count(name))
    places = list(range(len(strip["steps"])))
    ticks = places[:: max(1, len(places) // 6)]
    layout = {
        "xaxis": {"tickvals": ticks, "ticktext": [str(strip["steps"][t]) for t in ticks]},
        "margin": {"l": 50},
    }
    more = f"<span>and {len(names) - len(COLOURS)} more</span>" if len(names) > len(COLOURS) else ""
    shown = "".join(
        f'<span><i class="swatch" style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(names, COLOURS, strict=False)
    )
    title = f"{strip['key'] or 'the sequence'}: {percent(strip['share'])} of the steps are right"
    note = "A typical sequence; white crosses mark the steps where the model is wrong."
    return (
        f'<p class="legend">{shown}{more}</p>'
        + chart(title, [_strip_rows(strip, names), _strip_mistakes(strip)], layout, 190)
        + paragraph(note, "note")
    )


def _strip_rows(strip: dict[str, Any], names: list[str]) -> Trace:
    colours = [*COLOURS[: len(names)], *[PALE] * (len(names) - len(COLOURS))]
    code = {name: index for index, name in enumerate(names)}
    rows = [strip["claimed"], strip["truth"]]
    # Every colour at the start and at the end of its own stretch: steps instead of a gradient.
    scale = [
        [(index + end) / len(colours), colour]
        for index, colour in enumerate(colours)
        for end in (0, 1)
    ]
    return {
        "type": "heatmap",
        "z": [[None if name is None else code[name] for name in row] for row in rows],
        "x": list(range(len(strip["steps"]))),
        "y": ["model", "truth"],
        "text": [[escape(name or "not observed") for name in row] for row in rows],
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "colorscale": scale,
        "zmin": -0.5,
        "zmax": len(colours) - 0.5,
        "showscale": False,
        "ygap": 4,
    }


def _strip_mistakes(strip: dict[str, Any]) -> Trace:
    pairs = zip(strip["truth"], strip["claimed"], strict=True)
    wrong = [place for place, (a, b) in enumerate(pairs) if a is not None and a != b]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": wrong,
        "y": ["model"] * len(wrong),
        "marker": {"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": "#ffffff"}},
        "hoverinfo": "skip",
    }


def _mistake_table(mistakes: list[list[Any]]) -> str:
    rows = [[*row[:-1], percent(row[-1])] for row in mistakes]
    header = ["sequence", *(["text"] if len(rows[0]) > 4 else [])]
    return table([*header, "true class", "the model said", "with probability"], rows)
