"""torch.nn's RNN, LSTM and GRU, which also take unequal lengths and resets: change one import.

    from segue.nn import LSTM

Constructor, call, outputs, gate order and ``state_dict`` are torch.nn's (they are its subclasses),
so weights load both ways and a plain padded call is torch's own. What is new, ``lengths=`` and
``reset=``, and PackedSequence and `Ragged` inputs, run through segue's recurrences, with no
sorting, no ``pack_padded_sequence`` and no ``enforce_sorted``. Sizes (see `segue.shapes`): output
``[B, T, D R]`` (``[T, B, D R]`` unless ``batch_first``), states ``[D L, B, R]`` and, for an LSTM's
c, ``[D L, B, H]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from segue.cells import ElmanLaw, ElmanState, GRULaw, GRUState, Law, LSTMLaw, LSTMState
from segue.errors import ShapeError
from segue.layers import as_flags, backward_flags, scan_resetting
from segue.ops import State, native_runs
from segue.ragged import Ragged, as_lengths
from segue.shapes import check

Batch: TypeAlias = Tensor | PackedSequence | Ragged
Lengths: TypeAlias = Tensor | Sequence[int]


class RNN(torch.nn.RNN):
    """torch.nn.RNN with ``lengths=`` and ``reset=``; the equation is that of `segue.cells.Elman`,
    with torch's two biases.
    """

    def forward(
        self,
        input: Any,
        hx: Tensor | None = None,
        *,
        lengths: Lengths | None = None,
        reset: Batch | None = None,
    ) -> tuple[Any, Tensor]:
        """As torch.nn.RNN, and besides:

        Args:
            input: ``[B, T, I]`` (``[T, B, I]`` unless batch_first), ``[T, I]``, a PackedSequence or
                a Ragged.
            hx: h before the first step, ``[D L, B, H]`` (``[D L, H]`` for one sequence); by default
                0.
            lengths: the number of steps of each sequence of a padded input; what lies beyond is not
                read.
            reset: bool, in the container of the input (``[B, T]``); where True, h is 0 before that
                step.

        Returns:
            the output in the container of the input, 0 beyond the lengths, and h after each
            sequence's own last step.

        Raises:
            ShapeError: lengths, reset or hx do not fit the input.
        """
        if _is_for_torch(self, input, lengths, reset):
            return super().forward(input, hx)
        given = None if hx is None else (hx,)
        y, (h,) = _run(self, self._law, ElmanState, input, given, lengths, reset)
        return y, h

    def _law(self, place: str) -> Law:
        w_xh, w_hh, b_xh, b_hh, _ = _weights(self, place)
        return ElmanLaw(w_xh, w_hh, b_xh + b_hh, self.nonlinearity)


class LSTM(torch.nn.LSTM):
    """torch.nn.LSTM with ``lengths=`` and ``reset=``; the equation is that of `segue.cells.LSTM`,
    with torch's two biases.
    """

    def forward(
        self,
        input: Any,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Lengths | None = None,
        reset: Batch | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """As torch.nn.LSTM, and besides ``lengths`` and ``reset`` as in `RNN.forward`.

        Args:
            input: ``[B, T, I]`` (``[T, B, I]`` unless batch_first), ``[T, I]``, a PackedSequence or
                a Ragged.
            hx: h ``[D L, B, R]`` and c ``[D L, B, H]`` before the first step; by default 0.
            lengths: the number of steps of each sequence of a padded input.
            reset: bool, in the container of the input; where True, h and c are 0 before that step.

        Returns:
            the output in the container of the input, and h and c after each sequence's own last
            step.

        Raises:
            ShapeError: lengths, reset or hx do not fit the input.
        """
        if _is_for_torch(self, input, lengths, reset):
            return super().forward(input, hx)
        y, (h, c) = _run(self, self._law, LSTMState, input, hx, lengths, reset)
        return y, (h, c)

    def _law(self, place: str) -> Law:
        w_xh, w_hh, b_xh, b_hh, w_hr = _weights(self, place)
        return LSTMLaw(w_xh, w_hh, b_xh + b_hh, w_hr)


class GRU(torch.nn.GRU):
    """torch.nn.GRU with ``lengths=`` and ``reset=``; the equation is that of `segue.cells.GRU`,
    with torch's two biases.
    """

    def forward(
        self,
        input: Any,
        hx: Tensor | None = None,
        *,
        lengths: Lengths | None = None,
        reset: Batch | None = None,
    ) -> tuple[Any, Tensor]:
        """As torch.nn.GRU, and besides ``lengths`` and ``reset`` as in `RNN.forward`.

        Args:
            input: ``[B, T, I]`` (``[T, B, I]`` unless batch_first), ``[T, I]``, a PackedSequence or
                a Ragged.
            hx: h before the first step, ``[D L, B, H]`` (``[D L, H]`` for one sequence); by default
                0.
            lengths: the number of steps of each sequence of a padded input.
            reset: bool, in the container of the input; where True, h is 0 before that step.

        Returns:
            the output in the container of the input, and h after each sequence's own last step.

        Raises:
            ShapeError: lengths, reset or hx do not fit the input.
        """
        if _is_for_torch(self, input, lengths, reset):
            return super().forward(input, hx)
        given = None if hx is None else (hx,)
        y, (h,) = _run(self, self._law, GRUState, input, given, lengths, reset)
        return y, h

    def _law(self, place: str) -> Law:
        w_xh, w_hh, b_xh, b_hh, _ = _weights(self, place)
        rz, n = b_hh[: 2 * self.hidden_size], b_hh[2 * self.hidden_size :]
        return GRULaw(w_xh, w_hh, b_xh + torch.cat([rz, torch.zeros_like(n)]), n)


def _is_for_torch(
    module: torch.nn.RNNBase, input: object, lengths: Lengths | None, reset: Batch | None
) -> bool:
    """A plain padded call, where the native kernels do not run."""
    if not isinstance(input, Tensor) or lengths is not None or reset is not None:
        return False
    return not native_runs((input, *module.parameters()))


class _Weights(NamedTuple):
    w_xh: Tensor
    w_hh: Tensor
    b_xh: Tensor
    b_hh: Tensor
    w_hr: Tensor | None


def _weights(module: torch.nn.RNNBase, place: str) -> _Weights:
    """torch's weights of one layer and direction; zeros for biases that it does not have."""
    held = dict(module.named_parameters())
    w_xh, w_hh = held[f"weight_ih{place}"], held[f"weight_hh{place}"]
    zeros = w_xh.new_zeros(w_xh.shape[0])
    b_xh, b_hh = held.get(f"bias_ih{place}", zeros), held.get(f"bias_hh{place}", zeros)
    return _Weights(w_xh, w_hh, b_xh, b_hh, held.get(f"weight_hr{place}"))


