"""StyleGAN (Karras et al. 2019, arXiv:1812.04948), growing progressively (2018, arXiv:1710.10196).

Both networks have all blocks and a buffer `lod` that says how far they have grown: 0 is the full
resolution R, k is R / 2^k, and between k and k + 1 the block at R / 2^k fades in. Whatever the
stage, images are R x R: G enlarges what it draws, D shrinks what it sees. Weights are stored as
published, unscaled; the blur of [1, 2, 1] follows an upsampling convolution and comes before a
downsampling one (Zhang 2019).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops.conv2d import conv2d
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.scale_act import scale_act
from cuda_ops.upfirdn2d import filter2d, setup_filter
from stylegan_tl.networks import stylegan2
from stylegan_tl.networks.layers import (
    SQRT2,
    FullyConnected,
    channels,
    check_labels,
    check_noise,
    laid_out,
    minibatch_std,
    normalize_2nd_moment,
    resolutions_to,
)
from stylegan_tl.networks.style_generator import StyleGenerator

__all__ = ["Discriminator", "Generator", "Mapping", "Synthesis", "faded", "stage_of"]

BLUR = (1.0, 2.0, 1.0)
NEAREST = (0.0, 1.0, 1.0, 0.0)
"""In `conv3x3`: with up=2 the convolution of a nearest-neighbour enlargement, with down=2 the
2 x 2 means of a convolution."""


def stage_of(lod: float, resolution: int) -> tuple[int, float]:
    """The highest resolution in use, and the share that the one below still has in the image.

    >>> stage_of(1.25, 64)
    (32, 0.25)
    """
    whole = math.floor(lod)
    return resolution >> whole, lod - whole


def faded(images: Tensor, lod: float) -> Tensor:
    """Images [N, 3, R, R] as a network of `lod` sees them, at R still (Karras 2018, appendix A).

    Means of 2^k x 2^k pixels; in a fade a mixture of those and of the next coarser ones.
    """
    size = images.shape[-1]
    top, share = stage_of(lod, size)
    low = _shrunk(images, top)
    if share:
        low = low.lerp(_enlarged(_shrunk(low, top // 2), top), share)
    return _enlarged(low, size)


class Mapping(stylegan2.Mapping):
    """z (and a label) to w: a normalised latent, beside it the row of its class, 8 layers."""

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int,
        miner: bool = False,
    ) -> None:
        size = dict(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=num_ws)
        super().__init__(**size, num_layers=num_layers, miner=miner, he=True)

    def embedding(self, w_dim: int) -> nn.Module:
        """A vector like z for every class, standard normal."""
        table = nn.Linear(self.c_dim, self.z_dim, bias=False)
        nn.init.normal_(table.weight)
        return table

    def joined(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Latent and class side by side, normalised together (PixelNorm)."""
        parts = [z.float()] if self.c_dim == 0 else [z.float(), self.embed(c.float())]
        return normalize_2nd_moment(torch.cat(parts, dim=1))


class Conv(nn.Module):
    """A 3x3 or 1x1 convolution with equalised learning rate; `gain` is that of what follows."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, gain: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("fir", setup_filter(NEAREST), persistent=False)
        self.weight_gain = gain / math.sqrt(in_channels * kernel * kernel)

    def forward(self, x: Tensor, *, up: int = 1, down: int = 1, slope: float = 1.0) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H * up / down, ...]`; `slope` is a leaky relu's."""
        weight = self.weight * self.weight_gain
        if weight.shape[2] == 1:
            return scale_act(conv2d(x, weight), b=self.bias, slope=slope)
        weight = weight.flip(2, 3) if up == 2 else weight  # there the adjoint is meant
        return conv3x3(x, weight, self.fir, up=up, down=down, b=self.bias, slope=slope)


