"""The DCGAN of pytorch/examples: a state dict each for G and D, `netG_….pth` and `netD_….pth`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign.dcgan import NORM, Stage, move_dcgan
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.origin import UNKNOWN_LICENCE
from stylegan_tl.source.foreign.pairs import both
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import SourceModel

__all__ = ["FORMAT", "matches", "read"]

FORMAT = "pytorch/examples DCGAN"


def matches(data: Any) -> bool:
    """A state dict of one sequence `main` that begins with a convolution of 4 x 4."""
    return _role(data) is not None


def read(path: Path, data: Any) -> SourceModel:
    """G as G_ema and D, from this file and from its partner beside it. D gives logits here."""
    with both(path, data, _role) as (files, budget):
        tensors = {
            f"{role}.{_plain(key)}": value
            for role, state in files.items()
            for key, value in state.items()
        }
        moves = Moves(path, tensors)
        moves.budget = budget
        stages = {role: _stages(role, tensors) for role in files}
        return move_dcgan(
            moves, stages["G"], stages.get("D", []), format=FORMAT, licence=UNKNOWN_LICENCE
        )


def _plain(key: str) -> str:
    """A name without what DataParallel puts before it."""
    return key.removeprefix("module.")


def _role(data: Any) -> str | None:
    """G's first weight is transposed: its maps are the second number; D's has few inputs."""
    if not isinstance(data, dict) or not all(isinstance(v, Stored) for v in data.values()):
        return None
    state = {_plain(k): v for k, v in data.items() if isinstance(k, str)}
    first = state.get("main.0.weight")
    if first is None or len(first.shape) != 4 or not all(k.startswith("main.") for k in state):
        return None
    return "G" if "main.1.running_mean" in state else "D"  # D's first layer has no normalisation


def _stages(role: str, tensors: dict[str, Stored]) -> list[Stage]:
    """Weights of four dimensions in their order, each with the normalisation right after it."""
    start = f"{role}.main."
    numbers = {k[len(start) :].partition(".")[0] for k in tensors if k.startswith(start)}
    stages = []
    for i in sorted(int(n) for n in numbers if n.isdecimal() and len(n) < 4):
        weight, after = tensors.get(f"{start}{i}.weight"), f"{start}{i + 1}."
        if weight is None or len(weight.shape) != 4:
            continue
        norm = {}
        if f"{after}running_mean" in tensors:
            names = (*NORM, "num_batches_tracked")
            norm = {k: f"{after}{k}" for k in names if f"{after}{k}" in tensors or k in NORM}
        bias = f"{start}{i}.bias" if f"{start}{i}.bias" in tensors else None
        stages.append(Stage(f"{start}{i}.weight", weight.shape, bias, norm))
    return stages
