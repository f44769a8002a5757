"""Where the configuration lives, how datasets become source= and target=, and what is allowed.

Light: the command line imports this before anything heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_tl.study.job import readable

__all__ = [
    "ConfigError",
    "conf_dir",
    "config_dirs",
    "freeze_name",
    "measuring_problems",
    "plain",
    "pretrain_config",
    "readable",
    "resolution_problems",
    "share_problems",
    "validate",
]


_ANY = 1e12
_OF_MODEL = {
    **dict.fromkeys(("pretrain_kimg", "class_weight", "pretrain_class_weight"), (0, _ANY)),
    **dict.fromkeys(("pl_weight", "pl_interval"), (0, _ANY)),
    **dict.fromkeys(("magnitude_kimg", "blur_fade_kimg"), (0, _ANY)),
    "blur_init_sigma": (0, 1000),
    "style_mixing": (0, 1),
}
_OF_NETWORK = {"clamp": (0.001, _ANY), "output_scale": (0.001, 1000)}
_NEEDED = ("magnitude_kimg", "blur_fade_kimg", "blur_init_sigma", "output_scale")  # never null
_OF_TRAINING = {
    **dict.fromkeys(("lr_G", "lr_D", "r1_gamma", "ema_kimg", "ema_rampup"), (0, _ANY)),
    "betas": (0, 0.99999),
}


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, all at once."""


def conf_dir() -> str:
    """The configuration folder: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    beside = package.parent / "conf"
    return str(beside if (beside / "train.yaml").is_file() else package / "conf")


def freeze_name(choice: str, schedule: str, anchors: Sequence[str]) -> str:
    """One name for a strategy with all that was added to it, so that no two are mixed up.

    >>> freeze_name("freeze_d", "head_warmup", ["cdc"])
    'freeze_d+cdc+head_warmup'
    """
    added = [*(a for a in anchors if a != choice), *([] if schedule == "none" else [schedule])]
    return "+".join([choice, *added])


def plain(cfg: Any) -> dict[str, Any]:
    """A composed configuration as a plain dictionary; ConfigError names every missing value.

    Keys are strings, as they are once it has been a JSON file.
    """
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError("a value is needed for: " + ", ".join(f"{k}=…" for k in missing))
    return _by_name(OmegaConf.to_container(cfg, resolve=True))


def _by_name(value: Any) -> Any:
    if isinstance(value, list):
        return [_by_name(item) for item in value]
    return {str(k): _by_name(v) for k, v in value.items()} if isinstance(value, dict) else value


def quote_paths(arguments: list[str]) -> list[str]:
    """Command-line arguments with quotes around existing paths: Hydra trips over `=` in them.

    >>> quote_paths(["checkpoint=.", "seed=3"])
    ["checkpoint='.'", 'seed=3']
    """
    quoted = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        names_one = key.endswith(("checkpoint", "path")) or key in (
            "images",
            "against",
            "in",
            "out",
        )
        is_path = names_one and value and value[0] not in "'\"[{$"
        exists = is_path and Path(value).expanduser().exists()
        misread = is_path and "=" in value and "'" not in value  # whether it is there or not
        quoted.append(f"{key}='{value}'" if equals and (exists or misread) else argument)
    return quoted


def pretrain_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the run that trains the source model: the source dataset, from scratch.

    Its model and augmentation are those of `pretrain.model` and `pretrain.augment`, whatever the
    transfer changes, so that comparisons of transfers share one source model. The network is
    the transfer's. Nothing else of the transfer leaks in: the same source is asked for by many.
    """
    own = config["pretrain"]
    model = {**own["model"], "network": config["model"]["network"]}
    if model.get("growth"):  # of the transfer
        model["growth"] = {**model["growth"], "start_resolution": None}
    target = {k: v for k, v in config["source"].items() if k != "checkpoint"}
    return {
        **config,
        "study": {"name": "sources"},
        "source": {"kind": "scratch", "name": "scratch", "checkpoint": None},
        "target": target,
        "freeze": {"_target_": "stylegan_tl.freeze.none.none"},
        "model": model,
        "augment": own["augment"],
        "kimg": own["kimg"],
        "kimg_per_tick": own["kimg"] / 20,
        "seed": own["seed"],
        "num_images": own["num_images"],
        "held_out": own["held_out"],
        "metric": {"names": [], "best": None, "every_ticks": 1, "extractors": {}},
        "grid": {"columns": 8, "rows": 4, "seed": 0},
        "pretrain": {},
    }


def validate(config: dict[str, Any]) -> None:
    """Check what spans several keys; raises ConfigError with every problem, before any work."""
    _refuse([*_numbers(config), *_datasets(config), *_training(config), *_metrics(config)])


