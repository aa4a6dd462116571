"""Audio: from files, good and bad, to a model that listens; its features: test_spectrum.py."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import soxr
from catalogue_models import hold_equal
from numpy.typing import NDArray

import segue
from segue.data.read import read
from segue.errors import DataError, SpecError
from segue.fields.audio import Audio
from segue.fields.recording import Decoder, heard, mixed
from segue.run import declare, records
from segue.train import Started

RATE = 16_000


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise in bursts, so that frames differ."""
    rng = np.random.default_rng(seed)
    loud = 10.0 ** rng.uniform(-4, -0.5, count // 500 + 1).repeat(500)[:count]
    return np.clip(rng.normal(size=count) * loud, -1, 1).astype(np.float32)


def audio(folder: Path, **options: Any) -> Audio:
    field = Audio("x", ("x",), Audio.Spec.model_validate({"kind": "audio", **options}))
    field.folder = folder
    return field


def unfolded(field: Audio, *names: str | None) -> list[NDArray[np.float32]]:
    """The windows of each recording."""
    steps, lengths = field.unfold(pl.Series("x", names, dtype=pl.String), "rows")
    return np.split(steps.to_numpy(), np.cumsum(lengths)[:-1])


def message(field: Audio, *names: str | None) -> str:
    with pytest.raises(DataError) as caught:
        unfolded(field, *names)
    return str(caught.value)


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_file_is_the_features_of_its_samples(name: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, noise(50_000), RATE)
    samples, _ = soundfile.read(tmp_path / name, dtype="float32")
    field = audio(tmp_path)
    (frames,) = unfolded(field, name)
    assert np.array_equal(frames, field.spectrum(samples))


@pytest.mark.parametrize("own", [8000, 11_025, 44_100, 48_000])
def test_another_rate_is_what_soxr_makes_of_the_whole(own: int, tmp_path: Path) -> None:
    samples = noise(3 * own)
    soundfile.write(tmp_path / "a.wav", samples, own, subtype="FLOAT")
    field = audio(tmp_path)
    (frames,) = unfolded(field, "a.wav")
    assert np.array_equal(frames, field.spectrum(soxr.resample(samples, own, RATE)))


def test_channels_are_mixed_or_chosen_as_declared(tmp_path: Path) -> None:
    both = np.stack([noise(5000, 1), noise(5000, 2)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, RATE, subtype="FLOAT")
    heard_as = {"mean": both.sum(1) / 2, "left": both[:, 0], "right": both[:, 1], 1: both[:, 1]}
    for channel, samples in heard_as.items():
        field = audio(tmp_path, channels=channel)
        assert np.array_equal(unfolded(field, "a.wav")[0], field.spectrum(samples))
    expected = (
        "rows: column 'x', row 1 (a.wav): expected a channel 2, got 2 channels; declare another "
        "as `channels`"
    )
    assert message(audio(tmp_path, channels=2), "a.wav") == expected
    assert np.array_equal(mixed(both[:, :1], "mean", ""), both[:, 0])


def test_a_block_after_another_is_the_whole_file(tmp_path: Path) -> None:
    samples = noise(70_000)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with Decoder() as decoder:
        parts = list(heard(decoder, tmp_path / "a.wav", RATE, "mean", ""))
    assert len(parts) > 3 and np.array_equal(np.concatenate(parts), samples)


# Bad files ----------------------------------------------------------------------------------------

CUT = "it is cut off or damaged: copy it again or leave it out"
NOT = "expected a WAV, FLAC or OGG file"


def cut(name: str, keep: Callable[[int], int]) -> Callable[[Path], None]:
    """A file without its end."""

    def make(path: Path) -> None:
        soundfile.write(path, noise(40_000), RATE)
        data = path.read_bytes()
        path.write_bytes(data[: keep(len(data))])

    return make


def promising(path: Path) -> None:
    """A small RF64 file whose header promises 10^12 samples."""
    data = noise(4000).tobytes()
    sizes = struct.pack("<QQQI", 4 * 10**12 + 72, 4 * 10**12, 10**12, 0)
    form = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    chunks = [(b"ds64", 28, sizes), (b"fmt ", 16, form), (b"data", 2**32 - 1, data)]
    body = b"".join(name + struct.pack("<I", size) + own for name, size, own in chunks)
    path.write_bytes(b"RF64" + struct.pack("<I", 2**32 - 1) + b"WAVE" + body)


def promising_flac(path: Path) -> None:
    """A FLAC file whose header promises the most samples that it can, 2^36 - 1."""
    soundfile.write(path, noise(4000), RATE)
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)


def not_finite(path: Path) -> None:
    soundfile.write(path, np.array([0.0, np.nan] * 4000, np.float32), RATE, subtype="FLOAT")


BAD: list[tuple[str, Callable[[Path], Any], str]] = [
    ("gone.wav", lambda path: None, "a sound file, got No such file or directory; check the path"),
    (
        "folder.wav",
        lambda path: path.mkdir(),
        "a sound file, got a folder, a pipe or a device; check the path",
    ),
    ("pipe.wav", os.mkfifo, "a sound file, got a folder, a pipe or a device; check the path"),
    (
        "nothing.wav",
        lambda path: path.touch(),
        "a WAV, FLAC or OGG file, got an empty file; convert it or leave it out",
    ),
    (
        "text.wav",
        lambda path: path.write_text("not a sound"),
        "a WAV, FLAC or OGG file, got Format not recognised; convert it or leave it out",
    ),
    (
        "other.wav",
        lambda path: soundfile.write(path, noise(4000), RATE, format="AIFF"),
        "a WAV, FLAC or OGG file, got a AIFF file; convert it or leave it out",
    ),
    (
        "byte.wav",
        cut("wav", lambda size: size - 1),
        f"80000 bytes of samples, got 79999 bytes; {CUT}",
    ),
    (
        "half.wav",
        cut("wav", lambda size: size // 2),
        f"80000 bytes of samples, got 39978 bytes; {CUT}",
    ),
    (
        "half.flac",
        cut("flac", lambda size: size // 2),
        f"40000 samples, got only 16384 that can be read; {CUT}",
    ),
    (
        "byte.flac",
        cut("flac", lambda size: size - 1),
        f"40000 samples, got only 32768 that can be read; {CUT}",
    ),
    ("half.ogg", cut("ogg", lambda size: size // 2), f"an end of the stream, got none; {CUT}"),
    ("byte.ogg", cut("ogg", lambda size: size - 1), f"an end of the stream, got none; {CUT}"),
    (
        "promise.wav",
        promising,
        f"4000000000000 bytes of samples, got 16000 bytes; {CUT}",
    ),
    (
        "promise.flac",
        promising_flac,
        f"68719476735 samples, got only 4000 that can be read; {CUT}",
    ),
    (
        "zero.wav",
        lambda path: soundfile.write(path, noise(0), RATE),
        "at least a window of 0.025 s, got no samples; leave it out, or declare a shorter `window`",
    ),
    (
        "short.wav",
        lambda path: soundfile.write(path, noise(399), RATE),
        "at least a window of 0.025 s, got 0.0249 s; leave it out, or declare a shorter `window`",
    ),
    ("nan.wav", not_finite, "finite samples, got NaN or infinity; write the file again"),
    (
        "slow.wav",
        lambda path: soundfile.write(path, noise(399), 999),
        "at least 1000 samples per second, got 999; check its header",
    ),
]


@pytest.mark.parametrize("name, make, expected", BAD, ids=[name for name, *_ in BAD])
def test_a_bad_file_is_one_error_that_names_it(
    name: str, make: Callable[[Path], Any], expected: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    assert (
        message(audio(tmp_path), name) == f"rows: column 'x', row 1 ({name}): expected {expected}"
    )


def test_an_empty_cell_is_an_error(tmp_path: Path) -> None:
    expected = "rows: column 'x', row 1: expected a path to a sound file, got an empty cell; "
    assert message(audio(tmp_path), None) == expected + "fill it in"


def test_bad_files_are_skipped_where_it_is_declared(tmp_path: Path) -> None:
    for name, make, _ in BAD:
        make(tmp_path / name)
    soundfile.write(tmp_path / "good.wav", noise(4000), RATE, subtype="FLOAT")
    names = ["good.wav", *(name for name, *_ in BAD), None, "good.wav"]
    field = audio(tmp_path, on_error="skip")
    steps, lengths = field.unfold(pl.Series("x", names), "rows")
    frames = field.spectrum(noise(4000))
    assert lengths.tolist() == [len(frames), *[-1] * (len(BAD) + 1), len(frames)]
    assert np.array_equal(steps.to_numpy(), np.concatenate([frames, frames]))


def test_a_file_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(40_000), RATE)
    soundfile.write(tmp_path / "a.flac", noise(40_000), RATE)
    wave, flac = (bytearray((tmp_path / name).read_bytes()) for name in ("a.wav", "a.flac"))
    wave[40:44] = b"\xff" * 4
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    (tmp_path / "b.wav").write_bytes(wave)
    (tmp_path / "b.flac").write_bytes(flac)
    known_wave, wave_to_end, known_flac, flac_to_end = unfolded(
        audio(tmp_path), "a.wav", "b.wav", "a.flac", "b.flac"
    )
    assert np.array_equal(known_wave, wave_to_end)
    assert np.array_equal(known_flac, flac_to_end)


@pytest.mark.parametrize("how, got", [(signal.SIGSTOP, "nothing for 0.5 s"), (signal.SIGKILL, "a")])
def test_a_decoder_that_hangs_or_dies_is_replaced(how: int, got: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(4000), RATE, subtype="FLOAT")
    with Decoder(limit=0.5) as decoder:
        list(decoder.read(path, "a.wav"))
        first = decoder.files.process
        assert first is not None
        os.kill(first.pid, how)
        begun = time.monotonic()
        with pytest.raises(DataError) as caught:
            list(decoder.read(path, "a.wav"))
        assert time.monotonic() - begun < 5
        assert str(caught.value).startswith(f"a.wav: expected samples, got {got}")
        assert first.poll() is not None
        ((_, block),) = decoder.read(path, "a.wav")
        assert np.array_equal(block[:, 0], noise(4000))


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_missing_package_is_an_error_whatever_is_skipped(
    on_error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(4000), RATE)
    (tmp_path / "soundfile.py").write_text("raise ImportError('no libsndfile')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SpecError) as caught:
        unfolded(audio(tmp_path, on_error=on_error), "a.wav")
    expected = "rows: column 'x', row 1 (a.wav): expected the package soundfile, got "
    assert str(caught.value) == expected + "no libsndfile; pip install 'segue[audio]'"


def test_a_file_left_in_the_middle_does_not_answer_for_the_next(tmp_path: Path) -> None:
    for name, seed in (("a.wav", 1), ("b.wav", 2)):
        soundfile.write(tmp_path / name, noise(90_000, seed), RATE, subtype="FLOAT")
    with Decoder() as decoder:
        left = decoder.read(tmp_path / "a.wav", "a.wav")
        next(left)
        left.close()
        second = [block for _, block in decoder.read(tmp_path / "b.wav", "b.wav")]
    assert np.array_equal(np.concatenate(second)[:, 0], noise(90_000, 2))


def test_days_of_silence_in_a_small_file_are_refused(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 1000, 1) as file:
        for _ in range(23):
            file.write(np.zeros(1_000_000, np.int16))
    assert (tmp_path / "a.flac").stat().st_size < 1_000_000
    expected = "expected at most 6 hours of sound, got more; cut it into pieces"
    assert message(audio(tmp_path, rate=1000, size=4), "a.flac").endswith(expected)


# The kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            {"hop": 0.03},
            "inputs.x.hop: expected from one sample to a window, got 0.03 s, 480 samples, beside "
            "a window of 400; change hop or window",
        ),
        (
            {"size": 160},
            "inputs.x.size: expected bands with a bin each, got 160 bands, of which 4 lie "
            "between two bins 40 Hz apart; lower size or widen window",
        ),
        (
            {"features": "mfcc", "coefficients": 41},
            "inputs.x.coefficients: expected at most as many as bands, got 41 of 40 bands; raise "
            "size or lower coefficients",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(options: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        audio(tmp_path, **options)
    assert str(caught.value) == expected


def test_coefficients_are_scaled_by_the_windows_of_the_training_rows(tmp_path: Path) -> None:
    field = audio(tmp_path, size=3)
    values = np.random.default_rng(0).normal(-8, 2, (100_000, 3)).astype(np.float32)
    values[:, 2] = 1.5
    frame = pl.DataFrame({"x": pl.Series(values, dtype=pl.Array(pl.Float32, 3))})
    field.fit(frame)
    wide = values.astype(np.float64)
    spread = np.append(wide[:, :2].std(0), 1.0)
    expected = ((wide - wide.mean(0)) / spread).astype(np.float32)
    assert field.encode(frame, "rows").numpy() == pytest.approx(expected, abs=1e-6)


def test_a_live_window_encodes_as_the_file_does(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(8000), RATE)
    field = audio(tmp_path)
    steps, _ = field.unfold(pl.Series("x", ["a.wav"]), "rows")
    field.fit(steps.to_frame())
    encoded = field.encode(steps.to_frame(), "rows").numpy()
    windows = list(steps.to_numpy())
    assert np.array_equal(field.plain([(window,) for window in windows]), encoded)
    lists = field.column("x", [window.tolist() for window in windows], "records")
    assert np.array_equal(field.encode(lists.to_frame(), "records").numpy(), encoded)


def test_cells_may_hold_the_windows_themselves(tmp_path: Path) -> None:
    field = audio(tmp_path, size=3)
    cells = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [], [[7.0, 8.0, 9.0]]]
    steps, lengths = field.unfold(pl.Series("x", cells), "rows")
    assert lengths.tolist() == [2, 0, 1]
    assert steps.to_numpy().tolist() == [window for cell in cells for window in cell]
    with pytest.raises(DataError) as caught:
        field.unfold(pl.Series("x", [[[1.0, 2.0]]]), "rows")
    expected = "rows: 'x': expected the 3 numbers of a window, or null where it is not observed, "
    assert str(caught.value) == expected + "got [1.0, 2.0]; correct it"


@pytest.mark.parametrize("value", [None, [1.0, 2.0], "a.wav", [1.0, 2.0, float("nan")]])
def test_a_live_window_of_another_kind_is_refused(value: Any, tmp_path: Path) -> None:
    field = audio(tmp_path, size=3)
    assert field.plain([(value,)]) is None
    with pytest.raises(DataError):
        field.encode(field.column("x", [value], "records").to_frame(), "records")


# From a folder to a live session ------------------------------------------------------------------


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A folder of two folders of recordings, tones of two pitches with noise."""
    for place, pitch in enumerate((300, 1200)):
        (tmp_path / str(pitch)).mkdir()
        for index in range(6):
            count = 4000 + 900 * index
            wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(count) / RATE)
            samples = 0.1 * noise(count, 10 * place + index) + wave
            name = tmp_path / str(pitch) / f"{pitch}-{index}.wav"
            soundfile.write(name, samples.astype(np.float32), RATE, subtype="FLOAT")
    return tmp_path


QUICK: dict[str, Any] = {
    "model": {"hidden": 8},
    "training": {"epochs": 3},
    "split": {"by": "random", "valid": 0, "test": 4},
}


def declared(**options: Any) -> dict[str, Any]:
    return {
        "data": {"rows": "examples", "key": "name"},
        "inputs": {"place": {"kind": "audio", **options}},
        "outputs": {"pitch": {"task": "classify"}},
    }


def listed(folder: Path, *others: str) -> Path:
    """A table with the places of the recordings, and of others, relative to itself."""
    names = [*(path.relative_to(folder) for path in sorted(folder.glob("*/*.wav"))), *others]
    rows = {
        "place": [str(name) for name in names],
        "name": [f"n{row}" for row in range(len(names))],
        "pitch": ["low" if "300" in str(name) else "high" for name in names],
    }
    pl.DataFrame(rows).write_csv(folder / "list.csv")
    return folder / "list.csv"


def test_a_folder_of_folders_is_a_table_with_labels(tones: Path) -> None:
    table = read(tones)
    assert table.layout == "examples" and table.folder == tones
    assert table.frame.columns == ["file", "path", "label"]
    assert table.frame.row(0) == ("1200-0", "1200/1200-0.wav", "1200")
    one = read(tones / "300")
    assert one.frame.columns == ["file", "path"]
    assert one.frame["path"].to_list() == [f"300-{index}.wav" for index in range(6)]
    assert read(str(tones / "300" / "*.wav")).frame.equals(one.frame)
    assert read(tones / "300" / "300-2.wav").frame.rows() == [("300-2", "300-2.wav")]


def test_other_recordings_of_the_same_names_are_another_table(tones: Path) -> None:
    before = read(tones).fingerprint
    assert read(tones).fingerprint == before
    soundfile.write(tones / "300" / "300-0.wav", noise(5000), RATE)
    assert read(tones).fingerprint != before


def test_paths_are_recognised(tones: Path) -> None:
    spec = segue.look(tones).declaration.to_dict()
    assert spec["data"]["rows"] == "examples" and spec["data"]["key"] == "file"
    assert spec["inputs"] == {"path": {"kind": "audio"}}
    assert spec["outputs"] == {"label": {"task": "classify"}}
    spec = segue.look(listed(tones), target="pitch").declaration.to_dict()
    assert spec["data"]["rows"] == "examples"
    assert spec["inputs"]["place"] == {"kind": "audio"}


def test_a_session_fed_with_chunks_of_samples_ends_where_predict_does(tones: Path) -> None:
    run = segue.fit(tones, **QUICK)
    told = run.predict(tones)
    spectrum = run.trained.fields["path"].spectrum  # type: ignore[attr-defined]
    for row, path in enumerate(sorted(tones.glob("*/*.wav"))):
        samples, _ = soundfile.read(path, dtype="float32")
        session, state, answers = run.session(), spectrum.initial_state(), []
        for first in range(0, len(samples), 700):
            windows, state = spectrum.step(samples[first : first + 700], state)
            answers += session.chunk({"path": window} for window in windows)
        assert told["file"][row] == path.stem
        hold_equal(answers[-1], told.select(list(answers[-1])).row(row, named=True))


def test_what_was_skipped_is_counted_and_other_rows_keep_their_names(tones: Path) -> None:
    (tones / "bad.wav").write_text("not a sound")
    source = listed(tones, "bad.wav", "gone.wav")
    spec = declared(on_error="skip")
    started = next(records(declare(spec), read(source)))
    assert isinstance(started, Started) and (started.sequences, started.skipped) == (12, 2)
    run = segue.fit(spec, source, **QUICK)
    found = run.predict(source)
    assert found["name"].to_list() == [f"n{row}" for row in range(12)]
    with pytest.raises(DataError) as caught:
        segue.fit(declared(), source, **QUICK)
    expected = "list.csv: column 'place', row 13 (bad.wav): expected a WAV, FLAC or OGG file, got "
    assert str(caught.value).startswith(expected)


def test_rows_without_a_key_keep_their_numbers_where_others_are_skipped(tones: Path) -> None:
    good = sorted(tones.glob("*/*.wav"))
    frame = pl.DataFrame(
        {"place": ["gone.wav", *map(str, good)], "pitch": ["300", *(p.parent.name for p in good)]}
    )
    spec = declared(on_error="skip")
    del spec["data"]["key"]
    run = segue.fit(spec, frame, **QUICK)
    assert run.predict(frame)["row"].to_list() == list(range(1, 13))


def test_a_recording_apart_is_read_beside_the_steps(tones: Path) -> None:
    frame = pl.read_csv(listed(tones), schema_overrides={"pitch": pl.String})
    frame = frame.with_columns(
        place=pl.Series([str(tones / place) for place in frame["place"]]),
        x=pl.Series([[0.0] * (1 + row % 3) for row in range(frame.height)]),
    )
    spec = declared(role="apart", rate=8000)
    spec["inputs"]["x"] = {"kind": "number"}
    run = segue.fit(spec, frame, **{**QUICK, "training": {"epochs": 30}})
    assert run.evaluation is not None
    assert run.evaluation.scores["pitch"].metrics["accuracy"] == 1.0
    told = run.predict(frame)
    for row, cells in enumerate(frame.iter_rows(named=True)):
        steps = [{"place": cells["place"], "x": x} for x in cells["x"]]
        answer = run.session().chunk(steps)[-1]
        hold_equal(answer, told.select(list(answer)).row(row, named=True))


def test_a_recording_alone_may_be_apart(tones: Path, tmp_path: Path) -> None:
    run = segue.fit(declared(role="apart"), listed(tones), **{**QUICK, "split": {"by": "none"}})
    told = run.predict(tones / "list.csv")
    assert told.height == 12
    answer = run.session().step({"place": str(sorted(tones.glob("*/*.wav"))[0])})
    hold_equal(answer, told.select(list(answer)).row(0, named=True))
    run.save(tmp_path / "run")
