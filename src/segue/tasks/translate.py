"""A sequence as a text, such as a sentence in another language."""

from __future__ import annotations

from importlib import import_module
from itertools import zip_longest
from typing import Any

from segue.errors import SpecError
from segue.tasks.task import Metrics
from segue.tasks.writing import Writing


class Translate(Writing):
    """Metrics: BLEU and chrF as sacrebleu computes them from whole texts, and for the units of the
    target, each given those before it, ``nll`` (of the first text, in nats) and ``token_accuracy``.

    Baselines: the most frequent target of the training part, and the source itself (``copy``).
    """

    title = "Translating into {name}"
    main = "bleu"

    class Spec(Writing.Spec):
        """Options of task `translate`; those of `segue.tasks.writing.Writing`."""

    def scores(self, texts: list[str], references: list[list[str]]) -> Metrics:
        bleu = _sacrebleu()
        # sacrebleu takes a list of first references, a list of second ones, and so on.
        streams = [list(one) for one in zip_longest(*references)]
        return {
            "bleu": float(bleu.corpus_bleu(texts, streams).score),
            "chrf": float(bleu.corpus_chrf(texts, streams).score),
        }

    def naive(self, sources: list[str]) -> dict[str, list[str]]:
        return {"copy": sources}


def _sacrebleu() -> Any:
    try:
        return import_module("sacrebleu")
    except ImportError:
        fix = 'pip install "segue[text]"'
        raise SpecError(
            "task: translate", "the package sacrebleu", "no such package", fix
        ) from None
