"""What the page knows of a study: its trials, source models, differences."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stylegan_tl.study.trial import MetricsLog, Trial

__all__ = ["Study", "collect", "scratch_name", "usual_augment"]

_OWN = ("source", "target", "freeze", "model", "experiment", "metric", "study")  # no variant
_CLOCK = ("tick", "kimg", "nimg", "seconds", "eta_seconds", "evaluations", "change", "flags")
_NOT_COMPARED = ("num_reals", "reference_hash")  # protocol of the target, not of the metric
_NAMED_BY_PATH = ("folder", "zip", "packed", "nvidia", "checkpoint")
_UNSAID = ("seed", "runs", "cache", "dry_run", "logger", "trainer", "hydra", "study")


class Study:
    """The records of a study, small enough to keep: everything but pictures."""

    def __init__(self) -> None:
        self.trials: list[dict[str, Any]] = []
        self.runs: list[tuple[Path, dict[str, Any]]] = []  # folder, what its grids look like
        self.sources: dict[str, dict[str, Any]] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.differences: dict[str, dict[str, list[Any]]] = {}
        self.problems: list[str] = []
        self.names: Counter[str] = Counter()


def collect(
    folders: Iterable[Path], base: Path, factors: Sequence[str] = (), points: int = 64
) -> Study:
    """Read every `trial.json` under `folders`; paths are written relative to `base`.

    A record that cannot be read is a problem to be shown, not an error. `factors` are keys of the
    configuration that tell cells apart, besides the choices; `points` bounds the values kept of
    each training curve.
    """
    study = Study()
    configs: list[dict[str, Any]] = []  # of each trial, what differs from the first one's
    choices: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for path in _records(folders):
        try:
            trial = Trial.load(path)
        except (OSError, ValueError) as error:
            study.problems.append(f"{os.path.relpath(path, base)}: {error}")
            continue
        study.names[trial.study] += 1
        choices.append({**{f: _value(trial.config, f) for f in factors}, **trial.choices})
        entry = _entry(trial, path.parent, base, study, points)
        study.trials.append(entry)
        layout = {k: trial.config.get(k) for k in ("resolution", "grid")}
        study.runs.append((path.parent, layout))
        config = _small(trial.config)
        first = first or config
        configs.append({k: config.get(k) for k in first | config if _other(k, first, config)})
    _name_variants(study, choices)
    study.differences = _differences(study.trials, configs, first)
    return study


def _records(folders: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for folder in folders:
        for path in sorted(Path(folder).rglob("trial.json")):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _entry(trial: Trial, folder: Path, base: Path, study: Study, points: int) -> dict[str, Any]:
    for name, metric in trial.metrics.items():
        _know_metric(study, name, metric)
    parent = _know_source(study, trial.source)
    scratch = _is_scratch(trial)
    share = {net: trial.freeze[net].get("share") for net in "GD" if net in trial.freeze}
    return {
        "id": len(study.trials),
        "source": "scratch" if scratch else _chain(trial.source) or _option(trial, "source"),
        "target": _option(trial, "target"),
        "freeze": "none" if scratch else str(trial.choices.get("freeze") or "none"),
        "model": str(trial.choices.get("model") or "model"),
        "augment": str(trial.choices.get("augment") or "none"),
        "scratch": scratch,
        "seed": trial.seed,
        "state": trial.state,
        "reason": trial.reason,
        "kimg": _short(trial.kimg),
        "budget": trial.config.get("kimg"),
        "seconds": _short(trial.wall_seconds),
        "pace": _short(trial.s_per_kimg),
        "started": trial.started,
        "folder": quote(Path(os.path.relpath(folder, base)).as_posix()) + "/",
        "path": Path(os.path.relpath(folder, base)).as_posix(),
        "command": _command(trial.command),
        "commit": trial.commit,
        "hardware": trial.hardware.get("gpu") or trial.hardware.get("cpu"),
        "torch": trial.versions.get("torch"),
        "share": share,
        "parent": parent,
        "flags": getattr(trial, "flags", []),
        "metrics": {
            name: [[_short(at.get(k)) for k in ("kimg", "value", "stderr")] for at in entry["at"]]
            for name, entry in trial.metrics.items()
        },
        "logs": _logs(folder / "metrics.jsonl", set(trial.metrics), points, study),
    }


def _option(trial: Trial, group: str) -> str:
    """The chosen option, or the name that a dataset given by its path has."""
    named, chosen = (trial.config.get(group) or {}).get("name"), trial.choices.get(group)
    return str((None if chosen in _NAMED_BY_PATH else chosen) or named or chosen or "unknown")


def _value(config: Mapping[str, Any], factor: str) -> Any:
    value: Any = config
    for part in factor.split("@")[-1].replace("/", ".").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_scratch(trial: Trial) -> bool:
    if (trial.config.get("source") or {}).get("kind") == "scratch":
        return True
    init = trial.freeze.get("init") or {}
    named = "scratch" in (trial.choices.get("source"), trial.choices.get("freeze"))
    return named or (bool(init) and "source" not in init.values())


def _chain(source: Mapping[str, Any] | None) -> str:
    """`a->b` for a source model that was itself transferred from a to b."""
    names = []
    while source:
        names.append(str(source.get("name")))
        source = (source.get("lineage") or {}).get("source")
    return "->".join(reversed(names)) if len(names) > 1 else ""


def _know_metric(study: Study, name: str, metric: Mapping[str, Any]) -> None:
    protocol = {k: v for k, v in metric["protocol"].items() if k not in _NOT_COMPARED}
    known = study.metrics.setdefault(name, {"better": metric["better"], "protocol": protocol})
    for key in protocol.keys() | known["protocol"].keys():
        if protocol.get(key) != known["protocol"].get(key):
            problem = (
                f"{name} was not measured alike in all trials: {key} is "
                f"{known['protocol'].get(key)!r} and {protocol.get(key)!r}"
            )
            if problem not in study.problems:
                study.problems.append(problem)


def _know_source(study: Study, source: Mapping[str, Any] | None) -> str | None:
    if not source:
        return None
    lineage = source.get("lineage") or {}
    key = str(source.get("sha256") or source.get("name"))
    if key not in study.sources:
        study.sources[key] = {
            "name": source.get("name"),
            "kimg": source.get("kimg"),
            "model": str(source.get("model") or "").rpartition(".")[2],
            "sha256": source.get("sha256"),
            "data": lineage.get("content_hash"),
            "images": lineage.get("num_images"),
            "parent": _know_source(study, lineage.get("source")),
        }
    return key


def _logs(path: Path, measured: set[str], points: int, study: Study) -> dict[str, list]:
    """Training curves of `metrics.jsonl`: every number but the clock and the metrics."""
    try:
        rows = MetricsLog(path).read()
    except (OSError, ValueError) as error:
        study.problems.append(str(error))
        return {}
    curves: dict[str, list] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and name not in _CLOCK and name not in measured and "kimg" in row:
                curves[name].append([_short(row["kimg"]), _short(value)])
    return {name: _thinned(curve, points) for name, curve in curves.items()}


def _thinned(curve: list, points: int) -> list:
    if len(curve) <= points:
        return curve
    return [curve[round(i * (len(curve) - 1) / (points - 1))] for i in range(points)]


def _name_variants(study: Study, choices: Sequence[Mapping[str, Any]]) -> None:
    """Name the choices beyond the four factors that vary: each is a matrix of its own.

    Augmentation of scratch alone is no variant: it is the second baseline.
    """
    varying = []
    usual = usual_augment(study)
    for key in sorted({key for choice in choices for key in choice if not _in_a_name(key)}):
        values = {
            str(choice.get(key))
            for choice, trial in zip(choices, study.trials, strict=True)
            if not trial["scratch"]
        }
        varying += [key] if len(values) > 1 else []
    for choice, trial in zip(choices, study.trials, strict=True):
        trial["variant"] = ", ".join(f"{key} {choice.get(key)}" for key in varying)
        if trial["scratch"]:
            trial["source"] = scratch_name("scratch", trial["augment"], usual)
        if trial["source"] != "scratch" and trial["scratch"]:
            trial["variant"] = ""
    for trial in study.trials:
        trial["cell"] = "|".join(
            (trial["source"], trial["target"], trial["freeze"], trial["model"], trial["variant"])
        )


def _in_a_name(key: str) -> bool:
    """Whether the names of source, target, strategy and model tell it already."""
    return key in _OWN or key.startswith("freeze/") or key.endswith((".path", ".checkpoint"))


def usual_augment(study: Study) -> str | None:
    """The augmentation that most transfers have."""
    counts = Counter(t["augment"] for t in study.trials if not t["scratch"])
    return counts.most_common(1)[0][0] if counts else None


def scratch_name(source: str, augment: str | None, usual: str | None) -> str:
    """Scratch with another augmentation than the transfers have is a baseline of its own."""
    plain = source != "scratch" or usual is None or str(augment or "none") == usual
    return source if plain else f"{source} + {augment or 'none'}"


def _small(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_flat({k: v for k, v in config.items() if k not in _UNSAID}))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _other(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.get(key) != b.get(key)


def _differences(
    trials: Sequence[Mapping[str, Any]],
    configs: Sequence[Mapping[str, Any]],
    first: Mapping[str, Any],
) -> dict[str, dict[str, list[Any]]]:
    """{cell: {key: [[trial, value], ...]}} of what is not equal in all trials of a cell."""
    cells = defaultdict(list)
    for trial, config in zip(trials, configs, strict=True):
        cells[trial["cell"]].append((trial["id"], config))
    found: dict[str, dict[str, list[Any]]] = {}
    for cell, group in cells.items():
        for key in sorted({key for _, config in group for key in config}):
            values = [[i, config.get(key, first.get(key))] for i, config in group]
            if any(value != values[0][1] for _, value in values):
                found.setdefault(cell, {})[key] = values
    return found


def _command(command: Sequence[str]) -> str:
    """As it can be typed again."""
    import shlex

    if not command:
        return ""
    first, *rest = command
    path = Path(first)
    if path.suffix == ".py" and "stylegan_tl" in path.parts:
        parts = path.with_suffix("").parts
        parts = parts[len(parts) - 1 - parts[::-1].index("stylegan_tl") :]
        module = ".".join(part for part in parts if part != "__main__")
        first = f"python -m {module}"
    return " ".join([first, *map(shlex.quote, rest)])


def _short(value: Any) -> Any:
    """Six significant digits: enough for a page."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
