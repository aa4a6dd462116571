"""Attention over a memory: what a decoder reads of a sequence that was encoded before."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue.errors import ShapeError, SpecError
from segue.layers.linear import Linear
from segue.ragged import Ragged
from segue.shapes import check

SCORES = ("additive", "general", "dot", "scaled_dot")
"""The ways to compare a query with a step of the memory; see `Attend`."""


class Memory(NamedTuple):
    """B encoded sequences, made ready to be read many times; J is the steps of the longest.

    Attributes:
        keys: what queries are compared with, ``[B, J, H]``.
        values: what is read, ``[B, J, I]``.
        real: bool ``[B, J]``, whether there is such a step.
    """

    keys: Tensor
    values: Tensor
    real: Tensor


class Attend(nn.Module):
    """Attention of the steps of one sequence, q_t, to those of another, the memory m_j:

        a_tj = exp(s_tj) / sum_i exp(s_ti)        c_t = sum_j a_tj m_j

        additive      s_tj = v . tanh(W_q q_t + W_k m_j + b)       Bahdanau et al., 2015
        general       s_tj = q_t . (W_k m_j)                       Luong et al., 2015
        dot           s_tj = q_t . m_j                             Luong et al., 2015
        scaled_dot    s_tj = (W_q q_t) . (W_k m_j) / sqrt(H)       Vaswani et al., 2017, one head

    (arXiv:1409.0473, arXiv:1508.04025, arXiv:1706.03762). Of a memory without steps, c_t is 0.

    Shapes: q ``[N, Q]``, m ``[N', I]``, c ``[N, I]``; W_q ``[H, Q]``, W_k ``[H, I]`` (of general
        ``[Q, I]``), b and v ``[H]``.

    Args:
        queries: Q.
        memory: I.
        hidden: H, the units of the comparison; by default Q.
        score: one of `SCORES`.

    Raises:
        SpecError: an unknown score; a dot product of unequal sizes.

    >>> attend = Attend(4, 6, score="additive")
    >>> q = Ragged(torch.zeros(5, 4), torch.tensor([2, 3]))
    >>> m = Ragged(torch.zeros(9, 6), torch.tensor([5, 4]))
    >>> c, weights = attend(q, m)
    >>> c.values.shape, [tuple(rows.shape) for rows in weights]
    (torch.Size([5, 6]), [(2, 5), (3, 4)])
    """

    def __init__(
        self, queries: int, memory: int, *, hidden: int | None = None, score: str = "general"
    ) -> None:
        super().__init__()
        if score not in SCORES:
            fix = "give one of these"
            raise SpecError("Attend.score", " | ".join(SCORES), repr(score), fix)
        if score == "dot" and queries != memory:
            expected, got = f"a memory of {queries} units, as the queries have", f"{memory} units"
            raise SpecError("Attend.score: dot", expected, got, "make them equal, or use general")
        self.queries, self.memory, self.score = queries, memory, score
        size = queries if hidden is None or score in ("general", "dot") else hidden
        is_projected = score in ("additive", "scaled_dot")
        self.query = Linear(queries, size, bias=False) if is_projected else None
        self.key = None if score == "dot" else Linear(memory, size, bias=score == "additive")
        self.v = nn.Parameter(torch.empty(size)) if score == "additive" else None
        if self.v is not None:
            nn.init.uniform_(self.v, -1 / math.sqrt(size), 1 / math.sqrt(size))

    def forward(self, query: Ragged, memory: Ragged) -> tuple[Ragged, list[Tensor]]:
        """What every step of B sequences reads from the B sequences of the memory.

        Args:
            query: ``[N, Q]``.
            memory: ``[N', I]``.

        Returns:
            c ``[N, I]``, and for each sequence the weights a, a row per step of the query and a
            column per step of the memory.

        Raises:
            ShapeError: the sizes are others, or the memory is of another number of sequences.
        """
        ready = self.prepare(memory)
        context, weights = self.read(query, ready)
        ends = zip(
            torch.split(weights, query.lengths.tolist()), memory.lengths.tolist(), strict=True
        )
        return query.with_values(context), [rows[:, :length] for rows, length in ends]

    def prepare(self, memory: Ragged) -> Memory:
        """The part that depends on the memory alone.

        Raises:
            ShapeError: it is not ``[N', I]``.
        """
        check("Attend.memory", memory.values, "N I", {"I": self.memory})
        real = torch.arange(memory.longest, device="cpu") < memory.lengths[:, None]
        values = memory.to_padded()
        keys = values
        if self.key is not None:
            keys = memory.with_values(self.key(memory.values)).to_padded()
        return Memory(keys, values, real.to(values.device))

    def read(self, query: Ragged, memory: Memory) -> tuple[Tensor, Tensor]:
        """c ``[N, I]``, and the weights ``[N, J]``, 0 on steps that the memory does not have.

        Raises:
            ShapeError: the query is not ``[N, Q]``, or of another number of sequences.
        """
        check("Attend.query", query.values, "N Q", {"Q": self.queries})
        if query.batch != len(memory.real):
            got, fix = f"{query.batch} sequences", "give a query for every sequence of the memory"
            raise ShapeError("Attend.query", f"{len(memory.real)} sequences", got, fix)
        scores = self._scores(query, memory)
        # A row without any step has nothing to divide by: its weights are made 0, not NaN.
        hidden = ~memory.real[:, None]
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(hidden, lowest).softmax(-1).masked_fill(hidden, 0.0)
        context = weights @ memory.values
        return _flat(context, query), _flat(weights, query)

    def _scores(self, query: Ragged, memory: Memory) -> Tensor:
        """``[B, T, J]``."""
        q = query.values if self.query is None else self.query(query.values)
        padded = query.with_values(q).to_padded()
        if self.v is not None:
            return (padded[:, :, None] + memory.keys[:, None]).tanh() @ self.v
        scale = 1 / math.sqrt(q.shape[-1]) if self.score == "scaled_dot" else 1.0
        return scale * padded @ memory.keys.transpose(1, 2)


def _flat(padded: Tensor, like: Ragged) -> Tensor:
    """The steps of ``[B, T, ...]`` that there are, ``[N, ...]``."""
    return Ragged.from_padded(padded, like.lengths).values
