"""DCGAN (Radford et al. 2016) and its best known descendants, at 32 to 256 px, labels optional.

The options are what tells them apart: Chintala's dcgan.torch is the default, Barrat's art-DCGAN has
other widths, Kim's DCGAN-tensorflow other kernels, biases and initial values.
"""

import math

import torch
from torch import Tensor, nn

from stylegan_tl.networks.layers import Miner, check_labels
from stylegan_tl.networks.strided import (
    Conv2d,
    ConvTranspose2d,
    Projection,
    doubling,
    halving,
    resolutions,
)

__all__ = ["Discriminator", "Generator", "draw_weights", "width_at"]


class Generator(nn.Module):
    """Transposed convolutions from z to a tanh image; modules `b4`, `b8`, ..., `b{resolution}`.

    Widths double from `width` at half the resolution down to `width_max` times that. `kernel` 5
    is TensorFlow's (see `strided`); `bias` gives every convolution one, and the first layer one at
    every place, as a linear layer has. `init` is that of `draw_weights`. `noise`: what z,
    standard normal, becomes first: "normal" leaves it, "uniform" takes it to [-1, 1], evenly.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        z_dim: int = 100,
        c_dim: int = 0,
        img_channels: int = 3,
        width: int = 64,
        width_max: int = 8,
        kernel: int = 4,
        bias: bool = False,
        init: str = "torch",
        noise: str = "normal",
        miner: bool = False,
    ) -> None:
        super().__init__()
        _check("noise", noise, ("normal", "uniform"))
        self.resolution, self.z_dim, self.c_dim, self.noise = resolution, z_dim, c_dim, noise
        self.resolutions = resolutions(resolution, "DCGAN")
        if c_dim > 0:
            self.embed = nn.Linear(c_dim, z_dim, bias=False)
        features = z_dim * (2 if c_dim > 0 else 1)
        for r in self.resolutions[:-1]:
            out = width_at(r, resolution, width, width_max)
            conv = _first(features, out, bias) if r == 4 else doubling(features, out, kernel, bias)
            block = nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
            self.add_module(f"b{r}", block)
            features = out
        last = doubling(features, img_channels, kernel, bias)
        self.add_module(f"b{resolution}", nn.Sequential(last, nn.Tanh()))
        draw_weights(self, init)
        if miner:
            self.miner = Miner(nn.Linear(z_dim, z_dim), nn.Linear(z_dim, z_dim))

    def forward(
        self, z: Tensor, c: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Map `z [N, z_dim]` and labels `c [N, c_dim]` to images `[N, 3, R, R]` in [-1, 1].

        `generator` is taken for the sake of one call for all models; nothing here is random.
        """
        check_labels(c, self.c_dim)
        z = self.miner(z) if hasattr(self, "miner") else z
        z = torch.erf(z / math.sqrt(2)) if self.noise == "uniform" else z
        x = torch.cat([z, self.embed(c)], dim=1) if self.c_dim > 0 else z
        x = x[:, :, None, None]
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        return x


class Discriminator(nn.Module):
    """Strided convolutions from an image to a logit; modules `b{resolution}`, ..., `b8`, `b4`.

    Options as of the generator; `norm` is "batch" or "layer" (over channels and places of one
    image, scale and shift by channel: what a gradient penalty needs); `slope` is that of the leaky
    ReLUs. Labels enter by projection on the summed 4x4 features (Miyato 2018). Batch normalisation
    asks for real and fake images in separate calls.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        c_dim: int = 0,
        img_channels: int = 3,
        width: int = 64,
        width_max: int = 8,
        kernel: int = 4,
        bias: bool = False,
        init: str = "torch",
        norm: str = "batch",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        _check("norm_D", norm, ("batch", "layer"))
        self.resolution, self.c_dim = resolution, c_dim
        self.resolutions = resolutions(resolution, "DCGAN")[:0:-1]
        features = img_channels
        for r in self.resolutions:
            out = width_at(r // 2, resolution, width, width_max)
            layers: list[nn.Module] = [halving(features, out, kernel, bias)]
            if r < resolution:
                layers += [nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(1, out)]
            layers += [nn.LeakyReLU(slope, inplace=True)]
            self.add_module(f"b{r}", nn.Sequential(*layers))
            features = out
        self.b4 = Conv2d(features, 1, 4, bias=bias)
        if c_dim > 0:
            self.embed = nn.Linear(c_dim, features, bias=False)
        draw_weights(self, init)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Map images `[N, 3, R, R]` and labels `[N, c_dim]` to logits `[N, 1]`."""
        check_labels(c, self.c_dim)
        x = self.features(img)
        logits = self.b4(x).flatten(1)
        if self.c_dim == 0:
            return logits
        return logits + (x.sum(dim=(2, 3)) * self.embed(c)).sum(dim=1, keepdim=True)

    def features(self, img: Tensor) -> Tensor:
        """Map images `[N, 3, R, R]` to what the head sees, `[N, C, 4, 4]`."""
        x = img
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        return x


def draw_weights(network: nn.Module, init: str) -> None:
    """Draw the first values: weights of mean 0 and deviation 0.02, biases zero.

    "torch" (dcgan.torch, art-DCGAN): normal, the scale of a normalisation from N(1, 0.02). Others
    have scales of one; "tf" (DCGAN-tensorflow): normal, D's convolutions cut off at two
    deviations; "uniform" (the code of WGAN-GP, GANGogh): uniform.
    """
    _check("init", init, ("torch", "tf", "uniform"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and init == "tf" and module.kernel_size == (5, 5):
            nn.init.trunc_normal_(module.weight, 0.0, 0.02, -0.04, 0.04)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and init == "uniform":
            nn.init.uniform_(module.weight, -0.02 * math.sqrt(3), 0.02 * math.sqrt(3))
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm) and init == "torch":
            nn.init.normal_(module.weight, 1.0, 0.02)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _first(features: int, out: int, bias: bool) -> ConvTranspose2d:
    """From z to 4 x 4."""
    return Projection(features, out) if bias else ConvTranspose2d(features, out, 4, bias=False)


def width_at(r: int, resolution: int, width: int, most: int) -> int:
    """Return the width at `r`: `width` at half the resolution, doubling down to `most` times it."""
    return width * min(most, resolution // 2 // r)


def _check(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"model.network.{key}={value}: use one of {', '.join(allowed)}")
