"""Videos: real clips frame by frame, their sound tracks, and files that are wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pytest
import soundfile
import torch

import segue
from segue.errors import DataError
from segue.fields import KINDS
from segue.fields import clip as clips
from segue.fields import video as videos
from segue.fields.clip import Clip
from segue.fields.recording import Decoder
from segue.fields.video import Video
from segue.fields.watched import Watched

FRAMES = {
    "bikes.mp4": [250],
    "bigbuckbunny.mp4": [132],
    "carphone_pristine.mp4": [120],
    "carphone_distorted.mp4": [120],
    "nasa_13013.mp4": [325, 390],
}
"""Frames of each video stream of the clips, as their README has it."""

SOUND = {"bigbuckbunny.mp4": [(48_000, 6)], "nasa_13013.mp4": [(8_000, 2), (16_000, 2)]}
"""Samples per second and channels of each sound track."""


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "video_clips"


def video(folder: Path, **options: Any) -> Video:
    made = Video("x", ("x",), Video.Spec.model_validate({"kind": "video", **options}))
    made.folder = folder
    return made


def drawn(path: Path, frames: int = 12, *, keys: int = 5, **options: Any) -> None:
    """A clip whose frame n is all of brightness 10 n, to frame 25; a key frame every `keys`."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.gop_size = keys
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * (number % 25), np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def brightness(x: torch.Tensor) -> list[int]:
    """Which frames of `drawn` these are."""
    return (x.float().flatten(1).mean(1) / 10).round().int().tolist()


# Real clips ---------------------------------------------------------------------------------------


def test_every_frame_of_every_clip_is_decoded(folder: Path) -> None:
    for name, counts in FRAMES.items():
        for stream, count in enumerate(counts):
            clip = Clip(folder / name, stream, name)
            times = list(clip.times())
            assert len(times) == count
            assert all(before < after for before, after in pairwise(times))


def test_every_sample_of_every_sound_track_is_decoded(folder: Path) -> None:
    for name, tracks in SOUND.items():
        for stream, (expected, channels) in enumerate(tracks):
            with Decoder() as decoder:
                read = list(decoder.read(folder / name, name, stream))
            rates, blocks = zip(*read, strict=True)
            rate, samples = rates[0], np.concatenate(blocks)
            assert set(rates) == {expected}
            assert samples.shape[1] == channels and samples.dtype == np.float32
            with av.open(str(folder / name)) as container:
                track = container.streams.audio[stream]
                seconds = float(track.duration * track.time_base)
            assert abs(len(samples) / rate - seconds) < 0.15
            assert 0.1 < np.abs(samples).max() <= 1.0


