"""The same latents through a source model and its child, and through the models between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_tl.latent.checks import choice, open_out, seeds, whole
from stylegan_tl.latent.codes import draw, given_or_seeded, look_of, space_of
from stylegan_tl.latent.kin import between, kin_of
from stylegan_tl.latent.record import Made
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.pictures import animation, before_after, grid, sheet
from stylegan_tl.restore import rebuild
from stylegan_tl.source.portable import SourceModel

__all__ = ["make", "morph"]

_NAMES = ("pair.png", "morph.webp", "morph.gif", "morph.png")
_STEPS = 5  # of the strip, its ends with it
_ROWS = 8  # of the strip
_MOST = 16  # latents of the animation


def make(config: dict[str, Any]) -> Made:
    """Write pair.png, and with `morph` morph.png and morph.webp."""
    chosen = seeds(config)
    count, fps = whole(config, "frames", 1), whole(config, "fps", 1)
    choice(config, "space", ("z", "w"))
    source, child, how = kin_of(config)
    first, last = rebuild(source), rebuild(child)
    look, space = look_of(config, last), space_of(last, config["space"])
    codes, names = given_or_seeded(first, config, chosen, space, look)
    out = open_out(config, *_NAMES[: None if config["morph"] else 1])
    shown = [draw(model, codes, space, look) for model in (first, last)]
    files = [out / "pair.png"]
    captions = f"{source.dataset}: source", f"{child.dataset}: child, same {space}"
    before_after(files[0], *shown, captions)
    if config["morph"]:
        some = codes[:_MOST]
        frames = [draw(m, some, space, look) for m in morph(source, child, last, count)]
        files += _moving(out, frames, names[:_MOST], (source.dataset, child.dataset), fps)
    facts = {"of": names, "space": space, "relation": how}
    return Made(files, {"source": source, "child": child}, facts)


def morph(
    source: SourceModel, child: SourceModel, model: AdversarialModel, count: int
) -> Iterator[AdversarialModel]:
    """`model`, its G_ema moved from the source's weights to the child's in `count` steps.

    All tensors move at once (Wang et al. 2019, Deep Network Interpolation); count + 1 are given.
    """
    for step in range(count + 1):
        tensors = between(source, child, lambda _, share=step / count: share)
        model.G_ema.load_state_dict(tensors)
        yield model


def _moving(
    out: Path, frames: list[np.ndarray], names: list[str], ends: tuple[str, str], fps: int
) -> list[Path]:
    """There and back as an animation, and a few steps as a picture with a row per latent."""
    last, ms = len(frames) - 1, round(1000 / fps)
    there_and_back = [grid(images) for images in [*frames, *frames[-2:0:-1]]]
    moving = animation(out / "morph.webp", there_and_back, ms=ms, hold_ms=ms)
    steps = sorted({round(last * i / (_STEPS - 1)) for i in range(_STEPS)})
    columns = [ends[0], *(f"{100 * s / last:.0f} %" for s in steps[1:-1]), ends[1]]
    tiles = np.stack([frames[s][:_ROWS] for s in steps], 1)
    title = "weights interpolated from source to child"
    tiles = tiles.reshape(-1, *tiles.shape[2:])
    sheet(out / "morph.png", tiles, names[:_ROWS], columns, title)
    return [moving, out / "morph.png"]