def validate_values(config: dict[str, Any]) -> None:
    """As `validate`, but wherever the images lie: they may be on another machine."""
    _refuse([*_numbers(config), *_training(config), *_metrics(config)])


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError("the configuration cannot run:\n  " + "\n  ".join(problems))


def resolution_problems(resolution: Any) -> list[str]:
    """What is wrong with `resolution=`: nothing, or one line."""
    if _is_int(resolution) and resolution >= 8 and not resolution & (resolution - 1):
        return []
    return [f"resolution={resolution}: use a power of two from 8, for example 64"]


def share_problems(key: str, value: Any) -> list[str]:
    """What is wrong with a share of images that is held out."""
    if _is_number(value) and 0 <= value < 1:
        return []
    return [f"{key}={value}: use a share from 0 up to 1, such as 0.1"]


def measuring_problems(metric: dict[str, Any]) -> list[str]:
    """What is wrong with how metrics are measured, whichever they are."""
    from stylegan_tl.metrics.protocol import LEAST_ROUNDS, PRECISIONS

    problems = []
    if not _is_int(metric["rounds"]) or 0 != metric["rounds"] < LEAST_ROUNDS:
        problems.append(f"metric.rounds={metric['rounds']}: use 0, or at least {LEAST_ROUNDS}")
    if metric["precision"] not in PRECISIONS:
        problems.append(f"metric.precision={metric['precision']}: use {' or '.join(PRECISIONS)}")
    return problems


def _numbers(config: dict[str, Any]) -> list[str]:
    problems = resolution_problems(config["resolution"])
    positive = {k: config[k] for k in ("kimg", "kimg_per_tick")}
    positive["pretrain.kimg"] = config["pretrain"]["kimg"]
    for key, value in positive.items():
        if not _is_number(value) or not 0 < value < float("inf"):
            problems.append(f"{key}={value}: use a number above 0")
    counts = {f"grid.{k}": config["grid"][k] for k in ("columns", "rows")}
    counts["metric.every_ticks"] = config["metric"]["every_ticks"]
    for key, value in counts.items():
        if not _is_int(value) or value < 1:
            problems.append(f"{key}={value}: use a whole number from 1")
    if not _is_int(config["seed"]) or config["seed"] < 0:
        problems.append(f"seed={config['seed']}: use a whole number from 0")
    count = config["num_images"]
    if count is not None and (not _is_int(count) or count < 1):
        problems.append(f"num_images={count}: use a whole number from 1, or null for all images")
    return problems + share_problems("held_out", config["held_out"])


def _datasets(config: dict[str, Any]) -> list[str]:
    from stylegan_tl.data.errors import hint
    from stylegan_tl.source import catalogue

    problems = []
    source, freeze = config["source"], config["freeze"]["_target_"].split(".")[-1]
    if source["kind"] == "scratch" and freeze not in ("none", "scratch"):
        problems.append(
            "source=scratch with a freeze strategy would freeze random weights: "
            "use freeze=none, or name a source"
        )
    for part in ("anchor", "schedule"):
        if source["kind"] == "scratch" and config["freeze"].get(part):
            problems.append(
                f"freeze/{part} with source=scratch: there is no source to stay near; leave "
                f"freeze/{part} out, or name a source"
            )
    checkpoint = source.get("checkpoint")
    if checkpoint is not None and not Path(checkpoint).expanduser().exists():
        known = catalogue.holding(checkpoint)
        here = f"source.checkpoint={checkpoint}: does not exist (seen from {Path.cwd()})"
        problems.append(catalogue.missing(known) if known else here)
    for role in ("source", "target"):
        path = config[role].get("path")
        if path is not None and not config[role].get("checkpoint"):
            if not Path(path).expanduser().exists():
                seen = f"(seen from {Path.cwd()}){hint(path)}"
                problems.append(f"{role}.path={path}: does not exist {seen}")
    return problems


def _phases(config: dict[str, Any]) -> list[str]:
    """What of a model's phases makes no sense from scratch, or in so small a budget."""
    if config["source"]["kind"] != "scratch":
        return []
    model, problems = config["model"], []
    first = model.get("pretrain_kimg") or 0
    if _is_number(first) and _is_number(config["kimg"]) and 0 < config["kimg"] <= first:
        problems.append(
            f"kimg={config['kimg']} ends within model.pretrain_kimg={first}, in which D learns the "
            "classes and G rests: raise kimg or lower model.pretrain_kimg"
        )
    if (start := (model.get("growth") or {}).get("start_resolution")) is not None:
        problems.append(
            f"model.growth.start_resolution={start} is where a transfer begins: from scratch use "
            "model.growth.lod_initial_resolution"
        )
    return problems


