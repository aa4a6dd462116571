"""Bands that hold: the quantiles of a forecast, calibrated on the validation part.

For each step ahead and each quantile of level q but the median, from the n values y that were
observed in the validation part::

    e = (y - y_q) / s                 how far each lies beyond the quantile, in units of the scale
    k = ceil((n + 1) q)  for q > 0.5, floor((n + 1) q) below; at least 1, at most n
    y_q <- y_q + s (the k-th smallest e)

This is split conformal quantile regression (Romano, Patterson and Candes 2019, arXiv:1905.03222),
each tail by itself as in their theorem 2: where n is large enough for k, and validation and future
are exchangeable, a value falls between two quantiles with at least the probability that lies
between their levels. The quantiles of a law move in its levels instead (Chernozhukov, Wuethrich and
Zhu 2021, arXiv:1909.07889)::

    q <- the k-th smallest of u       u = P(Y <= y), and P(Y < y) above the median

Series change with time, and the validation part also chose the epoch, so the promise holds only
about; `coverage` on the test part says how well.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from segue.data.store import Pieces, Store
from segue.errors import SpecError
from segue.sequences import Part
from segue.tasks import Forecast, Future
from segue.tasks.distributions import Quantiles
from segue.trained import Trained

ORIGINS = 4096
"""Steps of the validation part, spread over it, whose forecasts are enough to calibrate on."""

EDGE = 1e-6
"""No level comes nearer to 0 or 1."""


def calibrated(trained: Trained) -> dict[str, Forecast]:
    """The forecasts that are to be calibrated, by name."""
    tasks = trained.tasks.items()
    return {name: task for name, task in tasks if isinstance(task, Forecast) and task.conformal}


def refuse_without(part: Part, trained: Trained) -> None:
    """Refuses to calibrate on nothing.

    Raises:
        SpecError: a forecast is to be calibrated and the validation part has no steps.
    """
    for name in calibrated(trained) if not part.steps else ():
        fix = "give one by data.split.valid, or leave it out"
        raise SpecError(f"outputs.{name}.conformal", "a validation part", "none", fix)


@torch.no_grad()
def calibrate(trained: Trained, store: Store, part: Part) -> None:
    """Move the quantiles of the forecasts that say `conformal`; `part` is the validation part."""
    for name, task in calibrated(trained).items():
        values, output = _said(trained, store, part, name)
        if not len(values):
            continue
        if isinstance(task.distribution, Quantiles):
            shift = trained.network.forecaster(name).calibrated
            # The scale is what a shift by 1 makes.
            shift.fill_(1.0)
            scale = _said(trained, store, part, name)[1] - output
            scores = (values[..., None] - output) / scale
            shift.copy_(_kth(scores, task, nothing=0.0))
            task.shift = shift.tolist()
        else:
            below, upto = task.distribution.reached(output, values)
            levels = [below if level > 0.5 else upto for level in task.quantiles]
            found = _kth(torch.stack(levels, -1), task, nothing=torch.nan)
            task.levels = _in_order(found, task)


def _said(trained: Trained, store: Store, part: Part, name: str) -> tuple[Tensor, Tensor]:
    """Values ``[M, C, S]``, NaN where not observed, and what was said of them ``[M, C, S, P]``."""
    parts = list(_passes(trained, store, part, name))
    if not parts:
        return torch.zeros(0), torch.zeros(0)
    values, output = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(output)


def _passes(
    trained: Trained, store: Store, part: Part, name: str
) -> Iterator[tuple[Tensor, Tensor]]:
    first, stop = trained.origins(part)
    scored = np.flatnonzero(stop > first)
    if not len(scored):
        return
    rows, limit = part.rows[scored], part.stop[scored]
    every = max(1, int((stop - first)[scored].sum()) // ORIGINS)
    for passed in trained.passes(store, rows, first[scored], stop[scored]):
        pieces = Pieces(rows[passed.spans], passed.start, passed.length)
        # By their place in the sequence, however much goes through at once.
        steps = np.arange(int(passed.length.sum()))
        begun = np.repeat(passed.start - np.cumsum(passed.length) + passed.length, passed.length)
        chosen = np.flatnonzero((steps + begun) % every == 0)
        targets = store.targets_at(pieces, chosen, limit[passed.spans], from_start=True)
        target = targets[name]
        assert isinstance(target, Future)
        yield target.values, passed.outputs[name][chosen]


def _kth(scores: Tensor, task: Forecast, *, nothing: float) -> Tensor:
    """The k-th smallest of the scores ``[M, C, S, Q]`` for every step and level, ``[S, Q]``;
    `nothing` for the median, and where nothing was observed.
    """
    # NaN stands behind all numbers.
    ordered = scores.permute(2, 3, 0, 1).flatten(2).sort(-1).values
    count = (~ordered.isnan()).sum(-1)
    found = torch.full(count.shape, nothing, dtype=torch.float64)
    for place, level in enumerate(task.quantiles):
        if level == 0.5:
            continue
        rank = (count[:, place] + 1) * level
        rank = rank.ceil() if level > 0.5 else rank.floor()
        index = torch.minimum(rank.long(), count[:, place]).clamp(min=1) - 1
        own = ordered[:, place].gather(1, index[:, None])[:, 0]
        found[:, place] = torch.where(count[:, place] > 0, own, nothing)
    return found


def _in_order(levels: Tensor, task: Forecast) -> list[list[float]]:
    """Levels that rise, the median in its place; those that nothing was found for as they were."""
    asked = torch.tensor(task.quantiles, dtype=torch.float64)
    found = torch.where(levels.isnan(), asked, levels).clamp(EDGE, 1 - EDGE)
    low, high = found.clamp(max=0.5), found.clamp(min=0.5)
    sides = torch.where(asked < 0.5, low, torch.where(asked > 0.5, high, asked))
    in_order: list[list[float]] = sides.sort(-1).values.tolist()
    return in_order
