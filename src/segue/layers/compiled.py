"""`Compiled`: a causal layer as one native call, its weights packed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor, get_num_threads, nn

from segue import ops
from segue.cells import GRU, LSTM, RGLRU, S5, Cell, Elman, LinearCell, MinGRU, MinLSTM, Noise
from segue.errors import ShapeError, SpecError
from segue.layers.causal import Dropout, Residual, Stack, TimeDistributed
from segue.layers.linear import Linear, Readout
from segue.layers.noise import RecurrentDropout, Zoneout
from segue.layers.time import Acausal
from segue.ops import State
from segue.ops.program import Program, Slot

Rates: TypeAlias = tuple[float, ...]
Floats: TypeAlias = NDArray[np.float32]
Values = TypeVar("Values", Floats, Tensor)


class Compiled:
    """A causal layer in evaluation, as one native call::

        step = Compiled(cell)
        state = step.initial_state(batch)
        y, state = step(x, state)

    The answers are, to the bit, those of ``unroll(cell, ...)`` without gradients. Weights are
    copied and packed here: what is changed in the layer afterwards is not seen. A compiled layer
    never changes, so any number of threads may call it.

    NumPy arrays are quickest (a step of a small cell takes a few microseconds, of which torch
    tensors, which are as welcome, would double the count). What goes in says what comes out; a
    state has the structure of the layer's, with arrays in place of tensors.

    Args:
        layer: cells, `Stack`, `Residual`, `Dropout`, `Zoneout`, `RecurrentDropout`, and
            `TimeDistributed` of a `segue.layers.Linear` or `Readout`; float32 on the CPU.

    Attributes:
        inputs: I.
        outputs: O.

    Raises:
        SpecError: the layer is in training, or has no compiled form; `obstacle` says why.

    >>> from segue.cells import GRU
    >>> step = Compiled(GRU(3, 5).eval())
    >>> y, state = step(np.zeros((2, 3), np.float32), step.initial_state(2))
    >>> y.shape, state.h.shape
    ((2, 5), (2, 5))
    """

    def __init__(self, layer: Cell) -> None:
        try:
            program, self._shape = _build(layer)
        except NoForm as reason:
            expected, fix = "a layer that has a native form", "use its own step, and unroll"
            raise SpecError("Compiled", expected, str(reason), fix) from None
        self.inputs, self.outputs = layer.inputs, layer.outputs
        self._first = [leaf.detach().numpy() for leaf in ops.leaves(layer.initial_state(1))]
        self._run, self._native_step = program.run, program.step
        self._flat, self._nested = _flattening(self._shape), _nesting(self._shape)
        self._step: Callable[..., tuple[Any, State]] = self._nested_step
        if _is_row(self._shape):
            # What the native call takes and gives is the state itself.
            program.set_row(type(self._shape))
            self._step = self._native_step

    def initial_state(self, batch: int) -> State:
        """The state of `batch` sequences before their first step, as NumPy arrays."""
        return self._nested([np.repeat(leaf, batch, axis=0) for leaf in self._first])

    def __call__(self, x: Values, state: State) -> tuple[Values, State]:
        """One step of B sequences.

        Args:
            x: float32 ``[B, I]``, contiguous.
            state: what `initial_state` or an earlier call gave; it is left as it was.

        Returns:
            y ``[B, O]``, and the state after the step.

        Raises:
            ShapeError: x or the state are others.
        """
        if type(x) is not ndarray and isinstance(x, Tensor):
            return self._of_torch(None, x, state)
        answer: tuple[Values, State] = self._step(x, state, get_num_threads())
        return answer

    def unroll(self, x: Values, lengths: Sequence[int], state: State) -> tuple[Values, State]:
        """All steps of B sequences, one sequence after another.

        Args:
            x: float32 ``[N, I]``, contiguous.
            lengths: the steps of each sequence; they sum to N.
            state: as for a step.

        Returns:
            y ``[N, O]``, and the state of each sequence after its own last step.

        Raises:
            ShapeError: x, the lengths or the state are others.
        """
        counts = np.asarray(lengths, np.int64)
        if isinstance(x, Tensor):
            return self._of_torch(counts, x, state)
        (y,), leaves = self._run(counts, (x,), self._flat(state), get_num_threads())
        return y, self._nested(leaves)

    def _nested_step(self, x: Floats, state: State, threads: int) -> tuple[Floats, State]:
        y, leaves = self._native_step(x, self._flat(state), threads)
        return y, self._nested(leaves)

    def _of_torch(
        self, lengths: NDArray[np.int64] | None, x: Tensor, state: State
    ) -> tuple[Tensor, State]:
        before = tuple(leaf.detach().numpy() for leaf in self._flat(state))
        (y,), after = self._run(lengths, (x.detach().numpy(),), before, get_num_threads())
        return torch.from_numpy(y), self._nested([torch.from_numpy(leaf) for leaf in after])


def obstacle(layer: Cell | Acausal) -> str | None:
    """Why a layer cannot be compiled, in words; None where it can."""
    try:
        _build(layer)
    except NoForm as reason:
        return str(reason)
    return None


class NoForm(Exception):
    """What has no native form, in words."""


def _build(layer: Cell | Acausal) -> tuple[Program, State]:
    """A program of one layer, and its state with the numbers of the program's in place of tensors.

    Raises:
        NoForm: there is none.
    """
    check_ready(layer)
    program = Program()
    x = program.input("x", "N", [layer.inputs], torch.float32)
    y, state = emit(layer, Place(program), x)
    program.output(program.copy(y) if y == x else y)
    return program, state


def check_ready(module: nn.Module) -> None:
    """Refuses a module that is in training, or whose weights the kernels do not take.

    Raises:
        NoForm: it is so.
    """
    if ops.native_name() is None:
        raise NoForm("an installation without the native module")
    if module.training:
        raise NoForm("one in training mode (call .eval() on it)")
    for weight in module.parameters():
        if weight.dtype != torch.float32 or weight.device.type != "cpu":
            raise NoForm(f"weights of {weight.dtype} on {weight.device.type}")


# What each layer becomes --------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where in a program a layer stands.

    Attributes:
        program: the program.
        lengths: the slot of the lengths of its sequences.
        chains: axes between B and a state's own, where a sequence is several to this layer.
        fresh: its sequences are made in every call anew, M of them, and so are its states.
    """

    program: Program
    lengths: Slot = Program.lengths
    chains: tuple[int, ...] = ()
    fresh: bool = False

    def states(self, layer: Any, *names: str) -> State:
        """The state of a layer, with a number of the program's in place of each tensor."""
        left = iter(names)

        def number(leaf: Tensor) -> Any:
            name, axes = next(left), [*self.chains, *leaf.shape[1:]]
            if self.fresh:
                return self.program.fresh(name, axes, leaf[0])
            return self.program.state(name, axes, leaf.dtype)

        return ops.map_state(number, layer.initial_state(1))


