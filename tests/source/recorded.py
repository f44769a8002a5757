"""Weights in closed form, for files of other projects and for what their own code made of them.

`recorded.json` holds, for each layout, the names and shapes of its tensors and the outputs of the
original networks (`source` says which) on the CPU in float32 with exactly these numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROW = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
MAPPINGS = ("style.", "style_mapping.", "mapping.fc")


def filled(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Cosines for every name of a layout; filters, variances and counts are what they must be."""
    return {name: _tensor(name, shape, i) for i, (name, shape) in enumerate(sorted(shapes.items()))}


def latents(count: int, size: int) -> Tensor:
    """z [count, size] in closed form."""
    return (torch.arange(count * size).float() * 1.3).cos().mul(1.4).reshape(count, size)


def pictures(count: int, size: int) -> Tensor:
    """Images [count, 3, size, size] in closed form."""
    places = torch.arange(count * 3 * size * size).float()
    return (places * 0.37).sin().reshape(count, 3, size, size)


def probe(images: Tensor) -> list[float]:
    """Some pixels, the mean and the deviation."""
    images = images.double()
    some = images[:, :, ::5, ::7].flatten()[:24]
    return [*some.tolist(), images.mean().item(), images.std().item()]


def _tensor(name: str, shape: list[int], index: int) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith(("kernel", "resample_filter")):
        upwards = "upsample." in name or ".conv.blur." in name
        return ROW.outer(ROW) * (4 if upwards else 1)
    value = (torch.arange(math.prod(shape)).float() * 0.7 + index).cos().reshape(shape)
    if name.endswith("running_var"):
        return 1 + value / 2
    if name.startswith(MAPPINGS) and len(shape) == 2:
        return value * 100  # of learning rate multiplier 0.01
    plain = name.startswith(("main.", "noise2feat", "upsampling", "output_layer", "downsamples"))
    return value * (2 / math.prod(shape[1:])) ** 0.5 if plain and len(shape) == 4 else value
