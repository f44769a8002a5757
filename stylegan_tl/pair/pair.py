"""Both datasets and the networks that measure them, opened; and where the source model lies."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_tl.assembly import Target, cache_of, open_domain
from stylegan_tl.config import ConfigError, pretrain_config
from stylegan_tl.data.split import n_shot
from stylegan_tl.measuring import device_of
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.reference import Reference, cached_reference, reference_hash
from stylegan_tl.pair.checks import MIN_IMAGES, extractor_of
from stylegan_tl.source.obtain import find_source, obtain_source
from stylegan_tl.source.portable import SourceModel

__all__ = ["Pair", "open_pair", "source_file"]

say = logging.getLogger("stylegan_tl").info


@dataclass
class Pair:
    """Both datasets (`train`: the images to measure), the networks that measure, the device.

    `source_model` is set once it is known.
    """

    config: dict[str, Any]
    source: Target
    target: Target
    extractor: Extractor
    perceptual: Extractor
    device: torch.device
    source_model: SourceModel | None = None

    def reference(self, side: Target) -> Reference:
        """Features of the images of a side, from the cache if they are there."""
        return cached_reference(self.extractor, side.dataset, side.train, cache=self.statistics)

    @property
    def statistics(self) -> Path:
        """The folder where statistics of images are kept."""
        return cache_of(self.config) / "statistics"

    @property
    def inputs(self) -> list[Any]:
        """What every record depends on: the images by content, the extractor."""
        sides = [
            [self.config[role]["name"], reference_hash(side.dataset, side.train)]
            for role, side in (("source", self.source), ("target", self.target))
        ]
        e, rounds = self.extractor, self.config["metric"]["rounds"]
        drawn = [rounds, self.config["seed"]] if rounds else []
        return [*sides, e.name, e.digest, e.resize, e.precision, *drawn]

    @property
    def held_out_inputs(self) -> list[Any]:
        """What depends on the source's held-out images too."""
        return [reference_hash(self.source.dataset, self.source.held_out)]


def open_pair(config: dict[str, Any]) -> Pair:
    """Open both sides (packing once, if need be) and choose the images; ConfigError if too few."""
    sides, problems = {}, []
    least = MIN_IMAGES * (2 if config["metric"]["rounds"] else 1)  # intervals come from halves
    shares = {"source": config["pretrain"]["held_out"], "target": config["held_out"]}
    for role, held_out in shares.items():
        side = open_domain(config[role], {**config, "held_out": held_out})
        if (count := min(len(side.train), config["num_images"])) < least:
            problems.append(
                f"{role}: {config[role]['name']} has {count} images to measure of "
                f"{len(side.train)}, besides {len(side.held_out)} held out; at least {least} are "
                "needed"
            )
            continue
        sides[role] = Target(side.dataset, _some(side.train, config), _some(side.held_out, config))
    if problems:
        raise ConfigError("the pair cannot be measured:\n  " + "\n  ".join(problems))
    device = device_of(config["device"])
    extractor, own = extractor_of(config, config["extractor"]).to(device), config["inversion"]
    perceptual = extractor_of(config, own["extractor"] if own["images"] else "small").to(device)
    return Pair(config, sides["source"], sides["target"], extractor, perceptual, device)


def _some(indices: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """`num_images` of them, chosen by `seed`; all where there are fewer."""
    count = min(config["num_images"], len(indices))
    return n_shot(indices, count, config["seed"]) if count else indices


def source_file(config: dict[str, Any]) -> Path | None:
    """Where the source model lies; with `train_source` it is trained first if there is none."""
    if config["source"]["checkpoint"]:
        return Path(config["source"]["checkpoint"])
    wanted = pretrain_config(_training(config))
    found = find_source(wanted, cache_of(config))
    if found is None and config["train_source"]:
        found = obtain_source(wanted, cache_of(config), _train, say).path
    return found


def _training(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that the train command would have, so that both mean the same source model."""
    keys = ("source", "model", "pretrain", "resolution", "trainer", "logger", "runs", "cache")
    return {**{k: config[k] for k in keys}, "dry_run": False}


def _train(config: dict[str, Any], folder: Path) -> None:
    from stylegan_tl.runner import run_trial

    choices = {"source": "scratch", "target": config["target"]["name"], "freeze": "none"}
    code = run_trial(config, folder, choices=choices)
    if code:  # a signal; the same command resumes
        raise SystemExit(code)
