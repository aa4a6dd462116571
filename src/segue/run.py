"""The front door: `fit`, `load`, and the `Run` that both give."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from segue import checkpoint, language, report, schema
from segue.data.arrays import frame_of
from segue.data.read import Table, read
from segue.errors import DataError
from segue.evaluate import Evaluation, evaluate
from segue.infer import Look, kind_of, look
from segue.predict import predict, predicted
from segue.schema import Declaration
from segue.stream import Session, Sessions
from segue.torch_defaults import with_torch_defaults
from segue.train import Epoch, Record, Started, Update
from segue.train import fit as train
from segue.trained import Trained, read_options


@dataclass(frozen=True, repr=False)
class Run:
    """A trained model: answers, scores, and live sessions.

    Attributes:
        trained: the declaration, the fitted fields and tasks, the network.
        fingerprint: of the training data.
        facts: sizes and figures of the training.
        history: the looks at the validation part.
        evaluation: the scores on what was held out; None for a run that was loaded.
        digest: what the report shows of a run that was loaded.
    """

    trained: Trained
    fingerprint: str
    facts: Mapping[str, Any]
    history: tuple[Epoch, ...]
    evaluation: Evaluation | None = None
    digest: dict[str, Any] | None = None

    def __repr__(self) -> str:
        outputs = ", ".join(f"{n}: {spec.task}" for n, spec in self.declaration.outputs.items())
        return f"<Run {outputs}; {self.facts['parameters']:,} weights>"

    @property
    def declaration(self) -> Declaration:
        """The declaration, with nothing left open."""
        return self.trained.declaration

    def predict(self, data: Any, ahead: Any = None) -> pl.DataFrame:
        """Predictions for `data`; see `segue.predict.predict`."""
        return predict(self.trained, data, ahead)

    def predicted(self, data: Any, ahead: Any = None) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """Predictions, and lines on what was left out or is unknown."""
        return predicted(self.trained, data, ahead)

    def evaluate(self, data: Any) -> Evaluation:
        """Scores beside the naive answers; see `segue.evaluate.evaluate`."""
        return evaluate(
            self.trained, self.trained.read(data), self.fingerprint, self.facts.get("until")
        )

    def session(self) -> Session:
        """A live session of one sequence.

        Raises:
            CausalError: the model reads the future.
        """
        return Session(self.trained)

    def sessions(self) -> Sessions:
        """Live sessions of many keyed sequences, stepped in one batch.

        Raises:
            CausalError: the model reads the future.
        """
        return Sessions(self.trained)

    @with_torch_defaults
    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a run folder with its report; see `segue.checkpoint`.

        Raises:
            RunError: the place is taken.
        """
        digest = self.digest or report.digest(self.trained, self.evaluation)
        texts = {
            "metrics.jsonl": "".join(json.dumps(asdict(epoch)) + "\n" for epoch in self.history),
            "evaluation.json": json.dumps(digest),
            "report.html": report.html(self.declaration, self.facts, self.history, digest),
        }
        checkpoint.save(
            Path(folder),
            self.trained,
            fingerprint=self.fingerprint,
            facts=self.facts,
            texts=texts,
            overwrite=overwrite,
        )


@with_torch_defaults
def fit(
    spec: Any,
    data: Any = None,
    *,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
) -> Run:
    """Learn from data.

    Args:
        spec: a declaration (a YAML file, a dict, a `Declaration`), or data to infer one from, or,
            with plain arrays, the inputs x: ``[B, T, I]``, ``[B, T]``, a list of ``[T_i, I]``, a
            list of texts, which are read by character, or of lists of words, or one of the paths of
            recordings, pictures or videos.
        data: anything that `segue.data.read.read` takes; with plain arrays the targets y: ``[B]``
            or ``[B, O]`` for answers per sequence, ``[B, T]``, ``[B, T, O]`` or a list of ``[T_i]``
            or ``[T_i, O]`` for answers per step. Two axes mean ``[B, T]`` where x has T steps.
            Whole numbers and words are classes, others are regressed on. All plain arrays train
            unless `split` says otherwise.
        model, training, split: settings of these sections of the declaration, over those of `spec`.

    Returns:
        the run, scored on what was held out.

    Raises:
        InputError: the declaration or the data are wrong, with the place and the fix.
        TrainingError: the loss is not finite.
    """
    if _is_spec(spec):
        declaration = declare(spec)
        if data is None:
            fix = "give a table, a file or arrays"
            raise DataError("fit", "data beside the declaration", "none", fix)
        table = read(data, read_options(declaration))
    elif data is None:
        table = read(spec)
        declaration = look(table).declaration
    elif _is_spec(data):
        raise DataError("fit", "the declaration, then the data", "them the other way", "swap them")
    else:
        table, declaration = of_arrays(spec, data)
    return _last(records(with_settings(declaration, model, training, split), table))


