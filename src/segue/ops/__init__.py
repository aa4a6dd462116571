"""How a recurrence is carried through time: the readable loop, torch's fused functions, the native
kernels.

The loop is the definition; the others must equal it (tests hold them to it) and are chosen when
they can:

1. native: float32 on the CPU, native module built, with or without gradients. The bits of a row
   depend neither on the batch, nor on how the sequence is cut into chunks, nor on the number of
   threads.
2. fused: one dtype (float32 or float64) throughout, and a form of the law that torch has.
3. loop: everything else.
"""

from __future__ import annotations

from segue.ops.draws import draw
from segue.ops.fused import fused_runs, in_buckets
from segue.ops.given import GRU, LSTM, Diagonal, Elman, Given, Recurrent, Shared
from segue.ops.linear import scan_linear
from segue.ops.loop import State, carried_dtype, leaves, loop, map_state
from segue.ops.native import cut, native_name, native_runs
from segue.ops.recurrence import linear, scan

__all__ = [
    "GRU",
    "LSTM",
    "Diagonal",
    "Elman",
    "Given",
    "Recurrent",
    "Shared",
    "State",
    "carried_dtype",
    "cut",
    "draw",
    "fused_runs",
    "in_buckets",
    "leaves",
    "linear",
    "loop",
    "map_state",
    "native_name",
    "native_runs",
    "scan",
    "scan_linear",
]
