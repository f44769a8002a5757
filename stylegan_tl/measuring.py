"""What is measured, against what and with what, from the configuration of a command."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stylegan_tl.assembly import Target, cache_of, open_domain
from stylegan_tl.callbacks import EvaluationSamples
from stylegan_tl.config import pretrain_config
from stylegan_tl.data.open import kind_of, open_dataset
from stylegan_tl.metrics.equivariance import takes_transform
from stylegan_tl.metrics.evaluate import check, evaluate
from stylegan_tl.metrics.fakes import Fakes
from stylegan_tl.metrics.features import Extractor, check_extractor, load_extractor
from stylegan_tl.metrics.protocol import expand
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.restore import rebuild, restore
from stylegan_tl.source.obtain import find_source
from stylegan_tl.source.portable import SourceModel

__all__ = [
    "GeneratedImages",
    "check_metrics",
    "device_of",
    "evaluation_of",
    "extractors_of",
    "fakes_of",
    "images_as_fakes",
    "reals_of",
    "source_model",
]


class GeneratedImages:
    """The images of a model in the place of reals: image number i is fake number i."""

    def __init__(self, model: AdversarialModel, source: SourceModel, count: int) -> None:
        self.classes = np.eye(model.G.c_dim, dtype=np.float32)
        self.samples = EvaluationSamples(model, self.classes if model.G.c_dim else None)
        self.content_hash = f"model {source.sha256}"
        self.num_images, self.label_dim = count, model.G.c_dim

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [N, 3, R, R]."""
        runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
        parts = [self.samples(int(run[0]), len(run)).cpu().numpy() for run in runs]
        return np.concatenate(parts)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """Every class as often, float32 [N, c_dim]."""
        return self.classes[np.asarray(indices) % len(self.classes)]


