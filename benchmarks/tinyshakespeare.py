"""The next character of Shakespeare, scored on the last tenth of the text."""

from __future__ import annotations

from typing import Any

import line

import segue

SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "time", "valid": 0, "test": 0.1}},
    "inputs": {"text": {"kind": "text"}},
    "outputs": {"text": {"task": "next"}},
}
SETTINGS: dict[str, Any] = {
    "model": {"cell": "lstm", "hidden": 384, "dropout": 0.1},
    "training": {"epochs": 5, "learning_rate": 4e-3},
}


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed."""
    spec = {**SPEC, "model": SETTINGS["model"], "training": {**SETTINGS["training"], "seed": seed}}
    run = segue.fit(spec, line.DATA / "tinyshakespeare" / "input.txt")
    score = run.evaluation.scores["text"]
    naive = {name: metrics["nll"] for name, metrics in score.baselines.items()}
    return line.result(
        run,
        value=score.metrics["nll"],
        naive=naive,
        seed=seed,
        settings=SETTINGS,
        more={"accuracy": round(score.metrics["accuracy"], 4)},
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="tinyshakespeare",
        data="last 10 % of the characters held out",
        task="next character",
        metric="nats per character",
        target="<= 1.70",
    )
