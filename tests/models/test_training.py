"""An iteration: how often each network steps, on which images, by which loss, from which draws."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.models.training import Training


class _G(nn.Module):
    z_dim, c_dim = 3, 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 3))

    def forward(self, z, c=None, *, generator=None):
        return (z * self.weight)[:, :, None, None]


class _D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 3))

    def forward(self, img, c=None):
        return (img.flatten(1) @ self.weight)[:, None]


class _Model(AdversarialModel):
    """Linear networks on images of one pixel, without Lightning's trainer."""

    def build(self, network):
        return _G(), _D()

    def synthesise(self, z, c, generator):
        return self.G(z, c)


def _model(**training) -> _Model:
    plan = {"batch_size": 4, "betas": (0.0, 0.9), "r1_gamma": 0.0, "lr_G": 0.1, "lr_D": 0.1}
    model = _Model(network={}, training={**plan, **training})
    model._optimizers = model.configure_optimizers()
    model.optimizers = lambda: model._optimizers
    model.toggled_optimizer = lambda optimizer: nullcontext()
    model.manual_backward = lambda loss: loss.backward()
    model.seen = []
    for name in ("_step_G", "_step_D"):
        step = getattr(model, name)
        watched = lambda *a, step=step, name=name: model.seen.append((name, *a[1:])) or step(*a)  # noqa: E731
        setattr(model, name, watched)
    return model


def _reals(count: int) -> dict[str, torch.Tensor]:
    image = torch.randn(count, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    return {"image": image, "label": torch.zeros(count, 0)}


def test_steps_of_both_networks_and_the_clock_counts_every_real_image() -> None:
    model, batch = _model(G_steps=2, D_steps=3), _reals(12)
    assert model.images_per_step == 12
    model.training_step(batch, 0)
    assert [name for name, *_ in model.seen] == ["_step_G"] * 2 + ["_step_D"] * 3
    shown = torch.cat([real for name, real, *_ in model.seen if name == "_step_D"])
    assert torch.equal(shown, batch["image"])
    assert (model.nimg, model.nimg_before) == (12, 0)


def test_each_step_draws_its_own_latents_and_the_first_draws_what_it_always_did() -> None:
    model = _model(D_steps=2)
    draws = [model._at(turn, lambda: model.latents(2, model.generator("D"))) for turn in (0, 1, 1)]
    assert torch.equal(draws[0], model.latents(2, model.generator("D")))
    assert torch.equal(draws[1], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_a_step_of_a_critic_descends_the_loss_of_wgan_gp_by_hand() -> None:
    """D(x) = w . x: mean fake - mean real + drift mean r^2 + weight (|w| - 1)^2, one Adam step."""
    model = _model(loss="wgan_gp", gp_weight=10.0, drift_weight=0.5)
    weight, batch = model.D.weight.detach().clone().requires_grad_(), _reals(4)
    fake = model.G(model.latents(4, model.generator("D"))).detach()[:, :, 0, 0]
    real = batch["image"][:, :, 0, 0]
    loss = (fake @ weight).mean() - (real @ weight).mean() + 0.5 * (real @ weight).square().mean()
    loss = loss + 10 * (weight.norm() - 1) ** 2
    loss.backward()
    found = model._step_D(model.optimizers()[1], batch["image"], batch["label"])
    torch.testing.assert_close(model.D.weight.grad, weight.grad)
    assert float(found["gradient_penalty"]) == pytest.approx(
        float((weight.detach().norm() - 1) ** 2)
    )


def test_micro_batches_change_nothing_about_a_step() -> None:
    whole, parts = _model(loss="wgan_gp"), _model(loss="wgan_gp", micro_batch=2)
    for model in (whole, parts):
        model._step_D(model.optimizers()[1], *_inputs())
    torch.testing.assert_close(whole.D.weight.grad, parts.D.weight.grad)


def test_lazy_r1_weighs_what_r1_in_every_step_of_d_would() -> None:
    """D(x) = w . x, R1 |w|^2: the interval times the steps of D in an iteration, in Adam too."""
    model = _model(r1_gamma=2.0, r1_interval=4, D_steps=3)
    model._step_R1(model.optimizers()[1], *_inputs())
    weight = torch.linspace(0.5, 1.5, 3)
    torch.testing.assert_close(model.D.weight.grad, 12 * 2 * weight)
    assert model.optimizers()[1].param_groups[0]["lr"] == pytest.approx(0.1 * 12 / 13)


def _inputs() -> list[torch.Tensor]:
    return [*_reals(4).values()]


def test_a_familys_further_losses_are_added_and_logged() -> None:
    class Further(_Model):
        def judge(self, images, c, shown):
            return self.D(images, c), {f"size_{shown}": 3 * self.D(images, c).square().flatten()}

    model, plain = _model(), _model()
    model.__class__ = Further
    found = model._step_D(model.optimizers()[1], *_inputs())
    plain._step_D(plain.optimizers()[1], *_inputs())
    real = _reals(4)["image"][:, :, 0, 0]
    fake = model.G(model.latents(4, model.generator("D"))).detach()[:, :, 0, 0]
    weight = torch.linspace(0.5, 1.5, 3)
    more = sum(6 * ((x @ weight)[:, None] * x).mean(0) for x in (real, fake))
    torch.testing.assert_close(model.D.weight.grad, plain.D.weight.grad + more)
    assert found["size_real"] == pytest.approx(3 * float((real @ weight).square().mean()))
    assert "size_fake" in found


def test_rates_follow_the_clock_and_what_rests_is_not_stepped() -> None:
    class Staged(_Model):
        def rate(self, network):
            return 0.5 if network == "D" and self.nimg >= 4 else 1.0

        def rests(self, network):
            return network == "G" and self.nimg < 4

    model = _model()
    model.__class__ = Staged
    before = copy.deepcopy(model.G.state_dict())
    rates = []
    for _ in range(3):
        model.training_step(_reals(4), 0)
        rates.append([opt.param_groups[0]["lr"] for opt in model.optimizers()])
    assert rates == [[0.1, 0.1], [0.1, 0.05], [0.1, 0.05]]
    assert [name for name, *_ in model.seen][:3] == ["_step_D", "_step_G", "_step_D"]
    assert not torch.equal(before["weight"], model.G.weight)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"loss": "hinge"}, "loss=hinge: use one of nonsaturating, bce, wgan_gp"),
        ({"D_steps": 0}, "D_steps=0: use 1 or more"),
        ({"label_smoothing": 0.1}, "loss is nonsaturating: use model.training.loss=bce"),
        ({"loss": "bce", "label_flipping": 1.5}, "use a share from 0 to 1"),
        ({"gp_weight": -1}, "use 0 or more"),
        ({"drift_weight": 0.001}, "is of loss=wgan_gp, and loss is nonsaturating"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(plan: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training(**plan)
