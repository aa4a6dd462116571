"""The pictures of the tasks that have some: a row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from segue.report import anomalies, classes, elements, forecasts, numbers, texts, transcripts
from segue.report.scored import Scored


class Picture(NamedTuple):
    """`gather` takes what is needed out of an evaluation, as plain values; `draw` shows it."""

    gather: Callable[[Scored], dict[str, Any]]
    draw: Callable[[dict[str, Any]], str]


PICTURES: dict[str, Picture] = {
    "forecast": Picture(forecasts.gather, forecasts.draw),
    "classify": Picture(classes.gather, classes.draw),
    "regress": Picture(numbers.gather, numbers.draw),
    "tag": Picture(classes.gather, classes.draw),
    "next": Picture(elements.gather, elements.draw),
    "transcribe": Picture(transcripts.gather, transcripts.draw),
    "anomaly": Picture(anomalies.gather, anomalies.draw),
    "translate": Picture(texts.gather, texts.draw),
    "summarise": Picture(texts.gather, texts.draw),
}
"""By the name of the task in the declaration."""
