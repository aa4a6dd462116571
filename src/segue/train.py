"""Training: `fit` is a generator of plain records; its caller prints, collects or forwards them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from segue import language, ops
from segue.cells import LawCell
from segue.checkpoint import BAD_BATCH
from segue.clock import Clock
from segue.conformal import calibrate, refuse_without
from segue.data.build import build, fields_of, tasks_of
from segue.data.order import draws
from segue.data.read import Table
from segue.data.split import refuse_short, split, with_split
from segue.data.store import Batch, Pieces, Store, apart_steps, batches, tiles, without
from segue.defaults import completed
from segue.errors import DataError, SpecError, TrainingError
from segue.fields import Field
from segue.fields.number import Number
from segue.fields.vector import Vector
from segue.model import Network, NetworkState
from segue.schema import Clip, Declaration, Training
from segue.sequences import Part, Sequences, spans
from segue.tasks import NextFrame, Task
from segue.trained import Trained


@dataclass(frozen=True)
class Started:
    """The declaration with nothing left to infer, and the sizes of what follows.

    Attributes:
        declaration: as it will be saved.
        sequences: how many there are, of all parts.
        steps: of the parts train, valid and test.
        parameters: weights of the network.
        updates: steps of the optimiser, if training does not stop early.
        until: the last time in the training part; None where there is no time.
        skipped: examples that could not be read and were left out, as the declaration allows.
        remarks: lines on what of the training part was left out or is unknown.
    """

    declaration: Declaration
    sequences: int
    steps: dict[str, int]
    parameters: int
    updates: int
    until: float | None
    skipped: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """One step of the optimiser.

    Attributes:
        epoch: counted from 0.
        loss: of the batch, before the step.
        learning_rate: of the step.
        progress: from 0 to 1 over the whole training.
    """

    epoch: int
    loss: float
    learning_rate: float
    progress: float


@dataclass(frozen=True)
class Epoch:
    """A look at the validation part.

    Attributes:
        epoch: counted from 0.
        train_loss: mean over the updates of the epoch, with dropout.
        valid_loss: without dropout; None where there is no validation part.
        learning_rate: of the last update.
        seconds: since training began.
        best: these weights are kept so far.
    """

    epoch: int
    train_loss: float
    valid_loss: float | None
    learning_rate: float
    seconds: float
    best: bool


Record: TypeAlias = Started | Update | Epoch
Window: TypeAlias = tuple[Batch, dict[str, Any]]
"""A batch, and the targets of each task: a tensor, or the `Future` of a forecast."""


def fit(
    table: Table, declaration: Declaration, folder: Path | None = None
) -> Generator[Record, None, Trained]:
    """Learn from `table` what `declaration` says, and return it trained.

    The weights are those with the lowest validation loss, or the last ones where there is no
    validation part (patience and plateau then go by the training loss). Training is a function of
    the data, the declaration and the seed: the order of the examples and the dropout masks follow
    from (seed, epoch, position), and torch's random generator is left as it was.

    Args:
        folder: where the batch is saved if the loss is not finite.

    Raises:
        InputError: the data do not fit the declaration.
        TrainingError: the loss is not finite.
    """
    began = time.perf_counter()
    trained, sequences, parts = prepare(table, declaration)
    course = _Course(trained, trained.store(sequences, targets=True), parts, folder)
    training, network, epochs = course.training, trained.network, course.epochs
    yield Started(
        trained.declaration,
        sequences.count,
        {name: part.steps for name, part in parts.items()},
        sum(parameter.numel() for parameter in network.parameters()),
        epochs * sum(map(len, examples(trained, course.store, parts["train"], 0))),
        float(parts["train"].of(sequences).times.max()) if sequences.has_time else None,
        sequences.skipped,
        course.store.remarks(parts["train"]),
    )
    best, best_epoch, slowed = math.inf, -1, -1
    kept = _copied(network)
    # A look at the validation part may cost more than a short epoch; 40 are enough to choose from.
    look_every = max(1, epochs // 40)
    for epoch in range(epochs):
        losses, rate = [], 0.0
        for update in course.updates(epoch):
            losses.append(update.loss)
            rate = update.learning_rate
            yield update
        if not losses:
            got, fix = "none in the training part", "correct the target column"
            raise DataError(sequences.origin, "targets to learn from", got, fix)
        if (epoch + 1) % look_every and epoch + 1 < epochs:
            continue
        train_loss, valid = float(np.mean(losses)), course.valid_loss(epoch)
        score = train_loss if valid is None else valid
        better = score < best
        if better:
            best, best_epoch = score, epoch
        if better or valid is None:
            kept = _copied(network)
        seconds = time.perf_counter() - began
        yield Epoch(epoch, train_loss, valid, rate, seconds, better or valid is None)
        if training.schedule == "plateau" and epoch - max(best_epoch, slowed) >= course.plateau:
            course.slower, slowed = course.slower / 2, epoch
        if training.patience is not None and epoch - best_epoch >= training.patience:
            break
    network.load_state_dict(kept)
    network.eval()
    _calibrate(trained, course.store, parts)
    calibrate(trained, course.store, parts["valid"])
    return trained


def _calibrate(trained: Trained, store: Store, parts: dict[str, Part]) -> None:
    """What tasks learn from the answers of the trained network."""
    for name, task in trained.tasks.items():
        if task.calibrates_on is None:
            continue
        part = parts[task.calibrates_on]
        own = np.flatnonzero(part.stop > part.start)
        ours = store, part.rows[own], part.start[own], part.stop[own]
        targets = trained.targets(*ours, part.stop[own])
        task.calibrate(trained.outputs(*ours)[name], targets[name])


class _Course:
    """A training under way: the optimiser, and how the learning rate goes.

    Attributes:
        slower: the factor by which a plateau has lowered the learning rate.
        plateau: epochs without a better loss after which it is halved.
    """

    def __init__(
        self, trained: Trained, store: Store, parts: dict[str, Part], folder: Path | None
    ) -> None:
        self.trained, self.store, self.folder = trained, store, folder
        self.training = trained.declaration.training
        self.optimizer = optimizer_of(trained.network, self.training)
        self.epochs = self.training.epochs or 1
        self.slower = 1.0
        self.plateau = max(1, (self.training.patience or 10) // 2)
        self._train, self._valid = parts["train"], parts["valid"]

    def updates(self, epoch: int) -> Iterator[Update]:
        """The updates of an epoch; a window with nothing to learn from makes none."""
        batches = list(examples(self.trained, self.store, self._train, epoch))
        total, done = sum(map(len, batches)), 0
        for position, windows in enumerate(batches):
            state = None
            for index, window in enumerate(windows):
                batch, targets = window()
                progress = (epoch + done / total) / self.epochs
                rate = self.slower * rate_at(self.training, progress)
                done += 1
                with _random_from(self.training.seed, epoch, position, index):
                    loss, state = self._update(batch, targets, state, rate)
                if loss is None:
                    continue
                if not math.isfinite(loss):
                    raise TrainingError(_not_finite(loss, epoch, rate, batch, self.folder))
                yield Update(epoch, loss, rate, progress)

    @torch.enable_grad()
    def _update(
        self, batch: Batch, targets: dict[str, Any], state: NetworkState | None, rate: float
    ) -> tuple[float | None, NetworkState | None]:
        """One step of the optimiser, unless the loss is not finite; the loss and the new state."""
        network = self.trained.network
        network.train()
        with _precision(network, self.training.precision):
            loss, state = loss_of(self.trained, batch, targets, state)
            if loss is None:
                return None, state
            value = float(loss.detach())
            if math.isfinite(value):
                _step(self.optimizer, network, loss, rate, self.training.clip)
        return value, state

    def valid_loss(self, epoch: int) -> float | None:
        """The loss on the validation part; None where there is nothing to score.

        Raises:
            TrainingError: it is not finite.
        """
        loss = mean_loss(self.trained, self.store, self._valid)
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"validation: expected a finite loss, got {loss} in epoch {epoch + 1};"
                " try a smaller learning_rate, or look for extreme inputs in the validation part"
            )
        return loss


def prepare(table: Table, declaration: Declaration) -> tuple[Trained, Sequences, dict[str, Part]]:
    """Everything before the first update: fields and tasks fitted on the training part, and a fresh
    network.
    """
    columns, time = table.frame.columns, declaration.data.time
    fields = fields_of(declaration, columns, table.origin)
    tasks = tasks_of(declaration, columns, table.origin)
    sequences = build(table, declaration, fields, tasks)
    declaration = with_split(declaration, sequences, tasks.values())
    parts = split(sequences, declaration.data.split, declaration.training.seed)
    learning = [field for field in fields.values() if field.learns_steps]
    for field in learning:
        field.fit_steps(_raw_cells(field, sequences, parts["train"]))
    if learning:
        # Only now is it known what a step is.
        sequences = build(table, declaration, fields, tasks)
        parts = split(sequences, declaration.data.split, declaration.training.seed)
    refuse_short(parts, tasks.values(), table.origin)
    _refuse_uncalibrated(parts, tasks)
    known = parts["train"].of(sequences)
    clock = Clock.of(table.frame, time, known)
    declaration = completed(declaration, known, clock)
    tasks = tasks_of(declaration, columns, table.origin)
    for name, field in fields.items():
        role = declaration.inputs[name].role
        if role == "apart":
            field.fit(apart_steps(field, known.static, known.origin)[0])
        else:
            field.fit(known.static if role == "static" else known.steps)
        if isinstance(field, Number | Vector):
            field.unit = clock.step
    for task in tasks.values():
        task.use(fields)
        task.fit(known, fields)
    with _random_from(declaration.training.seed):
        network = Network(fields, tasks, declaration, clock.step)
    trained = Trained(declaration, fields, tasks, network, clock)
    language.attach(trained)
    refuse_without(parts["valid"], trained)
    return trained, sequences, parts


def _raw_cells(field: Field, sequences: Sequences, part: Part) -> pl.DataFrame:
    """The raw cells of the training part; of sequences that it cuts, what it has of them."""
    known = part.of(sequences)
    if (known.lengths == sequences.lengths[part.rows]).all():
        return known.static.select(field.columns)
    return pl.DataFrame([field.folded(known.steps[name], known.lengths) for name in field.columns])


def _refuse_uncalibrated(parts: dict[str, Part], tasks: dict[str, Task]) -> None:
    for name, task in tasks.items():
        if task.calibrates_on is not None and not parts[task.calibrates_on].steps:
            expected = f"a part to learn the probabilities of {name} from (calibrate: true)"
            fix = "say data.split.valid, such as 0.15, or leave calibrate out"
            raise SpecError(f"data.split.{task.calibrates_on}", expected, "none", fix)


@contextmanager
def _random_from(seed: int, *place: int) -> Iterator[None]:
    """Torch's random numbers as a function of the seed and a place in training, then as before."""
    for number in place:
        seed = int(draws(seed, number, 1)[0])
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed & (2**63 - 1))
        yield


