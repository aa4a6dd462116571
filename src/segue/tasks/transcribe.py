"""A transcript of a whole sequence: speech to text, handwriting to text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import StrictStr
from torch import Tensor, nn

from segue.errors import DataError
from segue.fields import Field
from segue.fields.units import Characters, Words
from segue.fields.vocabulary import Vocabulary, words
from segue.ragged import Ragged
from segue.schema import NotNegative, Output, Positive, Real
from segue.sequences import Part, Sequences
from segue.tasks.beam import Language, LanguageModel, search
from segue.tasks.edits import error_rate
from segue.tasks.emission import NOTHING, Emission
from segue.tasks.task import Metrics, Task, Whole

STRANGE = "\ufffd"
"""Stands in a right transcript for a symbol that the training part lacks, which is always wrong."""


class Transcribe(Task):
    """Connectionist temporal classification (Graves et al. 2006): of T steps, each of which says a
    symbol or the blank, all those paths are right that give the transcript once repeats are merged
    and blanks taken out; the loss is -log of their probability together, in nats per symbol.

    Symbols are the characters, or what stands between blanks, of the training transcripts. The
    answer is the labelling of the best path, or, with a `beam`, the best of a prefix beam search,
    which may ask a language model (see `segue.tasks.beam`). Live, a step answers with what it adds
    to the transcript; all that was added is the labelling of the best path.

    Metrics: character_error_rate and word_error_rate, edits over symbols in all right transcripts,
    and exact, the share of transcripts that are right altogether. Baselines: the most frequent
    transcript of the training part (``majority``), and none (``empty``).
    """

    title = "Transcribing sequences to {name}"
    every = True
    whole = True
    main = "character_error_rate"

    class Spec(Output):
        """Options of task `transcribe`."""

        unit: Literal["character", "word"] = "character"
        on_error: Literal["stop", "skip"] = "stop"
        beam: Positive = 1
        language_model: StrictStr | None = None
        language_weight: NotNegative = 0.5
        insertion_bonus: Real = 0.0

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.spec = spec
        self.units = Characters() if spec.unit == "character" else Words(spaces=True)
        self.vocabulary = Vocabulary()
        self.most_frequent = ""
        self.language_model: LanguageModel | None = None

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        texts = self._texts(train).drop_nulls()
        self.vocabulary = Vocabulary.of(self.units.cut(texts)[0])
        counts = texts.value_counts().sort(["count", texts.name], descending=[True, False])
        self.most_frequent = str(counts[texts.name][0]) if len(counts) else ""
        self.encode(train)

    def _texts(self, sequences: Sequences) -> pl.Series:
        """The transcripts, null where there is none; blanks around them do not count."""
        texts = words(sequences.static[self.columns[0]]).str.strip_chars()
        return pl.select(pl.when(texts != "").then(texts).alias(texts.name)).to_series()

    def encode(self, sequences: Sequences) -> Ragged:
        texts = self._texts(sequences)
        units, lengths = self.units.cut(texts.fill_null(""))
        codes = self.vocabulary.encode(units)
        bad = next(self._bad(texts, codes, lengths, sequences), None)
        if self.spec.on_error == "stop" and bad is not None:
            raise bad[1]
        gone = np.array([row for row, _ in self._bad(texts, codes, lengths, sequences)], np.int64)
        kept = np.repeat(~np.isin(np.arange(len(lengths)), gone), lengths)
        lengths = np.where(np.isin(np.arange(len(lengths)), gone), 0, lengths)
        return Ragged(torch.from_numpy(codes[kept]), torch.from_numpy(lengths))

    def _bad(
        self,
        texts: pl.Series,
        codes: NDArray[np.int64],
        lengths: NDArray[np.int64],
        sequences: Sequences,
    ) -> Iterator[tuple[int, DataError]]:
        """The sequences that nothing can be learnt from, and why."""
        ends = np.cumsum(lengths)
        for row, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            where = f"{sequences.origin}: column {self.columns[0]!r}, {sequences.place(row)}"
            skip = f"or skip such with `outputs.{self.name}: {{on_error: skip}}`"
            if length == 0:
                fix = f"fill it in, {skip}"
                yield row, DataError(where, "a transcript for every sequence", "none", fix)
                continue
            own = codes[end - length : end]
            needed = int(length + (own[1:] == own[:-1]).sum())
            if sequences.lengths[row] < needed:
                expected = f"at least {needed} steps for a transcript of {length} symbols"
                got = f"{sequences.lengths[row]} steps"
                fix = f"give more steps per second or join fewer of them, {skip}"
                yield row, DataError(where, expected, got, fix)

    def head(self, features: int) -> nn.Module:
        return Emission(features, len(self.vocabulary))

    @property
    def _blank(self) -> int:
        return len(self.vocabulary)

    def losses(self, output: Tensor, target: Whole) -> Tensor:
        labels, steps = target.labels, target.steps
        scored = labels.lengths > 0
        if not scored.any():
            return output.new_zeros(0)
        logits = Ragged(output[:, : self._blank + 1], steps).select(torch.where(scored)[0])
        losses = nn.functional.ctc_loss(
            logits.to_padded().log_softmax(2).transpose(0, 1),
            labels.values,
            logits.lengths,
            labels.lengths[scored],
            blank=self._blank,
            reduction="none",
        )
        return losses / labels.lengths[scored]

    def metrics(self, output: Tensor, target: Whole) -> Metrics:
        return transcript_scores(self.transcripts(output, target.steps), self.right(target.labels))

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        right = self.right(self.encode(part.of(sequences)))
        return {
            "majority": transcript_scores([self.most_frequent] * len(right), right),
            "empty": transcript_scores([""] * len(right), right),
        }

    def _text(self, codes: Tensor | Sequence[int]) -> str:
        names = (STRANGE, *self.vocabulary.names)
        return self.units.join([names[int(code)] for code in codes])

    def right(self, labels: Ragged) -> list[str]:
        """The transcripts of labels; empty where there is none."""
        return [self._text(codes) for codes in labels.to_list()]

    def transcripts(self, output: Tensor, steps: Tensor) -> list[str]:
        """The transcript of each sequence, to which `steps` rows of `output` belong."""
        if self.spec.beam == 1:
            said = Ragged(output[:, self._blank + 1].long(), steps).to_list()
            return [self._text(codes[codes != NOTHING]) for codes in said]
        logits = output[:, : self._blank + 1].double()
        logits[:, NOTHING] = -torch.inf
        shares = Ragged(logits.log_softmax(1), steps).to_list()
        spec, language = self.spec, None
        if self.language_model is not None:
            language = Language(self.language_model, spec.language_weight, spec.insertion_bonus)
        return [self._text(search(own.numpy(), self._blank, spec.beam, language)) for own in shares]

    def decode(self, output: Tensor) -> pl.DataFrame:
        return pl.DataFrame(self.answers(output.numpy()), schema={self.name: pl.String})

    def decode_whole(self, output: Tensor, steps: Tensor, sequences: Sequences) -> pl.DataFrame:
        """The transcript of each sequence."""
        transcripts = self.transcripts(output, steps)
        return pl.DataFrame({self.name: transcripts}, schema={self.name: pl.String})

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        said, begins = output[:, self._blank + 1 :].astype(np.int64).T.tolist()
        between = "" if self.spec.unit == "character" else " "
        names = self.vocabulary.names
        added = [
            ("" if first else between) + names[code - 1] if code else ""
            for code, first in zip(said, begins, strict=True)
        ]
        return {self.name: added}

    def fitted(self) -> dict[str, Any]:
        return {"symbols": list(self.vocabulary.names), "most_frequent": self.most_frequent}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(fitted["symbols"])
        self.most_frequent = str(fitted["most_frequent"])


def transcript_scores(found: Sequence[str], right: Sequence[str]) -> Metrics:
    """Error rates of transcripts, of which empty right ones do not count; words stand between
    blanks.
    """
    pairs = [(ours, theirs) for ours, theirs in zip(found, right, strict=True) if theirs]
    ours, theirs = [one for one, _ in pairs], [one for _, one in pairs]
    exact = [one == other for one, other in pairs]
    return {
        "character_error_rate": error_rate(ours, theirs),
        "word_error_rate": error_rate([t.split() for t in ours], [t.split() for t in theirs]),
        "exact": sum(exact) / len(exact) if exact else float("nan"),
    }
