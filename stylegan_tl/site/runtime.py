"""onnxruntime-web and the generator as scripts beside a page, so that it runs from disk.

A browser refuses modules and fetches on file://, but loads plain scripts. So each file goes
gzipped, in base64, into a script that hands it to the page.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from stylegan_tl.files import write_atomic

__all__ = ["HOW", "MODULE", "WASM", "find_runtime", "pack", "write_runtime"]

MODULE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
HOW = "npm pack onnxruntime-web && tar xzf onnxruntime-web-*.tgz"
"""The one line that fetches it."""


def find_runtime(folder: str | Path | None) -> tuple[Path, str]:
    """The folder with both files of onnxruntime-web in or below `folder`, and its version.

    ValueError with the command that fetches them where they are not there.
    """
    asked = "" if folder is None else f"ort={folder}: "
    if folder is not None:
        here = Path(folder).expanduser()
        for place in (here, here / "dist", here / "package/dist", *_installed(here)):
            if (place / MODULE).is_file() and (place / WASM).is_file():
                return place, _version(place)
    raise ValueError(
        f"{asked}live=true takes {MODULE} and {WASM} from the npm package onnxruntime-web. "
        f"Fetch it by\n  {HOW}\nand name the folder: ort=package/dist"
    )


def pack(name: str, files: dict[str, bytes], comment: str = "") -> bytes:
    """A script that calls `received(name, {file: base64 of gzip})`."""
    held = {
        key: base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
        for key, data in files.items()
    }
    head = f"/* {comment} */\n" if comment else ""
    return f"{head}received({json.dumps(name)}, {json.dumps(held)});\n".encode()


def write_runtime(found: Path, version: str, into: Path) -> Path:
    """Write onnxruntime.js into the folder `into`."""
    files = {"module": (found / MODULE).read_bytes(), "wasm": (found / WASM).read_bytes()}
    about = f"onnxruntime-web {version}, Copyright (c) Microsoft Corporation, MIT License"
    write_atomic(into / "onnxruntime.js", pack("onnxruntime", files, about))
    return into / "onnxruntime.js"


def _installed(here: Path) -> tuple[Path, ...]:
    return (here / "onnxruntime-web/dist", here / "node_modules/onnxruntime-web/dist")


def _version(place: Path) -> str:
    described = place.parent / "package.json"
    if not described.is_file():
        return "of unknown version"
    return json.loads(described.read_text(encoding="utf-8")).get("version", "of unknown version")
