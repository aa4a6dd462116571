"""torch's fused recurrences, which need padding, on ragged sequences, which have none.

Padding is kept cheap and harmless by three rules. A batch is cut into buckets by length where that
saves work. Outputs and the last h are read at the real steps alone. And where a padded step could
harm the state that is read (an LSTM's c is not among its outputs) or run away (relu), an extra
input, the flag (1 on padded steps, 0 on real ones), holds the state: see `flagged`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import _VF, Tensor

from segue.ops.loop import State, map_state
from segue.ops.native import is_transformed
from segue.ragged import Ragged

# x [T, B, I], or [T, B, I + 1] with the flag; whether it has the flag; the state -> y [T, B, R],
# last state beside h.
Fused: TypeAlias = Callable[[Tensor, bool, State], tuple[Tensor, ...]]

# What a step costs beside its rows, in rows; measured for 32 to 256 hidden units. On another device
# than the CPU a batch of few rows takes as long as one of many.
STEP, STEP_ELSEWHERE = 16, 4096


def fused_runs(tensors: Iterable[Tensor]) -> bool:
    """Whether torch's fused functions take these: all float32 or all float64, no autocast, no
    transform of torch.func.
    """
    dtypes = {tensor.dtype for tensor in tensors}
    is_plain = not (torch.is_autocast_enabled("cpu") or is_transformed())
    return is_plain and dtypes in ({torch.float32}, {torch.float64})


def in_buckets(run: Fused, x: Ragged, state: State) -> tuple[Tensor, State]:
    """Takes every sequence through time, with sequences of similar length in one padded batch.

    Args:
        run: a fused function of the law.
        x: the inputs, ``[N, I]``.
        state: a named tuple whose first field is h, equal to the output y after every step.

    Returns:
        y ``[N, R]``, and the state of each sequence after its own last step.
    """
    if x.total == 0:
        return state[0].new_empty(0, state[0].shape[1]), state
    if x.is_rectangular:
        return _run_bucket(run, x, state)
    order = x.lengths.argsort(descending=True, stable=True)
    filled = int((x.lengths > 0).sum())
    step = STEP if x.values.device.type == "cpu" else STEP_ELSEWHERE
    cut = buckets(x.lengths[order[:filled]], step)
    if len(cut) == 1 and filled == x.batch:
        return _run_bucket(run, x, state)
    parts, ends = [], []
    for bucket in cut:
        chosen = order[bucket]
        values, end = _run_bucket(run, x.select(chosen), map_state(lambda s, r=chosen: s[r], state))
        parts.append(values)
        ends.append(end)
    empty = order[filled:]
    ends.append(map_state(lambda s: s[empty], state))
    back = order.argsort()
    final = map_state(lambda *pieces: torch.cat(pieces)[back], *ends)
    return Ragged(torch.cat(parts), x.lengths[order]).select(back).values, final


def buckets(lengths: Tensor, step: int = STEP) -> list[slice]:
    """Cuts lengths, sorted from long to short and above 0, into padded batches of little work.

    The work of a batch of n rows and T steps is taken to be T (n + step): each range is cut where
    that saves most, until no cut saves anything.
    """
    rows, longest = len(lengths), int(lengths[0])
    cuts = torch.arange(1, rows, device="cpu")
    work = longest * (cuts + step) + lengths[1:] * (rows - cuts + step)
    if rows == 1 or int(work.min()) >= longest * (rows + step):
        return [slice(0, rows)]
    cut = int(cuts[work.argmin()])
    later = [slice(cut + one.start, cut + one.stop) for one in buckets(lengths[cut:], step)]
    return buckets(lengths[:cut], step) + later


def _run_bucket(run: Fused, x: Ragged, state: State) -> tuple[Tensor, State]:
    """One padded batch; every sequence has at least one step."""
    steps, rows = x.longest, x.batch
    if x.is_rectangular:
        padded = x.values.reshape(rows, steps, -1).transpose(0, 1)
        y, *rest = run(padded, False, state)
        values = y.transpose(0, 1).reshape(rows * steps, -1)
        return values, type(state)(y[-1], *rest)
    places = (x.times() * rows + x.rows()).to(x.values.device)
    inputs = x.values.shape[1]
    blank = x.values.new_zeros(steps * rows, inputs + 1)
    blank[:, inputs] = 1
    padded = blank.index_copy(0, places, torch.nn.functional.pad(x.values, (0, 1)))
    y, *rest = run(padded.reshape(steps, rows, inputs + 1), True, state)
    # The way back of indexing sorts, on a device; that of index_select adds, and each place once.
    outputs = x.with_values(y.reshape(steps * rows, -1).index_select(0, places))
    return outputs.values, type(state)(outputs.last(), *rest)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without what torch warns of and the caller cannot change: that it has no oneDNN form of
    projections, and that cuDNN copies weights which do not lie in one piece.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        warnings.filterwarnings("ignore", message="RNN module weights are not part")
        yield


def _whole(
    run: Callable[..., Any], x: Tensor, state: Any, flat: list[Tensor]
) -> tuple[Tensor, ...]:
    """One layer with biases, in one direction, time-major, without dropout."""
    # cuDNN wants states in one piece, which a learned one, expanded to the batch, is not.
    state = map_state(Tensor.contiguous, state)
    # cuDNN gives gradients only of what ran in training mode; elsewhere that mode means dropout.
    is_training = torch.is_grad_enabled()
    with _without_advice():
        found: tuple[Tensor, ...] = run(x, state, flat, True, 1, 0.0, is_training, False, False)
    return found


def flagged(w_xh: Tensor, column: Tensor) -> Tensor:
    """The weights ``[G, I]`` with one more input, the flag, weighed by ``column`` ``[G]``."""
    return torch.cat([w_xh, column[:, None]], dim=1)


def fused_elman(
    x: Tensor, is_flagged: bool, w_xh: Tensor, w_hh: Tensor, b: Tensor, activation: str, h: Tensor
) -> tuple[Tensor]:
    """torch's fused Elman network with tanh or relu: x ``[T, B, I]`` -> y ``[T, B, H]``."""
    if is_flagged:
        # tanh is bounded whatever the padded steps do; relu could overflow, so it is driven to
        # exactly 0.
        w_xh = flagged(w_xh, torch.full_like(b, -1e30 if activation == "relu" else 0.0))
    run = _VF.rnn_tanh if activation == "tanh" else _VF.rnn_relu
    flat = [w_xh, w_hh, b, torch.zeros_like(b)]
    y, _ = _whole(run, x, h[None], flat)
    return (y,)


