"""One row per public thing; test_conformance.py runs every law over every row that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import segue.nn
from segue.cells import (
    GRU,
    GRUD,
    LSTM,
    RGLRU,
    S5,
    CausalAttention,
    CausalConv,
    CfC,
    ConvCell,
    ConvGRU,
    ConvLSTM,
    ConvRNN,
    Elman,
    MinGRU,
    MinLSTM,
)
from segue.layers import (
    Attend,
    Beside,
    Bidirectional,
    Chain,
    Decay,
    Decoder,
    Dropout,
    Linear,
    Readout,
    RecurrentDropout,
    Residual,
    Stack,
    TimeDistributed,
    Zoneout,
)

# Tags
CAUSAL = "causal"  # a cell: it has initial_state and step
LAW = "law"  # a cell with an equation of its own
EXACT = "exact"  # float32 inference gives the same bits in any batch, chunk and number of threads
RANDOM = "random"  # training draws random numbers
TORCH = "torch"  # it runs on torch so far: it has no compiled step, and a traced graph its own bits


@dataclass(frozen=True)
class Row:
    """One layer at sizes that the law chooses.

    Args:
        name: what the test is called.
        covers: the public class that the row stands for.
        make: I and H -> the layer.
        tags: what the laws may expect of it.
    """

    name: str
    covers: type[nn.Module]
    make: Callable[[int, int], Any]
    tags: frozenset[str]

    def build(self, inputs: int, hidden: int, dtype: torch.dtype = torch.float32) -> Any:
        """The layer in evaluation mode, with weights that depend on the name alone."""
        torch.manual_seed(sum(map(ord, self.name)))
        layer = self.make(inputs, hidden).to(dtype).eval()
        with torch.no_grad():
            for weight in layer.parameters():
                # Biases, peepholes and learned states start at 0, gains at 1, which would hide
                # mistakes.
                if weight.dim() == 1 or not weight.any():
                    weight.uniform_(-0.5, 0.5)
        return layer


def _row(name: str, covers: type[nn.Module], make: Callable[[int, int], Any], *tags: str) -> Row:
    return Row(name, covers, make, frozenset(tags))


def _stack(inputs: int, hidden: int) -> Stack:
    return Stack(
        LSTM(inputs, hidden),
        Dropout(hidden, 0.3),
        Residual(GRU(hidden, hidden)),
        TimeDistributed(Readout(hidden, 3)),
    )


def _pictures(make: Callable[..., ConvCell]) -> Callable[[int, int], Stack]:
    """A cell over pictures of one row, from features and to features."""

    def build(inputs: int, hidden: int) -> Stack:
        picture = TimeDistributed(nn.Unflatten(1, (1, inputs)), inputs=inputs, outputs=1)
        flat = TimeDistributed(nn.Flatten(1), inputs=2, outputs=2 * inputs)
        return Stack(picture, make(1, 2, (inputs,)), flat)

    return build


def _attention(inputs: int, hidden: int, window: int) -> CausalAttention:
    return CausalAttention(inputs, 8, heads=2, window=window)


def _transformer(inputs: int, hidden: int) -> Stack:
    norm = TimeDistributed(nn.LayerNorm(8), inputs=8, outputs=8)
    attention = Residual(Stack(norm, CausalAttention(8, 8, heads=2, window=5)))
    return Stack(TimeDistributed(Linear(inputs, 8)), attention, GRU(8, hidden))


def _with_flags(inputs: int, hidden: int) -> Stack:
    return Stack(TimeDistributed(Linear(inputs, 7)), GRUD(3, hidden))


def _timed(inputs: int, hidden: int) -> Stack:
    cells = Beside(Decay(GRU(inputs - 1, hidden)), reads=True), Beside(GRU(hidden, 3), reads=False)
    return Stack(*cells)


def _front_end(inputs: int, hidden: int) -> Stack:
    return Stack(CausalConv(inputs, 4, kernel=2), LSTM(4, hidden))


def _bidirectional(inputs: int, hidden: int) -> Bidirectional:
    return Bidirectional(LSTM(inputs, hidden), GRU(inputs, hidden + 1))


def _chain(inputs: int, hidden: int) -> Chain:
    both = Bidirectional(GRU(inputs, hidden), GRU(inputs, hidden))
    return Chain(both, LSTM(2 * hidden, hidden), TimeDistributed(Readout(hidden, 3)))


def _sequence_dropout(inputs: int, hidden: int) -> Stack:
    return Stack(Dropout(inputs, 0.4, per="sequence"), GRU(inputs, hidden))


CELLS = [
    _row("elman", Elman, Elman, CAUSAL, LAW, EXACT),
    *(
        _row(f"elman-{f}", Elman, partial(Elman, activation=f), CAUSAL, LAW, EXACT)
        for f in ("relu", "sigmoid", "identity")
    ),
    _row("elman-custom", Elman, partial(Elman, activation=torch.sin), CAUSAL, LAW),
    _row("elman-learned", Elman, partial(Elman, learn_initial=True), CAUSAL, LAW, EXACT),
    _row("elman-norm", Elman, partial(Elman, layer_norm=True), CAUSAL, LAW, EXACT),
    _row("lstm", LSTM, LSTM, CAUSAL, LAW, EXACT),
    _row("lstm-projected", LSTM, partial(LSTM, projection=3), CAUSAL, LAW, EXACT),
    _row("lstm-learned", LSTM, partial(LSTM, learn_initial=True), CAUSAL, LAW, EXACT),
    _row("lstm-norm", LSTM, partial(LSTM, layer_norm=True), CAUSAL, LAW, EXACT),
    _row("lstm-peepholes", LSTM, partial(LSTM, peepholes=True), CAUSAL, LAW, EXACT),
    _row(
        "lstm-everything",
        LSTM,
        partial(LSTM, layer_norm=True, peepholes=True, projection=3, learn_initial=True),
        *(CAUSAL, LAW, EXACT),
    ),
    _row("gru", GRU, GRU, CAUSAL, LAW, EXACT),
    _row("gru-before", GRU, partial(GRU, reset_after=False), CAUSAL, LAW, EXACT),
    _row("gru-learned", GRU, partial(GRU, learn_initial=True), CAUSAL, LAW, EXACT),
    _row("gru-norm", GRU, partial(GRU, layer_norm=True), CAUSAL, LAW, EXACT),
    _row(
        "gru-before-norm", GRU, partial(GRU, reset_after=False, layer_norm=True), CAUSAL, LAW, EXACT
    ),
]

LAYERS = [
    _row("causal-conv", CausalConv, CausalConv, CAUSAL, EXACT, TORCH),
    _row("causal-conv-one", CausalConv, partial(CausalConv, kernel=1), CAUSAL, EXACT, TORCH),
    _row(
        "causal-conv-relu",
        CausalConv,
        partial(CausalConv, activation="relu"),
        *(CAUSAL, EXACT, TORCH),
    ),
    _row("causal-conv-dilated", CausalConv, partial(CausalConv, dilation=3), CAUSAL, EXACT, TORCH),
    _row(
        "causal-conv-depthwise",
        CausalConv,
        lambda i, h: CausalConv(i, i, kernel=4, depthwise=True),
        *(CAUSAL, EXACT, TORCH),
    ),
    _row("min-gru", MinGRU, MinGRU, CAUSAL, EXACT),
    _row("min-lstm", MinLSTM, MinLSTM, CAUSAL, EXACT),
    _row("rg-lru", RGLRU, RGLRU, CAUSAL, EXACT),
    _row("rg-lru-blocks", RGLRU, lambda i, h: RGLRU(i, h, blocks=h), CAUSAL, EXACT),
    _row("s5", S5, partial(S5, state=6), CAUSAL, EXACT),
    _row("s5-linear", S5, partial(S5, state=3, init="linear"), CAUSAL, EXACT),
    _row("s5-gated", S5, partial(S5, state=4, gate=True), CAUSAL, TORCH),
    _row("conv-rnn", ConvRNN, _pictures(ConvRNN), CAUSAL, TORCH),
    _row("conv-lstm", ConvLSTM, _pictures(ConvLSTM), CAUSAL, TORCH),
    _row(
        "conv-lstm-peepholes", ConvLSTM, _pictures(partial(ConvLSTM, peepholes=True)), CAUSAL, TORCH
    ),
    _row("conv-gru", ConvGRU, _pictures(ConvGRU), CAUSAL, TORCH),
    _row("attention", CausalAttention, partial(_attention, window=4), CAUSAL, TORCH),
    _row("attention-wide", CausalAttention, partial(_attention, window=30), CAUSAL, TORCH),
    _row("attention-one", CausalAttention, partial(_attention, window=1), CAUSAL, TORCH),
    _row("transformer", CausalAttention, _transformer, CAUSAL, TORCH),
    _row("gru-d", GRUD, _with_flags, CAUSAL, TORCH),
    _row("cfc", CfC, lambda i, h: CfC(i - 1, h, backbone=7), CAUSAL, TORCH),
    _row("decay-gru", Decay, lambda i, h: Decay(GRU(i - 1, h)), CAUSAL, TORCH),
    _row("decay-lstm", Decay, lambda i, h: Decay(LSTM(i - 1, h)), CAUSAL, TORCH),
    _row("decay-min-gru", Decay, lambda i, h: Decay(MinGRU(i - 1, h)), CAUSAL, TORCH),
    _row("front-end", CausalConv, _front_end, CAUSAL, EXACT, TORCH),
    _row("stack", Stack, _stack, CAUSAL, EXACT, RANDOM),
    _row("beside", Beside, lambda i, h: Beside(GRU(i - 1, h), reads=False), CAUSAL, EXACT, TORCH),
    _row("beside-decay", Beside, _timed, CAUSAL, TORCH),
    _row("residual", Residual, lambda i, h: Residual(LSTM(i, i)), CAUSAL, EXACT),
    _row("dropout", Dropout, lambda i, h: Dropout(i, 0.3), CAUSAL, EXACT, RANDOM),
    _row("dropout-sequence", Dropout, _sequence_dropout, CAUSAL, EXACT, RANDOM),
    _row(
        "zoneout-lstm",
        Zoneout,
        lambda i, h: Zoneout(LSTM(i, h), hidden=0.1, cell=0.4),
        *(CAUSAL, EXACT, RANDOM),
    ),
    _row(
        "zoneout-gru", Zoneout, lambda i, h: Zoneout(GRU(i, h), hidden=0.3), CAUSAL, EXACT, RANDOM
    ),
    _row(
        "zoneout-norm",
        Zoneout,
        lambda i, h: Zoneout(LSTM(i, h, layer_norm=True, peepholes=True), hidden=0.2, cell=0.3),
        *(CAUSAL, EXACT, RANDOM),
    ),
    _row(
        "recurrent-dropout-lstm",
        RecurrentDropout,
        lambda i, h: RecurrentDropout(LSTM(i, h, projection=3), 0.3),
        *(CAUSAL, EXACT, RANDOM),
    ),
    _row(
        "recurrent-dropout-gru-norm",
        RecurrentDropout,
        lambda i, h: RecurrentDropout(GRU(i, h, layer_norm=True), 0.3),
        *(CAUSAL, EXACT, RANDOM),
    ),
    _row(
        "zoneout-recurrent-dropout",
        Zoneout,
        lambda i, h: Zoneout(RecurrentDropout(LSTM(i, h), 0.3), hidden=0.1, cell=0.4),
        *(CAUSAL, EXACT, RANDOM),
    ),
    _row(
        "time-distributed",
        TimeDistributed,
        lambda i, h: TimeDistributed(Linear(i, h)),
        *(CAUSAL, EXACT),
    ),
    _row("bidirectional", Bidirectional, _bidirectional, EXACT),
    _row("chain", Chain, _chain, EXACT),
]

# Held to torch.nn in test_nn.py, and to each other's bits by the rows above; attention over a
# memory and the decoder to their equations in test_decoder.py.
MODULES = [
    _row("linear", Linear, Linear, EXACT),
    _row("readout", Readout, Readout, EXACT),
    _row("attend", Attend, Attend),
    _row("decoder", Decoder, lambda i, h: Decoder(GRU(i, h), Attend(h, i), 7)),
    _row("nn-rnn", segue.nn.RNN, segue.nn.RNN),
    _row("nn-lstm", segue.nn.LSTM, segue.nn.LSTM),
    _row("nn-gru", segue.nn.GRU, segue.nn.GRU),
]

ROWS = CELLS + LAYERS


def rows(*tags: str) -> list[Row]:
    """The rows of cells and layers that have all the tags."""
    return [row for row in ROWS if row.tags.issuperset(tags)]


def cells(*tags: str) -> list[Row]:
    """The rows of cells: what has a step."""
    return rows(CAUSAL, *tags)
