"""The front door: `fit`, `load`, and the `Run` that both give."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from segue import checkpoint, report, schema
from segue.data.arrays import frame_of
from segue.data.read import Table, read
from segue.errors import DataError
from segue.evaluate import Evaluation, evaluate
from segue.infer import Look, look
from segue.predict import predict
from segue.schema import Declaration
from segue.stream import Session, Sessions
from segue.train import Epoch, Record, Started
from segue.train import fit as train
from segue.trained import Trained, read_options


@dataclass(frozen=True)
class Run:
    """A trained model: answers, scores, and live sessions.

    Attributes:
        trained: the declaration, the fitted fields and tasks, the network.
        fingerprint: of the training data.
        facts: sizes and figures of the training.
        history: the looks at the validation part.
        evaluation: the scores on what was held out; None for a run that was loaded.
    """

    trained: Trained
    fingerprint: str
    facts: Mapping[str, Any]
    history: tuple[Epoch, ...]
    evaluation: Evaluation | None = None

    @property
    def declaration(self) -> Declaration:
        """The declaration, with nothing left open."""
        return self.trained.declaration

    def predict(self, data: Any, ahead: Any = None) -> pl.DataFrame:
        """Predictions for `data`; see `segue.predict.predict`."""
        return predict(self.trained, data, ahead)

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

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a run folder with its report; see `segue.checkpoint`.

        Raises:
            RunError: the place is taken.
        """
        digest = None if self.evaluation is None else report.digest(self.trained, self.evaluation)
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
        spec: a declaration (a YAML file, a dict, a `Declaration`), or, for plain arrays, the inputs x: ``[B, T, I]``,
            ``[B, T]``, or a list of ``[T_i, I]``.
        data: anything that `segue.data.read.read` takes; for plain arrays the targets y: ``[B]`` or ``[B, O]`` for one
            answer per sequence, ``[B, T, O]`` or a list of ``[T_i]`` or ``[T_i, O]`` for one per step. Whole numbers
            are classes, others are regressed on. All plain arrays train unless `split` says otherwise.
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
            raise DataError(
                "fit", "data beside the declaration", "none", "give a table, a file or arrays"
            )
        table = read(data, read_options(declaration))
    elif data is None:
        table = read(spec)
        declaration = look(table).declaration
    else:
        table, declaration = of_arrays(spec, data)
    steps = records(with_settings(declaration, model, training, split), table)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            run: Run = stop.value
            return run


def records(
    declaration: Declaration, table: Table, folder: Path | None = None
) -> Generator[Record, None, Run]:
    """`fit` as a generator: yields the records of the training and returns the run."""
    history: list[Epoch] = []
    started: Started | None = None
    training = train(table, declaration, folder)
    while True:
        try:
            record = next(training)
        except StopIteration as stop:
            trained: Trained = stop.value
            break
        if isinstance(record, Epoch):
            history.append(record)
        elif isinstance(record, Started):
            started = record
        yield record
    assert started is not None
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
        evaluation = _evaluation(trained, table, started.until)
    return Run(trained, table.fingerprint, facts, tuple(history), evaluation)


def load(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder back; its predictions are the same bits.

    Raises:
        RunError: no such folder, or damaged, or not a run.
    """
    path = Path(folder)
    trained, manifest = checkpoint.load(path)
    lines = checkpoint.verified(path, manifest, "metrics.jsonl").decode().splitlines()
    history = tuple(Epoch(**json.loads(line)) for line in lines)
    return Run(trained, manifest.fingerprint, manifest.facts, history)


def rewrite_report(folder: str | os.PathLike[str]) -> Path:
    """Make report.html of a run folder anew from what the folder holds.

    Raises:
        RunError: no such folder, or damaged, or not a run.
    """
    path = Path(folder)
    run = load(path)
    _, manifest = checkpoint.load(path)
    digest = json.loads(checkpoint.verified(path, manifest, "evaluation.json"))
    checkpoint.replace_file(
        path, "report.html", report.html(run.declaration, run.facts, run.history, digest)
    )
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
    """A table of plain arrays, inputs ``x...`` and targets ``y...``, and the declaration that fits it.

    Raises:
        DataError: there are not as many targets as sequences.
    """
    inputs, targets = frame_of(x)[0], frame_of(_columns(x, y))[0]
    targets = targets.rename(
        {name: f"y{name.removeprefix('x').removeprefix('y')}" for name in targets.columns}
    )
    if inputs.height != targets.height:
        got = f"{inputs.height} sequences and {targets.height} targets"
        raise DataError("x and y", "one target per sequence", got, "give as many of each")
    kinds = [dtype.inner if isinstance(dtype, pl.List) else dtype for dtype in targets.dtypes]
    by_step = isinstance(targets.dtypes[0], pl.List)
    if all(kind.is_float() for kind in kinds):
        output = {"task": "regress", "at": "every" if by_step else "end"}
    else:
        output = {"task": "tag" if by_step else "classify"}
    name = targets.columns[0] if targets.width == 1 else "y*"
    declaration = declare(
        {
            "data": {"rows": "examples", "split": {"by": "none"}},
            "inputs": {"x*" if inputs.width > 1 else inputs.columns[0]: {"kind": "number"}},
            "outputs": {name: output},
        }
    )
    return read(pl.concat([inputs, targets], how="horizontal")), declaration


def _columns(x: Any, y: Any) -> Any:
    """Targets ``[B, O]`` as a column each, so that they are not taken for ``[B, T]``."""
    if getattr(y, "ndim", 0) != 2:
        return y
    steps = x.shape[1] if getattr(x, "ndim", 0) >= 2 else None
    if y.shape[1] == steps and steps != 1:
        return y
    return {f"y{index}" if y.shape[1] > 1 else "y": y[:, index] for index in range(y.shape[1])}


def _evaluation(trained: Trained, table: Table, until: float | None) -> Evaluation:
    return evaluate(trained, table, table.fingerprint, until)


def _is_spec(spec: Any) -> bool:
    """A declaration or where one is written, and not data."""
    if isinstance(spec, str | os.PathLike):
        return Path(spec).suffix in (".yaml", ".yml")
    return isinstance(spec, Declaration) or (
        isinstance(spec, Mapping) and "inputs" in spec and "outputs" in spec
    )
