"""The native module as Python sees it. The kernels themselves are held to their definition, with
every option, by tests/native.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from segue import ops
from segue.ops import native
from segue.ops.given import GRU, LSTM, Elman, Given
from segue.ragged import Ragged

module = pytest.importorskip(
    "segue._native", reason="segue._native is not built: no C++ compiler at installation"
)

LENGTHS = [5, 0, 1, 9, 3, 1, 2]
LAWS = ["elman-identity", "elman-tanh", "elman-relu", "elman-sigmoid"]
LAWS += ["lstm", "lstm-all", "gru-after", "gru-before", "gru-all"]


def given(law: str, inputs: int, hidden: int, lengths: list[int], seed: int = 0) -> Given:
    """The arguments of a scan; "all" has every option at once."""
    generator = torch.Generator().manual_seed(seed)
    kind, _, variant = law.partition("-")
    every = variant == "all"
    gates = {"elman": 1, "lstm": 4, "gru": 3}[kind] * hidden
    batch, steps = len(lengths), sum(lengths)
    width = max(1, hidden // 2) if law == "lstm-all" else hidden

    def draw(*shape: int) -> Tensor:
        scale = 1 / max(1, shape[-1]) ** 0.5
        return (torch.rand(shape, generator=generator) * 2 - 1) * scale

    def keep(units: int) -> Tensor | None:
        return torch.rand(steps, units, generator=generator) < 0.3 if every else None

    first = {
        "x": torch.randn(steps, inputs, generator=generator),
        "lengths": torch.tensor(lengths, dtype=torch.int64),
        **{"w_xh": draw(gates, inputs), "b": draw(gates), "w_hh": draw(gates, width)},
        **{name: 1 + draw(gates) if every else None for name in ("gain_x", "gain_h")},
        "mask": (draw(batch, width) > 0).float() * 2 if every else None,
        **{"h": draw(batch, width), "keep_h": keep(width), "rate_h": 0.3 * every},
        "reverse": every,
    }
    if kind == "elman":
        return Elman(**first, activation=variant)
    if kind == "gru":
        return GRU(**first, b_hn=None if variant == "before" else draw(hidden))
    return LSTM(
        **first,
        w_hr=draw(width, hidden) if every else None,
        w_c=draw(3, hidden) if every else None,
        gain_c=1 + draw(hidden) if every else None,
        b_c=draw(hidden) if every else None,
        c=draw(batch, hidden),
        keep_c=keep(hidden),
        rate_c=0.3 * every,
    )


def outputs(one: Given) -> list[Tensor]:
    """Everything that a scan and the way back through it give."""
    kept = native.make_kept(one)
    y, h, c = native.scan(one, kept)
    if isinstance(one, GRU) and one.b_hn is None:
        kept.gates[:, 3 * h.shape[1] :] = 0  # u, which this form does not have
    dc = torch.ones_like(c) if c.numel() else None
    return [y, h, c, *kept, *native.scan_back(one, kept, y, y.cos(), h.sin(), dc)]


def hold_same_bits(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_activation_is_accurate_and_saturates(function: str) -> None:
    a = np.concatenate([np.linspace(-100, 100, 200_001), np.geomspace(1e-30, 1, 10_001)])
    a = np.concatenate([a, [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    got = activation_of(torch.tensor(a), function).numpy()
    with np.errstate(over="ignore"):
        wide = a.astype(np.float64)
        exact = np.tanh(wide) if function == "tanh" else 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(got, exact, rtol=3e-7, atol=1e-37)
    assert got[-3] == 1 and got[-2] == (-1 if function == "tanh" else 0)
    assert np.isnan(got[-1])


def activation_of(a: Tensor, activation: str) -> Tensor:
    """f(a) by an Elman step that sees nothing but a."""
    lengths, state = torch.ones(len(a), dtype=torch.int64), torch.zeros(len(a), 1)
    weights = torch.ones(1, 1), torch.zeros(1), torch.zeros(1, 1)
    plain = (*weights, None, None, None, state, None, 0.0, False)
    return native.scan(Elman(a[:, None], lengths, *plain, activation))[0][:, 0]


def test_the_bits_of_half_precision_are_products_of_rounded_numbers() -> None:
    x, w, b = torch.randn(70, 33), torch.randn(130, 33), torch.randn(130)
    y = native.affine(x, w, b, half=True)
    exact = x.bfloat16().double() @ w.bfloat16().double().t() + b
    assert float((y - exact).abs().max()) < 1e-5
    assert float((native.affine(x, w, b) - y).abs().max()) > 1e-3


FORCED = """
import sys
import numpy as np
import torch
from test_native import LAWS, LENGTHS, given, module, outputs
assert module.compiled_for() == sys.argv[1]
torch.set_num_threads(2)
cases = [given(law, i, h, LENGTHS * 9) for law in LAWS for i, h in [(1, 1), (17, 23), (64, 130)]]
np.savez(sys.argv[2], *[part.numpy() for each in cases for part in outputs(each)])
"""


def run_forced(target: str, *arguments: str, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "SEGUE_TARGET": target, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("target", ["plain", "neon", "avx2", "avx512", "amx"])
def test_every_target_gives_the_bits_of_this_one(target: str, tmp_path: Path) -> None:
    ran = run_forced(target, target, str(tmp_path / "got.npz"), code=FORCED)
    if "SEGUE_TARGET: expected one of" in ran.stderr:
        pytest.skip(f"this machine or this build has no target {target}")
    assert ran.returncode == 0, ran.stderr
    shapes = [(1, 1), (17, 23), (64, 130)]
    cases = [given(law, i, h, LENGTHS * 9) for law in LAWS for i, h in shapes]
    want = [part for each in cases for part in outputs(each)]
    with np.load(tmp_path / "got.npz") as got:
        hold_same_bits([torch.from_numpy(part) for part in got.values()], want)


def test_an_unknown_target_stops_the_import() -> None:
    ran = run_forced("mmx", code="import segue._native")
    usable = ran.stderr.partition("expected one of ")[2].partition(", got")[0]
    assert "plain" in usable.split(", ")
    assert ran.stderr.splitlines()[-1] == (
        f"ImportError: SEGUE_TARGET: expected one of {usable}, got mmx; "
        "unset it to use the fastest target of this machine"
    )


# With 24 hidden units each thread has rows of its own; with 360 the threads share the rows.
@pytest.mark.parametrize("hidden", [24, 360])
@pytest.mark.parametrize("law", LAWS)
def test_any_number_of_threads_gives_the_same_bits(law: str, hidden: int) -> None:
    one = given(law, 64, hidden, LENGTHS * (20 if hidden == 24 else 1))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    want = outputs(one)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        hold_same_bits(outputs(one), want)
    torch.set_num_threads(before)


@pytest.mark.parametrize("law", LAWS)
def test_sequences_that_follow_others_in_a_row_equal_each_alone(law: str) -> None:
    lengths = torch.randint(0, 9, (120,), generator=torch.Generator().manual_seed(5)).tolist()
    whole = given(law, 3, 10, lengths)
    y, h, c, *_, dh, dc, _, _, _ = outputs(whole)
    for b, steps in enumerate(torch.arange(sum(lengths)).split(lengths)):
        one = whole._replace(
            x=whole.x[steps], lengths=whole.lengths[b : b + 1], h=whole.h[b : b + 1]
        )
        of_steps = {name: getattr(whole, name, None) for name in ("keep_h", "keep_c")}
        of_rows = {name: getattr(whole, name, None) for name in ("mask", "c")}
        own = {name: all_[steps] for name, all_ in of_steps.items() if all_ is not None}
        own |= {name: all_[b : b + 1] for name, all_ in of_rows.items() if all_ is not None}
        y_one, h_one, c_one, *_, dh_one, dc_one, _, _, _ = outputs(one._replace(**own))
        want = [part[b : b + 1] if part.dim() > 1 else part for part in (h, c, dh, dc)]
        hold_same_bits([y_one, h_one, c_one, dh_one, dc_one], [y[steps], *want])


@pytest.mark.parametrize("law", LAWS)
def test_the_way_there_is_the_same_with_and_without_a_way_back(law: str) -> None:
    one = given(law, 17, 40, LENGTHS)
    hold_same_bits(list(native.scan(one)), list(native.scan(one, native.make_kept(one))))


@pytest.mark.parametrize("law", LAWS)
def test_a_gradient_of_nan_stays_in_its_sequence(law: str) -> None:
    one = given(law, 17, 20, LENGTHS)
    kept = native.make_kept(one)
    y, h, c = native.scan(one, kept)
    dy = y.cos()
    dc = torch.zeros_like(c) if c.numel() else None
    clean = native.scan_back(one, kept, y, dy, None, dc)
    start, end = sum(LENGTHS[:3]), sum(LENGTHS[:4])
    dy[start + 4] = torch.nan
    sick = native.scan_back(one, kept, y, dy, None, dc)
    assert sick.d[start:end].isnan().any() and sick.dh[3].isnan().any()
    rest = [n for n in range(len(y)) if not start <= n < end]
    others = [b for b in range(len(LENGTHS)) if b != 3]
    hold_same_bits([sick.d[rest], sick.dh[others]], [clean.d[rest], clean.dh[others]])


@pytest.mark.parametrize("threads", [1, 2])
def test_what_fades_ends_in_zero_and_the_callers_numbers_do_not(threads: int) -> None:
    """Numbers too small to be normal take a processor ten times as long, and carry nothing."""
    least = torch.finfo(torch.float32).smallest_normal
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, h = torch.full((8 * 300, 64), 0.5), torch.zeros(8, 64)
    b = torch.randn(8 * 300, 64, requires_grad=True)
    _, last = ops.scan_linear(a, b, Ragged(a, torch.full((8,), 300)), h)
    (db,) = torch.autograd.grad(last.sum(), [b])
    torch.set_num_threads(before)
    steps = db.view(8, 300, 64)
    assert steps[:, :173].eq(0).all() and steps[:, 173:].ge(least).all()
    assert torch.tensor(least) / 2 > 0


def test_empty_batches_and_empty_sequences_are_legal() -> None:
    for law in LAWS:
        y, h, c = native.scan(given(law, 3, 5, []))
        assert y.numel() == h.numel() == c.numel() == 0
        one = given(law, 3, 5, [0, 0])
        assert torch.equal(native.scan(one)[1], one.h)


# Packed weights


def test_a_weight_is_packed_anew_when_it_has_changed() -> None:
    weight, x = torch.nn.Parameter(torch.randn(70, 9)), torch.randn(3, 9)

    def hold_fresh() -> None:
        with torch.no_grad():
            y = native.affine(x, weight, None)
        assert torch.allclose(y, x @ weight.detach().t(), atol=1e-5)

    hold_fresh()
    first = native.packed(weight)
    assert native.packed(weight) is first
    with torch.no_grad():
        weight.mul_(2)
    hold_fresh()
    assert native.packed(weight) is not first
    weight.data.fill_(0.5)
    hold_fresh()
    weight.data = torch.randn(70, 9)
    hold_fresh()


def test_rows_and_transposes_of_a_weight_are_kept_side_by_side() -> None:
    weight = torch.randn(30, 8)
    whole, part = native.packed(weight), native.packed(weight, rows=slice(10, 20))
    turned = native.packed(weight, transpose=True)
    assert native.packed(weight) is whole and native.packed(weight, transpose=True) is turned
    assert native.packed(weight, rows=slice(10, 20)) is part
    assert np.array_equal(part, native.packed(weight[10:20].clone()))
    assert np.array_equal(turned, native.packed(weight.t().contiguous()))


def test_memory_of_a_large_array_is_used_again_when_nobody_holds_it() -> None:
    size = 5 << 20
    first, other = native.fresh(size), native.fresh(size)
    address, part = first.data_ptr(), first[7:]
    assert other.data_ptr() != address
    del first
    assert native.fresh(size).data_ptr() != address
    del part
    assert native.fresh(size).data_ptr() == address


# Refusals


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def weights(outputs: int, inputs: int, gates: int = 1) -> np.ndarray:
    return torch.zeros(module.packed_size(outputs, inputs, gates)).numpy()


def affine_with(**changed: object) -> None:
    good: dict[str, object] = {"x": zeros(5, 2), "w": weights(3, 2), "b": zeros(3)}
    module.affine(**(good | {"y": zeros(5, 3), "threads": 1} | changed))


def diagonal_with(**changed: object) -> None:
    good: dict[str, object] = {"x": zeros(5, 2), "w_x": weights(9, 2, 3), "b": zeros(9)}
    good |= {"lengths": np.array([2, 3]), "h0": zeros(2, 3), "rates": None, "gates": None}
    good |= {"y": zeros(5, 3), "h_last": zeros(2, 3), "threads": 1, "law": 1}
    module.scan_diagonal(**(good | changed))


def scan_of(gates: int, **changed: object) -> object:
    wide = 3 * gates
    good: dict[str, object] = {"x": zeros(5, 2), "lengths": np.array([2, 3]), "b": zeros(wide)}
    good |= {"w_x": weights(wide, 2, gates), "w_h": weights(wide, 3, gates), "h0": zeros(2, 3)}
    good |= dict.fromkeys(["mask", "gain_x", "gain_h", "keep_h", "gates"])
    good |= dict.fromkeys(["xhat_x", "rstd_x", "xhat_h", "rstd_h"])
    good |= {"y": zeros(5, 3), "h_last": zeros(2, 3), "rate_h": 0.0, "reverse": False, "threads": 1}
    return module.Scan(**(good | changed))


def elman_with(activation: int = 1, **changed: object) -> None:
    module.scan_elman(scan_of(1, **changed), activation)


def lstm_with(c_last: object = None, **changed: object) -> None:
    last = zeros(2, 3) if c_last is None else c_last
    cell = (None, None, None, None, None, 0.0, zeros(2, 3), last, None, None, None, None)
    module.scan_lstm(scan_of(4, **changed), *cell)


def gru_with(b_hn: object = zeros(3), w_n: object = None, **changed: object) -> None:
    module.scan_gru(scan_of(3, **changed), w_n, b_hn)


AGREE = "pass arrays whose shapes agree"
COUNT = "count the steps of each sequence"
REFUSED: list[tuple[Callable[..., None], dict[str, object], str]] = [
    (
        affine_with,
        {"y": zeros(4, 3)},
        f"affine: y: expected shape [N=5, O=3], got [4, 3]; {AGREE}",
    ),
    (
        affine_with,
        {"w": zeros(4)},
        f"affine: w: expected shape [packed={module.packed_size(3, 2)}], got [4]; {AGREE}",
    ),
    (affine_with, {"b": zeros(2)}, f"affine: b: expected shape [O=3], got [2]; {AGREE}"),
    (affine_with, {"x": zeros(5)}, "affine: x: expected 2 axes, got shape [5]; reshape it"),
    (affine_with, {"x": np.zeros((5, 2))}, "affine: x: expected float32, got float64; convert it"),
    (
        affine_with,
        {"x": zeros(2, 5).T},
        "affine: x: expected contiguous rows, got a strided view; call .contiguous() on it",
    ),
    (
        affine_with,
        {"blocks": 2},
        "affine: blocks: expected a divisor of O=3, got 2; cut it into equal pieces",
    ),
    (
        affine_with,
        {"parts": 0},
        "affine: parts: expected a divisor of I=2, got 0; cut it into equal pieces",
    ),
    (
        diagonal_with,
        {"b": None},
        "scan_diagonal: expected w_x and b, got one of them; pass both or neither",
    ),
    (
        diagonal_with,
        {"w_x": None, "b": None},
        f"scan_diagonal: x: expected shape [N=5, G=9], got [5, 2]; {AGREE}",
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
        {"lengths": np.array([-1, 6])},
        f"scan_lstm: lengths[0]: expected at least 0, got -1; {COUNT}",
    ),
    (
        lstm_with,
        {"lengths": np.array([2, 3], np.int32)},
        "scan_lstm: lengths: expected int64, got int32; convert it",
    ),
    (lstm_with, {"b": zeros(11)}, f"scan_lstm: b: expected shape [4H=12], got [11]; {AGREE}"),
    (
        lstm_with,
        {"h0": zeros(2, 2)},
        "scan_lstm: h0: expected R=3 columns without a projection, got 2; " + AGREE,
    ),
    (
        lstm_with,
        {"c_last": zeros(1, 3)},
        f"scan_lstm: c_last: expected shape [B=2, H=3], got [1, 3]; {AGREE}",
    ),
    (
        lstm_with,
        {"gain_h": zeros(12)},
        "scan_lstm: expected gain_x and gain_h, got one of them; pass both or neither",
    ),
    (
        elman_with,
        {"activation": 4},
        "scan_elman: activation: expected 0 (identity), 1 (tanh), 2 (relu) or 3 (sigmoid), got 4; "
        "pass one of these",
    ),
    (
        elman_with,
        {"mask": zeros(1, 3)},
        f"scan_elman: mask: expected shape [B=2, H=3], got [1, 3]; {AGREE}",
    ),
    (gru_with, {"b_hn": zeros(9)}, f"scan_gru: b_hn: expected shape [H=3], got [9]; {AGREE}"),
    (
        gru_with,
        {"w_n": weights(3, 3)},
        "scan_gru: expected either w_n or b_hn, got both or neither; pass one of them",
    ),
    (
        gru_with,
        {"keep_h": np.zeros((4, 3), np.uint8)},
        f"scan_gru: keep_h: expected shape [N=5, H=3], got [4, 3]; {AGREE}",
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
