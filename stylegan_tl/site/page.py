"""The HTML of a page: template, style, scripts and data in one file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["html", "page_name"]

_PARTS = ("site.css", "random.js", "worker.js", "site.js")


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
    known["title"] = _escaped(f"This {data['name']} does not exist")
    known["name"] = _escaped(str(data["name"]))
    known["data"] = _json(data)
    known["pictures"] = "".join(map(_picture, embedded))
    template = (here / "template.html").read_text(encoding="utf-8")
    pieces = template.replace("}}", "{{").split("{{")
    return "".join(known[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _picture(path: Path) -> str:
    """Base64 in a script that runs nothing: decoded only when the picture is needed."""
    text = base64.b64encode(path.read_bytes()).decode()
    return f'<script type="text/plain" id="{path.name}">{text}</script>\n'


def _json(data: Any) -> str:
    """JSON that cannot end the script that holds it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
