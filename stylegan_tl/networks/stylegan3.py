"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423): an alias-free generator.

Its discriminator is StyleGAN2's. Layers stand in blocks `b<r>` by the rate r of what they give, so
that a resolution means the same as in every other family; beside that names and shapes are those
in use in the field. There is no noise: what the image shows follows from w alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from cuda_ops.conv2d import conv2d
from cuda_ops.filtered_lrelu import filtered_lrelu
from stylegan_tl.networks import stylegan2
from stylegan_tl.networks.alias_free import Band, Design, Step, filters, steps
from stylegan_tl.networks.layers import FullyConnected, check_noise, demodulation, laid_out
from stylegan_tl.networks.style_generator import StyleGenerator
from stylegan_tl.networks.stylegan2 import Discriminator

__all__ = ["Discriminator", "Generator", "Synthesis", "arguments"]

_CLAMP = 256.0


def arguments(network: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of `Generator` and of `Discriminator` in a network dictionary.

    Without the miner and the group size of the minibatch statistics. What the dictionary does not
    name of `Design` and of the scale and limits is as published.
    """
    both = {"c_dim": network.get("c_dim", 0), "clamp": network.get("clamp", _CLAMP)}
    both |= {"resolution": network["resolution"]}
    own = ("z_dim", "w_dim", "num_mapping_layers", "channel_base", "channel_max")
    of_G = {**both, **{k: network[k] for k in own}}
    of_G["output_scale"] = network.get("output_scale", 0.25)
    chosen = {f.name: network[f.name] for f in fields(Design) if f.name in network}
    widths = {k: network.get(f"{k}_D") or network[k] for k in ("channel_base", "channel_max")}
    return {**of_G, "design": Design(**chosen)}, {**both, **widths}


class FourierInput(nn.Module):
    """Sines of random frequencies in a disc, on a grid that w rotates and shifts (section 3)."""

    def __init__(self, channels: int, band: Band, *, w_dim: int) -> None:
        super().__init__()
        self.band = band
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = FullyConnected(w_dim, 4)  # cosine and sine of the angle, shift in x and in y
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias[0] = 1.0
        radius, angle = torch.rand(channels).sqrt() * band.cutoff, torch.rand(channels) * math.tau
        freqs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: Tensor, transform: Tensor | None) -> Tensor:
        """Map `w [N, w_dim]` to `[N, C, size, size]`; `transform` as in `Synthesis`."""
        linear, offset = _places(self.affine(w), transform)
        freqs = self.freqs @ linear  # [N, C, 2]
        phases = self.phases + torch.einsum("cd,nd->nc", self.freqs, offset)
        room = self.band.rate / 2 - self.band.cutoff
        # a transform that shrinks the image takes frequencies out of the band: they fade
        strength = (1 - (freqs.norm(dim=2) - self.band.cutoff) / room).clamp(0, 1)
        at = self._grid()
        turns = freqs[:, :, 0, None, None] * at + freqs[:, :, 1, None, None] * at[:, None]
        x = torch.sin((turns + phases[:, :, None, None]) * math.tau) * strength[:, :, None, None]
        weight = self.weight / math.sqrt(self.weight.shape[1])
        return conv2d(laid_out(x), weight[:, :, None, None])

    def _grid(self) -> Tensor:
        """Centres of the samples along one axis, the image from -1/2 to 1/2."""
        size = self.band.size
        at = torch.arange(size, dtype=torch.float32, device=self.freqs.device)
        return (at - (size - 1) / 2) / self.band.rate


class Magnitude(nn.Module):
    """A running mean square of what a layer takes, by which it is normalised (section 3.1).

    A module of its own with no parameter: it rests where it is in evaluation mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ema", torch.ones([]))

    def forward(self, x: Tensor, beta: float | None) -> Tensor:
        """The gain, []; in training mode and with a `beta` the mean moves by 1 - beta first."""
        if self.training and beta is not None:
            with torch.no_grad():
                self.ema.lerp_(x.detach().float().square().mean(), 1 - beta)
        return self.ema.rsqrt()


class SynthesisLayer(nn.Module):
    """Normalise, modulated convolution, bias, leaky relu at a higher rate, to the next band."""

    def __init__(self, step: Step, design: Design, *, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, step.in_channels, bias_init=1)
        shape = (step.out_channels, step.in_channels, design.kernel, design.kernel)
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(step.out_channels))
        self.magnitude = Magnitude()
        self.up = step.after.rate * design.lrelu_upsampling // step.before.rate
        self.down = design.lrelu_upsampling
        up, down = filters(step, design)
        self.register_buffer("up_filter", up, persistent=False)
        self.register_buffer("down_filter", down, persistent=False)
        taps = sum(1 if f is None else len(f) for f in (up, down))
        size = step.before.size + design.kernel - 1
        self.padding = _padding(size, step.after.size, self.up, self.down, taps)

    def forward(self, x: Tensor, w: Tensor, *, clamp: float | None, beta: float | None) -> Tensor:
        """Map `[N, I, H, W]` and `w [N, w_dim]` to `[N, O, H', W']`."""
        styles, weight = self.affine(w), self.weight  # read once: an adapter computes it
        gain = self.magnitude(x, beta)
        x = x * (styles * gain)[:, :, None, None]
        x = conv2d(x, weight, padding=weight.shape[2] - 1)
        x = x * demodulation(weight, styles)[:, :, None, None]
        return filtered_lrelu(
            x,
            self.up_filter,
            self.down_filter,
            self.bias,
            up=self.up,
            down=self.down,
            padding=self.padding,
            clamp=clamp,
        )


