"""A law: the equation of a recurrence with its weights, and how it is carried through time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias, cast

import torch
from torch import Tensor

from segue import ops
from segue.ops import State
from segue.ragged import Ragged, one_step

# What the native kernels lack, in the words of `Law.options` and `Noise.options`.
NATIVE_LACKS = {"custom activation"}

# What torch's fused functions lack, likewise.
FUSED_LACKS = {
    *("sigmoid activation", "identity activation", "custom activation"),
    "reset gate before the recurrent product",
    *("layer norm", "peepholes", "recurrent dropout", "zoneout", "bfloat16 products"),
}


@dataclass(frozen=True, eq=False)
class Noise:
    """What disturbs a recurrence, drawn beforehand: the law itself draws nothing.

        h' = m * h_{t-1}                              recurrent dropout
        h_t = d_t * h_{t-1} + (1 - d_t) * h~_t        zoneout; c_t alike, with a d_t of its own

    The recurrent product sees h', and it alone: what a GRU's z keeps, and what zoneout keeps, is
    h_{t-1}. h~_t and c~_t are what the law gives; h~_t is made of c~_t, not of c_t.

    Args:
        mask: m ``[B, R]``, the same at all steps of a sequence; None for ones.
        rates: the probability of d_t = 1, one for each tensor of the state; () for no zoneout.
        keep: d_t as bool ``[N, units]`` for the N steps at hand, one for each tensor of the state;
            None where d_t is its expectation, the rate.
    """

    mask: Tensor | None = None
    rates: tuple[float, ...] = ()
    keep: tuple[Tensor | None, ...] = ()

    @property
    def has_zoneout(self) -> bool:
        """Whether units may keep their old value."""
        return any(self.rates)

    def of(self, index: int) -> tuple[Tensor | None, float]:
        """Draws and rate of one tensor of the state."""
        keep = self.keep[index] if self.keep else None
        return keep, self.rates[index] if self.rates else 0.0

    def options(self) -> tuple[str, ...]:
        """What there is, in words."""
        dropout = () if self.mask is None else ("recurrent dropout",)
        return (*dropout, "zoneout") if self.has_zoneout else dropout

    def zoned(self, old: State, new: State) -> State:
        """The state after a step, from that before it and what the law gives."""
        return type(new)(*map(_mix, old, new, self.rates, self.keep))


QUIET = Noise()

# The weights that have one name in laws and in what the native kernels are given.
_GIVEN = ("w_xh", "w_hh", "w_hr", "w_c", "gain_x", "gain_h", "gain_c", "b_c", "b_hn")


def _mix(old: Tensor, new: Tensor, rate: float, keep: Tensor | None) -> Tensor:
    if keep is not None:
        return torch.where(keep, old, new)
    return rate * old + (1 - rate) * new if rate else new


class Law(ABC):
    """A recurrent law with its weights: the equation, and the faster forms that must equal it.

    The equation has two parts: `project` takes what depends on the input alone, so that it can be
    done for all steps at once, and `advance` takes the step. What zoneout makes of the step is the
    same for all laws, so it stands in `Noise`.

    Attributes:
        name: what torch's fused form of the law is called in messages.
        w_xh, b_h, w_hh: the weights that all laws have.
        gain_x, gain_h: gains of the layer norms of the two products, or None.
        half: whether what is multiplied is rounded to bfloat16; sums and states are not.
    """

    name: ClassVar[str]
    w_xh: Tensor
    b_h: Tensor
    w_hh: Tensor
    gain_x: Tensor | None
    gain_h: Tensor | None
    half: bool

    @abstractmethod
    def weights(self) -> Sequence[Tensor]:
        """All weights that take part."""

    @abstractmethod
    def options(self) -> tuple[str, ...]:
        """What makes this another than the plain form of the law, in words."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """``[..., I] -> [..., G H]``: the part of the gates that depends on the input alone."""

    @abstractmethod
    def advance(self, p: Tensor, state: State, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """One step without zoneout: the equation.

        Args:
            p: the projected input ``[B, G H]``.
            state: the state before the step.
            mask: m ``[B, R]`` of recurrent dropout; None for ones.
        """

    @abstractmethod
    def given(self, shared: ops.Shared, state: State, noise: Noise) -> ops.Recurrent:
        """What the native kernel is given, from what all laws give it."""

    @abstractmethod
    def fused(self, x: Tensor, is_flagged: bool, state: State) -> tuple[Tensor, ...]:
        """All steps of a padded, time-major batch by torch; see `segue.ops.fused`."""

    def not_native(self, *around: str) -> str | None:
        """What keeps this law, with these options around it, from the native kernel, in words."""
        return _lacks("the native kernel", self._words(around), NATIVE_LACKS)

    def not_fused(self, *around: str) -> str | None:
        """What keeps it from torch's fused function, likewise."""
        return _lacks(f"torch's fused {self.name}", self._words(around), FUSED_LACKS)

    def _words(self, around: tuple[str, ...]) -> tuple[str, ...]:
        return (*self.options(), *(("bfloat16 products",) if self.half else ()), *around)

    def step(self, x: Tensor, state: State, noise: Noise = QUIET) -> tuple[Tensor, State]:
        """One step, ``[B, I]``; native just where `scan` is, so that their bits agree."""
        if self._runs_native(x, state, noise):
            return self._native(x, one_step(x).lengths, state, noise)
        return self._advance(self.project(x), state, noise)

    def scan(
        self, x: Ragged, state: State, noise: Noise = QUIET, *, reverse: bool = False
    ) -> tuple[Tensor, State]:
        """All steps of all sequences, on the fastest path that fits.

        With reverse each sequence is taken from its last step to its first; y and the draws of the
        noise stand where the inputs stand.
        """
        if self._runs_native(x.values, state, noise):
            return self._native(x.values, x.lengths, state, noise, reverse)
        if reverse:
            return _backwards(self.scan, x, state, noise)
        if not self.not_fused(*noise.options()) and ops.fused_runs(self._tensors(x.values, state)):
            return ops.in_buckets(self.fused, x, state)
        return _loop(self._advance, x.with_values(self.project(x.values)), state, noise)

    def _native(
        self, x: Tensor, lengths: Tensor, state: State, noise: Noise, reverse: bool = False
    ) -> tuple[Tensor, State]:
        keep, rate = noise.of(0)
        shared = ops.Shared(
            *(x, lengths, self.w_xh, self.b_h, self.w_hh, self.gain_x, self.gain_h),
            *(noise.mask, state.h, keep, rate, reverse),
        )
        definition = partial(self._meaning, type(state), noise)
        given = self.given(shared, state, noise)
        y, *last = ops.scan(given, definition)
        return y, type(state)(*last[: len(state)])

    def _meaning(
        self, state: Callable[..., State], noise: Noise, given: ops.Recurrent
    ) -> tuple[Tensor, ...]:
        """The native scan as a loop over the equation, a function of all that it was given."""
        same = {name: getattr(given, name) for name in _GIVEN if name in given._fields}
        law: Law = replace(cast(Any, self), **same, b_h=given.b)
        p = law.project(given.x)
        first = state(given.h, given.c) if isinstance(given, ops.LSTM) else state(given.h)
        run = partial(_loop, law._advance)
        x = Ragged(p, given.lengths)
        y, last = _backwards(run, x, first, noise) if given.reverse else run(x, first, noise)
        return y, *last

    def _advance(self, p: Tensor, state: State, noise: Noise) -> tuple[Tensor, State]:
        """A step, zoneout included: the output is h, whatever becomes of h."""
        y, new = self.advance(p, state, noise.mask)
        if not noise.has_zoneout:
            return y, new
        zoned = noise.zoned(state, new)
        return zoned.h.to(y.dtype), zoned

    def _runs_native(self, x: Tensor, state: State, noise: Noise) -> bool:
        tensors = [*self._tensors(x, state), *present(noise.mask)]
        return not self.not_native(*noise.options()) and ops.native_runs(tensors)

    def _tensors(self, x: Tensor, state: State) -> list[Tensor]:
        return [x, *self.weights(), *ops.leaves(state)]


