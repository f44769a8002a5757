"""rosinality/stylegan2-pytorch: the `.pt` of its training and of its converters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.origin import KEY, UNKNOWN_LICENCE
from stylegan_tl.source.foreign.stylegan2 import finish, flatten, make_w_avg, move
from stylegan_tl.source.foreign.stylegan2_names import ROSINALITY
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import SourceModel

__all__ = ["FORMAT", "matches", "read"]

FORMAT = "rosinality StyleGAN2"
GROUP = 4
"""Of its minibatch statistics: a constant of its code."""
_REST = {
    "g": "the weights of which g_ema is the running mean",
    "g_optim": "an optimizer's state: a transfer starts anew",
    "d_optim": "an optimizer's state: a transfer starts anew",
    "args": "the command line of the training",
    "ada_aug_p": "the augmentation's probability: a transfer starts anew",
}


def matches(data: Any) -> bool:
    """A dictionary whose `g_ema` is a state dict with that constant input."""
    G = data.get("g_ema") if isinstance(data, dict) else None
    return isinstance(G, dict) and isinstance(G.get(ROSINALITY.const), Stored)


def read(path: Path, data: Any) -> SourceModel:
    """G_ema, D if it is there, and the mean w: the file's own, else an estimate."""
    prefixes = {"G_ema": "g_ema"} | ({"D": "d"} if isinstance(data.get("d"), dict) else {})
    tensors = flatten({prefix: data[prefix] for prefix in prefixes.values()})
    mean = data.get("latent_avg")
    moves = Moves(path, tensors | ({"latent_avg": mean} if isinstance(mean, Stored) else {}))
    move(moves, ROSINALITY, prefixes)
    if "latent_avg" in moves.source:
        moves.take("latent_avg", "G_ema.mapping.w_avg", Tensor.flatten)
    else:
        make_w_avg(moves)
    for key in data:
        if key not in {*prefixes.values(), "latent_avg", KEY}:
            moves.leave(str(key), _REST.get(key, "no part of the networks"))
    return finish(moves, format=FORMAT, licence=UNKNOWN_LICENCE, group=GROUP)
