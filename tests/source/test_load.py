"""Loading accounts for every tensor, and copies nothing when something is unexplained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stylegan_tl.source.load import load_into
from stylegan_tl.source.portable import SourceError, SourceModel


class _Model(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.G = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.G_ema = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.D = nn.Linear(width, 1)


def _source(model: _Model, **changes: torch.Tensor | None) -> SourceModel:
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("G.")}
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return SourceModel("m", {}, 0, "d", {}, state, Path("source.ckpt"), "0")


def test_g_starts_as_the_sources_g_ema_and_every_tensor_is_counted() -> None:
    parent, child = _Model(), _Model()
    reports = load_into(child, _source(parent))
    for name, tensor in parent.G_ema.state_dict().items():
        assert torch.equal(tensor, child.G.state_dict()[name])
        assert torch.equal(tensor, child.G_ema.state_dict()[name])
    assert torch.equal(parent.D.weight, child.D.weight)
    assert {k: len(r.copied) for k, r in reports.items()} == {"G": 7, "G_ema": 7, "D": 2}
    assert reports["G"].taken_from == "G_ema"
    assert all(not r.unexplained for r in reports.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"D__bias": None}, "D: bias"),
        ({"D__extra": torch.zeros(1)}, "D: extra"),
        ({"D__weight": torch.zeros(1, 5)}, r"D: weight \(1, 5\) in the source, \(1, 3\) here"),
        ({"G_ema__0.weight": None}, "G: 0.weight"),
    ],
)
def test_what_is_unexplained_is_an_error_and_nothing_is_copied(changes: dict, said: str) -> None:
    child = _Model()
    before = {k: v.clone() for k, v in child.state_dict().items()}
    with pytest.raises(SourceError, match=said):
        load_into(child, _source(_Model(), **changes))
    assert all(torch.equal(v, before[k]) for k, v in child.state_dict().items())


def test_what_is_declared_keeps_its_fresh_initialisation() -> None:
    child = _Model()
    fresh = child.D.weight.clone()
    source = _source(_Model(), D__weight=torch.zeros(1, 5))
    reports = load_into(child, source, reinit=("D.weight",))
    assert reports["D"].reinitialised == ["weight"]
    assert torch.equal(child.D.weight, fresh)
