"""Formats that keep G and D in a file each: the other one is found beside it, by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign.containers import opened
from stylegan_tl.source.foreign.values import Budget
from stylegan_tl.source.portable import IncompleteError, SourceError

__all__ = ["both", "partner"]

_SPELLINGS = (
    ("model=G_ema-", "model=D-"),  # PyTorch-StudioGAN
    ("model=G-", "model=D-"),
    ("net_G", "net_D"),  # dcgan.torch, art-DCGAN
    ("netG", "netD"),  # pytorch/examples
)


def partner(path: Path, role: str) -> Path | None:
    """The file beside `path`, which holds `role` ("G" or "D"), that holds the other; or None."""
    for G, D in _SPELLINGS:
        own, other = (G, D) if role == "G" else (D, G)
        found = path.with_name(path.name.replace(own, other))
        if own in path.name and found.is_file():
            return found
    return None


@contextmanager
def both(
    path: Path, data: Any, role: Callable[[Any], str | None]
) -> Iterator[tuple[dict[str, Any], Budget]]:
    """What the files of a pair hold, by "G" and "D", and a budget for both; D may be missing.

    `role`: "G" or "D" for a network of the format, None for anything else. Raises SourceError if
    there is a D alone, or if the partner holds something else.
    """
    own = role(data)
    found, size = {own: data}, path.stat().st_size
    other = partner(path, own)
    if other is None:
        if own != "G":
            names = ", ".join(f"…{G}… for …{D}…" for G, D in _SPELLINGS)
            raise SourceError(
                f"it holds a D alone; put its G beside it, under its name with {names}"
            )
        yield found, Budget(size)
        return
    with _beside(other) as more:
        if role(more) in (None, own):
            raise SourceError(f"{other.name} beside it is not the other network of the pair")
        yield {**found, role(more): more}, Budget(size + other.stat().st_size)


@contextmanager
def _beside(other: Path) -> Iterator[Any]:
    """`opened`, whose error names the file if it is this one that ends too early."""
    with ExitStack() as stack:
        try:
            data = stack.enter_context(opened(other))
        except IncompleteError as error:
            raise IncompleteError(f"{other.name} beside it: {error}") from error
        yield data
