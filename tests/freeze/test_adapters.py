"""Adapters: identity at first, merged to the same function, the source recoverable, resumable."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn.utils import parametrize

from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.networks import adapters
from stylegan_tl.restore import restore
from stylegan_tl.runner import run_trial
from stylegan_tl.source.portable import read_model, write_portable
from stylegan_tl.study.trial import Trial

# option -> the overrides that make it begin, and its models
ADAPTED = {
    "lora": ([], ["stylegan2_small", "dcgan"]),
    "kml": (["freeze.D=true"], ["stylegan2_small", "dcgan"]),
    "style_offset": ([], ["stylegan2_small"]),
    "adafm": (["freeze.from_kimg=0.016", "freeze.per=filter"], ["stylegan2_small", "dcgan"]),
    "adafm_all": ([], ["dcgan"]),
    "svd": ([], ["stylegan2_small", "dcgan"]),
    "scale_shift": ([], ["dcgan"]),
    "adam": (["freeze.probe_kimg=0.008"], ["stylegan2_small", "dcgan"]),
    "rick": (["freeze.every_kimg=0.008", "freeze.prune=0.1"], ["stylegan2_small", "dcgan"]),
}
CASES = [(option, name) for option, (_, names) in ADAPTED.items() for name in names]


def _kinds(weight: torch.Tensor) -> dict[str, nn.Module]:
    generator = torch.Generator().manual_seed(0)
    return {
        "lora": adapters.LowRank(weight, 2, generator),
        "kml": adapters.KernelModulation(weight, generator),
        "offset": adapters.Offset(weight),
        "adafm pair": adapters.FilterModulation(weight, None),
        "adafm filter": adapters.FilterModulation(weight, 1),
        "svd": adapters.SingularValues(weight),
        "masked": adapters.MaskedFilters(weight, 0, False, generator),
        "masked kml": adapters.MaskedFilters(weight, 1, True, generator),
    }


@pytest.mark.parametrize("kind", list(_kinds(torch.ones(3, 3))))
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (6, 5)])
def test_an_adapter_is_the_identity_and_folds_to_what_it_computes(kind: str, shape) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.randn(shape, generator=generator))
    before = copy.deepcopy(layer.state_dict())
    parametrize.register_parametrization(layer, "weight", _kinds(layer.weight)[kind])
    assert torch.equal(layer.weight, before["weight"])
    for parameter in layer.parametrizations.weight[0].parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    state = layer.state_dict()
    folded, unfolded = adapters.fold(state), adapters.unfold(state)
    assert folded.keys() == unfolded.keys() == before.keys()
    assert torch.equal(folded["weight"], layer.weight)
    assert not torch.allclose(folded["weight"], before["weight"])
    assert torch.equal(unfolded["weight"], before["weight"])


def test_adapters_compute_their_formulas() -> None:
    """Against einsum and the singular values of NumPy's own decomposition."""
    import numpy as np

    generator = torch.Generator().manual_seed(2)
    weight, draw = torch.randn(4, 3, 3, 3, generator=generator), torch.Generator().manual_seed(3)
    kind = _kinds(weight)
    for module in kind.values():
        for parameter in module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw)
    low, kml = kind["lora"], kind["kml"]
    expected = weight + torch.einsum("or,rx->ox", low.up, low.down).reshape(4, 3, 3, 3)
    torch.testing.assert_close(low(weight), expected)
    scale = 1 + torch.einsum("o,i->oi", kml.u.flatten(), kml.v.flatten())
    torch.testing.assert_close(kml(weight), torch.einsum("oi,oixy->oixy", scale, weight))
    delta = 0.1 * torch.rand(4, generator=draw)
    kind["svd"].delta.data = delta
    ours = np.linalg.svd(kind["svd"](weight).detach().flatten(1).numpy(), compute_uv=False)
    source = np.linalg.svd(weight.flatten(1).numpy(), compute_uv=False)
    np.testing.assert_allclose(ours, np.sort(source * (1 + delta.numpy()))[::-1], rtol=1e-5)


def test_an_unknown_adapter_is_an_error() -> None:
    state = {"a.parametrizations.weight.original": 0, "a.parametrizations.weight.0.other": 0}
    with pytest.raises(ValueError, match=r"a.weight: no adapter has the tensors other"):
        adapters.fold(state)


def test_a_model_adapted_twice_is_adapted_once(compose, tiny_overrides) -> None:
    config = compose(tiny_overrides("dcgan", "freeze=lora"))
    model = instantiate(config["model"], seed=0, _convert_="all")
    freeze = freeze_of(config["freeze"])
    first = freeze.apply(model)
    names = list(model.state_dict())
    assert freeze.apply(model) == first
    assert list(model.state_dict()) == names
    own, average = model.G.state_dict(), model.G_ema.state_dict()
    assert all(torch.equal(own[k], average[k]) for k in own)
    assert not any(p.requires_grad for p in model.G_ema.parameters())