class ToRGB(stylegan2.ToRGB):
    """Modulated 1x1 convolution of normalised features, without demodulation."""

    def __init__(self, in_channels: int, img_channels: int, *, w_dim: int) -> None:
        super().__init__(in_channels, img_channels, w_dim=w_dim)
        self.magnitude = Magnitude()

    def forward(self, x: Tensor, w: Tensor, *, clamp: float | None, beta: float | None) -> Tensor:
        """Map `[N, C, R, R]` and `w [N, w_dim]` to `[N, 3, R, R]`."""
        return super().forward(x * self.magnitude(x, beta), w, clamp=clamp)


class Block(nn.Module):
    """The layers that give one rate, `L<i>` counted over all of them, each with its w.

    The first block holds `input` too, the last one `torgb`, which `Synthesis` calls.
    """

    def __init__(self, layers: dict[int, SynthesisLayer], first: FourierInput | None) -> None:
        super().__init__()
        if first is not None:
            self.input = first
        self.numbers = [*layers]
        self.num_ws = len(layers) + (first is not None)
        for i, layer in layers.items():
            self.add_module(f"L{i}", layer)

    def forward(
        self,
        x: Tensor | None,
        ws: Sequence[Tensor],
        *,
        transform: Tensor | None,
        clamp: float | None,
        beta: float | None,
    ) -> Tensor:
        """Map features `[N, I, H, W]` and `num_ws` ws to `[N, O, H', W']`."""
        if x is None:
            x, ws = self.input(ws[0], transform), ws[1:]
        for i, w in zip(self.numbers, ws, strict=True):
            x = getattr(self, f"L{i}")(x, w, clamp=clamp, beta=beta)
        return x


