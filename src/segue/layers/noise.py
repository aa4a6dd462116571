"""Layers that disturb a recurrence while it is trained: what they draw enters the law itself."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from segue import ops
from segue.cells import QUIET, Cell, LawCell, Noise
from segue.errors import SpecError
from segue.layers.causal import check_rate
from segue.ops import State
from segue.ragged import Ragged

# The fix of what wraps a cell with a law of its own.
_INNERMOST = "wrap the cell itself"


class RecurrentDropoutState(NamedTuple):
    """mask ``[B, R]``: 0 where a unit is dropped, else 1 / (1 - rate); body: the cell's state."""

    mask: Tensor
    body: State


class RecurrentDropout(Cell):
    """While training, drops units of h on their way back into the cell, and scales the others by
    1 / (1 - rate): one mask for all steps of a sequence (Gal and Ghahramani, 2016,
    arXiv:1512.05287).

        h' = m * h_{t-1}

    The cell's recurrent product sees h' in place of h_{t-1}; what else reads h_{t-1}, a GRU's
    z * h_{t-1} and zoneout, reads it whole, and so does the output. The mask is part of the state,
    drawn by `initial_state`, so that chunks of one sequence share it and a reset draws a new one.
    In evaluation it is not read.

    Args:
        body: an Elman, LSTM or GRU cell. To have zoneout as well, put this inside the `Zoneout`.
        rate: the probability, in [0, 1).

    Raises:
        SpecError: another layer, or another rate.
    """

    def __init__(self, body: LawCell, rate: float) -> None:
        super().__init__()
        if not isinstance(body, LawCell):
            got, expected = type(body).__name__, "an Elman, LSTM or GRU cell"
            is_zoneout = isinstance(body, Zoneout)
            fix = "write Zoneout(RecurrentDropout(cell, rate))" if is_zoneout else _INNERMOST
            raise SpecError("RecurrentDropout", expected, got, fix)
        check_rate("RecurrentDropout.rate", rate)
        self.body = body
        self.inputs, self.outputs = body.inputs, body.outputs
        self.rate = rate

    def initial_state(self, batch: int) -> RecurrentDropoutState:
        """A mask per sequence, of ones in evaluation, and the cell's state."""
        state = self.body.initial_state(batch)
        ones = state.h.new_ones(state.h.shape)
        return RecurrentDropoutState(nn.functional.dropout(ones, self.rate, self.training), state)

    def step(
        self, x: Tensor, state: RecurrentDropoutState, noise: Noise = QUIET
    ) -> tuple[Tensor, RecurrentDropoutState]:
        """One step: ``[B, I] -> [B, O]``."""
        y, after = self.body.step(x, state.body, self._masked(noise, state.mask))
        return y, RecurrentDropoutState(state.mask, after)

    def scan(
        self, x: Ragged, state: RecurrentDropoutState, noise: Noise = QUIET
    ) -> tuple[Tensor, RecurrentDropoutState]:
        """All steps: ``[N, I] -> [N, O]``."""
        y, after = self.body.scan(x, state.body, self._masked(noise, state.mask))
        return y, RecurrentDropoutState(state.mask, after)

    def _masked(self, noise: Noise, mask: Tensor) -> Noise:
        # A mask of ones would cost the fast paths for nothing.
        return replace(noise, mask=mask) if self.training and self.rate else noise


class Zoneout(Cell):
    """Keeps units of the state at their old value (Krueger et al., 2017, arXiv:1606.01305).

        h_t = d_t * h_{t-1} + (1 - d_t) * h~_t        c_t alike, with a mask of its own

    h~_t and c~_t are what the cell gives (an LSTM's h~_t is made of c~_t); while training d_t is 1
    with probability ``hidden`` (for c, ``cell``), drawn for every unit and step; in evaluation d_t
    is that probability. y_t = h_t.

    Args:
        body: an Elman, LSTM or GRU cell, or a `RecurrentDropout` of one.
        hidden: the rate of h, in [0, 1).
        cell: the rate of c, in [0, 1); LSTM only.

    Raises:
        SpecError: another layer, another rate, or a rate of c where there is no c.
    """

    def __init__(
        self, body: LawCell | RecurrentDropout, /, *, hidden: float = 0.0, cell: float = 0.0
    ) -> None:
        super().__init__()
        if not isinstance(body, LawCell | RecurrentDropout):
            expected = "an Elman, LSTM or GRU cell, or RecurrentDropout of one"
            raise SpecError("Zoneout", expected, type(body).__name__, _INNERMOST)
        check_rate("Zoneout.hidden", hidden)
        check_rate("Zoneout.cell", cell)
        inner = body.body if isinstance(body, RecurrentDropout) else body
        fields = inner.initial_state(0)._fields
        if cell and "c" not in fields:
            got = f"{cell} for {type(inner).__name__}, whose state has no c"
            raise SpecError("Zoneout.cell", "0", got, "leave it out")
        self.body = body
        self.inputs, self.outputs = body.inputs, body.outputs
        self.rates = tuple({"h": hidden, "c": cell}[field] for field in fields)

    def initial_state(self, batch: int) -> State:
        """The body's."""
        return self.body.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: ``[B, I] -> [B, O]``."""
        return self.body.step(x, state, self._noise(x.shape[0], state))

    def scan(self, x: Ragged, state: State) -> tuple[Tensor, State]:
        """All steps, whose units are drawn at once: ``[N, I] -> [N, O]``."""
        return self.body.scan(x, state, self._noise(x.total, state))

    def _noise(self, steps: int, state: State) -> Noise:
        if not any(self.rates):
            return QUIET
        own = state.body if isinstance(state, RecurrentDropoutState) else state
        if not self.training:
            return Noise(rates=self.rates, keep=(None,) * len(own))
        keep = (_draw(part, rate, steps) for part, rate in zip(own, self.rates, strict=True))
        return Noise(rates=self.rates, keep=tuple(keep))


def _draw(like: Tensor, rate: float, steps: int) -> Tensor | None:
    """bool ``[N, units]``, True with probability `rate`; None for a rate of 0."""
    return ops.draw(like, steps, rate) if rate else None
