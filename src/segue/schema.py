"""The declaration: what the data are, what goes in, what comes out, which model, how to train.

A declaration is YAML or a dict of five sections::

    data:     {rows: steps, key: station, time: hour, split: {by: time, valid: 0.15, test: 0.15}}
    inputs:   {"sensor_*": {kind: number}, weather: {kind: category, role: known}}
    outputs:  {load: {task: forecast, horizon: 24}}
    model:    {cell: gru, hidden: 64}
    training: {epochs: 50}

It is strict: an unknown key, a wrong type or a value out of range is a `SpecError` that names the
path and the fix. What is not said is inferred from the data (`segue.look`) and can be saved and
edited.

The kinds of input and the tasks are not listed here: each brings its own options (a subclass of
`Input` or `Output`) in its own file, and `parse` is handed the two catalogues.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializeAsAny,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from segue.errors import SpecError


def real(expected: str, holds: Callable[[float], bool]) -> BeforeValidator:
    """A finite number of which `holds` is true; `expected` is what the message says otherwise.

    A text such as ``1e-3`` is taken as the number that it means: YAML 1.1 reads it as a text for
    want of a dot.
    """

    def check(value: object) -> object:
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
            value = float(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and holds(value)):  # type: ignore[arg-type]
            raise ValueError(expected)
        return value

    return BeforeValidator(check)


def _whole(expected: str, low: int) -> BeforeValidator:
    def check(value: object) -> object:
        if type(value) is not int or not low <= value < 2**63:
            raise ValueError(expected)
        return value

    return BeforeValidator(check)


Positive = Annotated[int, _whole("a positive integer", 1)]
Count = Annotated[int, _whole("an integer of at least 0", 0)]
Seed = Count
Fraction = Annotated[float, real("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
AboveZero = Annotated[float, real("a number above 0", lambda x: x > 0)]
NotNegative = Annotated[float, real("a number of at least 0", lambda x: x >= 0)]
Real = Annotated[float, real("a number", lambda x: True)]
Share = Annotated[
    int | float,
    real("a fraction below 1 or a whole number", lambda x: 0 <= x < 1 or x >= 1 and x % 1 == 0),
]
"""Below 1: a fraction; otherwise a count of rows (split by time) or of keys."""

CellOption = StrictBool | StrictInt | StrictFloat | StrictStr
"""What an option of a cell can be."""

Layer = StrictStr | dict[StrictStr, dict[StrictStr, CellOption]]
"""A law of memory by name, or its name with options."""

Role = Literal["step", "static", "known", "apart"]


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Strict):
    """Which rows train, which choose the epoch, which are only for the final score.

    Attributes:
        by: ``time`` (the last rows of every key), ``key`` (the last keys in their order),
            ``random`` (keys drawn by the seed), ``given`` (a column says train, valid or test),
            ``none`` (all rows train). By default time for a forecast and for a single sequence,
            otherwise random.
        train: the share of the training part; by default what the other two leave. Where it is
            said, valid and then test follow right behind it; a test part of a fraction then takes
            all that is left.
        valid, test: the share of the validation and the test part; below 1 a fraction, otherwise a
            count. By default 0.15 each, but see `segue.data.split.inferred`.
        column: the column of a given split.
    """

    by: Literal["time", "key", "random", "given", "none"] | None = None
    train: Share | None = None
    valid: Share | None = None
    test: Share | None = None
    column: StrictStr | None = None

    @model_validator(mode="after")
    def _column_goes_with_given(self) -> Split:
        if (self.by == "given") != (self.column is not None):
            raise ValueError("`column` with `by: given`, and only with it")
        return self


class Events(Strict):
    """Rows that each say one value of one thing.

    Attributes:
        name: the column of what was observed; each thing becomes a column.
        value: the column of its value.
    """

    name: StrictStr
    value: StrictStr


class Data(Strict):
    """How to read the data.

    Attributes:
        rows: ``steps`` (a row is a step: a long table with a key and a time) or ``examples`` (a row
            is a whole
            sequence: a cell holds a list or a text).
        key: the column that says which sequence a row belongs to; none: all rows are one sequence.
        time: the column that orders the rows of a key.
        sort: sort rows by time within each key (otherwise unsorted rows are an error).
        events: rows each say one value of one thing, which becomes a column; what was not said at a
            time is not observed.
        clocks: how the rows of several tables come together: in one order of time (``merge``), or
            each with its own clock, as lists in one row per key (``apart``).
        lines: in text files each line is a sequence (otherwise a file is one).
        separator, header, columns, encoding, missing, text_columns: how to read delimited text; see
            `segue.data.read.ReadOptions`.
    """

    rows: Literal["steps", "examples"]
    key: StrictStr | None = None
    time: StrictStr | None = None
    sort: StrictBool = False
    events: Events | None = None
    clocks: Literal["merge", "apart"] = "merge"
    split: Split = Split()
    lines: StrictBool = False
    separator: StrictStr | None = None
    header: StrictBool = True
    columns: tuple[StrictStr, ...] | None = None
    encoding: StrictStr = "utf-8"
    missing: tuple[StrictStr, ...] = ("", "NA", "NaN", "nan", "null", "?")
    text_columns: tuple[StrictStr, ...] = ()


class Input(Strict):
    """One input: a column, or all columns that match a pattern such as ``sensor_*``.

    Attributes:
        roles: the roles that the kind can take.
        kind: what the values are; picks the encoder.
        role: ``step`` (a value at every step), ``static`` (one value for the whole sequence),
            ``known`` (a value at every step that is known ahead of time, so a forecast may use its
            future), ``apart`` (a sequence with a clock of its own, in one cell of the example,
            which is read by layers of its own; what is known at its end stands at every step).
    """

    roles: ClassVar[tuple[Role, ...]] = ("step", "static", "known", "apart")
    kind: StrictStr
    role: Role = "step"

    @field_validator("role")
    @classmethod
    def _role_fits_kind(cls, role: Role, info: ValidationInfo) -> Role:
        if role not in cls.roles:
            raise ValueError(f"{' or '.join(cls.roles)} for kind {info.data['kind']}")
        return role


class Output(Strict):
    """One output: a column (or a pattern of columns) and the task on it.

    Attributes:
        reads_itself: the past of the output's own columns is read, so that it can do without
            inputs.
        is_input: a pattern among the inputs stands for the output's own columns, too.
    """

    reads_itself: ClassVar[bool] = False
    is_input: ClassVar[bool] = False
    task: StrictStr

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns that are read for scores alone; they may be missing, and are no inputs."""
        return ()


