"""From a few plain settings to a packed data set: packed once, opened ever after."""

import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from stylegan_tl.data.decode import RULES_VERSION, Rule
from stylegan_tl.data.errors import DataError, hint
from stylegan_tl.data.nvidia import NvidiaReader
from stylegan_tl.data.pack import Report, check_found, locked, pack
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.progress import Progress
from stylegan_tl.data.readers import (
    FolderReader,
    Listing,
    LmdbReader,
    PackedReader,
    Reader,
    class_labels,
    fingerprint_listing,
)
from stylegan_tl.data.sources import Files, Rendered, Source
from stylegan_tl.data.zips import ZipReader

__all__ = ["KINDS", "kind_of", "open_dataset", "read_report", "source_of"]

_FILES = frozenset({"kind", "name", "path", "crop", "filter", "labels", "keep_duplicates"})
KINDS = {
    "procedural": frozenset({"kind", "name", "domain", "size", "distance", "first"}),
    "folder": _FILES | {"subfolder"},
    "zip": _FILES | {"subfolder"},
    "nvidia": _FILES,
    "lmdb": _FILES,
    "packed": _FILES,
}


def open_dataset(
    spec: Mapping[str, Any],
    *,
    resolution: int,
    cache: str | os.PathLike,
    workers: int | None = None,
) -> PackedDataset:
    """Open the data set that `spec` describes at `resolution`, packing it first where needed.

    `spec` has `kind`, `name` and what the kind needs: `domain size distance first` (procedural) or
    `path [subfolder crop filter labels keep_duplicates]`; unset keys may be null. Packed data lies
    in `cache/packed/<fingerprint>/`; the fingerprint covers the settings and the listing of the
    files, so a changed folder is packed again. Parallel callers pack once. Raises `DataError`.
    """
    spec = _validated(spec)
    if spec["kind"] == "packed":
        return _open_packed(spec, resolution)
    source, meta = source_of(spec, resolution)
    out = Path(cache).expanduser() / "packed" / _folder_name(meta)
    if not out.exists():
        _refuse_unguarded()
        check_found(source, meta)
        with locked(out):
            if not out.exists():
                _pack(source, out, meta, workers)
    return PackedDataset(out)


def source_of(
    spec: Mapping[str, Any], resolution: int, max_images: int | None = None
) -> tuple[Source, dict[str, Any]]:
    """List what `spec` describes: the source to pack, and the meta with its fingerprint."""
    spec = _validated(spec)
    if spec["kind"] == "procedural":
        source, meta = _procedural(spec, resolution)
    else:
        source, meta = _files(spec, resolution, max_images)
    meta = {**meta, "name": str(spec.get("name") or _default_name(spec)), "kind": spec["kind"]}
    text = json.dumps({**meta, "resolution": resolution}, sort_keys=True)
    return source, {
        **meta,
        "resolution": resolution,
        "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
    }


def fingerprint_of(spec: Mapping[str, Any], resolution: int) -> str:
    """What the data are, without decoding them: the hash of packed data, else of the listing."""
    spec = _validated(spec)
    if spec["kind"] == "packed":
        return _open_packed(spec, resolution).content_hash
    return source_of(spec, resolution)[1]["fingerprint"]


def kind_of(path: Path, subfolder: str | None = None) -> str:
    """How `path` would be read, told by what is there."""
    if not path.exists():
        raise DataError(f"path={path}: no such file or folder{hint(path)}")
    if path.is_dir():
        signs = {"meta.json": "packed", "data.mdb": "lmdb", "dataset.json": "nvidia"}
        return next((kind for name, kind in signs.items() if (path / name).is_file()), "folder")
    labelled = ZipReader(path).read_text("dataset.json") is not None
    return "nvidia" if labelled and not subfolder else "zip"


