"""EWC (Li, Zhang, Lu & Shechtman 2020, arXiv:2012.02780): what mattered to the source stays.

What: lambda / 2 sum_i F_i (theta_i - theta_S,i)^2, where F_i = E[(d log D_S(G_S(z)) / d theta_i)^2]
is the Fisher information under the source's own samples, one gradient per sample. It is scaled to
a mean of one, so lambda means what it means in l2_sp; the mean itself is kept in the checkpoint.
When: ten to a few hundred images, where l2_sp holds everything alike and cdc costs too much.
Values: 0.01-1; the paper anchors G alone (published values, 5e4 to 5e8, multiply an unscaled F).
F is concentrated: 240 images of bedroom -> kitchen move G by about 180 (squared distance) at any
weight, but F-weighted by 10.1 without EWC, 7.6 at weight 0.01 and 1.6 at weight 1. 256 samples.
Costs: `samples` passes before training, then what l2_sp costs, and F in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_tl.freeze.anchor.base import Source, weighted
from stylegan_tl.freeze.anchor.l2_sp import L2SP, anchored

__all__ = ["EWC", "fisher"]


def fisher(
    source: Source, network: str, samples: Iterable[tuple[Tensor, Tensor]], names: Iterable[str]
) -> dict[str, Tensor]:
    """The mean squared gradient of log sigmoid D(G(z, c)), of the parameters `names` of a network.

    `samples`: z [1, z_dim] and c [1, c_dim], each a sample of its own. Batch normalisation uses
    its running statistics; a StyleGAN2 runs without noise.
    """
    G, D = source.G.eval(), source.D.eval()
    own = dict(getattr(source, network).named_parameters())
    chosen = [own[name].requires_grad_(True) for name in names]
    how = {"noise": "none"} if hasattr(G, "synthesis") else {}
    total, count = [torch.zeros_like(p) for p in chosen], 0
    for z, c in samples:
        likelihood = F.logsigmoid(D(G(z, c, **how), c)).sum()
        gradients = torch.autograd.grad(likelihood, chosen, materialize_grads=True)
        torch._foreach_add_(total, [g.square() for g in gradients])
        count += 1
    for parameter in chosen:
        parameter.requires_grad_(False)
    return {name: value / count for name, value in zip(names, total, strict=True)}


class EWC(L2SP):
    """L2-SP with every weight's pull in proportion to its Fisher information."""

    name = "ewc"

    def __init__(self, weight_G: float, weight_D: float, samples: int) -> None:
        weighted(self.name, weight_G=weight_G, weight_D=weight_D)
        if samples < 1:
            raise ValueError(f"freeze.anchor.ewc.samples={samples}: use a whole number from 1")
        self.weights, self.samples = {"G": weight_G, "D": weight_D}, samples
        self._fisher: dict[str, dict[str, Tensor]] = {}
        self._mean: dict[str, float] = {}

    def prepare(self, model: nn.Module) -> None:
        """Estimate the Fisher information, unless a checkpoint brought it."""
        for network in self.networks:
            if network not in self._fisher:
                self._estimate(model, network)
            own = self._fisher[network]
            self._fisher[network] = {name: f.to(model.device) for name, f in own.items()}

    @property
    def state(self) -> dict[str, Any]:
        """The scaled information of every weight, and the mean it had."""
        return {"fisher": self._fisher, "mean": self._mean}

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self._fisher, self._mean = dict(state["fisher"]), dict(state["mean"])

    def importance(self, network: str) -> dict[str, Tensor]:
        """F by name."""
        return self._fisher[network]

    def _estimate(self, model: nn.Module, network: str) -> None:
        there = dict(getattr(self.source, network).named_parameters())
        names = [name for name in anchored(model, network) if name in there]
        found = fisher(self.source, network, self._latents(model), names) if names else {}
        count = max(sum(f.numel() for f in found.values()), 1)
        mean = sum(f.sum().item() for f in found.values()) / count
        self._mean[network] = mean
        self._fisher[network] = {name: f / mean if mean else f for name, f in found.items()}

    def _latents(self, model: nn.Module) -> Iterable[tuple[Tensor, Tensor]]:
        """Latents from the run's own seed, with classes drawn evenly if there are any."""
        generator = model.generator("penalty_G", rank=0)  # the same in every process
        c_dim = self.source.G.c_dim
        for _ in range(self.samples):
            z, c = model.latents(1, generator), torch.zeros(1, c_dim, device=model.device)
            if c_dim:
                choice = torch.randint(c_dim, [], generator=generator, device=model.device)
                c[0, choice] = 1
            yield z, c
