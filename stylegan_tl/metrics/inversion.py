"""Inversion: the latent whose image is nearest to a given one, and how near that is.

Karras et al. 2020 (StyleGAN2), appendix D: Adam on one w per image, from the mean w, its learning
rate rising over the first 5 % of the steps and falling as a cosine over the last 25 %. Unlike there
no noise is added to w and none enters the images, so the result depends on w alone. A generator
without a mapping network is inverted in z, from z = 0. G must be in eval mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import within

__all__ = ["Inversion", "invert"]

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Inversion:
    """Of N images: `latents` [N, E] (w or z), errors [N] at the end and at the start.

    `perceptual` is the squared distance of the embeddings, `pixel` the mean squared difference of
    pixels in [-1, 1] after clamping.
    """

    latents: Tensor
    perceptual: Tensor
    pixel: Tensor
    start_perceptual: Tensor
    start_pixel: Tensor


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
) -> Inversion:
    """Invert float `images` [N, 3, R, R] in [-1, 1] by `steps` steps of Adam.

    The loss of an image is ‖embed(G(w)) − embed(image)‖² + pixel_weight · MSE; `embed` maps float
    images to rows and is differentiable; it is shown images above 256 px averaged down. No image
    depends on its batch. `seed`: of the 10 000 latents whose mean w is the start. `labels`
    [K, c_dim], for a conditional G: those that the mean is over. `tick(steps done)` counts the
    steps of all batches.
    """
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(f"images must be floats [N, 3, R, R], got {tuple(images.shape)}")
    if steps < 1:
        raise ValueError(f"steps={steps}: use at least 1")
    draw, start = _space(G, labels, seed)

    def look(shown: Tensor) -> Tensor:
        return embed(within(shown))

    found = []
    for number, part in enumerate(images.split(batch_size)):
        done = number * steps
        count = None if tick is None else (lambda step, done=done: tick(done + step))
        found.append(_invert(draw, start, part, look, steps, lr, pixel_weight, count))
    return Inversion(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _space(
    G: nn.Module, labels: Tensor | None, seed: int
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What draws images of latents [N, E], and the latent to start from [E]."""
    if hasattr(G, "mapping"):
        return (lambda w: G.synthesis(w[:, None].expand(-1, G.num_ws, -1), noise="none")), _mean_w(
            G, labels, seed
        )
    device = next(G.parameters()).device
    if labels is None:
        return G, torch.zeros(G.z_dim, device=device)
    mean = labels.to(device).mean(0)
    return (lambda z: G(z, mean.expand(len(z), -1))), torch.zeros(G.z_dim, device=device)


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
    draw: Callable[[Tensor], Tensor],
    start: Tensor,
    images: Tensor,
    embed: Embed,
    steps: int,
    lr: float,
    pixel_weight: float,
    tick: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    with torch.no_grad():
        wanted = embed(images)
    latents = start.detach().repeat(len(images), 1).requires_grad_(True)
    before = _errors(draw, latents, images, wanted, embed)
    optimizer = torch.optim.Adam([latents], lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * _ramp((step + 0.5) / steps)
        made = draw(latents)
        perceptual = (embed(made) - wanted).square().sum()
        pixel = (made - images).square().mean((1, 2, 3)).sum()
        (latents.grad,) = torch.autograd.grad(perceptual + pixel_weight * pixel, latents)
        optimizer.step()
        if tick is not None:
            tick(step + 1)
    after = _errors(draw, latents, images, wanted, embed)
    return latents.detach(), *after, *before


def _ramp(t: float) -> float:
    """The factor of the learning rate at `t` in (0, 1) of the steps."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25))
    return down * min(1.0, t / 0.05)


@torch.no_grad()
def _errors(
    draw: Callable[[Tensor], Tensor], latents: Tensor, images: Tensor, wanted: Tensor, embed: Embed
) -> tuple[Tensor, Tensor]:
    made = draw(latents).clamp(-1, 1)
    perceptual = (embed(made) - wanted).square().sum(1)
    return perceptual.cpu(), (made - images).square().mean((1, 2, 3)).cpu()
