"""DCGAN (Radford et al. 2016), at any power of two from 32 to 256, with optional labels."""

import torch
from torch import Tensor, nn

from cuda_ops.conv2d import conv2d, conv_transpose2d
from stylegan_tl.networks.layers import Miner, check_labels

__all__ = ["Discriminator", "Generator"]


class Conv2d(nn.Conv2d):
    """A convolution without bias whose second derivatives are cheap (R1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H', W']`."""
        return conv2d(x, self.weight, stride=self.stride, padding=self.padding)


class ConvTranspose2d(nn.ConvTranspose2d):
    """The transposed convolution, likewise."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H', W']`."""
        return conv_transpose2d(x, self.weight, stride=self.stride, padding=self.padding)


class Generator(nn.Module):
    """Transposed convolutions from z to a tanh image; modules `b4`, `b8`, ..., `b{resolution}`."""

    def __init__(
        self,
        *,
        resolution: int = 64,
        z_dim: int = 100,
        c_dim: int = 0,
        img_channels: int = 3,
        width: int = 64,
        miner: bool = False,
    ) -> None:
        super().__init__()
        self.resolution, self.z_dim, self.c_dim = resolution, z_dim, c_dim
        self.resolutions = _resolutions(resolution)
        if c_dim > 0:
            self.embed = nn.Linear(c_dim, z_dim, bias=False)
        features = z_dim * (2 if c_dim > 0 else 1)
        for r in self.resolutions[:-1]:
            out = _channels(r, resolution, width)
            stride, padding = (1, 0) if r == 4 else (2, 1)
            conv = ConvTranspose2d(features, out, 4, stride, padding, bias=False)
            block = nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
            self.add_module(f"b{r}", block)
            features = out
        last = ConvTranspose2d(features, img_channels, 4, 2, 1, bias=False)
        self.add_module(f"b{resolution}", nn.Sequential(last, nn.Tanh()))
        self.apply(_init)
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
        x = torch.cat([z, self.embed(c)], dim=1) if self.c_dim > 0 else z
        x = x[:, :, None, None]
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        return x


class Discriminator(nn.Module):
    """Strided convolutions from an image to a logit; modules `b{resolution}`, ..., `b8`, `b4`.

    Labels enter by projection on the summed 4x4 features (Miyato 2018). Batch normalisation
    asks for real and fake images in separate calls.
    """

    def __init__(
        self, *, resolution: int = 64, c_dim: int = 0, img_channels: int = 3, width: int = 64
    ) -> None:
        super().__init__()
        self.resolution, self.c_dim = resolution, c_dim
        self.resolutions = _resolutions(resolution)[:0:-1]
        features = img_channels
        for r in self.resolutions:
            out = _channels(r // 2, resolution, width)
            layers: list[nn.Module] = [Conv2d(features, out, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(out)] if r < resolution else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
            self.add_module(f"b{r}", nn.Sequential(*layers))
            features = out
        self.b4 = Conv2d(features, 1, 4, bias=False)
        if c_dim > 0:
            self.embed = nn.Linear(c_dim, features, bias=False)
        self.apply(_init)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Map images `[N, 3, R, R]` and labels `[N, c_dim]` to logits `[N, 1]`."""
        check_labels(c, self.c_dim)
        x = img
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        logits = self.b4(x).flatten(1)
        if self.c_dim == 0:
            return logits
        return logits + (x.sum(dim=(2, 3)) * self.embed(c)).sum(dim=1, keepdim=True)


def _init(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02), and the scale of batch normalisation from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _channels(r: int, resolution: int, width: int) -> int:
    """Return the width at `r`: `width` at half the resolution, doubling down to 8 x `width`."""
    return width * min(8, resolution // 2 // r)


def _resolutions(resolution: int) -> list[int]:
    if resolution not in (32, 64, 128, 256):
        raise ValueError(f"resolution={resolution}: DCGAN takes 32, 64, 128 or 256")
    return [2**i for i in range(2, resolution.bit_length())]
