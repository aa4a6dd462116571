"""What a person sees in a terminal: the progress of a training, and scores as a table."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from segue.evaluate import Evaluation, Score
from segue.run import Run
from segue.train import Epoch, Record, Started, Update


def watch(training: Generator[Record, None, Run]) -> Run:
    """Run a training to its end, with a progress bar on a terminal, elsewhere in plain lines.

    There is a line for each look at the validation part.
    """
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        return _in_lines(training)
    columns = (
        BarColumn(20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("reading the data", total=1)
        return _in_a_bar(training, progress, task)


def started_line(started: Started) -> str:
    """What the training works on, in one line, and remarks below it."""
    parts = started.steps
    text = f"training: {parts['train']:,} steps"
    if parts["valid"]:
        text += f", {parts['valid']:,} more to choose the best epoch"
    if parts["test"]:
        text += f", {parts['test']:,} held out for the score"
    if started.skipped:
        text += f", {started.skipped:,} rows left out that could not be read"
    text += f"; {started.parameters:,} weights, {started.updates:,} updates"
    return "\n".join([text, *started.remarks])


def epoch_line(epoch: Epoch, epochs: int | None) -> str:
    """A look at the validation part in one line."""
    text = f"epoch {epoch.epoch + 1} of {epochs}: loss {epoch.train_loss:.4g}"
    if epoch.valid_loss is not None:
        best = " (best so far)" if epoch.best else ""
        text += f", validation {epoch.valid_loss:.4g}{best}"
    return f"{text}, {epoch.seconds:.1f} s"


def score_text(evaluation: Evaluation) -> str:
    """Per output the scores beside those of the naive answers, and what that says in a sentence."""
    lines = [f"{evaluation.count:,} predictions on {evaluation.scope}", *evaluation.remarks]
    for name, score in evaluation.scores.items():
        lines += ["", *_table(score), "", verdict(name, score)]
    return "\n".join(lines)


def verdict(name: str, score: Score) -> str:
    """Whether the model beats the best naive answer, in one sentence."""
    best = score.best_baseline
    ours, theirs = score.metrics[score.main], score.baselines[best][score.main]
    word = "better" if score.beats_naive else "NOT better"
    return (
        f"{name}: {score.main} {ours:.3f}, {word} than the best naive answer ({best}, {theirs:.3f})"
    )


def _table(score: Score) -> list[str]:
    """The answers as rows under the metrics, the main one first; * marks the best by it."""
    answers = {"model": score.metrics, **score.baselines}
    names = dict.fromkeys(name for metrics in answers.values() for name in metrics)
    metrics = [score.main, *(name for name in names if name != score.main)]
    best = score.best_baseline if not score.beats_naive else "model"
    rows = [["", *metrics]]
    for answer, found in answers.items():
        cells = [f"{found[name]:.4g}" if name in found else "" for name in metrics]
        rows.append([answer + (" *" if answer == best else ""), *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]


class _Records:
    """The records of a training, to be iterated over; what it returns is then in `run`."""

    run: Run

    def __init__(self, training: Generator[Record, None, Run]) -> None:
        self._training = training

    def __iter__(self) -> Iterator[Record]:
        self.run = yield from self._training


def _in_lines(training: Generator[Record, None, Run]) -> Run:
    records, epochs = _Records(training), None
    for record in records:
        match record:
            case Started():
                epochs = record.declaration.training.epochs
                print(started_line(record), flush=True)
            case Epoch():
                print(epoch_line(record, epochs), flush=True)
    return records.run


def _in_a_bar(training: Generator[Record, None, Run], progress: Progress, task: TaskID) -> Run:
    records, epochs, loss, valid = _Records(training), None, "", ""
    for record in records:
        match record:
            case Started():
                epochs = record.declaration.training.epochs
                progress.console.print(started_line(record))
            case Update():
                loss = f"epoch {record.epoch + 1}/{epochs}  loss {record.loss:.3g}"
                progress.update(task, completed=record.progress, description=loss + valid)
            case Epoch() if record.valid_loss is not None:
                valid = f"  validation {record.valid_loss:.3g}"
                progress.update(task, description=loss + valid)
    progress.update(task, completed=1)
    return records.run
