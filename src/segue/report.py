"""Pictures of a run: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue.evaluate import Evaluation
from segue.schema import Declaration
from segue.train import Epoch
from segue.trained import Trained


def digest(trained: Trained, evaluation: Evaluation) -> dict[str, Any]:
    """What the report needs of an evaluation, as plain JSON values."""
    return {"scope": evaluation.scope, "count": evaluation.count}


def html(
    declaration: Declaration,
    facts: Mapping[str, Any],
    history: tuple[Epoch, ...],
    digest: dict[str, Any] | None,
) -> str:
    """The report as one HTML page."""
    return "<html></html>"
