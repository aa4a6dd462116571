"""Next elements: a stretch of the data, shaded by how much each element surprised the model."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.report.charts import Cell, chart, paragraph, table
from segue.report.plain import figures, label
from segue.report.scored import Scored
from segue.tasks.next_element import NextElement, surprises

EXCERPT = 700
"""Elements of the excerpt."""
ROLL = 96
"""Steps of the piano roll, and `KEYS` its elements."""
KEYS = 100
DARKEST = 6.0
"""Nats of surprise that are shaded darkest."""
HARDEST = 12


def gather(scored: Scored) -> dict[str, Any]:
    """What the pictures of a next element need."""
    task, target = scored.task, scored.target
    assert isinstance(task, NextElement) and isinstance(target, Tensor)
    if task.many:
        return {"roll": _roll(scored, task, target), "excerpt": None}
    loss = surprises(scored.output, target)
    return {
        "roll": None,
        "excerpt": _excerpt(scored, task, loss.numpy()),
        "hardest": _hardest(scored, task, target, loss),
    }


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    if picture["roll"] is not None:
        return "<h3>What it expects, and what comes</h3>" + _roll_chart(picture["roll"])
    rows: list[list[Cell]] = [
        [_visible(name), count, nats, "" if guess is None else _visible(guess)]
        for name, count, nats, guess in picture["hardest"]
    ]
    header = ["element", "times", "mean surprise (nats)", "most often taken for"]
    return (
        "<h3>Surprise, element by element</h3>"
        + _excerpt_text(picture["excerpt"])
        + "<h3>Where the loss comes from</h3>"
        + table(header, rows)
        + paragraph("The elements with the largest share of the whole loss.", "note")
    )


def _window(scored: Scored, loss: NDArray[np.float64], size: int) -> slice:
    """The `size` answers, counted from a span's start, whose loss is nearest to the mean."""
    starts = []
    for span in range(scored.part.count):
        own = scored.of_span(span)
        starts += list(range(own.start, max(own.start + 1, own.stop - size), size))[:200]
        if len(starts) > 2000:
            break
    means = [_mean(loss[start : start + size]) for start in starts]
    away = np.abs(np.array(means) - _mean(loss))
    best = starts[int(np.argmin(np.where(np.isnan(away), np.inf, away)))]
    return slice(best, min(best + size, len(loss)))


def _excerpt(scored: Scored, task: NextElement, loss: NDArray[np.float64]) -> dict[str, Any]:
    """Elements and how much each surprised the model: None where it was not predicted."""
    window = _window(scored, loss, EXCERPT)
    values = scored.sequences.steps[task.columns[0]]
    # "Unknown" is no answer to show: the guess is the likeliest among the known elements.
    guesses = scored.output[window][:, 1:].argmax(1).tolist()
    elements: list[list[Any]] = []
    for answer, guess in zip(range(window.start, window.stop), guesses, strict=True):
        span, step = int(scored.owner[answer]), int(scored.step[answer])
        place = int(scored.sequences.offsets[scored.part.rows[span]]) + step
        if answer == window.start or scored.owner[answer - 1] != span:
            elements.append([None if answer == window.start else "\n", None, None])
            elements.append([label(values[place]), None, None])
        if np.isfinite(loss[answer]):
            surprise = figures(loss[[answer]])[0]
            elements.append(
                [label(values[place + 1]), surprise, label(task.vocabulary.names[guess])]
            )
    characters = all(len(name) == 1 for name in task.vocabulary.names)
    return {"elements": elements[1:], "characters": characters}


def _hardest(scored: Scored, task: NextElement, target: Tensor, loss: Tensor) -> list[list[Any]]:
    """What adds most to the loss: element, how often, mean surprise, most often taken for."""
    seen, size = target >= 0, len(task.vocabulary)
    element = target[seen]
    counts = torch.bincount(element, minlength=size)
    total = torch.bincount(element, weights=loss[seen], minlength=size)
    guess = scored.output[seen][:, 1:].argmax(1) + 1
    rows = []
    for code in total.argsort(descending=True)[:HARDEST].tolist():
        missed = guess[(element == code) & (guess != code)]
        if not counts[code]:
            continue
        taken = label(task.vocabulary.names[int(missed.mode().values) - 1]) if len(missed) else None
        name = label(task.vocabulary.names[code - 1]) if code else None
        rows.append([name, int(counts[code]), float(total[code] / counts[code]), taken])
    return rows