def records(
    declaration: Declaration, table: Table, folder: Path | None = None
) -> Generator[Record, None, Run]:
    """`fit` as a generator: yields the records of the training and returns the run.

    Args:
        folder: where the batch is saved if the loss is not finite.
    """
    seen: list[Record] = []
    trained = yield from _noted(train(table, declaration, folder), seen)
    started = next(record for record in seen if isinstance(record, Started))
    history = tuple(record for record in seen if isinstance(record, Epoch))
    facts = {
        "origin": table.origin,
        "sequences": started.sequences,
        "steps": started.steps,
        "parameters": started.parameters,
        "seconds": history[-1].seconds,
        "until": started.until,
    }
    evaluation = None
    if started.steps["test"] or started.steps["valid"]:
        evaluation = evaluate(trained, table, table.fingerprint, started.until)
    return Run(trained, table.fingerprint, facts, history, evaluation)


def _noted(
    training: Generator[Record, None, Trained], seen: list[Record]
) -> Generator[Record, None, Trained]:
    """The same generator, whose few records other than updates are noted."""
    while True:
        try:
            record = next(training)
        except StopIteration as stop:
            trained: Trained = stop.value
            return trained
        if not isinstance(record, Update):
            seen.append(record)
        yield record


def _last(training: Generator[Record, None, Run]) -> Run:
    """What a generator returns."""
    while True:
        try:
            next(training)
        except StopIteration as stop:
            run: Run = stop.value
            return run