def test_a_frame_is_the_same_in_whatever_order_it_is_asked_for(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("bikes.mp4", "nasa_13013.mp4"):
        clip = Clip(folder / name, 0, name)
        with av.open(str(folder / name)) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for number in rng.permutation(len(shown))[:15].tolist():
            assert np.array_equal(clip.frame(number), shown[number])


MEASURE = """
import sys
from pathlib import Path
import polars as pl, torch
from segue.fields.video import Video
from segue.fields.watched import Watched
from segue.fields.clip import IDLE
from segue.fields.recording import Decoder

def read(path):
    field = Video("x", ("x",), Video.Spec.model_validate({"kind": "video", "size": [36, 64]}))
    field.folder = path.parent
    steps, _ = field.unfold(pl.Series("x", [path.name]), "clips")
    field.fit(steps.to_frame())
    frames = field.encode(steps.to_frame(), "clips")
    for low in range(0, len(frames), 4):
        frames[torch.arange(low, min(low + 4, len(frames)))]

def heard(path):
    with Decoder() as decoder:
        for _ in decoder.read(path, "clips"):
            pass
        return peak(decoder.tracks.process.pid)

def peak(process):
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024

def peaks():
    (decoder,) = IDLE
    return peak("self") + peak(decoder.process.pid)

folder = Path(sys.argv[1])
read(folder / "carphone_pristine.mp4")
before = peaks()
read(folder / "bigbuckbunny.mp4")
print(peaks() - before)
print(heard(folder / "bigbuckbunny.mp4") - heard(folder / "nasa_13013.mp4"))
"""


def test_a_clip_needs_the_memory_of_a_few_frames(folder: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    frame = 1280 * 720 * 3 / 2**20
    seen, heard = (float(line) for line in found.stdout.splitlines())
    assert seen < 16 * frame < FRAMES["bigbuckbunny.mp4"][0] * frame / 8
    assert heard < 4 * frame


# Frames as steps ----------------------------------------------------------------------------------


def test_steps_are_references_that_are_decoded_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "KEPT", 1)  # every frame is decoded anew
    names = [f"{letter}.avi" for letter in "abcdef"]  # more than are open at once
    for name in names:
        drawn(tmp_path / name)
    field = video(tmp_path, colors="gray")
    steps, lengths = field.unfold(pl.Series("x", names), "clips")
    assert lengths.tolist() == [12] * 6
    assert steps[:2].to_list() == ["a.avi#0", "a.avi#1"]
    field.fit(steps.to_frame())
    frames = field.encode(steps.to_frame(), "clips")
    order = torch.from_numpy(np.random.default_rng(0).permutation(72).reshape(8, 9))
    found = frames[order]
    assert found.shape == (8, 9, 1, 32, 32) and found.dtype == torch.uint8
    assert brightness(found.flatten(0, 1)) == (order % 12).flatten().tolist()


def test_frames_that_were_read_are_kept(tmp_path: Path) -> None:
    drawn(tmp_path / "a.avi")
    field = video(tmp_path, colors="gray", size=[4, 4])
    steps, _ = field.unfold(pl.Series("x", ["a.avi"]), "clips")
    frames = field.encode(steps.to_frame(), "clips")
    first = frames[torch.arange(12)]
    (tmp_path / "a.avi").unlink()
    assert torch.equal(frames[torch.arange(12)], first)


def test_a_rate_keeps_the_first_frame_of_each_span(tmp_path: Path) -> None:
    drawn(tmp_path / "a.avi")
    for rate, kept in ((5, [0, 2, 4, 6, 8, 10]), (4, [0, 3, 5, 8, 10]), (100, list(range(12)))):
        steps, _ = video(tmp_path, rate=rate).unfold(pl.Series("x", ["a.avi"]), "clips")
        assert steps.to_list() == [f"a.avi#{number}" for number in kept]


def test_a_video_at_hand_is_as_one_from_a_file(tmp_path: Path) -> None:
    drawn(tmp_path / "a.avi")
    one = video(tmp_path, size=[4, 6], crop=[16, 24])
    steps, _ = one.unfold(pl.Series("x", ["a.avi"]), "clips")
    expected = one.encode(steps.to_frame(), "clips")[torch.arange(12)]
    with av.open(str(tmp_path / "a.avi")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    other = video(tmp_path, size=[4, 6], crop=[16, 24])
    nested = pl.List(pl.List(pl.List(pl.List(pl.UInt8))))
    steps, lengths = other.unfold(pl.Series("x", [np.stack(shown).tolist()], dtype=nested), "rows")
    assert lengths.tolist() == [12]
    assert torch.equal(other.encode(steps.to_frame(), "rows"), expected)


def test_a_live_frame_is_a_reference_or_a_picture(tmp_path: Path) -> None:
    for name, frames in (("a.avi", 14), ("b.avi", 9)):
        drawn(tmp_path / name, frames)
    table = tmp_path / "clips.csv"
    table.write_text("clip,label\na.avi,long\nb.avi,short\n")
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"clip": {"kind": "video", "size": 8, "features": 4}},
        "outputs": {"label": {"task": "classify"}},
        "training": {"epochs": 1},
    }
    run = segue.fit(spec, table)
    told = run.predict(table)["label_p_long"][0]
    by_reference, by_picture = run.session(), run.session()
    encoded = run.trained.store(run.trained.sequences(table), targets=False).inputs["clip"]
    for number in range(14):
        answer = by_reference.step({"clip": f"a.avi#{number}"})
        picture = encoded[torch.tensor(number)].permute(1, 2, 0)
        assert by_picture.step({"clip": picture.tolist()}) == answer
    assert abs(answer["label_p_long"] - told) <= 1e-6


def test_the_sound_track_of_a_clip_is_heard_as_a_recording_of_it(
    folder: Path, tmp_path: Path
) -> None:
    with Decoder() as decoder:
        blocks = list(decoder.read(folder / "nasa_13013.mp4", "clips"))
    samples = np.concatenate([block for _, block in blocks])
    soundfile.write(tmp_path / "a.wav", samples, blocks[0][0], subtype="FLOAT")
    table = pl.DataFrame({"a": [str(folder / "nasa_13013.mp4"), str(tmp_path / "a.wav")]})
    field = KINDS["audio"]("a", ("a",), KINDS["audio"].Spec.model_validate({"kind": "audio"}))
    steps, lengths = field.unfold(table["a"], "clips")
    assert lengths[0] == lengths[1] > 1000
    heard, recorded = np.split(steps.to_numpy(), 2)
    assert np.abs(heard - recorded).max() <= 1e-4


# What is wrong ------------------------------------------------------------------------------------


