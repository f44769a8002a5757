"""Tiny models as files: a source and its child of each family, and others that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stylegan_tl.models.dcgan import DCGAN
from stylegan_tl.models.gangogh import GANGogh
from stylegan_tl.models.stylegan import StyleGAN
from stylegan_tl.models.stylegan2 import StyleGAN2
from stylegan_tl.models.stylegan3 import StyleGAN3
from stylegan_tl.source.portable import SourceModel, read_model, write_portable

STYLEGAN2 = {
    "resolution": 32, "z_dim": 6, "w_dim": 5, "num_mapping_layers": 2, "channel_base": 256,
    "channel_max": 16, "mbstd_group_size": 4,
}  # fmt: skip
STYLEGAN3 = {
    **STYLEGAN2, "channel_base": 128, "channel_max": 8, "channel_base_D": 128, "num_layers": 3,
    "num_critical": 1, "margin": 1,
}  # fmt: skip
DCGAN_ = {"resolution": 32, "z_dim": 6, "width": 4}
TENSORFLOW = {"kernel": 5, "bias": True, "init": "tf", "noise": "uniform"}
NETWORKS = {
    "stylegan2": (StyleGAN2, STYLEGAN2),
    "stylegan3": (StyleGAN3, STYLEGAN3),
    "dcgan": (DCGAN, DCGAN_),
    "stylegan": (StyleGAN, STYLEGAN2),
    "dcgan_tf": (DCGAN, DCGAN_ | TENSORFLOW),
    "gangogh": (GANGogh, DCGAN_ | {"width_max": 4, "c_dim": 3}),
    "labelled": (StyleGAN2, STYLEGAN2 | {"c_dim": 3}),
}
"""The last two have classes."""
FAMILIES = tuple(NETWORKS)


def write(path: Path, family: str, seed: int, lineage: dict | None = None, **network) -> Path:
    """A model whose every number was drawn from `seed`, as a portable file."""
    cls, usual = NETWORKS[family]
    network = usual | network
    model = cls(network=network, training={"betas": (0.0, 0.99)}, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for side in ("G_ema", "D"):
        for name, tensor in getattr(model, side).state_dict().items():
            # also what begins at zero: biases, noise, w_avg; not how far a network has grown
            if family in ("dcgan_tf", "gangogh", "labelled"):
                tensor = _drawn(name, tensor, generator)
            elif tensor.is_floating_point() and not name.endswith("lod"):
                tensor = tensor + 0.3 * torch.rand(tensor.shape, generator=generator)
                scale = 4 if family == "stylegan3" else 1 / 8  # pixels in about [-1, 1]
                tensor = tensor * scale if "torgb.weight" in name else tensor
            tensors[f"{side}.{name}"] = tensor.clone()
    how = {"model": f"{cls.__module__}.{cls.__qualname__}", "network": network, "nimg": seed}
    about = {"dataset": f"made/{seed}", "lineage": lineage or {}, "path": path, "sha256": ""}
    write_portable(SourceModel(**how, **about, tensors=tensors), path)
    return path


def _drawn(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Numbers with which images are neither flat nor cut off, and classes differ."""
    if not tensor.is_floating_point() or "running_" in name:
        return tensor
    drawn = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim == 4 and ".conv" not in name and "torgb" not in name:  # of a DCGAN
        return drawn * (3 / (tensor.shape[0] * tensor.shape[-1])) ** 0.5
    if "gates" in name or "embed" in name:
        return drawn
    scale = 0.1 if "torgb.weight" in name else 1.0
    return (tensor + 0.3 * drawn) * scale


def child_of(parent: Path, path: Path, family: str, seed: int, **freeze) -> Path:
    """A model that says that it was transferred from `parent`."""
    lineage = {"dataset": f"made/{seed}", "freeze": freeze, "source": read_model(parent).record()}
    return write(path, family, seed, lineage)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """`<family>_<source|child|grandchild|sibling|stranger>` and a few that do not fit."""
    root = tmp_path_factory.mktemp("models")
    found = {}
    for family in FAMILIES:
        at = {k: root / f"{family}_{k}.safetensors" for k in
              ("source", "child", "sibling", "grandchild", "stranger")}  # fmt: skip
        write(at["source"], family, 1)
        child_of(at["source"], at["child"], family, 2)
        child_of(at["source"], at["sibling"], family, 3)
        child_of(at["child"], at["grandchild"], family, 4)
        write(at["stranger"], family, 5)
        found |= {f"{family}_{name}": path for name, path in at.items()}
    found["wide"] = write(root / "wide.safetensors", "stylegan2", 6, channel_max=8)
    found["fresh_G"] = child_of(found["stylegan2_source"], root / "fresh.safetensors", "stylegan2",
                                7, G="scratch", D="source")  # fmt: skip
    return found


@pytest.fixture
def write_model():
    """`write`, for tests that want a model of their own."""
    return write


@pytest.fixture
def tool(compose, files, tmp_path):
    """Run `tool(name, model, *overrides)`; the files written by name, the record among them."""
    from stylegan_tl.latent.__main__ import run

    def use(name: str, model: str, *overrides: str, out: str = "out") -> dict[str, Path]:
        own = [f"latent={name}", f"checkpoint={files.get(model, model)}", f"out={tmp_path / out}"]
        config = compose([*own, *overrides], "latent")
        return {path.name: path for path in run(config, "the command")}

    return use
