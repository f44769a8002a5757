"""StyleGAN (Karras et al. 2019, arXiv:1812.04948) as a LightningModule that grows on the clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_tl.models.growth import Growth, changes_stage
from stylegan_tl.models.inherited import Inherited
from stylegan_tl.models.style_based import StyleBased
from stylegan_tl.networks import stylegan

__all__ = ["StyleGAN"]

_LODS = ("G.synthesis.lod", "G_ema.synthesis.lod", "D.lod")
_BLOCK = re.compile(r"(?:synthesis\.)?b(?P<r>\d+)\.(?P<layer>\w+)")


class StyleGAN(StyleBased):
    """AdaIN in G, and progressive growing where `growth` is given (the fields of `Growth`).

    `network`: resolution, z_dim, w_dim, c_dim, num_mapping_layers, channel_base, channel_max,
    mbstd_group_size, and miner where there is one. `training`: see `Training`. Images are at the
    full resolution at every stage: of G they are enlarged, reals are coarsened to what D sees.
    """

    def __init__(
        self,
        *,
        network: dict,
        training: dict,
        style_mixing: float = 0.9,
        growth: dict | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(network=network, training=training, seed=seed)
        self.save_hyperparameters()
        self.style_mixing = style_mixing
        self.growth = _growth(network["resolution"], growth)
        for lod in self._lods():
            lod.fill_(self.growth.lod(0))

    @classmethod
    def inherit(
        cls,
        fields: Mapping[str, Any],
        network: Mapping[str, Any],
        state: Mapping[str, Tensor],
        resolution: int,
    ) -> Inherited:
        """Begin at what the source has grown to, or below it; blocks above that are new.

        A resolution that was fading in does not count. Raises ValueError for a start above it.
        """
        lod = float(state.get("synthesis.lod", 0.0))
        whole = -int(-lod // 1)
        grown = min(network["resolution"] >> whole, resolution)
        growth = fields.get("growth")
        start = growth["start_resolution"] if growth else resolution
        start = grown if start is None else start
        if start > grown:
            key = f"model.growth.start_resolution={start}" if growth else "model.growth=null"
            raise ValueError(
                f"has grown to {grown} px, and {key} begins above: use start_resolution={grown} "
                "or below, and let it grow on"
            )
        new = [r for r in _doubled(8, resolution) if r > grown]
        gone = [r for r in _doubled(8, network["resolution"]) if r > resolution]
        return Inherited(
            fields={**fields, "growth": growth and {**growth, "start_resolution": start}},
            network={**network, "resolution": resolution},
            fresh=(*_LODS, *_blocks(new)),
            left=tuple(_blocks(gone)),
        )

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """G takes all but the minibatch group size, D takes what concerns images and labels."""
        both = {k: network[k] for k in ("resolution", "channel_base", "channel_max")}
        both |= {"c_dim": network.get("c_dim", 0)}
        latent = {k: network[k] for k in ("z_dim", "w_dim", "num_mapping_layers")}
        G = stylegan.Generator(**both, **latent, miner=network.get("miner", False))
        return G, stylegan.Discriminator(**both, mbstd_group_size=network["mbstd_group_size"])

    # -- the stage, a function of nimg -------------------------------------------------------

    @property
    def layers_in_use(self) -> int:
        """Two per resolution."""
        return 2 * (self.growth.top(self.nimg).bit_length() - 2)

    def view(self, real: Tensor) -> Tensor:
        """Reals without the detail that this stage does not have."""
        return stylegan.faded(real, self.growth.lod(self.nimg))

    def images_at(self, nimg: int) -> int:
        """The batch of the stage at `nimg`, for each step of D."""
        plan = self.training_plan
        return self.growth.batch_at(nimg, plan.batch_size) * plan.D_steps

    def iteration_at(self, nimg: int) -> int:
        """How many iterations begin before `nimg`, whatever their batches were."""
        plan = self.training_plan
        return self.growth.iterations(nimg, plan.batch_size, plan.D_steps)

    def rate(self, network: str) -> float:
        """The stage's factor."""
        return self.growth.factor_at(self.nimg)

    def rests(self, network: str) -> bool:
        """Whether nothing that this stage uses of the network may train."""
        parameters = getattr(self, network).named_parameters()
        return not any(p.requires_grad for name, p in parameters if self.in_use(name))

    def in_use(self, name: str) -> bool:
        """Whether the stage at nimg uses the tensor of this name in G or in D."""
        match = _BLOCK.match(name)
        if match is None:
            return True
        lod, r = self.growth.lod(self.nimg), int(match["r"])
        top, share = stylegan.stage_of(lod, self.G.resolution)
        if match["layer"] in ("torgb", "fromrgb"):
            return r == top or (share > 0 and r == top // 2)
        return r <= top

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Grow to where the clock is, then an iteration as of every model."""
        lod = self._grow()
        return {**super().training_step(batch, batch_idx), "lod": lod}

    @torch.no_grad()
    def _grow(self) -> Tensor:
        """Set lod; where a fade begins or ends the optimizers forget, as published."""
        own, *_ = self._lods()
        before = own.item()
        for lod in self._lods():
            lod.fill_(self.growth.lod(self.nimg))
        if changes_stage(before, own.item()):
            for optimizer in self.optimizers():
                optimizer.optimizer.state.clear()
        return own.clone()

    def _lods(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.G.synthesis.lod, self.G_ema.synthesis.lod, self.D.lod


def _growth(resolution: int, growth: Mapping[str, Any] | None) -> Growth:
    """The schedule; without one the full resolution from the start."""
    if growth is None:
        return Growth(resolution, start_resolution=resolution)
    return Growth(resolution, **growth)


def _doubled(first: int, last: int) -> list[int]:
    return [1 << i for i in range(first.bit_length() - 1, last.bit_length())]


def _blocks(resolutions: list[int]) -> list[str]:
    """Prefixes of what belongs to these resolutions, in G, G_ema and D."""
    networks = ("G.synthesis", "G_ema.synthesis", "D")
    return [f"{network}.b{r}." for network in networks for r in resolutions]
