"""Load a source model into a built model, with a report of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["LoadReport", "load_into", "load_network"]


@dataclass
class LoadReport:
    """Where every tensor of one network came from; missing to mismatched must be empty."""

    network: str
    taken_from: str
    copied: list[str] = field(default_factory=list)
    reinitialised: list[str] = field(default_factory=list)  # by declaration
    left: list[str] = field(default_factory=list)  # in the source alone, by declaration
    missing: list[str] = field(default_factory=list)  # in the network, not in the source
    unexpected: list[str] = field(default_factory=list)  # in the source, not in the network
    mismatched: list[str] = field(default_factory=list)  # shapes differ
    classes: dict[str, str] = field(default_factory=dict)  # of the target, where each comes from
    dropped: list[str] = field(default_factory=list)  # classes of the source alone
    unused: list[str] = field(default_factory=list)  # classes of the target: the source has none

    @property
    def unexplained(self) -> list[str]:
        """What makes the load an error."""
        return self.missing + self.unexpected + self.mismatched

    def __str__(self) -> str:
        counts = (f"{len(getattr(self, k))} {k}" for k in ("copied", "reinitialised", "missing"))
        rest = f"{len(self.unexpected)} unexpected, {len(self.mismatched)} shape-mismatched"
        rest += f", {len(self.left)} left" if self.left else ""
        text = f"{self.network} from {self.taken_from}: {', '.join(counts)}, {rest}"
        origins = [f"{name}: {origin}" for name, origin in self.classes.items()]
        text += f"; classes {'; '.join(origins)}" if origins else ""
        text += f"; without {', '.join(self.dropped)}" if self.dropped else ""
        if not self.unused:
            return text
        return f"{text}; no classes, as the source: {', '.join(self.unused)} are one to it"

    def record(self) -> dict[str, Any]:
        """Plain numbers and names; the copied ones as a count."""
        return {**asdict(self), "copied": len(self.copied)}


def load_into(
    model: nn.Module,
    source: SourceModel,
    *,
    networks: Sequence[str] = ("G", "D"),
    reinit: Sequence[str] = (),
    left: Sequence[str] = (),
) -> dict[str, LoadReport]:
    """Copy the source's G_ema into `model.G` and `model.G_ema`, its D into `model.D`.

    `networks`: those of G and D that are taken; the others keep their fresh initialisation.
    `reinit`: dotted prefixes ('G.mapping.embed') that keep their fresh initialisation; `left`:
    those that the model has no place for.
    Raises SourceError, before anything is copied, when a tensor is left unexplained.
    """
    plan = {"G": "G_ema", "G_ema": "G_ema"} if "G" in networks else {}
    plan |= {"D": "D"} if "D" in networks else {}
    for origin in dict.fromkeys(plan.values()):
        if not source.state(origin):
            raise SourceError(
                f"{source.path} has no {origin}: start that network fresh, "
                f"{'freeze=init_g' if origin == 'D' else 'freeze=init_d'} in a transfer"
            )
    reports = {
        name: load_network(
            getattr(model, name), source.state(origin), name, origin, reinit, False, left
        )
        for name, origin in plan.items()
    }
    wrong = [f"{r.network}: {what}" for r in reports.values() for what in r.unexplained]
    if wrong:
        more = f" and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        raise SourceError(
            f"{source.path} does not fit the model:\n  "
            + "\n  ".join(wrong[:12])
            + more
            + "\nuse the architecture that the source was trained with, or name what to "
            "re-initialise"
        )
    for name, origin in plan.items():
        load_network(getattr(model, name), source.state(origin), name, origin, reinit, True)
    return reports


@torch.no_grad()
def load_network(
    network: nn.Module,
    state: Mapping[str, Tensor],
    name: str,
    origin: str,
    reinit: Sequence[str],
    copy: bool,
    left: Sequence[str] = (),
) -> LoadReport:
    """Compare `state` with `network`, tensor by tensor, and copy what fits if asked to."""
    report = LoadReport(name, origin)
    own = network.state_dict()
    for key, tensor in own.items():
        if any(f"{name}.{key}".startswith(prefix) for prefix in reinit):
            report.reinitialised.append(key)
        elif key not in state:
            report.missing.append(key)
        elif state[key].shape != tensor.shape:
            shapes = f"{tuple(state[key].shape)} in the source, {tuple(tensor.shape)} here"
            report.mismatched.append(f"{key} {shapes}")
        else:
            report.copied.append(key)
            if copy:
                tensor.copy_(state[key])
    for key in state.keys() - own.keys():
        full = f"{name}.{key}"
        if full.startswith(tuple(left) or "\0"):
            report.left.append(key)
        elif not full.startswith(tuple(reinit) or "\0"):
            report.unexpected.append(key)
    report.left.sort()
    report.unexpected.sort()
    return report
