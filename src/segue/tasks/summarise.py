"""A long text as a short one."""

from __future__ import annotations

import re

from segue.tasks.rouge import rouge
from segue.tasks.task import Metrics
from segue.tasks.writing import Writing

SENTENCE = r"(?<=[.!?])\s+(?=[^\W\d_a-z])"
"""Between two sentences: after a mark that ends one, before a letter that is not a small one."""


class Summarise(Writing):
    """As task `translate`, with ROUGE-1, ROUGE-2 and ROUGE-L of each summary against the best of
    its references (see `segue.tasks.rouge`), in per cent, averaged over the summaries.

    Baselines: the most frequent target of the training part, and the first sentence of the source
    (``lead``).
    """

    title = "Summarising as {name}"
    main = "rougeL"

    class Spec(Writing.Spec):
        """Options of task `summarise`; those of `segue.tasks.writing.Writing`."""

    def scores(self, texts: list[str], references: list[list[str]]) -> Metrics:
        each = [rouge(text, several) for text, several in zip(texts, references, strict=True)]
        return {name: sum(one[name] for one in each) / len(each) for name in each[0]}

    def naive(self, sources: list[str]) -> dict[str, list[str]]:
        return {"lead": [re.split(SENTENCE, text, maxsplit=1)[0] for text in sources]}
