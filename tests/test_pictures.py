"""Pictures from files and at hand: their forms, and what is wrong with them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pil

import segue
from segue.errors import DataError, SpecError
from segue.fields import KINDS
from segue.fields.image import Image
from segue.fields.maps import Convolutions, Maps, patched, unpatched
from segue.fields.vector import Vector
from segue.ragged import Ragged

RNG = np.random.default_rng(0)
SHOWN = RNG.integers(0, 256, (5, 7, 3), np.uint8)


def image(folder: Path = Path(), **options: Any) -> Image:
    made = Image("x", ("x",), Image.Spec.model_validate({"kind": "image", **options}))
    made.folder = folder
    return made


def vector(**options: Any) -> Vector:
    return Vector("x", ("x",), Vector.Spec.model_validate({"kind": "vector", **options}))


def unfolded(field: Any, cells: list[Any], dtype: Any = None) -> tuple[NDArray[Any], list[int]]:
    steps, lengths = field.unfold(pl.Series("x", cells, dtype=dtype), "pictures.csv")
    return steps.to_numpy(), lengths.tolist()


def message(field: Any, cells: list[Any], dtype: Any = None) -> str:
    with pytest.raises(DataError) as caught:
        unfolded(field, cells, dtype)
    return str(caught.value)


def png(places: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Pil.fromarray(places).save(file, "PNG")
    return file.getvalue()


# Forms --------------------------------------------------------------------------------------------


def test_a_file_its_bytes_and_its_numbers_are_one_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(SHOWN))
    expected = SHOWN.transpose(2, 0, 1).reshape(1, -1)
    for cell in ("a.png", png(SHOWN), SHOWN.tolist()):
        steps, lengths = unfolded(image(tmp_path), [cell])
        assert lengths == [1]
        assert np.array_equal(steps, expected)


def test_a_list_of_paths_is_a_sequence_of_pictures(tmp_path: Path) -> None:
    for name, places in (("a.png", SHOWN), ("b.png", 255 - SHOWN)):
        (tmp_path / name).write_bytes(png(places))
    steps, lengths = unfolded(image(tmp_path), [["a.png", "b.png"], [], ["b.png"]])
    assert lengths == [2, 0, 1]
    assert np.array_equal(steps[1], steps[2])
    assert np.array_equal(steps[0].astype(int) + steps[1], np.full(105, 255))


def test_rows_of_a_picture_are_steps_from_top_to_bottom() -> None:
    field = image(steps="rows")
    steps, lengths = unfolded(field, [SHOWN.tolist()])
    assert lengths == [5]
    assert np.array_equal(steps, SHOWN.transpose(0, 2, 1).reshape(5, 21))
    field.fit(pl.DataFrame({"x": steps}, schema={"x": pl.Array(pl.UInt8, 21)}))
    encoded = field.encode(pl.DataFrame({"x": pl.Series(steps)}), "rows").numpy()
    scaled = (steps / 255 - (steps / 255).mean()) / (steps / 255).std()
    assert np.abs(encoded - scaled).max() <= 1e-5


def test_the_middle_is_cut_out_then_brought_to_a_size() -> None:
    cut, _ = unfolded(image(crop=[3, 3]), [SHOWN.tolist()])
    assert np.array_equal(cut[0], SHOWN[1:4, 2:5].transpose(2, 0, 1).ravel())
    even = np.full((6, 8), 77, np.uint8)
    small, _ = unfolded(image(crop=4, size=2, colors="gray"), [even.tolist()])
    assert small.tolist() == [[77] * 4]


def test_gray_is_the_luma_of_itu_r_601() -> None:
    gray, _ = unfolded(image(colors="gray"), [SHOWN.tolist()])
    luma = SHOWN @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[0] - luma.ravel()).max() <= 1


def test_a_picture_of_16_bits_keeps_its_range(tmp_path: Path) -> None:
    Pil.fromarray(np.array([[0, 65_535], [257, 32_896]], np.uint16)).save(tmp_path / "a.png")
    steps, _ = unfolded(image(tmp_path, colors="gray"), ["a.png"])
    assert steps.tolist() == [[0, 255, 1, 128]]


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    tags = Pil.Exif()
    tags[0x0112] = 6  # the top of the scene is at the right
    Pil.fromarray(SHOWN).save(tmp_path / "a.jpg", exif=tags, quality=100)
    field = image(tmp_path)
    unfolded(field, ["a.jpg"])
    assert field.shape == (3, 7, 5)


def test_patches_become_channels_and_back() -> None:
    for shape in ((2, 3, 8), (2, 3, 8, 4), (2, 1, 4, 8, 6)):
        x = torch.from_numpy(RNG.normal(size=shape))
        made = patched(x, 2)
        d = len(shape) - 2
        assert made.shape == (2, shape[1] * 2**d, *(extent // 2 for extent in shape[2:]))
        assert torch.equal(unpatched(made, 2), x)
        corner = made[:, 0, *[0] * d]
        assert torch.equal(corner, x[:, 0, *[0] * d])
    x = torch.from_numpy(RNG.normal(size=(2, 3, 8, 4)))
    assert torch.equal(patched(x, 4), torch.nn.functional.pixel_unshuffle(x, 4))


def test_the_convolutions_are_those_of_torch() -> None:
    encoder = Convolutions((3, 9, 6), 5, shift=0.4, scale=0.3)
    x = torch.from_numpy(RNG.integers(0, 256, (4, 3, 9, 6), np.uint8))
    y = (x / 255 - 0.4) / 0.3
    for layer in encoder.layers:
        if hasattr(layer, "map"):
            weight = layer.map.weight.view(-1, y.shape[1], 3, 3)
            y = torch.nn.functional.conv2d(y, weight, layer.map.bias, stride=2, padding=1).relu()
    y = encoder.out(y.flatten(1))  # 2 x 1 places, which are a grid of their own
    found = encoder.unroll(Ragged(x, torch.tensor([4])), torch.zeros(4), torch.zeros(4), ())[0]
    assert (found - y).abs().max() <= 1e-5


# What is wrong ------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert message(image(tmp_path), ["a.png"]) == (
        "pictures.csv: column 'x', row 1: a.png: expected a readable file, "
        "got No such file or directory; check the path, which is relative to the table, "
        "or declare `on_error: skip`"
    )


def test_another_format_is_named(tmp_path: Path) -> None:
    Pil.fromarray(SHOWN).save(tmp_path / "a.gif")
    (tmp_path / "b.png").write_text("no picture")
    for row, name in enumerate(("a.gif", "b.png")):
        assert message(image(tmp_path), [name]) == (
            f"pictures.csv: column 'x', row 1: {name}: expected a PNG or a JPEG, got another "
            "format; save the picture in one of these formats, or declare `on_error: skip`"
        ), row


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_file_is_named(tmp_path: Path, form: str) -> None:
    file = io.BytesIO()
    Pil.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(file, form)
    (tmp_path / "a").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    said = message(image(tmp_path), ["a"])
    assert said.startswith("pictures.csv: column 'x', row 1: a: expected a whole picture, got a")
    assert said.endswith("copy it again, or declare `on_error: skip`")


def test_a_decompression_bomb_is_not_unfolded(tmp_path: Path) -> None:
    """A PNG of some 100 bytes that says that it has 30,000 x 30,000 places."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    said = message(image(tmp_path), ["a.png"])
    assert "expected a picture of at most 67,108,864 places" in said


