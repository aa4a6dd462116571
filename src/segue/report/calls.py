"""How to call the model, ready to copy: with a live record of this declaration and its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from segue.evaluate import Evaluation
from segue.report.charts import block, code, paragraph
from segue.schema import Declaration
from segue.stream import Session
from segue.trained import Trained

WARM = 100
"""Records that the model has seen when it answers in the example."""
LONGEST = 20_000
"""Characters of a record that is still shown."""

SUFFIXES = {".csv", ".tsv", ".parquet", ".arrow", ".jsonl", ".json", ".txt", ".ts", ".tsf"}

SHOWN = 30
"""Fields of an answer that are shown."""

Record = dict[str, Any]


def gather(trained: Trained, evaluation: Evaluation | None) -> dict[str, Any]:
    """A record, and the answer to it after those before it; real ones where data were scored."""
    made = [_stand_in(trained)] if evaluation is None else list(_records(trained, evaluation))
    # What is read back from a line of JSON is what a user sends.
    line = json.dumps(made[-1], ensure_ascii=False, default=_text)
    live = {"causal": trained.network.causal, "reason": trained.network.reason}
    if len(line) > LONGEST:
        return {**live, "record": None, "answer": None, "after": 0}
    answer = None
    if trained.network.causal:
        sent = [json.loads(json.dumps(record, default=_text)) for record in made]
        answer = {name: _short(value) for name, value in Session(trained).chunk(sent)[-1].items()}
    key = (
        {} if evaluation is None or not _keyed(trained) else {_key(trained): _first_key(evaluation)}
    )
    return {
        **live,
        "record": {**key, **json.loads(line)},
        "answer": _first(answer or {}),
        "after": len(made) - 1,
    }


def draw(declaration: Declaration, origin: str, example: dict[str, Any] | None) -> str:
    """The section's HTML; new data are called like `origin`, the training data."""
    data = "new" + _suffix(declaration, origin)
    parts = [
        paragraph("RUN is the folder that this report lies in.", "note"),
        "<h3>On the command line</h3>",
        code(_command_lines(data, example)),
        "<h3>In Python</h3>",
        code(_python(declaration, data, example)),
    ]
    if example is not None and not example["causal"]:
        return "".join(parts) + paragraph(f"Note that it cannot run live: {example['reason']}.")
    if example is None or example["record"] is None:
        return "".join(parts)
    line = json.dumps(example["record"], ensure_ascii=False)
    parts += ["<h3>A live record</h3>", code(line), paragraph(_answered(example), "note")]
    return "".join(parts) + block(_shown(example["answer"]))


def _answered(example: dict[str, Any]) -> str:
    after = example["after"]
    sent = "as the first record" if not after else f"after the {after} records before it"
    return (
        "One line per step; null says that a value was not observed."
        f" Sent {sent}, the model answers (lists cut short):"
    )


def _suffix(declaration: Declaration, origin: str) -> str:
    """How a file of such data ends: like the one that the model learnt from, if it was a file."""
    suffix = Path(origin).suffix
    if suffix in SUFFIXES:
        return suffix
    return ".parquet" if declaration.data.rows == "examples" else ".csv"


def _command_lines(data: str, example: dict[str, Any] | None) -> str:
    lines = [f"segue predict RUN {data} -o predictions.csv", f"segue evaluate RUN {data}"]
    if example is None or example["causal"]:
        lines.append("tail -f records.jsonl | segue stream RUN")
    return "\n".join(lines)


def _python(declaration: Declaration, data: str, example: dict[str, Any] | None) -> str:
    known = any(
        spec.role == "known" and spec.kind != "timestamp" for spec in declaration.inputs.values()
    )
    ahead = ', ahead="future.csv"' if known else ""
    lines = [
        "import segue",
        "",
        'run = segue.load("RUN")',
        f'predictions = run.predict("{data}"{ahead})  # a polars frame',
    ]
    if example is None or not example["causal"] or example["record"] is None:
        return "\n".join(lines)
    record = dict(example["record"])
    key = record.pop(declaration.data.key, None) if declaration.data.key else None
    lines += ["", f"record = {record!r}"]
    if key is None:
        return "\n".join([*lines, "live = run.session()", "print(live.step(record))"])
    return "\n".join(
        [*lines, "live = run.sessions()", f"print(live.step({{{str(key)!r}: record}}))"]
    )


