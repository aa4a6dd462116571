"""Training: `fit` is a generator of plain records; who calls it prints, collects or forwards them."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from segue import ops
from segue.clock import Clock
from segue.data.build import build, fields_of, tasks_of
from segue.data.order import draws
from segue.data.read import Table
from segue.data.split import split
from segue.data.store import Batch, Pieces, Store, batches, tiles
from segue.defaults import completed
from segue.errors import TrainingError
from segue.fields.number import Number
from segue.model import Network, NetworkState
from segue.schema import Clip, Declaration, Training
from segue.sequences import Part, Sequences
from segue.trained import Trained


@dataclass(frozen=True)
class Started:
    """The declaration with nothing left to infer, and the sizes of what follows.

    Attributes:
        steps: of the parts train, valid and test.
        until: the last time in the training part; None where there is no time.
    """

    declaration: Declaration
    sequences: int
    steps: dict[str, int]
    parameters: int
    updates: int
    until: float | None


@dataclass(frozen=True)
class Update:
    """One step of the optimiser; `progress` runs from 0 to 1 over the whole training."""

    epoch: int
    loss: float
    progress: float


@dataclass(frozen=True)
class Epoch:
    """A look at the validation part; `best` says that these weights are kept so far."""

    epoch: int
    train_loss: float
    valid_loss: float | None
    learning_rate: float
    seconds: float
    best: bool


Record: TypeAlias = Started | Update | Epoch
Window: TypeAlias = tuple[Batch, dict[str, Tensor]]
"""A batch and its targets."""


def fit(
    table: Table, declaration: Declaration, folder: Path | None = None
) -> Generator[Record, None, Trained]:
    """Learn from `table` what `declaration` says, and return it trained, with the weights of the best epoch.

    Training is a function of the data, the declaration and the seed: the order of the examples and the dropout masks
    follow from (seed, epoch, position).

    Args:
        folder: where the batch is saved if the loss is not finite.

    Raises:
        InputError: the data do not fit the declaration.
        TrainingError: the loss is not finite.
    """
    trained, sequences, parts = prepare(table, declaration)
    store = trained.store(sequences, targets=True)
    training, network = trained.declaration.training, trained.network
    optimizer = optimizer_of(network, training)
    epochs, epoch_updates = (
        training.epochs or 1,
        sum(1 for _ in examples(trained, store, parts["train"], 0)),
    )
    yield Started(
        trained.declaration,
        sequences.count,
        {name: part.steps for name, part in parts.items()},
        sum(parameter.numel() for parameter in network.parameters()),
        epochs * epoch_updates,
        float(parts["train"].of(sequences).times.max()) if sequences.has_time else None,
    )
    began, best, since, slower = time.perf_counter(), math.inf, 0, 1.0
    kept = _copied(network)
    # A look at the validation part may cost more than a short epoch; 40 looks are enough to choose from.
    look_every = max(1, epochs // 40)
    for epoch in range(epochs):
        losses = []
        for position, windows in enumerate(examples(trained, store, parts["train"], epoch)):
            network.train()
            torch.manual_seed(int(draws(training.seed, epoch, position + 1)[-1] >> np.uint64(1)))
            progress = (epoch + position / epoch_updates) / epochs
            rate = slower * (training.learning_rate or 1e-3) * schedule(training.schedule, progress)
            state = None
            for batch, targets in windows:
                loss, state = _loss(trained, batch, targets, state)
                if loss is None:
                    continue
                if not math.isfinite(float(loss.detach())):
                    raise TrainingError(
                        _not_finite(float(loss.detach()), epoch, rate, batch, folder)
                    )
                _step(optimizer, network, loss, rate, training.clip)
                losses.append(float(loss.detach()))
                yield Update(epoch, losses[-1], progress)
        if (epoch + 1) % look_every and epoch + 1 < epochs:
            continue
        valid = mean_loss(trained, store, parts["valid"])
        better = valid is None or valid < best
        since = 0 if better else since + look_every
        if better:
            best, kept = valid if valid is not None else best, _copied(network)
        yield Epoch(epoch, float(np.mean(losses)), valid, rate, time.perf_counter() - began, better)
        if (
            training.schedule == "plateau"
            and since
            and since % max(1, (training.patience or 10) // 2) == 0
        ):
            slower /= 2
        if training.patience is not None and since >= training.patience:
            break
    network.load_state_dict(kept)
    return trained


def prepare(table: Table, declaration: Declaration) -> tuple[Trained, Sequences, dict[str, Part]]:
    """Everything before the first update: fields and tasks fitted on the training part, and a fresh network."""
    columns, time = table.frame.columns, declaration.data.time
    fields = fields_of(declaration, columns, table.origin)
    sequences = build(table, declaration, fields, tasks_of(declaration, columns, table.origin))
    parts = split(sequences, declaration.data.split, declaration.training.seed)
    known = parts["train"].of(sequences)
    clock = Clock.of(table.frame, time, known)
    declaration = completed(declaration, known, clock)
    tasks = tasks_of(declaration, columns, table.origin)
    for name, field in fields.items():
        field.fit(known.static if declaration.inputs[name].role == "static" else known.steps)
        if isinstance(field, Number):
            field.unit = clock.step
    for task in tasks.values():
        task.fit(known, fields)
    torch.manual_seed(declaration.training.seed)
    network = Network(fields, tasks, declaration)
    return Trained(declaration, fields, tasks, network, clock), sequences, parts


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


def optimizer_of(network: Network, training: Training) -> torch.optim.Optimizer:
    """The optimiser that the declaration names; gradient descent is ``sgd``, on the full batch with ``batch: all``."""
    parameters, rate, decay = (
        list(network.parameters()),
        training.learning_rate or 1e-3,
        training.weight_decay,
    )
    match training.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
        case "momentum":
            return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9)
        case "nesterov":
            return torch.optim.SGD(
                parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True
            )
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=rate, weight_decay=decay)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=rate, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


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


def examples(trained: Trained, store: Store, part: Part, epoch: int) -> Iterator[Iterator[Window]]:
    """The batches of an epoch, each as the windows of truncated back-propagation through it (one, if not truncated)."""
    training = trained.declaration.training
    pieces, stop = tiles(part, training.window, training.seed, epoch)
    size = None if training.batch == "all" else training.batch
    for chosen in batches(len(pieces), size, training.seed, epoch):
        if trained.forecasts:
            yield iter([_segments(trained, store, pieces[chosen], stop[chosen])])
        else:
            yield _windows(trained, store, pieces[chosen], training.truncate)


def _windows(
    trained: Trained, store: Store, pieces: Pieces, truncate: int | None
) -> Iterator[Window]:
    longest = int(pieces.length.max(initial=0))
    size = truncate or max(1, longest)
    for begin in range(0, max(1, longest), size):
        skipped = np.minimum(begin, pieces.length)
        window = Pieces(
            pieces.row, pieces.start + skipped, np.minimum(pieces.length - skipped, size)
        )
        at = np.arange(int(window.length.sum()))
        targets = store.targets_at(window, at, window.start + window.length)
        # A sequence answers at its end once, in the window where it ends.
        going = (skipped + window.length < pieces.length) | ((window.length == 0) & (begin > 0))
        for name, task in trained.tasks.items():
            if not task.every:
                targets[name] = _without(targets[name], torch.from_numpy(going))
        yield store.batch(window, at), targets


def _without(target: Tensor, gone: Tensor) -> Tensor:
    """`target` with nothing to learn in the rows `gone`."""
    nothing = torch.nan if target.is_floating_point() else -1
    return torch.where(gone.view(-1, *[1] * (target.ndim - 1)), nothing, target)


def _segments(trained: Trained, store: Store, pieces: Pieces, stop: NDArray[np.int64]) -> Window:
    """Windows of a forecast: one chain of segments through each piece, which may look back before it."""
    spec = trained.declaration.model
    before = np.minimum(pieces.start, spec.lookback or 1)
    longer = Pieces(pieces.row, pieces.start - before, pieces.length + before)
    k = spec.segment or 1
    ends = [
        np.arange(b + (n - 1) % k, b + n, k) for b, n in zip(before, pieces.length, strict=True)
    ]
    first = np.cumsum(longer.length) - longer.length
    at = np.concatenate([offset + end for offset, end in zip(first, ends, strict=True)])
    return store.batch(longer, at), store.targets_at(longer, at, stop)


def _loss(
    trained: Trained, batch: Batch, targets: dict[str, Tensor], state: NetworkState | None
) -> tuple[Tensor | None, NetworkState | None]:
    """The sum over the tasks of their mean loss (None with nothing to learn from), and the state, cut from its past."""
    if trained.forecasts:
        outputs = trained.network.windows(batch)
    else:
        outputs, state = trained.network.unroll(batch, state)
        state = ops.map_state(torch.Tensor.detach, state)
    losses = [task.losses(outputs[name], targets[name]) for name, task in trained.tasks.items()]
    means = [loss.mean() for loss in losses if loss.numel()]
    return (torch.stack(means).sum() if means else None), state


def mean_loss(trained: Trained, store: Store, part: Part) -> float | None:
    """The loss on a part: per task the mean over its observed targets, summed; None where there are none."""
    first, stop = trained.origins(part)
    scored = np.flatnonzero(stop > first)
    if not len(scored):
        return None
    rows, first, stop = part.rows[scored], first[scored], stop[scored]
    outputs = trained.outputs(store, rows, first, stop)
    targets = trained.targets(store, rows, first, stop, part.stop[scored])
    losses = [task.losses(outputs[name], targets[name]) for name, task in trained.tasks.items()]
    return sum(float(loss.double().mean()) for loss in losses if loss.numel())


def _copied(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _not_finite(loss: float, epoch: int, rate: float, batch: Batch, folder: Path | None) -> str:
    """The message, after the batch was saved."""
    tensors = {f"inputs.{name}": value for name, value in batch.inputs.items()}
    tensors |= {f"series.{name}": value for name, value in batch.series.items()} | {
        "lengths": batch.lengths
    }
    largest = max(
        (float(v.double().abs().nan_to_num(0).max()) for v in tensors.values() if v.numel()),
        default=0.0,
    )
    saved = ""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            folder / "bad_batch.safetensors",
        )
        saved = f"; its batch is in {folder / 'bad_batch.safetensors'}"
    return (
        f"training: expected a finite loss, got {loss} in epoch {epoch + 1}{saved}; try a smaller learning_rate (it was"
        f" {rate:.3g}), a smaller clip.norm, or look for extreme inputs (the largest encoded value is {largest:.3g})"
    )