def test_pictures_of_several_sizes_need_one() -> None:
    cells = [np.zeros((4, 5), int).tolist(), np.zeros((4, 6), int).tolist()]
    assert message(image(colors="gray"), cells) == (
        "pictures.csv: column 'x', row 2: expected a picture of 4 x 5, as the first one, "
        "got 4 x 6; declare `inputs.x: {size: [height, width]}`"
    )
    assert unfolded(image(colors="gray", size=2), cells)[1] == [1, 1]


def test_numbers_that_are_no_picture_are_refused() -> None:
    field = image(colors="gray")
    where = "pictures.csv: column 'x', row 1: expected a picture of numbers from 0 to 255, "
    assert message(field, [[[1, 2], [3]]]) == (
        where + "[H, W] or [H, W, 3], got rows of unequal length; give rows of equal length"
    )
    assert message(field, [[[1, 256]]]) == (
        where + "[H, W] or [H, W, 3], got numbers from 1 to 256; bring them to 0 to 255"
    )
    assert message(field, [None], pl.String) == (
        "pictures.csv: column 'x', row 1: expected a picture, got an empty cell; "
        "fill it in, or declare `on_error: skip`"
    )


def test_a_cut_larger_than_the_picture_is_refused() -> None:
    assert message(image(crop=6), [SHOWN.tolist()]) == (
        "pictures.csv: column 'x', row 1: expected a picture of at least 6 x 6, "
        "which `crop` says, got 5 x 7; make `crop` smaller"
    )


def test_patches_that_do_not_fill_a_picture_are_refused() -> None:
    with pytest.raises(SpecError) as caught:
        unfolded(image(maps=True, patch=4), [SHOWN.tolist()])
    assert str(caught.value) == (
        "inputs.x.patch: expected a divisor of the extents [5, 7], got 4; "
        "choose another patch, or another size"
    )


def test_a_bad_picture_is_skipped_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(SHOWN))
    (tmp_path / "b.png").write_bytes(png(SHOWN)[:60])
    steps, lengths = unfolded(image(tmp_path, on_error="skip"), ["a.png", "b.png", None, "a.png"])
    assert lengths == [1, -1, -1, 1]
    assert len(steps) == 2


