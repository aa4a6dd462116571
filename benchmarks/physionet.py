"""Mortality in intensive care from sparse measurements at uneven times (PhysioNet 2012, set A).

Events and a table of patients, as two tables: 80 % of the stays train, 20 % test, by a split of the
seed. What was measured more than once within four hours is its mean: at most 13 steps remain. The
answer is the mean of five networks, each of which has another 15 % of the training
stays to choose its epoch by, so that none is lost to learning. Beside it stands a logistic
regression on the last value of everything that was measured, whether it was, and the table of
patients.
"""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import line
import numpy as np
import polars as pl
import torch
import yaml
from numpy.typing import NDArray

import segue
from segue.fields.number import scale_of

FOLDER = line.DATA / "physionet2012_set_a"
SPEC = Path(__file__).parents[1] / "examples" / "intensive_care.yaml"
ONCE = ("Age", "Gender", "Height", "ICUType")
NETWORKS, HOURS = 5, 4


@cache
def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events (stay, hours, what, value) and patients."""
    frames = []
    with tarfile.open(FOLDER / "set-a.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".txt") else None
            if file is not None:
                frame = pl.read_csv(file.read(), schema_overrides={"Value": pl.Float64})
                frames.append(frame.with_columns(stay=pl.lit(Path(member.name).stem)))
    rows = pl.concat(frames).filter((pl.col("Value") >= 0) & (pl.col("Parameter") != "RecordID"))
    clock = pl.col("Time").str.split(":")
    hours = clock.list.get(0).cast(pl.Float64) + clock.list.get(1).cast(pl.Float64) / 60
    rows = rows.select("stay", hours=hours, what="Parameter", value="Value")
    at_first = rows.filter(pl.col("hours") == 0)
    once = at_first.filter(pl.col("what").is_in([*ONCE, "Weight"]))
    patients = once.pivot("what", index="stay", values="value", aggregate_function="first")
    patients = patients.rename({"Weight": "Weight_at_admission"})
    outcomes = pl.read_csv(FOLDER / "Outcomes-a.txt").select(
        stay=pl.col("RecordID").cast(pl.String),
        died=pl.when(pl.col("In-hospital_death") == 1).then(pl.lit("yes")).otherwise(pl.lit("no")),
    )
    events = rows.filter(~pl.col("what").is_in(ONCE)).sort("stay", "hours", maintain_order=True)
    known = outcomes.filter(pl.col("stay").is_in(events["stay"].unique().implode()))
    return events, known.join(patients, on="stay", how="left", maintain_order="left")


def coarse(events: pl.DataFrame) -> pl.DataFrame:
    """One row for all values of a kind within HOURS, at their beginning."""
    found = events.group_by("stay", pl.col("hours") // HOURS * HOURS, "what", maintain_order=True)
    return found.agg(pl.col("value").mean()).sort("stay", "hours", maintain_order=True)


def auc(score: NDArray[np.float64], died: NDArray[np.bool_]) -> float:
    """The share of pairs, one of which died, that are in the right order; ties count half."""
    ranks = pl.Series(score).rank("average").to_numpy()
    positive = int(died.sum())
    wins = ranks[died].sum() - positive * (positive + 1) / 2
    return float(wins / (positive * (len(died) - positive)))


def last_values(events: pl.DataFrame, patients: pl.DataFrame) -> NDArray[np.float64]:
    """The last value of everything, NaN where it was never measured, and the patients' table."""
    last = events.group_by("stay", "what", maintain_order=True).agg(pl.col("value").last())
    wide = last.pivot("what", index="stay", values="value")
    wide = wide.select("stay", *sorted(c for c in wide.columns if c != "stay"))
    both = patients.drop("died").join(wide, on="stay", how="left", maintain_order="left")
    return both.drop("stay").to_numpy().astype(np.float64)


def logistic(train: NDArray[np.float64], died: NDArray[np.bool_], test: NDArray[np.float64]) -> Any:
    """Logistic regression with a little L2, on standardised values and flags."""
    mean = np.nanmean(train, 0)
    scale = np.array([scale_of(s, 0.0) for s in np.nanstd(train, 0)])

    def features(x: NDArray[np.float64]) -> torch.Tensor:
        values = np.clip(np.nan_to_num((x - mean) / scale), -5, 5)
        return torch.from_numpy(np.hstack([values, np.isnan(x)])).float()

    x, y = features(train), torch.from_numpy(died).float()
    w = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ w[1:] + w[0], y)
        loss = loss + 1e-3 * w[1:].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return (features(test) @ w[1:] + w[0]).double().numpy()


def once(seed: int) -> dict[str, Any]:
    """Train and score with one seed, which draws the splits too."""
    events, patients = tables()
    order = np.random.default_rng(seed).permutation(patients.height)
    cut = int(0.8 * patients.height)
    chosen = np.sort(order[:cut]), np.sort(order[cut:])
    train, test = (patients[rows] for rows in chosen)
    parts = {}
    for name, people in (("train", train), ("test", test)):
        own = events.filter(pl.col("stay").is_in(people["stay"].implode()))
        parts[name] = {"events": coarse(own), "patients": people}
    spec = yaml.safe_load(SPEC.read_text())
    settings = {section: spec[section] for section in ("model", "training")}
    said, seconds = [], 0.0
    for network in range(NETWORKS):
        spec["training"]["seed"] = NETWORKS * seed + network
        run = segue.fit(spec, parts["train"])
        told = run.predict(parts["test"])
        told = test.join(told, on="stay", how="left", maintain_order="left", suffix="_said")
        said.append(told["died_p_yes"].to_numpy())
        seconds += run.facts["seconds"]
    true = (test["died"] == "yes").to_numpy()
    alone = [auc(one, true) for one in said]
    rows = [last_values(events, people) for people in (train, test)]
    died = [(people["died"] == "yes").to_numpy() for people in (train, test)]
    naive = {"last values": auc(logistic(rows[0], died[0], rows[1]), died[1])}
    found = line.result(
        run,
        value=auc(np.mean(said, 0), true),
        naive=naive,
        seed=seed,
        settings={**settings, "networks": NETWORKS, "hours": HOURS},
        more={"one network alone": round(float(np.mean(alone)), 4)},
    )
    return {**found, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    line.main(
        once,
        benchmark="physionet",
        data="PhysioNet 2012 set A, 80/20 by record",
        task="classify, uneven times",
        metric="AUC",
        target=">= 0.83",
    )
