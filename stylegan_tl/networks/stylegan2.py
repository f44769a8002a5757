"""StyleGAN2 (Karras 2020; configuration of Karras 2020b): skip generator, residual discriminator.

State-dict names and shapes are those in use in the field, so weights move in and out by name.
"""

import math

import torch
from torch import Tensor, nn

from cuda_ops.bias_act import bias_act
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.upfirdn2d import setup_filter, upsample2d
from stylegan_tl.networks.layers import (
    FIR,
    SQRT2,
    Conv2d,
    FullyConnected,
    Miner,
    channels,
    check_labels,
    check_noise,
    demodulation,
    laid_out,
    minibatch_std,
    normalize_2nd_moment,
    resolutions_to,
)
from stylegan_tl.networks.style_generator import StyleGenerator

__all__ = ["Discriminator", "Generator", "Mapping", "Synthesis"]

_CLAMP = 256.0  # of activations in bf16 (Karras 2020b, appendix D)


class Mapping(nn.Module):
    """z (and a label) to w: `num_layers` fully connected layers of lr multiplier 0.01."""

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int,
        miner: bool = False,
        he: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.num_layers = z_dim, c_dim, num_ws, num_layers
        if miner:
            self.miner = Miner(FullyConnected(z_dim, z_dim), FullyConnected(z_dim, z_dim))
        features = z_dim
        if c_dim > 0:
            self.embed = self.embedding(w_dim)
            features += self.embed.weight.shape[0]
        for i in range(num_layers):
            layer = FullyConnected(features, w_dim, act="lrelu", lr_multiplier=0.01, he=he)
            self.add_module(f"fc{i}", layer)
            features = w_dim
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map `z [N, z_dim]` and labels `c [N, c_dim]` to `ws [N, num_ws, w_dim]` in float32.

        The first `truncation_cutoff` of the ws (all by default) move towards `w_avg` by
        `1 - truncation_psi`. Never moves `w_avg`. Raises ValueError if the labels do not fit.
        """
        check_labels(c, self.c_dim)
        z = self.miner(z.float()) if hasattr(self, "miner") else z
        x = self.joined(z, c)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        if self.num_ws is None:
            return x
        ws = x.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        low = self.w_avg.lerp(ws[:, :cutoff], truncation_psi)
        return torch.cat([low, ws[:, cutoff:]], dim=1)

    def embedding(self, w_dim: int) -> nn.Module:
        """The table of classes: a layer whose weight is `[features, c_dim]`."""
        return FullyConnected(self.c_dim, w_dim)

    def joined(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        """What the first layer takes: latent and label, each normalised."""
        parts = [normalize_2nd_moment(z.float())] if self.z_dim > 0 else []
        if self.c_dim > 0:
            parts.append(normalize_2nd_moment(self.embed(c.float())))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, beta: float = 0.995) -> None:
        """Move the running mean `w_avg` towards the mean of `w [N, w_dim]` by `1 - beta`."""
        self.w_avg.lerp_(w.detach().mean(dim=0).to(self.w_avg.dtype), 1 - beta)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky relu."""

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, resolution: int, up: int = 1
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("fir", setup_filter(FIR) if up == 2 else None, persistent=False)
        self.up = up

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        *,
        noise: str,
        generator: torch.Generator | None,
        clamp: float | None,
    ) -> Tensor:
        """Map `[N, I, H, W]` and `w [N, w_dim]` to `[N, O, H * up, W * up]`."""
        noise_image = self._noise(x.shape[0], noise, generator)
        styles, weight = self.affine(w), self.weight  # read once: an adapter computes it
        return conv3x3(
            x,
            weight,
            self.fir,
            up=self.up,
            styles=styles,
            scale=demodulation(weight, styles),
            noise=noise_image,
            b=self.bias,
            slope=0.2,
            gain=SQRT2,
            clamp=clamp,
        )

    def _noise(self, n: int, mode: str, generator: torch.Generator | None) -> Tensor | None:
        if mode == "none":
            return None
        if mode == "const":
            return (self.noise_const * self.noise_strength)[None, None]
        size, like = self.noise_const.shape, self.noise_const
        image = torch.randn(n, 1, *size, generator=generator, dtype=like.dtype, device=like.device)
        return image * self.noise_strength


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: features to an RGB contribution."""

    def __init__(self, in_channels: int, img_channels: int, *, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor, *, clamp: float | None) -> Tensor:
        """Map `[N, C, H, W]` and `w [N, w_dim]` to `[N, 3, H, W]`."""
        styles = self.affine(w) * self.weight_gain
        weight = (self.weight.flatten(1) * styles[:, None, :]).to(x.dtype)  # [N, 3, C]
        pixels = x.flatten(2)  # [N, C, H W], a view in both layouts; the result keeps the layout
        if x.is_contiguous():
            y = torch.bmm(weight, pixels)
        else:
            y = torch.bmm(pixels.mT, weight.mT).mT
        return bias_act(y.unflatten(2, x.shape[2:]), self.bias, clamp=clamp)


class SynthesisBlock(nn.Module):
    """One resolution: a constant (4x4) or an upsampling layer, a layer, an RGB contribution."""

    def __init__(
        self, in_channels: int, out_channels: int, *, w_dim: int, resolution: int, img_channels: int
    ) -> None:
        super().__init__()
        size = dict(w_dim=w_dim, resolution=resolution)
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **size)
            self.register_buffer("fir", setup_filter(FIR), persistent=False)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **size)
        self.torgb = ToRGB(out_channels, img_channels, w_dim=w_dim)
        self.num_conv = 1 if in_channels == 0 else 2

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: list[Tensor],
        *,
        dtype: torch.dtype,
        noise: str,
        generator: torch.Generator | None,
        clamp: float | None,
    ) -> tuple[Tensor, Tensor]:
        """Take features, image and `num_conv + 1` styles; return both at this resolution."""
        options = dict(noise=noise, generator=generator, clamp=clamp)
        if self.num_conv == 1:
            x = laid_out(self.const.to(dtype).expand(ws[0].shape[0], -1, -1, -1))
        else:
            x = self.conv0(x.to(dtype), ws[0], **options)
        x = self.conv1(x, ws[-2], **options)
        rgb = self.torgb(x, ws[-1], clamp=clamp).float()
        img = rgb if img is None else upsample2d(img, self.fir) + rgb
        return x, img


class Synthesis(nn.Module):
    """ws to an image: blocks of doubling resolution whose RGB contributions add up."""

    skips = True  # blocks give features and the RGB so far

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        bf16: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.resolutions = resolutions_to(resolution)
        self.bf16, self.clamp = bf16, _CLAMP if bf16 and clamp is None else clamp
        width = 0
        for r in self.resolutions:
            out = channels(r, channel_base, channel_max)
            block = SynthesisBlock(width, out, w_dim=w_dim, resolution=r, img_channels=img_channels)
            self.add_module(f"b{r}", block)
            width = out
        self.num_ws = 2 * len(self.resolutions)

    def forward(
        self, ws: Tensor, *, noise: str = "random", generator: torch.Generator | None = None
    ) -> Tensor:
        """Map `ws [N, num_ws, w_dim]` to images `[N, 3, R, R]`, float32, range about [-1, 1].

        `noise` is "random" (from `generator`), "const" (the stored image) or "none".
        """
        check_noise(noise)
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        w, first = ws.float().unbind(dim=1), 0
        x, img, options = None, None, dict(noise=noise, generator=generator)
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            block_ws = w[first : first + block.num_conv + 1]
            x, img = block(x, img, block_ws, dtype=dtype, clamp=self.clamp, **options)
            first += block.num_conv
        return img


class Generator(StyleGenerator):
    """The generator: `mapping` and `synthesis`.

    Activations stay within ±`clamp`; by default within ±256 with `bf16`, anywhere in float32.
    """

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
        bf16: bool = False,
        clamp: float | None = None,
    ) -> None:
        synthesis = Synthesis(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            bf16=bf16,
            clamp=clamp,
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
    """Residual block that halves the resolution; the first one starts from RGB."""

    def __init__(self, in_channels: int, out_channels: int, *, img_channels: int = 0) -> None:
        super().__init__()
        if img_channels > 0:
            self.fromrgb = Conv2d(img_channels, in_channels, 1)
        self.conv0 = Conv2d(in_channels, in_channels, 3)
        self.conv1 = Conv2d(in_channels, out_channels, 3, down=2)
        self.skip = Conv2d(in_channels, out_channels, 1, down=2, act="linear", bias=False)
        self.from_rgb = img_channels > 0

    def forward(self, x: Tensor, *, clamp: float | None) -> Tensor:
        """Map `[N, C, H, W]` to `[N, C', H / 2, W / 2]`."""
        x = self.fromrgb(x, clamp=clamp) if self.from_rgb else x
        y = self.skip(x, gain=math.sqrt(0.5))
        x = self.conv1(self.conv0(x, clamp=clamp), gain=math.sqrt(0.5), clamp=clamp)
        return x + y


class DiscriminatorEpilogue(nn.Module):
    """4x4 features to a logit, or to `out_features` for the projection on a label."""

    def __init__(
        self, in_channels: int, *, out_features: int, mbstd_group_size: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.mbstd_group_size, self.clamp = mbstd_group_size, clamp
        self.conv = Conv2d(in_channels + 1, in_channels, 3)
        self.fc = FullyConnected(in_channels * 16, in_channels, act="lrelu")
        self.out = FullyConnected(in_channels, out_features)

    def forward(self, x: Tensor, *, chunks: int) -> Tensor:
        """Map `[N, C, 4, 4]` to `[N, out_features]`."""
        x = self.conv(minibatch_std(x, self.mbstd_group_size, chunks), clamp=self.clamp)
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """The discriminator; labels enter by projection (Miyato 2018). `clamp` is that of G."""

    def __init__(
        self,
        *,
        resolution: int,
        c_dim: int = 0,
        img_channels: int = 3,
        channel_base: int = 16384,
        channel_max: int = 512,
        mbstd_group_size: int = 4,
        cmap_dim: int | None = None,
        bf16: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.c_dim, self.bf16 = resolution, c_dim, bf16
        self.clamp = _CLAMP if bf16 and clamp is None else clamp
        self.resolutions = resolutions_to(resolution)[:0:-1]
        width = {r: channels(r, channel_base, channel_max) for r in [*self.resolutions, 4]}
        for r in self.resolutions:
            rgb = img_channels if r == resolution else 0
            self.add_module(f"b{r}", DiscriminatorBlock(width[r], width[r // 2], img_channels=rgb))
        cmap = (width[4] if cmap_dim is None else cmap_dim) if c_dim > 0 else 1
        self.b4 = DiscriminatorEpilogue(
            width[4], out_features=cmap, mbstd_group_size=mbstd_group_size, clamp=clamp
        )
        if c_dim > 0:
            self.mapping = Mapping(z_dim=0, c_dim=c_dim, w_dim=cmap, num_ws=None, num_layers=8)

    def forward(self, img: Tensor, c: Tensor | None = None, *, chunks: int = 1) -> Tensor:
        """Map images `[N, 3, R, R]` and labels `[N, c_dim]` to logits `[N, 1]` in float32.

        `chunks=2` says that the batch is real and fake images one after the other: the minibatch
        statistics are then taken within each half, so the result is that of two calls.
        """
        check_labels(c, self.c_dim)
        x = laid_out(img.to(torch.bfloat16 if self.bf16 else torch.float32))
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x, clamp=self.clamp)
        x = self.b4(x.float(), chunks=chunks)
        if self.c_dim == 0:
            return x
        label = self.mapping(None, c)
        return (x * label).sum(dim=1, keepdim=True) / math.sqrt(x.shape[1])