def _run(
    module: torch.nn.RNNBase,
    law: Callable[[str], Law],
    make: Callable[..., State],
    input: Batch,
    hx: Sequence[Tensor] | None,
    lengths: Lengths | None,
    reset: Batch | None,
) -> tuple[Batch, tuple[Tensor, ...]]:
    """All layers and directions over the ragged form of the input."""
    x = _as_ragged(module, input, lengths)
    flags = None if reset is None else _as_flags(module, x, input, reset)
    is_single = isinstance(input, Tensor) and input.dim() == 2
    starts = _starts(module, x, hx, is_single)
    finals: list[State] = []
    for layer in range(module.num_layers):
        if layer:
            values = torch.nn.functional.dropout(x.values, module.dropout, module.training)
            x = x.with_values(values)
        sides = []
        for suffix in ("", "_reverse")[: _directions(module)]:
            start = make(*(part[len(finals)] for part in starts))
            y, final = _run_direction(law(f"_l{layer}{suffix}"), x, start, flags, bool(suffix))
            sides.append(y)
            finals.append(final)
        x = x.with_values(torch.cat(sides, dim=1) if len(sides) > 1 else sides[0])
    states = tuple(torch.stack(parts).to(x.values.dtype) for parts in zip(*finals, strict=True))
    if is_single:
        states = tuple(state.squeeze(1) for state in states)
    return _as_given(module, x, input), states


