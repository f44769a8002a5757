"""NVIDIA's data sets: a zip or folder of images whose labels, if any, are in `dataset.json`.

`{"labels": [["00000/img00000000.png", 6], …]}`, or vectors of numbers in place of 6, or null.
Folders in it only cut the listing into pieces. Written here as stored (not deflated) PNG.
"""

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from stylegan_tl.data.errors import DataError
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.readers import Entry, FolderReader, Label, Listing
from stylegan_tl.data.zips import ZipReader

__all__ = ["NvidiaReader", "fingerprint_of", "write_nvidia_zip"]

_LABELS = "dataset.json"


@dataclass(frozen=True)
class NvidiaReader:
    """A zip or a folder with `dataset.json`; without labels in it the images have none."""

    path: Path

    def listing(self) -> Listing:
        """Every image with its label; `DataError` where some images have none or labels differ."""
        listing = self._files.listing()
        skipped = [s for s in listing.skipped if s.file != _LABELS]
        labels = _parse(self.path, self._json())
        if labels is None:
            return replace(listing, skipped=skipped)
        missing = [e.key for e in listing.entries if e.key not in labels]
        if missing:
            raise DataError(
                f"{self.path}: {_LABELS} has no label for {len(missing)} of "
                f"{len(listing.entries)} images, the first is {missing[0]}"
            )
        entries = [e._replace(label=labels[e.key]) for e in listing.entries]
        return Listing(entries, skipped)

    def opened(self) -> AbstractContextManager[Callable[[Entry], bytes]]:
        """Read as the folder or the zip does."""
        return self._files.opened()

    @property
    def _files(self) -> FolderReader | ZipReader:
        return FolderReader(self.path) if self.path.is_dir() else ZipReader(self.path)

    def _json(self) -> str | None:
        if not self.path.is_dir():
            return ZipReader(self.path).read_text(_LABELS)
        file = self.path / _LABELS
        return file.read_text(encoding="utf-8") if file.is_file() else None


def write_nvidia_zip(data: PackedDataset, file: Path, tick: Callable[[int], None]) -> None:
    """Write `data` as an NVIDIA zip, calling `tick(images done)`; same data, same bytes."""
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(data.num_images)]
    labels = data.raw_labels
    rows = None if labels is None else [list(r) for r in zip(names, labels.tolist(), strict=True)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for index, name in enumerate(names):
            archive.writestr(zipfile.ZipInfo(name), _png(data, index))
            tick(index + 1)
        archive.writestr(zipfile.ZipInfo(_LABELS), json.dumps({"labels": rows}))
        archive.comment = str(data.meta.get("fingerprint", "")).encode()


def fingerprint_of(file: Path) -> str | None:
    """The fingerprint that `write_nvidia_zip` left in the zip's comment, or None."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.comment.decode("ascii", "replace") or None
    except (zipfile.BadZipFile, OSError):
        return None


def _png(data: PackedDataset, index: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(data.images([index])[0].transpose(1, 2, 0).copy())
    image.save(buffer, format="png", compress_level=0)
    return buffer.getvalue()


def _parse(path: Path, text: str | None) -> dict[str, Label] | None:
    if text is None:
        return None
    try:
        rows = json.loads(text).get("labels")
        pairs = None if rows is None else {str(k).replace("\\", "/"): v for k, v in rows}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path}: {_LABELS} must be {{"labels": [[file, label], …]}} or null ({error})'
        ) from error
    return None if not pairs else _checked(path, pairs)


def _checked(path: Path, pairs: dict[str, Any]) -> dict[str, Label]:
    if all(type(v) is int and v >= 0 for v in pairs.values()):
        return pairs
    sizes = {len(v) if isinstance(v, list) else -1 for v in pairs.values()}
    numbers = all(type(x) in (int, float) for v in pairs.values() if isinstance(v, list) for x in v)
    if len(sizes) != 1 or sizes == {-1} or sizes == {0} or not numbers:
        raise DataError(
            f"{path}: labels in {_LABELS} must be all integers from 0, "
            "or all lists of numbers of one length"
        )
    return {key: tuple(float(x) for x in v) for key, v in pairs.items()}