def message(folder: Path, cell: str | None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        video(folder, **options).unfold(pl.Series("x", [cell], dtype=pl.String), "clips.csv")
    return str(caught.value).removeprefix("clips.csv: column 'x', row 1: ")


def test_files_that_are_no_videos_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    soundfile.write(tmp_path / "b.wav", np.zeros(800), 8000)
    os.mkfifo(tmp_path / "c.mp4")
    drawn(tmp_path / "d.avi")
    assert message(tmp_path, "x.mp4") == (
        "x.mp4: expected a file, got no such file; check the path, which is relative to the table, "
        "or declare `on_error: skip`"
    )
    assert message(tmp_path, "a.mp4") == (
        "a.mp4: expected a video file, got none (Invalid data found when processing input); "
        "copy or convert it again, or declare `on_error: skip`"
    )
    assert message(tmp_path, "b.wav") == (
        "b.wav: expected a video stream, got none; take it out, or declare `on_error: skip`"
    )
    # Nobody writes to the pipe: opening it would wait for ever.
    assert message(tmp_path, "c.mp4").startswith("c.mp4: expected a file, got something else; ")
    assert message(tmp_path, "d.avi", stream=1) == (
        "d.avi: expected a video stream 1, got 1 of them; correct `stream`"
    )
    assert message(tmp_path, None) == (
        "expected a video, got an empty cell; fill it in, or declare `on_error: skip`"
    )


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_clip_is_named(tmp_path: Path, share: float) -> None:
    drawn(tmp_path / "whole.mp4", 40, movflags="faststart")
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: int(share * len(data))])
    said = message(tmp_path, "a.mp4")
    assert said.startswith("a.mp4: expected ")
    assert "40" in said or "damaged" in said
    assert said.endswith("; copy the file again, or declare `on_error: skip`")


def test_a_truncated_real_clip_is_named(folder: Path, tmp_path: Path) -> None:
    for name in FRAMES:
        data = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(data[: 2 * len(data) // 3])
        assert message(tmp_path, name).endswith("or declare `on_error: skip`")


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Watched]]:
    """Decoders that are idle: none at first, and none is left."""
    found: list[Watched] = []
    monkeypatch.setattr(clips, "IDLE", found)
    yield found
    for decoder in found:
        decoder.close()


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "how, got", [(signal.SIGSTOP, "nothing for 0.5 s"), (signal.SIGKILL, "a crash of the decoder")]
)
def test_a_decoder_that_hangs_or_dies_is_replaced(
    how: int, got: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(tmp_path / "a.avi")
    monkeypatch.setattr(clips, "LIMIT", 0.5)
    clip = Clip(tmp_path / "a.avi", 0, "a.avi")
    first = clip.decoder.process
    assert first is not None
    os.kill(first.pid, how)
    begun = time.monotonic()
    with pytest.raises(DataError) as caught:
        clip.frame(3)
    assert time.monotonic() - begun < 5
    assert str(caught.value).startswith(f"a.avi: expected a further frame, got {got}; ")
    assert first.poll() is not None
    assert round(clip.frame(3).mean() / 10) == 3
    clip.close()
    other = Clip(tmp_path / "a.avi", 0, "a.avi")
    assert round(other.frame(3).mean() / 10) == 3
    other.close()


def test_a_decoder_is_used_again(tmp_path: Path, idle: list[Watched]) -> None:
    drawn(tmp_path / "a.avi")
    processes = set()
    for _ in range(3):
        clip = Clip(tmp_path / "a.avi", 0, "a.avi")
        processes.add(clip.decoder.process)
        assert len(list(clip.times())) == 12
        del clip  # not closed
    with pytest.raises(DataError):
        Clip(tmp_path / "b.avi", 0, "b.avi")
    assert len(processes) == 1 and len(idle) == 1


def test_a_clip_that_cannot_be_read_is_skipped_where_that_is_said(tmp_path: Path) -> None:
    drawn(tmp_path / "a.avi")
    (tmp_path / "b.avi").write_text("no video")
    field = video(tmp_path, on_error="skip")
    steps, lengths = field.unfold(pl.Series("x", ["a.avi", "b.avi", None, "a.avi"]), "clips")
    assert lengths.tolist() == [12, -1, -1, 12]
    assert len(steps) == 24


def test_references_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    drawn(tmp_path / "a.avi")
    field = video(tmp_path)
    frames = field.encode(pl.DataFrame({"x": ["a.avi#3", "a.avi#12"]}), "clips")
    with pytest.raises(DataError) as caught:
        frames[torch.arange(2)]
    assert str(caught.value) == (
        "clips: a.avi: expected a frame 12, got only 12; correct the reference"
    )
    with pytest.raises(DataError) as caught:
        field.encode(pl.DataFrame({"x": ["a.avi#3", "a.avi"]}), "clips")
    assert str(caught.value) == (
        "clips: column 'x', row 2: expected a reference to a frame, such as 'clip.mp4#17', "
        "got 'a.avi'; correct it"
    )


def test_a_silent_clip_has_no_sound_track(tmp_path: Path) -> None:
    drawn(tmp_path / "a.avi")
    with Decoder() as decoder, pytest.raises(DataError) as caught:
        list(decoder.read(tmp_path / "a.avi", "a.avi"))
    assert str(caught.value) == (
        "a.avi: expected a sound track, got none; take it out, or declare `on_error: skip`"
    )
