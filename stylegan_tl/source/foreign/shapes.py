"""The shapes that networks of this project have, without memory for their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stylegan_tl.networks import stylegan, stylegan2, stylegan3

__all__ = ["shapes", "stylegan2_shapes", "stylegan3_shapes", "stylegan_shapes"]

Shapes = dict[str, tuple[int, ...]]


def shapes(build: Callable[[], nn.Module], prefix: str) -> Shapes:
    """Names and shapes of the tensors of the network that `build` makes, after `prefix`."""
    with torch.device("meta"):
        network = build()
    return {f"{prefix}.{k}": tuple(v.shape) for k, v in network.state_dict().items()}


def stylegan2_shapes(network: dict[str, Any], D: bool) -> Shapes:
    """Those of `model=stylegan2` with this network dictionary, with or without its D."""
    return _of(stylegan2, network, D)


def stylegan_shapes(network: dict[str, Any], D: bool) -> Shapes:
    """Those of `model=stylegan`."""
    return _of(stylegan, network, D)


def stylegan3_shapes(network: dict[str, Any], D: bool) -> Shapes:
    """Those of `model=stylegan3`."""
    of_G, of_D = stylegan3.arguments(network)
    found = shapes(lambda: stylegan3.Generator(**of_G), "G_ema")
    return found | (shapes(lambda: stylegan3.Discriminator(**of_D), "D") if D else {})


def _of(module: Any, network: dict[str, Any], D: bool) -> Shapes:
    both = {k: network[k] for k in ("resolution", "channel_base", "channel_max", "c_dim")}
    latent = {k: network[k] for k in ("z_dim", "w_dim", "num_mapping_layers")}
    found = shapes(lambda: module.Generator(**both, **latent), "G_ema")
    return found | (shapes(lambda: module.Discriminator(**both), "D") if D else {})
