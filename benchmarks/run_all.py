"""Run every benchmark, each in its own process, and rewrite the table in README.md.

With ``--only`` some rows are run and the figures of the others stay; with ``--table`` none is run,
and the table is made from results/main.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "main.jsonl"
README = HERE / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
LIMIT = 3600
"""Seconds that a row may take before it is ended."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: as its lines call themselves.
        command: what follows ``python benchmarks/``.
        reference: figures of others, in words.
        digits: shown after the point.
    """

    name: str
    command: str
    reference: str
    digits: int = 3


ROWS = (
    Row("co2", "co2.py --seeds 3", ""),
    Row("JapaneseVowels", "ucr.py JapaneseVowels --seeds 3", "1-NN 0.916"),
    Row("ItalyPowerDemand", "ucr.py ItalyPowerDemand --seeds 3", "1-NN 0.955"),
    Row("BasicMotions", "ucr.py BasicMotions --seeds 5", "1-NN 0.600"),
    Row("ett_h1", "ett_h1.py --seeds 3", "DLinear 0.375, Informer 0.865 (published)"),
    Row("ett_h1_336", "ett_h1.py --horizon 336 --seeds 3", "DLinear 0.439 (published)"),
    Row("m4_hourly", "m4_hourly.py --seeds 2", "competition winner 9.33 (published)", 2),
    Row("cmapss_fd001", "cmapss_fd001.py --seeds 3", "LSTM 16.14 (published)", 2),
    Row("tinyshakespeare", "tinyshakespeare.py --seeds 1", "small transformer 1.88 (published)"),
    Row("jsb_chorales", "jsb_chorales.py --seeds 3", "LSTM 8.45 (published)"),
    Row("surnames", "surnames.py --seeds 3", ""),
    Row("fsdd", "fsdd.py --seeds 3", "small convolutional nets 0.97 to 0.99 (published)"),
    Row("snips", "snips.py --seeds 3", "slot-gated BiLSTM 0.88 to 0.89 (published, another split)"),
    Row("fsdd_strings", "fsdd_strings.py --seeds 3", ""),
    Row("harvard", "harvard.py --seeds 3", ""),
    Row(
        "nab",
        "nab.py --seeds 3",
        "KNN-CAD 52.5, Numenta HTM 69.5, ARTime 73.5 (published results on these files)",
        1,
    ),
    Row("two_digits", "two_digits.py --seeds 3", ""),
    Row("physionet", "physionet.py --seeds 5", "GRU-D 0.84 (published, five folds)"),
    Row("adding", "adding.py --seeds 3", "", 4),
    Row("multi30k", "multi30k.py --seeds 2", "", 2),
    Row("scitldr", "scitldr.py --seeds 3", "CATTS, pretrained: ROUGE-1 43.8 (published)", 2),
    Row("mnist_rows", "mnist_rows.py --seeds 3", ""),
    Row("mnist_pixels", "mnist_pixels.py --seeds 3", ""),
    Row("moving_digits", "moving_digits.py --seeds 3", ""),
    Row("video_clips", "video_clips.py --seeds 1", ""),
)


def run(row: Row) -> str:
    """Run a row, keep its lines, and say how it went."""
    began = time.perf_counter()
    command = [sys.executable, *row.command.split()]
    command[1] = str(HERE / command[1])
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{row.name}: ended after {LIMIT} s"
    if done.returncode:
        return f"{row.name}: failed with exit code {done.returncode}"
    keep([json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")])
    return f"{row.name}: done in {time.perf_counter() - began:.0f} s"


def lines() -> list[dict[str, Any]]:
    """All kept lines."""
    if not RESULTS.exists():
        return []
    return [json.loads(text) for text in RESULTS.read_text().splitlines()]


def keep(new: list[dict[str, Any]]) -> None:
    """Put new lines in the place of the old ones of the same benchmark, in the table's order."""
    names = [row.name for row in ROWS]
    fresh = {one["benchmark"] for one in new}
    kept = [one for one in lines() if one["benchmark"] not in fresh] + new
    kept.sort(key=lambda one: names.index(one["benchmark"]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(json.dumps(one) + "\n" for one in kept))


def table() -> str:
    """The table and the machines that it was made on."""
    found = lines()
    head = ("data", "task", "metric", "must reach", "reached: median (worst)", "simpler answers")
    head += ("training, s", "seeds", "declared beyond data, inputs and outputs", "command")
    text = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in ROWS:
        own = [one for one in found if one["benchmark"] == row.name and "summary" not in one]
        text.append("| " + " | ".join(cells(row, own) if own else absent(row)) + " |")
    made = sorted(
        {f"{one['machine']}; segue {one['segue']}, torch {one['torch']}" for one in found}
    )
    return "\n".join([*text, "", *(f"Measured on: {one}." for one in made)])


def absent(row: Row) -> list[str]:
    """The cells of a row that was not run."""
    return [row.name, "not run", *[""] * 7, f"`python benchmarks/{row.command}`"]


def cells(row: Row, own: list[dict[str, Any]]) -> list[str]:
    """The cells of a row."""
    first = own[0]
    values = sorted(one["value"] for one in own)
    worst = values[0] if first["target"][:1] in ("", ">") else values[-1]
    middle, count = statistics.median(values), sum(one["reached"] for one in own)
    mark = "" if count == len(own) else f", {count} of {len(own)} seeds reach it"
    seconds = sorted(one["seconds"] for one in own)
    return [
        row.name,
        first["task"],
        first["metric"],
        first["target"] or "(reported)",
        f"**{middle:.{row.digits}f}** ({worst:.{row.digits}f}){mark}" + "".join(extra(own)),
        "; ".join(simpler(row, own)),
        f"{statistics.median(seconds):.0f} ({seconds[-1]:.0f})",
        ", ".join(str(one["seed"]) for one in own),
        f"`{json.dumps(first['settings'])}`" if first["settings"] else "nothing",
        f"`python benchmarks/{row.command}`",
    ]


def extra(own: list[dict[str, Any]]) -> Iterator[str]:
    """Other figures of a row, as the median over its seeds."""
    for name, words in (
        ("coverage", "band covers"),
        ("against_uncapped_truth", "against uncapped truth"),
        ("accuracy", "accuracy"),
        ("intent_accuracy", "accuracy of intents"),
        ("exact", "whole strings right"),
        ("mase", "MASE"),
        ("chrf", "chrF"),
        ("at_learnt_thresholds", "at thresholds learnt from the probation"),
        ("bleu_2017", "BLEU on test_2017_flickr"),
        ("rouge1_model", "ROUGE-1"),
        ("rouge1_lead", "against the lead's"),
        ("rouge2_model", "ROUGE-2"),
        ("rouge2_lead", "against the lead's"),
    ):
        if name in own[0]:
            yield f"; {words} {statistics.median(one[name] for one in own):.3f}"


def simpler(row: Row, own: list[dict[str, Any]]) -> Iterator[str]:
    """The naive answers, as the median over the seeds, and the figures of others."""
    for name in own[0]["naive"]:
        value = statistics.median(one["naive"][name] for one in own)
        yield f"{name} {value:.{row.digits}f}"
    if row.reference:
        yield row.reference


def rewrite() -> None:
    """Put the table between its two markers in README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


def main() -> int:
    """Run the rows that were asked for; exit code 1 if one of them failed."""
    parser = argparse.ArgumentParser(description="run the benchmarks and rewrite their table")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="NAME")
    parser.add_argument("--table", action="store_true", help="rewrite the table only")
    said = parser.parse_args()
    words = []
    for row in ROWS if not said.table else ():
        if said.only is None or row.name in said.only:
            words.append(run(row))
            print(words[-1], flush=True)
            rewrite()
    rewrite()
    return int(any(": done in " not in word for word in words))


if __name__ == "__main__":
    sys.exit(main())
