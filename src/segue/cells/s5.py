"""The simplified state space layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue import ops
from segue.cells.cell import Cell, check_switch
from segue.errors import ShapeError, SpecError
from segue.ragged import Ragged, one_step, unchecked
from segue.shapes import check


class S5State(NamedTuple):
    """h ``[B, 2 M]``: the real parts of M complex numbers, then their imaginary parts."""

    h: Tensor


class S5(Cell):
    """The simplified state space layer of Smith et al., 2023 (S5, arXiv:2208.04933): a linear
    system in continuous time, dh/dt = diag(l) h + B x, whose state is diagonal and complex, held
    over steps of a length that is learned (zero-order hold).

        l = -exp(log_decay) + i frequency,   s = exp(log_step)
        a = exp(l * s),   B' = diag((a - 1) / l) B
        h_t = a * h_{t-1} + B' x_t
        u_t = 2 Re(C h_t) + D x_t            y_t = u_t

    The conjugates of h, which would make the system real, are not computed: hence 2 Re. With a
    gate, y_t = g_t * sigmoid(W_g g_t + b_g), g_t = gelu(u_t), in gelu's form with tanh. In the
    paper D is a diagonal, since there O = I.

    l starts as the eigenvalues of the normal part of HiPPO-LegS (Gu et al., 2020,
    arXiv:2008.07669), B and C then in its eigenvectors, or as -1/2 + i pi m (S4D-Lin; Gu et al.,
    2022, arXiv:2206.11893); s between 0.001 and 0.1, evenly in its logarithm.

    Shapes: x ``[B, I]``; u and y ``[B, H]``; h, l, s and a ``[M]``, complex, in the state ``[B, 2
        M]`` their real and then their imaginary parts; log_decay, frequency and log_step ``[M]``; B
        ``[2 M, I]`` likewise one part below the other; C ``[H, 2 M]`` one part beside the other; D
        ``[H, I]``; W_g ``[H, H]``.

    Args:
        inputs: I.
        hidden: H.
        state: M.
        init: how l starts, ``"hippo"`` or ``"linear"``.
        gate: whether the output is gated.

    Raises:
        SpecError: a size that is none, an unknown init, or a switch that is none.

    >>> cell = S5(3, 5, state=4)
    >>> y, state = cell.step(torch.zeros(2, 3), cell.initial_state(2))
    >>> y.shape, state.h.shape
    (torch.Size([2, 5]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        state: int = 32,
        init: str = "hippo",
        gate: bool = False,
    ) -> None:
        super().__init__(inputs=inputs, hidden=hidden, state=state)
        check_switch("S5.gate", gate)
        if init not in _STARTS:
            raise SpecError("S5.init", " | ".join(_STARTS), init, "give one of these names")
        self.inputs, self.outputs, self.state = inputs, hidden, state
        frequency, basis = _STARTS[init](state)
        b, c = _drawn(basis, inputs, hidden)
        dtype = torch.get_default_dtype()
        self.log_decay = nn.Parameter(torch.full((state,), math.log(0.5)))
        self.frequency = nn.Parameter(frequency.to(dtype))
        self.log_step = nn.Parameter(torch.empty(state).uniform_(math.log(1e-3), math.log(0.1)))
        self.b = nn.Parameter(torch.cat([b.real, b.imag]).to(dtype))
        self.c = nn.Parameter(torch.cat([c.real, c.imag], dim=1).to(dtype))
        self.d = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden, inputs)))
        self.w_g = self.b_g = None
        if gate:
            self.w_g = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden, hidden)))
            self.b_g = nn.Parameter(torch.zeros(hidden))

    def initial_state(self, batch: int) -> S5State:
        """h = 0."""
        dtype, device = ops.carried_dtype(self.b), self.b.device
        return S5State(torch.zeros(batch, 2 * self.state, dtype=dtype, device=device))

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """a ``[2 M]``, B' ``[2 M, I]`` and 2 [Re C, -Im C] ``[H, 2 M]``."""
        decay, w = -torch.exp(self.log_decay), self.frequency
        step = torch.exp(self.log_step)
        turn, shrunk = w * step, torch.exp(decay * step)
        a_re, a_im = shrunk * torch.cos(turn), shrunk * torch.sin(turn)
        # a - 1 without cancellation, over l.
        rest = torch.expm1(decay * step) * torch.cos(turn) - 2 * torch.sin(turn / 2) ** 2
        size = decay**2 + w**2
        re = ((rest * decay + a_im * w) / size)[:, None]
        im = ((a_im * decay - rest * w) / size)[:, None]
        b_re, b_im = self.b.chunk(2)
        held = torch.cat([re * b_re - im * b_im, re * b_im + im * b_re])
        c_re, c_im = self.c.chunk(2, dim=1)
        return torch.cat([a_re, a_im]), held, torch.cat([2 * c_re, -2 * c_im], dim=1)

    def step(self, x: Tensor, state: S5State) -> tuple[Tensor, S5State]:
        """One step of B sequences: ``[B, I] -> [B, H]``.

        Raises:
            ShapeError: x is not ``[B, I]``, or the state is that of other sequences.
        """
        check("S5.step", x, "B I", {"I": self.inputs})
        return self._scan(one_step(x), state)

    def scan(self, x: Ragged, state: S5State) -> tuple[Tensor, S5State]:
        """All steps of all sequences: ``[N, I] -> [N, H]``."""
        check("S5.scan", x.values, "N I", {"I": self.inputs})
        return self._scan(x, state)

    def _scan(self, x: Ragged, state: S5State) -> tuple[Tensor, S5State]:
        shape = x.batch, 2 * self.state
        if state.h.shape != shape:
            got, fix = str(list(state.h.shape)), "take it from initial_state(B)"
            raise ShapeError("the state of S5", str(list(shape)), got, fix)
        a, held, read = self.system()
        nothing = torch.zeros_like(a)
        given = ops.Diagonal(x.values, x.lengths, held, nothing, a, state.h, "s5")
        if ops.native_runs([x.values, held, a, state.h]):
            h, last, _ = ops.scan(given, _meaning)
        else:
            h, last = _meaning(given)
        u = ops.linear(h.to(x.values.dtype), read) + ops.linear(x.values, self.d)
        return self._gated(u), S5State(last)

    def _gated(self, u: Tensor) -> Tensor:
        if self.w_g is None:
            return u
        g = nn.functional.gelu(u, approximate="tanh")
        return g * torch.sigmoid(ops.linear(g, self.w_g, self.b_g))


