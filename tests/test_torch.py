"""What torch does around a call: it compiles, exports, casts, transforms, differentiates twice.

Tolerances: float32 against float64 within 2e-5 of the largest value, for second derivatives 2e-4.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pytest
import torch
from catalogue import LAW, ROWS, TORCH, Row, cells
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.data import DataLoader

from segue import ops, unroll
from segue.cells import GRU, LSTM
from segue.errors import SpecError
from segue.ops import native
from segue.ragged import Ragged

pytestmark = [
    pytest.mark.skipif(native.native_name() is None, reason="the native module is not built"),
    # torch's own imports of its older parts warn.
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
]

by_name = partial(pytest.mark.parametrize, "row", ids=lambda row: row.name)
LAWS = cells(LAW)
NATIVE = [row for row in LAWS if row.name != "elman-custom"]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Tagger(nn.Module):
    """A user's module: a cell, and a layer of torch on top."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(cell.outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(unroll(self.cell, x)[0]))


def gradients(run: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> list[Tensor]:
    """y, and the gradients of a loss in x and all parameters."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    torch.manual_seed(7)
    y = run(x)
    y.sin().sum().backward()
    return [y.detach(), *(cast(Tensor, part.grad) for part in (x, *layer.parameters()))]


def hold_same_bits(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def hold_close(actual: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        assert float((a - b).detach().abs().max()) <= tolerance * scale


def outputs_of(layer: Any, x: Tensor) -> Tensor:
    return unroll(layer, x)[0]


# torch.compile


@by_name(ROWS)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_compiled_in_one_graph_equals_eager_to_the_bit(row: Row, training: bool) -> None:
    layer, x = row.build(3, 5).train(training), torch.randn(2, 4, 3)
    eager = partial(outputs_of, layer)
    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager")
    if TORCH in row.tags:  # traced, it may be another path, with bits of its own
        if training:
            found = gradients(compiled, layer, x), gradients(eager, layer, x)
        else:
            with torch.no_grad():
                found = [compiled(x)], [eager(x)]
        hold_close(*found)
    elif training:
        hold_same_bits(gradients(compiled, layer, x), gradients(eager, layer, x))
    else:
        with torch.no_grad():
            assert torch.equal(compiled(x), eager(x))


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_one_graph_serves_all_sizes(training: bool) -> None:
    model, counter = Tagger(LSTM(4, 6)), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for batch, steps in [(2, 7), (3, 5), (5, 9), (4, 2)]:
        x = torch.randn(batch, steps, 4)
        if training:
            hold_same_bits(gradients(compiled, model, x), gradients(model, model, x))
        else:
            with torch.no_grad():
                assert torch.equal(compiled(x), model(x))
    assert counter.frame_count == 1


def test_ragged_sequences_compile_with_dynamic_lengths() -> None:
    cell, counter = GRU(4, 6), CompileCounterWithBackend("aot_eager")

    def eager(values: Tensor, lengths: Tensor) -> Tensor:
        return unroll(cell, Ragged(values, lengths))[0].values

    compiled = torch.compile(eager, fullgraph=True, dynamic=True, backend=counter)
    for lengths in ([2, 0, 3], [4, 1, 1, 5], [3, 2]):
        given = torch.randn(sum(lengths), 4), torch.tensor(lengths)
        assert torch.equal(compiled(*given), eager(*given))
    assert counter.frame_count == 1


@by_name(NATIVE)
def test_a_compiled_step_equals_the_step(row: Row) -> None:
    cell, x = row.build(3, 5), torch.randn(2, 3)
    compiled = torch.compile(cell.step, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        y, state = compiled(x, cell.initial_state(2))
        expected, after = cell.step(x, cell.initial_state(2))
    hold_same_bits([y, *state], [expected, *after])


def test_inductor_compiles_training_and_inference() -> None:
    model, x = Tagger(GRU(3, 5)), torch.randn(2, 4, 3)
    compiled = torch.compile(model, fullgraph=True)
    hold_close(gradients(compiled, model, x), gradients(model, model, x))
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))


# torch.export and other traces


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_module_runs_the_operator_at_all_sizes(strict: bool) -> None:
    model = Tagger(LSTM(4, 6, layer_norm=True)).eval()
    sizes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("steps")},)
    program = torch.export.export(
        model, (torch.randn(3, 5, 4),), strict=strict, dynamic_shapes=sizes
    )
    operators = {str(node.target) for node in program.graph.nodes}
    assert "segue.lstm.default" in operators
    x = torch.randn(7, 2, 4)
    with torch.no_grad():
        assert torch.equal(program.module()(x), model(x))


def test_an_exported_module_can_be_trained() -> None:
    model, x = Tagger(GRU(4, 6)), torch.randn(3, 5, 4)
    trained = torch.export.export(model, (x,)).module()
    names = [name for name, _ in model.named_parameters()]
    ours = dict(zip(names, gradients(model, model, x)[2:], strict=True))
    gradients(trained, trained, x)
    for name, weight in trained.named_parameters():
        assert weight.grad is not None
        assert torch.equal(weight.grad, ours[name])


def test_make_fx_records_the_operator() -> None:
    cell, x = GRU(3, 5), torch.randn(2, 4, 3)
    with torch.no_grad():
        graph = make_fx(partial(outputs_of, cell))(x)
        assert "torch.ops.segue.gru" in graph.code
        other = torch.randn(2, 4, 3)
        assert torch.equal(graph(other), outputs_of(cell, other))


@pytest.mark.parametrize("needs", [False, True], ids=["without-gradients", "with-gradients"])
@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "diagonal", "affine"])
def test_the_operators_keep_the_rules_of_torch(name: str, needs: bool) -> None:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape).requires_grad_(needs)

    gates = {"elman": 5, "lstm": 20, "gru": 15}.get(name, 5)
    keep = torch.rand(7, 5) < 0.3
    shared = (random(7, 3), torch.tensor([4, 0, 3]), random(gates, 3), random(gates))
    norms = random(gates), random(gates)
    more = (random(gates, 5), *norms, torch.rand(3, 5), random(3, 5), keep, 0.3, True)
    memory = (None, random(3, 5), random(5), random(5), random(3, 5), keep, 0.3)
    given: dict[str, Callable[[], tuple[Any, ...]]] = {
        "elman": lambda: ops.Elman(*shared, *more, "sigmoid"),
        "lstm": lambda: ops.LSTM(*shared, *more, *memory),
        "gru": lambda: ops.GRU(*shared, *more, random(5)),
        "diagonal": lambda: ops.Diagonal(
            *shared[:2],
            random(15, 3),
            random(15),
            torch.rand(5).requires_grad_(needs),
            random(3, 5),
            "rg_lru",
        ),
        "affine": lambda: (random(7, 3), random(5, 3), random(5)),
    }
    torch.library.opcheck(getattr(torch.ops.segue, name).default, tuple(given[name]()))


def test_operators_have_first_derivatives_only() -> None:
    weights = torch.randn(5, 3), torch.randn(5), torch.randn(5, 5)
    x = torch.randn(4, 3, requires_grad=True)
    given = ops.Shared(
        x, torch.tensor([4]), *weights, None, None, None, torch.zeros(1, 5), None, 0.0, False
    )
    y, _, _ = torch.ops.segue.elman(*ops.Elman(*given, "tanh"))
    message = (
        "the gradient of an operator of segue: expected a first derivative, got create_graph=True; "
        "use the layer outside of a trace"
    )
    with pytest.raises(SpecError) as caught:
        torch.autograd.grad(y.sum(), x, create_graph=True)
    assert str(caught.value) == message


# Autocast


@by_name(NATIVE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32_and_returns_its_own_dtype(
    row: Row, dtype: torch.dtype
) -> None:
    cell, x = row.build(3, 5), torch.randn(2, 4, 3)
    expected, last = unroll(cell, x)
    with torch.autocast("cpu", dtype):
        y, state = unroll(cell, x)
        inside = gradients(lambda x: outputs_of(cell, x).float(), cell, x)
        rounded, _ = unroll(cell, x.to(dtype))
    assert y.dtype == rounded.dtype == dtype
    hold_same_bits([y, *state], [expected.to(dtype), *last])
    assert torch.equal(rounded, unroll(cell, x.to(dtype).float())[0].to(dtype))
    outside = gradients(lambda x: outputs_of(cell, x).to(dtype).float(), cell, x)
    hold_same_bits(inside, outside)


def test_autocast_takes_weights_of_its_dtype_and_gives_them_gradients_of_it() -> None:
    cell = LSTM(3, 5, projection=2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = unroll(cell, torch.randn(2, 4, 3).bfloat16())
    y.float().sum().backward()
    assert (y.dtype, state.h.dtype, state.c.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert {cast(Tensor, weight.grad).dtype for weight in cell.parameters()} == {torch.bfloat16}


def test_autocast_compiles() -> None:
    cell, x = GRU(3, 5, layer_norm=True), torch.randn(2, 4, 3)

    def eager(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return unroll(cell, x)[0].float()

    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager")
    hold_same_bits(gradients(compiled, cell, x), gradients(eager, cell, x))


# torch.func, through the loop


def loss(layer: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return cast(Tensor, functional_call(layer, weights, (x,))).square().sum()


@by_name(LAWS)
def test_func_grad_is_the_gradient(row: Row) -> None:
    model, x = Tagger(row.build(3, 5)), torch.randn(2, 4, 3)
    weights = dict(model.named_parameters())
    # The learned first state enters through initial_state, so all have a gradient.
    model(x).square().sum().backward()
    found = grad(partial(loss, model))(weights, x)
    hold_close([found[n] for n in weights], [cast(Tensor, w.grad) for w in weights.values()])


@by_name(LAWS)
def test_vmap_runs_a_batch_of_models(row: Row) -> None:
    models = [Tagger(row.build(3, 5)) for _ in range(3)]
    for scale, model in enumerate(models, 1):
        for weight in model.parameters():
            weight.data.mul_(scale / 2)
    x, (weights, buffers) = torch.randn(2, 4, 3), stack_module_state(models)  # type: ignore[arg-type]

    def run(weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return cast(Tensor, functional_call(models[0], (weights, buffers), (x,)))

    hold_close(list(vmap(run)(weights, buffers)), [model(x) for model in models])


@by_name(LAWS)
def test_jacobians_backward_and_forward_agree(row: Row) -> None:
    cell, x, direction = row.build(3, 4), torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    run = partial(outputs_of, cell)
    expected = torch.autograd.functional.jacobian(run, x)
    hold_close([jacrev(run)(x)], [expected])
    along = (expected * direction).flatten(3).sum(3)
    y, tangent = jvp(run, (x,), (direction,))
    hold_close([y, tangent], [run(x), along])
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(run(forward_ad.make_dual(x, direction)))
        assert dual.tangent is not None
        hold_close([dual.primal, dual.tangent], [run(x), along])


# Second derivatives


def twice(run: Callable[[Tensor], list[Tensor]], cell: nn.Module, x: Tensor) -> list[Tensor]:
    """First derivatives of a loss, and those of a loss of these."""
    parts = [x, *cell.parameters()]
    total = sum((y.sin().sum() for y in run(x)), torch.zeros(()))
    first = torch.autograd.grad(total, parts, create_graph=True)
    penalty = sum((part.square().sum() for part in first), torch.zeros(()))
    return [*first, *torch.autograd.grad(penalty, parts)]


@by_name(LAWS)
def test_second_derivatives_are_those_of_the_equation_in_float64(row: Row) -> None:
    cell, x = row.build(3, 4), torch.randn(6, 3)
    lengths = torch.tensor([3, 0, 1, 2])

    def run(x: Tensor) -> list[Tensor]:
        y, state = unroll(cell, Ragged(x, lengths))
        return [y.values, *state]

    exact = copy.deepcopy(cell).double()

    def equation(x: Tensor) -> list[Tensor]:
        y, state = ops.loop(exact.step, Ragged(x, lengths), exact.initial_state(4))
        return [y, *state]

    actual = twice(run, cell, x.clone().requires_grad_())
    hold_close(actual, twice(equation, exact, x.double().requires_grad_()), 2e-4)


@by_name([row for row in ROWS if "zoneout" in row.name or "recurrent" in row.name])
def test_second_derivatives_see_the_same_noise(row: Row) -> None:
    layer, x = row.build(3, 4).train(), torch.randn(2, 3, 3)

    def run(x: Tensor) -> list[Tensor]:
        torch.manual_seed(7)
        return [outputs_of(layer, x)]

    first = gradients(partial(outputs_of, layer), layer, x)[1:]
    again = twice(run, layer, x.clone().requires_grad_())
    hold_close(again[: len(first)], first)


@pytest.mark.parametrize("reverse", [False, True])
def test_second_derivatives_run_in_both_directions(reverse: bool) -> None:
    cell, values = LSTM(3, 4), torch.randn(5, 3)
    x = Ragged(values, torch.tensor([3, 2]))

    def run(values: Tensor) -> list[Tensor]:
        y, state = cell.law().scan(x.with_values(values), cell.initial_state(2), reverse=reverse)
        return [y, *state]

    def plain(values: Tensor) -> list[Tensor]:
        turned = x.with_values(values)
        turned = turned.reversed() if reverse else turned
        y, state = ops.loop(cell.step, turned, cell.initial_state(2))
        out = turned.with_values(y)
        return [(out.reversed() if reverse else out).values, *state]

    hold_close(
        twice(run, cell, values.clone().requires_grad_()),
        twice(plain, cell, values.clone().requires_grad_()),
        2e-4,
    )


def test_a_gradient_penalty_trains() -> None:
    torch.manual_seed(0)
    model, x = Tagger(GRU(3, 5)), torch.randn(4, 6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    norms = []
    for _ in range(20):
        given = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(given).sum(), given, create_graph=True)
        penalty = slope.square().sum()
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        norms.append(penalty.item())
    assert norms[-1] < 0.5 * norms[0]


def test_inputs_made_of_each_other_have_their_own_gradients() -> None:
    cell, x = GRU(4, 4), torch.randn(2, 3, 4, requires_grad=True)

    def total(x: Tensor) -> Tensor:
        return unroll(cell, x, type(cell.initial_state(1))(x[:, 0].tanh()))[0].square().sum()

    (once,) = torch.autograd.grad(total(x), x)
    (again,) = torch.autograd.grad(total(x), x, create_graph=True)
    hold_close([again], [once])


# What else a layer of torch does


@by_name(NATIVE)
def test_a_graph_kept_gives_the_same_gradients_again(row: Row) -> None:
    cell, x = row.build(3, 5), torch.randn(2, 4, 3, requires_grad=True)
    total = unroll(cell, x)[0].sin().sum()
    parts = [x, *cell.parameters()]
    first = torch.autograd.grad(total, parts, retain_graph=True)
    hold_same_bits([*torch.autograd.grad(total, parts)], [*first])
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(total, parts)


@by_name(NATIVE)
def test_how_an_input_lies_in_memory_does_not_matter(row: Row) -> None:
    cell = row.build(3, 5)
    plain = torch.randn(2, 4, 3)
    run = partial(outputs_of, cell)
    expected = gradients(run, cell, plain)
    for x in (
        plain.transpose(0, 1).contiguous().transpose(0, 1),
        torch.stack([plain, plain], dim=3)[..., 0],
        torch.cat([plain, plain], dim=2)[:, :, 3:],
    ):
        assert not x.is_contiguous()
        hold_same_bits(gradients(run, cell, x), expected)
    once = plain[:1].expand(2, 4, 3)
    hold_same_bits(gradients(run, cell, once), gradients(run, cell, once.contiguous()))


def test_how_states_and_weights_lie_in_memory_does_not_matter() -> None:
    cell, x = LSTM(3, 5), torch.randn(2, 4, 3)
    turned = copy.deepcopy(cell)
    for name in ("w_xh", "w_hh"):
        weight = getattr(cell, name).detach()
        setattr(turned, name, nn.Parameter(weight.t().contiguous().t()))
    rows = torch.randn(5, 2), torch.randn(5, 2)
    found = []
    for layer, lay in ((cell, Tensor.contiguous), (turned, lambda part: part)):
        h, c = (lay(part.t()).requires_grad_() for part in rows)
        y, last = unroll(layer, x, type(layer.initial_state(1))(h, c))
        total = y.sin().sum() + last.c.sum()
        found.append([y, *torch.autograd.grad(total, [h, c, *layer.parameters()])])
    hold_same_bits(*found)


def test_a_weight_used_twice_has_the_sum_of_gradients() -> None:
    cell, x = GRU(4, 4), torch.randn(2, 3, 4)
    other = copy.deepcopy(cell)

    def two(first: GRU, second: GRU) -> Tensor:
        return unroll(second, unroll(first, x)[0])[0].sin().sum()

    apart = torch.autograd.grad(two(cell, other), [cell.w_hh, other.w_hh])
    (tied,) = torch.autograd.grad(two(cell, cell), cell.w_hh)
    hold_close([tied], [apart[0] + apart[1]], 1e-6)


@by_name(NATIVE)
def test_what_is_frozen_has_no_gradient_and_the_rest_the_same(row: Row) -> None:
    cell, x = row.build(3, 5), torch.randn(2, 4, 3)
    names = [name for name, _ in cell.named_parameters()]
    whole = dict(zip(names, gradients(partial(outputs_of, cell), cell, x)[2:], strict=True))
    for name in names:
        for other, weight in cell.named_parameters():
            weight.requires_grad_(other == name)
        cell.zero_grad()
        outputs_of(cell, x).sin().sum().backward()
        for other, weight in cell.named_parameters():
            assert (weight.grad is None) == (other != name)
        assert torch.equal(cast(Tensor, cell.get_parameter(name).grad), whole[name])


def test_weights_changed_between_the_ways_are_refused() -> None:
    cell = GRU(3, 5)
    total = outputs_of(cell, torch.randn(2, 4, 3)).sum()
    with torch.no_grad():
        cell.w_hh.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_outputs_changed_between_the_ways_are_refused() -> None:
    y = ops.scan(given_of(GRU(3, 5), torch.randn(4, 3)), refuse)[0]
    total = y.sum()
    with torch.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def given_of(cell: GRU, x: Tensor) -> ops.GRU:
    """One sequence."""
    weights = cell.w_xh, cell.b_h, cell.w_hh
    shared = ops.Shared(
        x, torch.tensor([len(x)]), *weights, None, None, None, torch.zeros(1, 5), None, 0.0, False
    )
    return ops.GRU(*shared, b_hn=cell.b_hn)


def refuse(given: Any) -> Any:
    pytest.fail("the definition is for second derivatives alone")


@by_name(NATIVE)
def test_inference_mode_gives_the_same_bits(row: Row) -> None:
    cell, x = row.build(3, 5), torch.randn(2, 4, 3)
    with torch.inference_mode():
        inside = outputs_of(cell, x)
        made_inside = outputs_of(row.build(3, 5), x.clone())
    hold_same_bits([inside, made_inside], [outputs_of(cell, x)] * 2)


def test_a_module_that_was_used_can_be_copied() -> None:
    model, x = Tagger(GRU(3, 5)), torch.randn(2, 4, 3)
    expected = gradients(model, model, x)
    twin = copy.deepcopy(model)
    hold_same_bits(gradients(twin, twin, x), expected)


@by_name(NATIVE)
def test_gradients_do_not_depend_on_the_number_of_threads(row: Row) -> None:
    cell, x = row.build(8, 32), torch.randn(24, 20, 8)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y = outputs_of(cell, x)
        found.append([y.detach(), *torch.autograd.grad(y.sin().sum(), [*cell.parameters()])])
    torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    hold_close(found[0], found[1])


def test_two_losses_go_back_in_threads_at_once() -> None:
    pair = GRU(8, 16), GRU(8, 16)
    x = torch.randn(4, 10, 8)
    expected = [gradients(partial(outputs_of, cell), cell, x) for cell in pair]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: gradients(partial(outputs_of, one), one, x), pair))
    for actual, right in zip(found, expected, strict=True):
        hold_same_bits(actual[:1], right[:1])
        hold_close(actual, right)


class Encoded(torch.utils.data.Dataset[Tensor]):
    """Sequences that a worker encodes by a network."""

    def __init__(self, cell: GRU, x: Tensor) -> None:
        self.cell, self.x = cell, x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return outputs_of(self.cell, self.x[index])


@pytest.mark.timeout(60)
def test_a_forked_worker_runs_after_its_parent_ran_on_two_threads() -> None:
    cell, x = GRU(16, 64), torch.randn(2, 32, 40, 16)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.no_grad():
        expected = [outputs_of(cell, part) for part in x]
    # Workers are forked, and torch gives each of them one thread: the waiting threads of the
    # parent's pool are not there any more.
    loader = DataLoader(
        Encoded(cell, x), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    found = list(loader)
    torch.set_num_threads(before)
    hold_same_bits(found, expected)
