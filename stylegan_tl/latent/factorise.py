"""Closed-form factorisation of latent semantics (SeFa: Shen & Zhou 2021, arXiv:2007.06600)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stylegan_tl.files import write_atomic
from stylegan_tl.freeze.groups import parts_of
from stylegan_tl.latent.checks import numbers, open_out, seeds, whole
from stylegan_tl.latent.codes import draw, given_or_seeded, layers_of, look_of, space_of
from stylegan_tl.latent.record import Made
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.networks.stylegan import stage_of
from stylegan_tl.pictures import sheet
from stylegan_tl.restore import restore
from stylegan_tl.sampling import labels

__all__ = ["directions_of", "first_weights", "make", "moved"]


def make(config: dict[str, Any]) -> Made:
    """Write a sheet per seed, a row per direction, and the directions as safetensors."""
    from safetensors.torch import save

    chosen, degrees = seeds(config), numbers(config, "degrees", -100, 100)
    count = whole(config, "directions", 1)
    model, trained = restore(config["checkpoint"])
    look, space = look_of(config, model), space_of(model, "auto")
    weight, layers = _weight(model, space, config["layers"])
    if count > weight.shape[1]:
        raise ValueError(f"directions={count}: {space} has {weight.shape[1]} dimensions")
    codes, names = given_or_seeded(model, config, chosen, space, look)
    pictures = [f"factorise_{name.replace(' ', '')}.png" for name in names]
    out = open_out(config, "directions.safetensors", *pictures)
    directions, strengths = (x[:count] for x in directions_of(weight))
    units = _spread(model, space, directions, config["label"])
    tensors = {"directions": directions, "eigenvalues": strengths, "unit": units}
    files = [out / "directions.safetensors"]
    write_atomic(files[0], save({k: v.contiguous() for k, v in tensors.items()}))
    rows = [f"{i}: {x:.4g}" for i, x in enumerate(strengths.tolist())]
    where = f"w (layers: {config['layers']})" if space == "w" else "z"
    for code, name, picture in zip(codes, names, pictures, strict=True):
        steps = moved(code, directions * units[:, None], degrees, layers)
        files.append(out / picture)
        title = (
            f"{name}: directions of {where}, each with its eigenvalue, moved by standard deviations"
        )
        sheet(
            files[-1],
            draw(model, steps, space, look),
            rows,
            [f"{d:+g}" if d else "0" for d in degrees],
            title,
        )
    return Made(files, {"model": trained}, {"of": names, "space": space, "layers": layers})


def directions_of(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Unit directions [D, D] in rows, with their eigenvalues [D], the largest first (eq. 4).

    Those n that make ‖A n‖² largest, for A = `weight` [O, D]: eigenvectors of Aᵀ A. The sign of
    each is such that its largest entry is positive.
    """
    weight = weight.double()
    values, vectors = torch.linalg.eigh(weight.T @ weight)
    values, rows = values.flip(0), vectors.flip(1).T
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return (rows * largest.sign()).float(), values.float()


def first_weights(model: AdversarialModel) -> list[Tensor]:
    """The weights [O, D] that w meets first in each layer of convolution, or z in the network.

    Number k of them is fed by ws k. Of a network that grows, those that it has grown to.
    """
    kind = "style" if hasattr(model.G, "mapping") else "const"
    found, top = [], _grown(model.G_ema)
    for part in parts_of(model):
        if part.network != "G" or part.groups & {"torgb"} or (part.resolution or 0) > top:
            continue
        if kind in part.groups:
            path, _, name = part.name.removeprefix("G.").rpartition(".")
            if name == "weight":
                found.append(_rows(model.G_ema.get_submodule(path)))
    return found if kind == "style" else [found[0][:, : model.G_ema.z_dim]]


def moved(code: Tensor, steps: Tensor, degrees: list[float], layers: list[int] | None) -> Tensor:
    """A code [num_ws, w_dim] or [z_dim] plus each degree of each step [K, D], in `layers` alone.

    [K * len(degrees), …], direction by direction.
    """
    shifts = (steps[:, None] * torch.tensor(degrees)[None, :, None]).flatten(0, 1)
    codes = code.repeat(len(shifts), *[1] * code.ndim)
    if layers is None:
        return codes + shifts
    codes[:, layers] += shifts[:, None]
    return codes


def _weight(model: AdversarialModel, space: str, chosen: Any) -> tuple[Tensor, list[int] | None]:
    """The weights of the chosen layers, stacked, and those layers."""
    weights = first_weights(model)
    if space == "z":
        if chosen != "all":
            raise ValueError(f"layers={chosen}: z enters in one place; leave layers=all")
        return weights[0], None
    layers = layers_of(chosen, model.G_ema.ws_resolutions)
    used = [weights[i] for i in layers if i < len(weights)]
    if not used:
        raise ValueError(
            f"layers={chosen}: that w feeds no convolution, use some of 0-{len(weights) - 1}"
        )
    return torch.cat(used), layers


def _grown(G: nn.Module) -> int:
    """The highest resolution in use, in pixels."""
    lod = getattr(getattr(G, "synthesis", None), "lod", None)
    return G.resolution if lod is None else stage_of(lod.item(), G.resolution)[0]


def _rows(module: nn.Module) -> Tensor:
    """A layer's weight as a matrix from its inputs [O, D]."""
    weight = module.weight.detach()
    if isinstance(module, nn.ConvTranspose2d):
        return weight.flatten(1).T  # [I, O, k, k]
    return weight.flatten(1)


def _spread(
    model: AdversarialModel, space: str, directions: Tensor, label: int | str | None
) -> Tensor:
    """The standard deviation [K] of the model's latents along each direction; 1 in z."""
    if space == "z":
        return torch.ones(len(directions))
    z = model.latents(10_000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        w = model.G_ema.mapping(z, labels(model, len(z), label))[:, 0]
    return (w @ directions.T).std(0)
