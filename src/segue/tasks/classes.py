"""Classes of a target column, and the scores of a classification."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from segue.errors import DataError
from segue.fields.vocabulary import Vocabulary

NONE = -1
"""The code of a missing target."""


class Classes:
    """The distinct values of a target column in their own order; the code of a class is its position."""

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
            raise DataError(
                where,
                "at least two classes in the training rows",
                got,
                "give examples of every class",
            )
        return cls(names.cast(pl.String).to_list(), str(names.dtype))

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, values: pl.Series, where: str) -> NDArray[np.int64]:
        """Codes of `values`, -1 for a missing one.

        Raises:
            DataError: a class never seen in training.
        """
        codes = self._vocabulary.encode(values)
        self._vocabulary.refuse_unknown(
            values, codes, where, "remove the row, or train again with examples of it"
        )
        return codes - 1

    def decode(self, codes: Tensor) -> pl.Series:
        """The user's values of these codes."""
        return pl.Series(self.names, dtype=pl.String).cast(_DTYPES.get(self.dtype, pl.String))[
            codes.numpy()
        ]


_DTYPES: dict[str, type[pl.DataType]] = {
    name: getattr(pl, name)
    for name in (
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
    )
}


def class_scores(logits: Tensor, target: Tensor) -> dict[str, float]:
    """Accuracy, macro-F1, balanced accuracy and mean log-loss (nats) of logits ``[M, K]`` against codes ``[M]``."""
    seen = target != NONE
    logits, target = logits[seen].double(), target[seen]
    loss = torch.nn.functional.cross_entropy(logits, target)
    return {**code_scores(logits.argmax(1), target), "log_loss": float(loss)}


def code_scores(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Accuracy, macro-F1 and balanced accuracy of predicted codes; classes are those among the targets."""
    f1, recall = [], []
    for code in target.unique():
        hit = float(((predicted == code) & (target == code)).sum())
        actual, claimed = float((target == code).sum()), float((predicted == code).sum())
        f1.append(2 * hit / (actual + claimed))
        recall.append(hit / actual)
    return {
        "accuracy": float((predicted == target).double().mean()),
        "macro_f1": float(np.mean(f1)),
        "balanced_accuracy": float(np.mean(recall)),
    }


def majority_scores(counts: list[int], target: Tensor) -> dict[str, float]:
    """Scores of always answering the class with the highest of the training `counts`; the log-loss is that of the
    training frequencies, with one added to every count.
    """
    seen, known = target[target != NONE], torch.tensor(counts, dtype=torch.float64)
    frequencies = ((known + 1) / (known + 1).sum()).log()
    scores = code_scores(torch.full_like(seen, int(known.argmax())), seen)
    return {**scores, "log_loss": float(-frequencies[seen].mean())}
