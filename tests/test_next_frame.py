"""Frames to come: the decoder against its equation, scores by hand, and which frames are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

import segue
from segue.data.read import read
from segue.data.store import Pieces
from segue.errors import DataError, SpecError
from segue.layers.frames import FrameDecoder
from segue.run import declare
from segue.sequences import Part
from segue.tasks.next_frame import NextFrame
from segue.tasks.similarity import ssim
from segue.train import _window, prepare

RNG = np.random.default_rng(0)


# The decoder --------------------------------------------------------------------------------------


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def convolved(weight: torch.Tensor, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A convolution of a picture ``[I, T]`` with ``[O, I, 3]``, zeros around it."""
    padded = np.pad(x, ((0, 0), (1, 1)))
    w = weight.detach().double().numpy()
    columns = [np.tensordot(w, padded[:, t : t + 3], 2) for t in range(x.shape[1])]
    return np.stack(columns, axis=1)


def test_the_decoder_is_its_equation() -> None:
    torch.manual_seed(0)
    decoder = FrameDecoder(2, 3, (5,), horizon=4, kernel=3)
    hidden, frame = RNG.normal(size=(2, 5)), RNG.normal(size=(3, 5))
    found = decoder(torch.tensor(hidden[None]).float(), torch.tensor(frame[None]).float())
    start, out, cell = decoder.start, decoder.out, decoder.cell

    def mixed(layer: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        return weight[:, :, 0] @ x + bias[:, None]

    both = mixed(start, hidden)
    h, c, x = np.tanh(both[:2]), both[2:], frame
    bias = cell.b_h.detach().double().numpy()[:, None]
    for step in range(4):
        i, f, g, o = np.split(convolved(cell.w_xh, x) + convolved(cell.w_hh, h) + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        both = mixed(out, h)
        gate, new = sigmoid(both[:3]), both[3:]
        x = gate * x + (1 - gate) * new
        assert np.abs(found[0, step].detach().numpy() - x).max() <= 1e-5


def test_a_decoder_starts_near_the_last_frame() -> None:
    decoder = FrameDecoder(4, 1, (6, 6), horizon=1, kernel=3)
    frame = torch.randn(3, 1, 6, 6)
    with torch.no_grad():
        error = (decoder(torch.randn(3, 4, 6, 6), frame)[:, 0] - frame).square().mean()
    assert float(error) < 0.1


# Scores -------------------------------------------------------------------------------------------


def slow_ssim(x: NDArray[np.float64], y: NDArray[np.float64], span: float) -> float:
    """The equation, window by window, for one channel ``[H, W]``."""
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    c_1, c_2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            m_a, m_b = (window * a).sum(), (window * b).sum()
            s_aa = (window * (a - m_a) ** 2).sum()
            s_bb = (window * (b - m_b) ** 2).sum()
            s_ab = (window * (a - m_a) * (b - m_b)).sum()
            alike = (2 * m_a * m_b + c_1) * (2 * s_ab + c_2)
            found.append(alike / ((m_a**2 + m_b**2 + c_1) * (s_aa + s_bb + c_2)))
    return float(np.mean(found))


def test_ssim_is_its_equation() -> None:
    x = RNG.random((2, 3, 14, 13))
    y = np.clip(x + RNG.normal(0, 0.2, x.shape), 0, 1)
    found = ssim(torch.from_numpy(x), torch.from_numpy(y), 1.0)
    for n in range(2):
        expected = np.mean([slow_ssim(x[n, c], y[n, c], 1.0) for c in range(3)])
        assert float(found[n]) == pytest.approx(expected, rel=1e-9)
    assert ssim(torch.from_numpy(x), torch.from_numpy(x), 1.0).tolist() == pytest.approx([1, 1])
    small = torch.rand(2, 1, 4, 5)
    assert ssim(small, small, 1.0).tolist() == pytest.approx([1, 1])


def clips(lengths: tuple[int, ...] = (9, 6, 12), extents: tuple[int, int] = (4, 4)) -> pl.DataFrame:
    """Videos at hand of a place that goes round."""
    found = []
    for row, length in enumerate(lengths):
        clip = np.zeros((length, *extents), int)
        for step in range(length):
            clip[step].flat[(step + row) % clip[step].size] = 255
        found.append(clip.tolist())
    return pl.DataFrame({"clip": pl.Series(found, dtype=pl.List(pl.List(pl.List(pl.UInt8))))})


def spec(**options: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "examples", "split": {"by": "key", "valid": 0, "test": 1}},
        "inputs": {"clip": {"kind": "video", "colors": "gray", "maps": True}},
        "outputs": {"clip": {"task": "next_frame", "horizon": 2, **options}},
        "model": {"cell": "conv_lstm", "hidden": 4, "dropout": 0},
        "training": {"epochs": 1},
    }


def test_scores_by_hand() -> None:
    run = segue.fit(spec(after=3), clips())
    assert run.evaluation is not None
    score, outputs = run.evaluation.scores["clip"], run.evaluation.outputs["clip"]
    # Of 12 frames the third to the tenth foretell two each.
    assert outputs.shape == (8, 2, 1, 4, 4)
    frames = np.array(clips()["clip"][2].to_list()) / 255
    ahead = np.stack([frames[3:11], frames[4:12]], axis=1)
    task, field = run.trained.tasks["clip"], run.trained.fields["clip"]
    assert isinstance(task, NextFrame)
    told = outputs[:, :, 0].double().numpy() * field.scale + field.shift  # type: ignore[attr-defined]
    error = (told.clip(0, 1) - ahead) ** 2
    assert score.metrics["mse"] == pytest.approx(error.mean(), rel=1e-5)
    assert score.metrics["mae"] == pytest.approx(np.sqrt(error).mean(), rel=1e-5)
    psnr = -10 * np.log10(error.mean((2, 3)))
    assert score.metrics["psnr"] == pytest.approx(psnr.mean(), rel=1e-5)
    # Two of 16 places are wrong where the place that shines has moved.
    assert score.baselines["last frame"]["mse"] == pytest.approx(2 / 16)
    train = np.concatenate([clips()["clip"][row].to_list() for row in (0, 1)]) / 255
    mean = ((ahead - train.mean(0)) ** 2).mean()
    assert score.baselines["mean frame"]["mse"] == pytest.approx(mean, rel=1e-5)


def test_targets_are_the_frames_to_come_of_the_same_part() -> None:
    trained, sequences, parts = prepare(read(clips()), declare(spec()))
    store = trained.store(sequences, targets=True)
    pieces, at = Pieces(np.array([0]), np.array([2]), np.array([5])), np.arange(5)
    target = store.targets_at(pieces, at, np.array([6]))["clip"]
    assert isinstance(target, torch.Tensor)
    frames = np.array(clips()["clip"][0].to_list()) / 255
    field: Any = trained.fields["clip"]
    for place, step in enumerate(range(2, 7)):
        for ahead in (1, 2):
            found = target[place, ahead - 1, 0].numpy() * field.scale + field.shift
            if step + ahead < 6:
                assert np.abs(found - frames[step + ahead]).max() <= 1e-6
            else:
                assert np.isnan(found).all()


@pytest.mark.parametrize(
    "options, first, second",
    [
        ({}, [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]),
        ({"after": 3}, [2, 3], [2, 3, 4, 5, 6]),
        ({"after": 2, "stride": 3}, [1], [1, 4]),
    ],
)
def test_the_frames_that_are_learnt_from(
    options: dict[str, Any], first: list[int], second: list[int]
) -> None:
    trained, sequences, _ = prepare(read(clips()), declare(spec(**options)))
    store = trained.store(sequences, targets=True)
    pieces = Pieces(np.array([1, 0]), np.zeros(2, np.int64), np.array([6, 9]))
    for size in (100, 4):  # at once, and window by window
        found: list[int] = []
        for begin in range(0, 9, size):
            batch, targets = _window(trained, store, pieces, np.array([6, 9]), begin, size)
            assert not targets["clip"].isnan().any()
            place = np.concatenate(
                [n * 100 + begin + np.arange(k) for n, k in enumerate(batch.lengths.tolist())]
            )
            found += place[batch.at.numpy()].tolist()
        assert sorted(found) == [*first, *(100 + step for step in second)]


def test_answers_are_frames_as_the_input_takes_them(tmp_path: Path) -> None:
    run = segue.fit(spec(), clips())
    told = run.predict(clips())
    assert told.columns == ["row", "step", "clip"]
    assert told["row"].to_list() == [0, 0, 1, 1, 2, 2]
    assert told["step"].to_list() == [9, 10, 6, 7, 12, 13]
    assert told["clip"].dtype == pl.List(pl.List(pl.UInt8))
    session = run.session()
    answers = [session.step({"clip": frame}) for frame in clips()["clip"][0].to_list()]
    assert np.array(answers[-1]["clip"]).shape == (2, 4, 4)
    # What was foretold can be sent again.
    session.step({"clip": answers[-1]["clip"][0]})
    run.save(tmp_path / "run")
    assert segue.load(tmp_path / "run").evaluate(clips()).scores == run.evaluate(clips()).scores


def test_a_place_that_goes_round_is_foretold() -> None:
    said = {**spec(), "training": {"epochs": 40, "batch": 2, "learning_rate": 0.02}}
    said["model"] = {"cell": "conv_lstm", "hidden": 16, "dropout": 0}
    said["data"] = {"rows": "examples", "split": {"by": "key", "valid": 0, "test": 2}}
    run = segue.fit(said, clips((14,) * 10))
    assert run.evaluation is not None
    score = run.evaluation.scores["clip"]
    assert score.metrics["mse"] < 0.1 * score.baselines["mean frame"]["mse"]


# What is wrong ------------------------------------------------------------------------------------


def refused(said: dict[str, Any], frame: pl.DataFrame) -> str:
    with pytest.raises((SpecError, DataError)) as caught:
        segue.fit(said, frame)
    return str(caught.value)


def test_frames_to_come_need_maps() -> None:
    said = spec()
    said["inputs"]["clip"] = {"kind": "video", "colors": "gray"}
    said["model"] = {}
    assert refused(said, clips()) == (
        "outputs.clip: expected an input of the same name that keeps its maps, got video; "
        "declare `inputs.clip: {kind: video, maps: true}`"
    )
    said["inputs"] = {}
    assert "got no such input" in refused(said, clips())


def test_frames_to_come_need_a_convolutional_cell() -> None:
    said = {**spec(), "model": {"cell": "gru"}}
    assert refused(said, clips()) == (
        "model.cell: expected features that are vectors, got maps of 4 x 4; "
        "declare a convolutional cell"
    )


def test_frames_to_come_stand_alone() -> None:
    said = spec()
    said["outputs"]["label"] = {"task": "classify"}
    frame = clips().with_columns(label=pl.Series(["a", "b", "a"]))
    assert refused(said, frame) == (
        "outputs: expected forecasts of one horizon, or no forecast, got clip (next_frame), "
        "label (classify); declare two models"
    )


def test_a_part_owns_the_frames_that_are_scored_in_it() -> None:
    said = spec()
    said["data"]["split"] = {"by": "time", "valid": 3, "test": 3}
    trained, _, parts = prepare(read(clips()), declare(said))
    first, stop = trained.origins(parts["test"])
    assert isinstance(parts["test"], Part)
    assert first.tolist() == [5, 2, 8] and stop.tolist() == [7, 4, 10]