class _Images(torch.utils.data.IterableDataset):
    """Six batches, from `first` on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self):
        for i in range(self.first, 6):
            image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(i)) * 2 - 1
            yield {"image": image, "label": torch.zeros(4, 0)}


class _Save(pl.Callback):
    def __init__(self, path: Path, nimg: int) -> None:
        self.path, self.nimg = path, nimg

    def on_train_batch_end(self, trainer, model, *_) -> None:
        if model.nimg == self.nimg:
            trainer.save_checkpoint(self.path)


def _train(config: dict, half: Path, resume: bool) -> pl.LightningModule:
    """Six iterations, saved after the third, or the last three of them from there."""
    model = instantiate(config["model"], seed=0, _convert_="all")
    freeze = freeze_of(config["freeze"])
    freeze.apply(model)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[freeze, _Save(half, 12)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.DataLoader(_Images(3 if resume else 0), batch_size=None)
    trainer.fit(model, data, ckpt_path=half if resume else None)
    assert model.nimg == 24
    return model


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*in eval mode.*",
    "ignore:.*dataloader is not resumable.*",
    "ignore:.*resuming from a checkpoint that ended.*",
)
@pytest.mark.parametrize(("strategy", "name"), CASES)
def test_half_way_killed_is_uninterrupted_and_merged_is_the_same_function(
    compose, tiny_overrides, tmp_path, strategy: str, name: str
) -> None:
    more = ADAPTED[strategy][0]
    config = compose(tiny_overrides(name, f"freeze={strategy}", *more))
    whole = _train(config, tmp_path / "half.ckpt", resume=False)
    halves = _train(config, tmp_path / "half.ckpt", resume=True)
    state, other = whole.state_dict(), halves.state_dict()
    assert state.keys() == other.keys()
    assert not [key for key in state if not torch.equal(state[key], other[key])]
    plain = instantiate(config["model"], seed=0, _convert_="all")
    plain.load_state_dict(adapters.fold(state))
    z = torch.randn(2, whole.G.z_dim, generator=torch.Generator().manual_seed(0))
    ours, theirs = (m.eval().G_ema(z, **m.still) for m in (whole, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    source = instantiate(config["model"], seed=0, _convert_="all").G.state_dict()
    recovered = adapters.unfold(whole.G.state_dict())
    frozen = {p.name[2:] for p in freeze_of(config["freeze"]).select(plain) if p.network == "G"}
    assert frozen
    assert all(torch.equal(source[k], recovered[k]) for k in frozen)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
def test_what_begins_late_begins_at_its_nimg(compose, tiny_overrides, tmp_path) -> None:
    late = "freeze.from_kimg=0.016"
    config = compose(tiny_overrides("dcgan", "freeze=adafm", late))
    model = _train(config, tmp_path / "half.ckpt", resume=False)
    checkpoint = torch.load(tmp_path / "half.ckpt", weights_only=True)
    half, names = checkpoint["state_dict"], [n for n, _ in model.G.named_parameters()]
    own = [i for i, name in enumerate(names) if adapters.is_adapter(name)]
    assert len(own) == 2  # of b16: 32 px is the layer to RGB
    assert all(half[f"G.{names[i]}"].eq(0).all() for i in own)
    assert not set(own) & checkpoint["optimizer_states"][0]["state"].keys()
    assert all(model.G.get_parameter(names[i]).ne(0).any() for i in own)
    optimizer = model.optimizers()[0]
    steps = {int(optimizer.state[model.G.get_parameter(names[i])]["step"]) for i in own}
    assert steps == {2}  # of six iterations, those at 16 and 20 images


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*in eval mode.*",
    "ignore:.*dataloader is not resumable.*",
    "ignore:.*resuming from a checkpoint that ended.*",
)
@pytest.mark.parametrize("strategy", ["adafm", "lora"])
def test_adapters_compose_with_stages_and_anchors_and_resume(
    compose, tiny_overrides, tmp_path, strategy: str
) -> None:
    """Until 8 images D's head alone trains; until 16 G's convolutions, changes with them."""
    stages = "[{until_kimg: 0.008, train: [D.head]}, {until_kimg: 0.016, train: [G.conv]}]"
    more = ["freeze/schedule=stages", f"freeze.schedule.stages={stages}", "freeze/anchor=[l2_sp]"]
    more += ["freeze.from_kimg=0.016"] if strategy == "adafm" else []
    config = compose(tiny_overrides("stylegan2_small", f"freeze={strategy}", *more))
    whole = _train(config, tmp_path / "half.ckpt", resume=False)
    optimizer = whole.optimizers()[0]
    steps = {
        int(optimizer.state[p]["step"])
        for name, p in whole.G.named_parameters()
        if adapters.is_adapter(name) and "affine" not in name
    }
    # main and path length: two iterations fewer, four with the delay; the lazy step is every second
    assert steps == ({3} if strategy == "adafm" else {6})
    halves = _train(config, tmp_path / "half.ckpt", resume=True)
    state, other = whole.state_dict(), halves.state_dict()
    assert not [key for key in state if not torch.equal(state[key], other[key])]


def test_what_begins_late_cannot_be_all_there_is(compose, tiny_overrides) -> None:
    config = compose(tiny_overrides("dcgan", "freeze=adafm", "freeze.from_kimg=1"))
    freeze = freeze_of(config["freeze"])
    model = instantiate(config["model"], seed=0, _convert_="all")
    freeze.strategy = replace(freeze.strategy, freeze=("G",))
    with pytest.raises(ValueError, match="nothing of G is left to train"):
        freeze.select(model)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize("name", ["stylegan2_small", "dcgan"])
def test_filters_above_the_fisher_quantile_stay_and_the_least_are_pruned(
    compose, tiny_overrides, tmp_path, name: str
) -> None:
    draw = ["freeze=rick", "freeze.quantile=0.6", "freeze.prune=0.2", "freeze.every_kimg=0.012"]
    model = _train(compose(tiny_overrides(name, *draw)), tmp_path / "half.ckpt", resume=False)
    for network in (model.G, model.D):
        own = [m for m in network.modules() if isinstance(m, adapters.MaskedFilters)]
        count = sum(m.mask.numel() for m in own)
        assert sum(m.mask.sum() for m in own) == pytest.approx(0.4 * count, abs=1)
        assert sum((1 - m.keep).sum() for m in own) == pytest.approx(0.2 * count, abs=1)
        for m in own:  # drawn before the fourth iteration, where nothing had moved yet
            stays = ((m.mask == 1) | (m.keep == 0)).expand_as(m.delta)
            assert m.delta[stays].eq(0).all()
            assert m.delta[~stays].ne(0).any() or stays.all()
    folded = adapters.fold(model.D.state_dict())
    keeps = {n: b for n, b in model.D.named_buffers() if n.endswith(".keep")}
    assert any(keep.eq(0).any() for keep in keeps.values())
    for name, keep in keeps.items():
        assert folded[adapters.plain_name(name)][(keep == 0).flatten()].eq(0).all()


def test_a_mask_is_not_drawn_of_what_was_not_measured(compose, tiny_overrides) -> None:
    config = compose(tiny_overrides("dcgan", "freeze=adam", "freeze.probe_kimg=0.004"))
    model = instantiate(config["model"], seed=0, _convert_="all")
    freeze = freeze_of(config["freeze"])
    freeze.apply(model)
    model.nimg = 4
    freeze.strategy.mask.begin_batch(model, model.configure_optimizers())
    masks = [b for name, b in model.named_buffers() if name.endswith(".mask")]
    assert all(mask.eq(1).all() for mask in masks)
    for option, value in (("quantile", 1), ("probe_kimg", 0)):
        with pytest.raises(ValueError, match="freeze"):
            freeze_of({**config["freeze"], option: value})


def test_an_adapted_run_is_read_as_a_plain_model_and_gives_its_source_back(
    compose, tiny_overrides, tmp_path, cache
) -> None:
    config = compose(tiny_overrides("dcgan", "freeze=lora"))
    assert run_trial(config, tmp_path, choices={"freeze": "lora"}) == 0
    used = Trial.load(tmp_path / "trial.json").source
    merged, source = restore(tmp_path)
    assert not any(adapters.is_adapter(k) for k in (*merged.state_dict(), *source.tensors))
    assert merged.sample(torch.zeros(1, merged.G.z_dim)).shape == (1, 3, 32, 32)
    write_portable(source, tmp_path / "merged.safetensors")
    assert read_model(tmp_path / "merged.safetensors").tensors.keys() == source.tensors.keys()
    parents = (read_model(p) for p in (cache / "sources").glob("*/last.ckpt"))
    parent = next(p for p in parents if p.sha256 == used["sha256"]).state("G_ema")
    recovered = read_model(tmp_path, adapters=False).state("G_ema")
    assert parent.keys() == recovered.keys()
    assert all(torch.equal(parent[k], recovered[k]) for k in parent)
    assert not torch.equal(source.state("G_ema")["b8.0.weight"], parent["b8.0.weight"])
