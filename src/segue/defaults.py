"""What a declaration leaves open, inferred from the training part: seasons, sizes, training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.clock import Clock
from segue.data.build import tasks_of
from segue.errors import SpecError
from segue.fields.number import numbers
from segue.schema import Declaration, Model, Output
from segue.sequences import Sequences
from segue.tasks import TASKS

UPDATES = 600
"""Steps of the optimiser that a training aims at where the number of epochs is not said; half of it
for fewer than 100 sequences, which would be learnt by heart, and at least 10 epochs for more than
2,000.
"""

MANY = 500_000
"""Training steps from which the cell is an lstm where none is said: on a CPU, torch trains it
several times faster than a gru, which learns a little better from few sequences.
"""


def completed(declaration: Declaration, train: Sequences, clock: Clock) -> Declaration:
    """The declaration with nothing left open, from the training part and its clock.

    Raises:
        SpecError: settings that do not go together.
    """
    _refuse_truncate(declaration)
    _refuse_cuts(declaration)
    if not _forecasts(declaration):
        sizes: dict[str, Any] = {"hidden": 128, "dropout": 0.2}
        if isinstance(declaration.model.layers, int):
            sizes["cell"] = "gru" if train.total < MANY else "lstm"
        declaration = _filled(declaration, "model", sizes)
        return _filled(declaration, "training", _ordinary_training(declaration, train))
    outputs = {
        name: _with_season(spec, name, declaration, train, clock)
        for name, spec in declaration.outputs.items()
    }
    declaration = declaration.model_copy(update={"outputs": outputs})
    season = max(int(getattr(spec, "season", 1)) for spec in outputs.values())
    sizes = _forecast_sizes(declaration.model.segment, season, int(train.lengths.max()))
    if not isinstance(declaration.model.layers, int):
        del sizes["cell"]
    declaration = _filled(declaration, "model", sizes)
    _refuse_short_lookback(declaration.model)
    return _filled(declaration, "training", _forecast_training(declaration, train))


def _forecasts(declaration: Declaration) -> bool:
    return any(spec.task == "forecast" for spec in declaration.outputs.values())


def _refuse_truncate(declaration: Declaration) -> None:
    """Truncated back-propagation needs a state that goes on from window to window."""
    truncate = declaration.training.truncate
    if truncate is None:
        return
    if _forecasts(declaration):
        fix = "set training.window, the steps that a forecast learns from at once"
        raise SpecError("training.truncate", "nothing with a forecast", str(truncate), fix)
    if declaration.model.bidirectional:
        expected, fix = "nothing with model.bidirectional: true", "set training.window instead"
        raise SpecError("training.truncate", expected, str(truncate), fix)


def _wholes(declaration: Declaration) -> list[str]:
    """The outputs that belong to whole sequences, which are never cut."""
    return [name for name, spec in declaration.outputs.items() if TASKS[spec.task].whole]


def _refuse_cuts(declaration: Declaration) -> None:
    for option in ("truncate", "window"):
        said = getattr(declaration.training, option)
        for name in _wholes(declaration):
            if said is not None:
                expected = f"nothing with task {declaration.outputs[name].task}"
                fix = "leave it out: whole sequences are learnt"
                raise SpecError(f"training.{option}", expected, str(said), fix)


def _refuse_short_lookback(model: Model) -> None:
    least = (model.segment or 1) + 1
    if (model.lookback or 0) < least:
        expected = f"at least {least}, one more than model.segment"
        raise SpecError("model.lookback", expected, str(model.lookback), "lengthen it")


def _filled(declaration: Declaration, section: str, values: dict[str, Any]) -> Declaration:
    """The declaration with the open values of a section filled in; what is said stays."""
    said = getattr(declaration, section)
    still_open = {name: value for name, value in values.items() if getattr(said, name) is None}
    return declaration.model_copy(update={section: said.model_copy(update=still_open)})


def _ordinary_training(declaration: Declaration, train: Sequences) -> dict[str, Any]:
    """Whole sequences, or windows of a few long ones, with the state carried through each."""
    said = declaration.training
    window, truncate = said.window, said.truncate
    every = not _wholes(declaration) and all(
        getattr(spec, "at", "every") == "every" and spec.task != "classify"
        for spec in declaration.outputs.values()
    )
    longest, total = int(train.lengths.max(initial=1)), train.total
    if window is None and every and longest > 4096:
        # Long sequences become about 32 streams side by side, each read window by window.
        window = max(256, -(-total // 31))
    causal = not declaration.model.bidirectional
    if truncate is None and (window or longest) > 1024 and every and causal:
        truncate = 64
    # Windows start elsewhere in every epoch, which makes one more of each long sequence.
    cut = np.ceil(train.lengths / window) + (train.lengths > window) if window else train.lengths
    pieces = int(cut.sum()) if window else train.count
    batch = said.batch
    if batch is None:
        batch = -(-pieces // max(1, round(pieces / 32))) if window else 16 if pieces < 2000 else 64
    size = pieces if batch == "all" else int(batch)
    updates = -(-pieces // size) * (-(-(window or longest) // truncate) if truncate else 1)
    aim = UPDATES // 2 if pieces < 100 and window is None else UPDATES
    epochs = max(10 if pieces > 2000 else 4, -(-aim // updates))
    hidden = declaration.model.hidden or 128
    return {
        "window": window,
        "truncate": truncate,
        "batch": batch,
        "epochs": epochs,
        "learning_rate": 5e-3 if hidden <= 128 else 3e-3,
    }


def _forecast_sizes(said: int | None, season: int, longest: int) -> dict[str, Any]:
    """A segment is the largest part of a season up to 24 steps; the look-back is two long seasons
    or seven short ones, but a quarter of the longest sequence at most.
    """
    # A short series needs several segments, of which the last has nothing after it to learn from.
    most = min(season, 24, max(1, longest // 4))
    segment = said or max(size for size in range(1, most + 1) if season % size == 0)
    lookback = 2 * season if season > 24 else 7 * max(season, 4)
    return {
        "segment": segment,
        "lookback": max(segment + 1, min(lookback, longest // 4)),
        "hidden": 64,
        "cell": "lstm",
        "dropout": 0.1,
    }


def _forecast_training(declaration: Declaration, train: Sequences) -> dict[str, Any]:
    said, segment = declaration.training, declaration.model.segment or 1
    columns = sum(
        len(task.columns)
        for task in tasks_of(declaration, train.steps.columns, train.origin).values()
    )
    window = said.window or 20 * segment
    pieces = int(np.ceil(train.lengths / window).sum())
    batch = said.batch if said.batch is not None else max(1, 32 // columns)
    size = pieces if batch == "all" else int(batch)
    # Twice for every thousand windows: many series have more to teach than one.
    aim = UPDATES * (1 + pieces // 500)
    return {
        "window": window,
        "batch": batch,
        "epochs": max(4, min(300, -(-aim // -(-pieces // size)))),
        "learning_rate": 2e-3,
    }


def _with_season(
    spec: Output, name: str, declaration: Declaration, train: Sequences, clock: Clock
) -> Output:
    if getattr(spec, "season", None) is not None:
        return spec
    season = clock.season
    if season is None:
        column = tasks_of(declaration, train.steps.columns, train.origin)[name].columns[0]
        season = season_of(train, column)
    return spec.model_copy(update={"season": season})


def season_of(sequences: Sequences, column: str, most: int = 20) -> int:
    """The season of series without a calendar: the lag at which their changes resemble themselves
    most.

    It is the first lag from 2 to 400 at which the autocorrelation of the first differences,
    averaged over the `most` longest series, has a peak above 0.3 that is within a tenth of the
    highest; 1 where there is none.
    """
    chosen = np.argsort(-sequences.lengths, kind="stable")[:most]
    values = numbers(sequences.steps[column], sequences.origin)
    lags = min(400, int(sequences.lengths[chosen[0]]) // 3)
    if lags < 4:
        return 1
    found = [
        _autocorrelation(values[sequences.offsets[r] : sequences.offsets[r + 1]], lags)
        for r in chosen
    ]
    mean = np.mean([one for one in found if one is not None] or [np.zeros(lags + 1)], axis=0)
    peaks = [
        lag
        for lag in range(2, lags)
        if mean[lag] > 0.3 and mean[lag - 1] < mean[lag] >= mean[lag + 1]
    ]
    highest = max((mean[lag] for lag in peaks), default=0.0)
    return next((lag for lag in peaks if mean[lag] >= 0.9 * highest), 1)


def _autocorrelation(values: NDArray[np.float64], lags: int) -> NDArray[np.float64] | None:
    change = np.diff(values[np.isfinite(values)])
    if len(change) <= 2 * lags or not change.std() > 0:
        return None
    change = (change - change.mean()) / change.std()
    return np.array(
        [1.0] + [float((change[lag:] * change[:-lag]).mean()) for lag in range(1, lags + 1)]
    )
