"""The signal processing of alias-free generators: bands of the layers, low-pass filters.

Karras et al. 2021 (StyleGAN3, arXiv:2106.12423), section 3.2 and appendix C. A layer's signal is
sampled `rate` times along the image's side, holds frequencies up to `cutoff` and is free of those
above `cutoff + half_width`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "BOUNDS", "Band", "Design", "Step", "bands", "filters", "lowpass", "radial_lowpass", "steps",
]  # fmt: skip

BOUNDS = {
    "num_layers": (2, 64),
    "num_critical": (1, 63),
    "margin": (0, 256),
    "filter_size": (2, 64),
    "lrelu_upsampling": (1, 8),
    "kernel": (1, 9),
}
"""Of the whole numbers of a `Design`, the least and the most: files may claim anything."""


@dataclass(frozen=True)
class Design:
    """What fixes the layers of a generator; the defaults are StyleGAN3-T's.

    Of the `num_layers` layers before ToRGB the last `num_critical` are sampled critically.
    `margin`: pixels beyond each side of the image. `filter_size`: taps of a filter per sample of
    the lower rate. `lrelu_upsampling`: the rate of the nonlinearity relative to its output's.
    `kernel` is the convolutions' size; `radial` makes the filters of all layers but the critical
    ones radially symmetric, for equivariance to rotation. Raises ValueError for numbers that make
    no generator.
    """

    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin: int = 10
    filter_size: int = 6
    lrelu_upsampling: int = 2
    kernel: int = 3
    radial: bool = False

    def __post_init__(self) -> None:
        for key, (low, high) in BOUNDS.items():
            value = getattr(self, key)
            if type(value) is not int or not low <= value <= high:
                said = f"use a whole number from {low} to {high}"
                raise ValueError(f"network.{key}={value}: {said}")
        for key in ("first_cutoff", "first_stopband", "last_stopband_rel"):
            value = getattr(self, key)
            if type(value) not in (int, float) or not 0 < value < 1e6:
                raise ValueError(f"network.{key}={value}: use a number above 0 and below 1e6")
        if type(self.radial) is not bool:
            raise ValueError(f"network.radial={self.radial}: use true or false")
        if self.num_critical >= self.num_layers:
            raise ValueError(
                f"network.num_critical={self.num_critical}: use fewer than "
                f"network.num_layers={self.num_layers}"
            )
        if self.first_cutoff >= self.first_stopband or self.last_stopband_rel <= 1:
            raise ValueError(
                f"network.first_cutoff={self.first_cutoff}, first_stopband={self.first_stopband}, "
                f"last_stopband_rel={self.last_stopband_rel}: a stopband begins above its cutoff"
            )


class Band(NamedTuple):
    """What a layer gives: frequencies in cycles, `size` in samples with the margins."""

    rate: int
    cutoff: float
    half_width: float
    size: int


def bands(resolution: int, design: Design) -> list[Band]:
    """What each layer gives, ToRGB last: `num_layers + 1` bands (section 3.2).

    Cutoffs and stopbands grow geometrically up to the first critical layer; the rate is the lowest
    power of two that holds the stopband, at most the image's. The last two have the image's size.
    """
    last_cutoff = resolution / 2
    last_stopband = last_cutoff * design.last_stopband_rel
    if design.first_cutoff >= last_cutoff or design.first_stopband >= last_stopband:
        raise ValueError(
            f"network.first_cutoff={design.first_cutoff}, first_stopband={design.first_stopband}: "
            f"resolution={resolution} ends at {last_cutoff:g} and {last_stopband:g}"
        )
    found = []
    for i in range(design.num_layers + 1):
        way = min(i / (design.num_layers - design.num_critical), 1.0)
        cutoff = design.first_cutoff * (last_cutoff / design.first_cutoff) ** way
        stopband = design.first_stopband * (last_stopband / design.first_stopband) ** way
        rate = 1 << math.ceil(math.log2(min(2 * stopband, resolution)))
        size = resolution if i >= design.num_layers - 1 else rate + 2 * design.margin
        found.append(Band(rate, cutoff, max(stopband, rate / 2) - cutoff, size))
    return found


class Step(NamedTuple):
    """Layer number `i`, from a band of so many channels to another; the last is ToRGB's."""

    i: int
    before: Band
    after: Band
    in_channels: int
    out_channels: int
    radial: bool


def steps(
    resolution: int, design: Design, *, channel_base: int, channel_max: int, img_channels: int
) -> list[Step]:
    """All layers; their channels fall with the cutoff from `channel_max` on (section 3.2)."""
    plan = bands(resolution, design)
    widths = [round(min(channel_base / 2 / band.cutoff, channel_max)) for band in plan]
    widths[-1] = img_channels
    found = []
    for i, after in enumerate(plan):
        before = max(i - 1, 0)
        radial = design.radial and i < design.num_layers - design.num_critical
        found.append(Step(i, plan[before], after, widths[before], widths[i], radial))
    return found


def filters(step: Step, design: Design) -> tuple[Tensor | None, Tensor | None]:
    """The filters of a layer's nonlinearity, up to its rate and down again."""
    rate = step.after.rate * design.lrelu_upsampling
    factors = (rate // step.before.rate, design.lrelu_upsampling)
    taps = [design.filter_size * factor if factor > 1 else 1 for factor in factors]
    make = radial_lowpass if step.radial else lowpass
    return lowpass(taps[0], step.before, rate), make(taps[1], step.after, rate)


def lowpass(taps: int, band: Band, rate: int) -> Tensor | None:
    """A separable filter [taps] at `rate` that keeps `band`: a sinc in a Kaiser window, of sum one.

    One tap is the identity: None.
    """
    if taps == 1:
        return None
    at = _places(taps) / rate
    return _unit(torch.sinc(2 * band.cutoff * at) * _kaiser(taps, band, rate))


def radial_lowpass(taps: int, band: Band, rate: int) -> Tensor | None:
    """The same for all directions alike, [taps, taps]: a jinc in the separable window.

    The Fourier transform of a disc of radius f is f J1(2 pi f r) / r.
    """
    if taps == 1:
        return None
    at = _places(taps) / rate
    radius = (2 * math.pi * band.cutoff) * torch.hypot(at[:, None], at[None, :])
    jinc = torch.where(radius == 0, 0.5, torch.special.bessel_j1(radius) / radius.clamp_min(1e-30))
    window = _kaiser(taps, band, rate)
    return _unit(jinc * window.outer(window))


def _places(taps: int) -> Tensor:
    """Centred sample numbers, float64."""
    return torch.arange(taps, dtype=torch.float64, device=_device()) - (taps - 1) / 2


def _device() -> str:
    """The CPU wherever a network is built, but none of a network without any values."""
    return "meta" if torch.get_default_device().type == "meta" else "cpu"


def _kaiser(taps: int, band: Band, rate: int) -> Tensor:
    """The window whose main lobe fits the transition band (Kaiser 1974)."""
    width = 2 * band.half_width / (rate / 2)  # relative to Nyquist
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # in dB
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    how = {"dtype": torch.float64, "device": _device()}
    return torch.kaiser_window(taps, periodic=False, beta=beta, **how)


def _unit(taps: Tensor) -> Tensor:
    return (taps / taps.sum()).float()
