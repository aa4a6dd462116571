"""`html`: the report as one page that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from segue.report import calls, scores
from segue.report.charts import (
    ACCENT,
    GREY,
    PALE,
    Trace,
    chart,
    code,
    legend,
    line,
    log_axis,
    number,
    paragraph,
    table,
    upright,
)
from segue.report.pictures import PICTURES
from segue.schema import Declaration, Output
from segue.tasks import TASKS
from segue.train import Epoch

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""The browser itself refuses every request to a network."""
INPUT_HEADER = ["input", "columns", "kind", "given", "learnt from the training part"]
NO_INPUTS = "None besides the past of what is forecast."
ROLES = {
    "step": "at every step",
    "static": "once per sequence",
    "apart": "a sequence of its own",
    "known": "at every step, known ahead",
}


def html(
    declaration: Declaration,
    facts: Mapping[str, Any],
    history: Sequence[Epoch],
    digest: dict[str, Any] | None,
) -> str:
    """The report: what was learnt from what, how good it is, pictures, and how to call the model.

    Args:
        facts: sizes of the training, as `segue.run.records` gives them.
        history: the looks at the validation part.
        digest: what `digest` gave; None where nothing is known of the answers.
    """
    digest = digest or {}
    sections = [
        ("data", "Data", _data(declaration, facts, digest)),
        ("scores", "Scores", _scores(declaration, facts, digest)),
        ("learning", "Learning", _learning(history)),
        *_pictures(digest),
        (
            "calling",
            "Calling the model",
            calls.draw(declaration, str(facts["origin"]), digest.get("call")),
        ),
        ("declaration", "Declaration", code(declaration.to_yaml())),
    ]
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{escape(title)}</h2>{content}</section>'
        for anchor, title, content in sections
    )
    title = _title(declaration)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_beside('style.css')}</style></head><body>"
        f'<header><p class="name">segue</p><h1>{escape(title)}</h1>'
        f"{_headline(facts, digest)}<nav>{links}</nav></header><main>{body}</main>"
        "<footer>This page is complete in itself and loads nothing from anywhere.</footer>"
        "<noscript><p>The charts need JavaScript.</p></noscript>"
        f"<script>{get_plotlyjs()}</script><script>{_beside('page.js')}</script></body></html>\n"
    )


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _title(declaration: Declaration) -> str:
    names = []
    for name, spec in declaration.outputs.items():
        horizon = getattr(spec, "horizon", "")
        phrase = TASKS[spec.task].title
        names.append(phrase.replace("{name}", name).replace("{horizon}", str(horizon)))
    first = names[0]
    return first if len(names) == 1 else f"{first}, and {len(names) - 1} more"


def _headline(facts: Mapping[str, Any], digest: dict[str, Any]) -> str:
    """What was learnt from what, and one sentence per output on whether it was worth it."""
    steps = facts["steps"]["train"]
    lead = (
        f"Learnt from {steps:,} steps of {facts['origin']}: a network of {facts['parameters']:,}"
        f" numbers, trained in {_duration(facts['seconds'])}."
    )
    parts = [paragraph(lead, "lead")]
    if not digest.get("scores"):
        text = "Nothing was held out, so nobody knows how good it is on data that it has not seen."
        return "".join(parts) + f'<div class="verdict"><strong>{text}</strong></div>'
    for name, score in digest["scores"].items():
        good, sentence = scores.verdict(score)
        share = digest["pictures"].get(name, {}).get("share")
        sentence += scores.banded(score, share)
        output = f"{name}: " if len(digest["scores"]) > 1 else ""
        parts.append(
            f'<div class="verdict {"yes" if good else "no"}">'
            f"<strong>{escape(output + sentence)}</strong>"
            f'<span class="note">Scored on {escape(digest["scope"])}.</span></div>'
        )
    return "".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g}\u00a0s" if seconds < 10 else f"{seconds:.0f}\u00a0s"
    return f"{seconds / 60:.0f}\u00a0min"


