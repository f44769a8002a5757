"""Move the tensors of a foreign file to our names and keep account of every one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_tl.files import file_sha256
from stylegan_tl.source.foreign.values import Budget, Stored
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["Moves"]


class Moves:
    """The tensors of one file: each is taken under our name, or left for a reason."""

    def __init__(self, path: Path, tensors: Mapping[str, Stored]) -> None:
        if any(len(name) > 200 or not name.isprintable() for name in tensors):
            raise SourceError("a tensor whose name cannot be printed")
        self.path, self.source = path, tensors
        self.budget = Budget(path.stat().st_size)
        self.tensors: dict[str, Tensor] = {}
        self.taken: dict[str, str] = {}  # their name: ours
        self.left: dict[str, str] = {}  # their name: why
        self.made: dict[str, str] = {}  # our name: from what

    def take(
        self, theirs: str, ours: str, change: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Take a tensor, through `change` if its layout is another."""
        if theirs not in self.source:
            raise SourceError(f"{theirs} is missing")
        self.budget.copy(4 * math.prod(self.source[theirs].shape))
        tensor = self.source[theirs].read()
        self.tensors[ours] = tensor if change is None else change(tensor).contiguous()
        self.taken[theirs] = ours

    def make(self, ours: str, tensor: Tensor, how: str = "computed from the others") -> None:
        """A tensor of ours that the file does not have; say how it came about."""
        self.tensors[ours] = tensor
        self.made[ours] = how

    def leave(self, theirs: str, why: str) -> None:
        """Leave a tensor behind, and say why."""
        self.left[theirs] = why

    def source_model(
        self,
        *,
        model: str,
        network: dict[str, Any],
        expected: Mapping[str, tuple[int, ...]],
        format: str,
        licence: str,
        nimg: int = 0,
    ) -> SourceModel:
        """What was taken as a source model; SourceError unless it is exactly what `expected` names.

        `expected`: the shapes of all tensors of the networks that the file has ('G_ema.…', 'D.…').
        """
        wrong = [f"{k}: not in the file" for k in expected if k not in self.tensors]
        wrong += [f"{k}: this project has no such tensor" for k in self.tensors.keys() - expected]
        wrong += [
            f"{k}: {tuple(v.shape)} in the file, {expected[k]} here"
            for k, v in self.tensors.items()
            if k in expected and tuple(v.shape) != tuple(expected[k])
        ]
        accounted = self.taken.keys() | self.left.keys()
        wrong += [f"{k}: of no known use" for k in self.source if k not in accounted]
        if wrong:
            more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
            raise SourceError(f"a {format} with other tensors: {'; '.join(wrong[:6])}{more}")
        return SourceModel(
            model=model,
            network=network,
            nimg=nimg,
            dataset=self.path.stem,
            lineage={},
            tensors=self.tensors,
            path=self.path,
            sha256=file_sha256(self.path),
            extra={
                "format": format,
                "licence": licence,
                "report": {"taken": self.taken, "left": self.left, "made": self.made},
            },
        )
