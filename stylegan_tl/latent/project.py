"""Projection of real images: the latents that draw them best, by `metrics.inversion`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_tl.assembly import cache_of
from stylegan_tl.data.device import to_float
from stylegan_tl.data.open import kind_of, open_dataset
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.progress import Progress
from stylegan_tl.data.split import n_shot
from stylegan_tl.files import write_atomic
from stylegan_tl.latent.checks import choice, numbers, open_out, whole
from stylegan_tl.latent.codes import look_of
from stylegan_tl.latent.record import Made
from stylegan_tl.measuring import device_of
from stylegan_tl.metrics.features import check_extractor, load_extractor
from stylegan_tl.metrics.inversion import Inversion, invert
from stylegan_tl.metrics.protocol import PERCEPTUAL
from stylegan_tl.models.adversarial import AdversarialModel, to_uint8
from stylegan_tl.pictures import sheet
from stylegan_tl.restore import restore
from stylegan_tl.sampling import has_truncation, labels

__all__ = ["make"]

_BATCH = 16


def make(config: dict[str, Any]) -> Made:
    """Write project.png (image, start, found) and projected.safetensors."""
    _check(config)
    device = device_of(config["device"])
    model, trained = restore(config["checkpoint"])
    look_of(config, model)
    _check_model(config, model)
    data = _open(config, trained.network["resolution"])
    chosen = _some(data, config)
    out = open_out(config, "projected.safetensors", "project.png")
    images = torch.from_numpy(data.images(chosen))
    found = _project(config, model.to(device), to_float(images.to(device)))
    files = [out / "projected.safetensors", out / "project.png"]
    _save(files[0], model, found)
    _picture(files[1], config, images, found)
    return Made(files, {"model": trained}, _facts(data, chosen, found))


def _check(config: dict[str, Any]) -> None:
    """Everything that can be told without opening a model."""
    if (config["images"] is None) == (config.get("target") is None):
        raise ValueError("name what is projected: images=FOLDER or target=DATASET, one of them")
    whole(config, "count", 1)
    whole(config, "steps", 1)
    whole(config, "seed", 0)
    numbers(config, "lr", 1e-6, 10)
    numbers(config, "pixel_weight", 0)
    choice(config, "layers", ("one", "each"))
    name = choice(config, "extractor", PERCEPTUAL)
    check_extractor(name, **config["extractors"][name])


def _check_model(config: dict[str, Any], model: AdversarialModel) -> None:
    family, G = type(model).__name__, model.G_ema
    if config["layers"] == "each" and not has_truncation(model):
        raise ValueError(f"layers=each: a {family} has one z for all layers; use layers=one")
    if config["noise_maps"] and not any(n.endswith("noise_const") for n, _ in G.named_buffers()):
        raise ValueError(f"noise_maps=true: this {family} stores no noise images; use false")


def _open(config: dict[str, Any], resolution: int) -> PackedDataset:
    """The images at the model's resolution, packed once if need be."""
    if config["images"] is None:
        spec = {k: v for k, v in config["target"].items() if k != "xflip"}
    else:
        path = Path(config["images"]).expanduser()
        spec = {"kind": kind_of(path), "path": str(path)}
        spec |= {} if spec["kind"] == "packed" else {"crop": config["crop"]}
    return open_dataset(spec, resolution=resolution, cache=cache_of(config))


def _some(data: PackedDataset, config: dict[str, Any]) -> np.ndarray:
    count = min(config["count"], data.num_images)
    return n_shot(np.arange(data.num_images), count, config["seed"])


def _project(config: dict[str, Any], model: AdversarialModel, images: torch.Tensor) -> Inversion:
    name = config["extractor"]
    extractor = load_extractor(name, **config["extractors"][name]).to(model.device)
    total = config["steps"] * -(-len(images) // (1 if config["noise_maps"] else _BATCH))
    label = labels(model, 1, config["label"])
    return invert(
        model.G_ema,
        images,
        extractor.embed,
        steps=config["steps"],
        lr=config["lr"],
        pixel_weight=config["pixel_weight"],
        batch_size=_BATCH,
        seed=config["seed"],
        labels=None if label is None else label.to(model.device),
        tick=Progress(f"projecting {len(images)} images", total, unit=("steps", "step")),
        per_layer=config["layers"] == "each",
        noise=config["noise_maps"],
    )


def _save(path: Path, model: AdversarialModel, found: Inversion) -> None:
    """`w` [N, num_ws, w_dim] or `z` [N, z_dim], and `noise.<name>` [N, H, W]."""
    from safetensors.torch import save

    G = model.G_ema
    if has_truncation(model):
        ws = found.latents.unflatten(1, (-1, G.w_dim)).expand(-1, G.num_ws, -1)
        tensors = {"w": ws}
    else:
        tensors = {"z": found.latents}
    tensors |= {f"noise.{name}": noise for name, noise in found.noise.items()}
    write_atomic(path, save({k: tensor.cpu().contiguous() for k, tensor in tensors.items()}))


def _picture(path: Path, config: dict[str, Any], images: torch.Tensor, found: Inversion) -> None:
    columns = [images, to_uint8(found.start_images), to_uint8(found.images)]
    errors = zip(found.start_perceptual.tolist(), found.perceptual.tolist(), strict=True)
    rows = [f"{before:.3g} → {after:.3g}" for before, after in errors]
    title = f"distance by {config['extractor']}, {config['steps']} steps"
    tiles = torch.stack(columns, 1).flatten(0, 1).numpy()
    sheet(path, tiles, rows, ["image", "start", "found"], title)


def _facts(data: PackedDataset, chosen: np.ndarray, found: Inversion) -> dict[str, Any]:
    errors = ("perceptual", "pixel", "start_perceptual", "start_pixel")
    return {
        "images": {"content_hash": data.content_hash, "indices": chosen.tolist()},
        **{name: getattr(found, name).tolist() for name in errors},
    }
