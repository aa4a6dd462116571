"""`Spectrum`: samples to feature vectors, frame by frame, in chunks of any size.

Everything is computed row by row: a frame's numbers are the same bits whatever the chunk that it
came in. That is why the transforms are NumPy's, which take one row after another, and the sums over
bins are not matrix products, whose order of summation depends on how many rows there are.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segue.errors import ShapeError, SpecError

Samples: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["log_mel", "mfcc"]

FLOOR = 1e-10
"""The least energy of a band: about that of the rounding of 16-bit samples."""
REACH = 2
"""M of the deltas."""
AT_ONCE = 4096
"""Frames that are computed together; this bounds the memory and never changes an answer."""


class SpectrumState(NamedTuple):
    """What is remembered between chunks.

    Attributes:
        samples: those that the next frames need, fewer than a window and a hop.
        past: for each order of deltas the last 2 M rows that it is the slope of, ``[2 M, F]``;
            no rows before the first frame.
        frames: those that wait for others to be stacked with, fewer than `stack`.
    """

    samples: Samples
    past: tuple[Rows, ...]
    frames: NDArray[np.float32]


class Spectrum:
    """Log-mel energies or cepstral coefficients of windows of W samples, one every `hop`.

    Frame t is made of the samples ``t hop .. t hop + W - 1`` and of no others (no padding), so it
    is there as soon as its last sample is. With w the periodic Hann window::

        w[n]  = 1/2 - 1/2 cos(2 pi n / W)
        P[k]  = |sum_n w[n] x[t hop + n] exp(-2 pi i k n / W)|^2         k = 0 .. W / 2
        E[b]  = sum_k H[b, k] P[k]                                       b = 0 .. size - 1
        log_mel[b] = ln max(E[b], 1e-10)
        mfcc[c]    = a_c sum_b log_mel[b] cos(pi c (2 b + 1) / (2 size))
                     a_0 = sqrt(1 / size), a_c = sqrt(2 / size)

    H is the filterbank of Slaney's Auditory Toolbox (1998), see `mel_bands`; the second sum is the
    orthonormal DCT-II (Davis and Mermelstein, 1980). Deltas are the slope over the last 2 M + 1 = 5
    frames, which lies M frames back, because nothing is known of later ones; before the first frame
    stands the first one::

        d[t] = sum_{m=1..M} m (c[t - M + m] - c[t - M - m]) / (2 sum_{m=1..M} m^2)

    With a `stack` of k, frames ``k s .. k s + k - 1`` side by side are step s, so that there are
    fewer steps; what is left at the end is no step.

    Args:
        rate: samples per second.
        features: ``log_mel`` or ``mfcc``.
        size: mel bands.
        coefficients: how many of the mfcc are kept, from c = 0 on.
        window, hop: in seconds; rounded to whole samples.
        deltas: how many times the deltas of what stands before are appended.
        stack: frames of a step.

    Raises:
        SpecError: the hop is longer than the window or shorter than a sample, a band has no bin, or
            there are more coefficients than bands.

    >>> spectrum = Spectrum(rate=8000, size=4)
    >>> tone = np.sin(np.arange(400) * 0.5, dtype=np.float32)
    >>> frames, state = spectrum.step(tone[:300], spectrum.initial_state())
    >>> more, state = spectrum.step(tone[300:], state)
    >>> len(frames), len(more), np.array_equal(np.concatenate([frames, more]), spectrum(tone))
    (2, 1, True)
    """

    def __init__(
        self,
        *,
        rate: int = 16_000,
        features: Kind = "log_mel",
        size: int = 40,
        coefficients: int = 13,
        window: float = 0.025,
        hop: float = 0.01,
        deltas: int = 0,
        stack: int = 1,
    ) -> None:
        self.rate, self.deltas, self.stack = rate, deltas, stack
        self.window, self.hop = round(window * rate), round(hop * rate)
        if not 1 <= self.hop <= self.window:
            got = f"{hop:g} s, {self.hop} samples, beside a window of {self.window}"
            raise SpecError("hop", "from one sample to a window", got, "change hop or window")
        if features == "mfcc" and coefficients > size:
            got, fix = f"{coefficients} of {size} bands", "raise size or lower coefficients"
            raise SpecError("coefficients", "at most as many as bands", got, fix)
        self._kept = coefficients if features == "mfcc" else None
        self._hann = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(self.window) / self.window)
        self._bins, self._weights, self._starts = _packed(mel_bands(rate, self.window, size))
        self.base = self._kept or size
        self._frame = self.base * (1 + deltas)
        self.width = self._frame * stack
        """F, the numbers of a step."""

    def initial_state(self) -> SpectrumState:
        """Before the first sample."""
        past = tuple(np.empty((0, self.base)) for _ in range(self.deltas))
        return SpectrumState(np.empty(0, np.float32), past, np.empty((0, self._frame), np.float32))

    def step(
        self, samples: NDArray[np.floating], state: SpectrumState
    ) -> tuple[NDArray[np.float32], SpectrumState]:
        """The steps that end within `samples`, float32 ``[T, F]``, and the state after them.

        Args:
            samples: any number of them, floats between -1 and 1, ``[n]``.

        Raises:
            ShapeError: they are not such.
        """
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            got, fix = f"{samples.dtype} {list(samples.shape)}", "divide 16-bit samples by 32768"
            raise ShapeError("samples", "floats [n] of one channel", got, fix)
        heard = np.concatenate([state.samples, samples.astype(np.float32, copy=False)])
        count = max(0, (len(heard) - self.window) // self.hop + 1)
        frames, past = np.empty((count, self._frame), np.float32), state.past
        for first in range(0, count, AT_ONCE):
            last = min(count, first + AT_ONCE)
            own = heard[first * self.hop : (last - 1) * self.hop + self.window]
            frames[first:last], past = self._with_deltas(self._base(own), past)
        rest = heard[count * self.hop :].copy()
        if self.stack == 1:
            return frames, SpectrumState(rest, past, state.frames)
        frames = np.concatenate([state.frames, frames])
        whole = len(frames) // self.stack * self.stack
        steps = frames[:whole].reshape(-1, self.width)
        return steps, SpectrumState(rest, past, frames[whole:].copy())

    def __call__(self, samples: NDArray[np.floating]) -> NDArray[np.float32]:
        """All steps of a whole recording, ``[T, F]``."""
        return self.step(samples, self.initial_state())[0]

    def _base(self, samples: Samples) -> Rows:
        """Log-mel energies or coefficients, ``[T, base]``."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        bins = np.fft.rfft(windows * self._hann, axis=1)
        power = np.square(bins.real) + np.square(bins.imag)
        energy = np.add.reduceat(power[:, self._bins] * self._weights, self._starts, axis=1)
        log_mel = np.log(np.maximum(energy, FLOOR))
        return log_mel if self._kept is None else dct(log_mel)[:, : self._kept]

    def _with_deltas(self, rows: Rows, past: tuple[Rows, ...]) -> tuple[Rows, tuple[Rows, ...]]:
        parts, after = [rows], []
        for before in past:
            slope, rest = _slope(parts[-1], before)
            parts.append(slope)
            after.append(rest)
        return np.concatenate(parts, axis=1), tuple(after)


