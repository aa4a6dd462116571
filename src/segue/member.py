"""One network of a forecast: its memory, and what it says of the steps ahead."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import GRU, Cell
from segue.layers import Linear, unroll
from segue.layers.compiled import NoForm, emit_linear
from segue.ops.program import Program, Slot
from segue.ragged import Ragged
from segue.tasks import Forecast


class Member(nn.Module):
    """What the values to come are, in units of the scale::

        c = V h + W z + b + g(h, ahead)                 [S, P] numbers, from h [H] and z [L]

    W starts at zero, and so does what g adds.

    Args:
        cell: the law of memory that gives h.
        task: says horizon S, numbers per value P, and season.
        ahead: K, features known ahead per step; g is there where there are some.
        lookback: L.
        skip: W is a ``full`` matrix, ``seasonal``, or ``adaptive``.
        decoder: g takes each step ahead alone (``step``) or one after the other (``recurrent``).
    """

    HIDDEN_AHEAD = 16

    def __init__(
        self,
        cell: Cell,
        task: Forecast,
        *,
        ahead: int,
        lookback: int,
        skip: Literal["full", "seasonal", "adaptive"],
        decoder: Literal["step", "recurrent"],
    ) -> None:
        super().__init__()
        self.cell, self.horizon, self.outputs = cell, task.horizon, task.outputs
        self.head = Linear(cell.outputs, self.horizon * self.outputs)
        sizes = lookback, self.horizon, self.outputs, task.season
        self.skip: Linear | Seasonal | Adaptive
        if skip == "adaptive":
            self.skip = Adaptive(cell.outputs, *sizes)
        elif skip == "seasonal":
            self.skip = Seasonal(*sizes)
        else:
            self.skip = Linear(lookback, self.horizon * self.outputs, bias=False)
        sort = Decoder if decoder == "recurrent" else Known
        self.known = sort(cell.outputs, ahead, self.outputs, self.HIDDEN_AHEAD) if ahead else None
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            for weight in self.skip.parameters():
                weight.zero_()

    @property
    def numbers_per_step(self) -> int:
        """About how many numbers a step of one series makes; for bounds on memory."""
        units = self.outputs if self.known is None else self.HIDDEN_AHEAD
        return 2 * self.horizon * units + 8 * self.cell.outputs

    def forward(self, hidden: Tensor, z: Tensor, ahead: Tensor) -> Tensor:
        """h ``[M * C, H]``, z ``[M * C, L]`` and what is known ahead ``[M, S, K]`` -> c
        ``[M * C, S, P]``.
        """
        linear = self.skip(z, hidden) if isinstance(self.skip, Adaptive) else self.skip(z)
        change: Tensor = self.head(hidden) + linear
        change = change.reshape(len(hidden), self.horizon, self.outputs)
        return change if self.known is None else change + self.known(hidden, ahead)

    def emit(self, program: Program, hidden: Slot, z: Slot, ahead: Slot) -> Slot:
        """Adds `forward` to a program.

        Raises:
            NoForm: it has none.
        """
        if isinstance(self.known, Decoder):
            raise NoForm("a recurrent decoder of what is known ahead")
        if isinstance(self.skip, Adaptive):
            raise NoForm("an adaptive reading of the look-back")
        linear = program.affine(z, self.skip.weight, None)
        change = program.add(emit_linear(self.head, program, hidden), linear)
        if self.known is None:
            return change
        known = program.tanh_of_sums(
            emit_linear(self.known.hidden, program, hidden),
            emit_linear(self.known.ahead, program, ahead),
        )
        return program.add(change, emit_linear(self.known.out, program, known))


class Seasonal(nn.Module):
    """W of `Member`, shared along the season m (Lin et al., 2024, SparseTSF, arXiv:2405.00946).

    The value in s steps is read from those whole seasons before it, and from the means of the last
    season and of the look-back, with weights that depend on how many seasons there are between, and
    on which of the seasons ahead it is, b = ceil(s / m)::

        (W z)_s = sum_i w_{b,i} z_{t+s-m(b+i)} + u_b mean(z_{t-m+1..t}) + v_b mean(z)

    So a look-back of many seasons costs few weights, which a full W would learn by heart. What
    the w leave open of a value goes to a level by u and v, and else to the last value, which has
    another place in the season.
    """

    def __init__(self, lookback: int, horizon: int, outputs: int, season: int) -> None:
        super().__init__()
        step, lag = torch.arange(1, horizon + 1)[:, None], torch.arange(lookback - 1, -1, -1)
        block, apart = (step - 1) // season, step + lag
        seasons = apart // season - block
        width = int(seasons.max()) + 1
        # The place 0 of each block stands for no weight.
        self.place: Tensor
        place = torch.where(apart % season == 0, seasons, 0) + block * width
        self.register_buffer("place", place, persistent=False)
        blocks = int(block.max()) + 1
        self.shared = nn.Parameter(torch.zeros(outputs, blocks, width - 1))
        self.level = nn.Parameter(torch.zeros(outputs, blocks, 2))
        recent = (lag < min(season, lookback)).float()
        self.means: Tensor
        means = torch.stack([recent / recent.sum(), torch.full((lookback,), 1 / lookback)])
        self.register_buffer("means", means, persistent=False)
        self.block: Tensor
        self.register_buffer("block", block.flatten(), persistent=False)

    @property
    def weight(self) -> Tensor:
        """W, ``[S * P, L]``."""
        table = nn.functional.pad(self.shared, (1, 0)).flatten(1)
        matrix = table[:, self.place] + (self.level @ self.means)[:, self.block]
        return matrix.transpose(0, 1).flatten(0, 1)

    def forward(self, z: Tensor) -> Tensor:
        """``[rows, L]`` -> ``[rows, S * P]``."""
        return ops.linear(z, self.weight, None)


class Adaptive(nn.Module):
    """W of `Member`, shared along the season m, where the hidden state sets the weights::

        (W z)_s = sum_i (w + U h)_{ceil(s / m), i} z_{t+s-m(ceil(s / m)+i)}      i = 0, 1, ...

    as in `Seasonal`, with U zero at first (weights that a network makes: Schmidhuber 1992, fast
    weights). So it can be yesterday that counts for one series, and the same day a week ago for
    another.
    """

    def __init__(self, hidden: int, lookback: int, horizon: int, outputs: int, season: int) -> None:
        super().__init__()
        self.horizon, self.outputs, self.blocks = horizon, outputs, -(-horizon // season)
        step = torch.arange(1, self.blocks * season + 1)
        first = season * ((step - 1) // season + 1) - step
        self.seasons = -(-lookback // season)
        lag = first[:, None] + season * torch.arange(self.seasons)
        # What lies before the look-back is read from a 0 behind it.
        self.place: Tensor
        place = torch.where(lag < lookback, lookback - 1 - lag, lookback)
        self.register_buffer("place", place, persistent=False)
        self.weights = Linear(hidden, outputs * self.blocks * self.seasons)
        with torch.no_grad():
            self.weights.bias.zero_()
            self.weights.weight.zero_()

    def forward(self, z: Tensor, hidden: Tensor) -> Tensor:
        """``[rows, L]`` and h ``[rows, H]`` -> ``[rows, S * P]``."""
        rows, season = len(z), len(self.place) // self.blocks
        seen = nn.functional.pad(z, (0, 1))[:, self.place]
        seen = seen.view(rows, self.blocks, season, self.seasons, 1)
        weights = self.weights(hidden).view(rows, self.blocks, 1, self.seasons, self.outputs)
        # One season after the other: the bits of a product of matrices depend on how many rows.
        found: Tensor = seen[:, :, :, 0] * weights[:, :, :, 0]
        for back in range(1, self.seasons):
            found = found + seen[:, :, :, back] * weights[:, :, :, back]
        return found.flatten(1, 2)[:, : self.horizon].flatten(1)


class Known(nn.Module):
    """g of `Member`: what the inputs e known ahead add, ``R tanh(P h + p + Q e) + r``.

    R and r start at zero.
    """

    def __init__(self, hidden: int, ahead: int, outputs: int, units: int) -> None:
        super().__init__()
        self.hidden = Linear(hidden, units)
        self.ahead = Linear(ahead, units, bias=False)
        self.out = Linear(units, outputs)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(self, hidden: Tensor, ahead: Tensor) -> Tensor:
        """h ``[M * C, H]`` and e ``[M, S, K]`` -> ``[M * C, S, Q]``."""
        known = self.ahead(ahead).repeat_interleave(len(hidden) // max(1, len(ahead)), 0)
        out: Tensor = self.out(torch.tanh(self.hidden(hidden)[:, None] + known))
        return out


class Decoder(nn.Module):
    """g of `Member` where what is known ahead has after-effects: a GRU over the steps ahead::

        d_0 = tanh(P h + p)
        d_j = gru(e_j, d_{j-1})
        g_j = R d_j + r

    R and r start at zero.
    """

    def __init__(self, hidden: int, ahead: int, outputs: int, units: int) -> None:
        super().__init__()
        self.hidden = Linear(hidden, units)
        self.cell = GRU(ahead, units)
        self.out = Linear(units, outputs)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(self, hidden: Tensor, ahead: Tensor) -> Tensor:
        """h ``[M * C, H]`` and e ``[M, S, K]`` -> ``[M * C, S, P]``."""
        steps = ahead.repeat_interleave(len(hidden) // max(1, len(ahead)), 0)
        lengths = torch.full((len(steps),), steps.shape[1])
        state = self.cell.initial_state(len(steps))._replace(h=torch.tanh(self.hidden(hidden)))
        after, _ = unroll(self.cell, Ragged(steps.flatten(0, 1), lengths), state)
        out: Tensor = self.out(after.values).unflatten(0, steps.shape[:2])
        return out
