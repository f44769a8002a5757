"""StyleGAN2 by the names of rosinality/stylegan2-pytorch and of mmgeneration, both ways.

Both keep every tensor of StyleGAN2 in the orientation and scale that is used here: only names and
dimensions of length one differ (checked against their own networks, `tests/source/foreign`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

__all__ = [
    "MMGENERATION",
    "ROSINALITY",
    "Words",
    "discriminator",
    "extent",
    "filters",
    "generator",
    "ours_of",
    "theirs_of",
]


@dataclass(frozen=True)
class Words:
    """How one project names the parts; `{}` is the module's path or a number."""

    style: str
    linear: str
    const: str
    weight: str
    modulation: str
    strength: str
    noise: str
    plain: str


ROSINALITY = Words(
    style="style.{}",
    linear="{}.weight",
    const="input.input",
    weight="{}.conv.weight",
    modulation="{}.conv.modulation",
    strength="{}.noise.weight",
    noise="noises.noise_{}",
    plain="{}.weight",
)
"""rosinality/stylegan2-pytorch, model.py (bef283a)."""
MMGENERATION = Words(
    style="style_mapping.{}",
    linear="{}.linear.weight_orig",
    const="constant_input.input",
    weight="{}.conv.weight_orig",
    modulation="{}.conv.style_modulation",
    strength="{}.noise_injector.weight",
    noise="injected_noise_{}",
    plain="{}.conv.weight_orig",
)
"""open-mmlab/mmgeneration, generator_discriminator_v2.py (ccd1f56)."""


def generator(resolution: int, mapping_layers: int, words: Words) -> dict[str, str]:
    """Our name of every tensor of G to theirs; `mapping.w_avg` has none."""
    names = {"synthesis.b4.const": words.const}
    for i in range(mapping_layers):
        names |= _linear(f"mapping.fc{i}", words.style.format(i + 1), words)
    names |= _layer("synthesis.b4.conv1", "conv1", 0, words)
    names |= _to_rgb("synthesis.b4.torgb", "to_rgb1", words)
    for i, r in enumerate(_sizes(resolution)):
        for j in range(2):
            k = 2 * i + j
            names |= _layer(f"synthesis.b{r}.conv{j}", f"convs.{k}", k + 1, words)
        names |= _to_rgb(f"synthesis.b{r}.torgb", f"to_rgbs.{i}", words)
    return names


def discriminator(resolution: int, words: Words) -> dict[str, str]:
    """Our name of every tensor of D to theirs."""
    names = _conv(f"b{resolution}.fromrgb", "convs.0.0", "convs.0.1", words)
    for i, r in enumerate(reversed(_sizes(resolution)), 1):
        names |= _conv(f"b{r}.conv0", f"convs.{i}.conv1.0", f"convs.{i}.conv1.1", words)
        names |= _conv(f"b{r}.conv1", f"convs.{i}.conv2.1", f"convs.{i}.conv2.2", words)
        names[f"b{r}.skip.weight"] = words.plain.format(f"convs.{i}.skip.1")
    names |= _conv("b4.conv", "final_conv.0", "final_conv.1", words)
    names |= _linear("b4.fc", "final_linear.0", words)
    return names | _linear("b4.out", "final_linear.1", words)


def filters(resolution: int, network: str) -> dict[str, float]:
    """Their resampling filters, which are no parameters here, to the sum that each has."""
    sizes = _sizes(resolution)
    if network == "G":
        up = {f"convs.{2 * i}.conv.blur.kernel": 4.0 for i in range(len(sizes))}
        return up | {f"to_rgbs.{i}.upsample.kernel": 4.0 for i in range(len(sizes))}
    parts = ("conv2", "skip")
    return {f"convs.{i}.{part}.0.kernel": 1.0 for i in range(1, len(sizes) + 1) for part in parts}


def extent(keys: Collection[str], words: Words) -> tuple[int, int]:
    """Resolution and number of mapping layers of a G with the tensors `keys`."""
    blocks = layers = 0
    while f"to_rgbs.{blocks}.bias" in keys:
        blocks += 1
    while words.linear.format(words.style.format(layers + 1)) in keys:
        layers += 1
    return 4 << min(blocks, 16), layers


def ours_of(name: str, tensor: Tensor) -> Tensor:
    """A tensor of theirs in the shape that the tensor `name` has here."""
    kind = name.rpartition(".")[2]
    if kind == "noise_strength":
        return tensor.reshape(())
    if kind == "noise_const":
        return tensor.reshape(tensor.shape[2:])
    if name.endswith("torgb.bias"):
        return tensor.flatten()
    return tensor.squeeze(0) if _has_batch(name) else tensor


def theirs_of(name: str, tensor: Tensor) -> Tensor:
    """The tensor `name` of ours in the shape that theirs has."""
    kind = name.rpartition(".")[2]
    if kind == "noise_strength":
        return tensor.reshape(1)
    if kind == "noise_const":
        return tensor[None, None]
    if name.endswith("torgb.bias"):
        return tensor[None, :, None, None]
    return tensor[None] if _has_batch(name) else tensor


def _has_batch(name: str) -> bool:
    """Whether theirs has a first dimension of one sample: the constant, modulated weights."""
    modulated = name.startswith("synthesis.") and name.endswith(".weight")
    return name.endswith("b4.const") or (modulated and ".affine." not in name)


def _sizes(resolution: int) -> list[int]:
    return [2**i for i in range(3, resolution.bit_length())]


def _linear(ours: str, theirs: str, words: Words) -> dict[str, str]:
    return {f"{ours}.weight": words.linear.format(theirs), f"{ours}.bias": f"{theirs}.bias"}


def _conv(ours: str, conv: str, bias: str, words: Words) -> dict[str, str]:
    return {f"{ours}.weight": words.plain.format(conv), f"{ours}.bias": f"{bias}.bias"}


def _layer(ours: str, theirs: str, noise: int, words: Words) -> dict[str, str]:
    return {
        f"{ours}.weight": words.weight.format(theirs),
        f"{ours}.noise_strength": words.strength.format(theirs),
        f"{ours}.noise_const": words.noise.format(noise),
        f"{ours}.bias": f"{theirs}.activate.bias",
        **_linear(f"{ours}.affine", words.modulation.format(theirs), words),
    }


def _to_rgb(ours: str, theirs: str, words: Words) -> dict[str, str]:
    return {
        f"{ours}.weight": words.weight.format(theirs),
        f"{ours}.bias": f"{theirs}.bias",
        **_linear(f"{ours}.affine", words.modulation.format(theirs), words),
    }
