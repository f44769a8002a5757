"""Truncation (Karras et al. 2019, appendix B): each seed at several psi."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.latent.checks import numbers, open_out, seeds
from stylegan_tl.latent.codes import draw, encode, layers_of, look_of, space_of
from stylegan_tl.latent.record import Made
from stylegan_tl.pictures import sheet
from stylegan_tl.restore import restore
from stylegan_tl.sampling import latents

__all__ = ["make", "truncated"]


def make(config: dict[str, Any]) -> Made:
    """Write truncation.png, a row per seed and a column per psi."""
    rows, psis = seeds(config), numbers(config, "psi", -10, 10)
    if config["truncation"] != 1:
        raise ValueError(f"truncation={config['truncation']}: here the values are psi=[0,0.5,1]")
    model, trained = restore(config["checkpoint"])
    look, space = replace(look_of(config, model), truncation=1.0), space_of(model, "auto")
    if space == "w":
        layers = layers_of(config["layers"], model.G_ema.ws_resolutions)
    elif config["layers"] != "all":
        raise ValueError(f"layers={config['layers']}: a {type(model).__name__} has no w per layer")
    out = open_out(config, "truncation.png")
    codes = encode(model, latents(model, rows), space, look)
    if space == "w":
        moved = truncated(codes, model.G_ema.mapping.w_avg, psis, layers)
        title = f"truncation psi of w, layers {config['layers']}"
    else:
        moved = truncated(codes.unsqueeze(1), torch.zeros(()), psis, [0]).squeeze(1)
        title = "z times psi: there is no w to truncate"
    images = draw(model, moved, space, look)
    names = [f"seed {seed}" for seed in rows]
    sheet(out / "truncation.png", images, names, [f"{psi:g}" for psi in psis], title)
    return Made([out / "truncation.png"], {"model": trained}, {"seeds": rows, "space": space})


def truncated(codes: Tensor, centre: Tensor, psis: list[float], layers: list[int]) -> Tensor:
    """Codes [N * P, L, D]: centre + psi (code - centre) in `layers`, of codes [N, L, D]."""
    moved = codes.unsqueeze(1).repeat(1, len(psis), 1, 1)
    shares = torch.tensor(psis).view(-1, 1, 1)
    chosen = moved[:, :, layers]
    moved[:, :, layers] = centre.expand_as(chosen).lerp(chosen, shares)
    return moved.flatten(0, 1)
