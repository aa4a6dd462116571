"""`digest`: what the report needs of a model and its evaluation, kept in the run folder."""

from __future__ import annotations

from typing import Any

from segue.evaluate import Evaluation, Score
from segue.report import calls
from segue.report.pictures import PICTURES
from segue.report.plain import label, plain
from segue.report.scored import Scored
from segue.trained import Trained

OUTPUTS = 6
"""Outputs with pictures; all have scores."""
INPUTS = 200
"""Inputs in the summary."""


def digest(trained: Trained, evaluation: Evaluation | None) -> dict[str, Any]:
    """What the report needs, as plain JSON values without NaN; below 1 MB however large the data.

    Without an evaluation there are no scores and no pictures of answers.
    """
    inputs = [
        {
            "name": label(name),
            "kind": trained.declaration.inputs[name].kind,
            "role": trained.declaration.inputs[name].role,
            "columns": len(field.columns),
            "learnt": field.describe(),
        }
        for name, field in list(trained.fields.items())[:INPUTS]
    ]
    found: dict[str, Any] = {"inputs": inputs, "call": calls.gather(trained, evaluation)}
    if evaluation is not None:
        scored = [Scored(trained, evaluation, name) for name in list(evaluation.scores)[:OUTPUTS]]
        found |= {
            "scope": evaluation.scope,
            "count": evaluation.count,
            "scores": {name: _score(score) for name, score in evaluation.scores.items()},
            "pictures": {
                one.name: PICTURES[one.score.task].gather(one)
                for one in scored
                if one.score.task in PICTURES
            },
        }
    return dict(plain(found))


def _score(score: Score) -> dict[str, Any]:
    return {
        "task": score.task,
        "main": score.main,
        "lower_is_better": score.lower_is_better,
        "best": score.best_baseline if score.baselines else None,
        "answers": {"model": score.metrics, **score.baselines},
    }
