"""What can be wrong with the configuration of a pair, told at once and before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.config import (
    ConfigError,
    measuring_problems,
    resolution_problems,
    share_problems,
)
from stylegan_tl.data.errors import hint
from stylegan_tl.measuring import device_of
from stylegan_tl.metrics.features import Extractor, check_extractor, load_extractor
from stylegan_tl.metrics.protocol import FEATURES, PERCEPTUAL
from stylegan_tl.metrics.reference import MAX_FEATURES
from stylegan_tl.source.portable import read_model

__all__ = ["MIN_IMAGES", "check", "extractor_of"]

MIN_IMAGES = 6  # coverage looks at the fifth neighbour


def check(config: dict[str, Any]) -> None:
    """Raise ConfigError with everything that is wrong with the configuration."""
    problems = [*_numbers(config), *_sides(config), *_extractors(config)]
    if problems:
        raise ConfigError("the configuration cannot run:\n  " + "\n  ".join(problems))


def extractor_of(config: dict[str, Any], name: str) -> Extractor:
    """Open an extractor from the files that `metric.extractors` names for it."""
    metric = config["metric"]
    own = metric["extractors"].get(name) or {}
    return load_extractor(name, **own, precision=metric["precision"])


def _numbers(config: dict[str, Any]) -> list[str]:
    problems, inversion = resolution_problems(config["resolution"]), config["inversion"]
    if not _whole(config["num_images"], MIN_IMAGES) or config["num_images"] > MAX_FEATURES:
        problems.append(
            f"num_images={config['num_images']}: use a whole number from {MIN_IMAGES} to "
            f"{MAX_FEATURES}"
        )
    for key, value, least in (
        ("seed", config["seed"], 0),
        ("inversion.images", inversion["images"], 0),
        ("inversion.steps", inversion["steps"], 1),
    ):
        if not _whole(value, least):
            problems.append(f"{key}={value}: use a whole number from {least}")
    problems += measuring_problems(config["metric"])
    problems += share_problems("held_out", config["held_out"])
    problems += share_problems("pretrain.held_out", config["pretrain"]["held_out"])
    try:
        device_of(config["device"])
    except ValueError as error:
        problems.append(str(error))
    return problems


def _sides(config: dict[str, Any]) -> list[str]:
    problems = []
    source = config["source"]
    if source["kind"] in ("scratch", "checkpoint"):
        return [
            f"source={source['kind']} has no images: name the dataset, source=<dataset>, and its "
            "model by source.checkpoint=<file> if there is one"
        ]
    for role in ("source", "target"):
        path = config[role].get("path")
        if path is not None and not Path(path).expanduser().exists():
            seen = f"(seen from {Path.cwd()}){hint(path)}"
            problems.append(f"{role}.path={path}: does not exist {seen}")
    if source["checkpoint"] is not None:
        problems += _checkpoint(source["checkpoint"], config["resolution"])
    return problems


def _checkpoint(path: str, resolution: int) -> list[str]:
    try:
        trained = read_model(Path(path)).network["resolution"]
    except ValueError as error:
        return [str(error)]
    if trained == resolution:
        return []
    return [
        f"source.checkpoint={path} was trained at {trained} px, resolution={resolution}: use "
        f"resolution={trained}"
    ]


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _extractors(config: dict[str, Any]) -> list[str]:
    problems, own, files = [], config["inversion"], config["metric"]["extractors"]
    wanted = [("extractor", config["extractor"], FEATURES)]
    wanted += [("inversion.extractor", own["extractor"], PERCEPTUAL)] if own["images"] else []
    for key, name, allowed in wanted:
        if name not in allowed:
            problems.append(f"{key}={name}: use {', '.join(allowed)}")
            continue
        try:
            check_extractor(name, **(files.get(name) or {}))
        except ValueError as error:
            problems.append(f"{key}={name}: {error}")
    return problems
