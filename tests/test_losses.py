"""Losses against closed forms and against gradients computed another way."""

import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from stylegan_tl.losses import (
    between,
    cross_entropy_D,
    drift,
    gradient_penalty,
    lazy_adam,
    nonsaturating_D,
    nonsaturating_G,
    path_length_penalty,
    path_lengths,
    r1_penalty,
    targets,
    wasserstein_D,
    wasserstein_G,
)


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _reference_cross_entropy(logits: np.ndarray, label: float) -> np.ndarray:
    probability = 1 / (1 + np.exp(-logits))
    return -label * np.log(probability) - (1 - label) * np.log(1 - probability)


def test_losses_are_binary_cross_entropy():
    real, fake = _normal(7, 1), _normal(7, 1, seed=1)
    on_real, on_fake = nonsaturating_D(real, fake)
    np.testing.assert_allclose(on_real, _reference_cross_entropy(real.numpy()[:, 0], 1))
    np.testing.assert_allclose(on_fake, _reference_cross_entropy(fake.numpy()[:, 0], 0))
    np.testing.assert_allclose(
        nonsaturating_G(fake), _reference_cross_entropy(fake.numpy()[:, 0], 1)
    )


def test_losses_do_not_overflow_where_the_logarithm_would():
    far = torch.tensor([[1e4], [-1e4]])
    assert nonsaturating_G(far).tolist() == [0, 1e4]


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weight():
    weight = _normal(3 * 4 * 4)
    images = _normal(5, 3, 4, 4, seed=1).requires_grad_()
    logits = (images.flatten(1) @ weight)[:, None]
    torch.testing.assert_close(r1_penalty(images, logits), weight.square().sum().expand(5))


