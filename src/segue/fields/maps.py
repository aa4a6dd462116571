"""Pictures in a network: kept as maps, or read into a vector."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from segue.errors import SpecError
from segue.fields.field import Encoder, EncoderState, Reading
from segue.layers import Linear
from segue.layers.compiled import NoForm
from segue.ops.program import Slot
from segue.ragged import Ragged


class PictureEncoder(Encoder):
    """Reads encoded pictures ``[N, C, *extents]``: bytes, or numbers that are scaled already.

    Bytes v become ``(v / 255 - shift) / scale``; a missing number becomes 0.
    """

    def __init__(self, shift: float, scale: float) -> None:
        super().__init__()
        self._shift, self._scale = shift, scale

    def scaled(self, pictures: Tensor) -> Tensor:
        """The same as float32."""
        if pictures.dtype == torch.uint8:
            return (pictures / 255 - self._shift) / self._scale
        return torch.nan_to_num(pictures, nan=0.0)

    def emit(self, at: Reading) -> tuple[Slot, tuple[int, ...]]:
        raise NoForm("an encoder of pictures")


class Maps(PictureEncoder):
    """Pictures as maps: squares of ``patch`` places along every extent become channels.

    ``[N, C, *extents] -> [N, C patch^d, *(extents / patch)]``, d extents; Shi et al., 2015
    (arXiv:1506.04214), section 4.

    Args:
        shape: C and the extents.
        patch: 1 leaves a picture as it is.

    Attributes:
        size: the extents of the maps.

    >>> encoder = Maps((1, 4, 4), patch=2)
    >>> encoder.features, encoder.size
    (4, (2, 2))
    """

    size: tuple[int, ...]

    def __init__(
        self, shape: Sequence[int], patch: int, *, shift: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__(shift, scale)
        channels, *extents = shape
        self.patch = patch
        self.features = channels * patch ** len(extents)
        self.size = tuple(extent // patch for extent in extents)

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        return patched(self.scaled(x.values), self.patch), state


class Convolutions(PictureEncoder):
    """Pictures as vectors of F features: three convolutions of stride 2, each with a ReLU, then a
    linear map of a grid of means, at most 4 x 4 of them.

    Args:
        shape: C, the height and the width.
        features: F.
    """

    WIDTHS = (16, 32, 64)
    GRID = 4

    def __init__(
        self, shape: Sequence[int], features: int, *, shift: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__(shift, scale)
        channels, height, width = shape
        self.features = features
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *self.WIDTHS)):
            layers += [_Halving(inputs, outputs), nn.ReLU()]
            height, width = -(-height // 2), -(-width // 2)
        grid = min(height, self.GRID), min(width, self.GRID)
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(grid), nn.Flatten())
        self.out = Linear(self.WIDTHS[-1] * grid[0] * grid[1], features)

    def unroll(
        self, x: Ragged, times: Tensor, elapsed: Tensor, state: EncoderState
    ) -> tuple[Tensor, EncoderState]:
        return self.out(self.layers(self.scaled(x.values))), state


class _Halving(nn.Module):
    """A convolution with a kernel of 3 x 3 and a stride of 2, zeros around the picture, as a linear
    map of its patches, whose sums do not depend on what else is in the batch.

    ``[N, I, H, W] -> [N, O, H / 2, W / 2]``, halves rounded up.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.map = Linear(9 * inputs, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        height, width = (-(-extent // 2) for extent in pictures.shape[2:])
        patches = nn.functional.unfold(pictures, 3, padding=1, stride=2).transpose(1, 2)
        places: Tensor = self.map(patches.reshape(-1, patches.shape[2]))
        return places.view(len(pictures), height, width, self.outputs).permute(0, 3, 1, 2)


def check_patch(where: str, shape: Sequence[int], patch: int) -> None:
    """Refuses patches that do not fill a picture.

    Raises:
        SpecError: an extent is no multiple of the patch.
    """
    for extent in shape[1:]:
        if extent % patch:
            fix = "choose another patch, or another size"
            expected = f"a divisor of the extents {list(shape[1:])}"
            raise SpecError(f"{where}.patch", expected, str(patch), fix)


def patched(pictures: Tensor, patch: int) -> Tensor:
    """``[N, C, *extents] -> [N, C patch^d, *(extents / patch)]``."""
    if patch == 1:
        return pictures
    count, channels, *extents = pictures.shape
    split = [size for extent in extents for size in (extent // patch, patch)]
    places = range(2, 2 + len(split))
    x = pictures.reshape(count, channels, *split).permute(0, 1, *places[1::2], *places[::2])
    return x.reshape(count, channels * patch ** len(extents), *split[::2])


def unpatched(maps: Tensor, patch: int) -> Tensor:
    """What `patched` made, back: ``[N, C patch^d, *sizes] -> [N, C, *(sizes patch)]``."""
    if patch == 1:
        return maps
    count, channels, *sizes = maps.shape
    d = len(sizes)
    x = maps.reshape(count, channels // patch**d, *[patch] * d, *sizes)
    order = [axis for k in range(d) for axis in (2 + d + k, 2 + k)]
    extents = (size * patch for size in sizes)
    return x.permute(0, 1, *order).reshape(count, channels // patch**d, *extents)
