"""Rewrite the tables of the layers in README.md from the lines of layers, ragged and step.

Of several lines of one case, the last one counts, among those with the most threads.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from goals import GOALS, Goal, Line
from line import reached

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
README = HERE / "README.md"
BEGIN, END = "<!-- layers: begin -->", "<!-- layers: end -->"
IDENTITY = ("benchmark", "case", "law", "mode", "size", "checkpoint")


def latest(folder: Path) -> list[Line]:
    """The lines that count."""
    found = [
        json.loads(text)
        for name in ("layers", "ragged", "step")
        if (folder / f"{name}.jsonl").exists()
        for text in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    most = max((line["threads"] for line in found), default=0)
    widest = [line for line in found if line["threads"] == most]
    by_identity = {json.dumps([line.get(name) for name in IDENTITY]): line for line in widest}
    return list(by_identity.values())


def judged(goal: Goal, lines: list[Line]) -> list[str]:
    """The row of a goal."""
    own = sorted((line for line in lines if goal.is_about(line)), key=goal.figure)
    if not own:
        return [goal.what, goal.must(), "not measured", ""]
    values = [goal.figure(line) for line in own]
    worst = 0 if goal.each.startswith(">") else -1
    text, is_reached = f"{digits(values[worst])}{goal.unit}", reached(values[worst], goal.each)
    if len(own) > 1:
        text = f"worst of {len(own)}: {text} ({of(own[worst])})"
    if goal.mean:
        mean = statistics.geometric_mean(values)
        text, is_reached = f"mean {mean:.3g}, {text}", is_reached and reached(mean, goal.mean)
    return [goal.what, goal.must(), text, "yes" if is_reached else "**no**"]


def of(line: Line) -> str:
    """The law and size of a line."""
    size = str(tuple(line["size"])) if "size" in line else ""
    return f"{line.get('law', '')} {size}".strip()


def digits(value: float) -> str:
    """Four digits, or whole thousands with commas."""
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def least(times: dict[str, float], prefixes: tuple[str, ...]) -> str:
    """The fastest of the contestants whose names begin so; empty where there is none."""
    own = [one for name, one in times.items() if name.startswith(prefixes)]
    return digits(min(own)) if own else ""


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table, and an empty line after it; nothing for no rows."""
    if not rows:
        return []
    text = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*text, *(f"| {' | '.join(row)} |" for row in rows), ""]


def plain(lines: list[Line]) -> list[str]:
    """The layers against their peers."""
    rows = []
    for line in lines:
        ms = line["ms"]
        peers = [least(ms, names) for names in (("torch",), ("jax", "flax"), ("onnx",))]
        speed = f"{line['gflops']:.0f} ({100 * line['share']:.0f} %)"
        rows.append(
            [line["law"], line["mode"], str(tuple(line["size"])), digits(ms["segue"]), *peers]
        )
        rows[-1] += [f"{line['ratio']:.3g}", speed]
    head = ["law", "mode", "B, T, I, H", "segue, ms", "torch", "JAX", "ONNX Runtime"]
    return table([*head, "best peer / ours", "GFLOP/s (of peak)"], rows)


def timed(lines: list[Line], unit: str) -> list[str]:
    """Each line with all its contestants."""
    rows = [
        [
            line["case"],
            of(line),
            "; ".join(f"{name} {digits(one)}" for name, one in line[unit].items()),
        ]
        for line in lines
    ]
    return table(["case", "law, size", f"{unit} by contestant"], rows)


def sections(lines: list[Line]) -> Iterator[str]:
    """All tables, and the machines they were made on."""
    goals = [judged(goal, lines) for goal in GOALS]
    yield from table(["what", "must reach", "measured", "reached"], goals)
    yield from plain([line for line in lines if line["case"] == "plain"])
    for unit in ("ms", "us"):
        yield from timed([one for one in lines if unit in one and one["case"] != "plain"], unit)
    peaks = sorted({one["peak"]["gflops"] for one in lines if "peak" in one})
    if peaks:
        yield f"Matrix peak: {', '.join(f'{one:.0f}' for one in peaks)} GFLOP/s."
    for made in sorted({made_on(line) for line in lines}):
        yield f"Measured on: {made}."


def made_on(line: Line) -> str:
    """The machine and the versions."""
    versions = ", ".join(f"{name} {one}" for name, one in line["versions"].items())
    return f"{line['machine']}; {line['benchmark']}: {line['rounds']} rounds, {versions}"


def rewritten(readme: str, lines: list[Line]) -> str:
    """The README with the tables between their markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}", *sections(lines), f"{END}{after}"])


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(), latest(RESULTS)))