class Model(Strict):
    """The network. What is None is inferred from the data.

    Attributes:
        cell: the law of memory, a name from `segue.cells.CELLS`, or that name with options of its
            constructor, such as ``{elman: {activation: relu}}``; gru, and lstm for forecasts and
            from 500,000 training steps.
        hidden: hidden units H of every layer.
        layers: how many recurrent layers are stacked; or a list of layers, each a name or a name
            with options, of which ``hidden`` is its size: ``[{conv: {kernel: 5}}, {lstm: {hidden:
            128}}, attention]``.
        bidirectional: read each sequence in both directions (such a model cannot run live).
        residual: add each layer's input to its output (from the second layer on).
        norm: a layer norm before each layer (from the second layer on).
        decay: the state fades with the time since the step before, at learnt rates.
        dropout: rate after each layer; 0.2 by default, 0.1 for forecasts.
        dropout_per: ``step`` (a new mask at every step) or ``sequence`` (the same mask at all steps
            of a sequence: Gal).
        recurrent_dropout: rate at which units of the hidden state are hidden from the recurrent
            product, the same ones at all steps of a sequence.
        zoneout: probability that a unit of the state keeps its old value in a step.
        join: how the features of several inputs become those of a step: side by side (``concat``),
            as a ``gated`` sum, or side by side with what each step finds in the inputs of role
            apart (``attention``).
        input_dropout: rate at which an input is taken away from a whole sequence while training, so
            that the model does without it where it is missing.
        pool: what an output at the end of a sequence sees: the ``last`` hidden state, the ``mean``
            over the steps, or ``both``.
        segment, lookback: a forecast reads `segment` steps at once and, linearly, the last
            `lookback` values (see `segue.forecaster`).
        skip: how a forecast reads the look-back linearly: with a ``full`` matrix of weights, with
            ``seasonal`` ones, shared along the season, or with ``adaptive`` ones, such as the
            hidden state sets.
        memory: the hidden state of a forecast is ``carried`` from step to step, or read anew at
            every step from the ``window`` of the look-back, all of it in units of the present.
        level: a forecast measures a series from its ``last`` value, or from the ``mean`` of the
            look-back.
        members: networks of a forecast that learn side by side, from different first weights; the
            forecast is their mean.
        decoder: how a forecast reads what is known ahead: each ``step`` alone, or, where steps have
            after-effects, ``recurrent``.
    """

    cell: Layer | None = None
    hidden: Positive | None = None
    layers: Positive | tuple[Layer, ...] = 1
    bidirectional: StrictBool = False
    residual: StrictBool = False
    norm: StrictBool = False
    decay: StrictBool = False
    dropout: Fraction | None = None
    dropout_per: Literal["step", "sequence"] = "step"
    recurrent_dropout: Fraction = 0.0
    zoneout: Fraction = 0.0
    join: Literal["concat", "gated", "attention"] = "concat"
    input_dropout: Fraction = 0.0
    pool: Literal["last", "mean", "both"] = "last"
    segment: Positive | None = None
    lookback: Positive | None = None
    skip: Literal["full", "seasonal", "adaptive"] = "full"
    memory: Literal["carried", "window"] = "carried"
    level: Literal["last", "mean"] = "last"
    members: Positive = 1
    decoder: Literal["step", "recurrent"] = "step"


