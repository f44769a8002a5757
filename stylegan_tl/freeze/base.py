"""Freezing acts on a built model from outside: no gradient, no statistics, no motion."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import nn

__all__ = ["Freeze", "frozen_share"]


class Freeze(pl.Callback):
    """A strategy: a subclass names the frozen modules, this class keeps them still.

    The set is computed once, before the optimizers are built. Parameters lose
    `requires_grad`, and modules stay in eval mode, so that BatchNorm statistics and `w_avg`
    do not move either. The optimizers still list every parameter and skip those without a
    gradient, so a checkpoint has one form under every strategy.
    """

    names: tuple[str, ...] = ()  # what `apply` found

    def select(self, model: pl.LightningModule) -> list[str]:
        """Dotted names ('D.b64', 'G.mapping') of the modules or parameters that stay."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The strategy's own numbers, for the record."""
        return {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freeze before the optimizers exist."""
        self.apply(pl_module)

    def apply(self, model: pl.LightningModule) -> dict[str, Any]:
        """Freeze `model` and return the record: settings, names, frozen share of G and of D."""
        self.names = tuple(self.select(model))
        for name in self.names:
            _get(model, name).requires_grad_(False)
        self._keep_still(model)
        return {
            "strategy": type(self).__name__,
            **self.settings(),
            "frozen": list(self.names),
            "G": frozen_share(model.G),
            "D": frozen_share(model.D),
        }

    def on_train_batch_start(
        self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, index: int
    ) -> None:
        """Undo `model.train()` for what is frozen."""
        self._keep_still(model)

    def _keep_still(self, model: pl.LightningModule) -> None:
        for name in self.names:
            part = _get(model, name)
            if isinstance(part, nn.Module):
                part.eval()


def frozen_share(network: nn.Module) -> dict[str, float]:
    """Parameters, frozen parameters, and their share of the network."""
    total = sum(p.numel() for p in network.parameters())
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    return {"parameters": total, "frozen": frozen, "share": frozen / total}


def _get(model: nn.Module, name: str) -> nn.Module | nn.Parameter:
    parent, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(parent), leaf)
