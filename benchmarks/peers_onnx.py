"""ONNX Runtime's way to do the work: one RNN, GRU or LSTM node. Forward only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from contest import Contestant, Results
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from peers import Problem
from torch import nn

NODES = {"Elman": "RNN", "GRU": "GRU", "LSTM": "LSTM"}
ORDER = {"Elman": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""Where torch's gates stand: ONNX has z, r, n (torch r, z, n) and i, o, f, g (torch i, f, g, o)."""

OPSET, FORMAT = 17, 8
STATE = ("h", "c")


def model(law: str, module: nn.RNNBase | nn.RNNCellBase, has_state: bool) -> ModelProto:
    """A model of one node with torch's weights.

    Args:
        has_state: whether the state comes in as h (and c) and goes out as y (and c_new), else it
            starts at 0 and y ``[T, 1, B, H]`` has all steps.
    """
    state = STATE[: 2 if law == "LSTM" else 1] if has_state else ()
    w_x, w_h, b_x, b_h = (one.detach().numpy() for one in module.parameters())
    biases = np.concatenate([reordered(law, b_x), reordered(law, b_h)])
    tensors = {"W": reordered(law, w_x), "R": reordered(law, w_h), "B": biases}
    after = ["", "y", "c_new"][: 1 + len(state)] if has_state else ["y"]
    node = helper.make_node(
        NODES[law],
        ["x", *tensors, *([""] if state else []), *state],
        after,
        hidden_size=w_h.shape[1],
    )
    if law == "GRU":
        node.attribute.append(helper.make_attribute("linear_before_reset", 1))
    free = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in state]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, w_x.shape[1]])
    rank = 3 if has_state else 4
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
        for name in after
        if name
    ]
    held = [numpy_helper.from_array(one[None].copy(), name) for name, one in tensors.items()]
    graph = helper.make_graph([node], law, [x, *free], outputs, held)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT
    )


def reordered(law: str, weight: NDArray[Any]) -> NDArray[Any]:
    """The gates of a weight ``[G H, ...]`` in ONNX's order."""
    gates = np.split(weight, len(ORDER[law]))
    return np.concatenate([gates[index] for index in ORDER[law]])


def session(graph: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session with this number of threads, and else the defaults."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def by_onnx(work: Problem, threads: int) -> Contestant:
    """All steps of the layer."""
    opened = session(model(work.law, work.module, has_state=False), threads)
    feeds = {"x": np.ascontiguousarray(work.x.numpy().swapaxes(0, 1))}
    return Contestant(
        lambda: opened.run(None, feeds), lambda found: {"y": found[0][:, 0].swapaxes(0, 1)}
    )


def by_step(
    law: str,
    module: nn.RNNBase | nn.RNNCellBase,
    x: NDArray[Any],
    state: list[NDArray[Any]],
    threads: int,
) -> dict[str, Contestant]:
    """One step, x ``[B, I]``: called with arrays, and with arrays bound once for all calls."""
    opened = session(model(law, module, has_state=True), threads)
    feeds = dict(zip(("x", *STATE), (one[None] for one in (x, *state)), strict=False))
    outputs = [one.name for one in opened.get_outputs()]
    bound = opened.io_binding()
    for name, one in feeds.items():
        bound.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(one))
    for name in outputs:
        empty = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(feeds["h"]))
        bound.bind_ortvalue_output(name, empty)

    def read(found: list[NDArray[Any]]) -> Results:
        return {name: one[0] for name, one in zip(("y", "c"), found, strict=False)}

    return {
        "onnxruntime": Contestant(lambda: opened.run(outputs, feeds), read),
        "onnxruntime bound": Contestant(
            lambda: opened.run_with_iobinding(bound),
            lambda _: read(bound.copy_outputs_to_cpu()),
        ),
    }
