"""DCGAN (Radford et al. 2016) as a LightningModule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.networks import dcgan

__all__ = ["DCGAN"]


class DCGAN(AdversarialModel):
    """Transposed convolutions and BatchNorm; the logistic loss is the paper's cross-entropy.

    `network`: resolution, z_dim, c_dim, width, where they differ width_G and width_D, and the
    options of `networks/dcgan.py`: width_max, kernel, bias, init, noise, norm_D, slope, miner;
    those that are absent are dcgan.torch's. `training`: see `Training`.
    """

    def __init__(self, *, network: dict, training: dict, seed: int = 0) -> None:
        super().__init__(network=network, training=training, seed=seed)
        self.save_hyperparameters()
        if self.training_plan.penalises_gradient and network.get("norm_D", "batch") == "batch":
            raise ValueError(
                "model.training.loss=wgan_gp penalises D image by image, and batch normalisation "
                "mixes them: use model.network.norm_D=layer"
            )

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """G and D, of one width unless two are given."""
        shared = ("resolution", "width_max", "kernel", "bias", "init")
        both = {k: network[k] for k in shared if k in network} | {"c_dim": network.get("c_dim", 0)}
        width = {k: network.get(f"width_{k}") or network["width"] for k in "GD"}
        latent = {k: network[k] for k in ("z_dim", "noise", "miner") if k in network}
        own = {"norm": network.get("norm_D", "batch"), "slope": network.get("slope", 0.2)}
        G = dcgan.Generator(**latent, **both, width=width["G"])
        return G, dcgan.Discriminator(**both, width=width["D"], **own)

    def synthesise(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes with batch statistics."""
        return self.G(z, c)
