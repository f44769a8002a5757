"""Freezing acts on a built model from outside: no gradient, no statistics, no motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from stylegan_tl.freeze.adapt import adapted, adapter_names, register
from stylegan_tl.freeze.add_category import check_classes, keep_old_rows
from stylegan_tl.freeze.anchor.base import Anchor, Source
from stylegan_tl.freeze.groups import Part, parts_of
from stylegan_tl.freeze.selectors import select
from stylegan_tl.freeze.staged import Gradual, Schedule, Stage, enter
from stylegan_tl.freeze.strategy import ORIGINS, Policy, Strategy

__all__ = ["Freeze", "additions", "freeze_of", "frozen_parts", "frozen_share"]


def freeze_of(config: Mapping[str, Any]) -> Freeze:
    """What the configuration group `freeze` describes, with its policy, anchors and schedule."""
    own = {k: v for k, v in config.items() if k not in ("policy", "anchor", "schedule")}
    anchors = [_made(anchor) for anchor in config.get("anchor", {}).values()]
    schedule = _made(config["schedule"]) if config.get("schedule") else None
    return Freeze(_made(own), Policy(**config.get("policy", {})), config, anchors, schedule)


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
    a module all of whose parameters are frozen, or that has frozen statistics alone, stays in eval
    mode, so that `w_avg` does not move either, and batch normalisation follows the policy. The
    optimizers still list every parameter and skip those without a gradient, so a checkpoint has one
    form under every strategy but those that adapt: there the frozen tensors have their changes
    beside them (networks/adapters.py).
    Anchors become the model's penalties; a schedule narrows what trains, by the model's clock.
    """

    def __init__(
        self,
        strategy: Strategy,
        policy: Policy | None = None,
        settings: Mapping[str, Any] | None = None,
        anchors: Sequence[Anchor] = (),
        schedule: Schedule | Gradual | None = None,
    ) -> None:
        self.strategy, self.policy = strategy, policy or Policy()
        self.settings, self.anchors = dict(settings or {}), tuple(anchors)
        self._planned = schedule or Schedule()
        self.schedule = Schedule()  # of the model, once there is one
        self._source: Source | None = None
        self._phase: tuple[Stage | None, frozenset[str]] = (None, frozenset())
        self._allowed: set[str] = set()  # what trains when no stage says otherwise
        self._frozen: frozenset[str] = frozenset()
        wrong = {k: v for k, v in strategy.init.items() if v not in ORIGINS}
        if wrong:
            raise ValueError(f"freeze.init: {wrong}; G and D start from one of {ORIGINS}")
        if strategy.objective and (self.anchors or self._planned != Schedule()):
            raise ValueError(
                "freeze: a strategy without an adversarial game takes no freeze/anchor and no "
                "freeze/schedule; leave them out"
            )
        self._still: list[nn.Module] = []
        self._batch_norm: list[nn.Module] = []
        self._kept_moving: list[str] = []  # would be frozen, but has what no source gave
        self._late: dict[str, int] = {}  # adapter -> the nimg from which it trains

    def select(self, model: nn.Module) -> list[Part]:
        """The tensors that stay; raises ValueError if G or D would have nothing to train."""
        parts = parts_of(model)
        if self.strategy.adds_classes:
            check_classes(model)
        frozen = frozen_parts(parts, self.strategy)
        at_once = [adapt for adapt in self.strategy.adapt if not adapt.from_kimg]
        begun = {p.network for adapt in at_once for p in adapted(parts, adapt)}
        for network in "G" if self.strategy.objective else "GD":
            left = {p.name for p in parts if p.network == network and _is_own_parameter(p)}
            if network not in begun and not left - {p.name for p in frozen}:
                raise ValueError(f"freeze: nothing of {network} is left to train; freeze less")
        if self.strategy.objective:
            self.strategy.objective.check(model)
        for anchor in self.anchors:
            _check_anchored(anchor, self.strategy)
            anchor.check(model)
        changed = {p.name for adapt in self.strategy.adapt for p in adapted(parts, adapt)}
        self.schedule = self._planned.of(parts, [p.name for p in frozen if p.name not in changed])
        return frozen

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freeze before the optimizers exist."""
        self.apply(pl_module)

    def apply(self, model: nn.Module) -> dict[str, Any]:
        """Freeze `model` and return the record: strategy, policy, frozen share of G and of D."""
        self._anchor(model)
        self.select(model)
        register(model, self.strategy.adapt)
        self._late = {
            name: round(adapt.from_kimg * 1000)
            for adapt in self.strategy.adapt
            if adapt.from_kimg
            for name in adapter_names(model, adapt)
        }
        frozen = {p.name for p in self.select(model)}
        new = tuple(getattr(model, "reinitialised", ())) or ("\0",)
        self._kept_moving = sorted(n for n in frozen if n.startswith(new))
        frozen -= set(self._kept_moving)
        self._frozen = frozenset(frozen)
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
        if self.strategy.objective and model.objective is None:
            model.objective = self.strategy.objective(model)
        self._allowed |= {n for n, p in model.named_parameters() if p.requires_grad}
        self._find_still(model)
        return self.record(model)

    def record(self, model: nn.Module) -> dict[str, Any]:
        """What the trial's record says of the strategy."""
        return {
            "strategy": self.settings.get("_target_", "none").rpartition(".")[2],
            **{k: v for k, v in self.settings.items() if not k.startswith("_")},
            **self.strategy.record,
            "init": dict(self.strategy.init),
            "policy": vars(self.policy),
            "anchor": self.settings.get("anchor", {}),
            "schedule": self.schedule.record(),
            "frozen": [*self.strategy.freeze],
            "trained": [*self.strategy.train],
            "adapted": [adapt.on for adapt in self.strategy.adapt],
            "kept_moving": self._kept_moving,
            "G": frozen_share(model.G),
            "D": frozen_share(model.D),
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the source's copy to the device; let anchors estimate what they need."""
        if self._source is not None:
            self._source.to(pl_module.device)
        for anchor in self.anchors:
            anchor.prepare(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What anchors estimated; nothing under most strategies."""
        return {a.name: a.state for a in self.anchors if a.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give it back to them."""
        for anchor in self.anchors:
            if anchor.name in state:
                anchor.load(state[anchor.name])

    def on_train_batch_start(
        self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, index: int
    ) -> None:
        """Begin a stage, or what begins late, in time; undo `model.train()` for the frozen."""
        waiting = frozenset(name for name, start in self._late.items() if model.nimg < start)
        phase = (self.schedule.at(model.nimg), waiting)
        if phase != self._phase:
            self._phase = phase
            enter(model, phase[0], self._allowed, trainer.optimizers, waiting)
            self._find_still(model)
        self._keep_still(model)
        if self.strategy.mask:
            self.strategy.mask.begin_batch(model, trainer.optimizers)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, model: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take gradients away from what a mask keeps still, and from old rows of frozen tables."""
        network = "GD"[trainer.optimizers.index(optimizer)]
        if self._kept_moving:
            keep_old_rows(model, network, self._kept_moving)
        if self.strategy.mask:
            self.strategy.mask.before_step(model, network)

    def _anchor(self, model: nn.Module) -> None:
        """Copy the source once: the model may have moved when it is applied again."""
        if self.anchors and self._source is None:
            self._source = Source.of(model)
        for anchor in self.anchors:
            anchor.source = self._source
        model.penalties = self.anchors

    def _find_still(self, model: nn.Module) -> None:
        """Wake all of G and D, then put to rest the modules of which nothing trains now."""
        modules = [*model.G.train().modules(), *model.D.train().modules()]
        for module in modules:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.track_running_stats = True
        whole = [m for m in modules if _is_frozen(m)]
        self._batch_norm = [m for m in whole if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._still = [m for m in whole if m not in self._batch_norm]
        self._still += [
            m for name, m in model.named_modules() if _is_counter(m, name, self._frozen)
        ]
        self._keep_still(model)

    def _keep_still(self, model: nn.Module) -> None:
        for module in self._still:
            module.eval()
        for module in self._batch_norm:
            module.train(self.policy.frozen_bn != "eval")
            module.track_running_stats = self.policy.frozen_bn != "train"


def additions(record: dict[str, Any]) -> list[str]:
    """What a record says of anchors, stages and what must train, a line each for a person."""
    moving = record.get("kept_moving")
    return [
        *([f"trains all the same, new to the source: {', '.join(moving)}"] if moving else []),
        *(
            f"anchor {name}: {', '.join(f'{k} {v}' for k, v in own.items() if k != '_target_')}"
            for name, own in record["anchor"].items()
        ),
        *(
            f"until {stage['until_kimg']:g} kimg only: {', '.join(stage['train'])}"
            for stage in record["schedule"]
        ),
    ]


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


def _made(config: Mapping[str, Any]) -> Any:
    try:
        return instantiate(config, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None  # its own words


def _check_anchored(anchor: Anchor, strategy: Strategy) -> None:
    """An anchor holds to a source: there must be one."""
    for network in anchor.networks:
        if strategy.init.get(network) != "source":
            raise ValueError(
                f"freeze/anchor={anchor.name} compares {network} with the source's, and this "
                f"strategy starts {network} from scratch: leave the anchor out"
            )


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _is_counter(module: nn.Module, path: str, frozen: frozenset[str]) -> bool:
    """Whether it has statistics and no parameters, and all that it has is frozen."""
    names = [f"{path}.{name}" for name in module.state_dict()]
    return bool(names) and not any(True for _ in module.parameters()) and frozen.issuperset(names)
