"""The network of a forecast: a recurrence over segments, its state carried from step to step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells import Cell
from segue.layers import unroll
from segue.layers.compiled import NoForm, Place, emit
from segue.member import Member
from segue.ops import State
from segue.ops.program import Program, Slot
from segue.ragged import Ragged
from segue.tasks import Forecast
from segue.tasks.distributions import Quantiles

Memory: TypeAlias = Literal["carried", "window"]
Level: TypeAlias = Literal["last", "mean"]


class ForecasterState(NamedTuple):
    """What a forecast remembers of P sequences of C series.

    Attributes:
        ring: the last L values, float64 ``[P, C, L]``; a missing one is the last one observed
            before it.
        seen: whether the last k of them were observed, ``[P, C, k]``; the last n k, where n
            segments are read anew and there are gaps.
        gap: steps since a value was observed, ``[P, C]``; infinite while none ever was.
        age: steps since the first value, itself counted, ``[P, C]``; 0 while there is none.
        taken: steps taken, int64 ``[P]``; step n belongs to chain n mod k.
        hidden: the state of every chain of every member; leaves are ``[P, C * k, ...]``. None is
            carried where the look-back is read anew at every step.
    """

    ring: Tensor
    seen: Tensor
    gap: Tensor
    age: Tensor
    taken: Tensor
    hidden: tuple[State, ...]


class Forecaster(nn.Module):
    """Forecasts S steps of C series from every step, at a cost that no length of the past changes.

    Each series goes through the same weights on its own. A step reads a *segment*, the last k
    values, and takes the hidden state left k steps ago, so k chains are interleaved and each of
    them runs k times slower than the series (a dilated recurrence: Chang et al., 2017,
    arXiv:1710.02224). With the last observed value a and the ring of the last L values::

        v = 1 - min(n, L) / L
        s = mean |ring - mean(ring)| + v max(r mean |ring|, m) + 1e-3 mean |ring| + 1e-6
        z = (ring - a) / s
        u = [z_{L-k+1..L}, (a - ring_{L-k}) / s, v, features]
        h_t = cell(u, h_{t-k})
        c_{t+1..t+S} = V h_t + W z + b + g(h_t, ahead_{t+1..t+S})

    and what is said of the values to come follows from c, a and s (`segue.tasks.distributions`);
    of quantiles it is ``a + s c``. For counts a is 0 and s is ``1 + mean |ring|``: they are scaled
    and not shifted. With ``level="mean"`` a is the mean of the last min(n, L) values instead (Kim
    et al., 2022, RevIN), which one value out of the ordinary hardly moves.

    v is not 0 in the first L steps of a series, whose own n values tell little of its scale: r is
    the usual spread of the training series in units of their level, and m the least spread of any.

    W starts at zero: a linear autoregression beside the recurrence (Lai et al., 2018,
    arXiv:1703.07015); see `segue.member` for one that is shared along the season, and for g, which
    is there where inputs are known ahead.

    With ``memory="window"`` nothing but the ring is carried: every step reads the look-back anew,
    from a fresh state on, its n = L // k segments all in units of the present::

        u_i = [z_{L-k(n-i+1)+1..L-k(n-i)}, v, features_t]     i = 1..n
        h_t = the state of the cell after u_1, ..., u_n

    So all that is remembered is measured from the same level, and is forgotten after L steps (Lin
    et al., 2023, SegRNN, arXiv:2308.11200). A step costs n steps of the cell.

    There may be several members, each a cell with V, W, b and g of its own, which learn side by
    side, each by its own loss; c is then their mean. Networks that differ in nothing but their
    first weights err differently, so their mean errs less (Hansen and Salamon 1990).

    A missing value stands in the ring as the last one observed. Where series have gaps, z is 0 in
    u where the value is missing, and u ends with k flags (1: observed) and ``log(1 + gap)``, the
    steps up to t since a value was observed. Before its first value ever a ring holds that first
    value throughout; until then the forecast is NaN.

    Args:
        cells: the law of memory of each member, over `Forecaster.inputs` inputs.
        task: fitted; says horizon S, distribution, season, gaps, and r and m of each column.
        features: F, other features per step.
        ahead: K, features known ahead per step.
        segment, lookback: k and L, which is at least k + 1.
        skip: W is a ``full`` matrix, ``seasonal``, or ``adaptive``.
        decoder: g takes each step ahead alone (``step``) or one after the other (``recurrent``).
        memory: the hidden state is ``carried``, or that of the ``window`` of the look-back.
        level: a is the ``last`` value, or the ``mean`` of the look-back.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        task: Forecast,
        *,
        features: int,
        ahead: int,
        segment: int,
        lookback: int,
        skip: Literal["full", "seasonal", "adaptive"] = "full",
        decoder: Literal["step", "recurrent"] = "step",
        memory: Memory = "carried",
        level: Level = "last",
    ) -> None:
        super().__init__()
        inputs = self.inputs(segment, features, task.gaps, memory)
        assert lookback > segment and all(cell.inputs == inputs for cell in cells)
        self.segment, self.lookback, self.gaps = segment, lookback, task.gaps
        self.horizon, self.distribution = task.horizon, task.distribution
        self.segments = lookback // segment if memory == "window" else 1
        self.memory, self.level = memory, level
        self.members = nn.ModuleList(
            Member(cell, task, ahead=ahead, lookback=lookback, skip=skip, decoder=decoder)
            for cell in cells
        )
        # What the fitted task says is saved with the task.
        self.typical: Tensor
        typical = torch.tensor(task.typical, dtype=torch.float64)
        self.register_buffer("typical", typical, persistent=False)
        self.calibrated: Tensor
        shift = torch.tensor(task.shift, dtype=torch.float64)
        self.register_buffer("calibrated", shift, persistent=False)

    def _members(self) -> Iterator[Member]:
        for member in self.members:
            assert isinstance(member, Member)
            yield member

    @staticmethod
    def inputs(segment: int, features: int, gaps: bool, memory: Memory = "carried") -> int:
        """I, the inputs that the cell must take."""
        own = segment + (2 if memory == "carried" else 1)
        return own + features + (segment + 1 if gaps else 0)

    @property
    def numbers_per_step(self) -> int:
        """About how many numbers a step of one series makes; for bounds on memory."""
        members = sum(
            member.numbers_per_step + 8 * (self.segments - 1) * member.cell.outputs
            for member in self._members()
        )
        return 3 * self.lookback + members

    def initial_state(self, batch: int, series: int) -> ForecasterState:
        """Nothing seen yet, of P = `batch` sequences of C = `series` series."""
        chains = series * self.segment
        return ForecasterState(
            ring=torch.zeros(batch, series, self.lookback, dtype=torch.float64),
            seen=torch.zeros(batch, series, self._flags),
            gap=torch.full((batch, series), torch.inf, dtype=torch.float64),
            age=torch.zeros(batch, series, dtype=torch.float64),
            taken=torch.zeros(batch, dtype=torch.int64),
            hidden=tuple(
                _nested(member.cell.initial_state(batch * chains), batch, chains)
                for member in self._members()
                if self.memory == "carried"
            ),
        )

    @property
    def _flags(self) -> int:
        """Of how many of the last values is known whether they were observed."""
        return self.segment * (self.segments if self.gaps else 1)

    def unroll(
        self, values: Ragged, features: Tensor, at: Tensor, ahead: Tensor, state: ForecasterState
    ) -> tuple[Tensor, Tensor, ForecasterState]:
        """Takes every step and carries the state.

        Args:
            values: P sequences of n steps in all, float64 ``[n, C]``, NaN where not observed.
            features: ``[n, F]``.
            at: the steps from which to forecast, int64 ``[M]`` into n.
            ahead: ``[M, S, K]``.
            state: of P sequences.

        Returns:
            forecasts float64 ``[M, C, S, P]`` (NaN from steps before any value was observed), the
            scale s ``[M, C]`` of each, and the state after the last step of each sequence.
        """
        past = _Past(values, state)
        if self.memory == "window":
            hidden, carried = self._read_anew(past, at, features), ()
        else:
            hidden, carried = self._carry(past, at, features, state)
        changes, level, scale = self._changes(past, hidden, at, ahead)
        # In one order, so that native sums are the same.
        change = sum(changes[1:], start=changes[0]) / len(changes)
        forecast = self._said(past, change, level, scale, at)
        after_all = past.state(self._flags, state.taken + values.lengths, carried)
        return forecast, scale.reshape(len(at), past.series), after_all

    def _carry(
        self, past: _Past, at: Tensor, features: Tensor, state: ForecasterState
    ) -> tuple[list[Tensor], tuple[State, ...]]:
        """The hidden state of each member after the steps `at`, ``[M * C, H]``, and what is carried
        on after the last step of each sequence.
        """
        values, k, series, batch = past.values, self.segment, past.series, past.values.batch
        # The steps of one chain one after another: chain (p, c, phase) takes every k-th step of
        # series c of sequence p.
        rows = values.rows()
        phase = (state.taken[rows] + values.times()) % k
        chain = ((rows * series * k + phase)[:, None] + torch.arange(series) * k).flatten()
        order = chain.argsort(stable=True)
        lengths = torch.bincount(chain, minlength=batch * series * k)
        inputs = self._inputs(past, order // series, order % series, features)
        wanted = (at[:, None] * series + torch.arange(series)).flatten()
        hidden, carried = [], []
        for member, before in zip(self._members(), state.hidden, strict=True):
            flat = ops.map_state(lambda leaf: leaf.flatten(0, 1), before)
            chains, after = unroll(member.cell, Ragged(inputs, lengths), flat)
            by_step = torch.empty_like(chains.values).index_copy(0, order, chains.values)
            hidden.append(by_step[wanted])
            carried.append(_nested(after, batch, series * k))
        return hidden, tuple(carried)

    def _read_anew(self, past: _Past, at: Tensor, features: Tensor) -> list[Tensor]:
        """The hidden state of each member after the segments up to `at`, ``[M * C, H]``."""
        step, column = past.everywhere(at)
        ring, level, scale = self._scaled(past, step, column)
        k, count = self.segment, self.segments
        recent = ((ring[:, -count * k :] - level) / scale).float()
        parts = [recent.reshape(-1, count, k)]
        beside = [self._young(past, step, column).float(), features[step]]
        if self.gaps:
            flags = past.flags(step, column, count * k).reshape(-1, count, k)
            parts = [parts[0] * flags, flags]
            beside.append(_waited(past, step, column))
        parts.append(torch.cat(beside, dim=1)[:, None].expand(-1, count, -1))
        inputs, lengths = torch.cat(parts, dim=2), torch.full((len(step),), count)
        hidden = []
        for member in self._members():
            after, _ = unroll(member.cell, Ragged(inputs.flatten(0, 1), lengths))
            hidden.append(after.values[count - 1 :: count])
        return hidden

    def settled(self, forecast: Tensor, scale: Tensor) -> Tensor:
        """What `unroll` gives, in the form in which it leaves the network."""
        return self.distribution.settled(forecast, scale, self.calibrated)

    def windows(self, values: Ragged, features: Tensor, at: Tensor, ahead: Tensor) -> Tensor:
        """For training: one chain per series, through the steps `at` alone, from the initial state,
        where the state is carried.

        Args:
            values, features: as for `unroll`; steps before the first of `at` are only looked back
                on.
            at: the ends of the segments, int64 ``[M]`` into n: of each sequence k steps apart, in
                order.
            ahead: ``[M, S, K]``.

        Returns:
            forecasts of each member, float64 ``[members, M, C, S, P]``, from the steps `at`.
        """
        series = values.values.shape[1]
        past = _Past(values, self.initial_state(values.batch, series))
        hidden = (
            self._read_anew(past, at, features)
            if self.memory == "window"
            else self._chains(past, at, features)
        )
        changes, level, scale = self._changes(past, hidden, at, ahead)
        return torch.stack([self._said(past, one, level, scale, at) for one in changes])

    def _chains(self, past: _Past, at: Tensor, features: Tensor) -> list[Tensor]:
        """`_carry` through the steps `at` alone."""
        values, series = past.values, past.series
        owner = values.rows()[at]
        lengths = torch.bincount(owner, minlength=values.batch).repeat_interleave(series)
        chain = ((owner * series)[:, None] + torch.arange(series)).flatten()
        order = chain.argsort(stable=True)
        inputs = self._inputs(past, at[order // series], order % series, features)
        hidden = []
        for member in self._members():
            chains, _ = unroll(member.cell, Ragged(inputs, lengths))
            hidden.append(torch.empty_like(chains.values).index_copy(0, order, chains.values))
        return hidden

    def emit(
        self, program: Program, values: Slot, features: Slot, at: Slot, ahead: Slot
    ) -> tuple[Slot, State]:
        """Adds `unroll` to a program.

        Args:
            program: what to add it to.
            values, features, at, ahead: the slots of what `unroll` takes.

        Returns:
            the slot of the forecasts, `settled`, and the state with the numbers of the program's in
            place of tensors.

        Raises:
            NoForm: the cell has none.
        """
        if not isinstance(self.distribution, Quantiles):
            raise NoForm(f"a forecast by {type(self.distribution).__name__}")
        like = self.initial_state(1, program.last_axis(values))
        numbers: list[Any] = [
            program.state(name, leaf.shape[1:], leaf.dtype)
            for name, leaf in zip(like._fields[:5], like[:5], strict=True)
        ]
        is_fresh, series = self.memory == "window", like.ring.shape[1]
        anew, chains = (self.segments, series) if is_fresh else (0, series * self.segment)
        how = self.segment, anew, self.gaps, self.level == "mean"
        past = program.segments(values, features, at, how, numbers, self.typical.tolist())
        at_chains = Place(program, past.lengths, (chains,), fresh=is_fresh)
        changes, bodies = [], []
        for member in self._members():
            hidden, body = emit(member.cell, at_chains, past.inputs)
            wanted = program.take(hidden, past.place)
            changes.append(member.emit(program, wanted, past.scaled, ahead))
            bodies.append(body)
        change = program.mean_of(changes)
        shift, place = self.calibrated, self.distribution.middle
        moved = shift.flatten().tolist() if shift.any() else []
        forecast = program.rescale(past, change, self.horizon, moved, place)
        state: Any = ForecasterState
        return forecast, state(*numbers, () if is_fresh else tuple(bodies))

    def _inputs(self, past: _Past, step: Tensor, column: Tensor, features: Tensor) -> Tensor:
        """u of the equation, ``[rows, I]``, for each (step, column)."""
        ring, level, scale = self._scaled(past, step, column)
        k = self.segment
        recent = ((ring[:, -k - 1 :] - level) / scale).float()
        change = torch.cat([-recent[:, :1], self._young(past, step, column).float()], dim=1)
        if not self.gaps:
            return torch.cat([recent[:, 1:], change, features[step]], dim=1)
        flags, waited = past.flags(step, column, k), _waited(past, step, column)
        return torch.cat([recent[:, 1:] * flags, change, features[step], flags, waited], dim=1)

    def _scaled(self, past: _Past, step: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ring ``[rows, L]``, level a ``[rows, 1]`` and scale s ``[rows, 1]``."""
        ring = past.ring(step, column)
        mean = ring.abs().mean(1, keepdim=True)
        if not self.distribution.shifts:
            return ring, torch.zeros_like(mean), 1 + mean
        deviation = (ring - ring.mean(1, keepdim=True)).abs().mean(1, keepdim=True)
        relative, least = self.typical[:, column, None]
        usual = self._young(past, step, column) * torch.maximum(relative * mean, least)
        level = ring[:, -1:]
        if self.level == "mean":
            # Before L values have come, the first one fills the ring: the differences to it are 0.
            first, age = ring[:, :1], past.age(step, column)[:, None]
            own = age.clamp(min=1, max=self.lookback)
            level = first + (ring - first).sum(1, keepdim=True) / own
        return ring, level, deviation + usual + 1e-3 * mean + 1e-6

    def _young(self, past: _Past, step: Tensor, column: Tensor) -> Tensor:
        """v of the equation, ``[rows, 1]``."""
        age = past.age(step, column)[:, None]
        return 1 - age.clamp(max=self.lookback) / self.lookback

    def _changes(
        self, past: _Past, hidden: Sequence[Tensor], at: Tensor, ahead: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """c of each member ``[M * C, S, P]`` from hidden states ``[M * C, H]``; a and s
        ``[M * C, 1]``.
        """
        step, column = past.everywhere(at)
        ring, level, scale = self._scaled(past, step, column)
        z = ((ring - level) / scale).float()
        pairs = zip(self._members(), hidden, strict=True)
        return [member(own, z, ahead) for member, own in pairs], level, scale

    def _said(
        self, past: _Past, change: Tensor, level: Tensor, scale: Tensor, at: Tensor
    ) -> Tensor:
        """What c says of the values to come, ``[M, C, S, P]``."""
        step, column = past.everywhere(at)
        forecast = self.distribution.linked(change, level, scale)
        started = ~past.gap(step, column).isinf()
        forecast = torch.where(started[:, None, None], forecast, torch.nan)
        return forecast.reshape(len(at), past.series, *forecast.shape[1:])


class _Past:
    """What ring, flags and gap are at any step of a batch, without making them for every step."""

    def __init__(self, values: Ragged, before: ForecasterState) -> None:
        self.values, self.series = values, values.values.shape[1]
        self._before, self._lengths = before, values.lengths
        self._rows, self._times = values.rows(), values.times()
        steps = max(1, values.longest)
        known = values.values.nan_to_num(nan=0.0)
        x = values.with_values(known).to_padded(steps).transpose(1, 2)
        seen = values.with_values(~values.values.isnan()).to_padded(steps).transpose(1, 2)
        time = torch.arange(steps)
        # When a value was last observed, -1 for not yet; and first, `steps` for never.
        latest = torch.where(seen, time, -1).cummax(2).values
        first = torch.where(seen, time, steps).amin(2)
        begins = before.gap.isinf() & (first < steps)
        # The ring that the first value will fill may stand here before that value comes: until
        # then z is 0 whatever constant the ring holds.
        opening = x.gather(2, first.clamp(max=steps - 1)[..., None])
        ring = torch.where(begins[..., None], opening, before.ring)
        filled = torch.where(latest >= 0, x.gather(2, latest.clamp(min=0)), ring[..., -1:])
        waited = before.gap[..., None] + 1 + time
        # Entries before the first step, then one per step.
        self._values = torch.cat([ring, filled], dim=2)
        self._seen = torch.cat([before.seen, seen.float()], dim=2)
        self._gap = torch.where(latest >= 0, (time - latest).double(), waited)
        older = before.age[..., None] + 1 + time
        own = (time - first[..., None] + 1).clamp(min=0).double()
        self._age = torch.where(before.age[..., None] > 0, older, own)

    def everywhere(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The steps `at` of every column, step by step: both ``[M * C]``."""
        return at.repeat_interleave(self.series), torch.arange(self.series).repeat(len(at))

    def _window(self, table: Tensor, step: Tensor, column: Tensor, width: int) -> Tensor:
        """The `width` entries of `table` up to each (step, column): ``[rows, width]``."""
        before = table.shape[2] - self._gap.shape[2]
        start = self._times[step] + before + 1 - width
        return table.unfold(2, width, 1)[self._rows[step], column, start]

    def ring(self, step: Tensor, column: Tensor) -> Tensor:
        """The last L values, ``[rows, L]``."""
        return self._window(self._values, step, column, self._before.ring.shape[2])

    def flags(self, step: Tensor, column: Tensor, count: int) -> Tensor:
        """Which of the last `count` values were observed, ``[rows, count]``."""
        return self._window(self._seen, step, column, count)

    def gap(self, step: Tensor, column: Tensor) -> Tensor:
        """Steps since a value was observed, ``[rows]``; infinite while none ever was."""
        return self._gap[self._rows[step], column, self._times[step]]

    def age(self, step: Tensor, column: Tensor) -> Tensor:
        """Steps since the first value, itself counted, ``[rows]``."""
        return self._age[self._rows[step], column, self._times[step]]

    def state(self, flags: int, taken: Tensor, hidden: tuple[State, ...]) -> ForecasterState:
        """The state after the last step of each sequence."""
        rows, columns = torch.arange(len(self._lengths))[:, None], torch.arange(self.series)
        end = self._lengths[:, None].expand(-1, self.series)
        gaps = torch.cat([self._before.gap[..., None], self._gap], dim=2)
        ages = torch.cat([self._before.age[..., None], self._age], dim=2)
        return ForecasterState(
            ring=self._values.unfold(2, self._before.ring.shape[2], 1)[rows, columns, end],
            seen=self._seen.unfold(2, flags, 1)[rows, columns, end],
            gap=gaps[rows, columns, end],
            age=ages[rows, columns, end],
            taken=taken,
            hidden=hidden,
        )


def _waited(past: _Past, step: Tensor, column: Tensor) -> Tensor:
    """``log(1 + gap)``, ``[rows, 1]``; 0 while nothing was observed."""
    gap = past.gap(step, column)
    # The bits of torch's log1p depend on how many elements there are.
    return (1 + torch.where(gap.isinf(), 0.0, gap)).log()[:, None].float()


def _nested(state: State, batch: int, chains: int) -> State:
    """The state of ``P * chains`` rows with leading axis P."""
    return ops.map_state(lambda leaf: leaf.reshape(batch, chains, *leaf.shape[1:]), state)
