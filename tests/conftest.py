"""Tiny settings that every end-to-end test shares: 32 px, a few thousand weights, 24 images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

TINY = [
    "resolution=32",
    "kimg=0.032",
    "kimg_per_tick=0.016",
    "pretrain.kimg=0.016",
    "metric=none",
    "logger=none",
    "target.size=24",
    "grid.columns=2",
    "grid.rows=1",
]
SMALL_NETWORKS = {
    "stylegan2_small": [
        "model.network.channel_base=256",
        "model.network.channel_max=16",
        "model.network.z_dim=8",
        "model.network.w_dim=8",
        "model.training.batch_size=4",
        "model.training.r1_interval=2",
        "model.pl_weight=2.0",
        "model.pl_interval=2",
        "pretrain.model.training.batch_size=4",
    ],
    "stylegan_small": [
        "model.network.channel_base=256",
        "model.network.channel_max=16",
        "model.network.num_mapping_layers=2",
        "model.network.z_dim=8",
        "model.network.w_dim=8",
        "model.training.batch_size=4",
        "model.training.r1_interval=2",
        "pretrain.model.training.batch_size=4",
    ],
    "stylegan3_small": [
        "model.network.channel_base=128",
        "model.network.channel_max=8",
        "model.network.channel_base_D=256",
        "model.network.channel_max_D=16",
        "model.network.num_layers=3",
        "model.network.num_critical=1",
        "model.network.margin=1",
        "model.network.z_dim=8",
        "model.network.w_dim=8",
        "model.training.batch_size=4",
        "model.training.r1_interval=2",
        "pretrain.model.training.batch_size=4",
    ],
    "dcgan": [
        "model.network.width=4",
        "model.network.z_dim=8",
        "model.training.batch_size=4",
        "pretrain.model.training.batch_size=4",
    ],
    "dcgan_art_small": [
        "model.network.width_G=4",
        "model.network.width_D=2",
        "model.network.z_dim=8",
        "model.training.batch_size=4",
        "pretrain.model.training.batch_size=4",
    ],
    "dcgan_tf_small": [
        "model.network.width=4",
        "model.network.z_dim=8",
        "model.training.batch_size=4",
        "pretrain.model.training.batch_size=4",
    ],
    "gangogh_small": [
        "model.network.width=4",
        "model.network.z_dim=8",
        "model.pretrain_kimg=0",
        "model.training.batch_size=2",
        "model.training.D_steps=2",
        "pretrain.model.training.batch_size=2",
        "pretrain.model.training.D_steps=2",
        "pretrain.model.pretrain_kimg=0.008",
    ],
}

SMALL_NETWORKS["stylegan_small_fixed"] = SMALL_NETWORKS["stylegan_small"]
SMALL_NETWORKS["stylegan_small"] = [  # at 0.016 and at 0.032 kimg in the middle of a fade
    *SMALL_NETWORKS["stylegan_small"],
    *(
        f"{model}.growth.{value}"
        for model in ("model", "pretrain.model")
        for value in (
            "lod_initial_resolution=8",
            "lod_training_kimg=0.003",
            "lod_transition_kimg=0.02",
            "batch_size={16: 2}",
        )
    ),
]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """One cache for all tests: data are packed once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_overrides(cache):
    """Overrides of a run that takes seconds: `tiny_overrides(model, *more)`."""

    def make(
        model: str = "stylegan2_small", *more: str, source: str = "rooms/bedroom"
    ) -> list[str]:
        own = [f"model={model}", f"source={source}", f"cache={cache}"]
        sizes = ["source.size=24"] if source not in ("scratch", "checkpoint") else []
        return [*own, *TINY, *sizes, *SMALL_NETWORKS[model], *more]

    return make


@pytest.fixture(scope="session")
def compose():
    """`compose(overrides) -> plain config`, as the train command composes it."""
    from stylegan_tl import composing
    from stylegan_tl.config import plain

    def make(overrides: list[str], name: str = "train") -> dict:
        return plain(composing.compose(name, overrides))

    return make
