"""mmgeneration: checkpoints of its StyleGAN2 and DCGAN, all networks in one `state_dict`.

Its own trainings saw images in the order blue, green, red, and their files have a `meta`; the
weights that it converted from NVIDIA's are of red, green, blue and have none. Networks of the
former are turned into ones of RGB, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign import stylegan2
from stylegan_tl.source.foreign.dcgan import NORM, Stage, move_dcgan
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.origin import UNKNOWN_LICENCE
from stylegan_tl.source.foreign.stylegan2_names import MMGENERATION
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["FORMAT", "matches", "read"]

FORMAT = "mmgeneration"
GROUP = 4
SLOPE = 0.01
"""Of the leaky ReLUs in its DCGAN: PyTorch's default, which its configurations leave."""
_PREFIXES = ("generator_ema", "generator", "discriminator")
_FIRST = {"stylegan2": "constant_input.input", "dcgan": "noise2feat.conv.weight"}
_STYLEGAN1 = "convs.0.conv1.weight"
_DCGAN = ("noise2feat", "upsampling.{}", "output_layer", "downsamples.{}")


def matches(data: Any) -> bool:
    """A dictionary with a `state_dict` that has a first tensor of one of its generators."""
    state = data.get("state_dict") if isinstance(data, dict) else None
    if not isinstance(state, dict):
        return False
    firsts = (*_FIRST.values(), _STYLEGAN1)
    return any(f"{p}.{first}" in state for p in _PREFIXES[:2] for first in firsts)


def read(path: Path, data: Any) -> SourceModel:
    """G_ema, of a file without one G; D if it is there."""
    state = {k: v for k, v in data["state_dict"].items() if isinstance(v, Stored)}
    found = [p for p in _PREFIXES if any(k.startswith(f"{p}.") for k in state)]
    G = found[0]
    moves = Moves(path, state)
    for name in state:
        if name.partition(".")[0] == "generator" != G:
            moves.leave(name, "the weights of which generator_ema is the running mean")
        elif name.partition(".")[0] not in found:
            moves.leave(name, "no part of the networks")
    trained = isinstance(data.get("meta"), dict) and "iter" in data["meta"]
    for key in data.keys() - {"state_dict"}:
        moves.leave(str(key), "state of the training: a transfer starts anew")
    if f"{G}.{_FIRST['dcgan']}" in state:
        return _dcgan(moves, G, trained)
    if f"{G}.{_FIRST['stylegan2']}" in state:
        return _stylegan2(moves, G, trained)
    raise SourceError(
        "mmgeneration's StyleGAN1 is another network than the original: it has a leaky ReLU before "
        "the blur and 3 x 3 kernels from RGB, so its weights draw other pictures elsewhere"
    )


def _stylegan2(moves: Moves, G: str, trained: bool) -> SourceModel:
    prefixes = {"G_ema": G}
    if any(name.startswith("discriminator.convs.") for name in moves.source):
        prefixes["D"] = "discriminator"
    stylegan2.move(moves, MMGENERATION, prefixes)
    if trained:
        stylegan2.swap_colours(moves.tensors)
    stylegan2.make_w_avg(moves)
    for name in moves.source:
        if name.startswith("discriminator.ada_aug."):
            moves.leave(name, "the augmentation: a transfer starts anew")
    return stylegan2.finish(moves, format=_format(trained), licence=UNKNOWN_LICENCE, group=GROUP)


def _dcgan(moves: Moves, G: str, trained: bool) -> SourceModel:
    first, upsampling, last, downsampling = _DCGAN
    chains = {}
    for prefix, (start, inner) in {
        G: (first, upsampling),
        "discriminator": (None, downsampling),
    }.items():
        parts = [start] if start else []
        i = 0
        while f"{prefix}.{inner.format(i)}.conv.weight" in moves.source:
            parts.append(inner.format(i))
            i += 1
        chains[prefix] = (
            [_stage(moves.source, f"{prefix}.{part}") for part in (*parts, last)] if i else []
        )
    model = move_dcgan(
        moves,
        chains[G],
        chains["discriminator"],
        format=_format(trained),
        licence=UNKNOWN_LICENCE,
        slope=SLOPE,
    )
    return model if not trained else _rgb(model)


def _rgb(model: SourceModel) -> SourceModel:
    """The same DCGAN for images of RGB."""
    r = model.network["resolution"]
    for name, dim in {
        f"G_ema.b{r}.0.weight": 1,
        f"G_ema.b{r}.0.bias": 0,
        f"D.b{r}.0.weight": 1,
    }.items():
        if name in model.tensors:
            model.tensors[name] = model.tensors[name].flip(dim)
    return model


def _stage(tensors: Mapping[str, Stored], name: str) -> Stage:
    """A convolution with its normalisation, as mmcv's ConvModule names them."""
    bias = f"{name}.conv.bias" if f"{name}.conv.bias" in tensors else None
    names = (*NORM, "num_batches_tracked") if f"{name}.bn.weight" in tensors else ()
    norm = {k: f"{name}.bn.{k}" for k in names}
    if f"{name}.conv.weight" not in tensors:
        raise SourceError(f"{name}.conv.weight is missing")
    return Stage(f"{name}.conv.weight", tensors[f"{name}.conv.weight"].shape, bias, norm)


def _format(trained: bool) -> str:
    return f"{FORMAT}, {'blue-green-red turned round' if trained else 'red-green-blue'}"
