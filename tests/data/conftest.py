"""Small pictures on disk, each different from the others."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(index: int, width: int = 24, height: int = 24) -> np.ndarray:
    """Smooth uint8 [H, W, 3] that depends on `index`."""
    rng = np.random.default_rng(index)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, format: str = "png", **options) -> bytes:
    """`pixels` as the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.fixture
def draw():
    return picture


@pytest.fixture
def encode():
    return encoded


@pytest.fixture
def make_folder(tmp_path):
    """`make_folder(count, sub="", size=24, start=0)` writes PNG files and returns the folder."""

    def make(count: int, sub: str = "", size: int = 24, start: int = 0) -> Path:
        folder = tmp_path / "images"
        (folder / sub).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            (folder / sub / f"{i:03d}.png").write_bytes(encoded(picture(i, size, size)))
        return folder

    return make


@pytest.fixture
def make_zip(tmp_path):
    """`make_zip({name: bytes}, compression=…)` writes a zip and returns its path."""

    def make(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    return make
