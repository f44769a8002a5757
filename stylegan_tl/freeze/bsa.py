"""Scale and shift without a discriminator (BSA: Noguchi & Harada 2019, arXiv:1904.01774).

What: every training image x_i gets a latent z_i of its own; these and, of G, the scale and shift of
its normalisation train (batch normalisation's in a DCGAN, which normalises by the source's running
statistics; in a StyleGAN2 the affine layers of the convolutions, ToRGB's not). The game is replaced
by reconstruction, as in GLO (Bojanowski et al. 2018, arXiv:1707.05776):
    mean_i ( |x_i - G(z_i)|_1 + features d(x_i, G(z_i)) )
    + latents W({z}, {r})                      r ~ N(0, 1), drawn anew in every iteration
    + towards_source sum_l mean (theta_l - theta_S,l)^2
W keeps the latents where a sampler looks: the paper's earth mover's distance, here squared and
sliced, the mean over random directions of that in one dimension, which sorting solves. (Matched in
all dimensions at once, a few points lie closest to the draws when they shrink to their mean.)
d is `laplacian`, GLO's L1 over the bands of a pyramid, or `small`, the feature maps of the bundled
extractor; the paper takes VGG-16's, which would have to be downloaded. With `small` every metric
…_small is measured with what was trained for: compare such a run by other metrics only.
A mirror image has a latent of its own. StyleGAN2's noise is off while training. D is not used, and
stays the source's to the bit.
Why: with tens of images a discriminator remembers them. When: at most 100 images, near the source;
more are refused. Give it time: with 25 images and 2 kimg the bundled bedroom model reconstructs the
kitchens as coloured blurs, its samples are faint bedrooms still and its metrics worse than before.
Values: the paper: z from 0 with rate 0.05, both rates falling, 250 kimg in batches of 25, features
0.001 (VGG), latents 0.1, towards_source 0.02, lr 0.0005-0.03. The rates here do not fall.
Costs: at 64 px on a CPU a quarter of a full fine-tune's step, a third with `small`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.freeze.selectors import NotApplicable
from stylegan_tl.freeze.strategy import Strategy

__all__ = ["MOST", "Plan", "Reconstruction", "bsa", "laplacian", "sliced_wasserstein", "small"]

MOST = 100
_DIRECTIONS = 64
_STARTS = ("zero", "normal")
_STREAM = 190_401_774  # of the latents' start


def bsa(
    images: int | None,
    mirrored: bool,
    lr: float,
    lr_z: float,
    start: str,
    feature: str,
    features: float,
    latents: float,
    towards_source: float,
) -> Strategy:
    """Of G the convolutions' scale and shift train, and a latent per image; no D.

    `images` is the run's num_images, `mirrored` its target's xflip. Raises ValueError for more than
    `MOST` images or an unknown count, and for what `start` and `feature` cannot be.
    """
    if images is None or images > MOST:
        raise ValueError(
            f"freeze=bsa keeps one latent per image, for at most {MOST} images, but "
            f"num_images={'null' if images is None else images}: give num_images=1 to {MOST}, or "
            "use freeze=scale_shift, the same weights with a discriminator"
        )
    for key, value, allowed in (("start", start, _STARTS), ("feature", feature, _DISTANCES)):
        if value not in allowed:
            raise ValueError(f"freeze.{key}={value}: use one of {', '.join(allowed)}")
    weights = {"features": features, "latents": latents, "towards_source": towards_source}
    rates = {"lr": lr, "lr_z": lr_z}
    _check_numbers(rates, weights)
    count = images * (2 if mirrored else 1)
    plan = Plan(count, start, _DISTANCES[feature](), **rates, weights=weights)
    return Strategy(train=("G.affine",), freeze=("G.torgb", "D"), objective=plan)


def laplacian(x: Tensor, y: Tensor) -> Tensor:
    """Sum over the bands of a Laplacian pyramid of the mean |x - y|, [N] (GLO, equation 3).

    A band is what 2 x 2 means lose, and at 4 px what is left.
    """
    rest, total = x - y, torch.zeros(len(x), device=x.device)
    while rest.shape[-1] > 4:
        low = F.avg_pool2d(rest, 2)
        total = total + (rest - F.interpolate(low, scale_factor=2)).abs().mean((1, 2, 3))
        rest = low
    return total + rest.abs().mean((1, 2, 3))


def small() -> Callable[[Tensor, Tensor], Tensor]:
    """The mean |difference| of the bundled extractor's maps, in standard deviations, [N]."""
    from stylegan_tl.metrics.small import SIZE, load_small

    network = load_small()[0].requires_grad_(False)

    def maps(x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[-1] != SIZE:
            x = F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        found = network.maps(x)
        scales = network.scale.split([m.shape[1] for m in found])
        return tuple(m / s[:, None, None] for m, s in zip(found, scales, strict=True))

    def distance(x: Tensor, y: Tensor) -> Tensor:
        network.to(x.device)
        pairs = zip(maps(x), maps(y), strict=True)
        return sum((a - b).abs().mean((1, 2, 3)) for a, b in pairs) / 3

    return distance


def sliced_wasserstein(z: Tensor, r: Tensor, directions: Tensor) -> Tensor:
    """The squared distance of `z` to `r`, both [n, d], in one dimension, averaged; scalar.

    `directions` [d, k] are unit columns. In one dimension sorting matches best (Bonneel et al.
    2015, arXiv:1310.3749, section 2).
    """
    ours, theirs = ((x @ directions).sort(dim=0, stable=True).values for x in (z, r))
    return (ours - theirs).square().mean()


@dataclass(frozen=True)
class Plan:
    """What a `Reconstruction` is made of: `count` latents, rates, the weights of the losses."""

    count: int
    start: str
    distance: Callable[[Tensor, Tensor], Tensor]
    lr: float
    lr_z: float
    weights: Mapping[str, float]

    def check(self, model: nn.Module) -> None:
        """Raise NotApplicable for a start that `model` cannot leave."""
        if self.start == "zero" and hasattr(model.G, "mapping"):
            raise NotApplicable(
                "freeze.start=zero: this model's G sets its latents to unit length, and 0 has "
                "none; use freeze.start=normal"
            )

    def latents(self, width: int, seed: int) -> Tensor:
        """Where they start, [count, width]; a stream of its own, so that no grid draws the same."""
        if self.start == "zero":
            return torch.zeros(self.count, width)
        state = int(np.random.SeedSequence([seed, _STREAM]).generate_state(1, np.uint64)[0])
        generator = torch.Generator().manual_seed(state & (2**63 - 1))
        return torch.randn(self.count, width, generator=generator)

    def __call__(self, model: nn.Module) -> Reconstruction:
        """The objective of `model`, whose scale and shift are the source's still."""
        return Reconstruction(model, self)


class Reconstruction(nn.Module):
    """The objective of a model: latents `z [count, z_dim]`, and where scale and shift began."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.lr_G, self.lr_z, self.weights = plan.lr, plan.lr_z, plan.weights
        self.distance = plan.distance
        self.z = nn.Parameter(plan.latents(model.G.z_dim, model.seed))
        new = tuple(model.reinitialised) or "\0"  # what has no source
        self.names = [
            name
            for name, parameter in model.G.named_parameters()
            if parameter.requires_grad and not f"G.{name}".startswith(new)
        ]
        for i, name in enumerate(self.names):
            self.register_buffer(f"source{i}", model.G.get_parameter(name).detach().clone())

    def groups(self) -> list[dict]:
        """The latents, at their own rate."""
        return [{"params": [self.z], "lr": self.lr_z}]

    def of_images(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """L1 and the feature distance; G is a fixed function of z and its weights."""
        model.G.eval()  # the source's running statistics
        real = batch["image"]
        fake = model.G(self.z[batch["index"]], batch["label"], **model.still)
        return {
            "l1": (real - fake).abs().mean(),
            "features": self.weights["features"] * self.distance(real, fake).mean(),
        }

    def of_weights(self, model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        """How far the latents are from normal, and scale and shift from the source's."""
        count, width = self.z.shape
        draw = partial(torch.randn, generator=generator, device=self.z.device)
        directions = F.normalize(draw(width, _DIRECTIONS), dim=0)
        moved = [
            (model.G.get_parameter(name) - self.get_buffer(f"source{i}")).square().mean()
            for i, name in enumerate(self.names)
        ]
        apart = sliced_wasserstein(self.z, draw(count, width), directions)
        return {
            "latents": self.weights["latents"] * apart,
            "towards_source": self.weights["towards_source"] * sum(moved),
        }


def _check_numbers(rates: Mapping[str, float], weights: Mapping[str, float]) -> None:
    for key, value in rates.items():
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ValueError(f"freeze.{key}={value}: use a number above 0")
    for key, value in weights.items():
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"freeze.{key}={value}: use a number from 0")


_DISTANCES = {"laplacian": lambda: laplacian, "small": small}
