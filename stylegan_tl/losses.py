"""Adversarial losses, their regularisers, and the Adam correction that laziness asks for.

Pure functions of tensors. Losses and penalties come back per sample, [N], never reduced and
never weighted: the model takes the mean and multiplies by gamma/2, the interval and so on.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "LazyAdam",
    "between",
    "cross_entropy_D",
    "drift",
    "gradient_penalty",
    "lazy_adam",
    "nonsaturating_D",
    "nonsaturating_G",
    "path_length_penalty",
    "path_lengths",
    "r1_penalty",
    "targets",
    "wasserstein_D",
    "wasserstein_G",
]


def nonsaturating_G(fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))) = softplus(-f), [N] (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).flatten()


def nonsaturating_D(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """(softplus(-r), softplus(f)), each [N]: logistic loss of D on reals and on fakes."""
    return F.softplus(-real_logits).flatten(), F.softplus(fake_logits).flatten()


def cross_entropy_D(
    real_logits: Tensor, fake_logits: Tensor, real_targets: Tensor, fake_targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of D against targets [N] for reals and for fakes, each [N].

    At a target t and a logit x: softplus(x) - t x, which is also defined for t outside [0, 1].
    """
    real, fake = real_logits.flatten(), fake_logits.flatten()
    return F.softplus(real) - real_targets * real, F.softplus(fake) - fake_targets * fake


def targets(
    count: int, smoothing: float, noise: float, flipping: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What D is told of `count` reals and of as many fakes, [N] each; 1 and 0 without tricks.

    `smoothing` s: reals are 1 - s, fakes stay 0 (one-sided, Salimans et al. 2016, section 3.4).
    `noise`: each target moves by a uniform draw from [-noise, noise]. `flipping`: the share of
    samples of each kind that get a target of the other (both: Chintala et al. 2016, "How to train
    a GAN?", tip 6). Draws the same numbers whatever the settings.
    """
    drawn = torch.rand(2, 2, count, generator=generator, device=generator.device)
    moved = (2 * drawn[0] - 1) * noise
    flipped = drawn[1] < flipping
    real, fake = 1 - smoothing + moved[0], moved[1]
    return (
        torch.where(flipped[0], moved[0], real),
        torch.where(flipped[1], 1 - smoothing + moved[1], fake),
    )


def wasserstein_G(fake_logits: Tensor) -> Tensor:
    """-f, [N] (Arjovsky et al. 2017, algorithm 1)."""
    return -fake_logits.flatten()


def wasserstein_D(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """(-r, f), each [N]; their means add up to minus the estimated distance."""
    return -real_logits.flatten(), fake_logits.flatten()


def drift(real_logits: Tensor) -> Tensor:
    """r^2, [N]: keeps a critic's output near zero (Karras et al. 2018, appendix A.1)."""
    return real_logits.flatten().square()


def between(real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """A point on the line from each real to a fake, uniform, [N, C, H, W]; a leaf."""
    share = torch.rand(len(real), 1, 1, 1, generator=generator, device=real.device)
    return real.detach().lerp(fake.detach(), share.to(real.dtype))


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """(|d D(x) / dx| - 1)^2 per image, [N] (Gulrajani et al. 2017, equation 3).

    As `r1_penalty` otherwise; the weight is the caller's.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    norm = (gradient.square().flatten(1).sum(1) + 1e-16).sqrt()
    return (norm - 1).square()


def r1_penalty(images: Tensor, real_logits: Tensor) -> Tensor:
    """|d D(x) / dx|^2 per image, [N]; the factor gamma/2 is the caller's (Mescheder et al. 2018).

    `images` [N, C, H, W] must require grad and `real_logits` [N, 1] must come from them. Samples
    are told apart by the sum over logits, so where D mixes the batch (minibatch deviation) the
    gradient is that of the sum, as in every published implementation. Differentiable again.
    Only what leads to the images is computed: no gradients of weights, in our operators either.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """|J_w^T y| of the generator at each sample, [N] (Karras et al. 2020, equation 4).

    `images` [N, C, H, W] come from `ws` [N, num_ws, w_dim]; `noise` is standard normal of the
    images' shape and is divided by sqrt(H W) here, so that lengths do not grow with resolution.
    The squared norm is summed over w_dim and averaged over the num_ws layers. As in `r1_penalty`,
    only what leads to `ws` is computed.
    """
    height, width = images.shape[-2:]
    y = noise / math.sqrt(height * width)
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return torch.linalg.vector_norm(gradient, dim=(1, 2)) / math.sqrt(ws.shape[1])


def path_length_penalty(
    lengths: Tensor, pl_mean: Tensor, decay: float = 0.01, *, mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """((length - a)^2 [N], a []) where a is the running mean `pl_mean` moved on by `decay`.

    The target a is a constant of the penalty: no gradient flows through it. `mean` is that of the
    whole batch where `lengths` are a part of it.
    """
    mean = lengths.detach().mean() if mean is None else mean
    new_mean = pl_mean.lerp(mean.to(pl_mean), decay)
    return (lengths - new_mean).square(), new_mean


class LazyAdam(NamedTuple):
    """Adam's settings after the correction for lazy regularisation."""

    lr: float
    betas: tuple[float, float]


def lazy_adam(lr: float, betas: tuple[float, float], interval: int) -> LazyAdam:
    """Settings that make `interval` + 1 steps as long as `interval` were (Karras 2020, appendix B).

    With c = interval / (interval + 1): lr c, and beta^c for both betas. An `interval` of 0 means
    that nothing is regularised lazily, and changes nothing.
    """
    if interval < 0:
        raise ValueError(f"lazy_adam: interval is {interval}; it counts iterations, use 0 or more")
    c = interval / (interval + 1) if interval else 1.0
    return LazyAdam(lr * c, (betas[0] ** c, betas[1] ** c))