class Clip(Strict):
    """Gradient clipping: by the norm of all gradients together, or each element by value."""

    norm: AboveZero | None = None
    value: AboveZero | None = None


class Training(Strict):
    """How to train. What is None is inferred from the data.

    Attributes:
        epochs: passes over the training part.
        batch: sequences (or windows) per update; ``all`` is gradient descent on the full batch, 1
            is stochastic.
        optimizer: the rule of the update.
        learning_rate: its step size; the peak where a schedule changes it.
        schedule: ``constant``, ``step`` (a tenth after each third of the epochs), ``cosine`` (to
            zero), ``one_cycle`` (up for 10 % of the updates, then cosine to zero), ``plateau``
            (half after `patience` / 2 epochs without a better validation loss).
        clip: gradient clipping.
        patience: epochs without a better validation loss before training stops; the best epoch is
            kept.
        truncate: back-propagate through at most this many steps; the state is carried from window
            to window.
        window: cut longer sequences into pieces of this many steps, each a training example.
        weight_decay: decay rate of the weights (decoupled for adamw, an L2 penalty otherwise).
        precision: of what the recurrent layers multiply while they are trained: ``float32``, or
            ``bf16``; sums, states and weights are float32 with either.
        seed: of the initial weights, the order and the dropout.
    """

    epochs: Positive | None = None
    batch: Positive | Literal["all"] | None = None
    optimizer: Literal["sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw"] = (
        "adamw"
    )
    learning_rate: AboveZero | None = None
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = "one_cycle"
    clip: Clip = Clip(norm=1.0)
    patience: Positive | None = None
    truncate: Positive | None = None
    window: Positive | None = None
    weight_decay: NotNegative = 0.0
    precision: Literal["float32", "bf16"] = "float32"
    seed: Seed = 0


class Declaration(Strict):
    """The whole declaration; see the module's docstring."""

    data: Data
    inputs: dict[str, SerializeAsAny[Input]]
    outputs: dict[str, SerializeAsAny[Output]]
    model: Model = Model()
    training: Training = Training()

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of all that was said or inferred; what is left out has its default."""
        # None always is the default and says nothing, so leaving it out loses nothing.
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)

    def to_yaml(self) -> str:
        """The declaration as YAML text; `read` gives an equal declaration back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=120)


def parse(
    raw: object,
    kinds: Mapping[str, type[Input]],
    tasks: Mapping[str, type[Output]],
    where: str = "declaration",
) -> Declaration:
    """Check `raw` (a dict as YAML gives it) and return the declaration.

    Args:
        kinds, tasks: the options of every kind of input and of every task, by name.
        where: the name of the source, for messages.

    Raises:
        SpecError: an unknown key, a wrong type, a value out of range, with the path and the fix.
    """
    if not isinstance(raw, Mapping):
        fix = "see docs/data.md for an example"
        raise SpecError(where, "the sections data, inputs and outputs", _show(raw), fix)
    sections = dict(raw)
    outputs = _entries(sections.get("outputs"), "outputs", tasks, "task", where)
    if sections.get("inputs") or not all(output.reads_itself for output in outputs.values()):
        inputs = _entries(sections.get("inputs"), "inputs", kinds, "kind", where)
    else:
        inputs = {}
    try:
        return Declaration.model_validate({**sections, "inputs": inputs, "outputs": outputs})
    except ValidationError as error:
        raise _spec_error(error, Declaration, where) from None


