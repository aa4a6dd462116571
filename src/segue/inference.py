"""A network made ready to answer: one native call that runs all of it, or else torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from segue import ops
from segue.data.store import Batch
from segue.layers.compiled import NoForm, check_ready, nested
from segue.model import Network
from segue.ops import State
from segue.ops.program import Program
from segue.ragged import Ragged

Leaf: TypeAlias = NDArray[Any]

Leaves: TypeAlias = Sequence[Leaf]
"""The arrays of a network's state, in order, each with a row per sequence."""


class Arrays(NamedTuple):
    """`segue.data.store.Batch`, its tensors as arrays."""

    inputs: dict[str, Leaf]
    static: dict[str, Leaf]
    series: dict[str, Leaf]
    times: Leaf
    lengths: Leaf
    at: Leaf
    ahead: dict[str, Leaf]

    @classmethod
    def of(cls, batch: Batch) -> Arrays:
        """The same memory, where it is contiguous."""
        return cls(*(_mapped(_array, getattr(batch, name)) for name in cls._fields))

    def batch(self) -> Batch:
        """The same memory as tensors."""
        return Batch(*(_mapped(_tensor, part) for part in self))


class Inference(ABC):
    """A network in evaluation, as it was when this was made.

    Attributes:
        shape: the structure of its state, with the places of the leaves in place of tensors.
        first: the leaves of the initial state of one sequence.
    """

    shape: State
    first: Leaves

    @abstractmethod
    def run(self, batch: Arrays, state: Leaves, *, running: bool) -> tuple[dict[str, Leaf], Leaves]:
        """As `Network.unroll`; the output at the end of a span without steps says nothing."""

    def initial_state(self, batch: int) -> Leaves:
        """The leaves of the initial state of `batch` sequences."""
        return [np.repeat(leaf, batch, axis=0) for leaf in self.first]

    def nested(self, leaves: Leaves) -> State:
        """The state with these leaves as tensors, which share their memory."""
        return nested(self.shape, [torch.from_numpy(leaf) for leaf in leaves])


class Native(Inference):
    """One native call: encoders, body, pool, heads and forecasts. Weights are packed here.

    Raises:
        NoForm: a part of the network has no native form.
    """

    def __init__(self, network: Network) -> None:
        check_ready(network)
        program = Program()
        slots, self.shape = network.emit(program)
        for slot in slots.values():
            program.output(slot)
        self._names, self._run, self._gather = tuple(slots), program.run, network.gather
        self.first = _leaves(network)

    def run(self, batch: Arrays, state: Leaves, *, running: bool) -> tuple[dict[str, Leaf], Leaves]:
        ends = batch.at if running else _last_steps(batch.lengths)
        arrays = tuple(self._gather(batch, ends))
        outputs, after = self._run(batch.lengths, arrays, tuple(state), torch.get_num_threads())
        return dict(zip(self._names, outputs, strict=True)), after


class ByTorch(Inference):
    """What has no native form: `Network.unroll` itself."""

    def __init__(self, network: Network) -> None:
        self._network, places = network, count()
        self.shape = ops.map_state(lambda _: _place(places), network.initial_state(1))
        self.first = _leaves(network)

    @torch.no_grad()
    def run(self, batch: Arrays, state: Leaves, *, running: bool) -> tuple[dict[str, Leaf], Leaves]:
        outputs, after = self._network.unroll(batch.batch(), self.nested(state), running=running)
        found = {name: output.numpy() for name, output in outputs.items()}
        return found, [leaf.numpy() for leaf in ops.leaves(after)]


def ready(network: Network) -> Inference:
    """The quickest way through a network, which is set to evaluation."""
    network.eval()
    try:
        return Native(network)
    except NoForm:
        return ByTorch(network)


def obstacle(network: Network) -> str | None:
    """What keeps a network from running as one native call, in words; None where nothing does."""
    try:
        Native(network)
    except NoForm as reason:
        return str(reason)
    return None


def _leaves(network: Network) -> Leaves:
    return [leaf.detach().numpy() for leaf in ops.leaves(network.initial_state(1))]


def _place(places: Any) -> Any:
    return next(places)


def _last_steps(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of the last step of each span; -1 for one without steps."""
    return np.where(lengths > 0, np.cumsum(lengths) - 1, -1)


def _mapped(function: Callable[[Any], Any], part: Any) -> Any:
    if isinstance(part, dict):
        return {name: function(value) for name, value in part.items()}
    return function(part)


def _array(tensor: Any) -> Any:
    # The sequences of an input apart stay as they are: no native form reads them.
    return tensor if isinstance(tensor, Ragged) else tensor.contiguous().numpy()


def _tensor(array: Any) -> Any:
    return array if isinstance(array, Ragged) else torch.from_numpy(array)