def _training(config: dict[str, Any]) -> list[str]:
    plan = config["model"]["training"]
    problems = _phases(config)
    for key in ("batch_size", "micro_batch", "r1_interval", "G_steps", "D_steps"):
        value = plan.get(key)  # an option of the user's own need not have the steps
        if value is None and key != "batch_size":
            continue
        if not _is_int(value) or value < 1:
            problems.append(f"model.training.{key}={value}: use a whole number from 1")
    for name, model in (("", config["model"]), ("pretrain.", config["pretrain"].get("model"))):
        problems += _ranges(f"{name}model", model or {}, _OF_MODEL)
        problems += _ranges(
            f"{name}model.training", (model or {}).get("training", {}), _OF_TRAINING
        )
    problems += _ranges("model.network", config["model"]["network"], _OF_NETWORK)
    problems += _layers(config["model"])
    return problems + _devices(config["trainer"], config)


def _ranges(where: str, values: dict[str, Any], ranges: dict[str, tuple[float, ...]]) -> list[str]:
    """What lies outside of its range; a key that is absent is the model's own matter.

    So is null where the model has a meaning for it.
    """
    problems = []
    for key in [key for key in ranges if key in values]:
        (low, high), found = ranges[key], values[key]
        for value in found if isinstance(found, list) else [found]:
            may_be = value is None and key not in _NEEDED
            if not may_be and not (_is_number(value) and low <= value <= high):
                allowed = f"of {low:g} or more" if high == _ANY else f"from {low:g} to {high:g}"
                problems.append(f"{where}.{key}={value}: use a number {allowed}")
    return problems


def _layers(model: dict[str, Any]) -> list[str]:
    """What is wrong with the layers of a StyleGAN3's generator: nothing, or one line."""
    if not model["_target_"].endswith(".StyleGAN3"):
        return []
    from stylegan_tl.networks.alias_free import bands
    from stylegan_tl.networks.stylegan3 import arguments

    try:
        of_G, _ = arguments(model["network"])
        if not resolution_problems(of_G["resolution"]):
            bands(of_G["resolution"], of_G["design"])
    except ValueError as error:
        return [f"model.{error}"]
    return []


def _devices(trainer: dict[str, Any], config: dict[str, Any]) -> list[str]:
    devices, problems = trainer["devices"], []
    indices = isinstance(devices, list) and devices and all(map(_is_int, devices))
    if not indices and not (_is_int(devices) and devices >= 1):
        return [f"trainer.devices={devices}: use a whole number from 1, or indices such as [0,1]"]
    count = len(devices) if indices else devices
    if count > 1 and trainer["strategy"] not in ("auto", "ddp"):
        problems.append(f"trainer.strategy={trainer['strategy']}: use ddp for several devices")
    for name, model in (("", config["model"]), ("pretrain.", config["pretrain"].get("model"))):
        for key, size in _batch_sizes(model or {}):
            if _is_int(size) and size % count:
                said = f"{name}model.{key}={size}"
                problems.append(f"{said}: {count} devices share it equally, so use a multiple")
    return problems


def _batch_sizes(model: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every batch size of a model's options, by key: also those of single resolutions."""
    by_resolution = ((model.get("growth") or {}).get("batch_size") or {}).items()
    plan = [("training.batch_size", model["training"]["batch_size"])] if model else []
    return plan + [(f"growth.batch_size.{at}", size) for at, size in by_resolution]


def _metrics(config: dict[str, Any]) -> list[str]:
    from stylegan_tl.metrics.protocol import expand

    metric = config["metric"]
    given, names = metric["names"], []
    if wrong := _not_a_list(given):
        return [wrong, *measuring_problems(metric)]
    problems = measuring_problems(metric)
    for name in given:
        try:
            protocols = expand([name])
        except ValueError as error:
            problems.append(f"metric.names: {error}")
            continue
        names += map(str, protocols)
        if not config["held_out"] and any("heldout" in p.splits for p in protocols):
            problems.append(f"metric.names: {name} needs held_out above 0")
    if metric["best"] is not None and metric["best"] not in names:
        problems.append(f"metric.best={metric['best']} is not one of metric.names")
    return problems


def _not_a_list(names: Any) -> str | None:
    """What to say of `metric.names` if it is no list of names."""
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return None
    likely = names if isinstance(names, str) else "…"
    return f"metric.names={names}: names is a list: metric.names=[{likely}]"


def config_dirs(argv: Sequence[str]) -> list[str]:
    """The folders that `--config-dir` names on a command line."""
    found = [b for a, b in zip(argv, argv[1:], strict=False) if a in ("--config-dir", "-cd")]
    return found + [a.partition("=")[2] for a in argv if a.startswith("--config-dir=")]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
