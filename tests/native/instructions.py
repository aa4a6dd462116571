"""Counts the instructions of fixed work, and compares with those on file: speed on a noisy machine.

    python instructions.py BUILD [--renew]

BUILD is the folder with ``work`` in it. The counts depend on the compiler, and on nothing else that
changes from run to run. Where the file has none for this compiler, each is held to a loose bound
per multiply-add instead.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from os import environ
from pathlib import Path

FILE = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
"""Of a count: what a change of the C++ library under the same compiler may bring."""

BOUND = {"avx2": 1.2, "neon": 2.4}
"""Instructions per multiply-add, by target: one and a half times the largest at writing."""


def main(build: Path, renew: bool) -> int:
    target, compiler, works = target_of(build), compiler_of(build), works_of(build)
    counts = {name: count(build, target, name) for name in works}
    on_file = json.loads(FILE.read_text()) if FILE.exists() else {}
    if renew:
        on_file[f"{compiler} {target}"] = counts
        FILE.write_text(json.dumps(on_file, indent=2, sort_keys=True) + "\n")
        print(f"{FILE.name}: renewed for {compiler} {target}")
        return 0
    known = on_file.get(f"{compiler} {target}", {})
    print(f"{compiler} {target:22} {'instructions':>12} {'on file':>12} {'per multiply-add':>20}")
    wrong = []
    for name, got in counts.items():
        each = got / works[name]
        print(f"{name:29} {got:12} {known.get(name, '-'):>12} {each:20.3f}")
        wrong += complaints(name, got, known.get(name), each, target, compiler)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def complaints(
    name: str, got: int, expected: int | None, each: float, target: str, compiler: str
) -> list[str]:
    if expected is None:
        if each <= BOUND[target]:
            return []
        return [
            f"{name} on {target}: expected at most {BOUND[target]} instructions per multiply-add "
            f"(no count on file for {compiler}), got {each:.3f}; if the change is "
            "meant, raise BOUND"
        ]
    change = got / expected - 1
    if abs(change) <= TOLERANCE:
        return []
    return [
        f"{name} on {target}: expected {expected} instructions within {TOLERANCE:.0%}, got {got} "
        f"({change:+.1%}); if the change is meant, run `scripts/kernels callgrind --renew`"
    ]


def works_of(build: Path) -> dict[str, int]:
    """How many multiply-adds each piece of work makes, by ``NAME FUNCTION``."""
    lines = subprocess.run([build / "work"], capture_output=True, text=True, check=True).stdout
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines.splitlines()}


def count(build: Path, target: str, name: str) -> int:
    """The instructions inside the function, and in all that it calls."""
    work, function = name.split()
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    ran = subprocess.run(
        [*tool, f"--toggle-collect=segue::{function}(*", build / "work", work],
        env={**environ, "SEGUE_TARGET": target},
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode != 0 or not found or found[1] == "0":
        raise SystemExit(f"instructions.py: valgrind counted nothing for {name}:\n{ran.stderr}")
    return int(found[1])


def target_of(build: Path) -> str:
    """The fastest target that valgrind knows: it has no AVX-512."""
    test = [build / "kernels_test", "--targets"]
    names = subprocess.run(test, capture_output=True, text=True, check=True).stdout.split()
    known = [name for name in names if name in BOUND]
    if not known:
        raise SystemExit(f"instructions.py: expected one of {', '.join(BOUND)}, got {names}")
    return known[0]


def compiler_of(build: Path) -> str:
    """Name and major version."""
    return (build / "compiler").read_text().partition(".")[0]


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), "--renew" in sys.argv[2:]))
