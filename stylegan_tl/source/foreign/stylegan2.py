"""StyleGAN2 under other names: tensors by a table, architecture from shapes, the mean of w."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.networks import stylegan2
from stylegan_tl.networks.layers import FIR, channels
from stylegan_tl.source.foreign import stylegan2_names as names
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.shapes import stylegan2_shapes
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = [
    "LATENTS",
    "MODEL",
    "SEED",
    "architecture",
    "finish",
    "flatten",
    "leave_filters",
    "make_w_avg",
    "move",
    "swap_colours",
]

MODEL = "stylegan_tl.models.stylegan2.StyleGAN2"
LATENTS = 4096
"""Of an estimate of the mean w: what the projects take that do not store it."""
SEED = 3_141_592_653
"""Of these latents; one that nobody seeds a training with: there the first weights are the same
numbers as the latents, and their mean w lies elsewhere."""
_COLOURS = {".torgb.weight": 0, ".torgb.bias": 0, ".fromrgb.weight": 1}


def flatten(states: Mapping[str, Any]) -> dict[str, Stored]:
    """The tensors of several state dicts, each name after its prefix."""
    return {
        f"{prefix}.{key}": value
        for prefix, state in states.items()
        for key, value in state.items()
        if isinstance(value, Stored)
    }


def move(moves: Moves, words: names.Words, prefixes: Mapping[str, str]) -> None:
    """Take the networks of a file by the table of `words`; `prefixes`: 'G_ema' (and 'D') to theirs.

    Their resampling filters are left behind if they are the ones of this project.
    """
    start = f"{prefixes['G_ema']}."
    own = {k.removeprefix(start) for k in moves.source if k.startswith(start)}
    resolution, layers = names.extent(own, words)
    tables = {"G_ema": names.generator(resolution, layers, words)}
    tables["D"] = names.discriminator(resolution, words)
    for network, prefix in prefixes.items():
        for ours, theirs in tables[network].items():
            moves.take(f"{prefix}.{theirs}", f"{network}.{ours}", partial(names.ours_of, ours))
        sums = names.filters(resolution, network[0])
        leave_filters(moves, {f"{prefix}.{k}": total for k, total in sums.items()})


def leave_filters(moves: Moves, sums: Mapping[str, float]) -> None:
    """Leave resampling filters if they are the ones of this project, scaled to `sums`.

    Raises SourceError for another filter.
    """
    row = torch.tensor(FIR) / sum(FIR)
    for name, total in sums.items():
        if name not in moves.source:
            continue
        found = moves.source[name].read()
        if found.shape != (4, 4) or not torch.allclose(found, row.outer(row) * total, atol=1e-6):
            raise SourceError(f"{name}: a resampling filter other than 1-3-3-1")
        moves.leave(name, "the resampling filter 1-3-3-1, built in here")


@torch.no_grad()
def make_w_avg(moves: Moves) -> None:
    """Estimate the mean w with the mapping network that was taken, as the report then says."""
    prefix = "G_ema.mapping."
    state = {k[len(prefix) :]: v for k, v in moves.tensors.items() if k.startswith(prefix)}
    network = architecture({k: tuple(v.shape) for k, v in moves.tensors.items()}, group=1)
    sizes = {k: network[k] for k in ("z_dim", "c_dim", "w_dim")}
    layers = network["num_mapping_layers"]
    mapping = stylegan2.Mapping(**sizes, num_ws=1, num_layers=layers)
    mapping.load_state_dict({**state, "w_avg": mapping.w_avg})
    z = torch.randn(LATENTS, sizes["z_dim"], generator=torch.Generator().manual_seed(SEED))
    classes = torch.arange(LATENTS) % max(sizes["c_dim"], 1)
    c = torch.eye(sizes["c_dim"])[classes] if sizes["c_dim"] else None
    mean = mapping(z, c)[:, 0].double().mean(0).float()
    moves.make(f"{prefix}w_avg", mean, f"the mean over {LATENTS} latents of seed {SEED}")


def swap_colours(tensors: dict[str, Tensor]) -> None:
    """Turn networks of BGR images into the same ones of RGB images: exact."""
    for name, tensor in tensors.items():
        for end, dim in _COLOURS.items():
            if name.endswith(end):
                tensors[name] = tensor.flip(dim)


def architecture(shapes: Mapping[str, tuple[int, ...]], *, group: int) -> dict[str, Any]:
    """The network dictionary of a StyleGAN2 from the shapes of its tensors ('G_ema.…', 'D.…').

    `group`: samples that share a minibatch statistic, which no tensor tells.
    Raises SourceError for what is no StyleGAN2 of this project.
    """
    G = {k[len("G_ema.") :]: v for k, v in shapes.items() if k.startswith("G_ema.")}
    widths = {r: G[f"synthesis.b{r}.conv1.weight"][0] for r in _blocks(G)}
    base, most = _base(widths)
    c_dim = G["mapping.embed.weight"][1] if "mapping.embed.weight" in G else 0
    w_dim = G["synthesis.b4.conv1.affine.weight"][1]
    return {
        "resolution": max(widths),
        "z_dim": G["mapping.fc0.weight"][1] - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "c_dim": c_dim,
        "num_mapping_layers": sum(k.startswith("mapping.fc") and k.endswith("t") for k in G),
        "channel_base": base,
        "channel_max": most,
        "mbstd_group_size": group,
    }


def finish(moves: Moves, *, format: str, licence: str, group: int) -> SourceModel:
    """The source model of what was moved: G_ema, and D if a tensor of one was."""
    network = architecture({k: tuple(v.shape) for k, v in moves.tensors.items()}, group=group)
    has_D = any(name.startswith("D.") for name in moves.tensors)
    return moves.source_model(
        model=MODEL,
        network=network,
        expected=stylegan2_shapes(network, D=has_D),
        format=format,
        licence=licence,
    )


def _base(widths: Mapping[int, int]) -> tuple[int, int]:
    """channel_base and channel_max of the widths by resolution."""
    top, most = max(widths), max(widths.values())
    base = top * widths[top]
    for r, width in widths.items():
        if width != channels(r, base, most):
            raise SourceError(f"{width} maps at {r} px, not {channels(r, base, most)}")
    return base, most


def _blocks(G: Mapping[str, tuple[int, ...]]) -> list[int]:
    """The resolutions of the blocks: all powers of two from 4."""
    start = "synthesis.b"
    numbers = {k[len(start) :].partition(".")[0] for k in G if k.startswith(start)}
    found = sorted(int(n) for n in numbers if n.isdecimal() and len(n) < 6)
    if len(found) < 2 or found != [4 << i for i in range(len(found))]:
        raise SourceError(f"blocks of {found} px are no StyleGAN2")
    return found
