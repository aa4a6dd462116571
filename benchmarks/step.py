"""One step from Python, state in and state out, and many sessions stepped as one batch.

    python benchmarks/step.py --save

64 inputs, one sequence, no gradient. Every contestant gets input and state as the arrays of its own
library, which it holds already, and gives the new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import peers_jax
import peers_onnx
import torch
from clock import Pace
from contest import OURS, Contestant, Options, Results, options, publish, race, rounded
from peers import CELLS, MODULES, cell_of
from torch import Tensor, nn

from segue.layers import Compiled

INPUTS = 64
HIDDEN = (64, 128, 256)
SESSIONS = 1_000
MODULE_CELLS: dict[str, type[nn.GRUCell] | type[nn.LSTMCell]] = {
    "GRU": nn.GRUCell,
    "LSTM": nn.LSTMCell,
}
LIBRARIES = ("torch", "jax", "onnxruntime")


def our_step(
    law: str, module: nn.RNNCellBase, x: Tensor, state: tuple[Tensor, ...]
) -> Callable[[], tuple[Any, ...]]:
    """The fastest public way to take a step with our cell: a call that gives h (and c).

    The only place that says what that way is.
    """
    step = Compiled(cell_of(law, module).eval())
    inputs, before = x.numpy(), type(step.initial_state(1))(*(one.numpy() for one in state))
    return lambda: step(inputs, before)[1]


def single(said: Options) -> Iterator[dict[str, Any]]:
    """One sequence."""
    for law in MODULE_CELLS:
        for hidden in HIDDEN[:1] if said.quick else HIDDEN:
            found = stepped(contestants(law, hidden, 1, 1), said.pace)
            theirs = [one for name, one in found["us"].items() if name.startswith("onnx")]
            found["over_onnxruntime"] = rounded(min(theirs) / found["us"][OURS])
            yield said.line("single", {"law": law, "size": [1, 1, INPUTS, hidden], **found})


def sessions(said: Options) -> Iterator[dict[str, Any]]:
    """1,000 sequences, one step of each."""
    batch = 10 if said.quick else SESSIONS
    found = stepped(contestants("GRU", 128, batch, said.threads), said.pace)
    steps = {name: round(1e6 * batch / one) for name, one in found["us"].items()}
    figures = {"law": "GRU", "size": [batch, 1, INPUTS, 128], **found, "steps_per_second": steps}
    yield said.line("sessions", figures)


def contestants(law: str, hidden: int, batch: int, threads: int) -> dict[str, Contestant]:
    """Everybody's way to step a batch.

    Args:
        threads: of ONNX Runtime, which is the faster without a pool for one sequence.
    """
    torch.manual_seed(0)
    module = MODULE_CELLS[law](INPUTS, hidden)
    x = torch.randn(batch, INPUTS)
    state = tuple(torch.randn(batch, hidden) for _ in CELLS[law](1, 1).initial_state(1))
    arrays = x.numpy(), [one.numpy() for one in state]
    return {
        OURS: Contestant(our_step(law, module, x, state), read),
        "torch layer": by_layer(law, module, x, state),
        "torch cell": by_cell(law, module, x, state),
        "jax": peers_jax.by_step(law, module, *arrays),
        **peers_onnx.by_step(law, module, *arrays, threads),
    }


def by_cell(law: str, module: nn.RNNCellBase, x: Tensor, state: tuple[Tensor, ...]) -> Contestant:
    """torch.nn's cell."""
    before = state if law == "LSTM" else state[0]
    return Contestant(lambda: module(x, before), as_tuple)


def by_layer(law: str, module: nn.RNNCellBase, x: Tensor, state: tuple[Tensor, ...]) -> Contestant:
    """torch.nn's layer over a sequence of one step."""
    layer = MODULES[law](module.input_size, module.hidden_size)
    layer.load_state_dict({f"{name}_l0": one for name, one in module.state_dict().items()})
    steps, first = x[None], tuple(one[None] for one in state)
    before = first if law == "LSTM" else first[0]

    def read_layer(found: Any) -> Results:
        return {name: one[0] for name, one in as_tuple(found[1]).items()}

    return Contestant(lambda: layer(steps, before), read_layer)


def as_tuple(found: Any) -> Results:
    """h alone, or h and c."""
    return read(found if isinstance(found, tuple) else (found,))


def read(found: tuple[Any, ...]) -> Results:
    """The state after the step; y is its h."""
    return {name: np.asarray(one) for name, one in zip(("y", "c"), found, strict=False)}


def stepped(entered: dict[str, Contestant], pace: Pace) -> dict[str, Any]:
    """A race in microseconds.

    Inference mode stands around all of it, as somebody who serves a stream enters it once; the
    contestants are made outside, because weights made inside could not be trained.
    """
    with torch.inference_mode():
        found = race(entered, pace)
    times = {name: rounded(1e3 * one) for name, one in found.pop("ms").items()}
    return {"us": times, **found}


CASES = {"single": single, "sessions": sessions}

if __name__ == "__main__":
    asked = options("step", list(CASES), LIBRARIES, "one step from Python")
    for case in asked.only:
        publish(asked, CASES[case](asked))
