"""The declaration: what the data are, what goes in, what comes out, which model, how to train.

A declaration is YAML or a dict of five sections::

    data:     {rows: steps, key: station, time: hour, split: {by: time, valid: 0.15, test: 0.15}}
    inputs:   {"sensor_*": {kind: number}, weather: {kind: category, role: known}}
    outputs:  {load: {task: forecast, horizon: 24}}
    model:    {cell: gru, hidden: 64}
    training: {epochs: 50}

It is strict: an unknown key, a wrong type or a value out of range is a `SpecError` that names the path and the fix.
What is not said is inferred from the data (`segue.look`) and can be saved and edited.

The kinds of input and the tasks are not listed here: each brings its own options (a subclass of `Input` or `Output`)
in its own file, and `parse` is handed the two catalogues.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from segue.errors import SpecError

Positive = Annotated[StrictInt, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(ge=0)]
"""Below 1: a fraction; otherwise a count of rows (split by time) or of keys."""

CellOption = StrictBool | StrictInt | float | StrictStr

Role = Literal["step", "static", "known"]


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Strict):
    """Which rows train, which choose the epoch, which are only for the final score.

    Attributes:
        by: ``time`` (the last rows of every key), ``key`` (the last keys in their order), ``random`` (keys drawn by the
            seed), ``given`` (a column says train, valid or test), ``none`` (all rows train).
        valid, test: the share of the validation and the test part; below 1 a fraction, otherwise a count.
        column: the column of a given split.
    """

    by: Literal["time", "key", "random", "given", "none"] = "random"
    train: Part | None = None
    valid: Part = 0.15
    test: Part = 0.15
    column: StrictStr | None = None

    @model_validator(mode="after")
    def _column_goes_with_given(self) -> Split:
        if (self.by == "given") != (self.column is not None):
            raise ValueError("`column` goes with `by: given`, and only with it")
        return self


class Data(Strict):
    """How to read the data.

    Attributes:
        rows: ``steps`` (a row is a step: a long table with a key and a time) or ``examples`` (a row is a whole
            sequence: a cell holds a list or a text).
        key: the column that says which sequence a row belongs to; none: all rows are one sequence.
        time: the column that orders the rows of a key.
        sort: sort rows by time within each key (otherwise unsorted rows are an error).
        lines: in text files each line is a sequence (otherwise a file is one).
        separator, header, columns, encoding, missing, text_columns: how to read delimited text; see
            `segue.data.read.ReadOptions`.
    """

    rows: Literal["steps", "examples"]
    key: StrictStr | None = None
    time: StrictStr | None = None
    sort: StrictBool = False
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
        kind: what the values are; picks the encoder.
        role: ``step`` (a value at every step), ``static`` (one value for the whole sequence), ``known`` (a value at
            every step that is known ahead of time, so a forecast may use its future).
    """

    roles: ClassVar[tuple[Role, ...]] = ("step", "static", "known")
    kind: StrictStr
    role: Role = "step"

    @model_validator(mode="after")
    def _role_fits_kind(self) -> Input:
        if self.role not in self.roles:
            raise ValueError(
                f"role {self.role!r} does not fit kind {self.kind!r}: use {' or '.join(self.roles)}"
            )
        return self


class Output(Strict):
    """One output: a column (or a pattern of columns) and the task on it."""

    task: StrictStr


class Model(Strict):
    """The network. What is None is inferred from the data.

    Attributes:
        cell: the law of memory, a name from `segue.cells.CELLS`, or that name with options of its
            constructor, such as ``{elman: {activation: relu}}``; gru, and lstm for forecasts.
        hidden: hidden units H of every layer.
        layers: how many recurrent layers are stacked.
        bidirectional: read each sequence in both directions (such a model cannot run live).
        residual: add each layer's input to its output (from the second layer on).
        dropout: rate after each layer; 0.2 by default, 0.1 for forecasts.
        dropout_per: ``step`` (a new mask at every step) or ``sequence`` (the same mask at all steps of a sequence: Gal).
        zoneout: probability that a unit of the state keeps its old value in a step.
        pool: what an output at the end of a sequence sees: the ``last`` hidden state, the ``mean`` over the steps, or
            ``both``.
        segment, lookback: a forecast reads `segment` steps at once and, linearly, the last `lookback` values (see
            `segue.forecaster`).
    """

    cell: StrictStr | dict[StrictStr, dict[StrictStr, CellOption]] | None = None
    hidden: Positive | None = None
    layers: Positive = 1
    bidirectional: StrictBool = False
    residual: StrictBool = False
    dropout: Fraction | None = None
    dropout_per: Literal["step", "sequence"] = "step"
    zoneout: Fraction = 0.0
    pool: Literal["last", "mean", "both"] = "last"
    segment: Positive | None = None
    lookback: Positive | None = None


class Clip(Strict):
    """Gradient clipping: by the norm of all gradients together, or each element by value."""

    norm: Annotated[float, Field(gt=0)] | None = None
    value: Annotated[float, Field(gt=0)] | None = None


