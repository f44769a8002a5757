"""The parts of a trial, each from the configuration: data, model with its source, measuring."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate

from stylegan_tl.callbacks import FixedSamples
from stylegan_tl.data.open import open_dataset
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.split import n_shot, split
from stylegan_tl.freeze.base import Freeze
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.metrics.catalogue import verified
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.models.inherited import Inherited
from stylegan_tl.restore import check_fit
from stylegan_tl.source.catalogue import PREFIX, holding
from stylegan_tl.source.classes import ClassMatch, class_tables, match_classes, with_classes
from stylegan_tl.source.load import LoadReport, load_into
from stylegan_tl.source.portable import SourceError, SourceModel, read_model

__all__ = [
    "Target",
    "blank_model",
    "build",
    "cache_of",
    "check_strategy",
    "check_target",
    "model_of",
    "named_source",
    "open_domain",
    "open_target",
    "samples_of",
]

say = logging.getLogger("stylegan_tl").info


@dataclass
class Target:
    """The target's images: the packed dataset, and which of them train and which are held out."""

    dataset: PackedDataset
    train: np.ndarray
    held_out: np.ndarray

    @property
    def splits(self) -> dict[str, tuple[PackedDataset, np.ndarray]]:
        """What the metrics compare with, by the split's name in a protocol."""
        chosen = {"train": self.train, "heldout": self.held_out}
        chosen["full"] = np.arange(self.dataset.num_images)
        return {name: (self.dataset, indices) for name, indices in chosen.items()}


def open_domain(
    option: dict[str, Any], config: dict[str, Any], num_images: int | None = None
) -> Target:
    """Open (packing once, if need be) a dataset, set images aside, choose the n shots."""
    spec = {k: v for k, v in option.items() if k not in ("xflip", "checkpoint")}
    dataset = open_dataset(spec, resolution=config["resolution"], cache=cache_of(config))
    train, held_out = split(dataset.image_hashes, config["held_out"])
    return Target(dataset, n_shot(train, num_images, config["seed"]), held_out)


def open_target(config: dict[str, Any]) -> Target:
    """The target's images, its n shots chosen."""
    return open_domain(config["target"], config, config["num_images"])


def cache_of(config: dict[str, Any]) -> Path:
    """The folder for packed data, statistics and source models."""
    return Path(config["cache"]).expanduser()


def model_of(config: dict[str, Any], network: dict[str, Any]) -> AdversarialModel:
    """A fresh model of the configured family and training plan with the given network."""
    return _made(config, _fields(config), network)


def named_source(config: dict[str, Any]) -> SourceModel | None:
    """The model that `source.checkpoint` names, or None; it must fit `model=` and `resolution=`."""
    path = config["source"].get("checkpoint")
    if not path:
        return None
    public = holding(path)
    for file in public.files if public else ():
        if (place := public.path.with_name(file.name)).is_file():
            verified(file, place)
    source = read_model(Path(path))
    if public is not None:
        source.dataset = public.domain
        source.extra |= {"licence": public.licence, "catalogue": f"{PREFIX}{public.name}"}
    _inherited(config, source)
    return source


def blank_model(
    config: dict[str, Any], strategy: Strategy, named: SourceModel | None
) -> AdversarialModel:
    """The networks of the source model that is named, or else of `model=`, without any values."""
    some = 2 if strategy.adds_classes else 0  # a source that is not there yet may have classes
    fields = _fields(config)
    network = {**config["model"]["network"], "c_dim": some, **strategy.network}
    if named:
        inherited = _inherited(config, named)
        fields, network = inherited.fields, _network(config, inherited, strategy)
    with torch.device("meta"):
        return _made(config, fields, network)


def check_strategy(
    freeze: Freeze, config: dict[str, Any], named: SourceModel | None
) -> AdversarialModel:
    """The blank model; fails if the strategy does not fit it, before a source model is trained."""
    if freeze.strategy.objective and config["augment"].get("_target_"):
        raise ValueError("freeze: this strategy has no D to augment images for; use augment=none")
    blank = blank_model(config, freeze.strategy, named)
    freeze.select(blank)
    return blank


def check_target(target: Target, strategy: Strategy) -> None:
    """Raise ValueError if the strategy adds classes and the target has none."""
    if strategy.adds_classes and not target.dataset.label_dim:
        raise ValueError(
            f"freeze=add_category: {target.dataset.name} has no classes; put its images into one "
            "subfolder for each, the source's among them"
        )


