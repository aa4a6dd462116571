"""The definition of a recurrence over time, a loop; and what it does to states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from segue.ragged import Ragged

# A tensor whose leading axis is B, or a tuple, named tuple or dict of states; () is the state of
# what has none.
State: TypeAlias = Any
Step: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Applies a function to the corresponding tensors of states of one structure."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    if isinstance(first, dict):
        return {key: map_state(function, *(state[key] for state in states)) for key in first}
    parts = [map_state(function, *parts) for parts in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def leaves(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state
        return
    for part in state.values() if isinstance(state, dict) else state:
        yield from leaves(part)


def carried_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a state: float64 for float64 weights, else (half precision too) float32."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def loop(step: Step, x: Ragged, state: State) -> tuple[Tensor, State]:
    """Takes every sequence through time, all at once; sequences drop out of the batch as they end.

    For each sequence b it means

        for t in range(lengths[b]):
            y[b, t], state[b] = step(x[b, t], state[b])

    Args:
        step: ``(x [k, ...], state of k rows) -> (y [k, ...], state of k rows)``, row by row
            independent.
        x: the inputs, ``[N, ...]``.
        state: the state of B rows before the first step.

    Returns:
        y ``[N, ...]``, and the state of each sequence after its own last step.
    """
    if x.total == 0:
        return step(x.values[:0], map_state(lambda s: s[:0], state))[0], state
    order, steps, counts = x.by_time
    state = map_state(lambda s: s[order.to(s.device)], state)
    outputs: list[Tensor] = []
    ended: list[State] = []
    running = x.batch
    for inputs in torch.split(x.values[steps.to(x.values.device)], counts):
        if len(inputs) < running:
            running = len(inputs)
            ended.append(map_state(lambda s, k=running: s[k:], state))
            state = map_state(lambda s, k=running: s[:k], state)
        output, state = step(inputs, state)
        outputs.append(output)
    # The sequences that ended first are the last ones of the order.
    state = map_state(lambda *parts: torch.cat(parts), state, *reversed(ended))
    back, unsorted = steps.argsort(), order.argsort()
    final = map_state(lambda s: s[unsorted.to(s.device)], state)
    return torch.cat(outputs)[back.to(x.values.device)], final