def fused_lstm(
    x: Tensor,
    is_flagged: bool,
    w_xh: Tensor,
    w_hh: Tensor,
    b: Tensor,
    w_hr: Tensor | None,
    h: Tensor,
    c: Tensor,
) -> tuple[Tensor, Tensor]:
    """torch's fused LSTM: x ``[T, B, I]`` -> y ``[T, B, R]``, c after the last real step ``[B,
    H]``.
    """
    if is_flagged:
        # On padded steps f = 1 and i = 0 exactly, so that c is held, and their derivatives are 0.
        i, f, g, o = torch.zeros_like(b).reshape(4, -1).unbind()
        w_xh = flagged(w_xh, torch.cat([i - 1e4, f + 1e4, g, o]))
    flat = [w_xh, w_hh, b, torch.zeros_like(b)] + ([] if w_hr is None else [w_hr])
    y, _, c = _whole(_VF.lstm, x, (h[None], c[None]), flat)
    return y, c[0]


def fused_gru(
    x: Tensor, is_flagged: bool, w_xh: Tensor, w_hh: Tensor, b: Tensor, b_hn: Tensor, h: Tensor
) -> tuple[Tensor]:
    """torch's fused GRU, reset gate after the product: x ``[T, B, I]`` -> y ``[T, B, H]``."""
    if is_flagged:
        # h stays between its last value and -1 or 1 whatever the padded steps do: nothing to hold.
        w_xh = flagged(w_xh, torch.zeros_like(b))
    b_hh = torch.cat([torch.zeros_like(b)[: 2 * len(b_hn)], b_hn])
    y, _ = _whole(_VF.gru, x, h[None], [w_xh, w_hh, b, b_hh])
    return (y,)
