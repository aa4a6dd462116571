"""Learn from sequences with recurrent networks, then run the model live, one step at a time.

>>> import segue
>>> segue.__version__.count(".")
2
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segue import cells as cells
    from segue import layers as layers
    from segue import nn as nn
    from segue.layers import explain as explain
    from segue.layers import unroll as unroll
    from segue.ragged import Ragged as Ragged
    from segue.run import Run as Run
    from segue.run import fit as fit
    from segue.run import inspect as look
    from segue.run import load as load

__version__ = version("segue")

_HOMES = {
    "Ragged": ("segue.ragged", "Ragged"),
    "Run": ("segue.run", "Run"),
    "explain": ("segue.layers", "explain"),
    "fit": ("segue.run", "fit"),
    "load": ("segue.run", "load"),
    "look": ("segue.run", "inspect"),
    "unroll": ("segue.layers", "unroll"),
}
_MODULES = ("cells", "layers", "nn")

__all__ = ["Ragged", "Run", "cells", "explain", "fit", "layers", "load", "look", "nn", "unroll"]


def __getattr__(name: str) -> Any:
    # Public names are found when they are first used, so that `segue --help` does not import torch.
    if name in _MODULES:
        return import_module(f"segue.{name}")
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'segue' has no attribute {name!r}")
