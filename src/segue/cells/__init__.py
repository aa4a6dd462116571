"""Cells: everything causal is one. One file per law; the equation stands there."""

from __future__ import annotations

from segue.cells.attention import AttentionState, CausalAttention
from segue.cells.cell import Cell, LawCell
from segue.cells.cfc import CfC
from segue.cells.conv import CausalConv, CausalConvState
from segue.cells.conv_cell import ConvCell
from segue.cells.conv_gru import ConvGRU
from segue.cells.conv_lstm import ConvLSTM
from segue.cells.conv_rnn import ConvRNN
from segue.cells.elman import Elman, ElmanLaw, ElmanState
from segue.cells.gru import GRU, GRULaw, GRUState
from segue.cells.gru_d import GRUD, GRUDState
from segue.cells.init import INITS, Init, chrono, identity, orthogonal, uniform, xavier
from segue.cells.law import QUIET, Law, Noise
from segue.cells.linear import LinearCell, LinearState
from segue.cells.lstm import LSTM, LSTMLaw, LSTMState
from segue.cells.min_gru import MinGRU
from segue.cells.min_lstm import MinLSTM
from segue.cells.rg_lru import RGLRU
from segue.cells.s5 import S5, S5State
from segue.ops import State

CELLS: dict[str, type[Cell]] = {
    "elman": Elman,
    "lstm": LSTM,
    "gru": GRU,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "rg_lru": RGLRU,
    "s5": S5,
    "conv": CausalConv,
    "attention": CausalAttention,
    "gru_d": GRUD,
    "cfc": CfC,
    "conv_rnn": ConvRNN,
    "conv_lstm": ConvLSTM,
    "conv_gru": ConvGRU,
}
"""Every law of memory by its name in a declaration; a new law is a file and a row here."""

__all__ = [
    "CELLS",
    "GRU",
    "GRUD",
    "INITS",
    "LSTM",
    "QUIET",
    "RGLRU",
    "S5",
    "AttentionState",
    "CausalAttention",
    "CausalConv",
    "CausalConvState",
    "Cell",
    "CfC",
    "ConvCell",
    "ConvGRU",
    "ConvLSTM",
    "ConvRNN",
    "Elman",
    "ElmanLaw",
    "ElmanState",
    "GRUDState",
    "GRULaw",
    "GRUState",
    "Init",
    "LSTMLaw",
    "LSTMState",
    "Law",
    "LawCell",
    "LinearCell",
    "LinearState",
    "MinGRU",
    "MinLSTM",
    "Noise",
    "S5State",
    "State",
    "chrono",
    "identity",
    "orthogonal",
    "uniform",
    "xavier",
]
