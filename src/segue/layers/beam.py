"""Beam search: the likeliest sequence of codes that a decoder writes, as far as a beam sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from segue.cells.cell import check_count
from segue.ops import State, leaves, map_state

Advance: TypeAlias = Callable[[Tensor, State, Tensor], tuple[Tensor, State]]


@torch.no_grad()
def beam_search(
    advance: Advance,
    state: State,
    batch: int,
    *,
    beam: int,
    longest: int,
    penalty: float = 0.0,
    end: int = 0,
) -> list[Tensor]:
    """For each of B sources the sequence y with the highest score among those found,

        score(y) = log P(y) / lp(|y|)        lp(n) = ((5 + n) / 6)^penalty

    (Wu et al., 2016, arXiv:1609.08144), where |y| counts the code that ends it. At every step the
    `beam` likeliest beginnings go on; one of them that ends is put aside. A source is done when
    `beam` have ended, or when none that goes on can still score higher. What has not ended after
    `longest` codes is cut there, if nothing else was found. A beam of 1 is greedy search.

    Args:
        advance: ``(codes [B', beam], state, alive [B']) -> (log P [B', beam, K], state)``: one
            step of the sources that are not done, whose numbers are `alive`. A state's leading axis
            is that of the beginnings, B' times beam.
        state: before the first step, of B rows.
        batch: B.
        beam: beginnings kept for each source.
        longest: the most codes, the end not counted.
        penalty: 0 prefers short sequences, 1 about the mean log P of a code.
        end: the code that ends a sequence, which is the first given, too.

    Returns:
        the codes of each without the end, int64 ``[T]``.

    Raises:
        SpecError: a beam or a longest that is no whole number above 0.
    """
    for name, value in (("beam", beam), ("longest", longest)):
        check_count(f"beam_search.{name}", value)
    device = next((leaf.device for leaf in leaves(state)), torch.device("cpu"))
    alive = torch.arange(batch, device=device)
    found: list[Tensor] = [alive.new_empty(0)] * batch
    best, ended = torch.full((batch,), -torch.inf, device=device), torch.zeros_like(alive)
    state = map_state(lambda s: s.repeat_interleave(beam, 0), state)
    codes = alive.new_full((batch, beam), end)
    written = codes.new_zeros(batch, beam, 0)
    # All beginnings of a source are the same one at first.
    scores = best[:, None].repeat(1, beam)
    scores[:, 0] = 0
    for step in range(1, longest + 2):
        if not len(alive):
            break
        log_p, state = advance(codes, state, alive)
        options = log_p.shape[-1]
        # Of twice as many as go on, at most half can end.
        total = (scores[..., None] + log_p).flatten(1)
        top, place = total.topk(2 * beam)
        parent, code = place // options, place % options
        ends = code == end
        top_ends = top.masked_fill(~ends, -torch.inf)[:, :beam] / _length_penalty(step, penalty)
        for row, (value, rank) in enumerate(zip(*top_ends.max(1), strict=True)):
            source = int(alive[row])
            if value > best[source]:
                best[source], found[source] = value, written[row, parent[row, rank]]
        ended[alive] += (top_ends > -torch.inf).sum(1)
        going = top.masked_fill(ends, -torch.inf)
        scores, kept = going.topk(beam)
        parent, codes = parent.gather(1, kept), code.gather(1, kept)
        written = written.gather(1, parent[..., None].expand(-1, -1, step - 1))
        if step > longest:
            _cut(found, best, alive, written)
            break
        written = torch.cat([written, codes[..., None]], dim=2)
        hope = scores[:, 0] / _length_penalty(longest + 1, penalty)
        stays = (ended[alive] < beam) & (hope > best[alive])
        rows = (torch.arange(len(alive), device=device)[:, None] * beam + parent)[stays].flatten()
        state = map_state(lambda s, rows=rows: s[rows], state)
        alive, scores, codes, written = (x[stays] for x in (alive, scores, codes, written))
    return found


def _length_penalty(length: int, penalty: float) -> float:
    return float(((5 + length) / 6) ** penalty)


def _cut(found: list[Tensor], best: Tensor, alive: Tensor, written: Tensor) -> None:
    """Takes the likeliest beginning where no sequence has ended."""
    for row, source in enumerate(alive.tolist()):
        if best[source] == -torch.inf:
            found[source] = written[row, 0]
