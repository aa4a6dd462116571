"""The recurrent layers that the model section of a declaration describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn

from segue.cells import CELLS, LSTM, Cell, LawCell
from segue.errors import InputError, SpecError
from segue.layers import (
    Acausal,
    Beside,
    Bidirectional,
    Chain,
    Decay,
    Dropout,
    RecurrentDropout,
    Residual,
    Stack,
    TimeDistributed,
    Zoneout,
)
from segue.schema import Layer, Model


@dataclass(frozen=True)
class Named:
    """One layer as the declaration names it.

    Attributes:
        name: of its cell, in `segue.cells.CELLS`.
        hidden: its size.
        options: of the cell's constructor.
        where: its place in the declaration, for messages.
    """

    name: str
    hidden: int
    options: dict[str, Any]
    where: str

    @property
    def cell(self) -> type[Cell]:
        """Its law of memory."""
        return CELLS[self.name]


def reads(spec: Model) -> str:
    """What the layers read beside the features: ``""``, ``"elapsed"`` or ``"observed"``, as
    `segue.cells.Cell.reads` has it.

    Raises:
        SpecError: layers that are not there, or that do not go together.
    """
    layers = _named(spec)
    for layer in layers[1:]:
        if layer.cell.reads == "observed":
            fix = "put it first: above it nothing is missing any more"
            raise SpecError(layer.where, f"{layer.name} as the first layer", "a later one", fix)
    if layers[0].cell.reads == "observed":
        return "observed"
    timed = spec.decay or any(layer.cell.reads for layer in layers)
    return "elapsed" if timed else ""


def body(features: int, spec: Model, size: tuple[int, ...] = ()) -> Cell | Acausal:
    """The layers, with dropout after each: causal, unless they read in both directions.

    Where `reads` says ``"elapsed"``, the first column of inputs and outputs is the time since the
    step before; where it says ``"observed"``, the inputs end with a flag for each feature besides.

    Args:
        features: F, the features (channels of maps) that the first layer takes.
        size: the extents of maps; () for vectors.

    Raises:
        SpecError: an unknown cell or option, options that do not go together, or no features.
    """
    if not features:
        fix = "declare a column that has some"
        raise SpecError("inputs", "elements in some training row", "none in any", fix)
    if spec.bidirectional and spec.residual:
        fix = "leave out one of the two"
        raise SpecError("model.residual", "false with bidirectional: true", "true", fix)
    extra = reads(spec)
    if extra and spec.bidirectional:
        got, fix = "true", "leave it out: backwards in time other times have passed"
        raise SpecError("model.bidirectional", "false with a cell that reads time", got, fix)
    layers = list(_layers(features, spec, size, extra))
    if spec.bidirectional:
        return Chain(*layers)
    return Stack(*(layer for layer in layers if isinstance(layer, Cell)))


def causal_body(features: int, spec: Model) -> Cell:
    """The layers of a forecast, which reads segments of steps and never the future.

    Raises:
        SpecError: as `body`, or what a forecast cannot have.
    """
    if reads(spec):
        got, fix = "such a cell", "give time as an input of kind timestamp instead"
        raise SpecError("model.cell", "a cell that reads no time, for a forecast", got, fix)
    layers = body(features, spec)
    if isinstance(layers, Cell):
        return layers
    fix = "a forecast cannot read the future; leave it out"
    raise SpecError("model.bidirectional", "false with a forecast", "true", fix)


def _layers(
    features: int, spec: Model, size: tuple[int, ...], extra: str
) -> Iterator[Cell | Acausal]:
    width, named = features, _named(spec)
    for depth, layer in enumerate(named):
        if depth and spec.norm:
            _refuse_maps(size, "model.norm")
            yield _beside(TimeDistributed(nn.LayerNorm(width), inputs=width, outputs=width), extra)
        both = _layer(layer, width, spec, size)
        if spec.residual and depth and isinstance(both, Cell):
            if both.outputs != width:
                got, fix = f"{width} and {both.outputs}", "give these layers one size"
                raise SpecError("model.residual", f"{layer.where} as wide as its input", got, fix)
            if both.reads:
                got, fix = layer.name, "leave it out"
                raise SpecError("model.residual", "a cell that reads no time", got, fix)
            both = Residual(both)
        width = both.outputs
        yield _beside(both, extra)
        if spec.dropout:
            yield _beside(Dropout(width, spec.dropout, per=spec.dropout_per), extra)


def _layer(layer: Named, inputs: int, spec: Model, size: tuple[int, ...]) -> Cell | Acausal:
    def one() -> Cell:
        cell = _cell(layer, inputs, size)
        rate, keep = spec.recurrent_dropout, spec.zoneout
        for option, value in (("recurrent_dropout", rate), ("zoneout", keep)):
            if value and not isinstance(cell, LawCell):
                fix = "leave it out"
                expected = f"0 with cell {layer.name}"
                raise SpecError(f"model.{option}", expected, str(value), fix)
        wrapped: Any = RecurrentDropout(cell, rate) if rate else cell  # type: ignore[arg-type]
        if keep:
            wrapped = Zoneout(wrapped, hidden=keep, cell=keep if isinstance(cell, LSTM) else 0.0)
        return Decay(wrapped) if spec.decay else wrapped

    return Bidirectional(one(), one()) if spec.bidirectional else one()


def _beside(layer: Cell | Acausal, extra: str) -> Cell | Acausal:
    """A layer of a stack in which the time since the step before goes along, where it is read."""
    if not extra or not isinstance(layer, Cell):
        return layer
    return Beside(layer, reads=bool(layer.reads))


def _cell(layer: Named, inputs: int, size: tuple[int, ...]) -> Cell:
    law: Callable[..., Cell] = layer.cell
    options, where = dict(layer.options), layer.where
    known = list(signature(law).parameters)[2:]
    if "size" in known:
        known.remove("size")
        if not size:
            got, fix = "vectors", "declare an input that keeps its maps, or another cell"
            raise SpecError(where, "pictures, which this cell takes", got, fix)
        options["size"] = size
    else:
        _refuse_maps(size, where)
    for option in layer.options:
        if option not in known:
            expected = "one of " + ", ".join(known) if known else "no options"
            raise SpecError(where, expected, repr(option), "remove it")
    try:
        return law(inputs, layer.hidden, **options)
    except InputError:
        raise
    except (TypeError, RuntimeError) as error:
        got = f"{layer.options} ({str(error).splitlines()[0]})"
        raise SpecError(where, "options that the cell takes", got, "see docs/cells.md") from None


def _refuse_maps(size: tuple[int, ...], where: str) -> None:
    if size:
        got, fix = "maps of " + " x ".join(map(str, size)), "declare a convolutional cell"
        raise SpecError(where, "features that are vectors", got, fix)


def _named(spec: Model) -> list[Named]:
    """The layers from the first to the last."""
    hidden = spec.hidden or 64
    if isinstance(spec.layers, int):
        said = "gru" if spec.cell is None else spec.cell
        return [_one(said, hidden, "model.cell")] * spec.layers
    if spec.cell is not None:
        fix = "say it in each layer"
        raise SpecError("model.cell", "nothing beside a list of layers", repr(spec.cell), fix)
    return [_one(said, hidden, f"model.layers.{i}") for i, said in enumerate(spec.layers)]


def _one(said: Layer, hidden: int, where: str) -> Named:
    name, options = (said, {}) if isinstance(said, str) else next(iter(said.items()), ("", {}))
    if name not in CELLS or (isinstance(said, dict) and len(said) != 1):
        fix = "choose one of these"
        raise SpecError(where, "one of " + ", ".join(CELLS), repr(said), fix)
    options = dict(options)
    own = options.pop("hidden", hidden)
    if type(own) is not int or own < 1:
        where = f"{where}.{name}.hidden"
        raise SpecError(where, "a positive integer", repr(own), "correct it")
    where = f"{where}.{name}" if isinstance(said, dict) else where
    return Named(name, own, options, where)
