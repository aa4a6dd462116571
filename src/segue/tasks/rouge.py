"""ROUGE: how much of a reference a summary recalls."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def rouge(summary: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004), each the best over the references, in per cent.

        F = 2 P R / (P + R)     P = hits / of the summary     R = hits / of the reference

    Hits are n-grams in both, each as often as in the one that has it less often, or for ROUGE-L the
    words of the longest common subsequence. Words are the runs of ``a-z0-9`` of the lower-cased
    text, without stemming, as in the package rouge-score.

    >>> {name: round(value) for name, value in rouge("a b c", ["a c d e", "x"]).items()}
    {'rouge1': 57, 'rouge2': 0, 'rougeL': 57}
    """
    words = _words(summary)
    scores = {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    for reference in references:
        other = _words(reference)
        found = {
            "rouge1": _of_ngrams(words, other, 1),
            "rouge2": _of_ngrams(words, other, 2),
            "rougeL": _f1(_common(words, other), len(words), len(other)),
        }
        scores = {name: max(value, found[name]) for name, value in scores.items()}
    return scores


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _of_ngrams(words: list[str], other: list[str], n: int) -> float:
    ours, theirs = (Counter(zip(*(w[i:] for i in range(n)), strict=False)) for w in (words, other))
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def _f1(hits: int, ours: int, theirs: int) -> float:
    return 200 * hits / (ours + theirs) if hits else 0.0


def _common(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            row[j] = diagonal + 1 if x == y else max(above, row[j - 1])
            diagonal = above
    return row[-1]