@contextmanager
def _precision(network: Network, precision: str) -> Iterator[None]:
    """The recurrent layers multiply in bfloat16 if so; then again as before."""
    cells = [cell for cell in network.modules() if isinstance(cell, LawCell)]
    before = [cell.dtype for cell in cells]
    for cell in cells if precision == "bf16" else ():
        cell.dtype = "bfloat16"
    try:
        yield
    finally:
        for cell, dtype in zip(cells, before, strict=True):
            cell.dtype = dtype


def rate_at(training: Training, progress: float) -> float:
    """The learning rate at `progress` (0 to 1) of the training."""
    return (training.learning_rate or 1e-3) * schedule(training.schedule, progress)


def schedule(name: str, progress: float) -> float:
    """The factor of the learning rate at `progress` (0 to 1) of the training."""
    if name == "step":
        return 0.1 ** int(3 * progress)
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if name == "one_cycle":
        rise = 0.1
        if progress < rise:
            return 0.04 + 0.96 * progress / rise
        return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
    return 1.0


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
"""What makes each optimiser of the declaration; ``sgd`` on ``batch: all`` is gradient descent."""


def optimizer_of(network: Network, training: Training) -> torch.optim.Optimizer:
    """The optimiser that the declaration names."""
    make = OPTIMIZERS[training.optimizer]
    rate, decay = training.learning_rate or 1e-3, training.weight_decay
    return make(network.parameters(), lr=rate, weight_decay=decay)