def _run_direction(
    law: Law, x: Ragged, start: State, flags: Tensor | None, is_backward: bool
) -> tuple[Tensor, State]:
    def fresh(batch: int) -> State:
        return type(start)(*(part.new_zeros(batch, part.shape[1]) for part in start))

    if not is_backward:
        return scan_resetting(law.scan, fresh, x, start, flags)
    turned = None if flags is None else backward_flags(x, flags)
    y, final = scan_resetting(law.scan, fresh, x.reversed(), start, turned)
    return x.with_values(y).reversed().values, final


def _directions(module: torch.nn.RNNBase) -> int:
    return 2 if module.bidirectional else 1


def _starts(
    module: torch.nn.RNNBase, x: Ragged, hx: Sequence[Tensor] | None, is_single: bool
) -> list[Tensor]:
    """The first states, ``[D L, B, width]`` each."""
    depth = module.num_layers * _directions(module)
    widths = [module.proj_size or module.hidden_size]
    if module.mode == "LSTM":
        widths.append(module.hidden_size)
    if hx is None:
        return [x.values.new_zeros(depth, x.batch, width) for width in widths]
    if is_single:
        hx = [part.unsqueeze(1) for part in hx]
    for part, width in zip(hx, widths, strict=True):
        if part.shape != (depth, x.batch, width):
            expected = f"[D L={depth}, B={x.batch}, {width}]"
            fix = "give one row per layer, direction and sequence"
            raise ShapeError("hx", expected, str(list(part.shape)), fix)
    return list(hx)


def _as_ragged(module: torch.nn.RNNBase, input: Batch, lengths: Lengths | None) -> Ragged:
    if isinstance(input, Tensor):
        padded = _batch_first(module, input, "input", "B T I", {"I": module.input_size})
        full = torch.full((padded.shape[0],), padded.shape[1], device="cpu")
        return Ragged.from_padded(padded, full if lengths is None else as_lengths(lengths))
    if lengths is not None:
        fix = "leave lengths out: the input has its own"
        raise ShapeError("lengths", "a padded input", type(input).__name__, fix)
    x = Ragged.from_packed(input) if isinstance(input, PackedSequence) else input
    check("input", x.values, "N I", {"I": module.input_size})
    return x


def _as_flags(module: torch.nn.RNNBase, x: Ragged, input: Batch, reset: Batch) -> Tensor:
    """Reset flags as bool ``[N]``."""
    if type(reset) is not type(input):
        fix = "give both in one container"
        raise ShapeError("reset", type(input).__name__, type(reset).__name__, fix)
    if isinstance(reset, PackedSequence):
        reset = Ragged.from_packed(reset)
    if isinstance(reset, Tensor) and isinstance(input, Tensor):
        sizes = {"B": x.batch, "T": _steps(module, input)}
        padded = _batch_first(module, reset, "reset", "B T", sizes)
        reset = Ragged.from_padded(padded, x.lengths)
    return as_flags(reset, x)


def _steps(module: torch.nn.RNNBase, input: Tensor) -> int:
    """T of a padded input or of one sequence."""
    return input.shape[1 if module.batch_first and input.dim() == 3 else 0]


def _batch_first(
    module: torch.nn.RNNBase, x: Tensor, where: str, shape: str, sizes: dict[str, int]
) -> Tensor:
    """The tensor with its batch in front, in either order of the module or for one sequence."""
    letters = shape.split()
    if x.dim() == len(letters) - 1:
        x = x.unsqueeze(0)
    elif not module.batch_first and x.dim() == len(letters):
        x = x.transpose(0, 1)
    check(where, x, shape, sizes)
    return x


def _as_given(module: torch.nn.RNNBase, x: Ragged, input: Batch) -> Batch:
    """The output in the container of the input."""
    if isinstance(input, Ragged):
        return x
    if isinstance(input, PackedSequence):
        return x.to_packed(like=input)
    padded = x.to_padded(_steps(module, input))
    if input.dim() == 2:
        return padded[0]
    return padded if module.batch_first else padded.transpose(0, 1)
