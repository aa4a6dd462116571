"""The benchmarks of the layers: that they run, refuse wrong results, and judge figures rightly."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PEERS = ("jax", "flax", "onnx", "onnxruntime")


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("contest", monkeypatch)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module("table", monkeypatch)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("script", "needs"), [("ragged.py --only LSTM", ()), ("step.py --only sessions", PEERS)]
)
def test_every_contestant_agrees_and_is_timed(script: str, needs: tuple[str, ...]) -> None:
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    name, *words = script.split()
    command = [sys.executable, str(BENCHMARKS / name), *words, "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (json.loads(text) for text in done.stdout.splitlines())
    times = line.get("ms") or line["us"]
    assert "segue" in times and all(one > 0 for one in times.values())
    assert max(line["largest_error"].values()) <= 1e-4


@pytest.mark.parametrize(("wrong", "said"), [(np.nan, "nan"), (0.9, "1.0e-01")])
def test_a_contestant_that_computes_something_else_is_refused(
    contest: ModuleType, wrong: float, said: str
) -> None:
    own = {"y": np.ones(3), "dx": np.ones(2)}
    assert contest.agree("torch", own, {"y": np.ones(3)}) == 0
    with pytest.raises(contest.Disagreement) as caught:
        contest.agree("torch", own, {"y": np.ones(3), "dx": np.array([1, wrong])})
    assert str(caught.value) == f"torch: dx differs from ours by {said} of its scale"


@pytest.mark.parametrize(
    ("ratios", "measured", "reached"),
    [
        ((2.0, 8.0), "mean 4, worst of 2: 2 (GRU (2, 1, 1, 1))", "yes"),
        ((1.05, 8.0), "mean 2.9, worst of 2: 1.05 (GRU (2, 1, 1, 1))", "**no**"),
        ((1.2, 2.0), "mean 1.55, worst of 2: 1.2 (GRU (2, 1, 1, 1))", "**no**"),
    ],
)
def test_a_goal_holds_where_its_mean_and_every_line_do(
    table: ModuleType, ratios: tuple[float, float], measured: str, reached: str
) -> None:
    goal = table.Goal("speed", {"law": ("GRU",)}, "ratio", ">= 1.1", ">= 2.4")
    lines = [
        {"law": law, "size": [size, 1, 1, 1], "ratio": ratio}
        for law, size, ratio in (("GRU", 2, ratios[0]), ("GRU", 3, ratios[1]), ("LSTM", 4, 0.5))
    ]
    row = ["speed", "geometric mean >= 2.4, each >= 1.1", measured, reached]
    assert table.judged(goal, lines) == row
    assert table.judged(goal, lines[2:]) == [*row[:2], "not measured", ""]


def test_the_last_line_of_a_case_counts_among_those_with_the_most_threads(
    table: ModuleType, tmp_path: Path
) -> None:
    case = {"benchmark": "layers", "case": "plain", "law": "GRU"}
    figures = [(2, 1.0), (2, 2.0), (1, 3.0)]
    lines = [{**case, "threads": threads, "ratio": ratio} for threads, ratio in figures]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "layers.jsonl").write_text(text)
    assert [line["ratio"] for line in table.latest(tmp_path)] == [2.0]
