"""The next S frames of a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.errors import SpecError
from segue.fields import Field
from segue.fields.image import Pictures
from segue.fields.maps import Maps, unpatched
from segue.fields.vector import Vector
from segue.layers.frames import FrameDecoder
from segue.schema import Output, Positive
from segue.sequences import Part, Sequences
from segue.tasks.similarity import ssim
from segue.tasks.task import Metrics, Task

AT_ONCE = 2**24
"""Numbers of the frames that are scored at once; bounds the memory."""


class NextFrame(Task):
    """From a frame t, the frames t+1 .. t+S of the same input, which keeps its maps.

    The head is a `segue.layers.frames.FrameDecoder`; the loss of a frame is the squared error in
    units of the standard deviation (or what else the input is scaled by), averaged over its places.

    Metrics, over all frames foretold: ``mse`` and ``mae`` per place, where bytes count from 0 to 1;
    ``psnr``, the mean over the frames of 10 log10(range^2 / mse of the frame) in decibels; and
    ``ssim`` (`segue.tasks.similarity`). Frames foretold are held to the range, that of bytes or of
    the training rows.

    Baselines: the present frame once more (``last frame``), and the mean frame of the training
    rows.
    """

    title = "Foretelling {horizon} frames of {name}"
    every = True
    main = "mse"

    class Spec(Output):
        """Options of task `next_frame`.

        Attributes:
            horizon: S, how many frames ahead.
            after: frames that are read before the first ones are foretold, in learning and in
                scores.
            stride: in learning, from how many frames on frames are foretold next; 1 is from every
                one.
            kernel: of the convolutional LSTM that foretells; odd.
        """

        reads_itself: ClassVar[bool] = True
        horizon: Positive
        after: Positive = 1
        stride: Positive = 1
        kernel: Positive = 3

    def __init__(self, name: str, columns: tuple[str, ...], spec: Spec) -> None:
        super().__init__(name, columns, spec)
        self.horizon, self.after, self.stride = spec.horizon, spec.after, spec.stride
        self._kernel = spec.kernel
        self.field: Pictures | Vector | None = None
        self.mean = torch.zeros(0)
        """The mean frame of the training rows, ``[C, *extents]``, scaled."""
        self.low, self.high = 0.0, 1.0
        """The range of the values."""

    def use(self, fields: Mapping[str, Field]) -> None:
        found = fields.get(self.name)
        if not (isinstance(found, Pictures | Vector) and found.maps):
            got = "no such input" if found is None else f"{type(found).__name__.lower()}"
            expected = "an input of the same name that keeps its maps"
            fix = f"declare `inputs.{self.name}: {{kind: video, maps: true}}`"
            raise SpecError(f"outputs.{self.name}", expected, got, fix)
        self.field = found

    @property
    def _maps(self) -> Maps:
        assert self.field is not None
        encoder = self.field.encoder()
        assert isinstance(encoder, Maps)
        return encoder

    @property
    def _in_bytes(self) -> bool:
        return isinstance(self.field, Pictures)

    @property
    def _unit(self) -> tuple[float, float]:
        """What a scaled value is multiplied by, and what is added, to be one in the user's."""
        if isinstance(self.field, Vector):
            return float(self.field.scale[0]), float(self.field.shift[0])
        assert self.field is not None
        return self.field.scale, self.field.shift

    def fit(self, train: Sequences, fields: Mapping[str, Field]) -> None:
        self.use(fields)
        total, count = torch.zeros(1), 0
        lows, highs = [], []
        for frames in self._frames(train):
            total, count = total + frames.double().sum(0), count + len(frames)
            lows.append(float(frames.min()))
            highs.append(float(frames.max()))
        self.mean = (total / max(1, count)).float()
        if not self._in_bytes:
            scale, shift = self._unit
            self.low, self.high = min(lows) * scale + shift, max(highs) * scale + shift

    def _frames(self, sequences: Sequences) -> Iterator[Tensor]:
        """All frames, scaled, some at a time: ``[n, C, *extents]``."""
        assert self.field is not None
        encoded, scaled = self.field.encode(sequences.steps, sequences.origin), self._maps.scaled
        some = max(1, AT_ONCE // max(1, int(encoded[torch.arange(1)].numel())))
        for low in range(0, len(encoded), some):
            yield scaled(encoded[torch.arange(low, min(low + some, len(encoded)))])

    def encode(self, sequences: Sequences) -> NoReturn:
        raise AssertionError("frames to come are gathered per batch; see Store.targets_at")

    def learns_from(self, read: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The frames that are learnt from.

        Args:
            read: how many were read when each has been.
            left: how many there are after each.
        """
        places = (read - self.after) % self.stride == 0
        chosen: NDArray[np.bool_] = (read >= self.after) & (left >= self.horizon) & places
        return chosen

    def future(self, frames: Tensor, there: NDArray[np.bool_]) -> Tensor:
        """Encoded frames ``[M, S, ...]`` as targets, scaled: NaN where there are none."""
        target = self._maps.scaled(frames.flatten(0, 1)).view(frames.shape)
        gone = torch.from_numpy(~there)
        target[gone] = torch.nan
        return target

    def head(self, features: int) -> nn.Module:
        return FrameHead(self.name, features, self._maps, self.horizon, self._kernel)

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        seen = ~target.flatten(2).isnan().any(2)
        return (output[seen] - target[seen]).square().flatten(1).mean(1)

    def metrics(self, output: Tensor, target: Tensor) -> Metrics:
        sums = torch.zeros(5, dtype=torch.float64)
        some = max(1, AT_ONCE // max(1, output[:1].numel()))
        for one, other in zip(torch.split(output, some), torch.split(target, some), strict=True):
            sums += self._sums(one, other)
        return self._means(sums)

    def _sums(self, output: Tensor, target: Tensor) -> Tensor:
        """The sums over all frames ``[M, S]`` of their scores, and how many there are."""
        seen = ~target.flatten(2).isnan().any(2)
        ours, theirs = self._told(output[seen]), self._told(target[seen])
        error, span = (ours - theirs).flatten(1), self.high - self.low
        mse = error.square().mean(1)
        psnr = 10 * torch.log10(span**2 / mse.clamp(min=1e-10 * span**2))
        alike = ssim(ours, theirs, span)
        parts = (mse, error.abs().mean(1), psnr, alike, torch.ones_like(mse))
        return torch.stack([part.double().sum() for part in parts])

    @staticmethod
    def _means(sums: Tensor) -> Metrics:
        names = ("mse", "mae", "psnr", "ssim")
        return dict(zip(names, (sums[:-1] / sums[-1]).tolist(), strict=True))

    def _told(self, frames: Tensor) -> Tensor:
        """Scaled frames in the user's units, within the range."""
        scale, shift = self._unit
        return (frames * scale + shift).clamp(self.low, self.high)

    def baselines(self, sequences: Sequences, part: Part) -> dict[str, Metrics]:
        assert self.field is not None
        encoded, scaled = self.field.encode(sequences.steps, sequences.origin), self._maps.scaled
        sums = {name: torch.zeros(5, dtype=torch.float64) for name in ("last frame", "mean frame")}
        some = max(1, AT_ONCE // max(1, self.mean.numel() * self.horizon))
        for row, start, stop in zip(part.rows, part.start, part.stop, strict=True):
            first = int(sequences.offsets[row])
            for low in range(max(start, self.after) - 1, stop - self.horizon, some):
                now = torch.arange(low, min(low + some, stop - self.horizon))
                ahead = now[:, None] + torch.arange(1, self.horizon + 1)
                span = scaled(encoded[first + torch.arange(low, int(ahead.max()) + 1)])
                frames = span[ahead - low]
                answers = {"last frame": span[now - low][:, None], "mean frame": self.mean}
                for name, answer in answers.items():
                    sums[name] += self._sums(answer.expand(frames.shape), frames)
        return {name: self._means(found) for name, found in sums.items()}

    def decode(self, output: Tensor) -> pl.DataFrame:
        """``[M, S, C, *extents]`` to M * S rows, each with a frame as the input takes it."""
        frames = self._shown(output).flatten(0, 1)
        dtype: Any = pl.UInt8 if self._in_bytes else pl.Float64
        for _ in frames.shape[1:]:
            dtype = pl.List(dtype)
        return pl.DataFrame([pl.Series(self.name, frames.numpy()).cast(dtype)])

    def answers(self, output: NDArray[Any]) -> dict[str, list[Any]]:
        return {self.name: self._shown(torch.from_numpy(output)).tolist()}

    def _shown(self, output: Tensor) -> Tensor:
        """Frames as the input takes them: bytes ``[..., H, W]`` or ``[..., H, W, 3]``, or lists."""
        told = self._told(output)
        if not self._in_bytes:
            return told.double().flatten(2)
        frames = (255 * told).round().to(torch.uint8)
        return frames[:, :, 0] if frames.shape[2] == 1 else frames.movedim(2, -1)

    def fitted(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "range": [self.low, self.high]}

    def restore(self, fitted: dict[str, Any]) -> None:
        self.mean = torch.tensor(fitted["mean"])
        self.low, self.high = fitted["range"]


class FrameHead(nn.Module):
    """`FrameDecoder` over maps, whose frames are pictures again.

    Attributes:
        reads_maps: it reads the hidden maps, not their means.
        reads_input: the input whose present frame it reads beside them.
        numbers_per_step: about how many numbers it makes for every frame.
    """

    reads_maps = True

    def __init__(self, name: str, features: int, maps: Maps, horizon: int, kernel: int) -> None:
        super().__init__()
        self.reads_input, self._patch = name, maps.patch
        self.decoder = FrameDecoder(features, maps.features, maps.size, horizon, kernel)
        places = int(np.prod(maps.size))
        self.numbers_per_step = horizon * places * (8 * features + 4 * maps.features)

    def forward(self, hidden: Tensor, frame: Tensor) -> Tensor:
        """``[M, H, *size]`` and ``[M, C patch^d, *size]`` to ``[M, S, C, *extents]``."""
        frames = self.decoder(hidden, frame)
        whole = unpatched(frames.flatten(0, 1), self._patch)
        return whole.view(*frames.shape[:2], *whole.shape[1:])
