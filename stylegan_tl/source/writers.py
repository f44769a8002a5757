"""Models of this project as files that other projects read; history and licence go along.

StyleGAN2 in the layouts of rosinality/stylegan2-pytorch and of NVIDIA's PyTorch code. Both are
plain tensors in a `.pt` that `torch.load(..., weights_only=True)` reads, and that this project
reads back to the bit. Under `origin` stands what it is, where it comes from, and its licence.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.files import write_atomic
from stylegan_tl.networks.layers import FIR, channels
from stylegan_tl.source.foreign import stylegan2_names as names
from stylegan_tl.source.foreign.origin import KEY, origin
from stylegan_tl.source.foreign.stylegan2 import MODEL
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["write_nvidia", "write_rosinality"]


def write_rosinality(model: SourceModel, out: Path) -> list[str]:
    """Write a StyleGAN2 as rosinality's `.pt`: `g_ema`, `g` (the same), `d`, `latent_avg`.

    Returns what its user must know. Raises SourceError for what that layout cannot hold.
    """
    network = _stylegan2(model, "rosinality's")
    if network.get("c_dim", 0) or network["z_dim"] != network["w_dim"]:
        raise SourceError(
            "rosinality's StyleGAN2 has no labels, and z as long as w; this one has "
            f"c_dim={network.get('c_dim', 0)}, z_dim={network['z_dim']}, w_dim={network['w_dim']}"
        )
    state, resolution = model.state("G_ema"), network["resolution"]
    G = _renamed(
        state, names.generator(resolution, network["num_mapping_layers"], names.ROSINALITY)
    )
    G |= _filters(names.filters(resolution, "G"))
    found: dict[str, Any] = {"g_ema": G, "g": G, "latent_avg": state["mapping.w_avg"].clone()}
    if D := model.state("D"):
        found["d"] = _renamed(D, names.discriminator(resolution, names.ROSINALITY))
        found["d"] |= _filters(names.filters(resolution, "D"))
    _save({**found, KEY: origin(model)}, out)
    return _notes_rosinality(network)


def write_nvidia(model: SourceModel, out: Path) -> list[str]:
    """Write a StyleGAN2 as state dicts of NVIDIA's networks: `G_ema`, `D`, and `init_kwargs`.

    `init_kwargs` holds the arguments of stylegan2-ada-pytorch's Generator and Discriminator;
    `load_state_dict(..., strict=True)` then takes the tensors. Returns what its user must know.
    """
    network = _stylegan2(model, "NVIDIA's")
    G, D = model.state("G_ema"), model.state("D")
    found: dict[str, Any] = {"G_ema": G | _nvidia_filters(G, "synthesis.")}
    found |= {"D": D | _nvidia_filters(D, "")} if D else {}
    found = {key: {k: v.clone() for k, v in state.items()} for key, state in found.items()}
    _save({**found, "init_kwargs": _init_kwargs(network), KEY: origin(model)}, out)
    return ["build Generator(**init_kwargs['G']), then load_state_dict(file['G_ema'])"]


def _stylegan2(model: SourceModel, whose: str) -> dict[str, Any]:
    """The network dictionary; SourceError unless it is a StyleGAN2 without additions."""
    if model.model != MODEL:
        raise SourceError(
            f"{whose} layout is one of StyleGAN2, this is a {model.model.rpartition('.')[2]}: use "
            "format=safetensors or format=onnx"
        )
    if model.network.get("miner"):
        raise SourceError(f"{whose} layout has no place for a miner before the mapping network")
    return model.network


def _renamed(state: dict[str, Tensor], table: dict[str, str]) -> dict[str, Tensor]:
    found = {theirs: names.theirs_of(ours, state[ours]).clone() for ours, theirs in table.items()}
    if missing := state.keys() - table.keys() - {"mapping.w_avg"}:
        raise SourceError(f"{', '.join(sorted(missing)[:4])}: no place in the layout")
    return found


def _filters(sums: dict[str, float]) -> dict[str, Tensor]:
    return {name: _filter() * total for name, total in sums.items()}


def _filter() -> Tensor:
    """The separable filter 1-3-3-1 with a sum of one, [4, 4]."""
    row = torch.tensor(FIR) / sum(FIR)
    return row.outer(row)


def _nvidia_filters(state: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    """One for each block and each layer in it that can resample."""
    parts = [key.removeprefix(start).split(".") for key in state if key.startswith(f"{start}b")]
    blocks = {f"{start}{p[0]}" for p in parts if start or p[0] != "b4"}
    layers = ("conv0", "conv1") if start else ("conv", "conv0", "conv1", "skip", "fromrgb")
    blocks |= {f"{start}{p[0]}.{p[1]}" for p in parts if p[1] in layers}
    return {f"{block}.resample_filter": _filter() for block in sorted(blocks)}


def _init_kwargs(network: dict[str, Any]) -> dict[str, Any]:
    widths = {k: network[k] for k in ("channel_base", "channel_max")}
    widths |= {"num_fp16_res": 0, "conv_clamp": network.get("clamp")}
    size = {"img_resolution": network["resolution"], "img_channels": 3}
    size |= {"c_dim": network.get("c_dim", 0)}
    latent = {k: network[k] for k in ("z_dim", "w_dim")}
    mapping = {"num_layers": network["num_mapping_layers"]}
    group = {"mbstd_group_size": network["mbstd_group_size"]}
    return {
        "G": {**latent, **size, "mapping_kwargs": mapping, "synthesis_kwargs": widths},
        "D": {**size, **widths, "epilogue_kwargs": group},
    }


def _notes_rosinality(network: dict[str, Any]) -> list[str]:
    """Its code builds one set of widths and groups of four."""
    notes, base = [], network["channel_base"]
    resolutions = [4 << i for i in range(network["resolution"].bit_length() - 2)]
    own = [channels(r, base, network["channel_max"]) for r in resolutions]
    for multiplier in (1, 2):
        if own == [channels(r, 16384 * multiplier, 512) for r in resolutions]:
            notes.append(
                f"build Generator({network['resolution']}, {network['w_dim']}, "
                f"{network['num_mapping_layers']}, channel_multiplier={multiplier})"
            )
            break
    else:
        notes.append(f"its code builds other widths than {own}: change `channels` in its model.py")
    if network["mbstd_group_size"] != 4:
        notes.append(f"its D groups 4 samples, this one {network['mbstd_group_size']}")
    if network.get("clamp"):
        notes.append(f"it does not limit activations to {network['clamp']}")
    return notes


def _save(tree: dict[str, Any], out: Path) -> None:
    """Write atomically."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    write_atomic(out, buffer.getvalue())