def _roll(scored: Scored, task: NextElement, target: Tensor) -> dict[str, Any]:
    """Elements by steps: the probability given to each, and whether it came."""
    expected = torch.sigmoid(scored.output.double())
    loss = nn.functional.binary_cross_entropy_with_logits(
        scored.output.double(), target.double(), reduction="none"
    )
    window = _window(scored, loss.sum(1).numpy(), ROLL)
    own = np.arange(window.start, window.stop)
    own = own[(scored.owner[own] == scored.owner[own[0]]) & ~target[own, 0].isnan().numpy()]
    shares, came = expected[own].numpy(), target[own].numpy() > 0
    used = np.argsort(-shares.max(0, initial=0) - came.any(0), kind="stable")[:KEYS]
    used = used[(shares[:, used].max(0, initial=0) > 0.02) | came[:, used].any(0)]
    names = [task.vocabulary.names[index] for index in used]
    order = sorted(range(len(names)), key=lambda index: _natural(names[index]))
    return {
        "key": scored.key(int(scored.owner[own[0]])) if len(own) else None,
        "names": [label(names[index]) for index in order],
        "steps": (scored.step[own] + 1).tolist(),
        "shares": [figures(np.round(shares[:, used[index]], 3)) for index in order],
        "came": [np.flatnonzero(came[:, used[index]]).tolist() for index in order],
    }


def _excerpt_text(excerpt: dict[str, Any]) -> str:
    """The elements as text on shades of the accent colour."""
    gap = "" if excerpt["characters"] else " "
    shown = []
    for name, surprise, guess in excerpt["elements"]:
        if surprise is None:
            shown.append(escape(name) + gap)
            continue
        level = min(9, int(10 * surprise / DARKEST))
        tip = escape(f"{surprise:.2f} nats; expected {_visible(guess)}")
        text = "↵\n" if name == "\n" and level else escape(name)
        shown.append(f'<i class="heat{level}" title="{tip}">{text}</i>{gap}')
    scale = "".join(f'<i class="heat{level}">&nbsp;</i>' for level in range(10))
    note = (
        f'<p class="note">Surprise: {scale} from 0 to {DARKEST:g} nats and more. Each element was'
        " predicted from all that comes before it; point at one to see what was expected.</p>"
    )
    return f'<div class="excerpt">{"".join(shown)}</div>{note}'


def _roll_chart(roll: dict[str, Any]) -> str:
    height = min(620, max(220, 110 + 11 * len(roll["names"])))
    rows = range(len(roll["names"]))
    every = max(1, len(roll["names"]) // 24)
    came = [(roll["steps"][place], row) for row in rows for place in roll["came"][row]]
    traces = [
        {
            "type": "heatmap",
            "x": roll["steps"],
            "y": list(rows),
            "z": roll["shares"],
            "zmin": 0,
            "zmax": 1,
            "colorscale": [[0, "#ffffff"], [0.5, "#7fb9c2"], [1, "#0b6e7f"]],
            "showscale": False,
            "hovertemplate": "step %{x}: %{z:.0%}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [step for step, _ in came],
            "y": [row for _, row in came],
            "marker": {"symbol": "circle", "size": 4.5, "color": "#1d2730"},
            "hoverinfo": "skip",
        },
    ]
    ticks = {
        "tickvals": list(rows)[::every],
        "ticktext": [escape(n) for n in roll["names"][::every]],
    }
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": {**ticks, "showgrid": False}}
    note = (
        "The shade is the probability given to each element before the step, from white (0\u00a0%)"
        " to dark (100\u00a0%); a dot is an element that came."
    )
    return chart(roll["key"] or "", traces, layout, height) + paragraph(note, "note")


def _natural(name: str) -> tuple[float, str]:
    """Numbers by size, before words by letter."""
    digits = name.removeprefix("-").replace(".", "", 1)
    return (float(name) if digits.isascii() and digits.isdigit() else float("inf"), name)


def _visible(name: str | None) -> str:
    """An element as a reader can see it."""
    if name is None:
        return "anything unknown"
    return {" ": "␣ (blank)", "\n": "↵ (new line)", "\t": "⇥ (tab)"}.get(name, name)


def _mean(values: NDArray[np.float64]) -> float:
    seen = values[np.isfinite(values)]
    return float(seen.mean()) if len(seen) else float("nan")