def emit(layer: nn.Module, at: Place, x: Slot) -> tuple[Slot, State]:
    """Adds a layer to a program.

    Returns:
        the slot of its output, and its state with the numbers of the program's in place of tensors.

    Raises:
        NoForm: it has none.
    """
    # The very type: a subclass may have another step.
    form = _FORMS.get(type(layer))
    if form is None:
        raise NoForm(f"{type(layer).__name__}, which has no native form")
    return form(layer, at, x)


def _stack(layer: Stack, at: Place, x: Slot) -> tuple[Slot, State]:
    states = []
    for cell in layer.cells:
        x, state = emit(cell, at, x)
        states.append(state)
    return x, tuple(states)


def _residual(layer: Residual, at: Place, x: Slot) -> tuple[Slot, State]:
    y, state = emit(layer.cell, at, x)
    return at.program.add(x, y), state


def _dropout(layer: Dropout, at: Place, x: Slot) -> tuple[Slot, State]:
    return x, at.states(layer, "mask")


def _by_step(layer: TimeDistributed, at: Place, x: Slot) -> tuple[Slot, State]:
    module = layer.module
    if type(module) not in (Linear, Readout):
        raise NoForm(f"TimeDistributed of {type(module).__name__}, which has no native form")
    return emit_linear(module, at.program, x), ()


def emit_linear(layer: nn.Module, program: Program, x: Slot) -> Slot:
    """Adds W x + b."""
    assert isinstance(layer, Linear)
    return program.affine(x, layer.weight, layer.bias)


def _recurrent_dropout(
    layer: RecurrentDropout, at: Place, x: Slot, rates: Rates = ()
) -> tuple[Slot, State]:
    state = at.states(layer, "mask", "h", "c")
    return _law(layer.body, at, x, rates, state.body)[0], state


def _zoneout(layer: Zoneout, at: Place, x: Slot) -> tuple[Slot, State]:
    if isinstance(layer.body, RecurrentDropout):
        return _recurrent_dropout(layer.body, at, x, layer.rates)
    return _law(layer.body, at, x, layer.rates)


