"""Any number of labels at once: what `Classify` and `Tag` learn with ``labels: many``."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields.number import numbers
from segue.fields.vocabulary import unworded
from segue.tasks.calibration import calibration_error, temperature_of_labels
from segue.tasks.classes import Classes
from segue.tasks.labelling import Labelling, Rows
from segue.tasks.ranking import average_precision


class ManyLabels(Labelling):
    """Independent ``sigmoid(W h + b)``, one for each label of the training rows; the answer is the
    labels more likely than not.

    A cell holds the list of the labels that apply, or each label has a column of 0 and 1, where an
    empty cell says that nobody knows. Loss: the Bernoulli negative log-likelihood of every known
    label, in nats. Scores: see `label_scores`. Baseline: how often each label applies in the
    training rows, with one added to either count.
    """

    main = "micro_f1"

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        super().__init__(name, columns)
        self._classes = Classes([], "String")
        self._listed, self._dtype = False, "Int64"
        self.known: list[int] = []
        """In how many training rows it is known whether each label applies, ``[K]``."""

    @property
    def names(self) -> list[str]:
        return self._classes.names if self._listed else list(self.columns)

    def fit(self, rows: Rows) -> None:
        first = rows.frame[self.columns[0]]
        self._listed = isinstance(first.dtype, pl.List)
        self._dtype = str(first.dtype)
        if self._listed:
            elements = first.filter(first.list.len() > 0).explode()
            self._classes = Classes.of(elements, rows.where(self.columns[0]))
        target = self.encode(rows)
        self.counts = target.nansum(0).long().tolist()
        self.known = (~target.isnan()).sum(0).tolist()

    def encode(self, rows: Rows) -> Tensor:
        found = self._of_lists(rows) if self._listed else self._of_columns(rows)
        missing = np.isnan(found).all(1)
        if missing.any() and rows.required:
            where = f"{rows.where(self.columns[0])}, {rows.place(int(missing.argmax()))}"
            fix = "fill them in (an empty list says that none applies) or remove the sequence"
            raise DataError(where, "labels for every sequence", "none", fix)
        return torch.from_numpy(found)

    def _of_lists(self, rows: Rows) -> NDArray[np.float32]:
        cells = rows.frame[self.columns[0]]
        if not isinstance(cells.dtype, pl.List):
            where, got = rows.where(self.columns[0]), str(cells.dtype)
            raise DataError(where, "a list of labels in every cell", got, "give lists")
        lengths = cells.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        elements = cells.filter(cells.list.len() > 0).explode()
        codes, owner = self._classes.encode(elements), np.repeat(np.arange(len(cells)), lengths)
        if (codes < 0).any():
            place = int((codes < 0).argmax())
            expected = f"labels among the {len(self.names)} of the training rows"
            row, value = int(owner[place]), elements[place]
            self.refuse_unknown(rows, self.columns[0], row, value, expected)
        found = np.zeros((len(cells), len(self.names)), np.float32)
        found[owner, codes] = 1.0
        found[cells.is_null().to_numpy()] = np.nan
        return found

    def _of_columns(self, rows: Rows) -> NDArray[np.float32]:
        found = np.empty((rows.frame.height, len(self.columns)), np.float32)
        for place, column in enumerate(self.columns):
            found[:, place] = numbers(rows.frame[column], rows.origin)
            wrong = ~(np.isnan(found[:, place]) | np.isin(found[:, place], (0, 1)))
            if wrong.any():
                row = int(wrong.argmax())
                where = f"{rows.where(column)}, {rows.place(row)}"
                got, fix = repr(rows.frame[column][row]), "correct it, or leave the cell empty"
                raise DataError(where, "0 or 1 (labels: many)", got, fix)
        return found

    def balanced(self) -> list[float]:
        """``(n - n_k) / n_k`` for the cases in which a label applies: these weigh as much as the
        others.
        """
        pairs = zip(self.counts, self.known, strict=True)
        return [max(1, known - own) / max(1, own) for own, known in pairs]

    def losses(self, output: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        seen = ~target.isnan()
        losses = nn.functional.binary_cross_entropy_with_logits(
            output, target.nan_to_num(0).to(output.dtype), pos_weight=weights, reduction="none"
        )
        return losses[seen]

    def metrics(self, output: Tensor, target: Tensor) -> dict[str, float]:
        return label_scores(output.double(), target)

    def temperature(self, output: Tensor, target: Tensor) -> float:
        seen = ~target.isnan()
        return temperature_of_labels(output[seen], target[seen]) if seen.any() else 1.0

    def baselines(self, rows: Rows) -> dict[str, dict[str, float]]:
        counts = torch.tensor([self.counts, self.known], dtype=torch.float64)
        logits = ((counts[0] + 1) / (counts[1] + 2)).logit()
        target = self.encode(rows)
        return {"frequency": label_scores(logits.expand(len(target), -1), target)}

    def decode(self, logits: NDArray[Any]) -> pl.DataFrame:
        if self._listed:
            listed = self._classes.values
            chosen = [listed[np.flatnonzero(row)] for row in logits > 0]
            columns = {self.name: pl.Series(chosen, dtype=pl.List(listed.dtype))}
        else:
            flags = unworded(["false", "true"] if self._dtype == "Boolean" else "01", self._dtype)
            claimed = (logits > 0).astype(np.int64).T
            columns = {name: flags[own] for name, own in zip(self.names, claimed, strict=True)}
        shares = _sigmoid(logits).T
        columns |= {n: pl.Series(own) for n, own in zip(self._share_names, shares, strict=True)}
        return pl.DataFrame(columns)

    def answers(self, logits: NDArray[Any]) -> dict[str, list[Any]]:
        return self.decode(logits).to_dict(as_series=False)

    @property
    def _share_names(self) -> list[str]:
        if self._listed:
            return [f"{self.name}_p_{name}" for name in self.names]
        return [f"{name}_p" for name in self.names]

    def fitted(self) -> dict[str, Any]:
        return {
            "labels": self._classes.names,
            "type": self._classes.dtype,
            "listed": self._listed,
            "dtype": self._dtype,
            "counts": self.counts,
            "known": self.known,
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self._classes = Classes(fitted["labels"], fitted["type"])
        self._listed, self._dtype = bool(fitted["listed"]), fitted["dtype"]
        self.counts, self.known = list(fitted["counts"]), list(fitted["known"])


def label_scores(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Scores of logits ``[M, K]`` against 0, 1 or NaN for unknown ``[M, K]``::

    micro_f1                2 hits / (actual + claimed) over all labels together
    macro_f1                the same of each label, averaged over those in either
    mean_average_precision  the average precision of each label, over those that ever apply
    log_loss                the mean of the Bernoulli negative log-likelihood, in nats
    ece                     the expected calibration error of the probabilities of all labels
    """
    seen = ~target.isnan()
    truth, claimed = (target == 1) & seen, (logits > 0) & seen
    hits, both = (truth & claimed).sum(0).double(), (truth.sum(0) + claimed.sum(0)).double()
    shares = logits.sigmoid()
    loss = nn.functional.binary_cross_entropy_with_logits(logits[seen], truth[seen].to(logits))
    precisions = [
        average_precision(shares[own, label].numpy(), truth[own, label].numpy())
        for label, own in enumerate(seen.T)
        if truth[own, label].any()
    ]
    return {
        "micro_f1": float(2 * hits.sum() / both.sum()),
        "macro_f1": float((2 * hits / both)[both > 0].mean()),
        "mean_average_precision": float(np.mean(precisions)) if precisions else float("nan"),
        "log_loss": float(loss),
        "ece": calibration_error(shares[seen].numpy(), truth[seen].numpy()),
    }


def _sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    # Beyond 700 the power overflows; the share is 0 or 1 there.
    share: NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64).clip(-700, 700)))
    return share
