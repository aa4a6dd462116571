"""JAX's ways to do the work: flax nnx, and scans written by hand. Time-major, jitted.

XLA runs on all processors that the process may use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from contest import Contestant, Results
from flax import nnx
from jax import Array, lax
from jax.nn import sigmoid
from numpy.typing import NDArray
from peers import Problem
from torch import nn

jax.config.update("jax_platforms", "cpu")

Weights: TypeAlias = tuple[Array, ...]
"""W_xh ``[I, G]``, W_hh ``[H, G]``, b_h ``[G]``, and a GRU's b_hn ``[H]``."""

State: TypeAlias = tuple[Array, ...]


def elman(weights: Weights, state: State, p: Array) -> State:
    """One step from the projected input."""
    (h,) = state
    return (jnp.tanh(p + h @ weights[1]),)


def gru(weights: Weights, state: State, p: Array) -> State:
    """One step from the projected input; gates r, z, n."""
    (h,) = state
    p_r, p_z, p_n = jnp.split(p, 3, axis=-1)
    u_r, u_z, u_n = jnp.split(h @ weights[1], 3, axis=-1)
    r, z = sigmoid(p_r + u_r), sigmoid(p_z + u_z)
    n = jnp.tanh(p_n + r * (u_n + weights[3]))
    return ((1 - z) * n + z * h,)


def lstm(weights: Weights, state: State, p: Array) -> State:
    """One step from the projected input; gates i, f, g, o."""
    h, c = state
    i, f, g, o = jnp.split(p + h @ weights[1], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


LAWS: dict[str, Callable[[Weights, State, Array], State]] = {
    "Elman": elman,
    "GRU": gru,
    "LSTM": lstm,
}
CELLS = {"Elman": nnx.SimpleCell, "GRU": nnx.GRUCell, "LSTM": nnx.OptimizedLSTMCell}


def by_scan(work: Problem, *, unroll: int) -> Contestant:
    """A scan by hand, the input's product before it, ``unroll`` steps in one turn of its loop."""
    law, zeros = LAWS[work.law], start(work)

    def layer(weights: Weights, x: Array) -> Array:
        def step(state: State, p: Array) -> tuple[State, Array]:
            state = law(weights, state, p)
            return state, state[0]

        return lax.scan(step, zeros, x @ weights[0] + weights[2], unroll=unroll)[1]

    return contestant(work, layer, weights_of(work.law, work.module), lambda found: found)


def by_flax(work: Problem) -> Contestant:
    """``nnx.RNN`` over flax's cell."""
    cell = CELLS[work.law](work.size.inputs, work.size.hidden, rngs=nnx.Rngs(0))
    w_x, w_h, b = weights_of(work.law, work.module)[:3]
    biased = "dense_h" if work.law == "LSTM" else "dense_i"
    cell.dense_i.kernel[...] = w_x
    cell.dense_h.kernel[...] = w_h
    getattr(cell, biased).bias[...] = b
    graph, parameters, rest = nnx.split(nnx.RNN(cell, time_major=True, rngs=False), nnx.Param, ...)
    # flax's LSTM carries (c, h), which are both 0 here.
    zeros = start(work) if work.law == "LSTM" else start(work)[0]

    def layer(parameters: Any, x: Array) -> Array:
        return nnx.merge(graph, parameters, rest)(x, initial_carry=zeros)

    def weights(found: Any) -> Weights:
        parts = found["cell"]
        kernels = parts["dense_i"]["kernel"][...], parts["dense_h"]["kernel"][...]
        return *kernels, parts[biased]["bias"][...]

    return contestant(work, layer, parameters, weights)


def contestant(
    work: Problem,
    layer: Callable[[Any, Array], Array],
    weights: Any,
    gradients: Callable[[Any], Weights],
) -> Contestant:
    """A layer, compiled.

    Args:
        layer: weights and x ``[T, B, I]`` -> y ``[T, B, H]``.
        gradients: reads W_xh, W_hh, b_h, b_hn from what is like ``weights``.
    """
    x, dy = (jnp.asarray(one.transpose(0, 1).numpy()) for one in (work.x, work.dy))

    @jax.jit
    def train(weights: Any, x: Array, dy: Array) -> tuple[Array, tuple[Any, Array]]:
        y, back = jax.vjp(layer, weights, x)
        return y, back(dy)

    forward = jax.jit(layer)

    def read(found: Any) -> Results:
        if not work.is_training:
            return {"y": np.asarray(found).swapaxes(0, 1)}
        y, (dweights, dx) = found
        dw_x, dw_h, *biases = gradients(dweights)
        named = {"dw_xh": dw_x.T, "dw_hh": dw_h.T}
        named |= dict(zip(("db_h", "db_hn"), biases, strict=False))
        named |= {"y": y.swapaxes(0, 1), "dx": dx.swapaxes(0, 1)}
        return {name: np.asarray(one) for name, one in named.items()}

    if work.is_training:
        return Contestant(lambda: jax.block_until_ready(train(weights, x, dy)), read)
    return Contestant(lambda: jax.block_until_ready(forward(weights, x)), read)


def by_step(
    law: str, module: nn.RNNBase | nn.RNNCellBase, x: NDArray[Any], state: list[NDArray[Any]]
) -> Contestant:
    """One step, compiled, with the weights as constants of the program."""
    weights, advance = weights_of(law, module), LAWS[law]
    given, before = jnp.asarray(x), tuple(jnp.asarray(one) for one in state)
    step = jax.jit(lambda x, state: advance(weights, state, x @ weights[0] + weights[2]))

    def read(found: State) -> Results:
        return {name: np.asarray(one) for name, one in zip(("y", "c"), found, strict=False)}

    return Contestant(lambda: jax.block_until_ready(step(given, before)), read)


def start(work: Problem) -> State:
    """The state before the first step."""
    zeros = jnp.zeros((work.size.batch, work.size.hidden))
    return (zeros, zeros) if work.law == "LSTM" else (zeros,)


def weights_of(law: str, module: nn.RNNBase | nn.RNNCellBase) -> Weights:
    """The weights of torch's layer or cell."""
    w_x, w_h, b_x, b_h = (one.detach().numpy() for one in module.parameters())
    if law != "GRU":
        return tuple(jnp.asarray(one) for one in (w_x.T, w_h.T, b_x + b_h))
    hidden = w_h.shape[1]
    b = np.concatenate([(b_x + b_h)[: 2 * hidden], b_x[2 * hidden :]])
    return tuple(jnp.asarray(one) for one in (w_x.T, w_h.T, b, b_h[2 * hidden :]))
