"""PyTorch-StudioGAN: a `.pth` each for G, G_ema and D with a `state_dict`; its StyleGAN2.

Its StyleGAN2 has NVIDIA's names, and a head `linear1` of its own in D. A class-conditional D is
the one of this project where it projects on a mapped label ("SPD"); other ways of conditioning
have no place here, and G comes alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.origin import UNKNOWN_LICENCE
from stylegan_tl.source.foreign.pairs import both
from stylegan_tl.source.foreign.stylegan2 import finish, leave_filters
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["FORMAT", "matches", "read"]

FORMAT = "PyTorch-StudioGAN StyleGAN2"
GROUP = 4
"""Of its minibatch statistics: the default that its configurations leave."""
_HEAD = "linear1"
_AUXILIARY = ("linear2.", "linear_mi.", "embedding_mi.", "info_")
_DCGAN = ("blocks.0.0.deconv0.", "blocks.0.0.conv0.")
"""Of G and of D in its `src/models/deep_conv.py` (03b02d5)."""
_OTHER_LABELS = "a way of conditioning D that this project has not: G comes alone"


def matches(data: Any) -> bool:
    """A dictionary with a `state_dict` and a `run_name`, as its checkpoints have."""
    return (
        isinstance(data, dict) and "run_name" in data and isinstance(data.get("state_dict"), dict)
    )


def read(path: Path, data: Any) -> SourceModel:
    """G (as G_ema) and D, from this file and from its partner beside it."""
    with both(path, data, _role) as (files, budget):
        tensors = {
            f"{role}.{key.removeprefix('module.')}": value
            for role, file in files.items()
            for key, value in file["state_dict"].items()
            if isinstance(value, Stored)
        }
        moves = Moves(path, tensors)
        moves.budget = budget
        moves.leave("optimizer, seed, step, epoch, …", "state of the training: it starts anew")
        _move(moves)
        return finish(moves, format=FORMAT, licence=UNKNOWN_LICENCE, group=GROUP)


def _role(data: Any) -> str | None:
    """Which network of StyleGAN2; SourceError for another backbone."""
    if not matches(data):
        return None
    state = {str(k).removeprefix("module.") for k in data["state_dict"]}
    if "synthesis.b4.const" in state:
        return "G"
    if "b4.fc.weight" in state:
        return "D"
    if any(name.startswith(_DCGAN) for name in state):
        raise SourceError(
            "PyTorch-StudioGAN's DCGAN is another network than the one here: its G ends in a 3 x 3 "
            "convolution at full size and does not normalise at 4 px, its D has two convolutions "
            "at each size and sums what the last one leaves"
        )
    raise SourceError("a PyTorch-StudioGAN network that is no StyleGAN2")


def _move(moves: Moves) -> None:
    labelled = "G.mapping.embed.weight" in moves.source
    takes_D = not labelled or {"D.mapping.embed.weight", f"D.{_HEAD}.weight"} <= moves.source.keys()
    for name in moves.source:
        role, _, rest = name.partition(".")
        if name.endswith("resample_filter"):
            leave_filters(moves, {name: 1.0})
        elif role == "G":
            moves.take(name, f"G_ema.{rest}")
        elif not takes_D or (
            "D.embedding.fc0.weight" in moves.source and rest.startswith("embedding.")
        ):
            moves.leave(name, _OTHER_LABELS)
        elif rest.startswith(_AUXILIARY):
            moves.leave(name, "an auxiliary head: no part of this project's D")
        elif rest.startswith(f"{_HEAD}."):
            moves.take(name, f"D.b4.out.{rest.removeprefix(f'{_HEAD}.')}")
        else:
            moves.take(name, f"D.{rest}")
