"""Back-propagation through time in segments: memory for the square root of the steps.

The way there keeps the states at the borders of the segments alone; the way back runs each segment
once more from its border, the last one first (Chen et al., 2016, arXiv:1604.06174). With T steps in
segments of S, T / S states and the intermediate values of S steps are held at a time. It is one
autograd function over all segments, since a graph of T steps would need memory for T steps even
with nothing saved in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from segue.errors import SpecError
from segue.ops import State, leaves, map_state
from segue.ragged import Ragged

Checkpoint: TypeAlias = Literal["sqrt"] | int

# x, the state, reset flags [N] -> y [N, O], the final state.
Resetting: TypeAlias = Callable[[Ragged, State, Tensor | None], tuple[Tensor, State]]
Lent: TypeAlias = dict[str, Tensor]


def segment_steps(checkpoint: Checkpoint, longest: int) -> int:
    """How many steps a segment has: so many, or for ``"sqrt"`` the root of T, rounded up.

    Raises:
        SpecError: neither "sqrt" nor a whole number from 1.
    """
    if checkpoint == "sqrt":
        return math.isqrt(max(longest, 1) - 1) + 1
    if isinstance(checkpoint, bool) or not isinstance(checkpoint, int) or checkpoint < 1:
        expected = '"sqrt" or a number of steps from 1'
        fix = "give one of the two, or leave checkpoint out"
        raise SpecError("unroll.checkpoint", expected, repr(checkpoint), fix)
    return checkpoint


def scan_in_segments(
    layer: nn.Module, scan: Resetting, x: Ragged, state: State, flags: Tensor | None, steps: int
) -> tuple[Tensor, State]:
    """A scan with the gradients of `scan` and the memory of a segment.

    Where no gradient is needed it is the scan itself. Random numbers are drawn segment by segment,
    and the same ones again on the way back.

    Args:
        layer: what holds the weights that the scan reads.
        scan: the way through time.
        x: the inputs, ``[N, I]``.
        state: the state of B rows before the first step.
        flags: reset flags ``[N]``, or None.
        steps: the steps of a segment.

    Returns:
        y ``[N, O]``, and the state of each sequence after its own last step.

    Raises:
        SpecError: the scan reads a tensor with a gradient that is no parameter of the layer; or, on
            the way back, gradients are to be differentiated again.
    """
    tensors = [x.values, *leaves(state), *layer.parameters()]
    needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if not needed or x.total == 0:
        return scan(x, state, flags)
    template = map_state(Tensor.detach, state)
    segments = _Segments(_Scanned(layer, scan), template, x, flags, steps)
    y, *final = _InSegments.apply(segments, *tensors)  # type: ignore[no-untyped-call]
    return y, _with_leaves(template, final)


class _Scanned(nn.Module):
    """A scan as a module, so that other tensors can be lent to it as its weights."""

    def __init__(self, layer: nn.Module, scan: Resetting) -> None:
        super().__init__()
        self.layer, self.scan = layer, scan

    def forward(self, x: Ragged, state: State, flags: Tensor | None) -> tuple[Tensor, State]:
        return self.scan(x, state, flags)


class _Segments:
    """A scan cut into segments of the same times in all sequences.

    Sequences stand from long to short, so that those without steps in a segment are the last rows.
    """

    def __init__(
        self, module: _Scanned, template: State, x: Ragged, flags: Tensor | None, steps: int
    ) -> None:
        self.module, self.template, self.flags, self.steps = module, template, flags, steps
        self.width = sum(1 for _ in leaves(template))
        self.names = [name for name, _ in module.named_parameters()]
        self.count = -(-x.longest // steps)
        self._order = x.lengths.argsort(descending=True, stable=True)
        self._back = self._order.argsort()
        self._lengths, self._starts = x.lengths[self._order], x.offsets[:-1][self._order]
        self._autocast = _autocast(x.values.device.type)

    def sorted(self, rows: Tensor) -> Tensor:
        """One row per sequence, from long to short."""
        return rows[self._order.to(rows.device)]

    def restored(self, rows: Tensor) -> Tensor:
        """The rows of `sorted` as they were."""
        return rows[self._back.to(rows.device)]

    def running(self, segment: int) -> int:
        """How many sequences have steps in a segment."""
        return int((self._lengths > segment * self.steps).sum())

    def places(self, segment: int) -> tuple[Tensor, Tensor]:
        """The rows of x that a segment consists of, and the lengths of its sequences."""
        first, running = segment * self.steps, self.running(segment)
        lengths = (self._lengths[:running] - first).clamp(max=self.steps)
        shift = self._starts[:running] + first - (lengths.cumsum(0) - lengths)
        rows = torch.repeat_interleave(lengths)
        return torch.arange(len(rows), device="cpu") + shift[rows], lengths

    def lend(self, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """Stand-ins for the weights, whose gradients are then summed here and run no hooks."""
        return dict(zip(self.names, map(_leaf, weights), strict=True))

    def run(self, segment: int, x: Tensor, start: Sequence[Tensor], lent: Lent) -> _Ran:
        """A segment with its graph, which begins at what is given here."""
        places, lengths = self.places(segment)
        places = places.to(x.device)
        inputs = _leaf(x.detach()[places], x.requires_grad)
        flags = None if self.flags is None else self.flags[places.to(self.flags.device)]
        given = Ragged(inputs, lengths), _with_leaves(self.template, start), flags
        with torch.enable_grad(), self._autocast():
            y, state = torch.func.functional_call(self.module, lent, given)
        return _Ran(places, inputs, y, list(leaves(state)))


@dataclass(frozen=True)
class _Ran:
    """What a segment made of its inputs: y for the rows ``places`` of x, the state after it."""

    places: Tensor
    inputs: Tensor
    y: Tensor
    state: list[Tensor]


class _Border(NamedTuple):
    """What a segment started from: its state, and the generators of random numbers."""

    state: list[Tensor]
    random: Tensor
    devices: list[int]
    device_random: list[Tensor]


class _InSegments(torch.autograd.Function):
    """segments, x ``[N, I]``, state, weights -> y ``[N, O]``, final state."""

    @staticmethod
    def forward(ctx: Any, segments: _Segments, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given, weights = rest[: segments.width], rest[segments.width :]
        lent = segments.lend(weights)
        state = [_leaf(segments.sorted(leaf), leaf.requires_grad) for leaf in given]
        borders: list[_Border] = []
        ended: list[list[Tensor]] = []
        y, at = x.new_empty(0), 0
        counts = [segments.running(segment) for segment in range(segments.count)]
        for segment, running in enumerate(counts):
            ended.append([leaf[running:] for leaf in state])
            start = [_leaf(leaf[:running], leaf.requires_grad) for leaf in state]
            borders.append(_border(start, x, borders))
            ran = segments.run(segment, x, start, lent)
            if segment == 0:
                _refuse_strays(ran, [ran.inputs, *start, *lent.values()])
                y = ran.y.new_empty(x.shape[0], *ran.y.shape[1:])
                # All borders in one piece: small ones, each made between the large tensors of two
                # segments, would keep the memory of these from being used again.
                held = [leaf.new_empty(sum(counts), *leaf.shape[1:]) for leaf in ran.state]
            y[ran.places] = ran.y.detach()
            # Copies, since the state may be a view of all that the segment made.
            state = [
                _leaf(_copied(leaf.detach(), all_[at : at + running]), leaf.requires_grad)
                for all_, leaf in zip(held, ran.state, strict=True)
            ]
            at += running
            # Else the graph of this segment would live until the next one is made.
            del ran
        ctx.segments, ctx.borders = segments, borders
        ctx.save_for_backward(x, *weights)
        parts = zip(state, *reversed(ended), strict=True)
        final = [segments.restored(_rows(part)) for part in parts]
        needs = [a.requires_grad or b.requires_grad for a, b in zip(state, given, strict=True)]
        ctx.mark_non_differentiable(*(f for f, n in zip(final, needs, strict=True) if not n))
        return y, *final

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dfinal: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            got = "create_graph=True, for gradients of gradients"
            raise SpecError("unroll.checkpoint", "a plain backward", got, "leave checkpoint out")
        segments: _Segments = ctx.segments
        x, *weights = ctx.saved_tensors
        lent = segments.lend(weights)
        dx = torch.zeros_like(x) if x.requires_grad else None
        dweights: list[Tensor | None] = [None] * len(weights)
        ends = [segments.sorted(d) for d in dfinal]
        dstate, later = [end[:0] for end in ends], 0
        for segment in reversed(range(segments.count)):
            border, running = ctx.borders[segment], segments.running(segment)
            dstate = [_rows([d, e[later:running]]) for d, e in zip(dstate, ends, strict=True)]
            with _replayed(border, x.device.type):
                ran = segments.run(segment, x, border.state, lent)
            inputs = [ran.inputs, *border.state, *lent.values()]
            dinputs, *found = _gradients(ran, [dy[ran.places], *dstate], inputs)
            if dx is not None and dinputs is not None:
                dx[ran.places] = dinputs
            dstate = [
                torch.zeros_like(leaf) if d is None else d
                for leaf, d in zip(border.state, found, strict=False)
            ]
            dweights = list(map(_sum, dweights, found[segments.width :]))
            later = running
            del ran, inputs, dinputs
        whole = zip(dstate, ends, strict=True)
        dstart = [segments.restored(_rows([d, end[later:]])) for d, end in whole]
        return None, dx, *dstart, *dweights


def _border(state: list[Tensor], x: Tensor, before: Sequence[_Border]) -> _Border:
    """The border before a segment."""
    random = torch.get_rng_state()
    if before and torch.equal(before[-1].random, random):
        # The generator has 5 kB, and most layers draw nothing.
        random = before[-1].random
    return _Border(state, random, *get_device_states(x))


def _gradients(
    ran: _Ran, doutputs: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradient of each input, None where it has none."""
    outputs = zip([ran.y, *ran.state], doutputs, strict=True)
    pairs = [(output, d) for output, d in outputs if output.requires_grad]
    needing = [given for given in inputs if given.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    heads, tails = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(heads, needing, tails, allow_unused=True))
    return [next(found) if given.requires_grad else None for given in inputs]


