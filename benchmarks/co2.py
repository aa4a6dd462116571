"""Weekly CO2 at Mauna Loa, 26 weeks ahead: the record in statsmodels, with its missing weeks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import line

import segue


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed; the declaration is inferred."""
    package = find_spec("statsmodels")
    if package is None or package.origin is None:
        raise SystemExit("co2: statsmodels is not installed; pip install statsmodels")
    path = Path(package.origin).parent / "datasets" / "co2" / "co2.csv"
    declaration = segue.look(path, horizon=26).declaration
    run = segue.fit(declaration, path, training={"seed": seed})
    evaluation = run.evaluation
    score = evaluation.scores["co2"]
    naive = {name: metrics["mase"] for name, metrics in score.baselines.items()}
    value, coverage = score.metrics["mase"], score.metrics["coverage"]
    bound = naive["seasonal naive with drift"]
    return line.result(
        run,
        value=value,
        naive=naive,
        seed=seed,
        settings={},
        more={
            "coverage": round(coverage, 4),
            "target": f"< {bound:.4f}",
            "reached": value < bound and 0.7 <= coverage <= 0.9,
            "origins": evaluation.count,
        },
    )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="co2",
        data="weekly CO2 of statsmodels, the last 15 % of the weeks held out",
        task="forecast with a 10-90 % band, horizon 26",
        metric="MASE",
        target="< seasonal naive with drift, band covers 70-90 %",
    )
