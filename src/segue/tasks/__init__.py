"""Tasks, one file each; `TASKS` is the catalogue: a new task is one file and one row here."""

from __future__ import annotations

from segue.tasks.anomaly import Anomaly
from segue.tasks.classify import Classify
from segue.tasks.forecast import Forecast, Future
from segue.tasks.next_element import NextElement
from segue.tasks.next_frame import NextFrame
from segue.tasks.regress import Regress
from segue.tasks.summarise import Summarise
from segue.tasks.tag import Tag
from segue.tasks.task import Metrics, Task, Whole
from segue.tasks.transcribe import Transcribe
from segue.tasks.translate import Translate

TASKS: dict[str, type[Task]] = {
    "forecast": Forecast,
    "classify": Classify,
    "regress": Regress,
    "tag": Tag,
    "next": NextElement,
    "transcribe": Transcribe,
    "anomaly": Anomaly,
    "translate": Translate,
    "summarise": Summarise,
    "next_frame": NextFrame,
}
"""Every task by its name in the declaration."""

__all__ = [
    "TASKS",
    "Forecast",
    "Future",
    "Metrics",
    "NextFrame",
    "Task",
    "Transcribe",
    "Whole",
]
