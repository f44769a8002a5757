"""StyleGAN3's generator as NVIDIA's PyTorch code names and parametrises it.

Layers are called `L<number>_<size>_<channels>` there. Filters are in the file; they follow from the
arguments, and are compared with the ones designed here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.networks.alias_free import BOUNDS, Design, Step, filters, steps
from stylegan_tl.networks.stylegan3 import arguments
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.options import Options
from stylegan_tl.source.foreign.values import short
from stylegan_tl.source.portable import SourceError

__all__ = ["MODEL", "move", "network_of"]

MODEL = "stylegan_tl.models.stylegan3.StyleGAN3"
# ours: theirs, the published value
_WHOLE = {
    "channel_base": ("channel_base", 32768),
    "channel_max": ("channel_max", 512),
    "num_layers": ("num_layers", 14),
    "num_critical": ("num_critical", 2),
    "margin": ("margin_size", 10),
    "filter_size": ("filter_size", 6),
    "lrelu_upsampling": ("lrelu_upsampling", 2),
    "kernel": ("conv_kernel", 3),
}
_BOUNDS = {"channel_base": (1, 1 << 20), "channel_max": (1, 1 << 16), **BOUNDS}
_NUMBERS = {
    "first_cutoff": 2.0,
    "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3,
    "output_scale": 0.25,
}
_ANY = ("weight", "bias", "affine.weight", "affine.bias")


def network_of(given: Options) -> dict[str, Any]:
    """What the arguments of a generator say, but its size, its latents and its mapping network."""
    found: dict[str, Any] = {
        ours: given.whole(theirs, default, least=_BOUNDS[ours][0], most=_BOUNDS[ours][1])
        for ours, (theirs, default) in _WHOLE.items()
    }
    found |= {key: _number(given, key, default) for key, default in _NUMBERS.items()}
    found["clamp"] = None
    if given.get("conv_clamp", 256) is not None:
        found["clamp"] = _number(given, "conv_clamp", 256)
    found["radial"] = given.get("use_radial_filters", False)
    if type(found["radial"]) is not bool:
        raise SourceError(f"{given.of}: use_radial_filters is {short(found['radial'])}")
    given.ignore("magnitude_ema_beta", "num_fp16_res")
    try:
        Design(**{f.name: found[f.name] for f in fields(Design)})
    except ValueError as error:
        raise SourceError(f"{given.of}: {error}") from error
    return found


def move(moves: Moves, network: dict[str, Any], prefix: str) -> None:
    """Take or leave every tensor of the synthesis network called `prefix` in the file."""
    of_G, _ = arguments(network)
    design = of_G["design"]
    widths = {k: of_G[k] for k in ("channel_base", "channel_max")}
    try:
        plan = steps(of_G["resolution"], design, **widths, img_channels=3)
    except ValueError as error:
        raise SourceError(str(error)) from error
    first = f"b{plan[0].after.rate}.input"
    for name in (*_ANY[:1], *_ANY[2:], "freqs", "phases"):
        moves.take(f"{prefix}.input.{name}", f"{prefix}.{first}.{name}")
    _leave(moves, f"{prefix}.input.transform", torch.eye(3), "no transform, as at the start here")
    for step in plan:
        theirs = f"{prefix}.L{step.i}_{step.after.size}_{step.out_channels}"
        layer = f"L{step.i}" if step.i < design.num_layers else "torgb"
        ours = f"{prefix}.b{step.after.rate}.{layer}"
        for name in _ANY:
            moves.take(f"{theirs}.{name}", f"{ours}.{name}")
        moves.take(f"{theirs}.magnitude_ema", f"{ours}.magnitude.ema")
        for name, taps in zip(("up_filter", "down_filter"), _filters(step, design), strict=True):
            _leave(moves, f"{theirs}.{name}", taps, "the filter that is designed here")


def _filters(step: Step, design: Design) -> tuple[Tensor | None, Tensor | None]:
    """Those of a layer; ToRGB has none."""
    return filters(step, design) if step.i < design.num_layers else (None, None)


def _leave(moves: Moves, name: str, wanted: Tensor | None, why: str) -> None:
    """Leave a tensor if it is the wanted one; SourceError for another."""
    if name not in moves.source:
        return
    found = moves.source[name].read()
    if (
        wanted is None
        or found.shape != wanted.shape
        or not torch.allclose(found, wanted, atol=1e-6)
    ):
        raise SourceError(f"{name} differs from what the network's arguments give")
    moves.leave(name, why)


def _number(given: Options, key: str, default: float) -> float:
    value = given.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise SourceError(f"{given.of}: {key} is {short(value)}, not a number above 0")
    return float(value)
