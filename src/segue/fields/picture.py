"""One picture: read from a PNG or a JPEG, cut and brought to a size; by pillow."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from segue.errors import DataError
from segue.fields.extras import package

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = NDArray[np.uint8]
Colors = Literal["rgb", "gray"]

MOST = 2**26
"""Places of the largest picture that is read, 64 megapixels. A file of some kilobytes may unfold to
gigabytes (a decompression bomb).
"""


@dataclass(frozen=True)
class Frame:
    """How pictures are brought to one form.

    Attributes:
        crop: height and width of the middle part that is kept; None for all.
        size: height and width that the rest is brought to; None leaves it as it is.
        colors: three channels, or one.
    """

    crop: tuple[int, int] | None
    size: tuple[int, int] | None
    colors: Colors

    @property
    def channels(self) -> int:
        """C."""
        return 1 if self.colors == "gray" else 3

    def of(self, picture: Image, where: str) -> Bytes:
        """The picture in this form, ``[C, H, W]``. Where it becomes smaller, every place is a
        weighted mean of all that it covers.

        Raises:
            DataError: it is smaller than what is to be cut out.
        """
        if picture.mode.startswith("I"):  # 16 bits a place
            picture = _eight_bits(picture, where)
        picture = picture.convert("L" if self.colors == "gray" else "RGB")
        if self.crop is not None:
            height, width = self.crop
            if height > picture.height or width > picture.width:
                got = f"{picture.height} x {picture.width}"
                expected = f"a picture of at least {height} x {width}, which `crop` says"
                raise DataError(where, expected, got, "make `crop` smaller")
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            picture = picture.crop((left, top, left + width, top + height))
        if self.size is not None:
            height, width = self.size
            bilinear = pillow("Image", where).Resampling.BILINEAR
            picture = picture.resize((width, height), bilinear)
        places = np.asarray(picture, np.uint8)
        return places[None] if places.ndim == 2 else np.ascontiguousarray(places.transpose(2, 0, 1))


def _eight_bits(picture: Image, where: str) -> Image:
    places = np.asarray(picture, np.int64).clip(0, 65_535) // 257
    return drawn(places.astype(np.uint8), where)


def drawn(places: Bytes, where: str) -> Image:
    """Bytes ``[H, W]`` or ``[H, W, 3]`` as a picture of pillow."""
    picture: Image = pillow("Image", where).fromarray(places)
    return picture


def pillow(module: str, where: str) -> Any:
    """A module of pillow.

    Raises:
        SpecError: it is not installed.
    """
    return package(f"PIL.{module}", "video", where)


def read_picture(source: str | bytes, folder: Path, frame: Frame, origin: str) -> Bytes:
    """A PNG or a JPEG as bytes ``[C, H, W]``, turned as its camera says.

    Args:
        source: a path, relative to `folder`, or what such a file contains.

    Raises:
        DataError: no such file, no PNG or JPEG, damaged, or more than `MOST` places.
    """
    image, turned = pillow("Image", origin), pillow("ImageOps", origin).exif_transpose
    where = f"{origin}: {source}" if isinstance(source, str) else origin
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image.DecompressionBombWarning)
            file = folder / source if isinstance(source, str) else io.BytesIO(source)
            with image.open(file, formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MOST:
                    raise _bomb(where, f"{picture.width} x {picture.height}")
                return frame.of(turned(picture), where)
    except image.DecompressionBombError:
        raise _bomb(where, "one of far more") from None
    except image.UnidentifiedImageError:
        fix = "save the picture in one of these formats, or declare `on_error: skip`"
        raise DataError(where, "a PNG or a JPEG", "another format", fix) from None
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(where, error) from None


def _bomb(where: str, got: str) -> DataError:
    fix = "make the picture smaller, or declare `on_error: skip`"
    return DataError(where, f"a picture of at most {MOST:,} places", got, fix)


def _unreadable(where: str, error: Exception) -> DataError:
    """What the system or pillow said: a file that is not there, or one that is damaged."""
    if isinstance(error, OSError) and error.errno is not None:
        fix = "check the path, which is relative to the table, or declare `on_error: skip`"
        return DataError(where, "a readable file", os.strerror(error.errno), fix)
    got = f"a damaged one ({str(error).splitlines()[0]})"
    return DataError(where, "a whole picture", got, "copy it again, or declare `on_error: skip`")


def is_in_bytes(places: NDArray[Any]) -> bool:
    """Whether all numbers are from 0 to 255."""
    return bool((places >= 0).all() and (places <= 255).all())


def picture_of(values: Any, frame: Frame, where: str) -> Bytes:
    """A picture that is at hand, numbers from 0 to 255 ``[H, W]`` or ``[H, W, C]``, in its form.

    Raises:
        DataError: it is none.
    """
    expected = "a picture of numbers from 0 to 255, [H, W] or [H, W, 3]"
    fix = "give rows of equal length"
    try:
        places = np.array(values)
    except ValueError:
        raise DataError(where, expected, "rows of unequal length", fix) from None
    right = places.ndim == 2 or places.ndim == 3 and places.shape[2] in (1, 3)
    if not right or not places.size or places.dtype.kind not in "uifb":
        got = f"{list(places.shape)} of {places.dtype}"
        raise DataError(where, expected, got, fix)
    if not is_in_bytes(places):
        got = f"numbers from {places.min():g} to {places.max():g}"
        raise DataError(where, expected, got, "bring them to 0 to 255")
    places = places.astype(np.uint8)
    is_as_wanted = (1 if places.ndim == 2 else places.shape[2]) == frame.channels
    if is_as_wanted and frame.crop is None and frame.size is None:
        return (
            places.reshape(1, *places.shape[:2])
            if frame.channels == 1
            else places.transpose(2, 0, 1)
        )
    flat = places[..., 0] if places.shape[2:] == (1,) else places
    return frame.of(drawn(flat, where), where)
