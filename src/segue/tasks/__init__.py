"""Tasks, one file each; `TASKS` is the catalogue: a new task is one file and one row here."""

from __future__ import annotations

from segue.tasks.classify import Classify
from segue.tasks.forecast import Forecast, Future
from segue.tasks.next_element import NextElement
from segue.tasks.next_frame import NextFrame
from segue.tasks.regress import Regress
from segue.tasks.tag import Tag
from segue.tasks.task import Metrics, Task, Whole

TASKS: dict[str, type[Task]] = {
    "forecast": Forecast,
    "classify": Classify,
    "regress": Regress,
    "tag": Tag,
    "next": NextElement,
    "next_frame": NextFrame,
}
"""Every task by its name in the declaration."""

__all__ = ["TASKS", "Forecast", "Future", "Metrics", "NextFrame", "Task", "Whole"]
