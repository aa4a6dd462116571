"""The main job on real data that come with a dependency: look, train, score, report, run live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segue import terminal
from segue.data.read import Table, read
from segue.errors import DataError
from segue.infer import look
from segue.run import Run, records, with_settings

SHOWN = 10
"""Live steps that are printed."""


@dataclass(frozen=True)
class Record:
    """A real record to show the main job on.

    Attributes:
        about: what it is and where it comes from.
        file: its path inside the statsmodels package.
        unit: what a step is called.
        horizon: steps to forecast.
        model: what the declaration should say about the network, and `why`.
    """

    about: str
    file: str
    unit: str
    horizon: int
    model: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


RECORDS = {
    "co2": Record(
        about="carbon dioxide in the air at Mauna Loa, Hawaii; weekly, in parts per million\n"
        "(C. D. Keeling and T. P. Whorf, Scripps Institution of Oceanography; public domain)",
        file="datasets/co2/co2.csv",
        unit="week",
        horizon=26,
    ),
    "sunspots": Record(
        about="the yearly number of sunspots since 1700\n"
        "(US National Geophysical Data Center; public domain)",
        file="datasets/sunspots/sunspots.csv",
        unit="year",
        horizon=11,
        model={"hidden": 16, "segment": 1, "lookback": 22},
        why="300 values are few: a small network, which looks back two cycles of 11 years",
    ),
}


def demo(name: str = "co2") -> None:
    """Show the main job, step by step, and leave a run in ``runs/demo-NAME``.

    Raises:
        DataError: there is no such demo, or statsmodels, which brings the data, is not installed.
    """
    if name not in RECORDS:
        fix = "name one of these, or use `segue train` on data of your own"
        raise DataError("segue demo", f"one of {', '.join(RECORDS)}", repr(name), fix)
    record, folder = RECORDS[name], Path("runs", f"demo-{name}")
    path = _path(record)
    print(f"The data: {record.about}\nfrom the package statsmodels: {path}")

    _heading(f"What is in them: segue look {path.name} --horizon {record.horizon}")
    table = read(path)
    found = look(table, horizon=record.horizon)
    print(found, end="")

    _heading(f"Learning: segue train {path.name} --horizon {record.horizon}")
    if record.why:
        print(f"{record.why}\nmodel: {dict(record.model)}")
    declaration = with_settings(found.declaration, record.model, None, None)
    run = terminal.watch(records(declaration, table))
    run.save(folder, overwrite=True)

    if run.evaluation is not None:
        _heading("Is it any good? Forecasts from every step of the held-out part")
        print(terminal.score_text(run.evaluation))

    _heading(f"Live: the last {SHOWN} {record.unit}s, one at a time, as `segue stream {folder}`")
    _live(run, table, record)

    _heading("Yours")
    print(f"the run:     {folder}\nthe report:  {folder / 'report.html'}   (open it in a browser)")


def _path(record: Record) -> Path:
    """The file inside the statsmodels package, which need not be imported for it."""
    package = find_spec("statsmodels")
    if package is None or package.origin is None:
        fix = 'pip install "segue[demo]"'
        raise DataError("segue demo", "the data of the package statsmodels", "no such package", fix)
    return Path(package.origin).parent / record.file


def _heading(text: str) -> None:
    print(f"\n== {text}\n")


def _live(run: Run, table: Table, record: Record) -> None:
    """Step a session through the end of the record, each value beside its earlier forecasts."""
    (output,) = run.declaration.outputs
    time = run.declaration.data.time or ""
    rows, ahead, unit = table.frame.to_dicts(), record.horizon, record.unit
    history, new = rows[: -SHOWN - ahead], rows[-SHOWN - ahead :]
    session = run.session()
    session.chunk(history)
    print(f"the session has read {len(history):,} {unit}s and goes on with the next {len(new)};")
    print("each new value beside what had been forecast for it, and the 10-90 % band:\n")
    made: list[Mapping[str, Any]] = []
    lines = [[time, output, f"1 {unit} before", "10-90 %", f"{ahead} {unit}s before", "10-90 %"]]
    for index, row in enumerate(new):
        if index >= ahead:
            near, early = made[index - 1], made[index - ahead]
            cells = [*_forecast(near, output, 0), *_forecast(early, output, ahead - 1)]
            lines.append([str(row[time])[:10], _number(row[output]), *cells])
        made.append(session.step(row))
    print(_columns(lines))
    value, band = _forecast(made[-1], output, ahead - 1)
    when = str(made[-1][time][-1])[:10]
    print(f"\nbeyond the end of the record, {ahead} {unit}s on, {when}: {value} ({band})")


def _forecast(prediction: Mapping[str, Any], output: str, step: int) -> tuple[str, str]:
    """The forecast and its band at one step ahead."""
    low, high = prediction[f"{output}_q10"][step], prediction[f"{output}_q90"][step]
    return _number(prediction[output][step]), f"{_number(low)} to {_number(high)}"


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.1f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
