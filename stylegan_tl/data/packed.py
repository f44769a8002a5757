"""The training format: a folder with one uint8 array that is memory-mapped, not decoded.

images.npy   uint8 [N, 3, R, R]
hashes.npy   uint8 [N, 32]: sha256 of each image's bytes
labels.npy   int64 [N] classes or float32 [N, L] vectors; absent where there are none
meta.json    what it is, where it came from, how it was made, and the checksum of it all
report.json  which files were left out, and why
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stylegan_tl.data.errors import DataError

__all__ = ["FORMAT", "PackedDataset", "checksum", "image_hash", "is_packed"]

FORMAT = "stylegan_tl packed images 1"
_AGAIN = "remove the folder and prepare it again"
HEADER = 128  # bytes before the pixels, fixed so that rows can be dropped without moving the rest


class PackedDataset:
    """Images and labels by index, read straight from the memory map.

    Attributes: `path`, `name`, `resolution`, `num_images`, `label_dim` (0: no labels), `meta`,
    `content_hash` (sha256 over pixels and labels; equal data, equal hash),
    `image_hashes` uint8 [N, 32].
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.meta = _read_meta(self.path)
        self.name: str = self.meta["name"]
        self.resolution: int = self.meta["resolution"]
        self.num_images: int = self.meta["num_images"]
        self.label_dim: int = self.meta["label_dim"]
        self.content_hash: str = self.meta["checksum"]
        self._images = _open_images(self.path, self.num_images, self.resolution)
        self.image_hashes = _load(self.path, "hashes.npy", (self.num_images, 32), np.uint8)
        self._labels = _open_labels(self.path, self.num_images, self.label_dim)

    def __len__(self) -> int:
        return self.num_images

    def __repr__(self) -> str:
        return (
            f"PackedDataset({self.name}: {self.num_images} images, {self.resolution} px, "
            f"label_dim {self.label_dim}, {self.path})"
        )

    def __reduce__(self) -> tuple:  # another process maps the file again; pixels are not pickled
        return PackedDataset, (self.path,)

    def images(self, indices: Any) -> np.ndarray:
        """Copy the images at `indices` out of the map: uint8 [N, 3, R, R]."""
        return self._images[np.asarray(indices, dtype=np.int64)]

    def labels(self, indices: Any) -> np.ndarray:
        """Labels at `indices`: float32 [N, label_dim], one-hot for classes."""
        indices = np.asarray(indices, dtype=np.int64)
        if self._labels is None:
            return np.zeros((len(indices), 0), np.float32)
        chosen = self._labels[indices]
        if chosen.ndim == 2:
            return chosen
        return (chosen[:, None] == np.arange(self.label_dim)).astype(np.float32)

    @property
    def raw_labels(self) -> np.ndarray | None:
        """Labels as stored: int64 [N], float32 [N, L] or None."""
        return self._labels

    def verify(self) -> None:
        """Read every pixel and hold it against its hash; `DataError` names the first mismatch."""
        for index, expected in enumerate(self.image_hashes):
            if image_hash(self._images[index]) != expected.tobytes():
                raise DataError(f"{self.path}: image {index} is damaged; {_AGAIN}")
        if checksum(self.image_hashes, self._labels) != self.content_hash:
            raise DataError(f"{self.path}: the checksum is wrong; {_AGAIN}")


def is_packed(path: Path) -> bool:
    """Whether `path` looks like a packed folder."""
    return (path / "meta.json").is_file() and (path / "images.npy").is_file()


def image_hash(image: np.ndarray) -> bytes:
    """Sha256 (32 bytes) of one image's bytes in C×H×W order."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def checksum(hashes: np.ndarray, labels: np.ndarray | None) -> str:
    """Hex sha256 over image hashes [N, 32] and labels: identity of a data set's content."""
    digest = hashlib.sha256(np.ascontiguousarray(hashes).tobytes())
    if labels is not None:
        digest.update(f"{labels.dtype.str}{labels.shape}".encode())
        digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


def write_header(file: BinaryIO, num_images: int, resolution: int) -> None:
    """Write the .npy (version 1.0) header of images.npy, always `HEADER` bytes long."""
    shape = (num_images, 3, resolution, resolution)
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    file.seek(0)
    file.write(b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little"))
    file.write(text.ljust(HEADER - 11) + b"\n")


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no packed data set here (meta.json is missing); "
            "make one with `python -m stylegan_tl.prepare`"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}/meta.json cannot be read: {error}") from error
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise DataError(f"{path}: format {found!r}, expected {FORMAT!r}; {_AGAIN}")
    wanted = ("name", "resolution", "num_images", "label_dim", "checksum")
    if missing := [key for key in wanted if key not in meta]:
        raise DataError(f"{path}/meta.json lacks {', '.join(missing)}; {_AGAIN}")
    return meta


def _load(path: Path, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    try:
        array = np.load(path / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}/{name} cannot be read ({error}); {_AGAIN}") from error
    if array.shape != shape or array.dtype != dtype:
        raise DataError(
            f"{path}/{name} holds {array.dtype} {list(array.shape)}, "
            f"expected {np.dtype(dtype)} {list(shape)}; {_AGAIN}"
        )
    return np.asarray(array)  # a plain view: np.memmap's own indexing is slower


def _open_images(path: Path, num_images: int, resolution: int) -> np.ndarray:
    return _load(path, "images.npy", (num_images, 3, resolution, resolution), np.uint8)


def _open_labels(path: Path, num_images: int, label_dim: int) -> np.ndarray | None:
    if not label_dim:
        return None
    try:
        labels = np.load(path / "labels.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}/labels.npy cannot be read ({error}); {_AGAIN}") from error
    classes = labels.dtype == np.int64 and labels.shape == (num_images,)
    vectors = labels.dtype == np.float32 and labels.shape == (num_images, label_dim)
    if not (classes or vectors):
        raise DataError(
            f"{path}/labels.npy holds {labels.dtype} {list(labels.shape)}, expected int64 "
            f"[{num_images}] or float32 [{num_images}, {label_dim}]; {_AGAIN}"
        )
    return labels