def _law(
    cell: Any, at: Place, x: Slot, rates: Rates = (), state: State | None = None
) -> tuple[Slot, State]:
    """A cell with a law of its own, in what surrounds it."""
    if cell.dtype != "float32":
        raise NoForm(f"{type(cell).__name__} with {cell.dtype} products, which has no native form")
    reason = cell.law().not_native(*Noise(rates=rates).options())
    if reason is not None:
        raise NoForm(f"{type(cell).__name__}: {reason}")
    state = at.states(cell, "h", "c") if state is None else state
    rates = rates or (0.0,) * len(state)
    law: Any = at.program
    held = cell.w_xh, cell.b_h, cell.w_hh
    if type(cell) is Elman:
        options = str(cell.activation), cell.gain_x, cell.gain_h
        return law.elman(x, at.lengths, *state, held, *options, *rates), state
    if type(cell) is LSTM:
        more = cell.w_hr, cell.w_c, cell.gain_x, cell.gain_h, cell.gain_c, cell.b_c
        return law.lstm(x, at.lengths, *state, (*held, *more), rates), state
    if type(cell) is GRU:
        return law.gru(
            x, at.lengths, *state, (*held, cell.b_hn, cell.gain_x, cell.gain_h), *rates
        ), state
    raise NoForm(f"{type(cell).__name__}, which has no native form")


def _linear_cell(cell: LinearCell, at: Place, x: Slot) -> tuple[Slot, State]:
    state = at.states(cell, "h")
    weights = cell.w_xh, cell.b_h, cell.rates()
    return at.program.diagonal(x, at.lengths, state.h, cell.law, weights), state


def _rg_lru(cell: RGLRU, at: Place, x: Slot) -> tuple[Slot, State]:
    state, program = at.states(cell, "h"), at.program
    v = program.affine(x, cell.w_xh, cell.b_h)
    gates = program.affine(v, cell.w_g, cell.b_g, 2 * cell.blocks)
    weights = None, None, cell.rates()
    return program.diagonal(program.join([gates, v]), at.lengths, state.h, cell.law, weights), state


def _s5(cell: S5, at: Place, x: Slot) -> tuple[Slot, State]:
    if cell.w_g is not None:
        raise NoForm("S5 with a gate, which has no native form")
    state, (a, held, read) = at.states(cell, "h"), cell.system()
    h = at.program.diagonal(x, at.lengths, state.h, "s5", (held, torch.zeros_like(a), a))
    y = at.program.affine(h, read, None)
    return at.program.add(y, at.program.affine(x, cell.d, None)), state


_FORMS: dict[type, Callable[..., tuple[Slot, State]]] = {
    Stack: _stack,
    Residual: _residual,
    Dropout: _dropout,
    TimeDistributed: _by_step,
    RecurrentDropout: _recurrent_dropout,
    Zoneout: _zoneout,
    Elman: _law,
    LSTM: _law,
    GRU: _law,
    MinGRU: _linear_cell,
    MinLSTM: _linear_cell,
    RGLRU: _rg_lru,
    S5: _s5,
}


# States between their structure and a row of arrays -----------------------------------------------


def nested(shape: State, leaves: Sequence[Any]) -> State:
    """A state of this structure, whose numbers say which of the leaves stand there."""
    if isinstance(shape, int):
        return leaves[shape]
    if isinstance(shape, dict):
        return {key: nested(part, leaves) for key, part in shape.items()}
    parts = [nested(part, leaves) for part in shape]
    return type(shape)(*parts) if hasattr(shape, "_fields") else tuple(parts)


def _flattening(shape: State) -> Callable[[State], tuple[Any, ...]]:
    """What lists the arrays of a state of this structure; the state itself where it is a row."""
    if _is_row(shape):
        return _itself
    return lambda state: tuple(_flat(shape, state))


def _itself(state: State) -> State:
    return state


def _flat(shape: State, state: State) -> Iterator[Any]:
    if isinstance(shape, int):
        yield state
        return
    if not isinstance(state, tuple) or len(state) != len(shape):
        got = f"{len(state)} parts" if isinstance(state, tuple) else type(state).__name__
        fix = "take it from initial_state or from an earlier step"
        raise ShapeError("state", f"a tuple of {len(shape)} parts", got, fix)
    for part, own in zip(shape, state, strict=True):
        yield from _flat(part, own)


def _nesting(shape: State) -> Callable[[Sequence[Any]], State]:
    if _is_row(shape):
        return partial(tuple.__new__, type(shape))
    return partial(nested, shape)


def _is_row(shape: State) -> bool:
    return isinstance(shape, tuple) and all(isinstance(part, int) for part in shape)