def _data(declaration: Declaration, facts: Mapping[str, Any], digest: dict[str, Any]) -> str:
    steps = facts["steps"]
    figures = [
        (number(facts["sequences"]), "sequence" if facts["sequences"] == 1 else "sequences"),
        (number(steps["train"]), "steps to learn from"),
        (number(steps["valid"]), "steps to choose the epoch"),
        (number(steps["test"]), "steps for the score"),
    ]
    shown = "".join(f"<div><b>{value}</b><span>{text}</span></div>" for value, text in figures)
    rows = digest.get("inputs") or [
        {"name": name, "kind": spec.kind, "role": spec.role, "columns": 1, "learnt": ""}
        for name, spec in declaration.inputs.items()
    ]
    inputs = [
        [
            row["name"],
            row["columns"],
            row["kind"].replace("_", " "),
            ROLES[row["role"]],
            row["learnt"],
        ]
        for row in rows
    ]
    outputs = [[name, spec.task, _options(spec)] for name, spec in declaration.outputs.items()]
    return (
        f"<p>From <strong>{escape(str(facts['origin']))}</strong>.</p>"
        f'<div class="figures">{shown}</div>'
        + "<h3>Inputs</h3>"
        + (table(INPUT_HEADER, inputs) if inputs else paragraph(NO_INPUTS))
        + "<h3>Outputs</h3>"
        + table(["output", "task", "options"], outputs)
    )


def _options(spec: Output) -> str:
    options = spec.model_dump(exclude={"task"})
    return ", ".join(f"{name}: {_option(value)}" for name, value in options.items()) or "none"


def _option(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _scores(declaration: Declaration, facts: Mapping[str, Any], digest: dict[str, Any]) -> str:
    if not digest.get("scores"):
        return paragraph(
            "Nothing was held out, so there are no scores. Hold out a part (data.split), or run"
            " `segue evaluate` on data that the model has not seen."
        )
    parts = [paragraph(f"On {digest['scope']}: {digest['count']:,} predictions.")]
    if not facts["steps"]["test"]:
        parts.append(
            paragraph(
                "This part also chose the epoch that was kept, which flatters a little.", "note"
            )
        )
    for name, score in digest["scores"].items():
        parts.append(f"<h3>{escape(name)}</h3>" if len(digest["scores"]) > 1 else "")
        picture = digest["pictures"].get(name, {})
        columns = len(picture.get("columns", ())) or 1
        parts.append(scores.draw(score, declaration.outputs[name], columns, name))
    return "".join(parts)


def _learning(history: Sequence[Epoch]) -> str:
    """Losses and learning rate by epoch, and the epoch whose weights were kept."""
    kept = max((look.epoch for look in history if look.best), default=history[-1].epoch)
    epochs = [look.epoch + 1 for look in history]
    valid = [look.valid_loss for look in history]
    mode = "lines+markers" if len(history) <= 20 else "lines"
    traces: list[Trace] = [
        line(epochs, [look.train_loss for look in history], "training", GREY, mode=mode),
        line(epochs, valid, "validation", ACCENT, mode=mode),
        line(epochs, [look.learning_rate for look in history], "learning rate", PALE, mode=mode)
        | {"yaxis": "y2"},
    ]
    entries = [("past", "training loss")]
    if any(loss is not None for loss in valid):
        lowest = number(next(look.valid_loss for look in history if look.epoch == kept))
        told = (
            f"Epoch {kept + 1} of {epochs[-1]} was kept: its validation loss, {lowest}, is lowest."
        )
        entries.append(("model", "validation loss; the dotted line marks the epoch that was kept"))
    else:
        told = f"There is no validation part, so the last epoch, {kept + 1}, was kept."
    return (
        paragraph(told)
        + legend(entries)
        + chart("", traces, _learning_layout(history, kept + 1), 380)
    )


def _learning_layout(history: Sequence[Epoch], kept: int) -> dict[str, Any]:
    """Losses above, the learning rate below, and a line at the epoch that was kept."""
    losses = [loss for look in history for loss in (look.train_loss, look.valid_loss) if loss]
    wide = bool(losses) and min(losses) > 0 and max(losses) > 8 * min(losses)
    loss = log_axis("loss", losses) if wide else {"title": {"text": "loss"}}
    rate = {"title": {"text": "rate"}, "rangemode": "tozero", "nticks": 3}
    every = {"tick0": 1, "dtick": 1} if history[-1].epoch < 10 else {}
    return {
        "xaxis": {"title": {"text": "epoch"}, "anchor": "y2", **every},
        "yaxis": {**loss, "domain": [0.34, 1]},
        "yaxis2": {**rate, "domain": [0, 0.22]},
        "shapes": [upright(kept)],
    }


def _pictures(digest: dict[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for index, (name, picture) in enumerate(digest.get("pictures", {}).items()):
        task = digest["scores"][name]["task"]
        title = f"Answers: {name}"
        content = PICTURES[task].draw(picture)
        left = len(digest["scores"]) - len(digest["pictures"])
        if left and index == len(digest["pictures"]) - 1:
            content += paragraph(f"{left} more outputs have scores but no pictures here.", "note")
        found.append((f"answers-{index + 1}", title, content))
    return found
