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
    "lazy_adam",
    "nonsaturating_D",
    "nonsaturating_G",
    "path_length_penalty",
    "path_lengths",
    "r1_penalty",
]


def nonsaturating_G(fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))) = softplus(-f), [N] (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).flatten()


def nonsaturating_D(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """(softplus(-r), softplus(f)), each [N]: logistic loss of D on reals and on fakes."""
    return F.softplus(-real_logits).flatten(), F.softplus(fake_logits).flatten()


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