def _meaning(given: ops.Diagonal) -> tuple[Tensor, Tensor]:
    """h of all steps and the last one: by the loop, on another device than the CPU by doublings."""
    assert given.rates is not None, "an S5 has rates"
    a_re, a_im = given.rates.to(given.h.dtype).chunk(2)
    p = nn.functional.linear(given.x, given.w_xh, given.b).to(given.h.dtype)
    steps = unchecked(p, given.lengths)
    if p.device.type != "cpu":
        a = torch.complex(a_re, a_im).expand(len(p), -1)
        y, h = ops.scan_linear(a, _complex(p), steps, _complex(given.h))
        return torch.cat([y.real, y.imag], dim=1), torch.cat([h.real, h.imag], dim=1)

    def step(p: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        re, im = h.chunk(2, dim=1)
        h = torch.cat([a_re * re - a_im * im, a_re * im + a_im * re], dim=1) + p
        return h, h

    return ops.loop(step, steps, given.h)


def _complex(parts: Tensor) -> Tensor:
    """``[N, 2 M]``, the real parts and then the imaginary ones, as ``[N, M]``."""
    return torch.complex(*parts.chunk(2, dim=1))


def _hippo(state: int) -> tuple[Tensor, Tensor]:
    """The frequencies ``[M]`` of the normal part of HiPPO-LegS in 2 M dimensions, -1/2 + S with S
    skew, the lowest first, and their eigenvectors ``[2 M, M]``.
    """
    n = torch.arange(2 * state, dtype=torch.float64)
    size = torch.sqrt(2 * n + 1)
    skew = 0.5 * torch.outer(size, size) * torch.sign(n[None] - n[:, None])
    values, vectors = torch.linalg.eigh(-1j * skew)
    return values[state:], vectors[:, state:]


def _linear(state: int) -> tuple[Tensor, Tensor]:
    """The frequencies of S4D-Lin; its basis takes pairs of real numbers for complex ones."""
    pairs = torch.cat([torch.eye(state), 1j * torch.eye(state)]) / math.sqrt(2)
    return math.pi * torch.arange(state, dtype=torch.float64), pairs.to(torch.complex128)


_STARTS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {"hippo": _hippo, "linear": _linear}


def _drawn(basis: Tensor, inputs: int, hidden: int) -> tuple[Tensor, Tensor]:
    """B ``[M, I]`` and C ``[H, M]`` of a real system in 2 M dimensions, drawn with variances 1 / I
    and 1 / (2 M), in the basis ``[2 M, M]``.
    """
    size = basis.shape[0]
    b = torch.randn(size, inputs, dtype=torch.float64) / math.sqrt(inputs)
    c = torch.randn(hidden, size, dtype=torch.float64) / math.sqrt(size)
    return basis.mH @ b.to(basis.dtype), c.to(basis.dtype) @ basis
