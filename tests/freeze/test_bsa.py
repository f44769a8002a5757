"""BSA: the terms of its loss, that it falls, its latents resumed, and what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from stylegan_tl import runner
from stylegan_tl.assembly import check_strategy
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.freeze.bsa import MOST, Plan, Reconstruction, laplacian, sliced_wasserstein, small
from stylegan_tl.freeze.selectors import NotApplicable
from stylegan_tl.metrics.small import load_small
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.restore import restore
from stylegan_tl.runner import run_trial
from stylegan_tl.source.portable import read_model
from stylegan_tl.study.trial import MetricsLog

MODELS = ["stylegan2_small", "dcgan"]


def _made(config: dict) -> AdversarialModel:
    model = instantiate(config["model"], seed=0, _convert_="all")
    freeze_of(config["freeze"]).apply(model)
    return model


def _batch(count: int) -> dict[str, torch.Tensor]:
    image = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"image": image, "label": torch.zeros(count, 0), "index": torch.arange(count).flip(0)}


def _reference_numpy_laplacian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Both pyramids in full, pixel by pixel."""
    total = np.zeros(len(x))
    for i, pair in enumerate(zip(x, y, strict=True)):
        a, b = (image.astype(np.float64) for image in pair)
        while a.shape[-1] > 4:
            low = [im.reshape(3, len(im[0]) // 2, 2, -1, 2).mean((2, 4)) for im in (a, b)]
            up = [im.repeat(2, 1).repeat(2, 2) for im in low]
            total[i] += np.abs((a - up[0]) - (b - up[1])).mean()
            a, b = low
        total[i] += np.abs(a - b).mean()
    return total


def _reference_scipy_wasserstein(z: np.ndarray, r: np.ndarray, directions: np.ndarray) -> float:
    """The best of all assignments along every direction."""
    from scipy.optimize import linear_sum_assignment

    found = []
    for u in directions.T:
        cost = np.square((z @ u)[:, None] - (r @ u)[None, :])
        rows, columns = linear_sum_assignment(cost)
        found.append(cost[rows, columns].mean())
    return float(np.mean(found))


def test_the_distances_are_their_formulas() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 3, 3, 32, 32, generator=draw) * 2 - 1
    expected = _reference_numpy_laplacian(x.numpy(), y.numpy())
    np.testing.assert_allclose(laplacian(x, y).numpy(), expected, rtol=1e-5)
    assert laplacian(x, x).eq(0).all()
    z, r = torch.randn(2, 9, 5, generator=draw)
    directions = torch.nn.functional.normalize(torch.randn(5, 7, generator=draw), dim=0)
    best = _reference_scipy_wasserstein(z.numpy(), r.numpy(), directions.numpy())
    assert sliced_wasserstein(z, r, directions).item() == pytest.approx(best, rel=1e-5)
    assert sliced_wasserstein(z[torch.randperm(9, generator=draw)], z, directions) < 1e-12


def test_the_small_extractors_distance_is_that_of_its_standardised_maps() -> None:
    network = load_small()[0]
    x, y = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    means = torch.cat([m.mean((2, 3)) for m in network.maps(x)], 1)
    assert torch.equal(network.features(x), means)
    scales = network.scale[:24], network.scale[24:88], network.scale[88:]
    with torch.no_grad():
        stages = zip(network.maps(x), network.maps(y), scales, strict=True)
        apart = [((a - b).abs() / s.view(1, -1, 1, 1)).mean((1, 2, 3)) for a, b, s in stages]
    torch.testing.assert_close(small()(x, y), sum(apart) / 3)
    half = torch.zeros(1, 3, 32, 32, requires_grad=True)
    small()(half, half + 1).sum().backward()
    assert half.grad is not None


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_weighted_sum_of_its_terms(compose, tiny_overrides, name: str) -> None:
    weights = ["freeze.features=0.5", "freeze.latents=0.3", "freeze.towards_source=2"]
    more = ["freeze=bsa", "num_images=4", "target.xflip=false", *weights]
    model = _made(compose(tiny_overrides(name, *more)))
    own, batch = model.objective, _batch(4)
    assert own.z.shape == (4, 8)
    norms = [p for p in model.G.parameters() if p.requires_grad]
    assert len(norms) == len(own.names) == len(list(own.buffers()))
    with torch.no_grad():
        for parameter in norms:
            parameter += 0.5
    found = own.of_images(model, batch)
    fake = model.G(own.z.flip(0), **model.still)
    assert found["l1"].item() == pytest.approx((batch["image"] - fake).abs().mean().item())
    distance = laplacian(batch["image"], fake).mean().item()
    assert found["features"].item() == pytest.approx(0.5 * distance, rel=1e-5)
    found = own.of_weights(model, torch.Generator().manual_seed(3))
    assert found["towards_source"].item() == pytest.approx(2 * 0.25 * len(norms), rel=1e-5)
    draw = torch.Generator().manual_seed(3)
    u = torch.nn.functional.normalize(torch.randn(8, 64, generator=draw), dim=0)
    apart = sliced_wasserstein(own.z, torch.randn(4, 8, generator=draw), u)
    assert found["latents"].item() == pytest.approx(0.3 * apart.item(), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_micro_batches_give_the_gradients_of_the_whole(compose, tiny_overrides, name: str) -> None:
    gradients = []
    for size in ("null", "3"):
        more = ["freeze=bsa", "num_images=4"]
        config = compose(tiny_overrides(name, *more, f"model.training.micro_batch={size}"))
        model = _made(config)
        model.manual_backward = lambda loss: loss.backward()
        optimizer = model.configure_optimizers()[0]
        optimizer.step = lambda *_: None
        model._step_objective(optimizer, _batch(4))
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.requires_grad})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_falls_and_the_source_model_stays(
    compose, tiny_overrides, tmp_path, name: str
) -> None:
    more = ["freeze=bsa", "num_images=3", "kimg=0.4", "kimg_per_tick=0.1", "target.xflip=false"]
    more += ["freeze.lr=0.1"]
    assert run_trial(compose(tiny_overrides(name, *more)), tmp_path, choices={}) == 0
    rows = MetricsLog(tmp_path / "metrics.jsonl").read()[1:]
    images = [row["l1"] + row["features"] for row in rows]
    fall = {"stylegan2_small": 0.9, "dcgan": 0.9999}[name]  # an untrained DCGAN is nearly flat
    assert images[-1] < fall * images[0], images
    assert not {"loss_D", "r1", "path_length"} & rows[-1].keys()
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state, optimizers = checkpoint["state_dict"], checkpoint["optimizer_states"]
    assert state["objective.z"].shape == (3, 8)
    grid = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    start = Plan(3, "normal", laplacian, 1, 1, {}).latents(8, seed=0)
    assert (state["objective.z"] - start).abs().min() > 0
    assert (start - grid).abs().min() > 1e-3  # pictures show latents that were not trained
    assert optimizers[1]["state"] == {}
    model, _ = restore(tmp_path)  # needs no latents
    assert model.sample(torch.randn(2, 8), **model.still).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", MODELS)
