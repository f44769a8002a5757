"""DCGAN (Radford et al. 2016) as a LightningModule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.networks import dcgan

__all__ = ["DCGAN"]


class DCGAN(AdversarialModel):
    """Transposed convolutions and BatchNorm; the logistic loss is the paper's cross-entropy.

    `network`: resolution, z_dim, c_dim, width, and miner where there is one. `training`: see
    `Training`.
    """

    def __init__(self, *, network: dict, training: dict, seed: int = 0) -> None:
        super().__init__(network=network, training=training, seed=seed)
        self.save_hyperparameters()

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """G and D of one width."""
        both = {k: network[k] for k in ("resolution", "width")} | {"c_dim": network.get("c_dim", 0)}
        latent = {"z_dim": network["z_dim"], "miner": network.get("miner", False)}
        return dcgan.Generator(**latent, **both), dcgan.Discriminator(**both)

    def synthesise(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes with batch statistics."""
        return self.G(z, c)