@with_torch_defaults
def load(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder back; its predictions are the same bits.

    Raises:
        RunError: no such folder, or damaged, or not a run.
    """
    path = Path(folder)
    trained, manifest = checkpoint.load(path)
    language.attach(trained)
    lines = checkpoint.verified(path, manifest, "metrics.jsonl").decode().splitlines()
    history = tuple(Epoch(**json.loads(line)) for line in lines)
    digest = json.loads(checkpoint.verified(path, manifest, "evaluation.json"))
    return Run(trained, manifest.fingerprint, manifest.facts, history, digest=digest)


def rewrite_report(folder: str | os.PathLike[str]) -> Path:
    """Make report.html of a run folder anew from what the folder holds.

    Raises:
        RunError: no such folder, or damaged, or not a run, or not to be written to.
    """
    path, run = Path(folder), load(folder)
    page = report.html(run.declaration, run.facts, run.history, run.digest)
    checkpoint.replace_file(path, "report.html", page)
    return path / "report.html"


def inspect(
    data: Any, *, target: str | None = None, horizon: int | None = None, task: str | None = None
) -> Look:
    """Infer a declaration from data and check them: `segue.look`; see `segue.infer.look`."""
    return look(read(data), target, horizon, task)


def declare(spec: Any) -> Declaration:
    """A declaration from a YAML file or a dict.

    Raises:
        SpecError: it is wrong, with the path and the fix.
    """
    if isinstance(spec, Declaration):
        return spec
    kinds, tasks = checkpoint.spec_kinds(), checkpoint.spec_tasks()
    return (
        schema.parse(spec, kinds, tasks)
        if isinstance(spec, Mapping)
        else schema.read(spec, kinds, tasks)
    )


def with_settings(
    declaration: Declaration,
    model: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
    split: Mapping[str, Any] | None,
) -> Declaration:
    """The declaration with some settings changed, checked as if it had been written so."""
    raw = declaration.to_dict()
    raw.setdefault("model", {}).update(model or {})
    raw.setdefault("training", {}).update(training or {})
    if split is not None:
        raw["data"]["split"] = dict(split)
    return declare(raw)


def of_arrays(x: Any, y: Any) -> tuple[Table, Declaration]:
    """A table of plain arrays, inputs ``x...`` and targets ``y...``, and a declaration that fits.

    Frames and named series keep their names.

    Raises:
        DataError: there are not as many targets as sequences.
    """
    inputs = _frame(x)
    targets = _targets(y, inputs)
    if inputs.height != targets.height:
        got = f"{inputs.height} sequences and {targets.height} targets"
        raise DataError("x and y", "one target per sequence", got, "give as many of each")
    outputs = {name: {"task": _task_of(targets[name].dtype)} for name in targets.columns}
    if all(output["task"] == "regress" for output in outputs.values()):
        at = "every" if isinstance(targets.dtypes[0], pl.List) else "end"
        name = "y*" if targets.width > 1 and _are_numbered(targets, "y") else None
        outputs = {each: {"task": "regress", "at": at} for each in ([name] if name else outputs)}
    kinds = {values.name: _input_kind(values) for values in inputs}
    if inputs.width > 1 and _are_numbered(inputs, "x") and set(kinds.values()) == {"number"}:
        kinds = {"x*": "number"}
    declaration = declare(
        {
            "data": {"rows": "examples", "split": {"by": "none"}},
            "inputs": {name: {"kind": kind} for name, kind in kinds.items()},
            "outputs": outputs,
        }
    )
    return read(pl.concat([inputs, targets], how="horizontal")), declaration


def _targets(y: Any, inputs: pl.DataFrame) -> pl.DataFrame:
    """The targets as columns ``y``, or ``y0``, ``y1`` and so on.

    Raises:
        DataError: there is none.
    """
    if getattr(y, "ndim", 0) == 2 and not hasattr(y, "columns"):
        if not y.shape[1]:
            got = f"shape {list(y.shape)}"
            raise DataError("y", "at least one target per sequence", got, "give some")
        first = inputs.to_series(0)
        has_steps = isinstance(first.dtype, pl.List)
        lengths = first.list.len().unique().to_list() if has_steps else []
        if lengths != [y.shape[1]] or y.shape[1] == 1:
            # [B, O], a column per output; otherwise [B, T], which is one column of lists.
            names = [f"y{index}" for index in range(y.shape[1])] if y.shape[1] > 1 else ["y"]
            y = {name: y[:, index] for index, name in enumerate(names)}
    targets = _frame(y)
    if _are_numbered(targets, "x"):
        return targets.rename({name: f"y{name[1:]}" for name in targets.columns})
    return targets


def _frame(values: Any) -> pl.DataFrame:
    """The values as columns, whose sequences are lists."""
    columns = frame_of(values)[0].get_columns()
    return pl.DataFrame([c.arr.to_list() if isinstance(c.dtype, pl.Array) else c for c in columns])


def _are_numbered(frame: pl.DataFrame, letter: str) -> bool:
    """Whether the columns are called x, or x0, x1 and so on."""
    return all(re.fullmatch(rf"{letter}\d*", name) for name in frame.columns)


def _input_kind(values: pl.Series) -> str:
    if values.dtype == pl.String:
        return kind_of(values, whole=True) or "text"
    # Words are texts that were cut already; as categories they would allow no new ones.
    return "text" if values.dtype == pl.List(pl.String) else "number"


def _task_of(dtype: pl.DataType) -> str:
    is_by_step = isinstance(dtype, pl.List)
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if inner.is_float():
        return "regress"
    return "tag" if is_by_step else "classify"


def _is_spec(spec: Any) -> bool:
    """A declaration or where one is written, and not data."""
    if isinstance(spec, str | os.PathLike):
        return Path(spec).suffix in (".yaml", ".yml")
    if isinstance(spec, Mapping):
        return any(isinstance(spec.get(section), Mapping) for section in ("inputs", "outputs"))
    return isinstance(spec, Declaration)