def test_examples_that_are_skipped_are_counted(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(png(SHOWN))
    table = tmp_path / "pictures.csv"
    table.write_text("picture,label\n" + "".join(f"{n}.png,{n in 'ac'}\n" for n in "abcde"))
    spec = {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"picture": {"kind": "image", "steps": "rows", "on_error": "skip"}},
        "outputs": {"label": {"task": "classify"}},
        "training": {"epochs": 1},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = segue.fit(spec, table)
    found = run.trained.sequences(table)
    assert (found.count, found.skipped) == (4, 1)
    assert run.predict(table).height == 4


def test_live_rows_of_a_picture_must_be_rows() -> None:
    field = image(steps="rows", size=[5, 7])
    with pytest.raises(DataError) as caught:
        field.column("x", [[1, 2]], "record 1")
    assert str(caught.value) == (
        "record 1: 'x': expected 21 numbers from 0 to 255, got [1, 2]; "
        "send one row, one color after another"
    )


# Vectors ------------------------------------------------------------------------------------------


def test_vectors_are_scaled_element_by_element() -> None:
    values = RNG.normal([1.0, 1e6, 5.0], [1.0, 1e3, 0.0], (50, 3))
    field = vector()
    field.fit(pl.DataFrame({"x": values.tolist()}))
    spread = np.where(values.std(0) > 1e-9, values.std(0), 1.0)
    found = field.encode(pl.DataFrame({"x": values.tolist()}), "rows").numpy()
    assert np.abs(found - (values - values.mean(0)) / spread).max() <= 1e-5
    field = vector(scale="minmax")
    field.fit(pl.DataFrame({"x": values.tolist()}))
    found = field.encode(pl.DataFrame({"x": values.tolist()}), "rows").numpy()
    assert np.abs(found[:, :2].min(0)).max() <= 1e-6
    assert np.abs(found[:, :2].max(0) - 1).max() <= 1e-6


def test_the_places_of_a_picture_have_one_scale() -> None:
    values = RNG.normal(3.0, 2.0, (20, 12)) * np.arange(1, 13)
    field = vector(maps=[3, 2, 2])
    field.fit(pl.DataFrame({"x": values.tolist()}))
    found = field.encode(pl.DataFrame({"x": values.tolist()}), "rows").numpy()
    expected = ((values - values.mean()) / values.std()).reshape(-1, 3, 2, 2)
    assert np.abs(found - expected).max() <= 1e-5


def test_missing_elements_are_as_missing_numbers() -> None:
    lists = [[1.0, 2.0], [None, 4.0], None, [5.0, 6.0]]
    frame = pl.DataFrame({"x": pl.Series(lists, dtype=pl.List(pl.Float64))})
    apart = pl.DataFrame({"a": [1.0, None, None, 5.0], "b": [2.0, 4.0, None, 6.0]})
    one = vector()
    two = KINDS["number"]("x", ("a", "b"), KINDS["number"].Spec.model_validate({"kind": "number"}))
    one.fit(frame)
    two.fit(apart)
    x, y = one.encode(frame, "rows"), two.encode(apart, "rows")
    assert torch.equal(x.nan_to_num(-9), y.nan_to_num(-9))
    assert one.encoder().features == two.encoder().features


@pytest.mark.parametrize(
    "cells, said",
    [
        (
            [[1.0, 2.0], [3.0]],
            "rows: column 'x', row 2: expected a list of 2 numbers, got one of 1; "
            "give every list this length, null for an element that is missing",
        ),
        (
            [[1.0, float("inf")]],
            "rows: column 'x', row 1: expected finite numbers, or null where one is missing, "
            "got an infinite one; correct it",
        ),
        (
            ["a"],
            "rows: column 'x': expected a list of numbers at every step, got String such as ['a']; "
            "give lists such as [0.5, -1.2], or declare another kind",
        ),
    ],
)
def test_lists_that_are_no_vectors_are_refused(cells: list[Any], said: str) -> None:
    field = vector(size=2)
    with pytest.raises(DataError) as caught:
        field.encode(pl.DataFrame({"x": cells}), "rows")
    assert str(caught.value) == said


def test_live_values_that_are_no_vectors_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        vector(size=2).column("x", [[1.0, 2.0], "b"], "record 1")
    assert str(caught.value) == (
        "record 1: 'x': expected a list of numbers, or null where it is not observed, got 'b'; "
        "correct it"
    )


def test_maps_need_channels_and_extents() -> None:
    with pytest.raises(SpecError) as caught:
        segue.fit(
            {
                "data": {"rows": "examples"},
                "inputs": {"x": {"kind": "vector", "maps": [4]}},
                "outputs": {"y": {"task": "classify"}},
            },
            {"x": [[[1.0]]], "y": ["a"]},
        )
    assert "channels and 1 to 3 extents, such as [1, 32, 32]" in str(caught.value)


def test_maps_have_the_size_that_they_say() -> None:
    assert Maps((3, 8, 12), 4).features == 48
    assert Maps((3, 8, 12), 4).size == (2, 3)