def _step(
    optimizer: torch.optim.Optimizer, network: Network, loss: Tensor, rate: float, clip: Clip
) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if clip.norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip.norm)
    if clip.value is not None:
        nn.utils.clip_grad_value_(network.parameters(), clip.value)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def examples(
    trained: Trained, store: Store, part: Part, epoch: int
) -> Iterator[list[Callable[[], Window]]]:
    """The batches of an epoch, each as what makes its windows: those of truncated back-propagation,
    which go on from each other, or one.
    """
    training = trained.declaration.training
    pieces, stop = tiles(part, training.window, training.seed, epoch)
    size = None if training.batch == "all" else training.batch
    phase = _phases(trained.declaration, pieces, stop, epoch)
    for chosen in batches(len(pieces), size, training.seed, epoch):
        ours = trained, store, pieces[chosen], stop[chosen]
        if trained.forecasts:
            yield [partial(_segments, *ours, phase[chosen])]
        else:
            longest = max(1, int(pieces.length[chosen].max()))
            steps = training.truncate or longest
            yield [partial(_window, *ours, begin, steps) for begin in range(0, longest, steps)]


def _phases(
    declaration: Declaration, pieces: Pieces, stop: NDArray[np.int64], epoch: int
) -> NDArray[np.int64]:
    """At which step of each piece, modulo k, the segments of a forecast end: so that the last ends
    with the piece.

    A look-back that is read anew is no chain, and its pieces may be the whole batch. All steps of
    an update would then have one place in the season, so each piece has a phase of its own; but
    those at the end of a part end there, where forecasts will begin.
    """
    last = pieces.length - 1
    if declaration.model.memory == "carried":
        return last
    drawn = draws(declaration.training.seed ^ 0x9A5E, epoch, len(pieces))
    k = np.uint64(declaration.model.segment or 1)
    return np.where(pieces.start + pieces.length == stop, last, (drawn % k).astype(np.int64))


