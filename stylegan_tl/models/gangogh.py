"""GANGogh (Jones and Bonafilia 2017) as a LightningModule: WGAN-GP with an auxiliary classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.networks import gangogh

__all__ = ["GANGogh"]


class GANGogh(AdversarialModel):
    """D learns the classes of reals, G is told by D's classifier; first D learns them alone.

    `network`: resolution, z_dim, c_dim, width, width_max, and miner where there is one. `training`:
    see `Training`. `class_weight` is that of the cross-entropy in both. For the first
    `pretrain_kimg` of a D that no source gave, G rests and D descends its cross-entropy times
    `pretrain_class_weight` and the gradient penalty; None: its ordinary loss. (The released script
    defines the former, times 50, and runs the latter, 2000 steps of 84.) Fakes are given the
    labels of the batch of reals; the script draws them evenly. Without classes: a plain WGAN-GP.
    """

    def __init__(
        self,
        *,
        network: dict,
        training: dict,
        class_weight: float = 1.0,
        pretrain_kimg: float = 168.0,
        pretrain_class_weight: float | None = 50.0,
        seed: int = 0,
    ) -> None:
        super().__init__(network=network, training=training, seed=seed)
        self.save_hyperparameters()
        self.class_weight, self.pretrain_class_weight = class_weight, pretrain_class_weight
        self.pretrain_nimg = round(pretrain_kimg * 1000)

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """G and D of one width."""
        both = {k: network[k] for k in ("resolution", "width", "width_max")}
        both |= {"c_dim": network.get("c_dim", 0)}
        latent = {"z_dim": network["z_dim"], "miner": network.get("miner", False)}
        return gangogh.Generator(**latent, **both), gangogh.Discriminator(**both)

    def synthesise(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes with batch statistics."""
        return self.G(z, c)

    def judge(self, images: Tensor, c: Tensor, shown: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's logits, and the cross-entropy of the classes of reals and of G's fakes."""
        if self.D.c_dim == 0:
            return self.D(images), {}
        logits, classes = self.D.both(images)
        alone = self.learns_classes and self.pretrain_class_weight is not None
        weight = self.pretrain_class_weight if alone else self.class_weight
        logits = logits * 0 if alone else logits  # the critic's own loss rests
        if shown == "fake":
            return logits, {}
        loss = F.cross_entropy(classes, c, reduction="none")
        return logits, {f"class_{'G' if shown == 'G' else 'D'}": weight * loss}

    @property
    def learns_classes(self) -> bool:
        """Whether this is the phase in which D learns the classes, a function of nimg."""
        return self.D.c_dim > 0 and self.nimg < self.pretrain_nimg and "D" not in self.from_source

    def rests(self, network: str) -> bool:
        """G does until D has learned the classes."""
        return network == "G" and self.learns_classes
