"""Freezing acts on a built model from outside: no gradient, no statistics, no motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from stylegan_tl.freeze.adapt import adapted, adapter_parameters, register
from stylegan_tl.freeze.groups import Part, parts_of
from stylegan_tl.freeze.selectors import select
from stylegan_tl.freeze.strategy import ORIGINS, Policy, Strategy

__all__ = ["Freeze", "freeze_of", "frozen_parts", "frozen_share"]


def freeze_of(config: Mapping[str, Any]) -> Freeze:
    """The strategy and the policy that the configuration group `freeze` describes."""
    own = {k: v for k, v in config.items() if k != "policy"}
    try:
        strategy = instantiate(own, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None  # the strategy's own words
    return Freeze(strategy, Policy(**config.get("policy", {})), own)


def frozen_parts(parts: Sequence[Part], strategy: Strategy) -> list[Part]:
    """What stays, of `parts`; raises ValueError where a selector matches nothing."""
    frozen = {p.name for p in select(parts, strategy.freeze)}
    if strategy.train:
        moving = {p.name for p in select(parts, strategy.train)}
        networks = {selector[0] for selector in strategy.train}
        frozen |= {p.name for p in parts if p.network in networks and p.name not in moving}
    changed = [p for adapt in strategy.adapt for p in adapted(parts, adapt)]
    frozen |= {p.name for p in changed}
    following = {p.network for p in changed if "mapping" in p.groups}  # w_avg
    return [p for p in parts if p.name in frozen and not _moves(p, following)]


class Freeze(pl.Callback):
    """Keeps still what a strategy says.

    The set is computed once, before the optimizers are built. Parameters lose `requires_grad`;
    a module all of whose parameters are frozen stays in eval mode, so that `w_avg` does not move
    either, and batch normalisation follows the policy. The optimizers still list every parameter
    and skip those without a gradient, so a checkpoint has one form under every strategy but those
    that adapt: there the frozen tensors have their changes beside them (networks/adapters.py).
    """

    def __init__(
        self,
        strategy: Strategy,
        policy: Policy | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.strategy, self.policy = strategy, policy or Policy()
        self.settings = dict(settings or {})
        wrong = {k: v for k, v in strategy.init.items() if v not in ORIGINS}
        if wrong:
            raise ValueError(f"freeze.init: {wrong}; G and D start from one of {ORIGINS}")
        self._still: list[nn.Module] = []
        self._batch_norm: list[nn.Module] = []
        self._late: list[tuple[int, list[nn.Parameter]]] = []

    def select(self, model: nn.Module) -> list[Part]:
        """The tensors that stay; raises ValueError if G or D would have nothing to train."""
        parts = parts_of(model)
        frozen = frozen_parts(parts, self.strategy)
        at_once = [adapt for adapt in self.strategy.adapt if not adapt.from_kimg]
        begun = {p.network for adapt in at_once for p in adapted(parts, adapt)}
        for network in "GD":
            left = {p.name for p in parts if p.network == network and _is_own_parameter(p)}
            if network not in begun and not left - {p.name for p in frozen}:
                raise ValueError(f"freeze: nothing of {network} is left to train; freeze less")
        return frozen

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freeze before the optimizers exist."""
        self.apply(pl_module)

    def apply(self, model: nn.Module) -> dict[str, Any]:
        """Freeze `model` and return the record: strategy, policy, frozen share of G and of D."""
        self.select(model)
        register(model, self.strategy.adapt)
        self._late = [
            (round(adapt.from_kimg * 1000), adapter_parameters(model, adapt))
            for adapt in self.strategy.adapt
            if adapt.from_kimg
        ]
        frozen = {p.name for p in self.select(model)}
        reinitialised = getattr(model, "reinitialised", ())
        frozen = {n for n in frozen if not n.startswith(tuple(reinitialised) or "\0")}
        for name, parameter in model.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
        model.lr_factors = {
            part.name: factor
            for selector, factor in self.policy.lr.items()
            for part in select(parts_of(model), [selector])
        }
        if self.policy.path_length is False and hasattr(model, "pl_weight"):
            model.pl_weight = 0.0
        whole = [m for m in (*model.G.modules(), *model.D.modules()) if _is_frozen(m)]
        self._batch_norm = [m for m in whole if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._still = [m for m in whole if m not in self._batch_norm]
        self._keep_still(model)
        return self.record(model)

    def record(self, model: nn.Module) -> dict[str, Any]:
        """What the trial's record says of the strategy."""
        return {
            "strategy": self.settings.get("_target_", "none").rpartition(".")[2],
            **{k: v for k, v in self.settings.items() if not k.startswith("_")},
            **self.strategy.record,
            "init": dict(self.strategy.init),
            "policy": vars(self.policy),
            "frozen": [*self.strategy.freeze],
            "trained": [*self.strategy.train],
            "adapted": [adapt.on for adapt in self.strategy.adapt],
            "G": frozen_share(model.G),
            "D": frozen_share(model.D),
        }

    def on_train_batch_start(
        self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, index: int
    ) -> None:
        """Undo `model.train()` for what is frozen; begin what begins late."""
        self._keep_still(model)
        for start, parameters in self._late:
            for parameter in parameters:
                parameter.requires_grad_(model.nimg >= start)
        if self.strategy.mask:
            self.strategy.mask.begin_batch(model, trainer.optimizers)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, model: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take gradients away from the filters that a mask keeps still."""
        if self.strategy.mask:
            self.strategy.mask.before_step(model, "GD"[trainer.optimizers.index(optimizer)])

    def _keep_still(self, model: nn.Module) -> None:
        for module in self._still:
            module.eval()
        for module in self._batch_norm:
            module.train(self.policy.frozen_bn != "eval")
            module.track_running_stats = self.policy.frozen_bn != "train"


def frozen_share(network: nn.Module) -> dict[str, float]:
    """Parameters, frozen parameters, and their share of the network."""
    total = sum(p.numel() for p in network.parameters())
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    return {"parameters": total, "frozen": frozen, "share": frozen / total}


def _moves(part: Part, following: set[str]) -> bool:
    """Adapters always do, and w_avg with an adapted mapping network."""
    follows = not part.is_parameter and "mapping" in part.groups and part.network in following
    return follows or "adapter" in part.groups


def _is_own_parameter(part: Part) -> bool:
    return part.is_parameter and "adapter" not in part.groups


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)