class Epilogue(nn.Module):
    """Noise, bias, leaky relu, and AdaIN: every map to mean 0 and variance 1, then the style's."""

    def __init__(self, features: int, *, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.affine = FullyConnected(w_dim, 2 * features)
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(
        self, x: Tensor, w: Tensor, *, noise: str, generator: torch.Generator | None
    ) -> Tensor:
        """Map `[N, C, H, W]` and `w [N, w_dim]` to `[N, C, H, W]`."""
        image = self._noise(x.shape[0], noise, generator)
        if image is not None:
            x = torch.addcmul(x, image, self.noise_strength[:, None, None])
        x = scale_act(x, b=self.bias, slope=0.2)
        return adain(x, *self.affine(w).chunk(2, dim=1))

    def _noise(self, n: int, mode: str, generator: torch.Generator | None) -> Tensor | None:
        if mode == "none":
            return None
        like = self.noise_const
        if mode == "const":
            return like[None, None]
        size = (n, 1, *like.shape)
        return torch.randn(size, generator=generator, dtype=like.dtype, device=like.device)


def adain(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """(1 + scale) (x - mean) / sd + shift over the pixels of each map (Karras 2019, equation 1).

    `x` [N, C, H, W]; `scale` and `shift` [N, C].
    """
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    factor = (1 + scale) * (variance + eps).rsqrt()
    offset = shift - factor * mean
    return torch.addcmul(offset[:, :, None, None], x, factor[:, :, None, None])


class SynthesisBlock(nn.Module):
    """One resolution: a constant (4x4) or an upsampling convolution, a convolution, RGB."""

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, resolution: int, img_channels: int
    ) -> None:
        super().__init__()
        size = dict(w_dim=w_dim, resolution=resolution)
        if in_channels == 0:
            self.const = nn.Parameter(torch.ones(out_channels, resolution, resolution))
        else:
            self.conv0 = Conv(in_channels, out_channels, 3, gain=SQRT2, bias=False)
            self.register_buffer("blur", setup_filter(BLUR), persistent=False)
        self.epilogue0 = Epilogue(out_channels, **size)
        self.conv1 = Conv(out_channels, out_channels, 3, gain=SQRT2, bias=False)
        self.epilogue1 = Epilogue(out_channels, **size)
        self.torgb = Conv(out_channels, img_channels, 1, gain=1)

    def forward(
        self,
        x: Tensor | None,
        ws: list[Tensor],
        *,
        noise: str,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Take the features of half the size (None: begin) and two styles; return the features."""
        if x is None:
            x = laid_out(self.const.expand(ws[0].shape[0], -1, -1, -1))
        else:
            x = filter2d(self.conv0(x, up=2), self.blur)
        options = dict(noise=noise, generator=generator)
        x = self.epilogue0(x, ws[0], **options)
        return self.epilogue1(self.conv1(x), ws[1], **options)


class Synthesis(nn.Module):
    """ws to an image: blocks of doubling resolution, as far as `lod` says."""

    skips = False

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
    ) -> None:
        super().__init__()
        self.resolutions, width = resolutions_to(resolution), 0
        for r in self.resolutions:
            out = channels(r, channel_base, channel_max)
            block = SynthesisBlock(width, out, w_dim=w_dim, resolution=r, img_channels=img_channels)
            self.add_module(f"b{r}", block)
            width = out
        self.register_buffer("lod", torch.zeros([]))
        self.pinned: float | None = None
        self.num_ws = 2 * len(self.resolutions)

    def pin(self) -> None:
        """Make lod as it is now a constant, for exporters, which cannot look into a tensor."""
        self.pinned = self.lod.item()

    def forward(
        self, ws: Tensor, *, noise: str = "random", generator: torch.Generator | None = None
    ) -> Tensor:
        """Map `ws [N, num_ws, w_dim]` to images `[N, 3, R, R]`, float32, range about [-1, 1].

        `noise` is "random" (from `generator`), "const" (the stored images) or "none".
        """
        check_noise(noise)
        resolution = self.resolutions[-1]
        top, share = stage_of(self.lod.item() if self.pinned is None else self.pinned, resolution)
        w = ws.float().unbind(dim=1)
        x = below = None
        for i, r in enumerate(self.resolutions[: self.resolutions.index(top) + 1]):
            x, below = self._block(r)(x, w[2 * i :], noise=noise, generator=generator), x
        img = self._block(top).torgb(x)
        if share:
            img = img.lerp(_enlarged(self._block(top // 2).torgb(below), top), share)
        return _enlarged(img, resolution)

    def _block(self, resolution: int) -> nn.Module:
        return getattr(self, f"b{resolution}")


class Generator(StyleGenerator):
    """The generator: `mapping` and `synthesis`."""

    def __init__(
        self,
        *,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        c_dim: int = 0,
        img_channels: int = 3,
        num_mapping_layers: int = 8,
        miner: bool = False,
        channel_base: int = 16384,
        channel_max: int = 512,
    ) -> None:
        synthesis = Synthesis(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
        )
        super().__init__(
            synthesis,
            Mapping,
            resolution=resolution,
            z_dim=z_dim,
            w_dim=w_dim,
            c_dim=c_dim,
            num_mapping_layers=num_mapping_layers,
            miner=miner,
        )


class DiscriminatorBlock(nn.Module):
    """A convolution, and after a blur another that halves the size."""

    def __init__(self, in_channels: int, out_channels: int, *, img_channels: int) -> None:
        super().__init__()
        self.fromrgb = Conv(img_channels, in_channels, 1, gain=SQRT2)
        self.conv0 = Conv(in_channels, in_channels, 3, gain=SQRT2)
        self.conv1 = Conv(in_channels, out_channels, 3, gain=SQRT2)
        self.register_buffer("blur", setup_filter(BLUR), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to `[N, C', H / 2, W / 2]`."""
        return self.conv1(filter2d(self.conv0(x, slope=0.2), self.blur), down=2, slope=0.2)


class DiscriminatorEpilogue(nn.Module):
    """4x4 features to a logit, or to one for each class."""

    def __init__(
        self, in_channels: int, *, img_channels: int, out_features: int, mbstd_group_size: int
    ) -> None:
        super().__init__()
        self.mbstd_group_size = mbstd_group_size
        self.fromrgb = Conv(img_channels, in_channels, 1, gain=SQRT2)
        self.conv = Conv(in_channels + 1, in_channels, 3, gain=SQRT2)
        self.fc = FullyConnected(in_channels * 16, in_channels, act="lrelu", he=True)
        self.out = FullyConnected(in_channels, out_features)

    def forward(self, x: Tensor, *, chunks: int) -> Tensor:
        """Map `[N, C, 4, 4]` to `[N, out_features]`."""
        x = self.conv(minibatch_std(x, self.mbstd_group_size, chunks), slope=0.2)
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """The discriminator; of a label it gives the logit of that class."""

    class_rows = ("b4.out.weight", "b4.out.bias")  # a row for each class

    def __init__(
        self,
        *,
        resolution: int,
        c_dim: int = 0,
        img_channels: int = 3,
        channel_base: int = 16384,
        channel_max: int = 512,
        mbstd_group_size: int = 4,
    ) -> None:
        super().__init__()
        self.resolution, self.c_dim = resolution, c_dim
        self.resolutions = resolutions_to(resolution)[:0:-1]
        width = {r: channels(r, channel_base, channel_max) for r in [*self.resolutions, 4]}
        for r in self.resolutions:
            block = DiscriminatorBlock(width[r], width[r // 2], img_channels=img_channels)
            self.add_module(f"b{r}", block)
        self.b4 = DiscriminatorEpilogue(
            width[4],
            img_channels=img_channels,
            out_features=max(c_dim, 1),
            mbstd_group_size=mbstd_group_size,
        )
        self.register_buffer("lod", torch.zeros([]))

    def forward(self, img: Tensor, c: Tensor | None = None, *, chunks: int = 1) -> Tensor:
        """Map images `[N, 3, R, R]` and labels `[N, c_dim]` to logits `[N, 1]` in float32.

        `chunks=2` says that the batch is real and fake images one after the other: the minibatch
        statistics are then taken within each half, so the result is that of two calls.
        """
        check_labels(c, self.c_dim)
        top, share = stage_of(self.lod.item(), self.resolution)
        x = self._from_rgb(img, top)
        for r in [r for r in self.resolutions if r <= top]:
            x = getattr(self, f"b{r}")(x)
            if share and r == top:
                x = x.lerp(self._from_rgb(img, top // 2), share)
        x = self.b4(x, chunks=chunks)
        return x if self.c_dim == 0 else (x * c).sum(dim=1, keepdim=True)

    def _from_rgb(self, img: Tensor, resolution: int) -> Tensor:
        small = laid_out(_shrunk(img.float(), resolution))
        return getattr(self, f"b{resolution}").fromrgb(small, slope=0.2)


def _shrunk(images: Tensor, size: int) -> Tensor:
    """Means of whole squares of pixels, to `size`."""
    by = images.shape[-1] // size
    return images if by == 1 else F.avg_pool2d(images, by)


def _enlarged(images: Tensor, size: int) -> Tensor:
    """The nearest pixel, at `size`."""
    by = size // images.shape[-1]
    return images if by == 1 else F.interpolate(images, scale_factor=by, mode="nearest")
