"""The bundled bedroom model is what the default command finds, and what it is worth."""

from __future__ import annotations

import pytest
import torch

from stylegan_tl.config import pretrain_config
from stylegan_tl.restore import restore
from stylegan_tl.runner import run_trial
from stylegan_tl.source.obtain import BUNDLED, find_source
from stylegan_tl.source.portable import read_model
from stylegan_tl.study.trial import Trial


def test_the_default_command_finds_it(compose, tmp_path) -> None:
    config = pretrain_config(compose([]))
    path = find_source(config, tmp_path)
    assert path is not None
    assert path.parent == BUNDLED
    assert path.stat().st_size <= 6_000_000
    source = read_model(path)
    assert source.dataset == "rooms/bedroom"
    assert source.nimg == 1000 * config["kimg"]
    assert {k: source.network[k] for k in config["model"]["network"]} == config["model"]["network"]


def test_it_draws_different_pictures_that_are_not_noise(compose, tmp_path) -> None:
    """Neighbouring pixels agree and latents differ: neither noise nor a collapsed model."""
    model, _ = restore(find_source(pretrain_config(compose([])), tmp_path))
    z = torch.randn(8, model.G.z_dim, generator=torch.Generator().manual_seed(0))
    images = model.sample(z, **model.still).float()
    smooth = (images[..., 1:] - images[..., :-1]).abs().mean()
    spread = images.std(dim=0).mean()
    assert spread > 2 * smooth


@pytest.mark.slow
def test_its_transfer_to_kitchens_beats_scratch_at_equal_kimg(compose, cache, tmp_path) -> None:
    fid = {}
    for source in ("rooms/bedroom", "scratch"):
        overrides = [f"source={source}", f"cache={cache}", "kimg=0.4", "kimg_per_tick=0.4"]
        overrides += ["target.size=300", "metric.names=[fid300_train_small]", "metric.best=null"]
        config = compose([*overrides, "logger=none", "seed=1"])
        folder = tmp_path / source
        assert run_trial(config, folder, choices={"source": source}) == 0
        trial = Trial.load(folder / "trial.json")
        fid[source] = trial.metrics["fid300_train_small"]["final"]["value"]
    assert fid["rooms/bedroom"] < 0.8 * fid["scratch"]