class Synthesis(nn.Module):
    """ws to an image: Fourier features, layers of growing bandwidth, ToRGB."""

    skips = False  # one ToRGB, at the end
    takes_transform = True

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        design: Design,
        output_scale: float,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.output_scale, self.clamp = output_scale, clamp
        *inner, last = steps(
            resolution,
            design,
            channel_base=channel_base,
            channel_max=channel_max,
            img_channels=img_channels,
        )
        first = FourierInput(inner[0].in_channels, inner[0].before, w_dim=w_dim)
        layers: dict[int, dict[int, SynthesisLayer]] = {}
        for step in inner:
            made = SynthesisLayer(step, design, w_dim=w_dim)
            layers.setdefault(step.after.rate, {})[step.i] = made
        self.resolutions = [*layers]
        for r in self.resolutions:
            block = Block(layers[r], first if r == self.resolutions[0] else None)
            self.add_module(f"b{r}", block)
        block.torgb = ToRGB(last.in_channels, img_channels, w_dim=w_dim)
        self.num_ws = design.num_layers + 2

    def forward(
        self,
        ws: Tensor,
        *,
        noise: str = "none",
        generator: torch.Generator | None = None,
        transform: Tensor | None = None,
        magnitude_beta: float | None = None,
    ) -> Tensor:
        """Map `ws [N, num_ws, w_dim]` to images `[N, 3, R, R]`, float32, range about [-1, 1].

        `transform [3, 3]`, or one per sample, takes a place of the wanted image to the place of the
        usual one that is to be seen there, the image from -1/2 to 1/2, x before y. With
        `magnitude_beta` layers in training mode move their magnitudes. `noise` and `generator` are
        those of other families: they change nothing here.
        """
        check_noise(noise)
        w, first, x = ws.float().unbind(dim=1), 0, None
        how = dict(clamp=self.clamp, beta=magnitude_beta)
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            x = block(x, w[first : first + block.num_ws], transform=transform, **how)
            first += block.num_ws
        return block.torgb(x, w[-1], **how).float() * self.output_scale


class Generator(StyleGenerator):
    """The generator: `mapping` (StyleGAN2's) and `synthesis`."""

    def __init__(
        self,
        *,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        c_dim: int = 0,
        img_channels: int = 3,
        num_mapping_layers: int = 2,
        miner: bool = False,
        channel_base: int = 32768,
        channel_max: int = 512,
        design: Design | None = None,
        output_scale: float = 0.25,
        clamp: float | None = _CLAMP,
    ) -> None:
        synthesis = Synthesis(
            w_dim=w_dim,
            resolution=resolution,
            img_channels=img_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            design=design or Design(),
            output_scale=output_scale,
            clamp=clamp,
        )
        super().__init__(
            synthesis,
            stylegan2.Mapping,
            resolution=resolution,
            z_dim=z_dim,
            w_dim=w_dim,
            c_dim=c_dim,
            num_mapping_layers=num_mapping_layers,
            miner=miner,
        )

    @property
    def ws_resolutions(self) -> list[int]:
        """The rate that each of the ws acts at; the first is the input's, the last ToRGB's."""
        net = self.synthesis
        at = [r for r in net.resolutions for _ in range(getattr(net, f"b{r}").num_ws)]
        return [*at, at[-1]]


def _places(rigid: Tensor, transform: Tensor | None) -> tuple[Tensor, Tensor]:
    """(linear [N, 2, 2], offset [N, 2]) from a place of the image to one of the Fourier features.

    `rigid [N, 4]`: cosine, sine, shift in x and in y, all relative to the length of the first two.
    The image is turned, then shifted, then `transform` is seen to.
    """
    rigid = rigid / rigid[:, :2].norm(dim=1, keepdim=True)
    cosine, sine = rigid[:, 0], rigid[:, 1]
    turn = torch.stack([cosine, -sine, sine, cosine], dim=1).unflatten(1, (2, 2))
    offset = -rigid[:, 2:]
    if transform is None:
        return turn, torch.einsum("nij,nj->ni", turn, offset)
    offset = offset + transform[..., :2, 2]
    return turn @ transform[..., :2, :2], torch.einsum("nij,nj->ni", turn, offset)


def _padding(size: int, wanted: int, up: int, down: int, taps: int) -> list[int]:
    """[x0, x1, y0, y1] of a filtered leaky relu that takes `size` samples to `wanted` ones,
    with so many `taps` in both filters.

    Samples stand in the middle of their pixels at every rate (appendix C.3): what an even number
    of samples leaves over is cut or added in front.
    """
    total = (wanted - 1) * down + 1 + taps - 2 - size * up
    front = (total + up) // 2
    return [front, total - front, front, total - front]
