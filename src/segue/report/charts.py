"""Charts, tables and legends as HTML. Every text that comes from the user is escaped here.

A chart is an empty box that carries its figure, as plotly's JSON, in an attribute; the script of
the page draws them all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple, TypeAlias

INK, ACCENT, SOFT = "#1d2730", "#0b6e7f", "rgba(11,110,127,0.16)"
"""The colours of the truth, of the model, and of the model's band."""
GREY, PALE = "#8b959e", "#c3cad1"
"""The colours of the naive answers and of what is in the background."""

Trace: TypeAlias = dict[str, Any]


class Marked(NamedTuple):
    """A cell of a table with a class of the style sheet."""

    value: str | float | None
    style: str


Cell: TypeAlias = str | float | None | Marked


def number(value: float | None) -> str:
    """A number with four significant digits for a reader.

    >>> number(0.123456), number(123456.7), number(None)
    ('0.1235', '123,457', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}".replace("e-0", "e-")


def percent(value: float | None, digits: int = 1) -> str:
    """A share for a reader; the blank does not break.

    >>> ascii(percent(0.125))
    "'12.5\\\\xa0%'"
    """
    return "–" if value is None else f"{100 * value:.{digits}f}\u00a0%"


def chart(title: str, traces: Sequence[Trace], layout: dict[str, Any], height: int = 280) -> str:
    """A figure under its title; `height` in pixels."""
    figure = json.dumps({"data": list(traces), "layout": layout}, allow_nan=False)
    caption = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    return (
        f'<figure>{caption}<div class="chart" style="height:{height}px"'
        f' data-figure="{escape(figure)}"></div></figure>'
    )


def axes(x: str, y: str) -> dict[str, Any]:
    """A layout whose axes have these titles."""
    return {"xaxis": {"title": {"text": escape(x)}}, "yaxis": {"title": {"text": escape(y)}}}


def log_axis(title: str, values: Iterable[float | None]) -> dict[str, Any]:
    """A logarithmic axis with round numbers at its ticks."""
    seen = [value for value in values if value]
    low, high = math.log10(min(seen, default=1)), math.log10(max(seen, default=1))
    steps = (1, 2, 5) if high - low < 2 else (1,)
    every = max(1, math.ceil((high - low) / 6))
    powers = range(math.floor(low), math.ceil(high) + 1, every)
    ticks = [step * 10.0**power for power in powers for step in steps]
    texts = [f"{tick:.4g}" for tick in ticks]
    return {"title": {"text": escape(title)}, "type": "log", "tickvals": ticks, "ticktext": texts}


def upright(x: Any) -> dict[str, Any]:
    """A thin line at `x`, such as between the past and the future."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", **ends, "line": {"color": GREY, "width": 1, "dash": "dot"}}


def line(
    x: Sequence[Any],
    y: Sequence[Any],
    name: str,
    colour: str,
    *,
    width: float = 2,
    dash: str = "solid",
    mode: str = "lines",
) -> Trace:
    """A line through the points; None is a gap."""
    return {
        "x": list(x),
        "y": list(y),
        "name": escape(name),
        "mode": mode,
        "type": "scatter",
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": {"color": colour, "size": 5},
    }


def dots(x: Sequence[Any], y: Sequence[Any], name: str, texts: Sequence[str] = ()) -> Trace:
    """A cloud of points, with a text each where they have one."""
    return {
        "x": list(x),
        "y": list(y),
        "name": escape(name),
        "mode": "markers",
        "type": "scatter",
        "marker": {"color": ACCENT, "size": 5, "opacity": 0.45},
        **({"text": [escape(text) for text in texts]} if texts else {}),
    }


def band(x: Sequence[Any], low: Sequence[Any], high: Sequence[Any], name: str) -> list[Trace]:
    """The area between two lines."""
    edge = {"x": list(x), "mode": "lines", "type": "scatter", "line": {"width": 0, "color": SOFT}}
    return [
        {**edge, "y": list(low), "name": f"{escape(name)}, low"},
        {
            **edge,
            "y": list(high),
            "name": f"{escape(name)}, high",
            "fill": "tonexty",
            "fillcolor": SOFT,
        },
    ]


def grid(charts: Iterable[str]) -> str:
    """Charts side by side where there is room."""
    return f'<div class="charts">{"".join(charts)}</div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """What the lines of the charts are: pairs of a style (truth, model, band, naive) and a text."""
    items = "".join(
        f'<span><i class="key {style}"></i>{escape(text)}</span>' for style, text in entries
    )
    return f'<p class="legend">{items}</p>'


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], style: str = "") -> str:
    """A table that scrolls inside its box; texts to the left, numbers to the right."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def bullets(texts: Iterable[str]) -> str:
    """A list of remarks."""
    return '<ul class="note">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def block(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def code(text: str) -> str:
    """Text to copy, with a button for it."""
    return f'<div class="code"><button type="button" class="copy">Copy</button>{block(text)}</div>'


def _cell(cell: Cell) -> str:
    value, style = cell if isinstance(cell, Marked) else (cell, "")
    if isinstance(value, str):
        return f'<td class="{style}">{escape(value)}</td>'
    return f'<td class="num {style}">{number(value)}</td>'
