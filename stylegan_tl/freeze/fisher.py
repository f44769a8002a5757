"""Filters that matter to the target stay, the others train; those that do not are pruned.

What: the convolutions of G and D are masked filter by filter, by their Fisher information: the
squared gradient of the training loss, averaged over a filter's weights and summed over iterations.
`adam` (AdAM, Zhao et al. 2022, arXiv:2210.16559): for `probe_kimg` all filters stay and are
modulated by a kernel of rank one (KML); then those above the `quantile` of their network go on so,
and the others train. `rick` (RICK, Zhao et al. 2023, arXiv:2304.07574): the mask is drawn again
every `every_kimg`; filters above the quantile stay as they are, the share `prune` with the least
Fisher of those left is zeroed for good, the rest trains. All other tensors train from the start.
Why: which knowledge to keep depends on the target; what is incompatible is better forgotten.
When: ten images or a few more, near and far. Values: quantile 0.5 near, 0.75 far, probe 2 kimg at
10 kimg; RICK 0.85, pruning 0.001, every 0.1 kimg, after a warm-up of D's head.
The paper's probe starts again from the source, this one goes on. The gradient is that of a batch,
not of one image, and lazy regularisation does not count.
Costs: the filters' weights twice (source and change), with gradients for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylegan_tl.freeze.adapt import Adapt
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.networks.adapters import MaskedFilters

__all__ = ["FisherMask", "adam", "rick"]


def adam(quantile: float, probe_kimg: float) -> Strategy:
    """Filters above the Fisher quantile are modulated, the others train; drawn once."""
    return _masked(FisherMask(quantile, probe_kimg), modulate=True)


def rick(quantile: float, prune: float, every_kimg: float) -> Strategy:
    """Filters above the quantile stay, the least of them are pruned; drawn every `every_kimg`."""
    return _masked(FisherMask(quantile, every_kimg, prune=prune, again=True), modulate=False)


class FisherMask:
    """Draws the masks of `MaskedFilters` when it is time, and takes gradients away by them.

    All its state is in the model's buffers and in nimg, so that a resumed run repeats it.
    """

    def __init__(
        self, quantile: float, every_kimg: float, *, prune: float = 0.0, again: bool = False
    ) -> None:
        for name, share in (("quantile", quantile), ("prune", prune)):
            if not 0 <= share < 1:
                raise ValueError(f"freeze.{name}={share}: use a share from 0 to below 1")
        if every_kimg <= 0:
            raise ValueError(f"freeze: a probe of {every_kimg} kimg measures nothing; use more")
        self.quantile, self.prune, self.again = quantile, prune, again
        self.every = max(round(every_kimg * 1000), 1)
        self._counted: set[str] = set()  # networks whose main loss this iteration has seen

    @torch.no_grad()
    def begin_batch(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Draw the masks if this iteration is the first at or after a boundary."""
        self._counted.clear()
        drawn = model.nimg_before // self.every
        if model.nimg // self.every > drawn and (self.again or not drawn):
            for network, optimizer in zip("GD", optimizers, strict=True):
                filters = _filters(getattr(model, network))
                self._draw(filters)
                _forget(filters, optimizer)

    @torch.no_grad()
    def before_step(self, model: nn.Module, network: str) -> None:
        """Add to the Fisher information, unless this is lazy regularisation; mask gradients."""
        for own in _filters(getattr(model, network)):
            gradient = own.delta.grad
            if gradient is None:
                continue
            if network not in self._counted:
                own.fisher.add_(_per_filter(gradient.square(), own.fisher))
            gradient.mul_((1 - own.mask) * own.keep)
            if own.u is not None and own.u.grad is not None:
                own.u.grad.mul_(own.mask)
        self._counted.add(network)

    def _draw(self, filters: list[MaskedFilters]) -> None:
        left = torch.cat([own.fisher[own.keep > 0] for own in filters])
        if not left.any():  # nothing was measured: the network rested
            return
        high, low = (torch.quantile(left, q) for q in (self.quantile, self.prune))
        for own in filters:
            if self.prune:
                own.keep.mul_(own.fisher >= low)
            own.mask.copy_(own.fisher > high)
            own.fisher.zero_()


def _masked(mask: FisherMask, modulate: bool) -> Strategy:
    def how(layer: nn.Module, generator: torch.Generator) -> MaskedFilters:
        transposed = isinstance(layer, nn.ConvTranspose2d)
        return MaskedFilters(layer.weight, int(transposed), modulate, generator)

    return Strategy(adapt=(Adapt("G.conv", how), Adapt("D.conv", how)), mask=mask)


def _filters(network: nn.Module) -> list[MaskedFilters]:
    return [module for module in network.modules() if isinstance(module, MaskedFilters)]


def _per_filter(values: Tensor, like: Tensor) -> Tensor:
    """The mean over all dimensions but the one that counts filters."""
    return values.mean([d for d in range(values.ndim) if like.shape[d] == 1], keepdim=True)


def _forget(filters: list[MaskedFilters], optimizer: torch.optim.Optimizer) -> None:
    """No momentum of what no longer trains: with no gradient either, it stands still."""
    for own in filters:
        trains = {own.delta: (1 - own.mask) * own.keep, own.u: own.mask}
        for parameter, share in trains.items():
            if parameter is not None and "exp_avg" in optimizer.state.get(parameter, {}):
                optimizer.state[parameter]["exp_avg"].mul_(share)
