"""The command line: what each command prints and writes, and how it refuses."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import segue
from segue.cli import main
from segue.data.write import csv

COMMANDS = ["look", "train", "evaluate", "predict", "stream", "report", "demo"]
QUICK = ["--set", "training.epochs=2", "--set", "model.hidden=8"]

HELP = """
import atexit, sys
from segue.cli import main
HEAVY = {"torch", "polars", "plotly", "numpy", "pydantic", "rich"}
atexit.register(lambda: print(sorted(HEAVY & set(sys.modules)), file=sys.stderr))
main(sys.argv[1:])
"""
LIVE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from segue.cli import main
sys.exit(main(["stream", sys.argv[1]]))
"""


def rows(machines: int, steps: int) -> pl.DataFrame:
    """Machines with a load that swings, each in its own time."""
    return pl.DataFrame(
        [
            {
                "machine": f"m{machine}",
                "time": step,
                "load": round(math.sin(step / 4 + machine) + 0.1 * math.cos(step * 7 + machine), 3),
                "hot": "yes" if math.sin(step / 4 + machine) > 0 else "no",
            }
            for machine in range(machines)
            for step in range(steps)
        ]
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keyed data and two runs: ``tagged`` and ``forecast``."""
    folder = tmp_path_factory.mktemp("cli")
    rows(12, 60).write_csv(folder / "machines.csv")
    spec = {
        "data": {"rows": "steps", "key": "machine", "time": "time", "split": {"by": "key"}},
        "inputs": {"load": {"kind": "number"}},
        "outputs": {"hot": {"task": "tag"}},
        "model": {"hidden": 8},
        "training": {"epochs": 2},
    }
    (folder / "spec.yaml").write_text(json.dumps(spec))
    segue.fit(spec, folder / "machines.csv").save(folder / "tagged")
    spec["outputs"] = {"load": {"task": "forecast", "horizon": 3}}
    segue.fit(spec | {"inputs": {"hot": {"kind": "category"}}}, folder / "machines.csv").save(
        folder / "forecast"
    )
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def stream(lines: str, run: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segue", "stream", run, *options]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300)


# Help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy_and_answers_at_once(arguments: list[str]) -> None:
    command = [sys.executable, "-c", HELP, *arguments, "--help"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    # It is a tenth of this on an idle machine; importing torch alone takes longer.
    assert time.perf_counter() - began < 3
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert done.stdout.startswith(" ".join(["usage: segue", *arguments, "[-h]"]))


def test_the_commands_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:4] == "    "
    ]
    assert [name for name in listed if name in COMMANDS] == COMMANDS


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"segue {segue.__version__}\n"


# look and train -----------------------------------------------------------------------------------


def test_what_look_saves_is_a_declaration_to_train_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "look.yaml"
    assert main(["look", "machines.csv", "--target", "hot", "--save", str(saved)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(saved.read_text())
    assert printed.endswith(f"go on with: segue train {saved} machines.csv\n")
    assert "# 12 sequences of 60 to 60 steps" in printed
    out = str(tmp_path / "run")
    assert main(["train", str(saved), "machines.csv", "-o", out, *QUICK]) == 0
    assert segue.load(out).declaration.model.hidden == 8


def test_train_prints_its_progress_the_scores_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(Path("machines.csv").resolve())
    monkeypatch.chdir(tmp_path)
    assert main(["train", data, "--target", "load", "--horizon", "3", *QUICK]) == 0
    first, out = capsys.readouterr().out, Path("runs", "machines")
    assert "task: forecast" in first
    assert "\ntraining: 504 steps, 108 more to choose the best epoch, 108 held out for the" in first
    assert "\nepoch 1 of 2: loss " in first
    assert "\n  model" in first
    assert "\n  last value" in first
    assert " than the best naive answer (" in first
    assert f"the run is in {out}; go on with\n" in first
    assert main(["train", data, "--target", "load", "--horizon", "3", *QUICK]) == 0
    assert segue.load("runs/machines-2").declaration == segue.load(out).declaration


def test_the_sentence_says_whether_the_model_beats_the_naive_answers() -> None:
    run = segue.load("tagged")
    score = run.evaluate("machines.csv").scores["hot"]
    from_table = run.evaluate("machines.csv").frame()["accuracy"].to_list()
    word = "better" if from_table[0] > from_table[1] else "NOT better"
    sentence = (
        f"hot: accuracy {from_table[0]:.3f}, {word} than the best naive answer"
        f" (majority, {from_table[1]:.3f})"
    )
    assert score.main == "accuracy"
    done = subprocess.run(
        [sys.executable, "-m", "segue", "evaluate", "tagged", "machines.csv"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == sentence


def test_a_taken_folder_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in Path("tagged").iterdir()}
    assert main(["train", "spec.yaml", "machines.csv", "-o", "tagged"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "segue: tagged: expected a new folder for the run, got a run;"
        " choose another name, or say --overwrite\n"
    )
    assert {path.name: path.read_bytes() for path in Path("tagged").iterdir()} == before


# predict ------------------------------------------------------------------------------------------


def test_predict_writes_what_the_run_predicts_in_every_format(tmp_path: Path) -> None:
    expected = segue.load("forecast").predict("machines.csv")
    readers = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}
    for suffix, reader in readers.items():
        path = tmp_path / f"future.{suffix}"
        assert main(["predict", "forecast", "machines.csv", "-o", str(path)]) == 0
        assert reader(path).equals(expected)
    assert expected.height == 12 * 3


def test_predict_prints_csv_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "forecast", "machines.csv"]) == 0
    assert capsys.readouterr().out == csv(segue.load("forecast").predict("machines.csv")).decode()


def test_a_list_stands_in_a_cell_of_csv_as_json() -> None:
    frame = pl.DataFrame({"row": [0, 1, 2], "chord": [["c", "é"], [], None]})
    text = csv(frame).decode()
    assert text == 'row,chord\n0,"[""c"", ""é""]"\n1,[]\n2,\n'


def test_predict_replaces_a_file_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "future.csv"
    path.write_text("mine")
    assert main(["predict", "forecast", "machines.csv", "-o", str(path)]) == 2
    assert path.read_text() == "mine"
    assert capsys.readouterr().err == (
        f"segue: {path}: expected a new file, got one that exists;"
        " choose another name, or say --overwrite\n"
    )
    assert main(["predict", "forecast", "machines.csv", "-o", str(path), "--overwrite"]) == 0
    assert path.read_text().startswith("machine,time,load")
    assert [each.name for each in tmp_path.iterdir()] == ["future.csv"]


# stream -------------------------------------------------------------------------------------------


def test_a_stream_answers_as_the_sessions_do_with_a_state_per_key() -> None:
    records = rows(3, 4).drop("hot").sort("time", maintain_order=True).to_dicts()
    done = stream("".join(json.dumps(record) + "\n" for record in records), "tagged")
    sessions = segue.load("tagged").sessions()
    expected = [
        {"machine": record["machine"], "time": record["time"]}
        | sessions.step({record["machine"]: record})[record["machine"]]
        for record in records
    ]
    assert done.stderr == ""
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    assert done.returncode == 0


def test_a_stream_says_what_is_wrong_with_a_line_and_goes_on() -> None:
    good = [{"machine": "a", "time": step, "load": 0.5} for step in range(2)]
    lines = [
        json.dumps(good[0]),
        "oops",
        "",
        '{"machine": "a", "time": 0, "load": 0.5}',
        '{"machine": "a", "time": 1}',
        '{"machine": "a", "time": 1, "load": "high"}',
        '{"time": 1, "load": 0.5}',
        '{"machine": null, "time": 1, "load": 0.5}',
        json.dumps(good[1]),
    ]
    done = stream("\n".join(lines), "tagged")
    assert done.stderr.splitlines() == [
        "segue: line 2: expected a JSON object, got oops; send one object per line",
        "segue: line 4: 'time': expected a time after 0, got 0;"
        " send the records of a sequence in time order",
        "segue: line 5: expected a value for 'load', got only machine, time;"
        " add it; null says that it is not observed",
        "segue: line 6: 'load': expected a number, or null where it is not observed, got 'high';"
        " correct it",
        "segue: line 7: expected the key 'machine' as text or a number, got only time, load;"
        " add the name or number of the sequence",
        "segue: line 8: expected the key 'machine' as text or a number, got null;"
        " add the name or number of the sequence",
    ]
    # The wrong lines have left no trace in the state.
    assert done.stdout == stream("\n".join(map(json.dumps, good)), "tagged").stdout
    assert done.returncode == 2


def test_a_field_of_the_users_choice_tells_the_sequences_of_a_stream_apart() -> None:
    lines = [{"at": name, "time": 0, "load": 0.5} for name in (1, 2)]
    done = stream("\n".join(map(json.dumps, lines)), "tagged", "--key", "at")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first.pop("at"), second.pop("at")) == (1, 2)
    assert first == second


def test_a_stream_answers_each_line_at_once_and_ends_quietly() -> None:
    command = [sys.executable, "-c", LIVE, "tagged"]
    pipe = subprocess.PIPE
    line = json.dumps({"machine": "a", "time": 0, "load": 0.5}) + "\n"
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as live:
        assert live.stdin is not None and live.stdout is not None and live.stderr is not None
        live.stdin.write(line)
        live.stdin.flush()
        assert json.loads(live.stdout.readline())["machine"] == "a"
        live.send_signal(signal.SIGINT)
        assert live.wait(timeout=60) == 130
        assert live.stderr.read() == ""


def test_a_stream_whose_reader_has_gone_ends_quietly() -> None:
    command = [sys.executable, "-c", LIVE, "tagged"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as live:
        assert live.stdin is not None and live.stdout is not None and live.stderr is not None
        live.stdout.close()
        live.stdin.write(json.dumps({"machine": "a", "time": 0, "load": 0.5}) + "\n")
        live.stdin.close()
        assert live.wait(timeout=60) == 141
        assert live.stderr.read() == ""


def test_a_model_that_reads_the_future_refuses_to_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "both")
    both = ["--set", "model.bidirectional=true"]
    assert main(["train", "spec.yaml", "machines.csv", "-o", out, *QUICK, *both]) == 0
    assert "segue stream" not in capsys.readouterr().out
    done = stream("", out)
    assert done.stderr.startswith("segue: ")
    assert done.stderr.count("\n") == 1
    assert "bidirectional" in done.stderr
    assert done.returncode == 2


# report and demo ----------------------------------------------------------------------------------


def test_report_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    segue.fit("spec.yaml", "machines.csv").save(out)
    written = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    assert (out / "report.html").read_bytes() == written


@pytest.mark.parametrize("name", ["co2", "sunspots"])
def test_a_demo_learns_beats_the_naive_answer_and_runs_live(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", name]) == 0
    printed = capsys.readouterr().out
    assert ", better than the best naive answer (seasonal naive" in printed
    assert f"as `segue stream runs/demo-{name}`" in printed
    live = printed.partition("== Live")[2].partition("beyond the end")[0]
    assert sum(line[:1] in ("1", "2") for line in live.splitlines()) == 10
    assert segue.load(f"runs/demo-{name}").declaration.data.time is not None


def test_the_demo_says_how_to_get_its_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As Python marks a package that is not there.
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        "segue: segue demo: expected the data of the package statsmodels, got no such package;"
        ' pip install "segue[demo]"\n'
    )


# Refusals -----------------------------------------------------------------------------------------

REFUSED = {
    "train no/table.csv": "no/table.csv: expected a file, a folder or a pattern,"
    " got no folder 'no'; check the path",
    "train spec.yaml": "segue train: expected the data after the declaration, got none;"
    " say: segue train spec.yaml DATA",
    "train spec.yaml machines.csv --horizon 3": "--horizon: expected nothing beside spec.yaml,"
    " got 3; write it there, or leave the declaration away",
    "train machines.csv machines.csv": "segue train: expected a declaration before the data,"
    " got machines.csv; say: segue train SPEC.yaml DATA, or segue train DATA",
    "train spec.yaml machines.csv --set epochs=3": "--set: expected section.key=value,"
    " got 'epochs=3'; write e.g. --set training.epochs=20",
    "train spec.yaml machines.csv --set training.epochs=[": "--set training.epochs: expected a"
    " value as in YAML, got '['; quote it",
    "train spec.yaml machines.csv --set data.key.first=a": "--set data.key.first: expected a"
    " section 'key', got 'machine'; see the declaration that `segue look` prints",
    "train spec.yaml machines.csv -o .": ".: expected a new folder for the run,"
    " got something that is not a run; choose another name",
    "look machines.csv --save spec.yaml": "spec.yaml: expected a new file, got one that exists;"
    " choose another name, or say --overwrite",
    "look machines.csv --save no/spec.yaml": "no/spec.yaml: expected a place to write to,"
    " got no folder 'no'; make the folder first",
    "predict tagged machines.csv -o future.xls": "future.xls: expected a name that ends in one of"
    " .csv .parquet .jsonl .ndjson, got '.xls'; choose one of these formats",
    "predict tagged machines.csv -o tagged": "tagged: expected a name that ends in one of"
    " .csv .parquet .jsonl .ndjson, got no suffix; choose one of these formats",
    "evaluate nowhere machines.csv": "nowhere/manifest.json: expected a run folder with"
    " manifest.json, got No such file or directory; check the path",
    "demo moon": "segue demo: expected one of co2, sunspots, got 'moon';"
    " name one of these, or use `segue train` on data of your own",
}
"""What is wrong with each command line, in one line."""


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"segue: {REFUSED[line]}\n"
    assert sorted(place.rglob("*")) == before
