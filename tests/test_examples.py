"""Every example runs as a program of its own, in an empty folder, and says what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segue.run import declare

FOLDER = Path(__file__).resolve().parents[1] / "examples"
SAID = {
    "classify_sequences": r"shape  ┆ model    ┆ 0\.9",
    "forecast_co2": r"co2    ┆ model +┆ 0\.3",
    "language_model": "This is the house that Jack built",
    "live_many_sessions": r"restored: \('new3', 'new5', 'new8'\)",
    "textbook_arrays": r"\[-0\.26 -0\.2",
    "textbook_torch": r"squared error after 100 epochs: 0\.00",
    "translate_dates": "0 2021-03-30\n1 1998-08-17",
}
"""What the output of each example matches."""


def test_every_example_is_run() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted(SAID)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_declaration_is_one(path: Path) -> None:
    assert declare(path).outputs


@pytest.mark.parametrize("name", SAID)
def test_an_example_runs_and_learns(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        cwd=tmp_path,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert re.search(SAID[name], done.stdout)
