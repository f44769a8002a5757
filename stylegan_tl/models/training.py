"""How G and D are optimised: batch, steps, learning rates, and by which loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_tl import losses

__all__ = ["LOSSES", "Training"]

LOSSES = ("nonsaturating", "bce", "wgan_gp")
_LABELS = ("label_smoothing", "label_noise", "label_flipping")
_GRADIENT = ("gp_weight", "drift_weight")


@dataclass(frozen=True)
class Training:
    """How both networks are optimised; intervals count iterations, `ema_kimg` is a half-life.

    `batch_size` counts the images of a step, of all processes together, `micro_batch` those of a
    pass in one. An iteration has `G_steps` steps of G and `D_steps` of D, each of these on
    `batch_size` other real images. `loss`: "nonsaturating" (Goodfellow et al. 2014); "bce", the
    same by targets, which the three `label_…` change (see `losses.targets`); or "wgan_gp"
    (Gulrajani et al. 2017), with `gp_weight` and `drift_weight`, without normalisation over the
    batch in D. `r1_interval` None puts R1 into every step of D, without a step of its own; a lazy
    step weighs as much as all those since the last one would.
    Raises ValueError for what does not go together.
    """

    batch_size: int = 32
    micro_batch: int | None = None
    lr_G: float = 0.0025
    lr_D: float = 0.0025
    betas: tuple[float, float] = (0.0, 0.99)
    r1_gamma: float = 1.0
    r1_interval: int | None = 16
    ema_kimg: float = 10.0
    ema_rampup: float | None = None
    loss: str = "nonsaturating"
    G_steps: int = 1
    D_steps: int = 1
    gp_weight: float = 10.0
    drift_weight: float = 0.0
    label_smoothing: float = 0.0
    label_noise: float = 0.0
    label_flipping: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"model.training.loss={self.loss}: use one of {', '.join(LOSSES)}")
        for key in ("G_steps", "D_steps"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 1:
                raise ValueError(f"model.training.{key}={getattr(self, key)}: use 1 or more")
        for key in (*_LABELS, *_GRADIENT):
            self._check_weight(key, getattr(self, key))

    @property
    def penalises_gradient(self) -> bool:
        """Whether every step of D has the penalty of WGAN-GP."""
        return self.loss == "wgan_gp" and self.gp_weight > 0

    def loss_G(self, fake_logits: Tensor) -> Tensor:
        """The loss of G at D's logits of fakes [N, 1], [N]."""
        if self.loss == "wgan_gp":
            return losses.wasserstein_G(fake_logits)
        return losses.nonsaturating_G(fake_logits)

    def loss_D(
        self, real_logits: Tensor, fake_logits: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The loss of D at its logits, [N]; the generator draws the targets where they vary."""
        if self.loss == "nonsaturating":
            return sum(losses.nonsaturating_D(real_logits, fake_logits))
        if self.loss == "bce":
            tricks = (self.label_smoothing, self.label_noise, self.label_flipping)
            targets = losses.targets(len(real_logits), *tricks, generator)
            return sum(losses.cross_entropy_D(real_logits, fake_logits, *targets))
        critic = sum(losses.wasserstein_D(real_logits, fake_logits))
        return critic + self.drift_weight * losses.drift(real_logits)

    def _check_weight(self, key: str, value: float) -> None:
        most = 1.0 if key in _LABELS else float("inf")
        if not 0 <= value <= most:
            allowed = "a share from 0 to 1" if key in _LABELS else "0 or more"
            raise ValueError(f"model.training.{key}={value}: use {allowed}")
        if key in _LABELS and value and self.loss != "bce":
            raise ValueError(
                f"model.training.{key}={value} changes the targets of loss=bce, and loss is "
                f"{self.loss}: use model.training.loss=bce, or {key}=0"
            )
        if key == "drift_weight" and value and self.loss != "wgan_gp":
            raise ValueError(
                f"model.training.{key}={value} is of loss=wgan_gp, and loss is {self.loss}: "
                f"use model.training.loss=wgan_gp, or {key}=0"
            )
