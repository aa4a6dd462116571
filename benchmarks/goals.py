"""The numbers that the layers must reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Line: TypeAlias = dict[str, Any]
"""A line of results."""


@dataclass(frozen=True)
class Goal:
    """A number to reach.

    Attributes:
        what: in words.
        lines: which lines it is about: the allowed values of some of their fields.
        field: the figure, a field of a line or a path such as ``us.segue``.
        each: what no line may miss, such as ``>= 1.1``.
        mean: what the geometric mean over the lines may not miss; empty where nothing is asked.
        unit: said after a figure.
    """

    what: str
    lines: dict[str, tuple[Any, ...]]
    field: str
    each: str
    mean: str = ""
    unit: str = ""

    def must(self) -> str:
        """What must be reached, in words."""
        each = f"{self.each}{self.unit}"
        return f"geometric mean {self.mean}, each {each}" if self.mean else each

    def is_about(self, line: Line) -> bool:
        """Whether a line counts."""
        return all(line.get(name) in allowed for name, allowed in self.lines.items())

    def figure(self, line: Line) -> float:
        """The figure of a line."""
        value: Any = line
        for name in self.field.split("."):
            value = value[name]
        return float(value)


def plain(law: tuple[str, ...], mode: str) -> dict[str, tuple[Any, ...]]:
    """The lines of layers without options."""
    return {"case": ("plain",), "law": law, "mode": (mode,)}


def single(law: str) -> dict[str, tuple[Any, ...]]:
    """The lines of one step from 64 inputs to 128 hidden."""
    return {"case": ("single",), "law": (law,), "size": ([1, 1, 64, 128],)}


def on_amx(law: str) -> dict[str, tuple[Any, ...]]:
    """The lines of bfloat16 on processors that multiply its tiles."""
    return {"case": ("bfloat16",), "law": (law,), "amx": (True,)}


UNFUSED = ("GRU", "Elman")
"""What torch does not compute in one function."""
NORMED = "layer norm, zoneout and recurrent dropout, training"
SHARED = {
    "case": ("plain",),
    "mode": ("training",),
    "size": ([32, 100, 64, 128], [32, 100, 128, 256]),
}

GOALS = (
    Goal(
        "GRU and Elman, forward: best peer over ours",
        plain(UNFUSED, "forward"),
        field="ratio",
        each=">= 1.0",
        mean=">= 2.0",
    ),
    Goal(
        "GRU and Elman, training: best peer over ours",
        plain(UNFUSED, "training"),
        field="ratio",
        each=">= 1.1",
        mean=">= 2.4",
    ),
    Goal(
        "LSTM, forward: best peer over ours",
        plain(("LSTM",), "forward"),
        field="ratio",
        each=">= 0.97",
        mean=">= 1.3",
    ),
    Goal(
        "LSTM, training: best peer over ours",
        plain(("LSTM",), "training"),
        field="ratio",
        each=">= 0.97",
        mean=">= 1.45",
    ),
    Goal(
        f"{NORMED}: ours over our plain cell",
        {"case": ("layer_norm",)},
        field="over_plain",
        each="<= 1.35",
    ),
    Goal(f"{NORMED}: eager loop over ours", {"case": ("layer_norm",)}, field="ratio", each=">= 8"),
    Goal(
        "unequal lengths, training: torch padded over ours",
        {"case": ("ragged",)},
        field="over_padded",
        each=">= 2",
    ),
    Goal(
        "unequal lengths, training: PackedSequence over ours",
        {"case": ("ragged",)},
        field="over_packed",
        each=">= 9",
    ),
    Goal(
        "a reset in one of 50 steps, training: with over without",
        {"case": ("resets",)},
        field="over_plain",
        each="<= 1.1",
    ),
    Goal(
        "the same over unequal lengths",
        {"case": ("ragged",)},
        field="resets.over_plain",
        each="<= 1.1",
    ),
    Goal(
        "bfloat16 on AMX, LSTM, H >= 256, training: torch's bfloat16 over ours",
        on_amx("LSTM"),
        field="ratio",
        each=">= 1.3",
    ),
    Goal(
        "bfloat16 on AMX, GRU, H >= 256, training: torch's bfloat16 over ours",
        on_amx("GRU"),
        field="ratio",
        each=">= 2.5",
    ),
    Goal(
        "one step from Python, LSTM 64 -> 128",
        single("LSTM"),
        field="us.segue",
        each="<= 7",
        unit=" us",
    ),
    Goal(
        "one step from Python, GRU 64 -> 128",
        single("GRU"),
        field="us.segue",
        each="<= 6",
        unit=" us",
    ),
    Goal(
        "one step from Python, H = 64, 128, 256: ONNX Runtime over ours",
        {"case": ("single",)},
        field="over_onnxruntime",
        each=">= 2",
    ),
    Goal(
        "1,000 sessions as one batch, GRU 64 -> 128: session-steps in a second",
        {"case": ("sessions",)},
        field="steps_per_second.segue",
        each=">= 500000",
    ),
    Goal(
        "share of the float32 matrix peak, training, (32, 100, 64, 128) and (32, 100, 128, 256)",
        SHARED,
        field="share",
        each=">= 0.75",
    ),
    Goal(
        "memory of training above inputs and outputs, T = 100,000, H = 128, checkpoint sqrt",
        {"case": ("memory",), "checkpoint": ("sqrt",), "size": ([1, 100_000, 128, 128],)},
        field="extra_mb",
        each="<= 64",
        unit=" MB",
    ),
    Goal(
        "import of segue and its layers after import of torch",
        {"case": ("import",)},
        field="seconds.with_layers",
        each="< 0.15",
        unit=" s",
    ),
)
