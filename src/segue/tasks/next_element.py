"""The next element of the sequence: a language model, also of many-hot steps such as chords."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import SpecError
from segue.fields import Field
from segue.fields.category import Category
from segue.fields.many_hot import ManyHot, many_hot
from segue.fields.text import Text
from segue.fields.vocabulary import Vocabulary, unworded
from segue.layers import Linear
from segue.schema import Output
from segue.sequences import Part, Sequences
from segue.tasks.classes import shares
from segue.tasks.task import Metrics, Task


class NextElement(Task):
    """After every step, the element of the next one.

    One element per step (a character, a category): ``softmax(W h + b)``, the loss is the
    cross-entropy in nats per step; an element that the training part lacks is the class "unknown".
    Many elements per step: independent ``sigmoid(W h + b)``, the loss is the sum of the Bernoulli
    negative log-likelihoods over the elements of the training part, in nats per step; the answer is
    the elements more likely than not. The first step of a sequence is read, never predicted.

    Metrics: nll, and for one element per step perplexity ``exp(nll)`` and accuracy. Baselines: how
    often each element follows in the training part (``frequency``), and, for one element per step,
    how often it follows the present one (``pairs``), both with one added to every count.
    """

    title = "Predicting the next {name}"
    every = True
    main = "nll"
    looks_ahead = True
    MOST_PAIRS = 300

    class Spec(Output):
        """Options of task `next`."""

        reads_itself: ClassVar[bool] = True

    def __init__(self, name: str, columns: tuple[str, ...], spec: Output) -> None:
        super().__init__(name, columns, spec)
        self.vocabulary = Vocabulary()
        self.dtype = "String"
        """The type of the elements in the table, so that answers are of the same."""
        self.many = False
        self.counts = torch.zeros(0, dtype=torch.int64)
        self.pairs = torch.zeros(0, 0, dtype=torch.int64)
        self.steps = 0

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        field = next((field for field in fields.values() if self.columns[0] in field.columns), None)
        if isinstance(field, Category):
            self.vocabulary = field.vocabularies[field.columns.index(self.columns[0])]
        elif isinstance(field, Text | ManyHot):
            self.vocabulary = field.vocabulary
            self.many = isinstance(field, ManyHot)
        else:
            got = "no such input" if field is None else type(field).__name__.lower()
            expected = "an input of kind text, category or many_hot of the same name"
            fix = "declare that input, or use task forecast for numbers"
            raise SpecError(f"outputs.{self.name}", expected, got, fix)
        values = train.steps[self.columns[0]].dtype
        self.dtype = str(values.inner if isinstance(values, pl.List) else values)
        self._count(train)

    def encode(self, sequences: Sequences) -> Tensor:
        values = sequences.steps[self.columns[0]]
        elements = (
            many_hot(values, self.vocabulary) if self.many else self.vocabulary.encode(values)
        )
        following = torch.from_numpy(np.roll(elements, -1, axis=0))
        last = torch.from_numpy(sequences.offsets[1:] - 1)[torch.from_numpy(sequences.lengths > 0)]
        following[last] = torch.nan if self.many else -1
        return following

    def head(self, features: int) -> nn.Module:
        # It starts from how often each element follows, which need not be learnt any more.
        shares = self._shares()
        head = Linear(features, len(shares))
        with torch.no_grad():
            head.bias.copy_(shares)
        return head

    def _shares(self) -> Tensor:
        """What answers with the frequencies of the training part: logits ``[elements]``."""
        if self.many:
            return ((self.counts + 1.0) / (self.steps + 2.0)).logit()
        return _log_shares(self.counts[None])[0]

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        if self.many:
            seen = ~target[:, 0].isnan()
            bernoulli = nn.functional.binary_cross_entropy_with_logits(
                output[seen], target[seen], reduction="none"
            )
            return bernoulli.sum(1)
        seen = target >= 0
        return nn.functional.cross_entropy(output[seen], target[seen], reduction="none")

    def metrics(self, output: Tensor, target: Tensor) -> Metrics:
        if self.many:
            return {"nll": float(self.losses(output.double(), target.double()).mean())}
        seen = target >= 0
        return _scores(surprises(output, target)[seen], (output.argmax(1) == target)[seen])

    def _count(self, train: Sequences) -> None:
        """How often each element follows in the training part, and, for few enough elements, how
        often it follows which.
        """
        following, size = self.encode(train), len(self.vocabulary)
        if self.many:
            seen = following[~following[:, 0].isnan()]
            self.counts, self.steps = seen.double().sum(0).long(), len(seen)
            return
        counted = following >= 0
        self.counts = torch.bincount(following[counted], minlength=size)
        if size <= self.MOST_PAIRS:
            places = self._present(train)[counted] * size + following[counted]
            self.pairs = torch.bincount(places, minlength=size * size).view(size, size)

    def _present(self, sequences: Sequences) -> Tensor:
        return torch.from_numpy(self.vocabulary.encode(sequences.steps[self.columns[0]]))

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        known = part.of(sequences)
        target = self.encode(known)
        if self.many:
            shares = self._shares().double().expand(len(target), -1)
            return {"frequency": self.metrics(shares, target)}
        seen = target >= 0
        target, present = target[seen], self._present(known)[seen]
        tables = {"frequency": (_log_shares(self.counts[None]), torch.zeros_like(present))}
        if len(self.pairs):
            tables["pairs"] = (_log_shares(self.pairs), present)
        return {
            name: _scores(-table[row, target], table.argmax(1)[row] == target)
            for name, (table, row) in tables.items()
        }

    def decode(self, output: Tensor) -> pl.DataFrame:
        elements = self._elements
        if self.many:
            chosen = [elements[np.flatnonzero(row)] for row in output.numpy() > 0]
            column = pl.Series(f"next_{self.name}", chosen, dtype=pl.List(elements.dtype))
            return pl.DataFrame([column])
        best, share = self._best(output.numpy())
        return pl.DataFrame({f"next_{self.name}": elements[best], f"next_{self.name}_p": share})

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        listed = self._listed
        if self.many:
            rows = [np.flatnonzero(row).tolist() for row in output > 0]
            return {f"next_{self.name}": [[listed[code] for code in row] for row in rows]}
        best, share = self._best(output)
        named = [listed[code] for code in best.tolist()]
        return {f"next_{self.name}": named, f"next_{self.name}_p": share.tolist()}

    @staticmethod
    def _best(output: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The likeliest element that is known, counted from 0, and its share ``[M]``."""
        best: NDArray[np.int64] = output[:, 1:].argmax(1)
        share, size = np.empty(len(best)), max(1, 2**22 // output.shape[1])
        for first in range(0, len(best), size):
            some = slice(first, first + size)
            known = shares(output[some])[:, 1:]
            share[some] = known[np.arange(len(known)), best[some]]
        return best, share

    @cached_property
    def _elements(self) -> pl.Series:
        return unworded(self.vocabulary.names, self.dtype)

    @cached_property
    def _listed(self) -> list[Any]:
        return self._elements.to_list()

    def fitted(self) -> dict[str, Any]:
        return {
            "elements": list(self.vocabulary.names),
            "dtype": self.dtype,
            "many": self.many,
            "counts": self.counts.tolist(),
            "pairs": self.pairs.tolist(),
            "steps": self.steps,
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.vocabulary, self.dtype = Vocabulary(fitted["elements"]), fitted["dtype"]
        self.many, self.steps = bool(fitted["many"]), int(fitted["steps"])
        self.counts = torch.tensor(fitted["counts"], dtype=torch.int64)
        self.pairs = torch.tensor(fitted["pairs"], dtype=torch.int64)


def surprises(output: Tensor, target: Tensor) -> Tensor:
    """-log p of the element that came at each step, float64 ``[M]``; NaN where none is known.

    Some rows at a time, since of many words there are many numbers in a row.
    """
    found = torch.full((len(output),), torch.nan, dtype=torch.float64)
    size = max(1, 2**22 // output.shape[1])
    for first in range(0, len(output), size):
        some = slice(first, first + size)
        losses = nn.functional.cross_entropy(
            output[some].double(), target[some], ignore_index=-1, reduction="none"
        )
        found[some] = torch.where(target[some] < 0, torch.nan, losses)
    return found


def _scores(losses: Tensor, right: Tensor) -> Metrics:
    nll, accuracy = losses.mean(), right.double().mean()
    return {"nll": float(nll), "perplexity": float(nll.exp()), "accuracy": float(accuracy)}


def _log_shares(counts: Tensor) -> Tensor:
    """The logarithm of the shares of each row, with one added to every count."""
    return ((counts + 1.0) / (counts + 1.0).sum(1, keepdim=True)).double().log()