def read_report(data: PackedDataset) -> Report | None:
    """What packing left out of `data`; None where the report was not copied with it."""
    path = data.path / "report.json"
    return Report.from_json(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _pack(source: Source, out: Path, meta: dict[str, Any], workers: int | None) -> None:
    what = f"packing {meta['name']} at {source.resolution} px"
    data = pack(source, out, meta, workers=workers, tick=Progress(what, len(source.keys)))
    print(f"packed {data.name}: {read_report(data).summary()} -> {out}", flush=True)


def _validated(spec: Mapping[str, Any]) -> dict[str, Any]:
    kind = spec.get("kind")
    if kind not in KINDS:
        raise DataError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    given = {key: value for key, value in spec.items() if value is not None}
    if unknown := sorted(set(given) - KINDS[kind]):
        raise DataError(
            f"{', '.join(unknown)}: unknown for kind={kind}; allowed: "
            f"{', '.join(sorted(KINDS[kind]))}"
        )
    needed = "domain" if kind == "procedural" else "path"
    if not given.get(needed):
        raise DataError(f"{needed} is missing: a data set of kind={kind} needs {needed}=…")
    if given.get("labels", "auto") not in ("auto", "none"):
        raise DataError(f"labels={given['labels']!r}: expected auto or none")
    return given


def _procedural(spec: dict[str, Any], resolution: int) -> tuple[Source, dict[str, Any]]:
    Rule(resolution)  # checks the number
    package = import_module("stylegan_tl.data.procedural")
    domain, size = spec["domain"], spec.get("size", 2000)
    distance = float(spec.get("distance", 1.0))
    if domain not in package.DOMAINS:
        raise DataError(f"domain={domain!r}: expected one of {', '.join(package.DOMAINS)}")
    if not isinstance(size, int) or size < 1:
        raise DataError(f"size={size!r}: expected a whole number from 1")
    first = spec.get("first") or 0
    if not isinstance(first, int) or first < 0:
        raise DataError(f"first={first!r}: expected a whole number from 0")
    meta = {"domain": domain, "size": size, "distance": distance, "code": _code_hash(package)}
    meta |= {"first": first} if first else {}
    return Rendered(domain, size, distance, resolution, first), meta


def _code_hash(package: Any) -> str:
    """Of the renderer's sources: what a changed renderer drew is drawn again."""
    digest = hashlib.sha256()
    for folder in package.__path__:
        for file in sorted(Path(folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(
    spec: dict[str, Any], resolution: int, max_images: int | None
) -> tuple[Source, dict[str, Any]]:
    rule = Rule(resolution, str(spec.get("crop", "center")), str(spec.get("filter", "lanczos")))
    path = Path(spec["path"]).expanduser().absolute()
    listing = _list(spec, _reader(spec, path))
    if max_images is not None:
        listing.entries = listing.entries[:max_images]
    meta = {
        "path": str(path),
        "subfolder": spec.get("subfolder"),
        "crop": rule.crop,
        "filter": rule.filter,
        "rules": RULES_VERSION,
        "listing": fingerprint_listing(listing),
    }
    if spec.get("keep_duplicates"):
        meta["keep_duplicates"] = True
    return Files(_reader(spec, path), listing, rule), meta


def _reader(spec: dict[str, Any], path: Path) -> Reader:
    subfolder = spec.get("subfolder")
    return {
        "folder": lambda: FolderReader(path, subfolder),
        "zip": lambda: ZipReader(path, subfolder),
        "nvidia": lambda: NvidiaReader(path),
        "lmdb": lambda: LmdbReader(path),
        "packed": lambda: PackedReader(path),
    }[spec["kind"]]()


def _list(spec: dict[str, Any], reader: Reader) -> Listing:
    listing = reader.listing()
    if spec.get("labels") == "none":
        listing.entries = [entry._replace(label=None) for entry in listing.entries]
        listing.classes = []
        return listing
    return class_labels(listing) if spec["kind"] in ("folder", "zip") else listing


def _open_packed(spec: dict[str, Any], resolution: int) -> PackedDataset:
    if fixed := sorted(set(spec) - {"kind", "name", "path"}):
        raise DataError(f"{', '.join(fixed)}: fixed when packed data is prepared, remove it here")
    data = PackedDataset(Path(spec["path"]).expanduser())
    if data.resolution != resolution:
        raise DataError(
            f"{data.path} holds {data.resolution} px, resolution={resolution} was asked: "
            f"set resolution={data.resolution} or prepare the data at {resolution}"
        )
    return data


def _default_name(spec: dict[str, Any]) -> str:
    if spec["kind"] == "procedural":
        return spec["domain"]
    stem = Path(spec["path"]).expanduser().absolute().stem
    return f"{stem}/{spec['subfolder']}" if spec.get("subfolder") else stem


def _folder_name(meta: dict[str, Any]) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", meta["name"])[-40:].strip("-")
    return f"{readable}-{meta['resolution']}-{meta['fingerprint'][:16]}"


def _refuse_unguarded() -> None:
    """A script without a main guard would start again in each worker, and wait for itself."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "open_dataset was called while a worker process imports your script: put the script's "
            'code under `if __name__ == "__main__":`'
        )