def _refuse_strays(ran: _Ran, known: Sequence[Tensor]) -> None:
    """Refuses a graph that begins at other tensors: their gradients would silently be missing."""
    allowed = {id(tensor) for tensor in known}
    todo = [output.grad_fn for output in (ran.y, *ran.state)]
    seen = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in allowed:
            expected = "gradients for x, the state and the parameters of the layer alone"
            got = f"a layer that reads another tensor with a gradient, of shape {list(leaf.shape)}"
            fix = "make it a parameter of the layer, or leave checkpoint out"
            raise SpecError("unroll.checkpoint", expected, got, fix)


def _copied(leaf: Tensor, to: Tensor) -> Tensor:
    """A copy in memory that is there for it, or, of a state that grows, in its own."""
    return to.copy_(leaf) if to.shape == leaf.shape and to.dtype == leaf.dtype else leaf.clone()


def _leaf(tensor: Tensor, needs_gradient: bool | None = None) -> Tensor:
    """The tensor as the beginning of a graph."""
    needs = tensor.requires_grad if needs_gradient is None else needs_gradient
    return tensor.detach().requires_grad_(needs)


def _with_leaves(template: State, tensors: Sequence[Tensor]) -> State:
    """A state of the template's structure."""
    given = iter(tensors)
    return map_state(lambda _: next(given), template)


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts; one without rows may have another shape than the others."""
    filled = [part for part in parts if len(part)]
    return torch.cat(filled) if filled else parts[0]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _autocast(device: str) -> Callable[[], torch.autocast]:
    """Enters autocast as it is now."""
    enabled = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled)


@contextmanager
def _replayed(border: _Border, device: str) -> Iterator[None]:
    """The random numbers that were drawn after a border, once more."""
    kind = "cuda" if device == "cpu" else device
    with torch.random.fork_rng(border.devices, device_type=kind):
        torch.set_rng_state(border.random)
        set_device_states(border.devices, border.device_random, device_type=kind)
        yield