def test_r1_and_its_gradient_against_the_hessian():
    """D = f(x): d|f'|^2/dx = 2 f'' f', with f' and f'' each computed whole."""
    weight = _normal(4, 12)

    def discriminator(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(weight @ x.flatten()).square().sum()

    images = _normal(2, 3, 2, 2, seed=1).requires_grad_()
    penalty = r1_penalty(images, torch.stack([discriminator(x) for x in images])[:, None])
    (second,) = torch.autograd.grad(penalty.sum(), images)
    for x, value, gradient in zip(images.detach(), penalty, second, strict=True):
        first = jacobian(discriminator, x).flatten()
        curvature = hessian(discriminator, x).reshape(12, 12)
        torch.testing.assert_close(value, first @ first)
        torch.testing.assert_close(gradient.flatten(), 2 * curvature @ first)


def test_path_length_of_a_linear_generator():
    """G(ws) = sum_l A_l w_l has J^T y = (A_l^T y)_l; y is the noise over sqrt(H W)."""
    layers, matrix = 3, _normal(3, 2 * 4 * 8, 5)
    ws = _normal(6, layers, 5, seed=1).requires_grad_()
    images = torch.einsum("nlw,lpw->np", ws, matrix).view(6, 2, 4, 8)
    noise = _normal(6, 2, 4, 8, seed=2)
    back = np.einsum("np,lpw->nlw", noise.flatten(1).numpy() / math.sqrt(32), matrix.numpy())
    expected = np.sqrt(np.mean(np.sum(back**2, axis=2), axis=1))
    lengths = path_lengths(images, ws, noise)
    np.testing.assert_allclose(lengths.detach(), expected)


def test_path_length_can_be_differentiated_again_and_is_safe_at_zero():
    ws = _normal(2, 1, 3).requires_grad_()
    scale = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    images = (scale[:, None] * ws[:, 0]).view(2, 1, 1, 3)
    lengths = path_lengths(images, ws, torch.ones(2, 1, 1, 3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(lengths.sum(), scale)
    torch.testing.assert_close(lengths, torch.tensor([0.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(gradient, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_path_length_penalty_moves_its_target_and_lets_no_gradient_through_it():
    lengths = torch.tensor([1.0, 3.0], requires_grad=True)
    penalty, mean = path_length_penalty(lengths, torch.tensor(1.0), decay=0.25)
    assert mean.item() == 1.25
    torch.testing.assert_close(penalty, torch.tensor([0.25**2, 1.75**2]))
    (gradient,) = torch.autograd.grad(penalty.sum(), lengths)
    torch.testing.assert_close(gradient, torch.tensor([-0.5, 3.5]))
    assert not mean.requires_grad


def test_lazy_adam_keeps_the_memory_and_the_stride_of_an_interval():
    """Over one interval (n main + 1 regularising step) the decay and the sum of lr are kept."""
    lr, betas = lazy_adam(0.002, (0.5, 0.99), interval=16)
    assert lr * 17 == pytest.approx(0.002 * 16)
    assert betas[0] ** 17 == pytest.approx(0.5**16)
    assert betas[1] ** 17 == pytest.approx(0.99**16)
    assert lazy_adam(0.002, (0.0, 0.99), 4).betas[0] == 0
    assert lazy_adam(0.002, (0.0, 0.99), 0) == (0.002, (0.0, 0.99))
    with pytest.raises(ValueError, match="interval is -1"):
        lazy_adam(0.002, (0.0, 0.99), -1)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cross_entropy_against_targets_is_the_formula_and_the_logistic_loss_at_one_and_zero():
    real, fake = _normal(7, 1), _normal(7, 1, seed=1)
    goal = torch.linspace(0, 1, 7, dtype=torch.float64)
    found = cross_entropy_D(real, fake, goal, 1 - goal)
    p = 1 / (1 + np.exp(-real.numpy()[:, 0])), 1 / (1 + np.exp(-fake.numpy()[:, 0]))
    for value, q, t in zip(found, p, (goal.numpy(), 1 - goal.numpy()), strict=True):
        np.testing.assert_allclose(value, -t * np.log(q) - (1 - t) * np.log(1 - q))
    plain = targets(7, 0.0, 0.0, 0.0, _seeded())
    for ours, theirs in zip(
        cross_entropy_D(real, fake, *plain), nonsaturating_D(real, fake), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_targets_are_smoothed_on_reals_alone_moved_and_flipped_by_their_shares():
    real, fake = targets(20_000, 0.1, 0.0, 0.0, _seeded())
    assert real.unique().tolist() == pytest.approx([0.9])
    assert fake.unique().tolist() == [0]
    real, fake = targets(20_000, 0.1, 0.05, 0.0, _seeded())
    assert real.min() >= 0.85
    assert real.max() <= 0.95
    assert float(real.std()) == pytest.approx(0.05 / math.sqrt(3), rel=0.02)  # of a uniform law
    assert float(fake.mean()) == pytest.approx(0, abs=0.002)
    real, fake = targets(20_000, 0.1, 0.0, 0.2, _seeded())
    for kind, own, other in ((real, 0.9, 0.0), (fake, 0.0, 0.9)):
        assert kind.unique().tolist() == pytest.approx(sorted((own, other)))
        share = float((kind == torch.tensor(other)).float().mean())
        assert share == pytest.approx(0.2, abs=0.015)  # five standard errors


def test_gradient_penalty_of_a_linear_critic_is_that_of_its_norm():
    """D(x) = w . x has the gradient w everywhere: (|w| - 1)^2, and its derivative in w."""
    weight = _normal(3 * 4 * 4).requires_grad_()
    images = _normal(5, 3, 4, 4, seed=1).requires_grad_()
    penalty = gradient_penalty(images, (images.flatten(1) @ weight)[:, None])
    norm = float(weight.detach().norm())
    torch.testing.assert_close(
        penalty.detach(), torch.full((5,), (norm - 1) ** 2, dtype=torch.float64)
    )
    (second,) = torch.autograd.grad(penalty.sum(), weight)
    torch.testing.assert_close(second, 5 * 2 * (norm - 1) * weight.detach() / norm)


def test_points_between_lie_on_the_lines_and_spread_evenly():
    real, fake = torch.zeros(4000, 1, 1, 2), torch.tensor([2.0, -4.0]).expand(4000, 1, 1, 2)
    points = between(real, fake, _seeded())
    share = points[..., 0].flatten() / 2
    torch.testing.assert_close(points[..., 1].flatten(), -4 * share)
    assert float(share.mean()) == pytest.approx(0.5, abs=0.025)
    assert float(share.std()) == pytest.approx(1 / math.sqrt(12), rel=0.05)


def test_wasserstein_losses_estimate_the_distance():
    real, fake = _normal(9, 1), _normal(9, 1, seed=1)
    on_real, on_fake = wasserstein_D(real, fake)
    assert float(on_real.mean() + on_fake.mean()) == pytest.approx(float(fake.mean() - real.mean()))
    torch.testing.assert_close(wasserstein_G(fake), -fake[:, 0])
    torch.testing.assert_close(drift(real), real[:, 0] ** 2)
