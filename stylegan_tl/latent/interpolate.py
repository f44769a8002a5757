"""A walk between latents: animation, strip, and MP4 if there is an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.latent.checks import choice, open_out, seeds, whole
from stylegan_tl.latent.codes import draw, given_or_seeded, look_of, on_the_way, space_of
from stylegan_tl.latent.record import Made
from stylegan_tl.latent.video import find_encoder, write_mp4
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.pictures import animation, frames, grid, sheet
from stylegan_tl.restore import restore

__all__ = ["make", "walk"]

_NAMES = tuple(f"interpolation.{suffix}" for suffix in ("webp", "gif", "png", "mp4"))
_STEPS = 5  # of a strip, its ends with it


def make(config: dict[str, Any]) -> Made:
    """Write interpolation.webp, .png and perhaps .mp4."""
    stations = seeds(config, least=1 if config["latents"] else 2)
    path = choice(config, "path", ("auto", "lerp", "slerp"))
    count, fps = whole(config, "frames", 1), whole(config, "fps", 1)
    encoder = find_encoder() if config["mp4"] else None
    model, trained = restore(config["checkpoint"])
    look, space = look_of(config, model), space_of(model, config["space"])
    path = {"auto": "lerp" if space == "w" else "slerp"}.get(path, path)
    codes, names = given_or_seeded(model, config, stations, space, look)
    if len(codes) < 2:
        raise ValueError(f"latents={config['latents']} has one image: a walk needs two or more")
    out, loop = open_out(config, *_NAMES), bool(config["loop"])
    steps = walk(codes, count, path, loop=loop, centre=_centre(model, space))
    images = draw(model, steps, space, look)
    files = _moving(out, images, fps, encoder)
    files.append(_strip(out, images, count, names, loop, f"{path} in {space}"))
    facts = {"stations": names, "space": space, "path": path, "frames": len(images)}
    return Made(files, {"model": trained}, facts)


def walk(
    codes: Tensor, count: int, path: str, *, loop: bool, centre: Tensor | float = 0.0
) -> Tensor:
    """`count` latents from each of `codes` [N, …] on to the next; without a loop the last ends it.

    [N * count, …] in a loop, else [(N - 1) * count + 1, …]; number i * count is codes[i] itself.
    """
    starts = codes if loop else codes[:-1]
    ends = codes.roll(-1, 0)[: len(starts)]
    a, b = (x.repeat_interleave(count, 0) for x in (starts, ends))
    shares = (torch.arange(count) / count).repeat(len(starts))
    steps = on_the_way(a, b, shares, path, centre)
    return steps if loop else torch.cat([steps, codes[-1:]])


def _centre(model: AdversarialModel, space: str) -> Tensor | float:
    """What a great circle goes round: the mean w, and 0 in z."""
    return model.G_ema.mapping.w_avg if space == "w" else 0.0


def _moving(out: Path, images: np.ndarray, fps: int, encoder: str | None) -> list[Path]:
    pictures = [grid(image[None], padding=0) for image in images]
    ms = round(1000 / fps)
    files = [animation(out / "interpolation.webp", pictures, ms=ms, hold_ms=ms)]
    if encoder:
        files.append(write_mp4(out / "interpolation.mp4", frames(pictures), fps, encoder))
    return files


def _strip(
    out: Path, images: np.ndarray, count: int, names: list[str], loop: bool, title: str
) -> Path:
    """A row for each way from one station to the next, `count` images long."""
    ways = [f"{a} → {b}" for a, b in zip(names, [*names[1:], names[0]], strict=True)]
    ways = ways if loop else ways[:-1]
    steps = [round(count * i / (_STEPS - 1)) for i in range(_STEPS)]
    shown = [(way * count + step) % len(images) for way in range(len(ways)) for step in steps]
    columns = [f"{100 * i // (_STEPS - 1)} %" for i in range(_STEPS)]
    sheet(out / "interpolation.png", images[shown], ways, columns, title)
    return out / "interpolation.png"
