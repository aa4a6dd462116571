"""The next element of the sequence: a language model, also of many-hot steps such as chords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from segue.errors import SpecError
from segue.fields import Field
from segue.fields.category import Category
from segue.fields.many_hot import ManyHot, many_hot
from segue.fields.text import Text
from segue.fields.vocabulary import Vocabulary
from segue.layers import Linear
from segue.schema import Output
from segue.sequences import Part, Sequences
from segue.tasks.task import Metrics, Task


class NextElement(Task):
    """After every step, the element of the next one.

    One element per step (a character, a category): ``softmax(W h + b)``, the loss is the cross-entropy in nats per step.
    Many elements per step: independent ``sigmoid(W h + b)``, the loss is the sum of the Bernoulli negative
    log-likelihoods in nats per step. The first step of a sequence is read, never predicted.

    Baselines: how often each element occurs in the training part (``frequency``), and, for one element per step, how
    often it follows the present one (``pairs``), both with one added to every count.
    """

    every = True
    main = "nll"
    MOST_PAIRS = 300

    class Spec(Output):
        """Options of task `next`."""

    def __init__(self, name: str, columns: tuple[str, ...], spec: Output) -> None:
        super().__init__(name, columns, spec)
        self.vocabulary = Vocabulary()
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
            raise SpecError(
                f"outputs.{self.name}",
                "an input of kind text, category or many_hot of the same name",
                got,
                "declare that input, or use task forecast for numbers",
            )
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
        return Linear(features, len(self.vocabulary.names) if self.many else len(self.vocabulary))

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
        nll = float(self.losses(output.double(), target.double() if self.many else target).mean())
        if self.many:
            return {"nll": nll}
        seen = target >= 0
        correct = output[seen].argmax(1) == target[seen]
        return {
            "nll": nll,
            "perplexity": float(np.exp(nll)),
            "accuracy": float(correct.double().mean()),
        }

    def _count(self, train: Sequences) -> None:
        """How often each element follows in the training part, and, for few enough elements, how often it follows which."""
        following, size = self.encode(train), len(self.vocabulary)
        if self.many:
            seen = following[~following[:, 0].isnan()]
            self.counts, self.steps = seen.double().sum(0).long(), len(seen)
            return
        counted = following >= 0
        self.counts = torch.bincount(following[counted], minlength=size)
        if size <= self.MOST_PAIRS:
            present = torch.from_numpy(self.vocabulary.encode(train.steps[self.columns[0]]))
            places = present[counted] * size + following[counted]
            self.pairs = torch.bincount(places, minlength=size * size).view(size, size)

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        known = part.of(sequences)
        target = self.encode(known)
        if self.many:
            shares = ((self.counts + 1.0) / (self.steps + 2.0)).logit()
            return {"frequency": self.metrics(shares.expand(len(target), -1), target)}
        shares = _log_shares(self.counts[None])
        found = {"frequency": self.metrics(shares.expand(len(target), -1), target)}
        if len(self.pairs):
            present = torch.from_numpy(self.vocabulary.encode(known.steps[self.columns[0]]))
            found["pairs"] = self.metrics(_log_shares(self.pairs)[present], target)
        return found

    def decode(self, output: Tensor) -> pl.DataFrame:
        if self.many:
            chosen = [
                [self.vocabulary.names[i] for i in row.nonzero()[:, 0].tolist()]
                for row in output > 0
            ]
            return pl.DataFrame({f"next_{self.name}": pl.Series(chosen, dtype=pl.List(pl.String))})
        shares = torch.softmax(output.double(), 1)
        best = shares[:, 1:].max(1)
        names = pl.Series(self.vocabulary.names, dtype=pl.String)[best.indices.numpy()]
        return pl.DataFrame(
            {f"next_{self.name}": names, f"next_{self.name}_p": best.values.numpy()}
        )

    def fitted(self) -> dict[str, Any]:
        return {
            "elements": list(self.vocabulary.names),
            "many": self.many,
            "counts": self.counts.tolist(),
            "pairs": self.pairs.tolist(),
            "steps": self.steps,
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.vocabulary, self.many = Vocabulary(fitted["elements"]), bool(fitted["many"])
        self.counts, self.steps = torch.tensor(fitted["counts"]), int(fitted["steps"])
        self.pairs = torch.tensor(fitted["pairs"], dtype=torch.int64)


def _log_shares(counts: Tensor) -> Tensor:
    """The logarithm of the shares of each row, with one added to every count."""
    return ((counts + 1.0) / (counts + 1.0).sum(1, keepdim=True)).double().log()
