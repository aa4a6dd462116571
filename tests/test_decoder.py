"""Attention over a memory, the decoder and its search, against their equations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from segue.cells import GRU, LSTM
from segue.errors import ShapeError, SpecError
from segue.layers import unroll
from segue.layers.attend import SCORES, Attend
from segue.layers.beam import beam_search
from segue.layers.decoder import END, UNKNOWN, Decoder
from segue.ragged import Ragged

CODES = 7


def ragged(lengths: list[int], width: int) -> Ragged:
    values = torch.randn(sum(lengths), width, dtype=torch.float64, requires_grad=True)
    return Ragged(values, torch.tensor(lengths))


def score(attend: Attend, q: Tensor, m: Tensor) -> Tensor:
    """s of one query and one step of the memory."""
    if attend.score == "dot":
        return q @ m
    assert attend.key is not None
    w_k = attend.key.weight
    if attend.score == "general":
        return q @ (w_k @ m)
    assert attend.query is not None
    if attend.score == "scaled_dot":
        return (attend.query.weight @ q) @ (w_k @ m) / math.sqrt(len(w_k))
    assert attend.v is not None
    return attend.v @ (attend.query.weight @ q + w_k @ m + attend.key.bias).tanh()


def read(attend: Attend, q: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """c and a of one query."""
    weights = torch.stack([score(attend, q, m) for m in memory]).exp()
    weights = weights / weights.sum()
    return sum((a * m for a, m in zip(weights, memory, strict=True)), torch.zeros(())), weights


@pytest.mark.parametrize("kind", SCORES)
def test_attention_is_its_equation(kind: str) -> None:
    torch.manual_seed(0)
    queries = 5 if kind == "dot" else 4
    attend = Attend(queries, 5, hidden=3, score=kind).double()
    q, m = ragged([2, 0, 3], queries), ragged([4, 2, 1], 5)
    context, weights = attend(q, m)
    pairs = zip(q.to_list(), m.to_list(), strict=True)
    rows = [read(attend, one, memory) for queries, memory in pairs for one in queries]
    want = torch.stack([c for c, _ in rows])
    torch.testing.assert_close(context.values, want)
    assert [w.shape for w in weights] == [(2, 4), (0, 2), (3, 1)]
    torch.testing.assert_close(
        torch.cat([w.flatten() for w in weights]), torch.cat([a for _, a in rows])
    )
    inputs, dc = (q.values, m.values, *attend.parameters()), torch.randn_like(want)
    got = torch.autograd.grad(context.values, inputs, dc)
    for a, b in zip(got, torch.autograd.grad(want, inputs, dc), strict=True):
        torch.testing.assert_close(a, b)


def test_of_a_memory_without_steps_nothing_is_read() -> None:
    attend = Attend(4, 3)
    context, weights = attend(
        Ragged(torch.randn(3, 4), torch.tensor([1, 2])),
        Ragged(torch.randn(2, 3), torch.tensor([2, 0])),
    )
    assert torch.equal(context.values[1:], torch.zeros(2, 3))
    assert [w.shape for w in weights] == [(1, 2), (2, 0)]


def decoder(kind: str = "gru", *, feeding: bool = False, copying: bool = False) -> Decoder:
    torch.manual_seed(0)
    size = 6 if feeding else 3
    cell = LSTM(size, 4) if kind == "lstm" else GRU(size, 4)
    made = Decoder(cell, Attend(4, 5), CODES, feeding=feeding, copying=copying)
    return made.double()


def probabilities(
    model: Decoder, memory: Tensor, before: list[int], copied: list[int] | None
) -> list[Tensor]:
    """P of every code, one known to the source alone included, after each of `before`."""
    start = (model.start.weight @ memory.mean(0) + model.start.bias).tanh()[None]
    first = model.cell.initial_state(1)
    state = type(first)(*start.split(4, dim=1))
    fed, found = torch.zeros(3, dtype=torch.float64), []
    for code in before:
        e = model.embedding[code if code < CODES else UNKNOWN]
        x = torch.cat([e, fed]) if model.feeding else e
        y, state = model.cell.step(x[None], state)
        h = y[0]
        context, weights = read(model.attend, h, memory)
        o = (model.mix.weight @ torch.cat([h, context]) + model.mix.bias).tanh()
        fed = o
        p = (model.embedding @ o + model.bias).exp()
        p = torch.cat([p / p.sum(), p.new_zeros(2)])
        if model.generate is not None and copied is not None:
            reads = torch.cat([h, context, e])
            g = 1 / (1 + (-(model.generate.weight[0] @ reads + model.generate.bias[0])).exp())
            copy = [
                sum((a for a, x in zip(weights, copied, strict=True) if x == w), torch.zeros(()))
                for w in range(CODES + 2)
            ]
            p = g * p + (1 - g) * torch.stack(copy).double()
        found.append(p)
    return found


FORMS = [("gru", False, False), ("lstm", False, True), ("gru", True, True), ("lstm", True, False)]
LABELS = [[3, CODES, 2], [], [UNKNOWN, 4]]
COPIED = [[2, CODES, 5, CODES], [CODES + 1, 2], [4]]


@pytest.mark.parametrize(("kind", "feeding", "copying"), FORMS)
def test_the_losses_are_those_of_the_equation(kind: str, feeding: bool, copying: bool) -> None:
    model = decoder(kind, feeding=feeding, copying=copying)
    memory = ragged([len(codes) for codes in COPIED], 5)
    labels = LABELS if copying else [[min(c, CODES - 1) for c in row] for row in LABELS]
    losses = model.losses(
        memory,
        Ragged.from_list([torch.tensor(row, dtype=torch.int64) for row in labels]),
        torch.tensor(sum(COPIED, [])) if copying else None,
    )
    want = [
        -p[code].log()
        for own, row, copied in zip(memory.to_list(), labels, COPIED, strict=True)
        for p, code in zip(
            probabilities(model, own, [END, *row], copied if copying else None),
            [*row, END],
            strict=True,
        )
    ]
    torch.testing.assert_close(losses, torch.stack(want))
    inputs, dy = (memory.values, *model.parameters()), torch.randn_like(losses)
    got = torch.autograd.grad(losses, inputs, dy)
    for a, b in zip(got, torch.autograd.grad(torch.stack(want), inputs, dy), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("copying", [False, True])
def test_a_smoothed_target_is_shared_out_over_the_vocabulary(copying: bool) -> None:
    model = decoder(copying=copying)
    memory, labels = ragged([3], 5), Ragged(torch.tensor([4, 2]), torch.tensor([2]))
    copied = [2, CODES, 6] if copying else None
    losses = model.losses(
        memory, labels, torch.tensor(copied) if copied is not None else None, smoothing=0.3
    )
    rows = probabilities(model, memory.values, [END, 4, 2], copied)
    model.generate = None
    new = probabilities(model, memory.values, [END, 4, 2], None)
    want = [
        0.7 * -p[code].log() - 0.3 * q[:CODES].log().mean()
        for p, q, code in zip(rows, new, (4, 2, END), strict=True)
    ]
    torch.testing.assert_close(losses, torch.stack(want))


def test_the_attention_of_each_code_is_returned() -> None:
    model = decoder(feeding=True)
    memory = ragged([3, 2], 5)
    labels = Ragged(torch.tensor([4, 2, 5]), torch.tensor([1, 2]))
    first, second = model.attention(memory, labels)
    assert first.shape == (2, 3) and second.shape == (3, 2)
    torch.testing.assert_close(first.sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("feeding", [False, True])
def test_with_sampling_the_codes_before_are_the_decoders_own(feeding: bool) -> None:
    model = decoder(feeding=feeding)
    with torch.no_grad():
        model.bias[5] = 50.0  # all that it draws
    memory = ragged([3, 2], 5)
    labels = Ragged(torch.tensor([4, 2, 3, 2, 4]), torch.tensor([3, 2]))
    drawn = model.losses(memory, labels, sampling=1.0)
    rows = [
        -p[code].log()
        for own, gold in zip(memory.to_list(), ([4, 2, 3], [2, 4]), strict=True)
        for p, code in zip(
            probabilities(model, own, [END, *[5] * len(gold)], None), [*gold, END], strict=True
        )
    ]
    torch.testing.assert_close(drawn, torch.stack(rows))
    never = model.losses(memory, labels, sampling=1e-12)
    assert torch.equal(never, model.losses(memory, labels))


@torch.no_grad()
def best(model: Decoder, memory: Tensor, longest: int, penalty: float) -> list[int]:
    """The sequence of the highest score of all that there are."""
    found, highest = [], -math.inf
    allowed = [code for code in range(CODES) if code not in (END, UNKNOWN)]
    for length in range(longest + 1):
        for codes in itertools.product(allowed, repeat=length):
            rows = probabilities(model, memory, [END, *codes], None)
            log_p = sum(float(p[c].log()) for p, c in zip(rows, [*codes, END], strict=True))
            value = log_p / ((5 + length + 1) / 6) ** penalty
            if value > highest:
                found, highest = list(codes), value
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0, 3.0])
def test_a_beam_that_holds_all_beginnings_finds_the_best_sequence(penalty: float) -> None:
    model = decoder()
    with torch.no_grad():
        model.embedding.mul_(4)
    memory = ragged([3, 2, 4], 5)
    found = model.search(memory, beam=5**3 * 3, longest=3, penalty=penalty)
    want = [best(model, own, 3, penalty) for own in memory.to_list()]
    assert [codes.tolist() for codes in found] == want
    assert penalty < 3 or any(want)


def test_a_beam_of_one_takes_the_likeliest_code_at_every_step() -> None:
    model = decoder(copying=True)
    with torch.no_grad():
        model.bias[END], model.bias[UNKNOWN] = -1.0, 20.0  # which is never written
    memory, copied = ragged([4], 5), [2, CODES, 5, CODES]
    (found,) = model.search(memory, torch.tensor(copied), beam=1, longest=6)
    codes: list[int] = []
    while len(codes) < 6:
        p = probabilities(model, memory.values, [END, *codes], copied)[-1]
        p[UNKNOWN] = 0
        code = int(p.argmax())
        if code == END:
            break
        codes.append(code)
    assert found.tolist() == codes


@pytest.mark.parametrize("feeding", [False, True])
def test_a_sequence_is_written_alike_alone_and_in_a_batch(feeding: bool) -> None:
    model = decoder("lstm", feeding=feeding, copying=True)
    with torch.no_grad():
        model.embedding.mul_(3)
    lengths = [4, 1, 6, 2, 3]
    memory, copied = ragged(lengths, 5), torch.randint(2, CODES + 2, (sum(lengths),))
    together = model.search(memory, copied, beam=3, longest=8, penalty=0.6)
    codes = memory.with_values(copied).to_list()
    for own, one, got in zip(memory.to_list(), codes, together, strict=True):
        single = Ragged(own, torch.tensor([len(own)]))
        (alone,) = model.search(single, one, beam=3, longest=8, penalty=0.6)
        assert alone.tolist() == got.tolist()


def test_what_never_ends_is_cut() -> None:
    def advance(codes: Tensor, state: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        log_p = torch.full((*codes.shape, 4), -math.inf)
        log_p[..., 2] = -0.1
        return log_p, state

    found = beam_search(advance, torch.zeros(2, 1), 2, beam=2, longest=3)
    assert [codes.tolist() for codes in found] == [[2, 2, 2]] * 2


def test_steps_equal_the_way_through_all_steps() -> None:
    model = decoder()
    memory, codes = ragged([3, 2], 5), Ragged(torch.tensor([0, 3, 4, 0, 2]), torch.tensor([3, 2]))
    source, state = model.begin(memory)
    whole, _ = model.write(codes, source, state)
    for t in range(2):
        now = torch.tensor([row[t] for row in ([0, 3], [0, 2])])
        written, state = model.step(now[:, None], source, state)
        torch.testing.assert_close(written.logits, whole.logits[[t, 3 + t]])


def test_it_learns_to_write_its_source_backwards() -> None:
    torch.manual_seed(0)
    encoder, table = GRU(16, 32), torch.nn.Embedding(CODES, 16)
    model = Decoder(GRU(16, 32), Attend(32, 32, score="additive"), CODES)
    modules = torch.nn.ModuleList([encoder, table, model])
    optimizer = torch.optim.Adam(modules.parameters(), lr=0.01)
    for _ in range(150):
        x = Ragged(torch.randint(2, CODES, (32 * 5,)), torch.full((32,), 5))
        memory, _ = unroll(encoder, x.with_values(table(x.values)))
        loss = model.losses(memory, x.reversed()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model.search(memory.with_values(memory.values.detach()), beam=4, longest=8)
    right = sum(
        a.tolist() == b.tolist() for a, b in zip(found, x.reversed().to_list(), strict=True)
    )
    assert right >= 29, right


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"Attend.score: expected additive \| general \| dot"):
        Attend(3, 4, score="cosine")
    with pytest.raises(SpecError, match="a memory of 3 units, as the queries have, got 4 units"):
        Attend(3, 4, score="dot")
    with pytest.raises(ShapeError, match=r"Attend.query: expected 1 sequences, got 2 sequences"):
        Attend(3, 4)(
            Ragged(torch.zeros(2, 3), torch.tensor([1, 1])),
            Ragged(torch.zeros(2, 4), torch.tensor([2])),
        )
    with pytest.raises(SpecError, match=r"Decoder.cell: expected 5 outputs, as queries, got 4"):
        Decoder(GRU(3, 4), Attend(5, 5), CODES)
    with pytest.raises(SpecError, match="an even number of inputs, got 3"):
        Decoder(GRU(3, 4), Attend(4, 5), CODES, feeding=True)
    with pytest.raises(ShapeError, match="the codes of the memory's steps, got none; give them"):
        decoder(copying=True).begin(ragged([2], 5))
    with pytest.raises(
        SpecError, match=r"beam_search.beam: expected a whole number above 0, got 0"
    ):
        decoder().search(ragged([2], 5), beam=0, longest=3)
