"""What every self-contained HTML page is put together from. Data enters a page as text alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["as_json", "escaped", "fill", "head", "picture"]

_HEAD = """\
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{shared}{own}</style>"""
_POLICY = {  # what a page may load: nothing from a network
    "default-src": "'none'",
    "img-src": "'self' file: data: blob:",
    "style-src": "'unsafe-inline'",
    "script-src": "'unsafe-inline'",
}


def head(title: str, style: str, policy: Mapping[str, str] = MappingProxyType({})) -> str:
    """What stands in a page's <head>: both colour schemes, the shared style before its own.

    `policy` adds to what the page may load.
    """
    shared = (files("stylegan_tl") / "page.css").read_text(encoding="utf-8")
    allowed = "; ".join(f"{k} {v}" for k, v in {**_POLICY, **policy}.items())
    return _HEAD.format(policy=allowed, title=escaped(title), shared=shared, own=style)


def fill(template: str, known: Mapping[str, str | Iterable[str]]) -> Iterator[str]:
    """Pieces of the page: the template's text and, for each `{{name}}`, what is known by it.

    What is an iterable is read when its turn comes, so pictures are never all in memory.
    """
    for i, piece in enumerate(template.replace("}}", "{{").split("{{")):
        value = known[piece] if i % 2 else piece
        yield from [value] if isinstance(value, str) else value


def picture(path: Path) -> str:
    """Base64 in a script that runs nothing: decoded only when the picture is needed."""
    text = base64.b64encode(path.read_bytes()).decode()
    return f'<script type="text/plain" id="{path.name}">{text}</script>\n'


def as_json(data: Any) -> str:
    """JSON that cannot end the script that holds it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def escaped(text: str) -> str:
    """Text between tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