def device_of(wanted: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:1` means; ValueError if it is not there."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={wanted}: {reason}; use auto, cpu or cuda") from error
    return device


def extractors_of(metric: dict[str, Any], device: torch.device | str) -> dict[str, Extractor]:
    """The extractors that the metrics of `metric` need, on `device`, by name."""
    return {
        name: load_extractor(name, **own, precision=metric["precision"]).to(device)
        for name, own in _used(metric).items()
    }


def check_metrics(config: dict[str, Any], target: Target, G: nn.Module, transfers: bool) -> None:
    """Raise ValueError for what the metrics lack, before a source model is trained.

    `G` is a blank one; `transfers`: whether a source model will be there.
    """
    for name, own in _used(config["metric"]).items():
        check_extractor(name, **own)
    sizes = {split: len(indices) for split, (_, indices) in target.splits.items()}
    source = config["source"]
    if source.get("domain") or source.get("path"):
        sizes["source"] = 10**9  # opened, and perhaps packed, only if it is asked for
    metric, spaces = config["metric"], "zw" if hasattr(G, "mapping") else "z"
    transfers = transfers and source["kind"] != "scratch"
    rounds = metric.get("rounds", 0)
    known = dict(spaces=spaces, source=transfers, moves=takes_transform(G))
    check(metric["names"], sizes, **known, rounds=rounds)


def reals_of(config: dict[str, Any], target: Target) -> dict[str, Any]:
    """The splits that the metrics compare with; the source's images only where they are asked."""
    splits = dict(target.splits)
    source = config["source"] or {}
    wanted = {split for p in expand(config["metric"]["names"]) for split in p.splits}
    if "source" in wanted and (source.get("domain") or source.get("path")):
        trained = config.get("pretrain") or config.get("run", {}).get("pretrain") or {}
        chosen = {**config, **{k: trained[k] for k in ("held_out", "seed") if k in trained}}
        domain = open_domain(source, chosen, trained.get("num_images"))
        splits["source"] = (domain.dataset, domain.train)
    return splits


def evaluation_of(
    config: dict[str, Any], target: Target, source: SourceModel | None
) -> Callable[[AdversarialModel], list[dict[str, Any]]] | None:
    """What measures a model by the metrics of `config` while it trains; None for none."""
    metric = config["metric"]
    if not metric["names"]:
        return None
    extractors = extractors_of(metric, "cpu")
    reals = reals_of(config, target)
    paired = any(p.needs("G_source") for p in expand(metric["names"]))
    before = (rebuild(source), source.sha256) if paired and source is not None else None

    def measure(model: AdversarialModel) -> list[dict[str, Any]]:
        return evaluate(
            metric["names"],
            fakes=fakes_of(model, target, source=before),
            reals=reals,
            extractors={k: v.to(model.device) for k, v in extractors.items()},  # by now on a GPU
            cache=cache_of(config) / "statistics",
            rounds=metric["rounds"],
        )

    return measure


def fakes_of(
    model: AdversarialModel,
    target: Target,
    *,
    identity: str | None = None,
    source: tuple[AdversarialModel, str] | None = None,
) -> Fakes:
    """G_ema of `model` as what is measured, with the labels of the target's training images.

    `identity` is the model's digest; `source` the source model and its digest. ValueError if the
    classes of model, target and source differ.
    """
    labels = _labels(model, target)
    samples = EvaluationSamples(model, labels)
    if identity is not None:  # what else the fakes depend on
        drawn = b"" if labels is None else labels.tobytes()
        bf16 = getattr(getattr(model.G_ema, "synthesis", None), "bf16", False)
        arithmetic = f"{model.device.type} {bf16}"
        identity = sha256(f"{identity} {arithmetic}".encode() + drawn).hexdigest()
    if source is not None and source[0].G.c_dim != model.G.c_dim:
        raise ValueError(
            f"the source model has {source[0].G.c_dim} classes, the model {model.G.c_dim}: the "
            "same z does not name a pair of images"
        )
    return Fakes(
        samples,
        identity=identity,
        G=model.G_ema,
        latents=samples.latents,
        labels=samples.labels if labels is not None else None,
        source=None if source is None else EvaluationSamples(source[0].to(model.device), labels),
        source_identity=None if source is None else source[1],
    )


def _labels(model: AdversarialModel, target: Target) -> np.ndarray | None:
    if not model.G.c_dim:
        return None
    if target.dataset.label_dim != model.G.c_dim:
        raise ValueError(
            f"the model has {model.G.c_dim} classes, the target {target.dataset.label_dim}: name "
            "the dataset with the classes that it was trained on"
        )
    return target.dataset.labels(target.train)


def images_as_fakes(config: dict[str, Any]) -> tuple[Fakes, str]:
    """The folder, zip or packed data `images` as what is measured, and its name."""
    path = Path(config["images"]).expanduser()
    spec = {"kind": kind_of(path), "path": str(path)}
    if spec["kind"] != "packed":
        spec["keep_duplicates"] = True  # a generator that repeats itself is measured as it is
    data = open_dataset(spec, resolution=config["resolution"], cache=cache_of(config))
    order = np.random.default_rng(0).permutation(data.num_images)  # files often come by class

    def sample(start: int, count: int) -> torch.Tensor:
        return torch.from_numpy(data.images(order[start : start + count]))

    return Fakes(sample, "images", data.content_hash, data.num_images), str(path)


def source_model(
    config: dict[str, Any], device: torch.device | str
) -> tuple[AdversarialModel, str] | None:
    """The source model of a run and its digest, if the metrics need it: named, or the run's own.

    ValueError if the one that is found is not the one that the run began from.
    """
    if not any(p.needs("G_source") for p in expand(config["metric"]["names"])):
        return None
    named, run = (config["source"] or {}).get("checkpoint"), config["run"]
    transferred = run.get("pretrain") and run["source"]["kind"] != "scratch"
    path = named or (find_source(pretrain_config(run), cache_of(config)) if transferred else None)
    if path is None:
        return None
    model, source = restore(path)
    wanted = config.get("run_source")
    if not named and wanted and wanted != source.sha256:
        raise ValueError(
            f"{path}: the source model was trained again since this run (sha256 "
            f"{source.sha256[:12]}, the run began from {wanted[:12]}); name the one you mean: "
            "source=checkpoint source.checkpoint=…"
        )
    return model.to(device), source.sha256


def _used(metric: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Extractor → its path, digest and heads, of those that the metrics need."""
    names = {p.extractor for p in expand(metric["names"])} - {None}
    return {name: metric["extractors"].get(name, {}) for name in sorted(names)}