def test_half_way_killed_is_uninterrupted_latents_too(
    compose, tiny_overrides, tmp_path, monkeypatch, name: str
) -> None:
    config = compose(tiny_overrides(name, "freeze=bsa", "num_images=5"))
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
    half = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["state_dict"]
    assert run_trial(config, tmp_path / "parts", choices={}) == 0
    one, other = (
        torch.load(tmp_path / f / "last.ckpt", weights_only=True) for f in ("whole", "parts")
    )
    state, resumed = one["state_dict"], other["state_dict"]
    assert state.keys() == resumed.keys()
    assert not [key for key in state if not torch.equal(state[key], resumed[key])]
    assert state["objective.z"].shape == (10, 8)  # mirror images have their own
    assert not torch.equal(half["objective.z"], state["objective.z"])
    for ours, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert ours["state"].keys() == theirs["state"].keys()
        for key, own in ours["state"].items():
            assert all(torch.equal(v, theirs["state"][key][k]) for k, v in own.items())
    child = compose(
        tiny_overrides(
            name, f"source.checkpoint={tmp_path / 'whole'}", "num_images=5", source="checkpoint"
        )
    )
    assert run_trial(child, tmp_path / "child", choices={}) == 0
    assert "objective.z" not in read_model(tmp_path / "child").tensors


def test_rates_are_its_own_and_no_lazy_step_shortens_them(compose, tiny_overrides) -> None:
    more = ["freeze=bsa", "num_images=4", "freeze.lr=0.03", "freeze.lr_z=0.07"]
    model = _made(compose(tiny_overrides("stylegan2_small", *more)))
    groups = model.configure_optimizers()[0].param_groups
    assert [g["lr"] for g in groups] == [0.03, 0.07]
    assert groups[1]["params"] == [model.objective.z]
    assert groups[0]["betas"] == model.training_plan.betas
    before = copy.deepcopy(model.objective.state_dict())
    assert isinstance(model.objective, Reconstruction)
    freeze_of(compose(tiny_overrides("stylegan2_small", *more))["freeze"]).apply(model)
    after = model.objective.state_dict()  # applied twice: made once
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_latents_start_from_zero_only_where_they_can_leave_it(compose, tiny_overrides) -> None:
    more = ["freeze=bsa", "num_images=4", "freeze.start=zero"]
    assert _made(compose(tiny_overrides("dcgan", *more))).objective.z.eq(0).all()
    config = compose(tiny_overrides("stylegan2_small", *more))
    with pytest.raises(NotApplicable, match="freeze.start=zero.*use freeze.start=normal"):
        check_strategy(freeze_of(config["freeze"]), config, None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["num_images=101"], f"at most {MOST} images, but num_images=101"),
        ([], "num_images=null: give num_images=1 to 100"),
        (["num_images=5", "freeze.start=mean"], "freeze.start=mean: use one of zero, normal"),
        (["num_images=5", "freeze.feature=vgg"], "use one of laplacian, small"),
        (["num_images=5", "freeze/anchor=[l2_sp]"], "takes no freeze/anchor"),
        (["num_images=5", "freeze/schedule=head_warmup"], "no freeze/schedule"),
        (["num_images=5", "augment=ada"], "no D to augment"),
        (["num_images=5", "freeze.lr_z=0"], "freeze.lr_z=0: use a number above 0"),
        (["num_images=5", "freeze.latents=-1"], "freeze.latents=-1: use a number from 0"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    compose, tiny_overrides, tmp_path, monkeypatch, more: list[str], message: str
) -> None:
    def worked(*_: object) -> None:
        raise AssertionError("the target was opened")

    monkeypatch.setattr(runner, "open_target", worked)
    config = compose(tiny_overrides("dcgan", "freeze=bsa", *more))
    with pytest.raises(ValueError, match=message):
        run_trial(config, tmp_path, choices={})
