"""One encoded image to one training image, by fixed rules.

Orientation follows the EXIF tag; transparency is composited on white; 16-bit grey is scaled to
8 bits (16-bit colour is cut to its high byte by Pillow); grey, palette and CMYK become RGB by
Pillow's own conversion, without colour profiles; of an animation the first frame counts. Then crop,
then resize.
"""

import io
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from stylegan_tl.data.errors import DataError, Unusable

__all__ = ["CROPS", "FILTERS", "RULES_VERSION", "Decoded", "Rule", "decode", "to_rgb"]

RULES_VERSION = 1  # part of every fingerprint: raise it when a rule below changes pixels
CROPS = ("center", "center-wide", "none")
FILTERS = {
    name: Image.Resampling[name.upper()]
    for name in ("lanczos", "bicubic", "hamming", "bilinear", "box", "nearest")
}
# A closed list: other Pillow plugins start programs (EPS) or read other files.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.32, tag Orientation: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Rule:
    """How an image becomes `resolution` × `resolution` pixels.

    `center` cuts the largest centred square. `center-wide` cuts the largest centred 4:3 rectangle
    and puts black bars above and below (LSUN Car in StyleGAN2). `none` accepts squares only.
    """

    resolution: int
    crop: str = "center"
    filter: str = "lanczos"

    def __post_init__(self) -> None:
        size = self.resolution
        if not isinstance(size, int) or not 4 <= size <= 4096 or size & (size - 1):
            raise DataError(f"resolution={size!r}: expected a power of two from 4 to 4096")
        if self.crop not in CROPS:
            raise DataError(f"crop={self.crop!r}: expected one of {', '.join(CROPS)}")
        if self.filter not in FILTERS:
            raise DataError(f"filter={self.filter!r}: expected one of {', '.join(FILTERS)}")


class Decoded(NamedTuple):
    """Pixels uint8 [3, R, R], and whether the original was smaller than that."""

    pixels: np.ndarray
    enlarged: bool


def decode(data: bytes, rule: Rule) -> Decoded:
    """Decode, turn upright, make RGB, crop and resize one file's bytes.

    Raises `Unusable` where this file is at fault, `DataError` where the rule does not fit it.
    """
    if not data:
        raise Unusable("empty file (0 bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata; its errors become ours
        image = _load(data)
        return _fit(_upright(image, to_rgb(image)), rule)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, by the rules at the top of this file."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "F":
        raise Unusable("floating-point pixels: their range is unknown, save it as 8 or 16 bits")
    try:
        if image.has_transparency_data:
            return _on_white(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise Unusable(f"channels {image.mode} cannot become RGB ({error})") from error


def _load(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        _check_pixels(image)
        image.load()
    except UnidentifiedImageError as error:
        raise Unusable(
            "not an image that can be read, or a form of one that Pillow does not know "
            f"(it begins with {data[:8]!r})"
        ) from error
    except Image.DecompressionBombError as error:
        raise Unusable(f"too many pixels: {error}") from error
    except Unusable:
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged input
        raise Unusable(f"corrupt image ({type(error).__name__}: {error})") from error
    return image


def _check_pixels(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit and image.width * image.height > limit:
        raise Unusable(f"too many pixels: {image.width}×{image.height}, the limit is {limit}")


def _upright(original: Image.Image, rgb: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(original.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged tag says nothing; the picture itself is sound
        turn = None
    return rgb if turn is None else rgb.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise Unusable("32-bit integer pixels: their range is unknown, save it as 8 or 16 bits")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    rgba = image.convert(straight).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _fit(image: Image.Image, rule: Rule) -> Decoded:
    size = rule.resolution
    target = (size, size * 3 // 4) if rule.crop == "center-wide" else (size, size)
    image = _crop(image, rule.crop)
    enlarged = image.width < target[0] or image.height < target[1]
    if image.size != target:
        image = image.resize(target, FILTERS[rule.filter])
    pixels = np.zeros((3, size, size), np.uint8)
    top = (size - target[1]) // 2
    pixels[:, top : top + target[1]] = np.asarray(image).transpose(2, 0, 1)
    return Decoded(pixels, enlarged)


def _crop(image: Image.Image, crop: str) -> Image.Image:
    width, height = image.size
    if crop == "none":
        if width != height:
            raise DataError(
                f"the image is {width}×{height}, not square, and crop=none: "
                "use crop=center or crop=center-wide"
            )
        return image
    across, down = (4, 3) if crop == "center-wide" else (1, 1)
    wide = max(min(width, height * across // down), 1)
    high = max(min(height, width * down // across), 1)
    left, top = (width - wide) // 2, (height - high) // 2
    if (wide, high) == image.size:
        return image
    return image.crop((left, top, left + wide, top + high))
