"""Inversion: the latent whose image is nearest to a given one, and how near that is.

Karras et al. 2020 (StyleGAN2), appendix D: Adam on one w per image, from the mean w, its learning
rate rising over the first 5 % of the steps and falling as a cosine over the last 25 %. Unlike there
no noise is added to w, and none enters the images unless it is asked for, so the result depends on
w alone. A generator without a mapping network is inverted in z, from z = 0. G must be in eval mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import within
from stylegan_tl.metrics.ppl import fresh_noise

__all__ = ["Inversion", "invert", "noise_penalty"]

Embed = Callable[[Tensor], Tensor]
Maps = dict[str, Tensor]
Draw = Callable[[Tensor, Maps], Tensor]
_NOISE_WEIGHT = 1e5  # appendix D


@dataclass(frozen=True)
class Inversion:
    """Of N images: `latents` [N, E] (w, w+ as one row, or z), errors [N] at the end and the start.

    `perceptual` is the squared distance of the embeddings, `pixel` the mean squared difference of
    pixels in [-1, 1] after clamping; `images` and `start_images` [N, 3, R, R] are these. `noise`
    [N, H, W] by name, where it was optimised.
    """

    latents: Tensor
    perceptual: Tensor
    pixel: Tensor
    images: Tensor
    start_perceptual: Tensor
    start_pixel: Tensor
    start_images: Tensor
    noise: Maps = field(default_factory=dict)


def invert(
    G: nn.Module,
    images: Tensor,
    embed: Embed,
    *,
    steps: int = 200,
    lr: float = 0.1,
    pixel_weight: float = 1.0,
    batch_size: int = 16,
    seed: int = 0,
    labels: Tensor | None = None,
    tick: Callable[[int], None] | None = None,
    per_layer: bool = False,
    noise: bool = False,
) -> Inversion:
    """Invert float `images` [N, 3, R, R] in [-1, 1] by `steps` steps of Adam.

    The loss of an image is ‖embed(G(w)) − embed(image)‖² + pixel_weight · MSE; `embed` maps float
    images to rows and is differentiable; it is shown images above 256 px averaged down. No image
    depends on its batch. `seed`: of the 10 000 latents whose mean w is the start. `labels`
    [K, c_dim], for a conditional G: those that the mean is over. `tick(steps done)` counts the
    steps of all batches. `per_layer`: a w for every layer (w+). `noise`: the noise images too, kept
    like noise by appendix D's regularisation; then batches are of one image. ValueError where the
    generator has no such thing.
    """
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(f"images must be floats [N, 3, R, R], got {tuple(images.shape)}")
    if steps < 1:
        raise ValueError(f"steps={steps}: use at least 1")
    draw, start = _space(G, labels, seed, per_layer)
    maps = _noise_of(G, seed) if noise else {}
    batch_size = 1 if noise else batch_size

    def look(shown: Tensor) -> Tensor:
        return embed(within(shown))

    found = []
    for number, part in enumerate(images.split(batch_size)):
        done = number * steps
        count = None if tick is None else (lambda step, done=done: tick(done + step))
        found.append(_invert(draw, start, maps, part, look, steps, lr, pixel_weight, count))
    *parts, drawn = zip(*found, strict=True)
    together = {name: torch.stack([own[name] for own in drawn]) for name in maps}
    return Inversion(*map(torch.cat, parts), together)


def noise_penalty(noise: Tensor) -> Tensor:
    """How far a noise image [H, W] is from noise: squared correlations with its neighbours.

    Summed over its halvings down to 8 px (Karras et al. 2020, appendix D).
    """
    total = noise.new_zeros([])
    while True:
        total = total + sum((noise * noise.roll(1, dim)).mean().square() for dim in (0, 1))
        if noise.shape[-1] <= 8:
            return total
        noise = 2 * F.avg_pool2d(noise[None], 2)[0]


def _space(G: nn.Module, labels: Tensor | None, seed: int, per_layer: bool) -> tuple[Draw, Tensor]:
    """What draws images of latents [N, E] and noise, and the latent to start from [E]."""
    if hasattr(G, "mapping"):
        start = _mean_w(G, labels, seed)

        def draw(w: Tensor, maps: Maps) -> Tensor:
            ws = w.unflatten(1, (-1, len(start))).expand(-1, G.num_ws, -1)
            how = {"noise": "const" if maps else "none"}
            return torch.func.functional_call(G.synthesis, maps, (ws,), how)

        return draw, start.repeat(G.num_ws) if per_layer else start
    if per_layer:
        raise ValueError(f"{type(G).__qualname__} has one z for all layers: there is no w+")
    device = next(G.parameters()).device
    if labels is None:
        return (lambda z, _: G(z)), torch.zeros(G.z_dim, device=device)
    mean = labels.to(device).mean(0)
    return (lambda z, _: G(z, mean.expand(len(z), -1))), torch.zeros(G.z_dim, device=device)


def _noise_of(G: nn.Module, seed: int) -> Maps:
    """Noise images to start from."""
    generator = torch.Generator().manual_seed(seed)
    maps = fresh_noise(G, generator) if hasattr(G, "synthesis") else {}
    if not maps:
        raise ValueError(f"{type(G).__qualname__} stores no noise images to optimise")
    return maps


@torch.no_grad()
def _mean_w(G: nn.Module, labels: Tensor | None, seed: int, count: int = 10_000) -> Tensor:
    device = next(G.parameters()).device
    z = torch.randn(count, G.z_dim, generator=torch.Generator().manual_seed(seed))
    if labels is None:
        c = None
    else:
        c = labels[torch.arange(count) % len(labels)].to(device)
    return G.mapping(z.to(device), c)[:, 0].mean(0)


def _invert(
    draw: Draw,
    start: Tensor,
    maps: Maps,
    images: Tensor,
    embed: Embed,
    steps: int,
    lr: float,
    pixel_weight: float,
    tick: Callable[[int], None] | None,
) -> tuple[Tensor | Maps, ...]:
    """The fields of `Inversion` for these images."""
    with torch.no_grad():
        wanted = embed(images)
    latents = start.detach().repeat(len(images), 1).requires_grad_(True)
    maps = {name: noise.clone().requires_grad_(True) for name, noise in maps.items()}
    before = _errors(draw, latents, maps, images, wanted, embed)
    optimizer = torch.optim.Adam([latents, *maps.values()], lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * _ramp((step + 0.5) / steps)
        made = draw(latents, maps)
        loss = (embed(made) - wanted).square().sum()
        loss = loss + pixel_weight * (made - images).square().mean((1, 2, 3)).sum()
        loss = loss + _NOISE_WEIGHT * sum(map(noise_penalty, maps.values()))
        _set_gradients(loss, [latents, *maps.values()])
        optimizer.step()
        _standardise(maps)
        if tick is not None:
            tick(step + 1)
    after = _errors(draw, latents, maps, images, wanted, embed)
    found = {name: noise.detach() for name, noise in maps.items()}
    return latents.detach(), *after, *before, found


def _set_gradients(loss: Tensor, leaves: list[Tensor]) -> None:
    """Of these alone: those of G's parameters are neither needed nor left behind."""
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = gradient


@torch.no_grad()
def _standardise(maps: Maps) -> None:
    """Noise images of mean 0 and variance 1 again (appendix D)."""
    for noise in maps.values():
        noise.sub_(noise.mean()).mul_(noise.square().mean().rsqrt())


def _ramp(t: float) -> float:
    """The factor of the learning rate at `t` in (0, 1) of the steps."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
    return down * min(1.0, t / 0.05)


@torch.no_grad()
def _errors(
    draw: Draw, latents: Tensor, maps: Maps, images: Tensor, wanted: Tensor, embed: Embed
) -> tuple[Tensor, Tensor, Tensor]:
    """Perceptual and pixel errors [N], and the images."""
    made = draw(latents, maps).clamp(-1, 1)
    perceptual = (embed(made) - wanted).square().sum(1)
    return perceptual.cpu(), (made - images).square().mean((1, 2, 3)).cpu(), made.cpu()
