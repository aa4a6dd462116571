"""The shape alphabet, and the one check of shapes at the public borders.

Every docstring, equation and message names sizes by these letters:

    B  sequences of a batch (rows)      O  outputs of a layer
    T  steps of a padded sequence       F  features of an encoded step
    N  steps of all sequences together  C  columns of a table
    I  inputs of a layer                K  classes
    H  hidden units                     Q  quantiles
    R  units handed to the next step    S  steps of a horizon
    P  projected units (LSTM)           D  directions (1, or 2 if bidirectional)
    G  gates of a law                   L  layers of a stack

R is P for a projected LSTM and H everywhere else. Batch first, everywhere in public; a state's
leading axis is B.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from segue.errors import ShapeError

LETTERS = {
    "B": "sequences",
    "T": "steps",
    "N": "steps of all sequences",
    "I": "inputs",
    "H": "hidden units",
    "R": "recurrent units",
    "P": "projected units",
    "G": "gates",
    "O": "outputs",
    "F": "features",
    "C": "columns",
    "K": "classes",
    "Q": "quantiles",
    "S": "horizon steps",
    "D": "directions",
    "L": "layers",
}


def check(
    where: str,
    x: Tensor,
    shape: str,
    sizes: Mapping[str, int] | None = None,
    *,
    dtype: torch.dtype | None = None,
    fix: str = "",
) -> None:
    """Holds a tensor to a shape written in the alphabet, e.g. ``check("x", x, "B T I", {"I": 3})``.

    Args:
        where: what the user calls the tensor.
        x: the tensor.
        shape: letters separated by spaces; a last ``...`` allows any further axes.
        sizes: the letters whose size is known.
        dtype: the dtype that it must have, if any.
        fix: what to do about it; a default names the axis that is wrong.

    Raises:
        ShapeError: the number of axes, a size, or the dtype is another one.
    """
    axes = shape.split()
    is_open_ended = axes[-1:] == ["..."]
    axes = axes[:-1] if is_open_ended else axes
    right = x.dim() >= len(axes) if is_open_ended else x.dim() == len(axes)
    wrong = []
    if sizes:
        for axis, size in zip(axes, x.shape, strict=False):
            if sizes.get(axis, size) != size:
                wrong.append(axis)
    if not right or wrong:
        written = _written(shape.split(), sizes or {})
        raise ShapeError(where, written, str(list(x.shape)), fix or _advice(wrong))
    if dtype is not None and x.dtype != dtype:
        advice = fix or f"convert it with .to(torch.{_name(dtype)})"
        raise ShapeError(where, _name(dtype), _name(x.dtype), advice)


def _written(letters: list[str], sizes: Mapping[str, int]) -> str:
    return "[" + ", ".join(f"{a}={sizes[a]}" if a in sizes else a for a in letters) + "]"


def _advice(wrong: list[str]) -> str:
    if not wrong:
        return "add or remove axes"
    return "change the number of " + " and of ".join(LETTERS[letter] for letter in wrong)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
