"""`python -m stylegan_tl.study distances study=…`: every pair of a study before any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from stylegan_tl.composing import compose
from stylegan_tl.config import plain
from stylegan_tl.pair.measure import measure
from stylegan_tl.study.definition import StudyError
from stylegan_tl.study.opened import Opened, distances_of

__all__ = ["command", "configs", "measure_all"]

_SHARED = (  # what a trial says of its pair; the rest is conf/distance.yaml's
    "source",
    "target",
    "model",
    "pretrain",
    "resolution",
    "held_out",
    "trainer",
    "logger",
    "runs",
    "cache",
)
_OPTIONS = {  # of the verb, and what they are called in conf/distance.yaml
    "extractor": "extractor",
    "images": "num_images",
    "inversion": "inversion.images",
    "steps": "inversion.steps",
    "train_source": "train_source",
    "device": "device",
}
_SHOWN = ("images fid", "images kid", "neighbours nearest", "model fid", "inversion inversionratio")


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Measure what is not measured yet; options: out= extractor= images= inversion= steps=
    train_source= device=. The exit code is 1 if a pair could not be measured."""
    wanted = [f"{_OPTIONS[k]}={v}" for k, v in options.items() if k in _OPTIONS]
    out = Path(options.get("out", opened.runs / opened.study.name / "distances.jsonl"))
    pairs = list(configs(opened, plain(compose("distance", [*wanted, f"out='{out}'"]))))
    if not pairs:
        raise StudyError(f"the study {opened.study.name} has no pair of two datasets")
    problems = measure_all(pairs, print)
    print(f"{out}: {len(pairs) - len(problems)} of {len(pairs)} pairs")
    if distances_of(opened) == out:
        print("`study predict` and `study report` find it there")
    return 1 if problems else 0


def configs(opened: Opened, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration of `python -m stylegan_tl.distance` for each pair of the study, once.

    Pairs count as two where the model, or whatever else decides on images or source model, is
    another. Chains have no source dataset and are left out.
    """
    seen: list[Any] = []
    first = opened.study.seeds[0]
    for trial in opened.trials:
        of_pair = {k: v for k, v in trial.cell.values.items() if not k.startswith(_NOT_OF_PAIR)}
        if trial.cell.role != "pair" or trial.seed != first or of_pair in seen:
            continue
        seen.append(of_pair)
        config = opened.compose(trial.job.overrides)
        shared = {key: config[key] for key in _SHARED}
        measured = {k: config["metric"][k] for k in ("precision", "extractors")}
        yield {**settings, **shared, "metric": {**settings["metric"], **measured}}


def measure_all(pairs: Sequence[dict[str, Any]], say: Callable[[str], None]) -> list[str]:
    """Measure pair after pair; what stopped some. None of them stops the others."""
    problems = []
    for number, config in enumerate(pairs, 1):
        model = config["model"]["_target_"].rpartition(".")[2]
        name = f"{config['source']['name']} → {config['target']['name']} ({model})"
        began = perf_counter()
        try:
            records = measure(config)
        except ValueError as error:  # of the images, the model or the configuration
            problems.append(f"{name}: {error}")
            say(f"[{number}/{len(pairs)}] {problems[-1]}")
            continue
        seconds = f"{perf_counter() - began:.1f} s"
        say(f"[{number}/{len(pairs)}] {name}: {_told(records)}, {seconds}")
    return problems


_NOT_OF_PAIR = ("freeze", "augment", "metric", "logger", "kimg", "num_images")


def _told(records: Sequence[Mapping[str, Any]]) -> str:
    """A few of its numbers: those that most people know."""
    told = []
    for part, kind in (shown.split() for shown in _SHOWN):
        for row in records:
            of_target = row["split"] != "source" and row["value"] is not None
            if row["part"] == part and row["kind"] == kind and of_target:
                told.append(f"{'model ' if part == 'model' else ''}{kind} {row['value']:.3g}")
    missing = next((r["missing"] for r in records if r["part"] == "no model"), None)
    return ", ".join(told) + (f" ({missing})" if missing else "")
