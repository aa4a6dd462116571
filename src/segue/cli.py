"""The command line: parse, call, print.

Nothing that takes long to import is imported before it is needed, so that ``segue --help`` answers
at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.errors import DataError, SegueError, SpecError

if TYPE_CHECKING:
    from segue.run import Run
    from segue.schema import Declaration

WRONG_INPUT, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
"""Exit codes besides 0; the last two as a shell gives them for SIGINT and SIGPIPE."""


_TABLES = "several are tables of the same keys"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 after one line about what is wrong."""
    options = parser().parse_args(arguments)
    # Read when torch is imported. By default its threads spin while they wait for each other, which
    # makes small networks many times slower where other programs run as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except SegueError as error:
        print(f"segue: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output is gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="segue",
        description="Learn from sequences with recurrent networks, then run the model live, "
        "one step at a time.",
        epilog="DATA is a file (csv, tsv, parquet, arrow, jsonl, json, txt, ts, tsf), a folder, "
        "or a pattern in quotes.",
    )
    top.add_argument("--version", action="version", version=f"segue {version('segue')}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    look = _command(commands, "look", _look, "infer and print the declaration and a data check")
    look.add_argument("data", metavar="DATA", nargs="+", help=_TABLES)
    _add_target(look)
    look.add_argument("--save", metavar="SPEC.yaml", type=Path, help="write the declaration here")
    _add_overwrite(look)

    train = _command(commands, "train", _train, "learn, score beside naive answers, write a run")
    train.add_argument("source", metavar="SPEC|DATA", help="a declaration (.yaml), or the data")
    train.add_argument(
        "data", metavar="DATA", nargs="*", help=f"the data, after a declaration; {_TABLES}"
    )
    _add_target(train)
    change = "change the declaration, e.g. training.epochs=20; may be repeated"
    train.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], help=change
    )
    where = "folder of the run (default: runs/NAME, runs/NAME-2, ...)"
    train.add_argument("-o", "--output", metavar="RUN", type=Path, help=where)
    _add_overwrite(train)

    evaluate = _command(commands, "evaluate", _evaluate, "scores, those of naive answers beside")
    evaluate.add_argument("run", metavar="RUN")
    evaluate.add_argument("data", metavar="DATA", nargs="+", help=_TABLES)

    predict = _command(commands, "predict", _predict, "predictions as a table")
    predict.add_argument("run", metavar="RUN")
    predict.add_argument("data", metavar="DATA", nargs="+", help=_TABLES)
    out = "csv, parquet or jsonl by its suffix (default: csv to the terminal)"
    predict.add_argument("-o", "--output", metavar="FILE", type=Path, help=out)
    ahead = "the future of the inputs that are declared as known ahead"
    predict.add_argument("--ahead", metavar="FILE", help=ahead)
    _add_overwrite(predict)

    live = "JSON lines in, JSON lines out, as in: tail -f log | segue stream RUN"
    stream = _command(commands, "stream", _stream, live)
    stream.add_argument("run", metavar="RUN")
    field = "the field that says which sequence a line belongs to (default: the declared key)"
    stream.add_argument("--key", metavar="FIELD", help=field)

    report = _command(commands, "report", _report, "write report.html of a run anew")
    report.add_argument("run", metavar="RUN")

    demo = _command(commands, "demo", _demo, "all of the above on real data, without a download")
    demo.add_argument("name", metavar="NAME", nargs="?", default="co2", help="co2 or sunspots")
    return top


