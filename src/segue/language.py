"""A trained `next` of texts as the language model of a transcription."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segue import checkpoint
from segue.errors import SpecError
from segue.fields.text import Text
from segue.inference import Arrays, Leaves, ready
from segue.tasks import Transcribe
from segue.tasks.beam import Following
from segue.tasks.next_element import NextElement
from segue.trained import Trained


def attach(trained: Trained) -> None:
    """Give every transcription the language model that it names.

    Raises:
        RunError: there is no such run.
        SpecError: it is no language model of the same units.
    """
    for name, task in trained.tasks.items():
        if isinstance(task, Transcribe) and task.spec.language_model is not None:
            where = f"outputs.{name}.language_model"
            model, _ = checkpoint.load(Path(task.spec.language_model))
            task.language_model = Speaker(model, task, where)


class Speaker:
    """What a trained `next` says of the symbols of a transcription.

    The first symbol is read, never predicted: all are as likely. A symbol that the language model
    does not know is as likely as its "unknown".

    Args:
        trained: the language model.
        task: the transcription.
        where: it is named, for messages.

    Raises:
        SpecError: it has other inputs than one text, or that text has other units.
    """

    def __init__(self, trained: Trained, task: Transcribe, where: str) -> None:
        field = _text(trained, task, where)
        self._network = ready(trained.network)
        self._input, self._output = field.name, next(iter(trained.tasks))
        symbols = field.column(field.columns[0], list(task.vocabulary.names), where)
        # Code 0 of a transcription is never said.
        self._codes = np.concatenate([[0], field.vocabulary.encode(symbols)])

    def first(self) -> tuple[Following, Leaves]:
        """All symbols alike, and the state before any."""
        count = len(self._codes) - 1
        return np.full(count + 1, -np.log(count)), self._network.first

    def step(self, labels: Sequence[int], states: Sequence[Any]) -> list[tuple[Following, Leaves]]:
        """What comes after each of `labels`, all in one go."""
        together = [np.concatenate(leaves) for leaves in zip(*states, strict=True)]
        found, after = self._network.run(self._batch(labels), together, running=False)
        shares = torch.from_numpy(found[self._output]).double().log_softmax(1).numpy()
        following = shares[:, self._codes]
        return [
            (following[row], [leaf[row : row + 1] for leaf in after]) for row in range(len(labels))
        ]

    def _batch(self, labels: Sequence[int]) -> Arrays:
        codes: NDArray[np.int64] = self._codes[list(labels)][:, None]
        count = len(codes)
        ones, times = np.ones(count, np.int64), np.zeros(count)
        return Arrays({self._input: codes}, {}, {}, times, ones, np.arange(count), {})


def _text(trained: Trained, task: Transcribe, where: str) -> Text:
    """The one text that a language model reads."""
    fields, outputs = list(trained.fields.values()), list(trained.tasks.values())
    if len(fields) == len(outputs) == 1 and isinstance(outputs[0], NextElement):
        field = fields[0]
        if isinstance(field, Text) and field.units.name == task.units.name:
            if trained.network.causal:
                return field
    kinds = [spec.kind for spec in trained.declaration.inputs.values()]
    tasks = [spec.task for spec in trained.declaration.outputs.values()]
    expected = f"a causal run of task next on one text, whose unit is {task.units.name}"
    got = f"{' and '.join(tasks)} on {' and '.join(kinds)}"
    raise SpecError(where, expected, got, "train one, or leave it out")
