"""Time, and the layers that wrap cells.

`unroll` is the one way through time. What wraps cells and stays causal is a cell; what looks ahead
is `Acausal` and has only ``unroll``, so that its type says that it cannot stream.
"""

from __future__ import annotations

from segue.layers.acausal import Bidirectional, Chain
from segue.layers.attend import Attend
from segue.layers.beam import beam_search
from segue.layers.beside import Beside
from segue.layers.causal import Dropout, DropoutState, Residual, Stack, TimeDistributed
from segue.layers.compiled import Compiled
from segue.layers.decay import Decay
from segue.layers.decoder import Decoder
from segue.layers.linear import Linear, Readout
from segue.layers.noise import RecurrentDropout, RecurrentDropoutState, Zoneout
from segue.layers.paths import explain
from segue.layers.time import (
    Acausal,
    Scan,
    Scans,
    as_flags,
    as_steps,
    backward_flags,
    scan_of,
    scan_resetting,
    unroll,
)

__all__ = [
    "Acausal",
    "Attend",
    "Beside",
    "Bidirectional",
    "Chain",
    "Compiled",
    "Decay",
    "Decoder",
    "Dropout",
    "DropoutState",
    "Linear",
    "Readout",
    "RecurrentDropout",
    "RecurrentDropoutState",
    "Residual",
    "Scan",
    "Scans",
    "Stack",
    "TimeDistributed",
    "Zoneout",
    "as_flags",
    "as_steps",
    "backward_flags",
    "beam_search",
    "explain",
    "scan_of",
    "scan_resetting",
    "unroll",
]