def _command(commands: Any, name: str, call: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    made.set_defaults(command=call)
    return made


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument("--target", metavar="COLUMN", help="what to learn; a pattern for several")
    command.add_argument("--horizon", metavar="N", type=_positive, help="forecast N steps ahead")
    tasks = "classify, regress, tag, forecast, next or anomaly"
    command.add_argument("--task", metavar="TASK", help=tasks)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace what is there")


# The commands -------------------------------------------------------------------------------------


def _look(options: argparse.Namespace) -> int:
    from segue.data.write import refuse_taken, write_bytes
    from segue.run import inspect

    if options.save is not None:
        refuse_taken(options.save, overwrite=options.overwrite)
    found = inspect(
        _tables(options.data), target=options.target, horizon=options.horizon, task=options.task
    )
    print(found, end="")
    if options.save is not None:
        write_bytes(str(found).encode(), options.save, overwrite=options.overwrite)
        print(f"\n# written; go on with: segue train {options.save} {' '.join(options.data)}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from segue import run, terminal
    from segue.checkpoint import refuse_taken
    from segue.data.read import read
    from segue.infer import look
    from segue.trained import read_options

    folder = options.output or _free_folder(options.source)
    refuse_taken(folder, overwrite=options.overwrite)
    if _is_spec(options.source):
        declaration = _changed(_declared(options), options.set)
        table = read(_tables(options.data), read_options(declaration))
    else:
        table = read(_only_data(options))
        found = look(table, options.target, options.horizon, options.task)
        print(found)
        declaration = _changed(found.declaration, options.set)
    failed = folder.with_name(f"{folder.name}-failed")
    trained = terminal.watch(run.records(declaration, table, failed))
    trained.save(folder, overwrite=options.overwrite)
    if trained.evaluation is None:
        print("\nno score: nothing was held out (see data.split)")
    else:
        print("\n" + terminal.score_text(trained.evaluation))
    print("\n" + _next_steps(trained, folder))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from segue import run, terminal

    print(terminal.score_text(run.load(options.run).evaluate(_tables(options.data))))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from segue import run
    from segue.data.write import csv, refuse, write

    if options.output is not None:
        refuse(options.output, overwrite=options.overwrite)
    frame, remarks = run.load(options.run).predicted(_tables(options.data), options.ahead)
    for remark in remarks:
        print(f"segue: {remark}", file=sys.stderr)
    if options.output is None:
        print(csv(frame).decode(), end="")
    else:
        write(frame, options.output, overwrite=options.overwrite)
        print(f"{frame.height:,} rows written to {options.output}")
    return 0


def _stream(options: argparse.Namespace) -> int:
    import json
    import signal

    from segue import run
    from segue.pipe import answers

    code, loaded = 0, run.load(options.run)
    # polars makes Ctrl-C wait for the next line; here it has to end the waiting for it.
    signal.siginterrupt(signal.SIGINT, True)
    for answer in answers(loaded, sys.stdin, options.key):
        if isinstance(answer, DataError):
            print(f"segue: {answer}", file=sys.stderr, flush=True)
            code = WRONG_INPUT
        else:
            print(json.dumps(answer, default=str, ensure_ascii=False), flush=True)
    return code


def _report(options: argparse.Namespace) -> int:
    from segue import run

    print(run.rewrite_report(options.run))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from segue.demo import demo

    demo(options.name)
    return 0


# What the commands need ---------------------------------------------------------------------------


def _is_spec(source: str) -> bool:
    return Path(source).suffix in (".yaml", ".yml")


def _declared(options: argparse.Namespace) -> Declaration:
    """The declaration of ``train SPEC DATA``."""
    from segue.run import declare

    if not options.data:
        fix = f"say: segue train {options.source} DATA"
        raise SpecError("segue train", "the data after the declaration", "none", fix)
    for name in ("target", "horizon", "task"):
        if getattr(options, name) is not None:
            fix = "write it there, or leave the declaration away"
            raise SpecError(
                f"--{name}", f"nothing beside {options.source}", str(getattr(options, name)), fix
            )
    return declare(options.source)


def _tables(paths: Sequence[str]) -> str | dict[str, str]:
    """The data: one source, or several tables by name."""
    if len(paths) == 1:
        return paths[0]
    named = {Path(path).stem: path for path in paths}
    if len(named) < len(paths):
        names = [Path(path).stem for path in paths]
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError("DATA", "tables of different names", f"{twice!r} twice", "rename one")
    return named


def _only_data(options: argparse.Namespace) -> str:
    """The data of ``train DATA``."""
    if options.data:
        fix = "say: segue train SPEC.yaml DATA, or segue train DATA"
        raise SpecError("segue train", "a declaration before the data", options.source, fix)
    return str(options.source)


def _changed(declaration: Declaration, settings: Sequence[str]) -> Declaration:
    """The declaration with some settings changed, each ``section.key=value``; values are YAML."""
    import yaml

    from segue.run import declare

    raw = declaration.to_dict()
    for setting in settings:
        path, equals, text = setting.partition("=")
        *sections, last = path.split(".")
        if not equals or not sections:
            fix = "write e.g. --set training.epochs=20"
            raise SpecError("--set", "section.key=value", repr(setting), fix)
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                got, fix = repr(place), "see the declaration that `segue look` prints"
                raise SpecError(f"--set {path}", f"a section {section!r}", got, fix)
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SpecError(f"--set {path}", "a value as in YAML", repr(text), "quote it") from None
    return declare(raw) if settings else declaration


def _free_folder(source: str) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, ``runs/NAME-3`` ... that is free."""
    place = Path(source)
    named = place.parent if set(place.name) & set("*?[") else place
    name = named.name.removesuffix(".gz").partition(".")[0] or "run"
    folder, number = Path("runs", name), 1
    while folder.exists():
        number += 1
        folder = Path("runs", f"{name}-{number}")
    return folder


def _next_steps(run: Run, folder: Path) -> str:
    lines = {
        f"open {folder / 'report.html'}": "the pictures",
        f"segue predict {folder} DATA": "for new data",
        f"segue evaluate {folder} DATA": "on data with answers",
    }
    if run.trained.network.causal:
        lines[f"segue stream {folder} < LINES.jsonl"] = "live, one record at a time"
    return f"the run is in {folder}; go on with\n" + _aligned(lines)


def _aligned(lines: Mapping[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(f"  {line.ljust(width)}   {text}" for line, text in lines.items())