def build(
    config: dict[str, Any],
    dataset: PackedDataset,
    source: SourceModel | None,
    strategy: Strategy,
) -> tuple[AdversarialModel, dict[str, LoadReport]]:
    """The model with the source's weights in it where the strategy says so, and the reports."""
    augment = instantiate(config["augment"]) if config["augment"].get("_target_") else None
    if source is None:
        model = model_of(config, {**config["model"]["network"], "c_dim": dataset.label_dim})
        reports = {}
    else:
        model, reports = _from_source(config, dataset, source, strategy)
    model.augment = augment
    model.lineage = {
        "dataset": config["target"]["name"],
        "content_hash": dataset.content_hash,
        "classes": [*(dataset.meta.get("classes") or ())] if model.G.c_dim else [],
        "num_images": config["num_images"],
        "freeze": config["freeze"],
        "source": None if source is None else source.record(),
    }
    return model, reports


def _from_source(
    config: dict[str, Any], dataset: PackedDataset, source: SourceModel, strategy: Strategy
) -> tuple[AdversarialModel, dict[str, LoadReport]]:
    inherited = _inherited(config, source)
    for key, value in config["model"]["network"].items():
        if inherited.network.get(key, value) != value:
            say(f"model.network.{key}: the source has {source.network[key]}, not {value}; used")
    had = source.network.get("c_dim", 0)
    c_dim = dataset.label_dim if had else 0  # an unconditional source stays unconditional
    network = {**_network(config, inherited, strategy), "c_dim": c_dim}
    reinit = inherited.fresh
    if network.get("miner") and not source.network.get("miner"):
        reinit += ("G.mapping.miner", "G_ema.mapping.miner", "G.miner", "G_ema.miner")
    model = _made(config, inherited.fields, network)
    networks = [name for name, origin in strategy.init.items() if origin == "source"]
    model.from_source = tuple(networks)
    match = _classes(source, dataset, strategy) if had else None
    if match is not None:
        source, model.new_classes = with_classes(source, model, match), match.new
    reports = load_into(model, source, networks=networks, reinit=reinit, left=inherited.left)
    model.reinitialised = reinit + (_new_tables(model) if match and match.new else ())
    for report in reports.values():
        if match is not None:
            report.classes, report.dropped = dict(match.origin), [*match.dropped]
        elif dataset.label_dim:
            names = dataset.meta.get("classes") or range(dataset.label_dim)
            report.unused = [str(name) for name in names]
    return model, reports


def _classes(source: SourceModel, dataset: PackedDataset, strategy: Strategy) -> ClassMatch:
    """Where the target's classes come from in a conditional source."""
    if not dataset.label_dim:
        raise SourceError(
            f"{source.path} has {source.network['c_dim']} classes and the target has none: put its "
            "images into two subfolders or more, one for each class (one alone is none), or use a "
            "source without classes"
        )
    return match_classes(
        source,
        dataset.label_dim,
        dataset.meta.get("classes") or (),
        new=strategy.new_classes,
        adding=strategy.adds_classes,
    )


def _new_tables(model: AdversarialModel) -> tuple[str, ...]:
    """The class tables by name: with rows that no source gave, no strategy keeps them still."""
    return tuple(n for name in class_tables(model) for n in (name, name.replace("G.", "G_ema.", 1)))


def _network(config: dict[str, Any], inherited: Inherited, strategy: Strategy) -> dict[str, Any]:
    """What a transfer builds: the source's sizes; those of a new D that it does not name are ours.

    Keys of D alone end in _D.
    """
    own = {k: v for k, v in config["model"]["network"].items() if k.endswith("_D")}
    own = {} if strategy.init.get("D") == "source" else own
    return {**own, **inherited.network, **strategy.network}


def _fields(config: dict[str, Any]) -> dict[str, Any]:
    """What the model is made with besides its network."""
    return {k: v for k, v in config["model"].items() if k != "network"}


def _made(
    config: dict[str, Any], fields: Mapping[str, Any], network: Mapping[str, Any]
) -> AdversarialModel:
    return instantiate(fields, network=network, seed=config["seed"], _convert_="all")


def _inherited(config: dict[str, Any], source: SourceModel) -> Inherited:
    """What is built on the source model, which must be of the configured family and fit it.

    Every source model passes here before a network of its sizes is built.
    """
    if source.model != config["model"]["_target_"]:
        raise SourceError(
            f"{source.path} is a {source.model}, model= is {config['model']['_target_']}: "
            "choose the model option of the source"
        )
    family = get_class(source.model)
    check_fit(family, source)
    try:
        return family.inherit(
            _fields(config), source.network, source.state("G_ema"), config["resolution"]
        )
    except ValueError as error:
        raise SourceError(f"{source.path} {error}") from None


def samples_of(config: dict[str, Any], model: AdversarialModel) -> FixedSamples:
    """The latents, and for a conditional model the classes, of every grid."""
    count = config["grid"]["columns"] * config["grid"]["rows"]
    labels = None
    if model.G.c_dim:  # one class per row, in turn
        classes = np.arange(count) // config["grid"]["columns"] % model.G.c_dim
        labels = np.eye(model.G.c_dim, dtype=np.float32)[classes]
    return FixedSamples(count, config["grid"]["seed"], labels)