def mel_bands(rate: int, window: int, size: int) -> Rows:
    """Slaney's filterbank ``[size, window // 2 + 1]``: triangles of area one (in Hz) over the bins
    of a transform. Their corners ``f[0] .. f[size + 1]`` are evenly spaced in mel, from 0 to half
    the rate::

        mel(f) = 3 f / 200                            below 1000 Hz
               = 15 + 27 ln(f / 1000) / ln(6.4)       above
        H[b, k] = 2 / (f[b+2] - f[b]) max(0, min((f_k - f[b]) / (f[b+1] - f[b]),
                                                 (f[b+2] - f_k) / (f[b+2] - f[b+1])))

    Raises:
        SpecError: a band lies between two bins.
    """
    step = math.log(6.4) / 27
    nyquist = rate / 2
    top = 3 * nyquist / 200 if nyquist < 1000 else 15 + math.log(nyquist / 1000) / step
    mels = np.linspace(0, top, size + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(window // 2 + 1) * (rate / window)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    bands: Rows = 2 / (high - low) * np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(~bands.any(axis=1))
    if len(empty):
        got = (
            f"{size} bands, of which {len(empty)} lie between two bins {rate / window:.0f} Hz apart"
        )
        raise SpecError("size", "bands with a bin each", got, "lower size or widen window")
    return bands


def dct(rows: Rows) -> Rows:
    """The orthonormal DCT-II of each row ``[T, n]``, by the transform of the row and its mirror."""
    n = rows.shape[1]
    bins = np.fft.rfft(np.concatenate([rows, rows[:, ::-1]], axis=1), axis=1)[:, :n]
    angle = math.pi * np.arange(n) / (2 * n)
    scale = np.full(n, math.sqrt(1 / (2 * n)))
    scale[0] = math.sqrt(1 / (4 * n))
    # Real products: a complex one may be rounded otherwise at the end of a row than within it.
    turned: Rows = (bins.real * np.cos(angle) + bins.imag * np.sin(angle)) * scale
    return turned


def _packed(
    bands: Rows,
) -> tuple[NDArray[np.intp], Rows, NDArray[np.intp]]:
    """The bins and weights of all bands one after another, and where each band begins."""
    band, bins = np.nonzero(bands)
    return bins, bands[band, bins], np.searchsorted(band, np.arange(len(bands)))


def _slope(rows: Rows, before: Rows) -> tuple[Rows, Rows]:
    """The deltas of `rows` ``[T, F]``, and the last 2 M rows for the next ones."""
    if not len(rows):
        return rows, before
    known = before if len(before) else np.repeat(rows[:1], 2 * REACH, axis=0)
    known = np.concatenate([known, rows])
    count = len(rows)
    total = np.zeros_like(rows)
    for m in range(1, REACH + 1):
        later, earlier = known[REACH + m :][:count], known[REACH - m :][:count]
        total += m * (later - earlier)
    return total / (2 * sum(m * m for m in range(1, REACH + 1))), known[-2 * REACH :]
