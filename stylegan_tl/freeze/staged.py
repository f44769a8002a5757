"""Staged training: what trains changes with the images seen, then all that the strategy lets move.

What: stages, each a list of selectors that train until so many kimg; everything else of G and of D
rests. After the last stage the strategy alone decides. What the strategy freezes stays frozen in
every stage. A network of which nothing trains is not stepped at all.
Why: a new head on old features gives bad gradients at first (RICK, Zhao et al. 2023, trains D's
head alone for 250 iterations); gradual unfreezing is ULMFiT's (Howard & Ruder 2018, section 3.3).
Of GANs nobody seems to have published it.
When: head_warmup for far targets and small ones; low_to_high where the layout must change first,
high_to_low where texture is what differs.
Values: a warm-up of 1-4 kimg; stages of about a tenth of the budget.
Costs: nothing, early stages are cheaper. Optimiser state of what stops training is dropped, so
that what starts again starts anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from stylegan_tl.freeze.groups import Part, parts_of
from stylegan_tl.freeze.selectors import select

__all__ = ["Gradual", "Schedule", "Stage", "enter", "gradual", "stages", "warm_up"]

_ORDERS = ("low_to_high", "high_to_low")


@dataclass(frozen=True)
class Stage:
    """Until `until_kimg` only what `train` selects trains."""

    until_kimg: float
    train: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """Stages, one after the other; none means that the strategy decides from the start."""

    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        ends = [0, *(stage.until_kimg for stage in self.stages)]
        if any(a >= b for a, b in zip(ends, ends[1:], strict=False)):
            raise ValueError(
                f"freeze.schedule: stages end at {ends[1:]} kimg; use numbers above 0 that rise"
            )

    def at(self, nimg: int) -> Stage | None:
        """The stage of the iteration that starts at `nimg` images; None after the last."""
        return next((s for s in self.stages if nimg < s.until_kimg * 1000), None)

    def of(self, parts: Sequence[Part], frozen: Iterable[str]) -> Schedule:
        """The schedule of a model of these parts, of which a strategy keeps the `frozen`.

        Raises ValueError if a selector matches nothing, or a stage has nothing to train.
        """
        still = set(frozen)
        for stage in self.stages:
            chosen = select(parts, stage.train)
            if not [p for p in chosen if p.is_parameter and p.name not in still]:
                raise ValueError(
                    f"freeze.schedule: until {stage.until_kimg:g} kimg nothing trains: the "
                    f"strategy freezes all of {', '.join(stage.train)}"
                )
        return self

    def record(self) -> list[dict[str, Any]]:
        """Plain numbers and names."""
        return [{**asdict(stage), "train": [*stage.train]} for stage in self.stages]


@dataclass(frozen=True)
class Gradual:
    """One more resolution every `every_kimg`, at those that the blocks of a model have."""

    order: str
    every_kimg: float
    networks: tuple[str, ...]

    def of(self, parts: Sequence[Part], frozen: Iterable[str]) -> Schedule:
        """The schedule of a model of these parts; raises ValueError as `Schedule.of` does."""
        low_first = self.order == "low_to_high"
        leading = "G" if "G" in self.networks else "D"
        own = {p.resolution for p in parts if p.network == leading and "block" in p.groups}
        if leading == "D":
            own.add(4)  # the head
        sizes = sorted(size for size in own if size)
        edges = sizes[:-1] if low_first else sizes[:0:-1]
        found = [
            [x for n in "GD" for x in _thawed(n, edge, low_first, n in self.networks)]
            for edge in edges
        ]
        made = [Stage((i + 1) * self.every_kimg, tuple(train)) for i, train in enumerate(found)]
        return Schedule(tuple(made)).of(parts, frozen)


def stages(stages: Sequence[Mapping[str, Any]]) -> Schedule:
    """A schedule of the user's own: a list of {until_kimg: …, train: [selectors]}.

    Raises ValueError for an empty list, or for an entry of another form.
    """
    if not stages or any(set(s) != {"until_kimg", "train"} for s in stages):
        raise ValueError(
            f"freeze.schedule.stages={[*stages]}: write a list such as "
            "[{until_kimg: 1, train: [D.head]}, {until_kimg: 2, train: [G.mapping, D]}]"
        )
    return Schedule(tuple(Stage(float(s["until_kimg"]), tuple(s["train"])) for s in stages))


def warm_up(kimg: float, train: Sequence[str]) -> Schedule:
    """Only what `train` selects for the first `kimg`, then everything."""
    return Schedule((Stage(float(kimg), tuple(train)),))


def gradual(order: str, every_kimg: float, networks: Sequence[str] = ("G",)) -> Gradual:
    """One more resolution every `every_kimg`, from the lowest up or from the image down.

    The resolutions are those of G's blocks, of D's where `networks` names D alone. Of G the mapping
    network comes with the lowest. Of D the head trains throughout. A network that `networks` does
    not name trains as a whole.
    """
    if order not in _ORDERS:
        raise ValueError(f"freeze.schedule.order={order}: use one of {', '.join(_ORDERS)}")
    if not set(networks) or not set(networks) <= {"G", "D"}:
        raise ValueError(f"freeze.schedule.networks={[*networks]}: use [G], [D] or [G,D]")
    if not every_kimg > 0:
        raise ValueError(f"freeze.schedule.every_kimg={every_kimg}: use a number above 0")
    return Gradual(order, every_kimg, tuple(networks))


def enter(
    model: nn.Module,
    stage: Stage | None,
    allowed: set[str],
    optimizers: Iterable[torch.optim.Optimizer],
    waiting: frozenset[str] = frozenset(),
) -> None:
    """Let of the `allowed` parameters those train that `stage` selects; forget the others' state.

    What no source model gave (`model.reinitialised`) trains in every stage; `waiting` names what
    does not train yet, whatever the stage.
    """
    chosen = allowed
    if stage is not None:
        names = {part.name for part in select(parts_of(model), stage.train)}
        new = tuple(model.reinitialised) or "\0"
        chosen = {n for n in allowed if n in names or n.startswith(new)}
    chosen = chosen - waiting
    for name, parameter in model.named_parameters():
        if name in allowed:
            parameter.requires_grad_(name in chosen)
            if name not in chosen:
                parameter.grad = None
    for optimizer in optimizers:
        for parameter in [p for p in optimizer.state if not p.requires_grad]:
            del optimizer.state[parameter]


def _thawed(network: str, edge: int, low_first: bool, gradually: bool) -> list[str]:
    if not gradually:
        return [network]
    blocks = f"{network}.block@res:{f'..{edge}' if low_first else f'{edge}..'}"
    if network == "G":
        return [*(["G.mapping?", "G.embed?"] if low_first else []), blocks]
    head_alone = low_first and edge < 8
    return ["D.head", "D.mapping?", *([] if head_alone else [blocks])]