def _window(
    trained: Trained,
    store: Store,
    pieces: Pieces,
    stop: NDArray[np.int64],
    begin: int,
    size: int,
) -> Window:
    """Steps ``begin .. begin + size - 1`` of every piece that has them."""
    skipped = np.minimum(begin, pieces.length)
    window = Pieces(pieces.row, pieces.start + skipped, np.minimum(pieces.length - skipped, size))
    at = _origins(trained, window, skipped, pieces.start, stop)
    targets: dict[str, Any] = dict(store.targets_at(window, at, stop))
    # A sequence answers at its end once, in the window where it ends.
    going = (skipped + window.length < pieces.length) | ((window.length == 0) & (begin > 0))
    for name, task in trained.tasks.items():
        if not task.every:
            targets[name] = without(targets[name], torch.from_numpy(going))
    return store.batch(window, at), targets


def _origins(
    trained: Trained,
    window: Pieces,
    skipped: NDArray[np.int64],
    first: NDArray[np.int64],
    stop: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The steps of a window at which outputs are learnt: all, but for tasks that choose some.

    Args:
        skipped: how many steps of each piece lie before the window.
        first, stop: where each piece starts, and where its part stops.
    """
    wanted = np.ones(int(window.length.sum()), bool)
    read = spans(skipped + 1, window.length)
    left = np.repeat(stop - first, window.length) - read
    for task in trained.tasks.values():
        if isinstance(task, NextFrame):
            wanted &= task.learns_from(read, left)
    return np.flatnonzero(wanted)


def _segments(
    trained: Trained,
    store: Store,
    pieces: Pieces,
    stop: NDArray[np.int64],
    phase: NDArray[np.int64],
) -> Window:
    """The window of a forecast: a chain of segments through each piece, which may look back before
    the piece starts.

    Args:
        phase: at which step of each piece its segments end, modulo k.
    """
    spec = trained.declaration.model
    before = np.minimum(pieces.start, spec.lookback or 1)
    longer = Pieces(pieces.row, pieces.start - before, pieces.length + before)
    k = spec.segment or 1
    ends = [
        np.arange(b + p % max(1, min(k, n)), b + n, k)
        for b, n, p in zip(before, pieces.length, phase, strict=True)
    ]
    first = np.cumsum(longer.length) - longer.length
    at = np.concatenate([offset + end for offset, end in zip(first, ends, strict=True)])
    return store.batch(longer, at), dict(store.targets_at(longer, at, stop))


def loss_of(
    trained: Trained, batch: Batch, targets: dict[str, Any], state: NetworkState | None
) -> tuple[Tensor | None, NetworkState | None]:
    """The sum over the tasks of the mean loss of their observed targets (None with nothing to learn
    from), and the state, cut from its past.
    """
    if trained.forecasts:
        outputs = trained.network.windows(batch)
    else:
        outputs, state = trained.network.unroll(batch, state)
        state = ops.map_state(torch.Tensor.detach, state)
    losses = [
        torch.cat([task.losses(member, targets[name]) for member in outputs[name]])
        if trained.forecasts
        else task.losses(outputs[name], targets[name])
        for name, task in trained.tasks.items()
    ]
    means = [loss.mean() for loss in losses if loss.numel()]
    return (torch.stack(means).sum() if means else None), state


@torch.no_grad()
def mean_loss(trained: Trained, store: Store, part: Part) -> float | None:
    """The loss on a part: the sum over the tasks of the mean loss of their observed targets; None
    where there are none.
    """
    first, stop = trained.origins(part)
    scored = np.flatnonzero(stop > first)
    if not len(scored):
        return None
    rows, limit = part.rows[scored], part.stop[scored]
    sums, counts = dict.fromkeys(trained.tasks, 0.0), dict.fromkeys(trained.tasks, 0)
    # One pass at a time: the forecasts of a long part together may need far more than its values.
    for passed in trained.passes(store, rows, first[scored], stop[scored]):
        answered = Pieces(rows[passed.spans], passed.start, passed.length)
        steps = np.arange(int(passed.length.sum()))
        found = store.targets_at(answered, steps, limit[passed.spans], from_start=True)
        targets: dict[str, Any] = dict(found)
        for name, task in trained.tasks.items():
            target = targets[name] if task.every else targets[name][passed.ends]
            losses = task.losses(passed.outputs[name], target).double()
            sums[name] += float(losses.sum())
            counts[name] += losses.numel()
    means = [sums[name] / counts[name] for name in trained.tasks if counts[name]]
    return sum(means) if means else None


def _copied(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _not_finite(loss: float, epoch: int, rate: float, batch: Batch, folder: Path | None) -> str:
    """The message, after the batch was saved."""
    tensors = {f"inputs.{name}": value for name, value in batch.inputs.items()}
    tensors |= {f"static.{name}": value for name, value in batch.static.items()}
    tensors |= {f"series.{name}": value for name, value in batch.series.items()}
    sizes = [v.double().abs().nan_to_num(0) for v in tensors.values() if v.numel()]
    largest = max((float(size.max()) for size in sizes), default=0.0)
    saved = ""
    if folder is not None:
        path = folder / BAD_BATCH
        folder.mkdir(parents=True, exist_ok=True)
        tensors["lengths"] = batch.lengths
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
        saved = f"; its batch is in {path}"
    return (
        f"training: expected a finite loss, got {loss} in epoch {epoch + 1}{saved};"
        f" try a smaller learning_rate (it was {rate:.3g}), a smaller clip.norm,"
        f" or look for extreme inputs (the largest encoded value is {largest:.3g})"
    )
