"""The miner of MineGAN: identity at the start, in the checkpoint, resumed, carried on."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.restore import restore
from stylegan_tl.runner import run_trial
from stylegan_tl.study.trial import Trial

MODELS = ["stylegan2_small", "dcgan"]


@pytest.mark.parametrize("name", MODELS)
def test_a_miner_starts_as_the_identity(compose, tiny_overrides, name: str) -> None:
    config = compose(tiny_overrides(name))
    network = config["model"]["network"]
    with_miner = instantiate(config["model"], network={**network, "miner": True}, _convert_="all")
    plain = instantiate(config["model"], _convert_="all")
    rest = plain.G.load_state_dict(with_miner.G.state_dict(), strict=False)
    assert not rest.missing_keys
    assert all("miner." in key for key in rest.unexpected_keys)
    assert len(rest.unexpected_keys) == 4
    z, how = torch.randn(4, 8), {"noise": "none"} if name == "stylegan2_small" else {}
    assert torch.equal(with_miner.G.eval()(z, **how), plain.G.eval()(z, **how))
    with torch.no_grad():
        (miner,) = [m for m in with_miner.G.modules() if type(m).__name__ == "Miner"]
        miner.last.bias += 1
    assert not torch.equal(with_miner.G(z, **how), plain.G(z, **how))


@pytest.mark.parametrize("name", MODELS)
def test_minegan_resumes_and_its_run_is_a_source(
    compose, tiny_overrides, tmp_path, monkeypatch, name: str
) -> None:
    from stylegan_tl.models.adversarial import AdversarialModel

    more = ["freeze=minegan", "freeze.schedule.kimg=0.016", "freeze/anchor=[l2_sp]"]
    config = compose(tiny_overrides(name, *more))
    run_trial(config, tmp_path / "whole", choices={})
    original = AdversarialModel.training_step

    def step(self, batch, index):
        if self.nimg == 20:
            monkeypatch.undo()
            raise RuntimeError("as if killed")
        return original(self, batch, index)

    monkeypatch.setattr(AdversarialModel, "training_step", step)
    with pytest.raises(RuntimeError, match="as if killed"):
        run_trial(config, tmp_path / "parts", choices={})
    assert run_trial(config, tmp_path / "parts", choices={}) == 0
    one, other = (
        torch.load(tmp_path / f / "last.ckpt", weights_only=True)["state_dict"]
        for f in ("whole", "parts")
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    report = Trial.load(tmp_path / "whole" / "trial.json").load_report["G"]
    assert len(report["reinitialised"]) == 4
    assert all("miner." in key for key in report["reinitialised"])
    model, _ = restore(tmp_path / "whole")
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    assert model.sample(z, **model.still).shape == (2, 3, 32, 32)
    more = ["freeze=freeze_d_1", f"source.checkpoint={tmp_path / 'whole'}"]
    config = compose(tiny_overrides(name, *more, source="checkpoint"))
    assert run_trial(config, tmp_path / "child", choices={}) == 0
    assert Trial.load(tmp_path / "child" / "trial.json").load_report["G"]["reinitialised"] == []


def test_a_schedule_for_a_miner_needs_one(compose, tiny_overrides) -> None:
    config = compose(tiny_overrides("dcgan", "freeze/schedule=miner_first"))
    with pytest.raises(ValueError, match="this model's G has no miner .*freeze=miner"):
        freeze_of(config["freeze"]).select(instantiate(config["model"], _convert_="all"))
