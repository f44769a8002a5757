"""L2-SP (Li, Grandvalet & Davoine 2018, arXiv:1802.01483): weights stay near where they started.

What: lambda / 2 |theta - theta_source|^2 (equation 2), for G and for D with weights of their own;
FreezeD (Mo et al. 2020) is the precedent with GANs, there with the mean per tensor.
When: the simplest anchor; little data, near domains. It cannot tell what mattered: see ewc.
Values: equalised learning rates give weights of unit size, so 0.001-0.1; a DCGAN's are 50 times
smaller and ask for 1-100. 0 leaves a network out. What is frozen or new is not anchored.
Costs: two weight-sized copies and one pass over the weights per step, no forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stylegan_tl.freeze.anchor.base import Anchor, weighted

__all__ = ["L2SP", "anchored", "quadratic"]


def quadratic(
    moving: Mapping[str, Tensor],
    origin: Mapping[str, Tensor],
    importance: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """1/2 sum_i F_i (theta_i - theta_S,i)^2 over all names of `moving`, scalar; F is 1 if None."""
    total = torch.zeros([], device=next(iter(moving.values())).device)
    for name, value in moving.items():
        square = (value - origin[name]).square()
        total = total + (square if importance is None else importance[name] * square).sum()
    return total / 2


def anchored(model: nn.Module, network: str) -> dict[str, nn.Parameter]:
    """The parameters of G or D that train now and came from the source, by name within it."""
    new = tuple(model.reinitialised) or "\0"
    return {
        name: parameter
        for name, parameter in getattr(model, network).named_parameters()
        if parameter.requires_grad and not f"{network}.{name}".startswith(new)
    }


class L2SP(Anchor):
    """Weights of G and of D, pulled with `weight_G` and `weight_D`."""

    name = "l2_sp"

    def __init__(self, weight_G: float, weight_D: float) -> None:
        weighted(self.name, weight_G=weight_G, weight_D=weight_D)
        self.weights = {"G": weight_G, "D": weight_D}

    @property
    def networks(self) -> str:
        """Those of a weight above 0."""
        return "".join(network for network, weight in self.weights.items() if weight)

    def importance(self, network: str) -> Mapping[str, Tensor] | None:
        """The factor on every weight's square, by name; None for one."""
        return None

    def of_G(self, model: nn.Module, *_: object) -> Tensor | None:
        """The pull on G."""
        return self._of("G", model)

    def of_D(self, model: nn.Module, *_: object) -> Tensor | None:
        """The pull on D."""
        return self._of("D", model)

    def _of(self, network: str, model: nn.Module) -> Tensor | None:
        if not self.weights[network]:
            return None
        origin = dict(getattr(self.source, network).named_parameters())
        moving = {k: p for k, p in anchored(model, network).items() if k in origin}
        if not moving:
            return None
        return self.weights[network] * quadratic(moving, origin, self.importance(network))
