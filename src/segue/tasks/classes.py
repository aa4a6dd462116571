"""Classes of a target column, and the scores of a classification."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError
from segue.fields.vocabulary import Vocabulary, unworded, words
from segue.tasks.calibration import calibration_error
from segue.tasks.ranking import average_precision, roc_auc

NONE = -1
"""The code of a missing target."""


class Classes:
    """The distinct values of a target column in their own order; the code of a class is its place.

    Args:
        names: the values as words.
        dtype: their type in the table, so that answers are of the same.
    """

    def __init__(self, names: list[str], dtype: str) -> None:
        self.names = names
        self.dtype = dtype
        self._vocabulary = Vocabulary(names)

    @classmethod
    def of(cls, values: pl.Series, where: str) -> Classes:
        """The classes among `values`.

        Raises:
            DataError: fewer than two.
        """
        names = values.drop_nulls().unique().sort()
        if len(names) < 2:
            got = f"only {names[0]!r}" if len(names) else "no value at all"
            fix = "give examples of every class"
            raise DataError(where, "at least two classes in the training rows", got, fix)
        return cls(words(names).to_list(), str(names.dtype))

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, values: pl.Series) -> NDArray[np.int64]:
        """Codes of `values` ``[M]``, -1 for one that is missing or no class."""
        codes: NDArray[np.int64] = self._vocabulary.encode(values) - 1
        return codes

    @cached_property
    def values(self) -> pl.Series:
        """The user's values of all codes."""
        return unworded(self.names, self.dtype)

    @cached_property
    def listed(self) -> list[Any]:
        """The same as a list."""
        return self.values.to_list()


def shares(logits: NDArray[Any]) -> NDArray[np.float64]:
    """softmax of logits ``[M, K]``."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return found


def class_scores(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Scores of logits ``[M, K]`` against codes ``[M]``, of which -1 do not count.

    They are those of `code_scores`, the mean log-loss in nats, the expected calibration error
    (``ece``), and for two classes those of `ranked_scores`; NaN where there are no targets.
    """
    seen = target != NONE
    logits, target = logits[seen].double(), target[seen]
    loss = torch.nn.functional.cross_entropy(logits, target)
    probabilities, predicted = logits.softmax(1), logits.argmax(1)
    sure = probabilities.gather(1, predicted[:, None])[:, 0]
    return {
        **code_scores(predicted, target),
        "log_loss": float(loss),
        "ece": calibration_error(sure.numpy(), (predicted == target).numpy()),
        **(ranked_scores(probabilities[:, 1], target) if logits.shape[1] == 2 else {}),
    }


def ranked_scores(second: Tensor, target: Tensor) -> dict[str, float]:
    """Scores at all thresholds of the second of two classes, given its probability ``[M]`` and
    codes ``[M]``: the area under the ROC curve, and the average precision.
    """
    scores, positive = second.numpy(), (target == 1).numpy()
    return {
        "roc_auc": roc_auc(scores, positive),
        "average_precision": average_precision(scores, positive),
    }


def code_scores(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Scores of codes ``[M]``::

    accuracy           the share that is right
    macro_f1           2 hits / (actual + claimed), averaged over the classes in either
    balanced_accuracy  hits / actual, averaged over the classes among the targets
    """
    classes = torch.cat([predicted, target]).unique()  # type: ignore[no-untyped-call]
    of = classes[:, None]
    hits = ((predicted == of) & (target == of)).double().sum(1)
    actual, claimed = (target == of).double().sum(1), (predicted == of).double().sum(1)
    there = actual > 0
    return {
        "accuracy": float((predicted == target).double().mean()),
        "macro_f1": float((2 * hits / (actual + claimed)).mean()),
        "balanced_accuracy": float((hits[there] / actual[there]).mean()),
    }


def majority_scores(counts: list[int], target: Tensor) -> dict[str, float]:
    """Scores of always answering the class with the highest of the training `counts`; the log-loss
    is that of the training frequencies, with one added to every count.
    """
    seen, known = target[target != NONE], torch.tensor(counts, dtype=torch.float64)
    frequencies = ((known + 1) / (known + 1).sum()).log()
    scores = code_scores(torch.full_like(seen, int(known.argmax())), seen)
    second = torch.zeros(len(seen))
    return {
        **scores,
        "log_loss": float(-frequencies[seen].mean()),
        **(ranked_scores(second, seen) if len(counts) == 2 else {}),
    }
