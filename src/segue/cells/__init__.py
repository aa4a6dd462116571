"""Cells: everything causal is one. One file per law; the equation stands there."""

from __future__ import annotations

from segue.cells.cell import Cell, LawCell
from segue.cells.elman import Elman, ElmanLaw, ElmanState
from segue.cells.gru import GRU, GRULaw, GRUState
from segue.cells.init import INITS, Init, chrono, identity, orthogonal, uniform, xavier
from segue.cells.law import QUIET, Law, Noise
from segue.cells.lstm import LSTM, LSTMLaw, LSTMState
from segue.ops import State

CELLS: dict[str, type[LawCell]] = {"elman": Elman, "lstm": LSTM, "gru": GRU}

__all__ = [
    "CELLS",
    "GRU",
    "INITS",
    "LSTM",
    "QUIET",
    "Cell",
    "Elman",
    "ElmanLaw",
    "ElmanState",
    "GRULaw",
    "GRUState",
    "Init",
    "LSTMLaw",
    "LSTMState",
    "Law",
    "LawCell",
    "Noise",
    "State",
    "chrono",
    "identity",
    "orthogonal",
    "uniform",
    "xavier",
]
