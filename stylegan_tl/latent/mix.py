"""Style mixing (Karras et al. 2019, section 3.1): layers of one latent put into another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.latent.checks import open_out, seeds
from stylegan_tl.latent.codes import draw, layers_of, look_of
from stylegan_tl.latent.record import Made
from stylegan_tl.pictures import sheet
from stylegan_tl.restore import restore
from stylegan_tl.sampling import has_truncation, latents, styles

__all__ = ["make", "mixed"]


def make(config: dict[str, Any]) -> Made:
    """Write mix.png: the columns' own images on top, the rows' at the left, all mixtures."""
    rows, columns = seeds(config, "rows"), seeds(config, "columns")
    model, trained = restore(config["checkpoint"])
    if not has_truncation(model):
        raise ValueError(
            f"mix: a {type(model).__name__} takes one z for all layers, so there are no styles "
            "to mix; interpolate walks between its latents"
        )
    look, layers = look_of(config, model), layers_of(config["layers"], model.G_ema.ws_resolutions)
    out = open_out(config, "mix.png")
    w = styles(model, latents(model, [*rows, *columns]), look)
    of_rows, of_columns = w[: len(rows)], w[len(rows) :]
    tiles = draw(model, mixed(of_rows, of_columns, layers), "w", look)
    own = draw(model, w, "w", look)
    images = np.full((len(rows) + 1, len(columns) + 1, *own.shape[1:]), 255, np.uint8)
    images[0, 1:], images[1:, 0] = own[len(rows) :], own[: len(rows)]
    images[1:, 1:] = tiles.reshape(len(rows), len(columns), *own.shape[1:])
    title = f"layers {', '.join(map(str, layers))} of the columns in the rows"
    sheet(
        out / "mix.png",
        images.reshape(-1, *own.shape[1:]),
        ["", *(f"seed {seed}" for seed in rows)],
        ["", *(f"seed {seed}" for seed in columns)],
        title,
    )
    return Made(
        [out / "mix.png"], {"model": trained}, {"rows": rows, "columns": columns, "layers": layers}
    )


def mixed(rows: Tensor, columns: Tensor, layers: list[int]) -> Tensor:
    """ws [R * C, num_ws, w_dim]: those of `rows` [R, …] with `layers` of `columns` [C, …]."""
    ws = rows.unsqueeze(1).repeat(1, len(columns), 1, 1)
    ws[:, :, layers] = columns[:, layers]
    return torch.flatten(ws, 0, 1)