class Training(Strict):
    """How to train. What is None is inferred from the data.

    Attributes:
        epochs: passes over the training part.
        batch: sequences (or windows) per update; ``all`` is gradient descent on the full batch, 1 is stochastic.
        optimizer: the rule of the update.
        learning_rate: its step size; the peak where a schedule changes it.
        schedule: ``constant``, ``step`` (a tenth after each third of the epochs), ``cosine`` (to zero), ``one_cycle``
            (up for 10 % of the updates, then cosine to zero), ``plateau`` (half after `patience` / 2 epochs without a
            better validation loss).
        clip: gradient clipping.
        patience: epochs without a better validation loss before training stops; the best epoch is kept.
        truncate: back-propagate through at most this many steps; the state is carried from window to window.
        window: cut longer sequences into pieces of this many steps, each a training example.
        weight_decay: decay rate of the weights (decoupled for adamw, an L2 penalty otherwise).
        seed: of the initial weights, the order and the dropout.
    """

    epochs: Positive | None = None
    batch: Positive | Literal["all"] | None = None
    optimizer: Literal["sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw"] = (
        "adamw"
    )
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = "one_cycle"
    clip: Clip = Clip(norm=1.0)
    patience: Positive | None = None
    truncate: Positive | None = None
    window: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    seed: StrictInt = 0


class Declaration(Strict):
    """The whole declaration; see the module's docstring."""

    data: Data
    inputs: dict[str, SerializeAsAny[Input]]
    outputs: dict[str, SerializeAsAny[Output]]
    model: Model = Model()
    training: Training = Training()

    def to_dict(self) -> dict[str, Any]:
        """Plain dict with everything that differs from the defaults, and the kinds and tasks; for files and messages."""
        raw: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        return {section: raw[section] for section in type(self).model_fields if raw.get(section)}

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

    Raises:
        SpecError: an unknown key, a wrong type, a value out of range, with the path and the fix.
    """
    if not isinstance(raw, Mapping):
        raise SpecError(
            where,
            "the sections data, inputs and outputs",
            _show(raw),
            "see docs/data.md for an example",
        )
    sections = dict(raw)
    for section, catalogue, word in (("inputs", kinds, "kind"), ("outputs", tasks, "task")):
        entries = sections.get(section)
        if not isinstance(entries, Mapping) or not entries:
            expected = f"at least one column with its {word}"
            got = _show(entries) if section in sections else "no such section"
            raise SpecError(
                f"{where}: {section}",
                expected,
                got,
                f"add e.g. `{section}: {{load: {{{word}: ...}}}}`",
            )
        sections[section] = {
            str(name): _parse_entry(entry, catalogue, word, f"{where}: {section}.{name}")
            for name, entry in entries.items()
        }
    try:
        return Declaration.model_validate(sections)
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
        text = path.read_text(encoding="utf-8")
        raw = yaml.load(text, _UniqueKeyLoader)
    except OSError as error:
        raise SpecError(
            str(path), "a readable file", str(error.strerror), "check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise SpecError(
            str(path), "UTF-8 text", f"an invalid byte at {error.start}", "save the file as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise SpecError(f"{path.name}{at}", "YAML", str(problem), "correct that line") from None
    return parse(raw, kinds, tasks, path.name)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a key given twice is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} a second time", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse_entry(entry: object, catalogue: Mapping[str, type[Any]], word: str, where: str) -> Any:
    if not isinstance(entry, Mapping) or word not in entry:
        raise SpecError(
            where,
            f"a mapping with `{word}`",
            _show(entry),
            f"write `{{{word}: {next(iter(catalogue))}}}`",
        )
    name = entry[word]
    if name not in catalogue:
        raise SpecError(
            f"{where}.{word}", _one_of(catalogue), _show(name), _nearest(str(name), catalogue)
        )
    try:
        return catalogue[name].model_validate(dict(entry))
    except ValidationError as error:
        raise _spec_error(error, catalogue[name], where) from None


def _spec_error(error: ValidationError, model: type[BaseModel], where: str) -> SpecError:
    """The first of pydantic's complaints in the house form."""
    first = error.errors()[0]
    steps = [
        str(part)
        for part in first["loc"]
        if not (isinstance(part, str) and ("[" in part or part in _TAGS))
    ]
    path = ".".join(steps)
    place = where if not path else f"{where}.{path}" if ": " in where else f"{where}: {path}"
    if first["type"] == "extra_forbidden":
        keys = _keys_at(model, steps[:-1])
        return SpecError(place, _one_of(keys), repr(steps[-1]), _nearest(steps[-1], keys))
    if first["type"] == "missing":
        return SpecError(place, "a value", "nothing", f"add `{steps[-1]}: ...`")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return SpecError(place, message, _show(first["input"]), "correct it")


_TAGS = frozenset({"function-after", "int", "float", "constrained-int"})


def _keys_at(model: type[BaseModel], steps: list[str]) -> list[str]:
    for step in steps:
        model = model.model_fields[step].annotation  # type: ignore[assignment]
    return list(model.model_fields)


def _one_of(names: Mapping[str, Any] | list[str]) -> str:
    return "one of " + ", ".join(names)


def _nearest(name: str, names: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else "remove it or use one of these"


def _show(value: object) -> str:
    text = repr(value)
    return "nothing" if value is None else text if len(text) <= 60 else text[:57] + "..."
