"""How surprising every step is, given the past: anomalies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import StrictStr, model_validator
from torch import Tensor, nn

from segue.errors import DataError, SpecError
from segue.fields import Field
from segue.fields.category import Category
from segue.fields.field import Values
from segue.fields.number import Number, moments, numbers, plain_numbers, scale_of
from segue.fields.text import Text
from segue.fields.vocabulary import Vocabulary
from segue.schema import AboveZero, Output, Positive, real
from segue.sequences import Part, Sequences
from segue.tasks import nab, windowed_gaussian
from segue.tasks.ranking import roc_auc
from segue.tasks.recent import Recent
from segue.tasks.surprise import ElementSurprise, NumberSurprise
from segue.tasks.task import Metrics, Task

Quantile = Annotated[float, real("a number above 0 and below 1", lambda q: 0 < q < 1)]

TAIL, FEW = 0.1, 10
"""A threshold with fewer than so many training scores above it is taken from an exponential tail,
fitted to this share of the highest."""


class Anomaly(Task):
    """At every step ``-log p(x_t | past)``, its surprise, and how far out of the usual that is (or
    the error), its score; see `segue.tasks.surprise` and `segue.tasks.recent`.

    Numbers: one or many columns, each with a mean and a scale of its own, in units of the training
    rows. Elements: one column of names or characters. The loss is the surprise; a first step has
    nothing before it, and counts neither in loss nor in scores. A step is an anomaly where its
    score reaches the threshold: the `quantile` of the scores of the training rows.

    Metrics: nll, the mean surprise in nats; where there are labels, of the scores: roc_auc, f1 and
    the alarms at the threshold, and nab (see `segue.tasks.nab`, windows being runs of labelled
    steps). Baseline: of numbers the windowed Gaussian (`segue.tasks.windowed_gaussian`), of
    elements how often each occurs in the training rows; with a threshold of its own, learnt
    likewise.
    """

    title = "Finding anomalies in {name}"
    every = True
    several = True
    reads_series = True
    calibrates_on = "train"

    class Spec(Output):
        """Options of task `anomaly`."""

        reads_itself: ClassVar[bool] = True
        is_input: ClassVar[bool] = True
        distribution: Literal["gaussian", "laplace", "student"] = "laplace"
        spread: Literal["learnt", "constant"] = "learnt"
        score: Literal["surprise", "error"] = "surprise"
        smooth: Positive = 1
        window: Positive | Literal["none"] = 10_000
        hold: Positive = 1
        quantile: Quantile = 0.999
        false_alarms: AboveZero | None = None
        labels: StrictStr | None = None

        @model_validator(mode="after")
        def _one_way_to_a_threshold(self) -> Anomaly.Spec:
            if self.false_alarms is not None and "quantile" in self.model_fields_set:
                raise ValueError("`quantile` or `false_alarms`, not both")
            return self

        @property
        def beside(self) -> tuple[str, ...]:
            return () if self.labels is None else (self.labels,)

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self._spec = spec
        self.main = "nll" if spec.labels is None else "roc_auc"
        self.lower_is_better = spec.labels is None
        rate = spec.false_alarms
        self._quantile = spec.quantile if rate is None else 1 - min(rate, 999.0) / 1000
        self.shift, self.scale = np.zeros(len(columns)), np.ones(len(columns))
        self.vocabulary: Vocabulary | None = None
        self.counts: list[int] = []
        self.threshold = self.naive_threshold = np.inf

    # What is learnt

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        owner = {column: field for field in fields.values() for column in field.columns}
        kinds = {type(owner.get(column)) for column in self.columns}
        if kinds <= {Number}:
            self._fit_numbers(train)
        elif kinds <= {Category, Text} and len(self.columns) == 1:
            field, column = owner[self.columns[0]], self.columns[0]
            assert isinstance(field, Category | Text)
            place = field.columns.index(column)
            self.vocabulary = (
                field.vocabulary if isinstance(field, Text) else field.vocabularies[place]
            )
            codes = self.vocabulary.encode(train.steps[column])
            self.counts = np.bincount(codes, minlength=len(self.vocabulary)).tolist()
        else:
            got = ", ".join(
                sorted("none" if k is type(None) else k.__name__.lower() for k in kinds)
            )
            expected = "inputs of kind number of the same columns, or one of kind category or text"
            raise SpecError(f"outputs.{self.name}", expected, got, "declare the columns as inputs")
        _, scores = self._naive(train)
        self.naive_threshold = self._threshold_of(scores[self._observed(train)])

    def _fit_numbers(self, train: Sequences) -> None:
        for place, column in enumerate(self.columns):
            count, mean, deviation = moments(train.steps[column], train.origin)
            if not count:
                where, fix = f"{train.origin}: column {column!r}", "remove the column"
                raise DataError(where, "numbers in the training rows", "no value at all", fix)
            self.shift[place], self.scale[place] = mean, scale_of(deviation, mean)

    def calibrate(self, output: Tensor, target: Tensor) -> None:
        scores = output[:, 1].double().numpy()
        self.threshold = self._threshold_of(scores[target[:, 0].isfinite().numpy()])

    def _threshold_of(self, scores: NDArray[np.float64]) -> float:
        """The quantile of scores; beyond the tenth highest that of an exponential tail (peaks over
        a threshold: Pickands, 1975, with shape 0).
        """
        if not len(scores):
            return float("inf")
        beyond = 1 - self._quantile
        if beyond * len(scores) >= FEW or beyond >= TAIL:
            return float(np.quantile(scores, self._quantile))
        start = float(np.quantile(scores, 1 - TAIL))
        excess = scores[scores > start] - start
        return start + float(excess.mean() if len(excess) else 0.0) * float(np.log(TAIL / beyond))

    # What goes in

    def past(self, column: str, values: pl.Series, origin: str) -> pl.Series:
        if self.vocabulary is not None:
            return pl.Series(column, self.vocabulary.encode(values).astype(np.float64))
        place = self.columns.index(column)
        raw = numbers(values, origin)
        return pl.Series(column, (raw - self.shift[place]) / self.scale[place]).fill_nan(None)

    def plain_past(self, rows: list[Values]) -> NDArray[np.float64] | None:
        if self.vocabulary is None:
            values = plain_numbers(rows)
            return None if values is None else (values - self.shift) / self.scale
        codes = [self.vocabulary.code(value) for (value,) in rows]
        return None if None in codes else np.array(codes, np.float64)[:, None]

    def encode(self, sequences: Sequences) -> Tensor:
        """``[N, 3]``: 1 where something was observed, NaN elsewhere and at first steps; the label,
        NaN without one; the number of the sequence.
        """
        observed = np.where(self._observed(sequences), 1.0, np.nan)
        labels = np.full(sequences.total, np.nan)
        if self._spec.labels in sequences.steps.columns:
            labels = numbers(sequences.steps[str(self._spec.labels)], sequences.origin)
        owner = np.repeat(np.arange(sequences.count, dtype=np.float64), sequences.lengths)
        return torch.from_numpy(np.stack([observed, labels, owner], axis=1))

    def _observed(self, sequences: Sequences) -> NDArray[np.bool_]:
        """Steps that have a surprise ``[N]``: observed, and with a step before them."""
        seen = np.zeros(sequences.total, bool)
        for column in self.columns:
            seen |= sequences.steps[column].is_not_null().to_numpy()
        seen[sequences.offsets[:-1][sequences.lengths > 0]] = False
        return seen

    def head(self, features: int) -> nn.Module:
        spec = self._spec
        window = None if spec.window == "none" else spec.window
        recent, of_errors = Recent(spec.smooth, window, spec.hold), spec.score == "error"
        if self.vocabulary is not None:
            counts = torch.tensor(self.counts, dtype=torch.float32) + 1
            shares = (counts / counts.sum()).log()
            return ElementSurprise(features, shares=shares, recent=recent, of_errors=of_errors)
        return NumberSurprise(
            features,
            len(self.columns),
            distribution=spec.distribution,
            spread=spec.spread,
            recent=recent,
            of_errors=of_errors,
        )

    # What comes out

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        return output[target[:, 0].isfinite(), 0]

    def metrics(self, output: Tensor, target: Tensor) -> Metrics:
        surprise, score, fresh = output[:, :3].double().numpy().T
        return self._scores(surprise, score, fresh > 0, target.numpy(), self.threshold)

    def _scores(
        self,
        surprise: NDArray[np.float64],
        score: NDArray[np.float64],
        fresh: NDArray[np.bool_],
        target: NDArray[np.float64],
        threshold: float,
    ) -> Metrics:
        seen, labels, owner = np.isfinite(target[:, 0]), target[:, 1], target[:, 2]
        found = {"nll": float(surprise[seen].mean()) if seen.any() else float("nan")}
        if self._spec.labels is None:
            return found
        known = seen & np.isfinite(labels)
        positive, alarm = labels[known] > 0, ((score >= threshold) & fresh)[known]
        hits = int((positive & alarm).sum())
        both = int(positive.sum() + alarm.sum())
        alarms = np.where(fresh, score, -np.inf)
        ends = np.flatnonzero(np.diff(owner)) + 1
        series = [
            nab.steps_of(own, nab.windows_of(marked))
            for own, marked in zip(np.split(alarms, ends), np.split(labels > 0, ends), strict=True)
        ]
        return {
            **found,
            "roc_auc": roc_auc(score[known], positive),
            "f1": 2 * hits / both if both else float("nan"),
            "nab": nab.best(series).score,
        }

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        surprise, score = self._naive(sequences)
        steps = [np.arange(a, b) for a, b in self._places(sequences, part)]
        own = np.concatenate(steps) if steps else np.zeros(0, np.int64)
        target = self.encode(sequences).numpy()[own]
        always = np.ones(len(own), bool)
        name = "windowed gaussian" if self.vocabulary is None else "frequency"
        threshold = self.naive_threshold
        return {name: self._scores(surprise[own], score[own], always, target, threshold)}

    @staticmethod
    def _places(sequences: Sequences, part: Part) -> list[tuple[int, int]]:
        begin = sequences.offsets[part.rows]
        return list(zip(begin + part.start, begin + part.stop, strict=True))

    def _naive(self, sequences: Sequences) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Surprise and score of the naive answer at every step, ``[N]`` each."""
        if self.vocabulary is not None:
            codes = self.vocabulary.encode(sequences.steps[self.columns[0]])
            counts = np.array(self.counts, np.float64) + 1
            surprise = -np.log(counts / counts.sum())[codes]
            return surprise, surprise
        total = np.zeros((2, sequences.total))
        for column in self.columns:
            values = numbers(self.past(column, sequences.steps[column], sequences.origin), "")
            for start, stop in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True):
                seen = start + np.flatnonzero(~np.isnan(values[start:stop]))
                x = values[seen]
                mean, deviation = windowed_gaussian.rolling(x)
                total[0, seen] += windowed_gaussian.minus_log_density(x, mean, deviation)
                total[1, seen] += windowed_gaussian.tail(x, mean, deviation)
        return total[0], total[1]

    def decode(self, output: Tensor) -> pl.DataFrame:
        return pl.DataFrame(self._answers(output.double().numpy()))

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        found = self._answers(output.astype(np.float64))
        return {name: values.tolist() for name, values in found.items()}

    def _answers(self, output: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {
            f"{self.name}_surprise": output[:, 0],
            f"{self.name}_score": output[:, 1],
            f"{self.name}_is_anomaly": (output[:, 1] >= self.threshold) & (output[:, 2] > 0),
        }
        if self.vocabulary is None:
            expected = output[:, 3:] * self.scale + self.shift
            found |= {f"{c}_expected": expected[:, i] for i, c in enumerate(self.columns)}
        return found

    def fitted(self) -> dict[str, Any]:
        elements = None if self.vocabulary is None else list(self.vocabulary.names)
        return {
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "elements": elements,
            "counts": self.counts,
            "threshold": _said(self.threshold),
            "naive_threshold": _said(self.naive_threshold),
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.shift, self.scale = np.array(fitted["shift"]), np.array(fitted["scale"])
        elements = fitted["elements"]
        self.vocabulary = None if elements is None else Vocabulary(elements)
        self.counts = list(fitted["counts"])
        self.threshold = _meant(fitted["threshold"])
        self.naive_threshold = _meant(fitted["naive_threshold"])


def _said(threshold: float) -> float | None:
    """A threshold as JSON has it, which knows no infinity."""
    return float(threshold) if np.isfinite(threshold) else None


def _meant(threshold: float | None) -> float:
    return np.inf if threshold is None else threshold
