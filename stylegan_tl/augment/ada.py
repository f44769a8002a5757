"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data").

The pipeline of its appendix B, and the controller that moves the probability p by how well D
tells reals. Differences from the paper: whole-pixel translations are reflected before the general
warp instead of in one matrix with it, so that blits copy pixels to the bit; p never exceeds 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from cuda_ops.diffaugment import cutout
from cuda_ops.warp import warp
from cuda_ops.warp_ref import along_axes, where
from stylegan_tl.augment import color
from stylegan_tl.augment.warp import rotation, scaling, translation
from stylegan_tl.augment.wavelets import band_matrices

__all__ = ["PRESETS", "AdaAugment"]

# Which stages a preset runs; always in this order.
PRESETS: dict[str, tuple[str, ...]] = {
    "blit": ("blit",),
    "geom": ("geom",),
    "color": ("color",),
    "filter": ("filter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
    "bgcf": ("blit", "geom", "color", "filter"),
    "bgcfn": ("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": ("blit", "geom", "color", "filter", "noise", "cutout"),
}

# Expected power of natural images in the four octave bands (1/f), so that filtering keeps it.
_BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


class AdaAugment(nn.Module):
    """Augments what D sees; `p` follows the sign of D's logits on reals, in images seen.

    preset: one of `PRESETS`. target: wanted mean of sign(D(real)), in [-1, 1]. kimg: thousands of
    images in which p can go from 0 to 1. interval: iterations between changes of p. p: first
    value. fixed: p stays. impl: kernels, as in `cuda_ops.warp`. State (p, sums, images since the
    last change) is in the state dict.
    """

    def __init__(
        self,
        *,
        preset: str = "bgc",
        target: float = 0.6,
        kimg: float = 500,
        interval: int = 4,
        p: float = 0.0,
        fixed: bool = False,
        impl: str | None = None,
    ) -> None:
        super().__init__()
        _validate(preset, target, kimg, interval, p)
        self.stages, self.impl = PRESETS[preset], impl
        self.target, self.kimg, self.interval, self.fixed = target, kimg, interval, fixed
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("sign_sum", torch.tensor(0.0))
        self.register_buffer("sign_count", torch.tensor(0.0))
        self._iterations = self._images = 0
        self._known_p: tuple[Tensor, int, float] | None = None

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`images` [N, C, H, H], about [-1, 1], augmented each by its own draws; same dtype.

        Everything random comes from `generator`, on either device. Differentiable twice. At p = 0
        the images themselves come back and nothing is drawn.
        """
        p = self._probability()
        if p == 0:
            return images
        if images.shape[-2] != images.shape[-1]:
            raise ValueError(f"ADA turns images, so they must be square; got {[*images.shape]}")
        draw = _Draws(len(images), p, generator)
        fused = [stage for stage in self.stages if stage in _FUSED]
        exact = images.dtype in (torch.float32, torch.float64)
        exact |= images.is_cuda and len(fused) == len(self.stages)  # the kernel computes in float32
        with torch.autocast(images.device.type, enabled=False):
            out = images if exact else images.float()
            if fused:
                out = warp(out, *_parameters(fused, draw, images.shape[-1]), impl=self.impl)
            for stage in self.stages[len(fused) :]:
                out = _STAGES[stage](out, draw)
        return out.to(images.dtype)

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        """Add D's logits on (augmented) reals to the running sign statistics."""
        if not self.fixed:
            self.sign_sum += real_logits.sign().sum()
            self.sign_count += real_logits.numel()

    @torch.no_grad()
    def adapt(self, batch: int) -> None:
        """Count an iteration of `batch` real images, over all processes; maybe move p.

        Every `interval` iterations p moves by images / (1000 kimg) towards more augmentation if
        the mean sign lies above the target, towards less if below, and stays in [0, 1].
        """
        if self.fixed:
            return
        self._iterations += 1
        self._images += batch
        if self._iterations < self.interval:
            return
        total, count = _over_processes(torch.stack([self.sign_sum, self.sign_count]))
        direction = torch.sign(total / count.clamp_min(1) - self.target) * (count > 0)
        self.p.add_(direction * (self._images / (self.kimg * 1000))).clamp_(0, 1)
        self.sign_sum.zero_()
        self.sign_count.zero_()
        self._iterations = self._images = 0

    def get_extra_state(self) -> Tensor:
        """Iterations and images since p last moved, kept on the host: no wait for the device."""
        return torch.tensor([self._iterations, self._images])

    def set_extra_state(self, state: Tensor) -> None:
        """Take over `get_extra_state`'s counters."""
        self._iterations, self._images = state.tolist()

    def _probability(self) -> float:
        """`p` as a number; the device is asked only after p was written."""
        known = self._known_p
        if known is None or known[0] is not self.p or known[1] != self.p._version:
            known = self._known_p = (self.p, self.p._version, self.p.item())
        return known[2]


class _Draws(NamedTuple):
    """Random numbers for `n` images; every transformation is open with probability `p`."""

    n: int
    p: float
    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        device = self.generator.device
        unit = torch.rand(self.n, *shape, generator=self.generator, device=device)
        return low + (high - low) * unit

    def normal(self, std: float, *shape: int) -> Tensor:
        device = self.generator.device
        return torch.randn(self.n, *shape, generator=self.generator, device=device) * std

    def octaves(self, std: float) -> Tensor:
        """Log-normal factors: 2^x with x normal, that is, sigma = std ln 2."""
        return self.normal(std).exp2()

    def gate(self, value: Tensor, neutral: float, p: float | None = None) -> Tensor:
        """`value` [N, ...] with probability `p`, else `neutral`; one decision per image."""
        is_open = self.uniform(0, 1) < (self.p if p is None else p)
        return torch.where(is_open.view(-1, *[1] * (value.ndim - 1)), value, neutral)


def _parameters(stages: list[str], draw: _Draws, size: int) -> list[Tensor | None]:
    """Draw what `warp` does to images of `size` pixels a side; None where a stage is left out."""
    drawn = {stage: _FUSED[stage](draw, size) for stage in stages}
    return [drawn.get(stage) for stage in _FUSED]


def _blit(draw: _Draws, size: int) -> Tensor:
    """[N, 4]: flipped or not, quarter turns, whole pixels to the right and down."""
    flip = draw.gate(draw.uniform(0, 2).floor(), 0)
    turns = draw.gate(draw.uniform(0, 4).floor(), 0)
    shift = draw.gate((draw.uniform(-0.125, 0.125, 2) * size).round(), 0)
    return torch.column_stack([flip, turns, shift]).long()


def _geometry(draw: _Draws, size: int) -> Tensor:
    """[N, 3, 3] from output to input pixels: the inverses of the paper's maps, last one first.

    With two rotations at p_rot = 1 - sqrt(1 - p) each, some rotation happens with probability p.
    """
    p_rot = 1 - math.sqrt(1 - draw.p)
    scale = draw.gate(draw.octaves(0.2), 1)
    turn = draw.gate(draw.uniform(-math.pi, math.pi), 0, p_rot)
    stretch = draw.gate(draw.octaves(0.2), 1)
    turn_after = draw.gate(draw.uniform(-math.pi, math.pi), 0, p_rot)
    shift = draw.gate(draw.normal(0.125, 2), 0) * size
    return (
        scaling(1 / scale, 1 / scale)
        @ rotation(-turn)
        @ scaling(1 / stretch, stretch)
        @ rotation(-turn_after)
        @ translation(-shift[:, 0], -shift[:, 1])
    )


def _color(draw: _Draws, size: int) -> Tensor:
    """[N, 4, 4] on (r, g, b, 1)."""
    matrix = color.brightness(draw.gate(draw.normal(0.2), 0))
    matrix = color.contrast(draw.gate(draw.octaves(0.5), 1)) @ matrix
    matrix = color.luma_flip(draw.gate(draw.uniform(0, 2).floor(), 0)) @ matrix
    matrix = color.hue(draw.gate(draw.uniform(-math.pi, math.pi), 0)) @ matrix
    return color.saturation(draw.gate(draw.octaves(1.0), 1)) @ matrix


def _filter(images: Tensor, draw: _Draws) -> Tensor:
    gains = _band_gains(draw)
    bands = band_matrices(images.shape[-1], images.dtype, images.device)

    def amplify(some: Tensor, gain: Tensor) -> Tensor:
        return along_axes(some, torch.einsum("nb,bij->nij", gain.to(bands), bands))

    return where((gains != 1).any(1), images, amplify, gains)


def _band_gains(draw: _Draws) -> Tensor:
    """[N, 4]: each band in turn amplified, and all rescaled to keep the expected power."""
    power = torch.tensor(_BAND_POWER, device=draw.generator.device)
    gains = torch.ones(draw.n, 4, device=power.device)
    for band in range(4):
        factor = torch.ones_like(gains)
        factor[:, band] = draw.gate(draw.octaves(1.0), 1)
        gains = gains * factor / (power * factor.square()).sum(1, keepdim=True).sqrt()
    return gains


def _noise(images: Tensor, draw: _Draws) -> Tensor:
    sigma = draw.gate(draw.normal(0.1).abs(), 0)[:, None, None, None]
    return images + (sigma * draw.normal(1, *images.shape[1:])).to(images)


def _cutout(images: Tensor, draw: _Draws) -> Tensor:
    centre = draw.uniform(0, 1, 2)
    half = draw.gate(torch.full_like(centre[:, 0], 0.25), 0)
    return cutout(images, centre.to(images.device), half.to(images.device))


# The parameters of `cuda_ops.warp`, in its order, and the stages that follow it.
_FUSED: dict[str, Callable[[_Draws, int], Tensor]] = {
    "blit": _blit,
    "geom": _geometry,
    "color": _color,
}
_STAGES: dict[str, Callable[[Tensor, _Draws], Tensor]] = {
    "filter": _filter,
    "noise": _noise,
    "cutout": _cutout,
}


def _over_processes(sums: Tensor) -> Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
    return sums


def _validate(preset: str, target: float, kimg: float, interval: int, p: float) -> None:
    if preset not in PRESETS:
        raise ValueError(f"augment.preset={preset!r} is not one of {', '.join(PRESETS)}")
    if not -1 <= target <= 1:
        raise ValueError(f"augment.target={target} is a mean of signs: give one in [-1, 1]")
    if not kimg > 0:
        raise ValueError(f"augment.kimg={kimg} must be above 0; to hold p, set augment.fixed=true")
    if interval < 1:
        raise ValueError(f"augment.interval={interval} counts iterations: give 1 or more")
    if not 0 <= p <= 1:
        raise ValueError(f"augment.p={p} is a probability: give one in [0, 1]")
