"""What tasks whose answer is a text have in common: a decoder that reads the encoded sequence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple, NoReturn

import polars as pl
import torch
from pydantic import StrictBool, StrictStr
from torch import Tensor, nn

from segue.cells import GRU, LSTM
from segue.errors import CausalError, DataError, SpecError
from segue.fields import Field
from segue.fields.text import Text
from segue.layers.attend import Attend
from segue.layers.decoder import UNKNOWN, Decoder
from segue.ragged import Ragged
from segue.schema import Fraction, NotNegative, Output, Positive
from segue.sequences import Part, Sequences
from segue.tasks.task import Metrics, Task, Whole
from segue.tasks.units import UNITS, Listed, Units

SEARCHED = 64
"""Sequences that are decoded at once; bounds the memory."""

WARM = 10
"""Passes over the training part in which the rate of scheduled sampling rises to what is said."""


class Head(nn.Module):
    """The encoder's states as they are: what reads them is the decoder, once all are there.

    Attributes:
        decoder: what writes.
        seen: the sequences that it has learnt from so far, each as often as it was learnt from.
    """

    seen: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, states: Tensor) -> Tensor:
        """``[M, F] -> [M, F]``."""
        return states


class Written(NamedTuple):
    """What was written for one sequence.

    Attributes:
        text: what was found.
        references: the texts that are right.
        source: the first input that is a text; "" where none is.
        units: those of `text`.
        weights: of the attention, a row per unit and a column per step of the source.
    """

    text: str
    references: list[str]
    source: str
    units: list[str]
    weights: Tensor


class Writing(Task):
    """A text from a whole sequence: `segue.layers.decoder.Decoder` reads the encoder's states.

    The loss is the cross-entropy of each unit of the target, and of the end, in nats. The target
    column holds a text, or a list of texts any of which is right: the first is learnt.
    """

    title = "Writing {name}"
    every = True
    whole = True
    lower_is_better = False
    waits = "a text is written once the whole sequence is there; use `predict` on it"

    class Spec(Output):
        """Options of tasks that write.

        Attributes:
            unit: what is written one at a time: a ``word``, a ``character``, or a subword learnt
                from the training targets (``bpe``).
            vocabulary: K, at most so many different units; by default 4,000 subwords, 20,000 words.
            longest: at most so many units are written, and a target may have; by default as many as
                the longest of the training part.
            beam: beginnings that are kept while a text is searched.
            length_penalty: 0 prefers short texts, 1 goes by about the mean log-probability.
            attention: how the decoder compares itself with a step of the source; see
                `segue.layers.attend.Attend`.
            cell, hidden, size: the decoder's cell, its units (by default as many as the encoder
                gives), and those of a unit's embedding.
            feeding: whether what was read at a step is fed to the next.
            copying: the input whose steps (words or characters) may be copied.
            dropout: rate on the embeddings and before the output while training.
            smoothing: share of a target that is spread over all units while training.
            scheduled_sampling: rate at which the decoder sees its own draws instead of the target
                while training; it is reached after ten passes over the data.
        """

        unit: Literal["word", "character", "bpe"] = "bpe"
        vocabulary: Positive | None = None
        longest: Positive | None = None
        beam: Positive = 5
        length_penalty: NotNegative = 1.0
        attention: Literal["additive", "general", "dot", "scaled_dot"] = "general"
        cell: Literal["gru", "lstm"] = "gru"
        hidden: Positive | None = None
        size: Positive = 256
        feeding: StrictBool = False
        copying: StrictStr | None = None
        dropout: Fraction = 0.3
        smoothing: Fraction = 0.1
        scheduled_sampling: Fraction = 0.0

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.spec = spec
        self.units: Units = UNITS[spec.unit]()
        if spec.copying is not None and not isinstance(self.units, Listed):
            fix = "choose one of these, or leave out copying"
            expected = "word | character with copying"
            raise SpecError(f"outputs.{name}.unit", expected, spec.unit, fix)
        self.longest = spec.longest or 1
        self.count = 1
        self.sources: list[str] = []
        self.frequent = ""

    # Learnt from the training part

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        # What scores need and is not installed is missed now, and not after the training.
        self.scores(["a"], [["a"]])
        firsts = [several[0] for several in self._references(train)]
        kinds = {**train.steps.schema, **train.static.schema}
        texts = (field.columns[0] for field in fields.values() if isinstance(field, Text))
        self.sources = [column for column in texts if kinds[column] == pl.String]
        copying = self.spec.copying
        if copying is not None and train.steps.schema.get(copying) != pl.String:
            where = f"outputs.{self.name}.copying"
            fix = "name such an input, or leave out copying"
            raise SpecError(where, "an input whose steps are words", repr(copying), fix)
        self.units.fit(firsts, self.spec.vocabulary or type(self.units).most)
        self.count = train.count
        if self.spec.longest is None:
            self.longest = max(len(self.units.encode(text)) for text in firsts)
        counts = pl.Series(firsts).value_counts().sort("count", "", descending=[True, False])
        self.frequent = counts[0, 0]

    def encode(self, sequences: Sequences) -> Ragged:
        """The codes of the first text of each target; with copying, the codes of the source's steps
        follow those of the target.
        """
        _refuse_empty(sequences)
        found = []
        for row, (text, *_) in enumerate(self._references(sequences)):
            codes = self.units.encode(text)
            if self.spec.longest is not None and len(codes) > self.spec.longest:
                expected = f"a target of at most {self.longest} units ({self.spec.unit})"
                fix = "raise longest, shorten the text, or remove the sequence"
                raise DataError(self._where(sequences, row), expected, f"{len(codes)} units", fix)
            if self.spec.copying is not None:
                source, others = self._source_codes(self._steps(sequences, row))
                pieces = self._listed.cut(text)
                places = {self._listed.word(w): len(self.units) + i for i, w in enumerate(others)}
                known = zip(codes, pieces, strict=True)
                codes = [places.get(p, UNKNOWN) if c == UNKNOWN else c for c, p in known] + source
            found.append(torch.tensor(codes, dtype=torch.int64))
        return Ragged.from_list(found)

    def _references(self, sequences: Sequences) -> list[list[str]]:
        """The texts that are right, for each sequence at least one.

        Raises:
            DataError: there is none.
        """
        column = sequences.static[self.columns[0]]
        if column.dtype not in (pl.String, pl.List(pl.String)):
            where = f"{sequences.origin}: column {self.columns[0]!r}"
            raise DataError(where, "texts, or lists of texts", str(column.dtype), "correct it")
        given = [[value] if isinstance(value, str) else value for value in column.to_list()]
        for row, several in enumerate(given):
            if not several or any(not (text or "").strip() for text in several):
                got = "none" if not several else "an empty text"
                fix = "fill it in or remove the sequence"
                raise DataError(self._where(sequences, row), "a text as target", got, fix)
        return [list(several) for several in given]

    def _where(self, sequences: Sequences, row: int) -> str:
        return f"{sequences.origin}: column {self.columns[0]!r}, {sequences.place(row)}"

    # Copying

    @property
    def _listed(self) -> Listed:
        assert isinstance(self.units, Listed)
        return self.units

    def _steps(self, sequences: Sequences, row: int) -> list[str]:
        """The steps of the source that may be copied."""
        own = slice(int(sequences.offsets[row]), int(sequences.offsets[row + 1]))
        return [word or "" for word in sequences.steps[self.spec.copying or ""][own].to_list()]

    def _source_codes(self, words: list[str]) -> tuple[list[int], list[str]]:
        """The codes of words of a source, and those words that the vocabulary lacks, whose codes
        count on from K.
        """
        known = self._listed.codes
        others = list(dict.fromkeys(w for w in words if self._listed.word(w) not in known))
        places = {word: len(self.units) + index for index, word in enumerate(others)}
        return [known.get(self._listed.word(w), places.get(w, UNKNOWN)) for w in words], others

    def _others(self, sequences: Sequences, row: int) -> list[str]:
        """The words of a source that the vocabulary lacks; none where nothing is copied."""
        if self.spec.copying is None:
            return []
        return self._source_codes(self._steps(sequences, row))[1]

    # The network

    def head(self, features: int) -> nn.Module:
        spec = self.spec
        hidden, size = spec.hidden or features, spec.size
        law = GRU if spec.cell == "gru" else LSTM
        self.decoder = Decoder(
            law(size * (2 if spec.feeding else 1), hidden),
            Attend(hidden, features, score=spec.attention),
            len(self.units),
            feeding=spec.feeding,
            copying=spec.copying is not None,
            dropout=spec.dropout,
        )
        self._head = Head(self.decoder)
        return self._head

    def losses(self, output: Tensor, target: Whole) -> Tensor:
        memory, labels, copied = self._split(output, target)
        if not self.decoder.training:
            return self.decoder.losses(memory, labels, copied)
        passes = int(self._head.seen) / self.count
        self._head.seen += memory.batch
        rate = self.spec.scheduled_sampling * min(1.0, passes / WARM)
        return self.decoder.losses(
            memory, labels, copied, smoothing=self.spec.smoothing, sampling=rate
        )

    def _split(self, output: Tensor, target: Whole) -> tuple[Ragged, Ragged, Tensor | None]:
        """The memory, the labels and the codes of the memory's steps, where they are copied."""
        memory, labels = Ragged(output, target.steps), target.labels
        if self.spec.copying is None:
            return memory, labels, None
        own = labels.lengths - target.steps
        is_target = labels.times() < own[labels.rows()]
        return memory, Ragged(labels.values[is_target], own), labels.values[~is_target]

    # Answers and scores

    @torch.no_grad()
    def metrics(self, output: Tensor, target: Whole) -> Metrics:
        losses, hits, units = 0.0, 0, 0
        memory, labels, copied = self._split(output, target)
        for rows in _some(memory.lengths):
            source = None if copied is None else memory.with_values(copied).select(rows).values
            loss, right = self.decoder.forced(memory.select(rows), labels.select(rows), source)
            losses, hits = losses + float(loss.double().sum()), hits + int(right.sum())
            units += len(loss)
        raw = target.raw()
        scores = self.scores(self._write(output, target.steps, raw), self._references(raw))
        return {**scores, "nll": losses / units, "token_accuracy": hits / units}

    @torch.no_grad()
    def written(self, output: Tensor, target: Whole, spans: list[int]) -> list[Written]:
        """What is written for some of P sequences, and what was looked at."""
        memory, _, copied = self._split(output, target)
        raw, rows = target.raw(), torch.tensor(spans)
        source = None if copied is None else memory.with_values(copied).select(rows).values
        own, others = memory.select(rows), [self._others(raw, row) for row in spans]
        codes = self._search(own, source)
        weights = self.decoder.attention(own, Ragged.from_list(codes), source)
        sources = self._sources(raw) if self.sources else [""] * raw.count
        references = self._references(raw)
        return [
            Written(
                self.units.decode(codes[i].tolist(), others[i]),
                references[row],
                sources[row],
                [self.units.decode([code], others[i]) for code in codes[i].tolist()],
                weights[i][: len(codes[i])],
            )
            for i, row in enumerate(spans)
        ]

    @abstractmethod
    def scores(self, texts: list[str], references: list[list[str]]) -> Metrics:
        """Scores of texts against the texts that are right, of which each may have several."""

    @abstractmethod
    def naive(self, sources: list[str]) -> dict[str, list[str]]:
        """Naive answers by name, one to each of the source texts."""

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        own = part.of(sequences)
        references = self._references(own)
        answers = {"most frequent": [self.frequent] * own.count}
        if self.sources:
            answers |= self.naive(self._sources(own))
        return {n: self.scores(texts, references) for n, texts in answers.items()}

    def _sources(self, sequences: Sequences) -> list[str]:
        """The first input that is a text, as a text."""
        column = self.sources[0]
        if column in sequences.static.columns:
            return [text or "" for text in sequences.static[column].to_list()]
        steps = [step or "" for step in sequences.steps[column].to_list()]
        between = "" if all(len(step) < 2 for step in steps) else " "
        return [between.join(steps[a:b]) for a, b in pairwise(sequences.offsets.tolist())]

    def decode_whole(self, output: Tensor, steps: Tensor, sequences: Sequences) -> pl.DataFrame:
        _refuse_empty(sequences)
        return pl.DataFrame({self.name: self._write(output, steps, sequences)})

    def _write(self, output: Tensor, steps: Tensor, sequences: Sequences) -> list[str]:
        """The text that is found for each of the sequences."""
        memory, texts = Ragged(output, steps), [""] * len(steps)
        copies = self.spec.copying is not None
        for rows in _some(steps):
            sources = [
                self._source_codes(self._steps(sequences, row)) if copies else ([], [])
                for row in rows.tolist()
            ]
            copied = torch.tensor([c for codes, _ in sources for c in codes]) if copies else None
            found = self._search(memory.select(rows), copied)
            for row, codes, (_, others) in zip(rows.tolist(), found, sources, strict=True):
                texts[row] = self.units.decode(codes.tolist(), others)
        return texts

    def _search(self, memory: Ragged, copied: Tensor | None) -> list[Tensor]:
        beam, penalty = self.spec.beam, self.spec.length_penalty
        return self.decoder.search(memory, copied, longest=self.longest, beam=beam, penalty=penalty)

    def decode(self, output: Tensor) -> NoReturn:
        """Refused: a text is written when the whole sequence is there.

        Raises:
            CausalError: always.
        """
        raise CausalError(self.waits)

    def fitted(self) -> dict[str, Any]:
        return {
            "units": self.units.fitted(),
            "longest": self.longest,
            "count": self.count,
            "sources": self.sources,
            "frequent": self.frequent,
        }

    def restore(self, fitted: dict[str, Any]) -> None:
        self.units.restore(fitted["units"])
        self.longest, self.count = int(fitted["longest"]), int(fitted["count"])
        self.sources, self.frequent = list(fitted["sources"]), str(fitted["frequent"])


def _some(lengths: Tensor) -> Iterator[Tensor]:
    """Sequences some at a time, those of like length together."""
    return iter(torch.split(lengths.argsort(stable=True), SEARCHED))


def _refuse_empty(sequences: Sequences) -> None:
    if not sequences.lengths.all():
        row = int((sequences.lengths == 0).argmax())
        where = f"{sequences.origin}: {sequences.place(row)}"
        raise DataError(where, "at least one step to read", "none", "remove the sequence")