def _records(trained: Trained, evaluation: Evaluation) -> Iterator[Record]:
    """The last records of the first span that was scored, as a live source would send them."""
    sequences, clock = evaluation.sequences, trained.clock
    row, stop = int(evaluation.part.rows[0]), int(evaluation.part.stop[0])
    # The known future has to lie within the data.
    stop = max(1, min(stop, int(sequences.lengths[row]) - trained.horizon))
    first = int(sequences.offsets[row])
    span = slice(first + max(0, stop - 1 - WARM), first + stop)
    columns = {
        name: sequences.steps[name][span].to_list() for name in _columns(trained, static=False)
    }
    if clock.column is not None:
        columns = {clock.column: clock.values(sequences.times[span]).to_list(), **columns}
    names = _columns(trained, static=True)
    static = sequences.static.select(names)[row : row + 1].to_dicts()[0] if names else {}
    ahead = _known(trained)
    for index, place in enumerate(range(span.start, span.stop)):
        record = static | {name: values[index] for name, values in columns.items()}
        if ahead:
            future = slice(place + 1, place + 1 + trained.horizon)
            record["ahead"] = {name: sequences.steps[name][future].to_list() for name in ahead}
        yield record


def _stand_in(trained: Trained) -> Record:
    """A record of values that the fields know, where there are no data to take one from."""
    record: Record = {}
    for field in trained.fields.values():
        apart = trained.declaration.inputs[field.name].role == "apart"
        known = {column: field.example(index) for index, column in enumerate(field.columns)}
        record |= {column: [value] for column, value in known.items()} if apart else known
    for task in trained.tasks.values():
        if task.reads_series:
            record |= {column: record.get(column, 0.0) for column in task.columns}
    clock = trained.clock
    if clock.column is not None and clock.column not in record:
        record[clock.column] = clock.values(np.zeros(1))[0]
    ahead = _known(trained)
    if ahead:
        record["ahead"] = {column: [record[column]] * trained.horizon for column in ahead}
    return record


def _columns(trained: Trained, *, static: bool) -> list[str]:
    """The columns of a live record: of inputs by step and series that are read, or of those that
    are given once.
    """
    inputs = trained.declaration.inputs
    found = [
        column
        for name, field in trained.fields.items()
        if (inputs[name].role in ("static", "apart")) == static
        for column in field.columns
    ]
    if not static:
        reading = [task for task in trained.tasks.values() if task.reads_series]
        found += [column for task in reading for column in task.columns]
    return list(dict.fromkeys(found))


def _known(trained: Trained) -> list[str]:
    """The columns whose future a live record has to bring."""
    owners = [trained.fields[name] for name in trained.network.known]
    columns = (column for field in owners for column in field.columns)
    return sorted({column for column in columns if column != trained.clock.column})


def _keyed(trained: Trained) -> bool:
    return trained.declaration.data.key is not None


def _key(trained: Trained) -> str:
    return str(trained.declaration.data.key)


def _first_key(evaluation: Evaluation) -> Any:
    return evaluation.sequences.keys[int(evaluation.part.rows[0])]


def _shown(answer: Record) -> str:
    """An answer, a line for each field."""
    lines = [
        f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in answer.items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}"
    return text.replace('"…": "…"', "…").replace('"…"', "…")


def _first(answer: Record) -> Record:
    """The first fields of an answer."""
    kept = dict(list(answer.items())[:SHOWN])
    return kept if len(kept) == len(answer) else {**kept, "…": "…"}


def _short(value: Any) -> Any:
    """Numbers rounded, and long lists cut, for a reader."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [_short(one) for one in value[:3]] + (["…"] if len(value) > 3 else [])
    return value if value is None or isinstance(value, bool | int) else str(value)


def _text(value: Any) -> str:
    """Dates as a record has them."""
    return str(value) if isinstance(value, date) else repr(value)
