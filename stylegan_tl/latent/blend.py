"""Layer swapping between a source and its child (Pinkney & Adler 2020, arXiv:2010.05334)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_tl.files import file_sha256
from stylegan_tl.freeze.groups import parts_of
from stylegan_tl.latent.checks import choice, numbers, open_out, seeds
from stylegan_tl.latent.codes import look_of
from stylegan_tl.latent.kin import between, kin_of
from stylegan_tl.latent.record import Made
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.pictures import sheet
from stylegan_tl.restore import rebuild
from stylegan_tl.sampling import latents, sample
from stylegan_tl.source.portable import SourceModel, write_portable

__all__ = ["blended", "make", "share_of_high"]

_SIDES = ("source", "child")


def make(config: dict[str, Any]) -> Made:
    """Write a model per edge, and blend.png: source | blends | child, a row per seed."""
    chosen, edges = seeds(config), numbers(config, "edge", 4)
    (width,) = numbers({"width": config["width"]}, "width", 0, 16)
    choice(config, "low", _SIDES)
    choice(config, "mapping", ("auto", *_SIDES))
    choice(config, "discriminator", _SIDES)
    source, child, how = kin_of(config)
    models = {"source": rebuild(source), "child": rebuild(child)}
    look = look_of(config, models["child"])
    edges = _checked(edges, models["child"])
    out = open_out(config, *(f"blend{edge}.safetensors" for edge in edges), "blend.png")
    blends = [_written(out, source, child, edge, width, config) for edge in edges]
    names = [f"blend at {edge} px" for edge in edges]
    drawn = [models["source"], *map(rebuild, blends), models["child"]]
    columns = [source.dataset, *names, child.dataset]
    z = latents(models["child"], chosen)
    images = np.stack([sample(model, z, look) for model in drawn], 1)
    rows = [f"seed {seed}" for seed in chosen]
    files = [*(blend.path for blend in blends), out / "blend.png"]
    sheet(files[-1], images.reshape(-1, *images.shape[2:]), rows, columns, _title(config))
    return Made(files, {"source": source, "child": child}, {"seeds": chosen, "relation": how})


def _written(
    out: Path,
    source: SourceModel,
    child: SourceModel,
    edge: int,
    width: float,
    config: dict[str, Any],
) -> SourceModel:
    """A blend as a portable file."""
    blend, shares = blended(source, child, edge, width, config)
    blend.lineage = _lineage(source, child, config, edge, shares)
    path = out / f"blend{edge}.safetensors"
    write_portable(blend, path)
    return replace(blend, path=path, sha256=file_sha256(path))


def blended(
    source: SourceModel, child: SourceModel, edge: int, width: float, config: dict[str, Any]
) -> tuple[SourceModel, dict[str, float]]:
    """The model between, and the child's share by resolution ('mapping' for what has none).

    `config`: `low`, `mapping` and `discriminator`, each source or child; `mapping` may be auto.
    """
    at = _resolutions(rebuild(child))
    shares: dict[str, float] = {}
    for resolution in _blocks(at):
        high = share_of_high(resolution, edge, width)
        shares[str(resolution)] = high if config["low"] == "source" else 1 - high
    own = config["mapping"]
    shares["mapping"] = float(
        own == "child" if own != "auto" else shares[str(_blocks(at)[0])] > 0.5
    )
    tensors = between(source, child, lambda name: shares[str(at[name] or "mapping")])
    judge = {"source": source, "child": child}[config["discriminator"]]
    kept = {name: x for name, x in judge.tensors.items() if name.startswith("D.")}
    tensors = {f"G_ema.{name}": x for name, x in tensors.items()} | kept
    name = f"{source.dataset}+{child.dataset}"
    return replace(
        child, tensors=tensors, dataset=name, extra={**source.extra, **child.extra}
    ), shares


def share_of_high(resolution: int, edge: int, width: float) -> float:
    """The high model's share at a resolution: 0 below `edge`, 1 from it, a ramp of `width` octaves.

    The ramp's middle is half an octave below the edge, between it and the resolution before; so a
    width of 1 or less is a hard edge.
    """
    octaves = math.log2(resolution / edge) + 0.5
    if width == 0:
        return float(octaves > 0)
    return min(1.0, max(0.0, octaves / width + 0.5))


def _resolutions(model: AdversarialModel) -> dict[str, int | None]:
    """The resolution that each tensor of G works at."""
    parts = (part for part in parts_of(model) if part.network == "G")
    return {part.name.removeprefix("G."): part.resolution for part in parts}


def _blocks(at: dict[str, int | None]) -> list[int]:
    """The resolutions that there are blocks of, the lowest first."""
    return sorted({r for r in at.values() if r is not None})


def _checked(edges: list[float], model: AdversarialModel) -> list[int]:
    """Edges where a block begins, or past the last one; ValueError for others."""
    at = _blocks(_resolutions(model))
    allowed = [*at, 2 * at[-1]]
    if set(edges) - set(allowed):
        raise ValueError(
            f"edge={', '.join(f'{edge:g}' for edge in edges)}: use some of "
            f"{', '.join(map(str, allowed))}; at {allowed[0]} nothing is of the low one, at "
            f"{allowed[-1]} all is"
        )
    return [int(edge) for edge in edges]


def _lineage(
    source: SourceModel,
    child: SourceModel,
    config: dict[str, Any],
    edge: int,
    shares: dict[str, float],
) -> dict[str, Any]:
    """The child's, with both parents and how they were put together."""
    how = {key: config[key] for key in ("low", "width", "mapping", "discriminator")}
    blend = {"child": child.record(), "edge": edge, **how, "child_share": shares}
    return {**child.lineage, "source": source.record(), "blend": blend}


def _title(config: dict[str, Any]) -> str:
    other = {"source": "child", "child": "source"}[config["low"]]
    soft = f", over {config['width']:g} octaves" if config["width"] > 1 else ""
    return f"low resolutions of the {config['low']}, from the edge on those of the {other}{soft}"
