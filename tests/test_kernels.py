"""The kernels without Python: the programs of tests/native, built and run by scripts/kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX", "c++")

pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None
    or not (shutil.which("cmake") or (ROOT / ".venv/bin/cmake").is_file()),
    reason=f"the kernels' own tests are built with cmake and {COMPILER}: install them",
)


def run(*arguments: str) -> str:
    ran = subprocess.run(
        [ROOT / "scripts" / "kernels", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def need_sanitizer(name: str, folder: Path) -> None:
    source = folder / "empty.cpp"
    source.write_text("int main() {}\n")
    built = [COMPILER, f"-fsanitize={name}", str(source), "-o", str(folder / "empty")]
    if subprocess.run(built, capture_output=True).returncode != 0:
        pytest.skip(f"{COMPILER} has no -fsanitize={name}: install its library")


def test_every_target_equals_the_definition_and_the_others_to_the_bit() -> None:
    assert "plain: " in run("plain", "--quick")


def test_no_target_reads_or_writes_outside_or_does_what_is_undefined(tmp_path: Path) -> None:
    need_sanitizer("address,undefined", tmp_path)
    assert "plain: " in run("asan", "--quick")


def test_threads_do_not_race(tmp_path: Path) -> None:
    need_sanitizer("thread", tmp_path)
    assert " 0 failed" in run("tsan", "--quick", "any threads")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="instructions: install valgrind")
def test_the_kernels_take_the_instructions_that_are_on_file() -> None:
    assert "gru-after-step" in run("callgrind")


def test_a_word_that_no_check_has_in_its_name_fails() -> None:
    ran = subprocess.run(
        [ROOT / "scripts" / "kernels", "plain", "no such law"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (ran.returncode, "no check has 'no such law' in its name" in ran.stdout) == (1, True)