def present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Those that there are."""
    return tuple(tensor for tensor in tensors if tensor is not None)


def _lacks(what: str, options: tuple[str, ...], lacking: Collection[str]) -> str | None:
    missing = [option for option in options if option in lacking]
    return f"{what} has no {' and no '.join(missing)}" if missing else None


Step: TypeAlias = Callable[[Tensor, State, Noise], tuple[Tensor, State]]
Run: TypeAlias = Callable[[Ragged, State, Noise], tuple[Tensor, State]]


def _backwards(run: Run, x: Ragged, state: State, noise: Noise) -> tuple[Tensor, State]:
    """A way through time, taken from the last step of each sequence to its first."""
    keep = (None if k is None else x.with_values(k).reversed().values for k in noise.keep)
    y, last = run(x.reversed(), state, replace(noise, keep=tuple(keep)))
    return x.with_values(y).reversed().values, last


def _loop(step: Step, x: Ragged, state: State, noise: Noise) -> tuple[Tensor, State]:
    """`segue.ops.loop` of a step that sees its own rows of the noise.

    The mask belongs to the sequences and is carried as their states are; the draws belong to the
    steps and are handed over beside their inputs.
    """
    drawn = [keep.to(x.values.dtype) for keep in noise.keep if keep is not None]
    widths = [part.shape[1] for part in (x.values, *drawn)]

    def one(columns: Tensor, carried: State) -> tuple[Tensor, State]:
        before, mask = carried
        inputs, *draws = torch.split(columns, widths, dim=1)
        rest = iter(draws)
        keep = tuple(None if whole is None else next(rest) != 0 for whole in noise.keep)
        own = Noise(None if noise.mask is None else mask, noise.rates, keep)
        y, after = step(inputs, before, own)
        return y, (after, mask)

    beside = torch.cat([x.values, *drawn], dim=1) if drawn else x.values
    mask = () if noise.mask is None else noise.mask
    y, (final, _) = ops.loop(one, x.with_values(beside), (state, mask))
    return y, final