def read(
    path: str | os.PathLike[str],
    kinds: Mapping[str, type[Input]],
    tasks: Mapping[str, type[Output]],
) -> Declaration:
    """Read a declaration from a YAML file.

    Raises:
        SpecError: the file is absent, not UTF-8, not YAML, or `parse` refuses what it says.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise SpecError(str(path), "a readable file", got, "check the path") from None
    except UnicodeDecodeError as error:
        got = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise SpecError(str(path), "UTF-8 text", got, "save the file as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError(f"{path.name}{at}", "YAML", str(problem), "correct it") from None
    return parse(raw, kinds, tasks, path.name)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} a second time", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _entries(
    entries: object, section: str, catalogue: Mapping[str, type[Any]], word: str, where: str
) -> dict[str, Any]:
    """The checked entries of `inputs` or `outputs`, whose `word` (kind or task) says which options
    they have.
    """
    if not isinstance(entries, Mapping) or not entries:
        got = "no such section" if entries is None else _show(entries)
        fix = f"add e.g. `{section}: {{load: {{{word}: {next(iter(catalogue))}}}}}`"
        raise SpecError(f"{where}: {section}", f"at least one column with its {word}", got, fix)
    found = {}
    for name, entry in entries.items():
        # YAML reads a bare 7 as a number and a bare no as false.
        if not isinstance(name, str | int) or isinstance(name, bool):
            fix = "put the name in quotes"
            raise SpecError(f"{where}: {section}", "names of columns", _show(name), fix)
        found[str(name)] = _entry(entry, catalogue, word, f"{where}: {section}.{name}")
    return found


def _entry(entry: object, catalogue: Mapping[str, type[Any]], word: str, where: str) -> Any:
    if not isinstance(entry, Mapping) or word not in entry:
        fix = f"write `{{{word}: {next(iter(catalogue))}}}`"
        raise SpecError(where, f"a mapping with `{word}`", _show(entry), fix)
    name = entry[word]
    if not isinstance(name, str) or name not in catalogue:
        fix = _nearest(name, catalogue)
        raise SpecError(f"{where}.{word}", _one_of(catalogue), _show(name), fix)
    try:
        return catalogue[name].model_validate(dict(entry))
    except ValidationError as error:
        raise _spec_error(error, catalogue[name], where) from None


_EXPECTED = {
    "string_type": ("a text", "put it in quotes"),
    "bool_type": ("true or false", "correct it"),
    "tuple_type": ("a list", "write it as [...]"),
    "model_type": ("a mapping of options", "write it as {...}"),
    "dict_type": ("a mapping of options", "correct it"),
    "missing": ("a value", "add it"),
}


def _spec_error(error: ValidationError, model: type[BaseModel], where: str) -> SpecError:
    """The first of pydantic's complaints in the house form; the alternatives of a union are one
    complaint.
    """
    first, *rest = error.errors()
    path, parent = _path(first["loc"], model)
    place = ".".join([where, *path]) if ": " in where else f"{where}: {'.'.join(path)}"
    if first["type"] == "extra_forbidden":
        keys = list(parent.model_fields)
        return SpecError(place, _one_of(keys), repr(path[-1]), _nearest(path[-1], keys))
    same = [other for other in rest if _path(other["loc"], model)[0] == path]
    expected = " or ".join(_expected(each) for each in (first, *same))
    fix = _EXPECTED.get(first["type"], ("", "correct it"))[1]
    if first["type"] == "literal_error":
        fix = _nearest(first["input"], re.findall("'([^']*)'", first["ctx"]["expected"]))
    got = "nothing" if first["type"] == "missing" else _show(first["input"])
    return SpecError(place, expected, got, fix)


def _expected(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return _EXPECTED.get(error["type"], (message, ""))[0]


def _path(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The keys and places that lead to a complaint, and the section that it is in.

    What pydantic adds inside a value are its own names for the alternatives of a union; they are
    left out.
    """
    path, inside, parent = [], True, model
    for part in loc:
        if isinstance(part, int):
            path.append(str(part))
        elif inside:
            path.append(part)
            parent = model
            annotation = model.model_fields[part].annotation if part in model.model_fields else None
            inside = isinstance(annotation, type) and issubclass(annotation, BaseModel)
            model = annotation if inside else model  # type: ignore[assignment]
    return path, parent


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)


def _nearest(name: object, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it or use one of these"


def _show(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
