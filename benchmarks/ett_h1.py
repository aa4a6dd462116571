"""Seven columns of an electricity transformer, hours ahead, on the official split of ETTh1.

    python benchmarks/ett_h1.py                          96 hours, examples/ett_h1.yaml as it stands
    python benchmarks/ett_h1.py --horizon 336            two weeks, with the changes of FARTHER
    python benchmarks/ett_h1.py --horizon 96 --laws      every law of memory, one network each
    python benchmarks/ett_h1.py --defaults               what segue infers, nothing declared

With ``--laws`` there is a line of JSON per law; with ``--save`` it is added to
results/ett_h1_laws.jsonl, from which ``--table`` makes the table in README.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import line
import yaml

import segue

HERE = Path(__file__).resolve().parent
SPEC: dict[str, Any] = yaml.safe_load((line.ROOT / "examples" / "ett_h1.yaml").read_text())
OUTPUT = "[A-Z]*"
RESULTS = HERE / "results" / "ett_h1_laws.jsonl"
README = HERE / "README.md"
BEGIN, END = "<!-- ett laws: begin -->", "<!-- ett laws: end -->"
DEFAULT = {"task": "forecast"}
TARGETS = {96: "<= 0.36", 336: "<= 0.41"}
FARTHER: dict[int, dict[str, Any]] = {
    336: {
        "model": {
            **SPEC["model"],
            "hidden": 128,
            "lookback": 1056,
            "level": "mean",
            "members": 1,
            "dropout": 0.7,
        },
        "training": {**SPEC["training"], "epochs": 40},
    }
}
"""What differs from the example: so far ahead a series is at its level again, and a head of so
many outputs learns the training rows by heart sooner.
"""
BY_LAW: dict[str, Any] = {
    "outputs": {OUTPUT: {"task": "forecast", "quantiles": []}},
    "model": {
        "hidden": 128,
        "segment": 24,
        "lookback": 720,
        "skip": "seasonal",
        "dropout": 0.5,
    },
    "training": {"epochs": 100},
}
"""One network each, its state carried: a step costs one step of the law, so that all can be tried
that a forecast takes: those that read the time passed, or pictures, it does not.
"""
LAWS: dict[str, dict[str, Any]] = {
    "elman": {"cell": "elman"},
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "min_gru": {"cell": "min_gru"},
    "min_lstm": {"cell": "min_lstm"},
    "rg_lru": {"cell": "rg_lru"},
    "rg_lru, window": {"cell": "rg_lru", "memory": "window"},
    "s5": {"cell": {"s5": {"gate": True}}},
    "conv": {"cell": {"conv": {"kernel": 8}}},
    "attention": {"cell": {"attention": {"window": 32}}},
}


def declared(horizon: int, spec: dict[str, Any], **model: Any) -> dict[str, Any]:
    """A declaration for another horizon and with another law of memory."""
    output = {**spec["outputs"][OUTPUT], "horizon": horizon}
    return {**spec, "outputs": {OUTPUT: output}, "model": {**spec["model"], **model}}


def once(spec: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    training = {**spec.get("training", {}), "seed": seed}
    run = segue.fit({**spec, "training": training}, line.DATA / "ett_h1" / "ETTh1.csv")
    evaluation = run.evaluation
    score = evaluation.scores[OUTPUT]
    naive = {name: metrics["mse_scaled"] for name, metrics in score.baselines.items()}
    settings = {part: spec[part] for part in ("model", "training") if part in spec}
    return line.result(
        run,
        value=score.metrics["mse_scaled"],
        naive=naive,
        seed=seed,
        settings=settings,
        more={"origins": evaluation.count, "mase": round(score.metrics["mase"], 4)},
    )


def by_law(horizon: int, seed: int, only: list[str], *, save: bool) -> None:
    """A line for each law, one network each."""
    for law in only:
        found = once(declared(horizon, {**SPEC, **BY_LAW}, **LAWS[law]), seed)
        text = json.dumps({"law": law, "horizon": horizon, **found, "machine": line.machine()})
        print(text, flush=True)
        if save:
            with RESULTS.open("a") as file:
                file.write(text + "\n")


def table() -> str:
    """All laws, from the best at the shortest horizon on; the last line of each counts."""
    lines = [json.loads(text) for text in RESULTS.read_text().splitlines()]
    found = {(one["law"], one["horizon"]): one for one in lines}
    horizons = sorted({horizon for _, horizon in found})
    head = "".join(f" {h} h: MSE | parameters | training, s |" for h in horizons)
    rows = [f"| law |{head}", "|---|" + "---|---|---|" * len(horizons)]
    laws = sorted(
        {law for law, _ in found},
        key=lambda law: found.get((law, horizons[0]), {"value": 9.0})["value"],
    )
    for law in laws:
        own = (found.get((law, horizon)) for horizon in horizons)
        cells = (
            f" {one['value']:.3f} | {one['parameters']:,} | {one['seconds']:.0f} |"
            if one
            else " | | |"
            for one in own
        )
        rows.append(f"| {law} |{''.join(cells)}")
    machines = sorted({one["machine"] for one in found.values()})
    return "\n".join([*rows, "", *(f"Measured on: {one}." for one in machines)])


def rewrite() -> None:
    """Put the table between its two markers in README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--horizon", type=int, default=96, choices=TARGETS)
    parser.add_argument("--defaults", action="store_true", help="declare no model and no training")
    parser.add_argument("--laws", nargs="*", choices=LAWS, help="a line for each law, or for these")
    parser.add_argument("--save", action="store_true", help="keep the lines of the laws")
    parser.add_argument("--table", action="store_true", help="rewrite the table of the laws")
    said, words = parser.parse_known_args()
    spec = declared(said.horizon, {**SPEC, **FARTHER.get(said.horizon, {})})
    if said.defaults:
        spec = {"data": SPEC["data"], "outputs": {OUTPUT: DEFAULT | {"horizon": said.horizon}}}
    if said.table:
        rewrite()
    elif said.laws is not None:
        by_law(said.horizon, 0, said.laws or list(LAWS), save=said.save)
    else:
        kind = " defaults" if said.defaults else ""
        line.main(
            lambda seed: once(spec, seed),
            benchmark="ett_h1" + f"_{said.horizon}" * (said.horizon != 96) + kind,
            data="ETTh1, official split, all origins of the test part",
            task=f"forecast of 7 columns, horizon {said.horizon}",
            metric="MSE in units of the training standard deviation",
            target="" if said.defaults else TARGETS[said.horizon],
            words=words,
        )


if __name__ == "__main__":
    main()
