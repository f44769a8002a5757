"""The decoding rules against Pillow's and numpy's own answers, computed here."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from stylegan_tl.data.decode import FILTERS, Rule, decode
from stylegan_tl.data.errors import DataError, Unusable

SIZE = 16


def _save(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _decoded(data: bytes, **rule) -> np.ndarray:
    """H×W×C, as Pillow's arrays are."""
    pixels = decode(data, Rule(SIZE, **rule)).pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels.transpose(1, 2, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_pillows_exif_transpose(draw, orientation: int) -> None:
    image = Image.fromarray(draw(orientation, SIZE, SIZE))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _save(image, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(_decoded(data), expected)


def test_orientation_6_turns_a_quarter_clockwise(draw) -> None:
    pixels = draw(0, 2 * SIZE, SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(pixels, -1)
    middle = turned[SIZE // 2 : SIZE // 2 + SIZE]
    np.testing.assert_array_equal(_decoded(_save(Image.fromarray(pixels), exif=exif)), middle)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # of this test's own reading
def test_damaged_exif_does_not_cost_the_picture(draw) -> None:
    image = Image.fromarray(draw(1, SIZE, SIZE))
    data = _save(image, "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\x01", quality=95)
    np.testing.assert_array_equal(_decoded(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_are_pillows_conversion(draw, mode: str) -> None:
    image = Image.fromarray(draw(2, SIZE, SIZE)).convert(mode)
    format = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    data = _save(image, format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(_decoded(data), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(draw, mode: str) -> None:
    rgba = np.dstack([draw(3, SIZE, SIZE), draw(4, SIZE, SIZE)[..., 0]])
    image = Image.fromarray(rgba).convert(mode)
    straight = np.asarray(image.convert("RGBA")).astype(float)
    alpha = straight[..., 3:] / 255
    expected = alpha * straight[..., :3] + (1 - alpha) * 255
    assert np.abs(_decoded(_save(image)) - expected).max() <= 1


def test_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, SIZE))
    result = _decoded(_save(image, transparency=0))
    assert (result[:, :8] == 255).all()
    assert (result[:, 8:] == (0, 0, 255)).all()


def test_16_bit_grey_is_scaled_not_cut() -> None:
    values = np.linspace(0, 65535, SIZE * SIZE).round().astype(np.uint16).reshape(SIZE, SIZE)
    result = _decoded(_save(Image.fromarray(values)))
    expected = (values / 257).round().astype(np.uint8)
    np.testing.assert_array_equal(result, np.dstack([expected] * 3))


@pytest.mark.parametrize("name", sorted(FILTERS))
@pytest.mark.parametrize("shape", [(40, 24), (25, 50), (9, 12)])
def test_crop_then_resize(draw, name: str, shape: tuple[int, int]) -> None:
    pixels = draw(5, *shape)
    side = min(shape)
    left, top = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side].copy())
    expected = square.resize((SIZE, SIZE), getattr(Image.Resampling, name.upper()))
    data = _save(Image.fromarray(pixels))
    np.testing.assert_array_equal(_decoded(data, filter=name), np.asarray(expected))
    assert decode(data, Rule(SIZE)).enlarged == (side < SIZE)


def test_center_wide_keeps_4_to_3_between_black_bars(draw) -> None:
    pixels = draw(6, 50, 24)
    part = Image.fromarray(pixels[:, 9:41].copy()).resize((16, 12), Image.Resampling.LANCZOS)
    result = _decoded(_save(Image.fromarray(pixels)), crop="center-wide")
    np.testing.assert_array_equal(result[2:14], np.asarray(part))
    assert not result[:2].any()
    assert not result[14:].any()


def test_a_square_image_of_the_size_passes_unchanged(draw) -> None:
    pixels = draw(7, SIZE, SIZE)
    np.testing.assert_array_equal(_decoded(_save(Image.fromarray(pixels)), crop="none"), pixels)


def test_no_crop_rule_refuses_non_square(draw) -> None:
    data = _save(Image.fromarray(draw(8, 20, 16)))
    with pytest.raises(DataError, match="20×16, not square.*crop=center") as error:
        decode(data, Rule(SIZE, crop="none"))
    assert not isinstance(error.value, Unusable)  # not skipped: it would happen to nearly all


def _floats() -> bytes:
    return _save(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")


def _integers() -> bytes:
    return _save(Image.fromarray(np.full((8, 8), 1 << 20, np.int32)), "TIFF")


def _five_channels() -> bytes:
    """A TIFF of 8×8 pixels with 5 samples each (tag 277), which no colour space has."""
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 2), (273, 122), (277, 5), (278, 8)]
    tags.append((279, 8 * 8 * 5))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags))
    return head + directory + struct.pack("<I", 0) + bytes(8 * 8 * 5)


def _truncated() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return _save(Image.fromarray(noise), "JPEG")[:-900]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (_truncated(), "corrupt image"),
        (_floats(), "floating-point"),
        (_integers(), "32-bit"),
        (_five_channels(), "or a form of one that Pillow does not know"),
    ],
)
def test_unusable_files_say_why(data: bytes, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        decode(data, Rule(SIZE))


def test_a_decompression_bomb_is_not_decoded(monkeypatch, draw) -> None:
    data = _save(Image.fromarray(draw(9, 40, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Unusable, match="too many pixels: 40×30"):
        decode(data, Rule(SIZE))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unusable, match="too many pixels"):
        decode(data, Rule(SIZE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 100}, "resolution=100: expected a power of two"),
        ({"resolution": 64, "crop": "middle"}, "crop='middle': expected one of center"),
        ({"resolution": 64, "filter": "fast"}, "filter='fast': expected one of lanczos"),
    ],
)
def test_wrong_rules_name_what_is_allowed(values: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Rule(**values)
