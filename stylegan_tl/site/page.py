"""The HTML of a page: template, style, scripts and data in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from stylegan_tl.page import as_json, escaped, fill, head, picture

__all__ = ["html", "page_name"]

_PARTS = ("random.js", "worker.js", "site.js")
_LIVE = {  # the generator in the page: a worker and WebAssembly, made in the page itself
    "script-src": "'unsafe-inline' 'self' file: blob: 'wasm-unsafe-eval'",
    "worker-src": "blob:",
    "connect-src": "blob: data:",
}


def page_name(dataset: str) -> str:
    """What an image of a dataset is called.

    >>> page_name("rooms/dining_room")
    'dining room'
    """
    return dataset.rstrip("/").split("/")[-1].replace("_", " ").replace("-", " ") or "image"


def html(data: Mapping[str, Any], embedded: Iterable[Path] = ()) -> str:
    """The page that shows `data`, with the pictures `embedded` inside."""
    here = files("stylegan_tl.site")
    known = {name: (here / name).read_text(encoding="utf-8") for name in _PARTS}
    style = (here / "site.css").read_text(encoding="utf-8")
    known["head"] = head(f"This {data['name']} does not exist", style, _LIVE)
    known["name"] = escaped(str(data["name"]))
    known["data"] = as_json(data)
    known["pictures"] = "".join(map(picture, embedded))
    template = (here / "template.html").read_text(encoding="utf-8")
    return "".join(fill(template, known))
