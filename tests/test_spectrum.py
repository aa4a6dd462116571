"""Features of sound: against librosa and NumPy, and chunks against the whole."""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from segue.errors import ShapeError
from segue.fields.spectrum import Spectrum, dct, mel_bands

SETTINGS = [
    {"rate": 8000, "size": 40},
    {"rate": 16_000, "size": 80, "deltas": 1},
    {"rate": 22_050, "size": 64, "window": 0.03, "hop": 0.0125, "features": "mfcc", "deltas": 2},
    {"rate": 8000, "size": 20, "deltas": 1, "stack": 3},
    {"rate": 16_000, "size": 26, "hop": 0.025, "features": "mfcc", "coefficients": 26},
]


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise in bursts, so that frames differ."""
    rng = np.random.default_rng(seed)
    loud = 10.0 ** rng.uniform(-4, -0.5, count // 500 + 1).repeat(500)[:count]
    return np.clip(rng.normal(size=count) * loud, -1, 1).astype(np.float32)


@pytest.mark.parametrize("rate, size", [(8000, 40), (16_000, 80), (22_050, 64), (1800, 8)])
def test_log_mel_and_mfcc_equal_librosa(rate: int, size: int) -> None:
    samples = noise(rate)
    spectrum = Spectrum(rate=rate, size=size)
    energy = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=rate,
        n_fft=spectrum.window,
        hop_length=spectrum.hop,
        n_mels=size,
        center=False,
        dtype=np.float64,
    )
    expected = np.log(np.maximum(energy, 1e-10))
    assert spectrum(samples) == pytest.approx(expected.T, rel=1e-6, abs=1e-6)
    kept = min(13, size)
    mfcc = Spectrum(rate=rate, size=size, features="mfcc", coefficients=kept)
    theirs = librosa.feature.mfcc(S=expected, n_mfcc=kept, norm="ortho").T
    assert mfcc(samples) == pytest.approx(theirs, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("rate, window, size", [(8000, 200, 40), (16_000, 400, 80), (1800, 45, 8)])
def test_the_bands_are_those_of_librosa(rate: int, window: int, size: int) -> None:
    theirs = librosa.filters.mel(sr=rate, n_fft=window, n_mels=size, dtype=np.float64)
    assert np.abs(mel_bands(rate, window, size) - theirs).max() <= 1e-15


def test_the_transform_is_its_sum() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 7))
    n, k = np.arange(7), np.arange(7)[:, None]
    basis = np.sqrt(2 / 7) * np.cos(np.pi * k * (2 * n + 1) / 14)
    basis[0] /= np.sqrt(2)
    assert dct(rows) == pytest.approx(rows @ basis.T, abs=1e-14)


def test_deltas_are_slopes_that_librosa_finds_two_frames_later() -> None:
    spectrum = Spectrum(rate=8000, size=10, deltas=2)
    base, first, second = np.split(spectrum(noise(8000)), 3, axis=1)
    for values, slope in ((base, first), (first, second)):
        theirs = librosa.feature.delta(values, width=5, axis=0)
        assert slope[4:] == pytest.approx(theirs[2:-2], abs=1e-5)
    # Before the first frame stands the first frame.
    assert not first[0].any()
    assert first[1] == pytest.approx(2 * (base[1] - base[0]) / 10, abs=1e-6)


def test_a_frame_is_made_of_the_samples_up_to_its_end() -> None:
    spectrum, samples = Spectrum(rate=8000, deltas=1), noise(4000)
    whole = spectrum(samples)
    assert len(whole) == (4000 - spectrum.window) // spectrum.hop + 1
    for count in (0, 1, 30):
        end = count * spectrum.hop + spectrum.window
        assert len(spectrum(samples[: end - 1])) == count
        assert np.array_equal(spectrum(samples[:end]), whole[: count + 1])


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("size", [1, 7, 160, 1000, 4001])
def test_chunks_of_any_size_equal_the_whole_to_the_bit(settings: Any, size: int) -> None:
    spectrum, samples = Spectrum(**settings), noise(4000)
    state, parts = spectrum.initial_state(), []
    for first in range(0, len(samples), size):
        frames, state = spectrum.step(samples[first : first + size], state)
        parts.append(frames)
        assert len(state.samples) < spectrum.window + spectrum.hop
    assert np.array_equal(np.concatenate(parts), spectrum(samples))


def test_stacked_frames_stand_side_by_side() -> None:
    samples = noise(4000)
    one, three = Spectrum(rate=8000, deltas=1), Spectrum(rate=8000, deltas=1, stack=3)
    frames, steps = one(samples), three(samples)
    assert len(frames) == 48 and steps.shape == (16, 3 * 80)
    assert np.array_equal(steps, frames.reshape(16, 240))
    # The last frame ends after 3960 samples.
    assert len(three(samples[:3959])) == 15


def test_a_state_can_be_used_again() -> None:
    spectrum, samples = Spectrum(deltas=2), noise(6000)
    _, state = spectrum.step(samples[:3000], spectrum.initial_state())
    one, two = (spectrum.step(samples[3000:], state)[0] for _ in range(2))
    assert np.array_equal(one, two) and len(one)


def test_silence_is_finite() -> None:
    frames = Spectrum()(np.zeros(1000, np.float32))
    assert frames == pytest.approx(np.log(1e-10))


def test_samples_of_another_kind_are_refused() -> None:
    spectrum = Spectrum()
    for wrong in (np.zeros(9, np.int16), np.zeros((9, 2), np.float32)):
        with pytest.raises(ShapeError) as caught:
            spectrum(wrong)
        got = f"{wrong.dtype} {list(wrong.shape)}"
        expected = f"samples: expected floats [n] of one channel, got {got}; "
        assert str(caught.value) == expected + "divide 16-bit samples by 32768"
