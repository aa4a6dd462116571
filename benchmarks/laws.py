"""Which law for which sequence: every law of memory on the same data, with time, size and score.

    python benchmarks/laws.py adding           the adding problem over 600 steps
    python benchmarks/laws.py copy             10 symbols recalled after 1,000 steps
    python benchmarks/laws.py pixels           digits from their 784 places, one after another
    python benchmarks/laws.py adding --only gru lstm

A line of JSON per law; with ``--save`` it is added to results/laws.jsonl, from which ``--table``
makes the tables in docs/laws.md. Sources: adding, Hochreiter and Schmidhuber (1997); copy, Arjovsky
et al. (2016); pixels, Le et al. (2015).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import digits
import line
import numpy as np
import polars as pl

import segue
from segue.errors import TrainingError

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "laws.jsonl"
PAGE = HERE.parent / "docs" / "laws.md"
BEGIN, END = "<!-- laws: begin -->", "<!-- laws: end -->"


def _dilated(width: int, levels: int, kernel: int) -> dict[str, Any]:
    """A temporal convolutional network: dilation doubles from layer to layer."""
    layers = [
        {"conv": {"hidden": width, "kernel": kernel, "dilation": 2**level, "activation": "relu"}}
        for level in range(levels)
    ]
    return {"layers": layers, "residual": True}


LAWS: dict[str, dict[str, Any]] = {
    "elman": {"cell": "elman"},
    "elman, relu, identity": {"cell": {"elman": {"activation": "relu", "init": "identity"}}},
    "lstm": {"cell": "lstm"},
    "lstm, chrono": {"cell": {"lstm": {"init": "chrono(1000)"}}},
    "gru": {"cell": "gru"},
    "gru, chrono": {"cell": {"gru": {"init": "chrono(1000)"}}},
    "min_gru": {"cell": "min_gru", "layers": 2},
    "min_lstm": {"cell": "min_lstm", "layers": 2},
    "rg_lru": {"cell": "rg_lru", "layers": 2},
    "s5": {"cell": {"s5": {"gate": True}}, "layers": 2, "residual": True, "norm": True},
    "dilated convolutions": _dilated(16, 8, 8),
    "attention, 64 steps": {"cell": "attention", "layers": 2, "residual": True, "norm": True},
    "convolution, gru": {"layers": [{"conv": {"kernel": 8, "activation": "relu"}}, "gru"]},
}
"""The model section of each; 64 hidden units where nothing else is said."""
GENTLY: dict[str, dict[str, Any]] = {"elman, relu, identity": {"learning_rate": 0.0003}}
"""Training of laws that diverge at the rate of the others: this one's state has no bound."""


@dataclass(frozen=True)
class Problem:
    """Data of a seed and a task on them.

    Attributes:
        make: training and test data of a seed.
        spec: inputs and outputs.
        training: the same for all laws.
        score: the metric of the output on the test data, and `naive` what a simple answer has.
        target: what the best law must reach.
    """

    make: Callable[[int], tuple[pl.DataFrame, pl.DataFrame]]
    spec: dict[str, Any]
    training: dict[str, Any]
    metric: str
    score: Callable[[segue.Run, pl.DataFrame], tuple[float, float]]
    target: str


def adding(count: int, steps: int, random: np.random.Generator) -> pl.DataFrame:
    """Numbers and marks of two of them, one in each half; y is the sum of the two."""
    x, mark = random.random((count, steps)).astype(np.float32), np.zeros((count, steps), np.float32)
    rows, half = np.arange(count), steps // 2
    first, second = random.integers(0, half, count), random.integers(half, steps, count)
    mark[rows, first] = mark[rows, second] = 1
    y = x[rows, first] + x[rows, second]
    return pl.DataFrame({"x": x.tolist(), "mark": mark.tolist(), "y": y})


