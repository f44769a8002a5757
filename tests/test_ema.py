"""The moving average: its half-life, its ramp-up, and what it leaves alone."""

import copy

import pytest
import torch
from torch import nn

from stylegan_tl.ema import half_life_decay, update_ema


def _filled(value: float) -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


@pytest.mark.parametrize("batch", [1, 16, 250])
def test_after_a_half_life_of_zeros_half_is_left(batch: int):
    average, zeros = _filled(1.0), _filled(0.0)
    beta = half_life_decay(batch, half_life_kimg=1, nimg=10**6, rampup=0.05)
    for _ in range(1000 // batch):
        update_ema(average, zeros, beta)
    left = 0.5 ** (1000 // batch * batch / 1000)
    for parameter in average.parameters():
        torch.testing.assert_close(parameter.data, torch.full_like(parameter, left))


def test_rampup_caps_the_half_life_by_what_was_seen():
    assert half_life_decay(32, 10, nimg=0, rampup=0.05) == 0
    assert half_life_decay(32, 10, nimg=0) == 0.5 ** (32 / 10_000)
    assert half_life_decay(32, 10, nimg=640, rampup=0.05) == pytest.approx(0.5)
    assert half_life_decay(32, 10, nimg=200_000, rampup=0.05) == 0.5 ** (32 / 10_000)
    assert half_life_decay(32, 0, nimg=1000) == 0
    with pytest.raises(ValueError, match="negative half-life"):
        half_life_decay(32, -1, nimg=1000)


def test_beta_zero_copies_and_beta_one_keeps():
    average, source = _filled(1.0), _filled(0.3)
    update_ema(average, source, 1.0)
    assert average[0].weight.unique().tolist() == [1.0]
    update_ema(average, source, 0.0)
    assert average[0].weight.unique().tolist() == [0.3]


def test_buffers_are_copied_and_the_source_is_untouched():
    average, source = _filled(1.0), _filled(0.0)
    source[1].running_mean.fill_(7.0)
    source[1].num_batches_tracked.fill_(3)
    before = copy.deepcopy(source.state_dict())
    update_ema(average, source, 0.9)
    assert average[1].running_mean.unique().tolist() == [7.0]
    assert average[1].num_batches_tracked.item() == 3
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad_fn is None and p.requires_grad for p in average.parameters())


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9987])
def test_what_is_frozen_stays_bit_identical(beta: float):
    torch.manual_seed(0)
    source = nn.Linear(64, 64)
    average = copy.deepcopy(source)
    update_ema(average, source, beta)
    assert torch.equal(average.weight, source.weight)


def test_different_networks_are_refused_by_name():
    with pytest.raises(ValueError, match=r"differ in \['bias'\]"):
        update_ema(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)
