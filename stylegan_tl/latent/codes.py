"""Where the latents of a generator live, and the one way to images from there.

A generator with a mapping network has `w`: ws [N, num_ws, w_dim], one w per layer. Every generator
has `z`: [N, z_dim].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.metrics.ppl import slerp
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.sampling import (
    Look,
    has_truncation,
    labels,
    latents,
    look_in,
    sample,
    styles,
    synthesise,
)

__all__ = [
    "draw", "encode", "given_or_seeded", "layers_of", "look_of", "on_the_way", "space_of",
]  # fmt: skip

BANDS = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1024)}
"""Layers by the resolution they draw at (Karras et al. 2019, section 3.1)."""


def look_of(config: dict[str, Any], model: AdversarialModel) -> Look:
    """Truncation, noise and label of `config`; ValueError if they do not fit the model."""
    look = look_in(config)
    labels(model, 1, look.label)
    return look


def space_of(model: AdversarialModel, space: str) -> str:
    """`z` or `w`; `auto` is w where there is one. ValueError for w where there is none."""
    if space not in ("auto", "z", "w"):
        raise ValueError(f"space={space}: use auto, z or w")
    if space == "auto":
        return "w" if has_truncation(model) else "z"
    if space == "w" and not has_truncation(model):
        family = type(model).__name__
        raise ValueError(f"space=w: a {family} has no mapping network and so no w; use space=z")
    return space


def encode(model: AdversarialModel, z: Tensor, space: str, look: Look) -> Tensor:
    """The latents of z [N, z_dim] in `space`: themselves, or ws [N, num_ws, w_dim], truncated."""
    return styles(model, z, look) if space == "w" else z


def draw(model: AdversarialModel, codes: Tensor, space: str, look: Look) -> np.ndarray:
    """Images uint8 [N, 3, R, R] of latents in `space`."""
    if space == "w":
        return synthesise(model, codes, look)
    return sample(model, codes, look)


def given_or_seeded(
    model: AdversarialModel, config: dict[str, Any], seeds: Sequence[int], space: str, look: Look
) -> tuple[Tensor, list[str]]:
    """Latents in `space` and their names: those of the file `latents`, else of the seeds."""
    if config["latents"] is None:
        codes = encode(model, latents(model, seeds), space, look)
        return codes, [f"seed {seed}" for seed in seeds]
    codes = _read(Path(config["latents"]).expanduser(), space)
    wanted = (model.G_ema.num_ws, model.G_ema.w_dim) if space == "w" else (model.G_ema.z_dim,)
    if codes.shape[1:] != wanted:
        raise ValueError(
            f"latents={config['latents']}: {space} has the shape {tuple(codes.shape[1:])} there, "
            f"{tuple(wanted)} in this model: use the model that they were made with or its child"
        )
    return codes, [f"image {i}" for i in range(len(codes))]


def _read(path: Path, space: str) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"latents={path} does not exist: name what the tool project wrote")
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"latents={path} is not a safetensors file ({error})") from error
    if space not in found:
        raise ValueError(f"latents={path} has no {space}; it has {', '.join(found)}: use space=")
    return found[space].float()


def on_the_way(a: Tensor, b: Tensor, t: Tensor, path: str, centre: Tensor | float = 0.0) -> Tensor:
    """Latents at shares t [N] of the ways from a to b, of any shape [N, …, D].

    `lerp` goes straight; `slerp` along the great circle about `centre`, its radius changing evenly.
    Where t is 0 the result is a, bit for bit.
    """
    spread = t.view(-1, *[1] * (a.ndim - 1))
    if path == "lerp":
        return a.lerp(b, spread)
    rows = ((x - centre).reshape(-1, x.shape[-1]) for x in (a, b))
    each = t.repeat_interleave(a[0].numel() // a.shape[-1])
    return torch.where(spread == 0, a, slerp(*rows, each).view_as(a) + centre)


def layers_of(text: Any, at: Sequence[int], key: str = "layers") -> list[int]:
    """Indices of ws that `text` names: all, coarse | middle | fine, 0-3, 5 or a list of these.

    `at`: the resolution that each of the ws draws at (`ws_resolutions` of a generator).

    >>> layers_of("coarse", [4, 4, 8, 8, 16]), layers_of([0, "3-4"], [4, 4, 8, 8, 16])
    ([0, 1, 2, 3], [0, 3, 4])
    """
    parts = text if isinstance(text, list) else [text]
    found = sorted({i for part in parts for i in _some(str(part), at)})
    if not found or found[-1] >= len(at):
        raise ValueError(
            f"{key}={text}: this generator has layers 0-{len(at) - 1}, at {at[0]}-{at[-1]} px; use "
            f"all, coarse, middle, fine, numbers such as 0-3, or a list"
        )
    return found


def _some(text: str, at: Sequence[int]) -> list[int]:
    if text == "all":
        return list(range(len(at)))
    if text in BANDS:
        low, high = BANDS[text]
        return [i for i, resolution in enumerate(at) if low <= resolution <= high]
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        return [len(at)]  # none of this generator's: the message of the caller
    return list(range(int(match[1]), int(match[2] or match[1]) + 1))
