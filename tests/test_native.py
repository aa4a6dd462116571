"""The native kernels against their equations, and the laws that hold to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

native = pytest.importorskip(
    "segue._native", reason="segue._native is not built: no C++ compiler at installation"
)

Array = np.ndarray
LAWS = ["elman-identity", "elman-tanh", "elman-relu", "elman-sigmoid"]
LAWS += ["lstm", "lstm-projected", "gru-after", "gru-before"]
ACTIVATIONS = ["identity", "tanh", "relu", "sigmoid"]
LENGTHS = [5, 0, 1, 9, 3, 1, 2]


@dataclass(frozen=True)
class Case:
    """The arguments of one scan: ragged inputs, weights by name, and the initial state."""

    law: str
    x: Array
    lengths: Array
    weights: dict[str, Array]
    h0: Array
    c0: Array

    @property
    def starts(self) -> Array:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def only(self, rows: list[int]) -> Case:
        """The same case with the sequences `rows`, in that order."""
        pieces = [self.x[self.starts[s] : self.starts[s + 1]] for s in rows]
        x = np.concatenate([*pieces, self.x[:0]])
        return replace(self, x=x, lengths=self.lengths[rows], h0=self.h0[rows], c0=self.c0[rows])


def case(law: str, inputs: int, hidden: int, lengths: list[int], seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    gates = {"elman": 1, "lstm": 4, "gru": 3}[law.split("-")[0]]
    width = max(1, hidden // 2) if law == "lstm-projected" else hidden

    def draw(*shape: int) -> Array:
        return (rng.uniform(-1, 1, shape) / np.sqrt(shape[0])).astype(np.float32)

    weights = {
        "w_xh_t": draw(inputs, gates * hidden),
        "w_hh_t": draw(width, gates * hidden),
        "b": draw(gates * hidden),
    }
    if law == "lstm-projected":
        weights["w_hr_t"] = draw(hidden, width)
    if law.startswith("gru"):
        weights["b_hn"] = draw(hidden)
    x = rng.standard_normal((sum(lengths), inputs)).astype(np.float32)
    state = rng.uniform(-1, 1, (2, len(lengths), hidden)).astype(np.float32)
    h0 = np.ascontiguousarray(state[0, :, :width])
    return Case(law, x, np.array(lengths, np.int64), weights, h0, state[1].copy())


def scan(given: Case, threads: int = 1) -> tuple[Array, Array, Array]:
    """Returns y, h_last and c_last (c0 where the law has no c) from the native scan."""
    w = given.weights
    y = np.full((len(given.x), given.h0.shape[1]), 7, np.float32)
    h, c = np.full_like(given.h0, 7), given.c0.copy()
    head = (given.x, given.lengths, w["w_xh_t"], w["w_hh_t"], w["b"])
    kind, _, variant = given.law.partition("-")
    if kind == "elman":
        native.scan_elman(*head, ACTIVATIONS.index(variant), given.h0, y, h, threads)
    elif kind == "lstm":
        c = np.full_like(given.c0, 7)
        native.scan_lstm(*head, w.get("w_hr_t"), given.h0, given.c0, y, h, c, threads)
    else:
        native.scan_gru(*head, w["b_hn"], variant == "after", given.h0, y, h, threads)
    return y, h, c


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def equation(given: Case) -> tuple[Array, Array, Array]:
    """The same scan from the equations, in float64."""
    w = {name: value.astype(np.float64) for name, value in given.weights.items()}
    h, c = given.h0.astype(np.float64), given.c0.astype(np.float64)
    x, y = given.x.astype(np.float64), np.zeros((len(given.x), h.shape[1]))
    for s, first in enumerate(given.starts[:-1]):
        for n in range(first, first + given.lengths[s]):
            h[s], c[s] = one_step(given.law, w, x[n], h[s], c[s])
            y[n] = h[s]
    return y, h, c


def one_step(law: str, w: dict[str, Array], x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    kind, _, variant = law.partition("-")
    a, u = x @ w["w_xh_t"] + w["b"], h @ w["w_hh_t"]
    if kind == "elman":
        f = {"identity": np.array, "tanh": np.tanh, "relu": lambda v: np.maximum(v, 0)}
        return f.get(variant, sigmoid)(a + u), c
    if kind == "lstm":
        i, f_, g, o = np.split(a + u, 4)
        c = sigmoid(f_) * c + sigmoid(i) * np.tanh(g)
        m = sigmoid(o) * np.tanh(c)
        return (m @ w["w_hr_t"] if "w_hr_t" in w else m), c
    (ar, az, an), (ur, uz, un) = np.split(a, 3), np.split(u, 3)
    r, z = sigmoid(ar + ur), sigmoid(az + uz)
    before = (r * h) @ np.split(w["w_hh_t"], 3, axis=1)[2] + w["b_hn"]
    n = np.tanh(an + (r * (un + w["b_hn"]) if variant == "after" else before))
    return (1 - z) * n + z * h, c


def assert_same_bits(got: tuple[Array, ...], want: tuple[Array, ...]) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


def assert_equal_the_equation(given: Case) -> None:
    for got, want in zip(scan(given), equation(given), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


@pytest.mark.parametrize("hidden", [1, 3, 17, 64, 130])
@pytest.mark.parametrize("inputs", [1, 3, 17, 64, 130])
@pytest.mark.parametrize("law", LAWS)
def test_scan_equals_its_equation(law: str, inputs: int, hidden: int) -> None:
    assert_equal_the_equation(case(law, inputs, hidden, LENGTHS))


@pytest.mark.parametrize("law", LAWS)
def test_scan_of_more_rows_than_a_block_equals_its_equation(law: str) -> None:
    assert_equal_the_equation(case(law, 5, 7, [t % 4 for t in range(211)]))


@pytest.mark.parametrize("outputs", [1, 3, 17, 64, 130])
@pytest.mark.parametrize("inputs", [0, 1, 17, 130])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100])
def test_affine_equals_its_equation(rows: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(rows)
    x, w = rng.standard_normal((rows, inputs)), rng.standard_normal((inputs, outputs))
    b = rng.standard_normal(outputs)
    x, w, b = (a.astype(np.float32) for a in (x, w, b))
    y = np.full((rows, outputs), 7, np.float32)
    native.affine(x, w, b, y, 1)
    exact = x.astype(np.float64) @ w + b
    np.testing.assert_allclose(y, exact, rtol=0, atol=2e-5)
    native.affine(x, w, None, y, 1)
    np.testing.assert_allclose(y, exact - b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_activation_is_accurate_and_saturates(function: str) -> None:
    a = np.concatenate([np.linspace(-100, 100, 200_001), np.geomspace(1e-30, 1, 10_001)])
    a = np.concatenate([a, [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)[:, None]
    got = activation_of(a, ACTIVATIONS.index(function))
    with np.errstate(over="ignore"):
        exact = {"tanh": np.tanh, "sigmoid": sigmoid}[function](a.astype(np.float64))
    np.testing.assert_allclose(got, exact, rtol=3e-7, atol=1e-37)
    assert got[-3, 0] == 1 and got[-2, 0] == (-1 if function == "tanh" else 0)
    assert np.isnan(got[-1, 0])


def activation_of(a: Array, activation: int) -> Array:
    """f(a) by an Elman step with one input, whose weight is 1."""
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    lengths, h0 = np.ones(len(a), np.int64), np.zeros_like(a)
    y, h_last = np.empty_like(a), np.empty_like(a)
    native.scan_elman(a, lengths, one, zero, zero[0], activation, h0, y, h_last, 1)
    return y


@pytest.mark.parametrize("hidden", [3, 17, 64])
@pytest.mark.parametrize("law", LAWS)
def test_alone_is_in_a_batch_to_the_bit(law: str, hidden: int) -> None:
    given = case(law, 17, hidden, LENGTHS * 20)
    y, h, c = scan(given)
    for s in [*range(7), 70, 139]:
        own = slice(given.starts[s], given.starts[s + 1])
        assert_same_bits(scan(given.only([s])), (y[own], h[[s]], c[[s]]))


@pytest.mark.parametrize("law", LAWS)
def test_any_order_of_the_batch_gives_the_same_bits(law: str) -> None:
    given = case(law, 17, 20, LENGTHS * 20)
    y, h, c = scan(given)
    order = [int(s) for s in np.random.default_rng(1).permutation(len(given.lengths))]
    steps = [np.arange(given.starts[s], given.starts[s + 1]) for s in order]
    assert_same_bits(scan(given.only(order)), (y[np.concatenate(steps)], h[order], c[order]))


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("law", LAWS)
def test_chunks_with_the_state_handed_on_are_the_whole_to_the_bit(law: str, size: int) -> None:
    whole = case(law, 17, 50, [700])
    chunk, pieces = whole, []
    for first in range(0, 700, size):
        x = whole.x[first : first + size]
        chunk = replace(chunk, x=x, lengths=np.array([len(x)], np.int64))
        y, h, c = scan(chunk)
        pieces.append(y)
        chunk = replace(chunk, h0=h, c0=c)
    assert_same_bits((np.concatenate(pieces), chunk.h0, chunk.c0), scan(whole))


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("law", LAWS)
def test_any_number_of_threads_gives_the_same_bits(law: str, threads: int) -> None:
    given = case(law, 64, 130, LENGTHS * 60)
    assert_same_bits(scan(given, threads), scan(given, 1))


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_affine_on_any_number_of_threads_and_in_any_block_gives_the_same_bits(threads: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1001, 130)), rng.standard_normal((130, 260))
    x, w = x.astype(np.float32), w.astype(np.float32)
    whole, parts = np.empty((1001, 260), np.float32), np.empty((1001, 260), np.float32)
    native.affine(x, w, None, whole, threads)
    for first, size in [(0, 1), (1, 2), (3, 5), (8, 93), (101, 900)]:
        rows = slice(first, first + size)
        native.affine(x[rows], w, None, parts[rows], 1)
    assert_same_bits((whole,), (parts,))


@pytest.mark.parametrize("law", LAWS)
def test_state_may_be_advanced_in_place(law: str) -> None:
    given = case(law, 5, 17, LENGTHS)
    w, want = given.weights, scan(given)
    y, h, c = np.empty_like(want[0]), given.h0.copy(), given.c0.copy()
    head = (given.x, given.lengths, w["w_xh_t"], w["w_hh_t"], w["b"])
    kind, _, variant = law.partition("-")
    if kind == "elman":
        native.scan_elman(*head, ACTIVATIONS.index(variant), h, y, h, 1)
    elif kind == "lstm":
        native.scan_lstm(*head, w.get("w_hr_t"), h, c, y, h, c, 1)
    else:
        native.scan_gru(*head, w["b_hn"], variant == "after", h, y, h, 1)
    assert_same_bits((y, h, c), want)


@pytest.mark.parametrize("law", LAWS)
def test_nan_stays_in_its_row(law: str) -> None:
    given = case(law, 17, 20, LENGTHS)
    y, h, c = scan(given)
    sick = replace(given, x=given.x.copy())
    sick.x[sick.starts[3] + 4, 0] = np.nan
    y_sick, h_sick, c_sick = scan(sick)
    first, last = sick.starts[3] + 4, sick.starts[4]
    assert np.isnan(y_sick[first:last]).all() and np.isnan(h_sick[3]).all()
    rest, others = np.r_[0:first, last : len(y)], [0, 1, 2, 4, 5, 6]
    assert_same_bits((y_sick[rest], h_sick[others]), (y[rest], h[others]))
    assert_same_bits((c_sick[others],), (c[others],))


def test_empty_batch_and_empty_sequences_are_legal() -> None:
    for law in LAWS:
        y, h, c = scan(case(law, 3, 5, []))
        assert y.size == h.size == c.size == 0
        given = case(law, 3, 5, [0, 0])
        assert_same_bits(scan(given)[1:], (given.h0, given.c0))


FORCED = """
import sys
import numpy as np
from test_native import LAWS, LENGTHS, case, native, scan
assert native.compiled_for() == sys.argv[1]
cases = [case(law, i, h, LENGTHS * 9) for law in LAWS for i, h in [(1, 1), (17, 23), (64, 130)]]
np.savez(sys.argv[2], *[part for each in cases for part in scan(each, 3)])
"""


def run_forced(target: str, *arguments: str, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "SEGUE_TARGET": target, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("target", ["reference", "avx2", "avx512"])
def test_every_target_gives_the_bits_of_this_one(target: str, tmp_path: Path) -> None:
    ran = run_forced(target, target, str(tmp_path / "got.npz"), code=FORCED)
    if "SEGUE_TARGET: expected one of" in ran.stderr:
        pytest.skip(f"this machine or this build has no target {target}")
    assert ran.returncode == 0, ran.stderr
    shapes = [(1, 1), (17, 23), (64, 130)]
    cases = [case(law, i, h, LENGTHS * 9) for law in LAWS for i, h in shapes]
    want = [part for each in cases for part in scan(each)]
    with np.load(tmp_path / "got.npz") as got:
        assert_same_bits(tuple(got.values()), tuple(want))


def test_an_unknown_target_stops_the_import() -> None:
    ran = run_forced("mmx", code="import segue._native")
    usable = ran.stderr.partition("expected one of ")[2].partition(", got")[0]
    assert "reference" in usable.split(", ")
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: SEGUE_TARGET: expected one of {usable}, got mmx; "
        "unset it to use the fastest target of this machine"
    )


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def affine_with(**changed: object) -> None:
    good: dict[str, object] = {"x": zeros(5, 2), "w_t": zeros(2, 3), "b": zeros(3)}
    good |= {"y": zeros(5, 3), "threads": 1}
    native.affine(**(good | changed))


def lstm_with(**changed: object) -> None:
    good: dict[str, object] = {"x": zeros(5, 2), "lengths": np.array([2, 3]), "w_hr_t": None}
    good |= {"w_xh_t": zeros(2, 12), "w_hh_t": zeros(3, 12), "b": zeros(12), "threads": 1}
    good |= {"h0": zeros(2, 3), "c0": zeros(2, 3), "y": zeros(5, 3)}
    good |= {"h_last": zeros(2, 3), "c_last": zeros(2, 3)}
    native.scan_lstm(**(good | changed))


def elman_with(**changed: object) -> None:
    good: dict[str, object] = {"x": zeros(5, 2), "lengths": np.array([2, 3]), "activation": 1}
    good |= {"w_xh_t": zeros(2, 3), "w_hh_t": zeros(3, 3), "b": zeros(3), "threads": 1}
    native.scan_elman(
        **(good | {"h0": zeros(2, 3), "y": zeros(5, 3), "h_last": zeros(2, 3)} | changed)
    )


def gru_with(**changed: object) -> None:
    good: dict[str, object] = {"x": zeros(5, 2), "lengths": np.array([2, 3]), "threads": 1}
    good |= {"w_xh_t": zeros(2, 9), "w_hh_t": zeros(3, 9), "b_x": zeros(9), "b_hn": zeros(3)}
    good |= {"reset_after": True, "h0": zeros(2, 3), "y": zeros(5, 3), "h_last": zeros(2, 3)}
    native.scan_gru(**(good | changed))


AGREE = "pass arrays whose shapes agree"
COUNT = "count the steps of each sequence"
REFUSED: list[tuple[Callable[..., None], dict[str, object], str]] = [
    (affine_with, {"y": zeros(5, 4)}, f"affine: y: expected shape [N=5, O=3], got [5, 4]; {AGREE}"),
    (
        affine_with,
        {"w_t": zeros(4, 3)},
        f"affine: w_t: expected shape [I=2, O=3], got [4, 3]; {AGREE}",
    ),
    (affine_with, {"b": zeros(2)}, f"affine: b: expected shape [O=3], got [2]; {AGREE}"),
    (affine_with, {"x": zeros(5)}, "affine: x: expected 2 axes, got shape [5]; reshape it"),
    (affine_with, {"x": np.zeros((5, 2))}, "affine: x: expected float32, got float64; convert it"),
    (
        affine_with,
        {"x": zeros(2, 5).T},
        "affine: x: expected contiguous memory, got a strided view; call .contiguous() on it",
    ),
    (
        affine_with,
        {"threads": 0},
        "affine: threads: expected at least 1, got 0; pass how many threads may run",
    ),
    (
        lstm_with,
        {"lengths": np.array([2, 4])},
        f"scan_lstm: lengths: expected the sum N=5, the rows of x, got more; {COUNT}",
    ),
    (
        lstm_with,
        {"lengths": np.array([2, 2])},
        f"scan_lstm: lengths: expected the sum N=5, the rows of x, got 4; {COUNT}",
    ),
    (
        lstm_with,
        {"lengths": np.array([6, -1])},
        f"scan_lstm: lengths: expected the sum N=5, the rows of x, got more; {COUNT}",
    ),
    (
        lstm_with,
        {"lengths": np.array([-1, 6])},
        f"scan_lstm: lengths[0]: expected at least 0, got -1; {COUNT}",
    ),
    (
        lstm_with,
        {"lengths": np.array([2, 3], np.int32)},
        "scan_lstm: lengths: expected int64, got int32; convert it",
    ),
    (
        lstm_with,
        {"w_hr_t": zeros(3, 2)},
        f"scan_lstm: h0: expected shape [B=2, P=2], got [2, 3]; {AGREE}",
    ),
    (lstm_with, {"b": zeros(11)}, f"scan_lstm: b: expected shape [4H=12], got [11]; {AGREE}"),
    (
        lstm_with,
        {"c_last": zeros(1, 3)},
        f"scan_lstm: c_last: expected shape [B=2, H=3], got [1, 3]; {AGREE}",
    ),
    (
        elman_with,
        {"activation": 4},
        "scan_elman: activation: expected 0 (identity), 1 (tanh), 2 (relu) or 3 (sigmoid), got 4; "
        "pass one of these",
    ),
    (
        elman_with,
        {"w_hh_t": zeros(4, 3)},
        f"scan_elman: h0: expected shape [B=2, H=4], got [2, 3]; {AGREE}",
    ),
    (gru_with, {"b_hn": zeros(9)}, f"scan_gru: b_hn: expected shape [H=3], got [9]; {AGREE}"),
    (
        gru_with,
        {"w_xh_t": zeros(1, 9)},
        f"scan_gru: w_xh_t: expected shape [I=2, 3H=9], got [1, 9]; {AGREE}",
    ),
]


@pytest.mark.parametrize(("call", "changed", "message"), REFUSED)
def test_wrong_arguments_are_refused_with_the_whole_message(
    call: Callable[..., None], changed: dict[str, object], message: str
) -> None:
    call()
    with pytest.raises(ValueError) as caught:
        call(**changed)
    assert str(caught.value) == message


def test_outputs_that_cannot_be_written_are_refused() -> None:
    y = zeros(5, 3)
    y.flags.writeable = False
    with pytest.raises(TypeError):
        affine_with(y=y)


def test_torch_tensors_are_taken_as_they_are() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, w, y = torch.ones(2, 3), torch.ones(3, 4), torch.empty(2, 4)
    native.affine(x, w, None, y, 1)
    assert torch.equal(y, torch.full((2, 4), 3.0))
