"""A recurrent decoder: a sequence of codes, written while reading a memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import Cell
from segue.errors import ShapeError, SpecError
from segue.layers.attend import Attend, Memory
from segue.layers.beam import beam_search
from segue.layers.linear import Linear
from segue.layers.time import scan_of
from segue.ops import State, map_state
from segue.ragged import Ragged

END = 0
"""The code that ends every sequence, and that stands before its first step."""

UNKNOWN = 1
"""The code of what the vocabulary lacks; a copied code enters the decoder as this one."""


class DecoderState(NamedTuple):
    """What was written so far; leading axis the rows.

    Attributes:
        cell: the state of the recurrent cell.
        fed: o ``[B, E]`` of the step before; ``[B, 0]`` without input feeding.
    """

    cell: State
    fed: Tensor


class Source(NamedTuple):
    """What the decoder reads at every step: the memory, and where it copies the codes of its steps
    ``[B, J]``, of which K and more are those that the vocabulary lacks; -1 where there is no step.
    """

    memory: Memory
    codes: Tensor


class Written(NamedTuple):
    """What the decoder makes of N steps.

    Attributes:
        logits: over the vocabulary ``[N, K]``.
        weights: of the attention ``[N, J]``.
        generate: the logit of writing rather than copying ``[N]``; empty without copying.
    """

    logits: Tensor
    weights: Tensor
    generate: Tensor


class Decoder(nn.Module):
    """Writes codes y_1 .. y_T, of which the last is `END`, while reading a memory m_1 .. m_J:

        e_t = E y_{t-1},  y_0 = END
        h_t = cell(e_t, h_{t-1}),  h_0 = tanh(W_0 mean_j m_j + b_0) in every leaf of the state
        c_t, a_t = attend(h_t, m)
        o_t = tanh(W_o [h_t, c_t] + b_o)
        P(y_t) = softmax(E o_t + b)

    after Luong et al., 2015 (arXiv:1508.04025), with one matrix E for inputs and outputs (Press and
    Wolf, 2017, arXiv:1608.05859). No step depends on what was read before, so that training takes
    the cell through all steps at once. With input feeding, ``h_t = cell([e_t, o_{t-1}], h_{t-1})``,
    it does, and training goes step by step.

    With copying (See et al., 2017, arXiv:1704.04368) a code may be written that stands in the
    source, known to the vocabulary or not:

        g_t = sigmoid(w_g . [h_t, c_t, e_t] + b_g)
        P(y_t = w) = g_t softmax(E o_t + b)_w + (1 - g_t) sum_{j: x_j = w} a_tj

    Shapes: E ``[K, E]``, m ``[N, I]``, h ``[N, H]``, c ``[N, I]``, o ``[N, E]``.

    Args:
        cell: of E inputs, or with input feeding 2 E.
        attend: of H queries over the memory.
        codes: K, `END` and `UNKNOWN` among them.
        feeding: whether o_{t-1} is fed to the cell.
        copying: whether codes of the source may be copied.
        dropout: the rate on e and o while training.

    Raises:
        SpecError: the cell does not fit.
    """

    def __init__(
        self,
        cell: Cell,
        attend: Attend,
        codes: int,
        *,
        feeding: bool = False,
        copying: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if cell.outputs != attend.queries:
            expected, got = f"{attend.queries} outputs, as queries", str(cell.outputs)
            raise SpecError("Decoder.cell", expected, got, "make them equal")
        if feeding and cell.inputs % 2:
            fix = "make its inputs twice the embedding"
            raise SpecError("Decoder.cell", "an even number of inputs", str(cell.inputs), fix)
        self.cell, self.attend, self.codes = cell, attend, codes
        self.feeding, self.copying, self.rate = feeding, copying, dropout
        size = cell.inputs // 2 if feeding else cell.inputs
        self.embedding = nn.Parameter(torch.randn(codes, size) * size**-0.5)
        self.bias = nn.Parameter(torch.zeros(codes))
        self._widths = [leaf.shape[1] for leaf in ops.leaves(cell.initial_state(1))]
        self.start = Linear(attend.memory, sum(self._widths))
        self.mix = Linear(cell.outputs + attend.memory, size)
        reads = cell.outputs + attend.memory + size
        self.generate = Linear(reads, 1) if copying else None

    def begin(self, memory: Ragged, codes: Tensor | None = None) -> tuple[Source, DecoderState]:
        """What stands before the first step.

        Args:
            memory: ``[N, I]`` of B sequences.
            codes: of its steps, int64 ``[N]``; only for copying.

        Raises:
            ShapeError: there are no codes to copy, or codes and no copying.
        """
        if self.copying != (codes is not None):
            expected = "the codes of the memory's steps" if self.copying else "none"
            got, fix = ("none", "give them") if codes is None else ("some", "leave them out")
            raise ShapeError("Decoder.begin.codes", expected, got, fix)
        copied = memory.values.new_zeros(memory.batch, 0, dtype=torch.int64)
        if codes is not None:
            copied = memory.with_values(codes + 1).to_padded() - 1
        total = memory.to_padded().sum(1)
        mean = total / memory.lengths.clamp(min=1)[:, None].to(total)
        parts = iter(torch.split(self.start(mean).tanh(), self._widths, dim=1))
        first = map_state(lambda _: next(parts), self.cell.initial_state(memory.batch))
        fed = mean.new_zeros(memory.batch, self.embedding.shape[1] if self.feeding else 0)
        return Source(self.attend.prepare(memory), copied), DecoderState(first, fed)

    def losses(
        self,
        memory: Ragged,
        labels: Ragged,
        copied: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        sampling: float = 0.0,
    ) -> Tensor:
        """-log P of every code of the labels and of the end after each, ``[N + B]``.

        With smoothing s it is ``(1 - s) (-log P(y_t)) + s mean_w (-log softmax_w)``: the target is
        shared out over the vocabulary (Szegedy et al., 2016, arXiv:1512.00567). With sampling r,
        the code before a step is at that rate one drawn from the decoder's own distribution
        (Bengio et al., 2015, arXiv:1506.03099).

        Args:
            memory: ``[N', I]`` of B sequences.
            labels: int64 ``[N]`` of B sequences, without the ends.
            copied: codes of the memory's steps, int64 ``[N']``; only for copying.
        """
        source, state = self.begin(memory, copied)
        before, gold = _shifted(labels)
        if sampling > 0:
            before = before.with_values(self._sampled(before, source, state, sampling))
        written, _ = self.write(before, source, state)
        return self._losses(gold, written, source.codes[before.rows()], smoothing)

    def forced(
        self, memory: Ragged, labels: Ragged, copied: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of every code of the labels, and of the end after each, given those before it: -log P,
        and whether it is the likeliest; ``[N + B]``.
        """
        source, state = self.begin(memory, copied)
        before, gold = _shifted(labels)
        written, _ = self.write(before, source, state)
        codes = source.codes[before.rows()]
        best = self._log_p(written, codes, self._options(source)).argmax(1)
        return self._losses(gold, written, codes), best == gold

    def attention(
        self, memory: Ragged, labels: Ragged, copied: Tensor | None = None
    ) -> list[Tensor]:
        """The weights with which each code of the labels, and the end, reads the memory: for each
        sequence ``[T + 1, J]``.
        """
        source, state = self.begin(memory, copied)
        before, _ = _shifted(labels)
        written, _ = self.write(before, source, state)
        weights = torch.split(written.weights, before.lengths.tolist())
        return [w[:, :j] for w, j in zip(weights, memory.lengths.tolist(), strict=True)]

    def search(
        self,
        memory: Ragged,
        copied: Tensor | None = None,
        *,
        longest: int,
        beam: int = 1,
        penalty: float = 0.0,
    ) -> list[Tensor]:
        """The codes that it writes, int64 ``[T]`` for each sequence of the memory, without the end;
        `UNKNOWN` is never among them. See `beam_search`.
        """
        source, first = self.begin(memory, copied)
        options = self._options(source)

        def advance(codes: Tensor, state: State, alive: Tensor) -> tuple[Tensor, State]:
            own = map_state(lambda s: s[alive.to(s.device)], source)
            written, after = self.step(codes, own, state)
            log_p = self._log_p(written, own.codes.repeat_interleave(codes.shape[1], 0), options)
            return log_p.reshape(*codes.shape, options), after

        return beam_search(
            advance, first, memory.batch, beam=beam, longest=longest, penalty=penalty, end=END
        )

    def write(
        self, codes: Ragged, source: Source, state: DecoderState
    ) -> tuple[Written, DecoderState]:
        """All steps from the codes before each of them, int64 ``[N]``; the state after the last."""
        x = codes.with_values(self._embed(codes.values))
        if self.feeding:
            *parts, after = self._read_fed(x, source.memory, state)
        else:
            h, last = scan_of(self.cell)(x, state.cell)
            parts = [h, *self._read(x.with_values(h), source.memory)]
            after = DecoderState(last, state.fed)
        return self._written(x.values, *parts), after

    def step(
        self, codes: Tensor, source: Source, state: DecoderState
    ) -> tuple[Written, DecoderState]:
        """One step of k sequences for each of the B sources.

        Args:
            codes: before it, int64 ``[B, k]``.
            state: of B k rows, those of a source one after another.

        Returns:
            what is made of them, in the same order ``[B k, ...]``, and the state after the step.
        """
        e = self._embed(codes.flatten())
        *parts, after = self._advance(e, source.memory, state)
        return self._written(e, *parts), after

    def _advance(
        self, e: Tensor, memory: Memory, state: DecoderState
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, DecoderState]:
        """h, c, a and o of one step of all rows, and the state after it."""
        h, after = self.cell.step(torch.cat([e, state.fed], dim=1), state.cell)
        query = Ragged.rectangular(h.reshape(len(memory.real), -1, h.shape[1]))
        context, weights, o = self._read(query, memory)
        return h, context, weights, o, DecoderState(after, o if self.feeding else state.fed)

    def _read_fed(
        self, x: Ragged, memory: Memory, state: DecoderState
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, DecoderState]:
        """h, c, a and o of all steps, one after the other. The memory is carried like a state, so
        that its rows follow those of the sequences.
        """

        def step(e: Tensor, carried: State) -> tuple[Tensor, State]:
            before, memory = carried
            *parts, after = self._advance(e, memory, before)
            return torch.cat(parts, dim=1), (after, memory)

        y, (after, _) = ops.loop(step, x, (state, memory))
        widths = [self.cell.outputs, self.attend.memory, memory.real.shape[1], x.values.shape[1]]
        h, context, weights, o = torch.split(y, widths, dim=1)
        return h, context, weights, o, after

    def _read(self, h: Ragged, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """c, a and o of all steps."""
        context, weights = self.attend.read(h, memory)
        o = self.mix(torch.cat([h.values, context], dim=1)).tanh()
        return context, weights, self._dropped(o)

    def _written(
        self, e: Tensor, h: Tensor, context: Tensor, weights: Tensor, o: Tensor
    ) -> Written:
        logits, generate = ops.linear(o, self.embedding, self.bias), h.new_zeros(0)
        if self.generate is not None:
            generate = self.generate(torch.cat([h, context, e], dim=1))[:, 0]
        return Written(logits, weights, generate)

    @torch.no_grad()
    def _sampled(self, before: Ragged, source: Source, state: DecoderState, rate: float) -> Tensor:
        """The codes before each step ``[N]``, some of them drawn: step by step, since what is drawn
        depends on what was drawn before. Nothing is learnt from the draws themselves, so that all
        steps can then be taken at once.
        """
        chance = torch.rand(before.total, device=before.values.device)
        is_drawn = ((chance < rate) & (before.times() > 0)).long()

        def step(x: Tensor, carried: State) -> tuple[Tensor, State]:
            state, drawn, source = carried
            code = torch.where(x[:, 1] > 0, drawn, x[:, 0])
            written, state = self.step(code[:, None], source, state)
            drawn = written.logits.softmax(1).multinomial(1)[:, 0]
            return code[:, None], (state, drawn, source)

        x = before.with_values(torch.stack([before.values, is_drawn], dim=1))
        first = before.values.new_full((before.batch,), END)
        return ops.loop(step, x, (state, first, source))[0][:, 0]

    def _options(self, source: Source) -> int:
        """How many codes can be written: K, and the others of the source."""
        return max(self.codes, int(source.codes.max()) + 1 if source.codes.numel() else 0)

    def _embed(self, codes: Tensor) -> Tensor:
        known = torch.where(codes < self.codes, codes, UNKNOWN)
        return self._dropped(nn.functional.embedding(known, self.embedding))

    def _dropped(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.rate, self.training)

    def _losses(
        self, codes: Tensor, written: Written, copied: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        """-log P of one code for each step, smoothed ``[N]``; `copied`: the codes that it reads
        ``[N, J]``.
        """
        if self.generate is None:
            return nn.functional.cross_entropy(
                written.logits, codes, reduction="none", label_smoothing=smoothing
            )
        known = codes < self.codes
        log_p = written.logits.log_softmax(1)
        new = log_p.gather(1, torch.where(known, codes, UNKNOWN)[:, None])[:, 0]
        new = new.masked_fill(~known, -torch.inf)
        old = (written.weights * (copied == codes[:, None])).sum(1).clamp(min=_TINY).log()
        g, not_g = (nn.functional.logsigmoid(s * written.generate) for s in (1, -1))
        loss = -torch.logaddexp(g + new, not_g + old)
        return loss if not smoothing else (1 - smoothing) * loss - smoothing * log_p.mean(1)

    def _log_p(self, written: Written, copied: Tensor, options: int) -> Tensor:
        """log P of all codes ``[N, options]``, that of `UNKNOWN` being -inf."""
        log_p = written.logits.log_softmax(1)
        if self.generate is not None:
            g = written.generate.sigmoid()[:, None]
            p = nn.functional.pad(g * log_p.exp(), (0, options - self.codes))
            log_p = p.scatter_add(1, copied.clamp(min=0), (1 - g) * written.weights).log()
        log_p[:, UNKNOWN] = -torch.inf
        return log_p


_TINY = 1e-30


def _shifted(labels: Ragged) -> tuple[Ragged, Tensor]:
    """The codes before each step of the labels with their ends, and those at it."""
    lengths = labels.lengths + 1
    steps = Ragged(labels.values.new_full((int(lengths.sum()),), END), lengths)
    gold, before = steps.values, steps.values.clone()
    rows = labels.rows()
    place = torch.arange(labels.total, device=rows.device) + rows
    gold[place], before[place + 1] = labels.values, labels.values
    return steps.with_values(before), gold
