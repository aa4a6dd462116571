"""Forecasts: some of them against what came, and how the error grows with the horizon."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.report.charts import (
    ACCENT,
    GREY,
    INK,
    Marked,
    Trace,
    axes,
    band,
    chart,
    dots,
    grid,
    legend,
    line,
    log_axis,
    paragraph,
    percent,
    table,
    upright,
)
from segue.report.plain import figures, label, mean, moments, thin
from segue.report.scored import Scored
from segue.tasks import Forecast, Future
from segue.tasks.forecast import filled, naive_forecasts

POINTS = 400
"""Steps that a line has at most."""
SERIES = 1000
"""Dots that a cloud of series has at most."""
FEW = 8
"""Below so many steps a line shows its points."""
COLUMNS = 40
"""Rows that a table of columns has at most."""

Values = NDArray[np.float64]


def gather(scored: Scored) -> dict[str, Any]:
    """What the pictures of a forecast need.

    Errors are absolute, in units of the naive change of each series over a season, so that series
    can be compared.
    """
    task, target = scored.task, scored.target
    assert isinstance(task, Forecast) and isinstance(target, Future)
    output = task.values(scored.output).double().numpy()
    truth, unit = target.values.numpy(), target.naive.numpy()[:, :, None]
    point, naive = output[..., task.middle], best_naive(scored, task)
    ours, theirs = np.abs(truth - point) / unit, np.abs(truth - naive) / unit
    by_pair, naive_by_pair = _by_pair(scored, ours), _by_pair(scored, theirs)
    alone = by_pair.size == 1
    ahead = thin(task.horizon, POINTS)
    inside = np.where(
        np.isnan(truth), np.nan, (truth >= output[..., 0]) & (truth <= output[..., -1])
    )
    per_step = unit if alone else 1.0
    return {
        "columns": [label(column) for column in task.columns[:COLUMNS]],
        "season": task.season,
        "naive": scored.score.best_baseline,
        "share": task.nominal if task.has_band else None,
        "panels": [
            _panel(scored, task, output, naive, place) for place in _chosen(scored, by_pair, truth)
        ],
        "by_step": {
            "unit": label(task.columns[0]) if alone else None,
            "ahead": (ahead + 1).tolist(),
            "model": figures(mean(ours * per_step, (0, 1))[ahead]),
            "naive": figures(mean(theirs * per_step, (0, 1))[ahead]),
            "inside": figures(mean(inside, (0, 1))[ahead]) if task.has_band else None,
        },
        "by_column": [
            [
                label(column),
                *figures(np.array([mean(ours[:, c], (0, 1)), mean(theirs[:, c], (0, 1))])),
            ]
            for c, column in enumerate(task.columns[:COLUMNS])
        ],
        "series": _series(scored, task, by_pair, naive_by_pair),
    }


def best_naive(scored: Scored, task: Forecast) -> Values:
    """The forecasts ``[M, C, S]`` of the best naive answer, from the same origins."""
    found = []
    for span, row in enumerate(scored.part.rows):
        first = scored.sequences.offsets[row]
        columns = [
            column[first : first + scored.part.stop[span]]
            for column in task.series(scored.sequences)
        ]
        past = np.stack([filled(column) for column in columns])
        origins = scored.step[scored.of_span(span)]
        answers = naive_forecasts(past, origins, task.horizon, task.season)
        found.append(answers[scored.score.best_baseline].transpose(1, 0, 2))
    return np.concatenate(found)


def draw(picture: dict[str, Any]) -> str:
    """The HTML of what `gather` gave."""
    if not picture["panels"]:
        return paragraph("Nothing was observed in the scored part.")
    naive, by_step, share = picture["naive"], picture["by_step"], picture["share"]
    charts = [_errors(by_step, naive)]
    if by_step["inside"] is not None:
        charts.append(_coverage(by_step, share))
    if picture["series"] is not None:
        charts.append(_cloud(picture["series"], naive))
    return (
        _examples(picture["panels"], naive, share)
        + "<h3>How far off, how far ahead</h3>"
        + legend([("model", "model"), ("naive", naive)])
        + grid(charts)
        + _columns(picture)
    )


def _by_pair(scored: Scored, errors: Values) -> Values:
    """The mean error of each span and column, ``[P, C]``, NaN where nothing was observed."""
    seen = np.isfinite(errors)
    total = np.add.reduceat(np.where(seen, errors, 0.0).sum(2), scored.first, axis=0)
    count = np.add.reduceat(seen.sum(2), scored.first, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _chosen(scored: Scored, by_pair: Values, truth: Values) -> list[tuple[int, int, int, str]]:
    """Origins spread over the typical, worst and best series: (answer, span, column, why)."""
    flat = by_pair.reshape(-1)
    order = np.argsort(flat)[: int(np.isfinite(flat).sum())]
    if not len(order):
        return []
    picks = {int(order[len(order) // 2]): "typical", int(order[-1]): "worst", int(order[0]): "best"}
    if len(order) < 3:
        picks = {int(one): "" for one in order}
    chosen = []
    for pair, why in picks.items():
        span, column = divmod(pair, by_pair.shape[1])
        own = np.arange(scored.first[span], scored.first[span] + scored.counts[span])
        seen = own[np.isfinite(truth[own, column]).any(1)]
        share = (np.arange(4) + 0.5) / 4 if len(order) == 1 else (np.arange(2) + 0.5) / 2
        places = np.unique(np.floor(share * len(seen)).astype(int))
        chosen += [(int(seen[place]), span, column, why) for place in places]
    return chosen


def _panel(
    scored: Scored,
    task: Forecast,
    output: Values,
    naive: Values,
    place: tuple[int, int, int, str],
) -> dict[str, Any]:
    """One origin: the past that leads to it, and what was forecast beside what came."""
    answer, span, column, why = place
    origin = int(scored.step[answer])
    history = min(origin + 1, max(2 * task.horizon, min(task.season, 4 * task.horizon), 8))
    past = origin - history + 1 + thin(history, POINTS)
    ahead = thin(task.horizon, POINTS)
    first = scored.sequences.offsets[scored.part.rows[span]]
    values = task.series(scored.sequences)[column][first:]
    made = output[answer, column]
    clock = scored.trained.clock
    key = scored.key(span)
    names = [key] if key is not None else []
    names += [label(task.columns[column])] if len(task.columns) > 1 or key is None else []
    return {
        "name": " · ".join(names),
        "why": why,
        "column": label(task.columns[column]),
        "origin": moments(clock, scored.times(span, np.array([origin])))[0],
        "past": {"t": moments(clock, scored.times(span, past)), "y": figures(values[past])},
        "t": moments(clock, scored.times(span, origin + 1 + ahead)),
        "truth": figures(values[origin + 1 + ahead]),
        "point": figures(made[ahead, task.middle]),
        "low": figures(made[ahead, 0]) if task.has_band else None,
        "high": figures(made[ahead, -1]) if task.has_band else None,
        "naive": figures(naive[answer, column][ahead]),
    }


def _series(scored: Scored, task: Forecast, ours: Values, theirs: Values) -> dict[str, Any] | None:
    """The errors of every series, for at least five of them."""
    both = np.isfinite(ours) & np.isfinite(theirs)
    if both.sum() < 5 or scored.part.count == 1:
        return None
    spans, columns = np.nonzero(both)
    kept = thin(len(spans), SERIES)
    names = [
        " · ".join(
            filter(None, [scored.key(int(s)), label(task.columns[c]) if ours.shape[1] > 1 else ""])
        )
        for s, c in zip(spans[kept], columns[kept], strict=True)
    ]
    return {
        "count": int(both.sum()),
        "better": int((ours[both] < theirs[both]).sum()),
        "names": names,
        "model": figures(ours[both][kept]),
        "naive": figures(theirs[both][kept]),
    }


def _examples(panels: list[dict[str, Any]], naive: str, share: float | None) -> str:
    note = (
        "Made from the past alone, from origins spread over the scored part; the dashed line is the"
        " best naive forecast."
    )
    entries = [("truth", "what came"), ("model", "forecast")]
    if share is not None:
        entries.append(("band", f"where {percent(share, 0)} of the values should fall"))
    return (
        "<h3>Forecasts and what came</h3>"
        + paragraph(note, "note")
        + legend([*entries, ("naive", naive)])
        + grid(_panel_chart(panel, naive) for panel in panels)
    )


def _panel_chart(panel: dict[str, Any], naive: str) -> str:
    past, t = panel["past"], panel["t"]
    # The lines of the future start at the last known value, so that the eye can follow.
    now_t, now = past["t"][-1:], past["y"][-1:]
    traces: list[Trace] = []
    if panel["low"] is not None:
        traces += band(now_t + t, now + panel["low"], now + panel["high"], "band")
    traces += [
        line(now_t + t, now + panel["naive"], naive, GREY, width=1.5, dash="dash"),
        line(past["t"], past["y"], "past", INK, width=1.6),
        line(now_t + t, now + panel["truth"], "what came", INK, width=1.6),
        line(now_t + t, now + panel["point"], "forecast", ACCENT, width=2.4),
    ]
    layout = axes("", panel["column"]) | {"shapes": [upright(panel["origin"])]}
    why = f" ({panel['why']})" if panel["why"] else ""
    return chart(f"{panel['name']}{why}, from {panel['origin']}", traces, layout, 270)


def _errors(by_step: dict[str, Any], naive: str) -> str:
    ahead, unit = by_step["ahead"], by_step["unit"]
    mode = _mode(ahead)
    traces = [
        line(ahead, by_step["naive"], naive, GREY, dash="dash", mode=mode),
        line(ahead, by_step["model"], "model", ACCENT, mode=mode),
    ]
    error = f"mean absolute error ({unit})" if unit else "error, in units of the naive change"
    layout = _by_steps_ahead(ahead, error)
    layout["yaxis"]["rangemode"] = "tozero"
    return chart("Error by steps ahead", traces, layout)


def _coverage(by_step: dict[str, Any], share: float) -> str:
    ahead, mode = by_step["ahead"], _mode(by_step["ahead"])
    traces = [
        line(ahead, [share] * len(ahead), "asked", GREY, dash="dash", mode=mode),
        line(ahead, by_step["inside"], "inside the band", ACCENT, mode=mode),
    ]
    layout = _by_steps_ahead(ahead, "share of values inside the band")
    layout["yaxis"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    return chart(f"Inside the band ({percent(share, 0)} asked)", traces, layout)


def _by_steps_ahead(ahead: list[int], y: str) -> dict[str, Any]:
    layout = axes("steps ahead", y)
    if ahead[-1] < FEW:
        layout["xaxis"] |= {"tick0": 1, "dtick": 1}
    return layout


def _cloud(series: dict[str, Any], naive: str) -> str:
    seen = [value for value in [*series["model"], *series["naive"]] if value]
    ends = [min(seen, default=0.1), max(seen, default=1.0)]
    traces = [
        line(ends, ends, "equal", GREY, width=1.2, dash="dash"),
        dots(series["naive"], series["model"], "series", series["names"]),
    ]
    layout = {
        "xaxis": log_axis(f"error of {naive}", seen),
        "yaxis": log_axis("error of the model", seen),
    }
    title = f"Every series: better below the line ({series['better']:,} of {series['count']:,})"
    return chart(title, traces, layout)


def _columns(picture: dict[str, Any]) -> str:
    if len(picture["by_column"]) < 2:
        return ""
    rows = []
    for name, ours, theirs in picture["by_column"]:
        better = ours is not None and theirs is not None and ours < theirs
        rows.append([name, Marked(ours, "best" if better else ""), theirs])
    header = ["column", "error of the model", f"error of {picture['naive']}"]
    note = "Mean absolute error, in units of the naive change over a season in the training rows."
    return "<h3>By column</h3>" + table(header, rows) + paragraph(note, "note")


def _mode(steps: list[Any]) -> str:
    return "lines+markers" if len(steps) < FEW else "lines"
