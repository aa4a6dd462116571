"""`Apart`: an input with a clock of its own, read by layers of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.body import body, reads
from segue.errors import SpecError
from segue.fields import Encoder
from segue.layers import Acausal, unroll
from segue.ragged import Ragged
from segue.schema import Model


class Apart(nn.Module):
    """Reads a whole sequence to its end::

        m_1 .. m_L = body(encoder(x_1 .. x_L))
        y = m_L, or [forward_L, backward_1] where it reads in both directions     pool: last
        y = mean of m_1 .. m_L                                                    pool: mean
        y = the two side by side                                                  pool: both

    It has the layers of the model section, with weights of its own. Where the sequence has no steps
    y is 0.

    Attributes:
        outputs: O of y; `width` is that of m.
    """

    def __init__(self, name: str, encoder: Encoder, spec: Model) -> None:
        super().__init__()
        if reads(spec):
            got, fix = "such a cell", "declare it as role step, or another cell"
            raise SpecError(f"inputs.{name}.role", "no cell that reads time", got, fix)
        self.encoder = encoder
        self.body = body(encoder.features, spec, encoder.size)
        self.width, self._pool = self.body.outputs, spec.pool
        self.outputs = self.width * (2 if spec.pool == "both" else 1)

    def forward(self, x: Ragged) -> tuple[Tensor, Ragged]:
        """Encoded steps ``[L, ...]`` of P sequences: y ``[P, O]``, and m ``[L, W]``."""
        times = x.times().double()
        elapsed = (times > 0).double()
        state = self.encoder.initial_state(x.batch)
        features = self.encoder.unroll(x, times, elapsed, state)[0]
        memory, _ = unroll(self.body, x.with_values(features))
        memory = memory.with_values(over_maps(memory.values))
        parts = [] if self._pool == "mean" else [finals(self.body, memory)]
        if self._pool != "last":
            sums = memory.values.new_zeros(x.batch, self.width)
            sums = sums.index_add(0, x.rows(), memory.values)
            parts.append(sums / x.lengths.clamp_min(1)[:, None])
        return torch.cat(parts, dim=1), memory


def over_maps(hidden: Tensor) -> Tensor:
    """Hidden states as vectors: maps ``[N, C, ...]`` by their mean ``[N, C]``."""
    return hidden.flatten(2).mean(2) if hidden.dim() > 2 else hidden


def finals(layers: nn.Module | None, hidden: Ragged) -> Tensor:
    """The last hidden state of each span; of both directions what each has read last."""
    if not isinstance(layers, Acausal):
        return hidden.last()
    ahead, back = hidden.values.chunk(2, dim=1)
    first = hidden.with_values(back).reversed()
    return torch.cat([hidden.with_values(ahead).last(), first.last()], dim=1)