def _adding(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    random = np.random.default_rng(seed)
    return adding(10_000, 600, random), adding(1_000, 600, random)


def _adding_score(run: segue.Run, test: pl.DataFrame) -> tuple[float, float]:
    y = test["y"].to_numpy()
    return float(((run.predict(test)["y"].to_numpy() - y) ** 2).mean()), float(
        ((y - 1) ** 2).mean()
    )


SYMBOLS, SAID, WAIT = 8, 10, 1000


def copying(count: int, random: np.random.Generator) -> pl.DataFrame:
    """SAID symbols, WAIT blanks the last of which asks, and then the symbols are to be given back;
    before that the answer is a blank.
    """
    said = random.integers(1, SYMBOLS + 1, (count, SAID))
    x = np.zeros((count, WAIT + 2 * SAID), np.int64)
    y = x.copy()
    x[:, :SAID], x[:, SAID + WAIT - 1], y[:, SAID + WAIT :] = said, SYMBOLS + 1, said
    names = np.array(["-", *"abcdefgh", "?"])
    return pl.DataFrame({"x": names[x].tolist(), "y": names[y].tolist()})


def _copying(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    random = np.random.default_rng(seed)
    return copying(2_000, random), copying(200, random)


def _copying_score(run: segue.Run, test: pl.DataFrame) -> tuple[float, float]:
    """Cross-entropy in nats per step; naive: the blanks, then one symbol as likely as another."""
    loss = run.evaluate(test).scores["y"].metrics["log_loss"]
    return loss, SAID * float(np.log(SYMBOLS)) / (WAIT + 2 * SAID)


def _pixels(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    return digits.table(digits.digits()[0].reshape(-1, 784))


def _pixels_score(run: segue.Run, test: pl.DataFrame) -> tuple[float, float]:
    """The share of digits that are right; naive: the most frequent one."""
    score = run.evaluate(test).scores["digit"]
    return score.metrics["accuracy"], score.baselines["majority"]["accuracy"]


PROBLEMS = {
    "adding": Problem(
        _adding,
        {
            "inputs": {"x": {"kind": "number"}, "mark": {"kind": "number"}},
            "outputs": {"y": {"task": "regress"}},
        },
        {"epochs": 10, "batch": 32, "learning_rate": 0.005},
        "mean squared error",
        _adding_score,
        "<= 0.001",
    ),
    "pixels": Problem(
        _pixels,
        {"inputs": {"picture": {"kind": "number"}}, "outputs": {"digit": {"task": "classify"}}},
        {"epochs": 20, "batch": 64, "learning_rate": 0.005},
        "accuracy",
        _pixels_score,
        ">= 0.93",
    ),
    "copy": Problem(
        _copying,
        {"inputs": {"x": {"kind": "category"}}, "outputs": {"y": {"task": "tag"}}},
        {"epochs": 8, "batch": 16, "learning_rate": 0.003},
        "cross-entropy, nats per step",
        _copying_score,
        "<= 0.001",
    ),
}


def once(name: str, law: str, seed: int) -> dict[str, Any]:
    """Train and score one law on one problem."""
    problem, model = PROBLEMS[name], {"hidden": 64, "dropout": 0.0, **LAWS[law]}
    train, test = problem.make(seed)
    data = {"rows": "examples", "split": {"by": "random", "valid": 0.05, "test": 0}}
    spec = {"data": data, **problem.spec, "model": model}
    training = {**problem.training, **GENTLY.get(law, {})}
    run = segue.fit({**spec, "training": {**training, "seed": seed}}, train)
    value, naive = problem.score(run, test)
    settings = {"model": model, "training": training}
    found = line.result(run, value=value, naive={"naive": naive}, seed=seed, settings=settings)
    head = {"benchmark": name, "law": law, "metric": problem.metric, "target": problem.target}
    found["reached"] = line.reached(value, problem.target)
    tail = {"segue": segue.__version__, "machine": line.machine()}
    return {**head, **found, **tail}


def _latest() -> dict[str, dict[str, dict[str, Any]]]:
    """The last line of every law on every problem."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for text in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        said = json.loads(text)
        found.setdefault(said["benchmark"], {})[said["law"]] = said
    return found


def table() -> Iterator[str]:
    """A table for each problem, the best law first."""
    for name, laws in _latest().items():
        first = next(iter(laws.values()))
        naive = f"{first['naive']['naive']:.3g}"
        yield f"\n**{name}**: {first['metric']}; naive {naive}; target {first['target']}\n"
        yield "| law | score | reached | weights | training, s |"
        yield "|---|---|---|---|---|"
        up = first["target"].startswith(">")
        for said in sorted(laws.values(), key=lambda one: one["value"] * (-1 if up else 1)):
            reached = "yes" if said["reached"] else "no"
            cells = (said["law"], f"{said['value']:.3g}", reached, f"{said['parameters']:,}")
            yield f"| {' | '.join(cells)} | {said['seconds']:.0f} |"


def rewrite() -> None:
    """Put the tables into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    text = "\n".join(table()).strip("\n")
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem", nargs="?", choices=PROBLEMS)
    parser.add_argument("--only", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="add the lines to results/laws.jsonl")
    parser.add_argument("--table", action="store_true", help="rewrite the tables of docs/laws.md")
    said = parser.parse_args()
    for law in said.only if said.problem else ():
        try:
            found = json.dumps(once(said.problem, law, said.seed))
        except TrainingError as error:
            print(f"{law}: {error}", file=sys.stderr, flush=True)
            continue
        print(found, flush=True)
        if said.save:
            with RESULTS.open("a") as file:
                file.write(found + "\n")
    if said.table:
        rewrite()


if __name__ == "__main__":
    main()
