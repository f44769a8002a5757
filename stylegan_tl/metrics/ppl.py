"""Perceptual path length: how fast images change along a path between two latents.

Karras et al. 2019, section 4.1, with the sampling and the trim of Karras et al. 2020 (`ppl2_wend`:
no crop): for pairs of latents and a place t on the path between them, the perceptual distance of
the images at t and t + ε, over ε².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import float32_arithmetic, within

__all__ = ["NOISE_PAIRS", "path_length", "slerp", "trimmed_mean"]

NOISE_PAIRS = 32  # pairs that share one draw of the generator's noise images
_TRIM = 0.01  # of the pairs at either end

Latents = Callable[[int, int], Tensor]
Embed = Callable[[Tensor], Tensor]


@torch.no_grad()
def path_length(
    G: nn.Module,
    embed: Embed,
    *,
    latents: Latents,
    space: str,
    sampling: str,
    count: int,
    epsilon: float = 1e-4,
    seed: int = 0,
    batch: int = 16,
    labels: Latents | None = None,
) -> dict[str, float]:
    """Mean distance per squared step of `count` pairs, and its standard error.

    G: in evaluation mode, with `mapping` and `synthesis` (StyleGAN), or called on z (DCGAN).
    embed: float images [N, 3, R, R] in [-1, 1] → rows whose squared distance is perceptual.
    latents, labels: (start, count) → z [count, z_dim], and c for a conditional generator, of the
        numbers start … start + count − 1. Pair i goes from latent 2i to 2i + 1, both of label i.
    space: "w", a straight line between two w; "z", a great circle between two z.
    sampling: "full", t uniform in [0, 1); "end", t = 0.

    Both images of a pair have the same noise, drawn anew for every 32 pairs; images above 256 px
    are averaged down; G and embed run in float32 (no TF32, no bf16). The lowest and the highest 1 %
    are left out. The value does not depend on `batch`, the number of pairs at once (with lpips at
    256 px a pair takes about 0.2 GB). ValueError for an unknown space or sampling, no w in this
    generator, count < 2 or distances that are not finite.
    """
    _check(G, space, sampling, count, epsilon)
    draw = torch.Generator().manual_seed(seed)
    places = torch.rand(count, generator=draw) * (sampling == "full")
    found = []
    with _float32(G):
        for start in range(0, count, NOISE_PAIRS):
            n = min(NOISE_PAIRS, count - start)
            z, t = latents(2 * start, 2 * n), places[start : start + n]
            c = None if labels is None else labels(start, n)
            synthesise = _with_noise(G, draw)
            for part in torch.arange(n).split(batch):
                given = (z[::2][part], z[1::2][part], t[part].to(z), epsilon, space)
                images = synthesise(*_inputs(G, *given, None if c is None else c[part]))
                near, far = embed(within(images)).chunk(2)
                squares = (near - far).square().sum(1, dtype=torch.float64)
                found.append(squares.cpu() / epsilon**2)
    value, stderr = trimmed_mean(torch.cat(found))
    return {"value": value, "stderr": stderr}


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Latents [N, D] at share t [N] of the great circles from a to b [N, D].

    Directions follow the circle, lengths change evenly: StyleGAN normalises z, others do not.
    """
    norms = [x.norm(dim=1, keepdim=True) for x in (a, b)]
    a, b = (x / n.clamp_min(1e-12) for x, n in zip((a, b), norms, strict=True))
    cosine = (a * b).sum(1, keepdim=True)
    across = b - cosine * a
    sine = across.norm(dim=1, keepdim=True)
    across = across / sine.clamp_min(1e-12)
    angle = t[:, None] * torch.atan2(sine, cosine)  # exact where acos is not: near 0
    return (a * angle.cos() + across * angle.sin()) * norms[0].lerp(norms[1], t[:, None])


def fresh_noise(G: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Standard normal noise images in the place of those that a StyleGAN stores, by name."""
    return {
        name: torch.randn(buffer.shape, generator=generator).to(buffer)
        for name, buffer in G.synthesis.named_buffers()
        if name.endswith("noise_const")
    }


def trimmed_mean(values: Tensor, share: float = _TRIM) -> tuple[float, float]:
    """Mean of what lies between the `share` and 1 − `share` quantiles, and its standard error.

    Quantiles are the sample value below the first and the one above the second, both included.
    The error is Tukey & McLaughlin's (1963): of the values with both ends drawn in to these.
    """
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"{bad} of {len(values)} path lengths are not finite: G has diverged")
    ordered, last = values.double().sort().values, len(values) - 1
    low, high = ordered[math.floor(share * last)], ordered[math.ceil((1 - share) * last)]
    kept = values[(values >= low) & (values <= high)].double()
    drawn_in = values.double().clamp(low, high)
    stderr = drawn_in.std() / (1 - 2 * share) / len(values) ** 0.5
    return kept.mean().item(), stderr.item()


def _check(G: nn.Module, space: str, sampling: str, count: int, epsilon: float) -> None:
    if space not in ("w", "z") or sampling not in ("full", "end"):
        raise ValueError(
            f"path length: space={space!r} sampling={sampling!r}; space is w or z, sampling is "
            "full or end"
        )
    if space == "w" and not _is_stylegan(G):
        raise ValueError(
            "path length: this generator has no w (no mapping network): use zfull/zend"
        )
    if count < 2 or not epsilon > 0:
        raise ValueError(f"path length: count={count} epsilon={epsilon}; at least 2 pairs, ε > 0")


def _is_stylegan(G: nn.Module) -> bool:
    return hasattr(G, "mapping") and hasattr(G, "synthesis")


def _inputs(
    G: nn.Module, a: Tensor, b: Tensor, t: Tensor, epsilon: float, space: str, c: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What to synthesise at t of all pairs and then at t + ε, with the labels of both."""
    both = None if c is None else torch.cat([c, c])
    if space == "z":
        z = torch.cat([slerp(a, b, t), slerp(a, b, t + epsilon)])
        return (G.mapping(z, both) if _is_stylegan(G) else z), both
    ends = G.mapping(torch.cat([a, b]), both)
    first, second = ends.chunk(2)
    t = t.view(-1, *[1] * (ends.ndim - 1))
    return torch.cat([first.lerp(second, t), first.lerp(second, t + epsilon)]), both


def _with_noise(
    G: nn.Module, generator: torch.Generator
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return the synthesis with fresh noise images that stay the same from call to call."""
    if not _is_stylegan(G):
        return lambda z, c: G(z, c)
    noise = fresh_noise(G, generator)
    how = {"noise": "const"} if noise else {}
    return lambda ws, _: torch.func.functional_call(G.synthesis, noise, (ws,), how)


@contextmanager
def _float32(G: nn.Module) -> Iterator[None]:
    """Compute in float32: steps of ε are below the resolution of TF32 and bf16."""
    synthesis = getattr(G, "synthesis", None)
    lower = getattr(synthesis, "bf16", False)
    if lower:
        synthesis.bf16 = False
    try:
        with float32_arithmetic():
            yield
    finally:
        if lower:
            synthesis.bf16 = True
