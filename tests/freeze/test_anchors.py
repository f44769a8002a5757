"""Anchors: each equation against another way to compute it, and each in training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy.special import rel_entr, softmax

from stylegan_tl.freeze.anchor.base import Source, blocks, features
from stylegan_tl.freeze.anchor.cdc import consistency
from stylegan_tl.freeze.anchor.ewc import fisher
from stylegan_tl.freeze.anchor.feature_distillation import feature_distance
from stylegan_tl.freeze.anchor.l2_sp import quadratic
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.freeze.selectors import NotApplicable
from stylegan_tl.runner import run_trial

EVERYWHERE = ["l2_sp", "ewc", "feature_distillation", "cdc"]
ALL = [*EVERYWHERE, "fix_noise", "structure"]
MODELS = ["stylegan2_small", "dcgan"]
PAIRS = [(a, m) for a in ALL for m in MODELS if a in EVERYWHERE or m == "stylegan2_small"]
FEW = "freeze.anchor.ewc.samples=3"


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def made(compose, tiny_overrides):
    """`made(model, *overrides) -> (model, freeze)`, the strategy not yet applied."""

    def make(name: str, *more: str):
        config = compose(tiny_overrides(name, *more))
        return instantiate(config["model"], seed=0, _convert_="all"), freeze_of(config["freeze"])

    return make


def _losses(model, anchor) -> list[torch.Tensor]:
    z, c = torch.randn(4, model.G.z_dim, generator=_generator(1)), torch.zeros(4, 0)
    real = torch.rand(4, 3, 32, 32, generator=_generator(2)) * 2 - 1
    found = anchor.of_G(model, z, c, _generator(3)), anchor.of_D(model, real, c, _generator(4))
    return [loss for loss in found if loss is not None]


def _moved(model) -> None:
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=_generator(i))


@pytest.mark.parametrize(("anchor", "name"), PAIRS)
def test_an_anchor_is_zero_at_the_source_grows_away_and_moves_no_statistics(
    made, anchor: str, name: str
) -> None:
    model, freeze = made(name, f"freeze/anchor=[{anchor}]", *([FEW] if anchor == "ewc" else []))
    freeze.apply(model)
    freeze.on_fit_start(None, model)
    (own,) = model.penalties
    before = copy.deepcopy(model.state_dict())
    for loss in _losses(model, own):
        assert loss.item() == pytest.approx(0, abs=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    _moved(model)
    losses = _losses(model, own)
    assert len(losses) == len(own.networks)
    for loss in losses:
        assert loss.item() > 1e-5
        loss.backward()
    for network in own.networks:
        assert any(p.grad.any() for p in getattr(model, network).parameters() if p.grad is not None)
    assert not [p for p in freeze._source.G.parameters() if p.requires_grad or p.grad is not None]


def test_the_consistency_is_scipys_relative_entropy() -> None:
    a, b = (torch.randn(5, 3, 4, 4, generator=_generator(i)) for i in (0, 1))
    got = consistency(a, b)
    for i in range(5):
        rows = []
        for x in (a, b):
            flat = x.flatten(1).double().numpy()
            norm = np.linalg.norm(flat, axis=1)
            cosines = flat @ flat[i] / norm / norm[i]
            rows.append(softmax(np.delete(cosines, i)))
        assert got[i].item() == pytest.approx(rel_entr(*rows).sum(), rel=1e-4)


def test_the_pull_is_its_equation() -> None:
    moving = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    origin = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[1.0]])}
    assert quadratic(moving, origin) == (1 + 4 + 4) / 2
    weights = {"a": torch.tensor([2.0, 0.5]), "b": torch.tensor([[10.0]])}
    assert quadratic(moving, origin, weights) == (2 + 2 + 40) / 2


def test_the_fisher_information_of_g_is_that_of_finite_differences(made) -> None:
    """Of log sigmoid D(G(z)) in float64, in one weight."""
    model, _ = made("dcgan")
    source = Source.of(model.double())
    latents = torch.randn(3, 1, 8, generator=_generator(), dtype=torch.float64)
    place, c, squares, step = (0, 0, 1, 1), torch.zeros(1, 0), [], 1e-5
    model.eval().requires_grad_(False)
    weight = model.G.b8[0].weight
    for z in latents:
        ends = []
        for sign in (1, -1):
            weight[place] += sign * step
            ends.append(torch.nn.functional.logsigmoid(model.D(model.G(z, c), c)).item())
            weight[place] -= sign * step
        squares.append(((ends[0] - ends[1]) / 2 / step) ** 2)
    found = fisher(source, "G", [(z, c) for z in latents], ["b8.0.weight"])["b8.0.weight"]
    assert found[place].item() == pytest.approx(np.mean(squares), rel=1e-4)


@pytest.mark.parametrize("network", ["G", "D"])
def test_the_fisher_information_is_the_mean_squared_gradient(made, network: str) -> None:
    model, _ = made("stylegan2_small")
    latents = torch.randn(3, 1, 8, generator=_generator())
    own, c = dict(getattr(model, network).named_parameters()), torch.zeros(1, 0)
    found = fisher(Source.of(model), network, [(z, c) for z in latents], own)
    squares = {name: torch.zeros_like(p) for name, p in own.items()}
    for z in latents:
        model.zero_grad()
        (-torch.nn.functional.softplus(-model.D(model.G(z, noise="none")))).sum().backward()
        for name, parameter in own.items():
            if parameter.grad is not None:
                squares[name] += parameter.grad.square() / 3
    torch.testing.assert_close(found, squares, rtol=1e-4, atol=1e-12)


def test_ewc_scales_to_a_mean_of_one_and_keeps_the_mean(made) -> None:
    model, freeze = made("stylegan2_small", "freeze=ewc", FEW)
    freeze.apply(model)
    freeze.on_fit_start(None, model)
    state = freeze.state_dict()["ewc"]
    values = torch.cat([f.flatten() for f in state["fisher"]["G"].values()])
    assert values.mean().item() == pytest.approx(1, rel=1e-4)
    assert values.numel() == sum(p.numel() for p in model.G.parameters())
    assert state["mean"]["G"] > 0


@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_of_the_blocks(made, name: str) -> None:
    """Block by block by hand: D of both families is a chain of its blocks."""
    model, _ = made(name)
    source = Source.of(model)
    _moved(model)
    x = torch.rand(4, 3, 32, 32, generator=_generator())
    pairs = features(model.D, source.D, [32, 16], x, torch.zeros(4, 0))
    for index, network in enumerate((model.D, source.D)):
        clamp = {"clamp": None} if name == "stylegan2_small" else {}
        first = network.b32(x.clone(), **clamp)
        assert torch.allclose(pairs[0][index], first, atol=1e-6)
        assert torch.allclose(pairs[1][index], network.b16(first, **clamp), atol=1e-6)
    assert feature_distance(pairs).requires_grad
    assert not pairs[0][1].requires_grad
    assert [*blocks(model.G)] == ([4, 8, 16] if name == "dcgan" else [4, 8, 16, 32])


def test_micro_batches_give_the_whole_batchs_penalty(made) -> None:
    """The share-weighted sum over micro-batches, as statistics and as gradients."""
    anchors = "freeze/anchor=[l2_sp,feature_distillation,fix_noise]"
    seen = []
    for micro in (4, 2):
        model, freeze = made("stylegan2_small", anchors, f"model.training.micro_batch={micro}")
        freeze.apply(model)
        _moved(model)
        stats: dict = {}
        z, c = torch.randn(4, 8, generator=_generator()), torch.zeros(4, 0)
        real = torch.rand(4, 3, 32, 32, generator=_generator(1))
        model.manual_backward = lambda loss: loss.backward()
        for part in model._micro_batches(4):
            model._penalise("G", z[part], c, part, _generator(), stats)
            model._penalise("D", real[part], c, part, _generator(), stats)
        grads = [p.grad for net in (model.G, model.D) for p in net.parameters()]
        seen.append((stats, torch.cat([g.flatten() for g in grads if g is not None])))
    assert set(seen[0][0]) == {"l2_sp_G", "l2_sp_D", "feature_distillation_D", "fix_noise_G"}
    torch.testing.assert_close(seen[0][0], seen[1][0])
    torch.testing.assert_close(seen[0][1], seen[1][1], rtol=1e-4, atol=1e-6)


def _fail_in_batch(monkeypatch, count: int) -> None:
    from stylegan_tl.models.adversarial import AdversarialModel

    original, seen = AdversarialModel.training_step, []

    def step(self, batch, index):
        seen.append(1)
        if len(seen) == count:
            raise RuntimeError("as if killed")
        return original(self, batch, index)

    monkeypatch.setattr(AdversarialModel, "training_step", step)


@pytest.mark.parametrize("name", MODELS)
def test_resumed_half_way_is_bit_identical(
    compose, tiny_overrides, tmp_path, monkeypatch, name: str
) -> None:
    anchors = ALL if name == "stylegan2_small" else EVERYWHERE
    more = [f"freeze/anchor=[{','.join(anchors)}]", FEW, "freeze=freeze_d_1"]
    config = compose(tiny_overrides(name, *more))
    run_trial(config, tmp_path / "whole", choices={})
    with monkeypatch.context() as patch:
        _fail_in_batch(patch, 6)
        with pytest.raises(RuntimeError, match="as if killed"):
            run_trial(config, tmp_path / "parts", choices={})
    assert run_trial(config, tmp_path / "parts", choices={}) == 0
    one, other = (
        torch.load(tmp_path / f / "last.ckpt", weights_only=True) for f in ("whole", "parts")
    )
    assert {k.split(".")[0] for k in one["state_dict"]} <= {"G", "D", "G_ema", "pl_mean"}
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    kept = [checkpoint["callbacks"]["Freeze"]["ewc"]["fisher"]["G"] for checkpoint in (one, other)]
    assert all(torch.equal(f, kept[1][key]) for key, f in kept[0].items())
    assert "l2_sp_G" in (tmp_path / "parts" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["freeze=init_d", "freeze/anchor=[cdc]"], "starts G from scratch: leave the anchor out"),
        (["freeze=scratch", "freeze/anchor=[l2_sp]"], "starts G from scratch"),
        (["freeze=l2_sp", "freeze.anchor.l2_sp.weight_G=-1"], "weight_G=-1: use a number from 0"),
        (["freeze=cdc", "freeze.anchor.cdc.weight=0"], "anchors nothing; leave freeze/anchor=cdc"),
        (["freeze=cdc", "freeze.anchor.cdc.batch=2"], "use 3 or more"),
        (["freeze=cdc", "model.training.micro_batch=2"], "of 3 or more"),
        (["freeze=ewc", "freeze.anchor.ewc.samples=0"], "use a whole number from 1"),
        (["freeze=structure", "freeze.anchor.structure.levels=9"], "levels=9: use 1 to 4"),
        (
            ["freeze=feature_distillation", "freeze.anchor.feature_distillation.resolutions=[4]"],
            "D has blocks at 32, 16, 8",
        ),
    ],
)
def test_a_wrong_anchor_says_what_to_do(made, overrides: list[str], message: str) -> None:
    def select() -> None:
        model, freeze = made("stylegan2_small", *overrides)
        freeze.select(model)

    with pytest.raises(ValueError, match=message):
        select()


def test_an_anchor_that_needs_styles_refuses_a_dcgan(made) -> None:
    for anchor in ("fix_noise", "structure"):
        model, freeze = made("dcgan", f"freeze/anchor=[{anchor}]")
        with pytest.raises(NotApplicable, match="this model's G has none"):
            freeze.select(model)


def test_no_anchor_without_a_source(compose) -> None:
    from stylegan_tl.config import ConfigError, validate

    with pytest.raises(ConfigError, match="no source to stay near"):
        validate(compose(["source=scratch", "freeze/anchor=[l2_sp]"]))


@pytest.mark.parametrize("name", MODELS)
def test_anchors_of_a_conditional_model_whose_classes_are_new(
    compose, tiny_overrides, name: str
) -> None:
    """All at once, with labels; what no source gave is not held."""
    anchors = ALL if name == "stylegan2_small" else EVERYWHERE
    config = compose(tiny_overrides(name, f"freeze/anchor=[{','.join(anchors)}]", FEW))
    network = {**config["model"]["network"], "c_dim": 3}
    model = instantiate({**config["model"], "network": network}, seed=0, _convert_="all")
    model.reinitialised = ("G.mapping.embed", "D.mapping.embed", "G.embed", "D.embed")
    freeze = freeze_of(config["freeze"])
    freeze.apply(model)
    freeze.on_fit_start(None, model)
    z, c = torch.randn(4, 8, generator=_generator()), torch.eye(3)[[0, 1, 2, 0]]
    real, draw = torch.rand(4, 3, 32, 32, generator=_generator(1)) * 2 - 1, _generator()
    for anchor in model.penalties:
        for loss in (anchor.of_G(model, z, c, draw), anchor.of_D(model, real, c, draw)):
            assert loss is None or loss.item() == pytest.approx(0, abs=1e-5)
    held = freeze.state_dict()["ewc"]["fisher"]["G"]
    assert not any("embed" in key for key in held)
    assert any("weight" in key for key in held)
