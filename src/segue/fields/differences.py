"""How much numbers changed since the step before, as features beside the numbers themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from segue.fields.field import Encoder, EncoderState, Reading
from segue.layers.compiled import NoForm
from segue.ops.program import Slot
from segue.ragged import Ragged


class Differences(Encoder):
    """The features of an encoder, and after them the change of every number::

        [encoder(x)_t, (x_t - x_{t-1}) / change]        0 where one of the two was not observed

    A series that drifts away from what the training rows knew keeps its changes. State: the
    encoder's, then x of the last step, NaN before the first.

    Args:
        encoder: of encoded numbers ``[N, C]``.
        change: the mean absolute change in the training rows, ``[C]``.
    """

    change: Tensor

    def __init__(self, encoder: Encoder, change: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("change", change, persistent=False)
        self.features = encoder.features + len(change)

    def observed(self, x: Tensor) -> Tensor | None:
        return self.encoder.observed(x)

    def initial_state(self, batch: int) -> EncoderState:
        return (
            *self.encoder.initial_state(batch),
            torch.full((batch, len(self.change)), torch.nan),
        )

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        features, inner = self.encoder.unroll(x, times, elapsed, state[:-1])
        last, rows = state[-1], (x.lengths > 0).nonzero()[:, 0]
        before = x.values.roll(1, 0).index_copy(0, x.offsets[:-1][rows], last[rows])
        changes = torch.nan_to_num((x.values - before) / self.change, nan=0.0)
        after = last.index_copy(0, rows, x.values[x.offsets[1:][rows] - 1])
        return torch.cat([features, changes], dim=1), (*inner, after)

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        raise NoForm(f"the differences of {at.name}")
