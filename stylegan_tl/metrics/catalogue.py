"""Weights that the extractors know by name: what each is for, where it is public, its digest.

Plain entries; nothing here downloads (`python -m stylegan_tl.weights fetch NAME` does, on request).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stylegan_tl.files import file_sha256, write_atomic

__all__ = [
    "CATALOGUE", "Entry", "check_digest", "default_folder", "entry", "missing", "recorded",
    "verified",
]  # fmt: skip


class Published(Protocol):
    """What has a digest, or as many digits of it as are published; "" for none."""

    @property
    def sha256(self) -> str:
        """Hex digits."""


@dataclass(frozen=True)
class Entry:
    """One file of weights that `extractors` read.

    `sha256` is the digest, or as many digits of it as are published.
    """

    name: str
    extractors: tuple[str, ...]
    purpose: str
    file: str
    megabytes: int
    licence: str
    url: str
    sha256: str


CATALOGUE = (
    Entry(
        name="inception",
        extractors=("inception",),
        purpose="FID, KID, Inception Score: the 2015 Inception graph, ported to PyTorch",
        file="pt_inception-2015-12-05-6726825d.pth",
        megabytes=96,
        licence="Apache-2.0",
        url=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth"
        ),
        sha256="6726825d",
    ),
    Entry(
        name="vgg16",
        extractors=("vgg16", "lpips"),
        purpose="precision and recall, trunk of LPIPS: torchvision's VGG16",
        file="vgg16-397923af.pth",
        megabytes=553,
        licence="BSD-3-Clause",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af",
    ),
)


def entry(name: str) -> Entry:
    """Return the entry that the extractor of that name reads; ValueError with the names there are.

    `name` may also be the entry's own.
    """
    for one in CATALOGUE:
        if name == one.name or name in one.extractors:
            return one
    raise ValueError(
        f"no public weights are known for {name!r}; there are "
        f"{', '.join(e.name for e in CATALOGUE)}"
    )


def default_folder() -> Path:
    """Where weights are looked for: $STYLEGAN_TL_CACHE/weights (~/.cache/stylegan_tl/weights)."""
    cache = os.environ.get("STYLEGAN_TL_CACHE") or Path("~") / ".cache" / "stylegan_tl"
    return Path(cache).expanduser() / "weights"


def missing(what: str, of: Entry) -> str:
    """Say how to get the weights that are not there."""
    return (
        f"{what} {default_folder() / of.file} is not there. Fetch it once with "
        f"`python -m stylegan_tl.weights fetch {of.name}`; without a network copy that file there "
        f"(it is public at {of.url}), or give path= and sha256= of the one you have"
    )


def check_digest(path: str | Path, found: str, wanted: str) -> None:
    """Raise ValueError unless the digest `found` begins with `wanted` (8 to 64 hex digits)."""
    if len(wanted) < 8 or not found.startswith(wanted.lower()):
        raise ValueError(
            f"{path}: sha256 is {found}, not {wanted} (8 to 64 hex digits). The file is damaged or "
            "another version: fetch it again, or give the digest you mean"
        )


def recorded(path: Path) -> str | None:
    """Return the SHA-256 that `path` had at its first use, from `<file>.json` beside it; or None.

    ValueError if that file is damaged.
    """
    record = _record_of(path)
    if not record.is_file():
        return None
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{record} does not hold a sha256: delete it, and the next use writes it again"
        ) from error


def verified(of: Published, path: Path, *, sha256_of: Callable[[Path], str] = file_sha256) -> str:
    """Return the SHA-256 of `path`, checked against the entry and the digest of its first use.

    The first use writes the whole digest beside the file, later ones must find the same: the
    published digits alone are few. ValueError if it differs from either.
    """
    found = sha256_of(path)
    if of.sha256:
        check_digest(path, found, of.sha256)
    first = recorded(path)
    if first is not None:
        check_digest(path, found, first)
    elif len(of.sha256) < 64:
        _record(path, found)
    return found


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _record(path: Path, sha256: str) -> None:
    found = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256}
    try:
        write_atomic(_record_of(path), (json.dumps(found, indent=2) + "\n").encode())
    except OSError:  # a shared folder that this user may only read
        return
