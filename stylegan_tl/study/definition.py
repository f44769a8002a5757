"""What a study is: factors, seeds, controls, chains; and the trials that follow from them.

`conf/study/<name>.yaml` defines one; nothing here reads images, composes a trial or imports torch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stylegan_tl.errors import near
from stylegan_tl.study.job import Job, job_of, last_wins, override

__all__ = ["CONTROLS", "Cell", "Planned", "Sources", "Study", "StudyError", "load"]

CONTROLS: dict[str, dict[str, str]] = {
    "scratch": {"source": "scratch", "freeze": "none"},
    "scratch_augment": {"source": "scratch", "freeze": "none", "augment": "ada"},
}
"""What every study is compared with: random weights, alone and with augmentation."""
_NO_DATASET = ("scratch", "checkpoint")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StudyError(ValueError):
    """Everything that is wrong with a study, all at once."""


@dataclass(frozen=True)
class Sources:
    """How source models are trained: `kimg` on `num_images` each.

    `condition` equal: all on the same number, that of the smallest source unless `num_images` says
    another; native: each on all of its images.
    """

    condition: str = "equal"
    kimg: float | None = None
    num_images: int | None = None


@dataclass(frozen=True)
class Cell:
    """One combination of values. `via`: the datasets between `source` and `target` in a chain."""

    values: Mapping[str, Any]
    role: str = "pair"  # pair, chain, or the name of a control
    via: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The way to the target: `a`, `a->b` in a chain, `scratch`."""
        return "->".join([str(self.values["source"]), *self.via])


@dataclass(frozen=True)
class Planned:
    """One trial of a study: a cell x a seed, and the command that trains it."""

    cell: Cell
    seed: int
    job: Job


@dataclass(frozen=True)
class Study:
    """A grid of trials with a question, a metric, a direction and a baseline."""

    name: str
    factors: Mapping[str, Sequence[Any]]
    seeds: Sequence[int] = (0,)
    question: str = ""
    overrides: Sequence[str] = ()
    given: Sequence[Mapping[str, Any]] = ()  # overrides of the cells that match: {when, overrides}
    controls: Sequence[str] = tuple(CONTROLS)
    exclude: Sequence[Mapping[str, Any]] = ()
    chains: Sequence[Sequence[str]] = ()
    sources: Sources = field(default_factory=Sources)
    metric: str | None = None
    direction: str = "min"
    baseline: str | None = "scratch"
    tags: Sequence[str] = ()
    diagonal: bool = False
    published: Any = None  # the numbers of a paper, for `study compare`

    def cells(self) -> list[Cell]:
        """Pairs, chains with the steps that they need, and controls; each once."""
        unique: dict[Any, Cell] = {}
        for cell in (*self._pairs(), *self._chains(), *self._controls()):
            unique.setdefault((repr(sorted(cell.values.items())), cell.via), cell)
        return list(unique.values())

    def trials(self, runs: str | Path = "runs", more: Sequence[str] = ()) -> list[Planned]:
        """Every cell x every seed, a seed's whole matrix before the next seed's.

        `more` are overrides of the command line for all trials; they win over the study's own.
        """
        if self.needs_count:
            raise StudyError("the number of images of the smallest source is not known yet")
        cells = self.cells()
        return [self._planned(c, seed, runs, more) for seed in self.seeds for c in cells]

    @property
    def needs_count(self) -> bool:
        """Whether equal sources still wait for the size of the smallest one (`with_count`)."""
        equal = self.sources.condition == "equal" and self.sources.num_images is None
        return equal and len(self.datasets) > 1

    @property
    def datasets(self) -> list[str]:
        """The datasets that source models are trained on."""
        used = (cell.values["source"] for cell in self.cells())
        return [s for s in dict.fromkeys(used) if s not in _NO_DATASET]

    def with_count(self, num_images: int) -> Study:
        """The same study with sources trained on `num_images` images each."""
        return replace(self, sources=replace(self.sources, num_images=num_images))

    def _pairs(self) -> Iterator[Cell]:
        for values in _product(self.factors):
            same = values["source"] == values["target"] and not self.diagonal
            if not same and not any(_matches(values, rule) for rule in self.exclude):
                yield Cell(values)

    def _chains(self) -> Iterator[Cell]:
        rest = {k: v for k, v in self.factors.items() if k not in ("source", "target")}
        for chain, values in itertools.product(self.chains, _product(rest)):
            for end in range(1, len(chain)):
                source, *via, target = chain[: end + 1]
                role = "chain" if via else "pair"
                yield Cell({"source": source, "target": target, **values}, role, tuple(via))

    def _controls(self) -> Iterator[Cell]:
        of_source = ("source.", "freeze.", "freeze/")  # a control has neither
        rest = {
            k: v
            for k, v in self.factors.items()
            if k not in ("source", "freeze") and not k.startswith(of_source)
        }
        targets = [*rest["target"], *(c[-1] for c in self.chains)]
        rest["target"] = list(dict.fromkeys(targets))
        for name, values in itertools.product(self.controls, _product(rest)):
            yield Cell({"source": "scratch", **values, **CONTROLS[name]}, name)

    def _planned(self, cell: Cell, seed: int, runs: str | Path, more: Sequence[str]) -> Planned:
        pretrained = cell.values["source"] not in _NO_DATASET and not cell.via
        own = [override(k, v) for k, v in cell.values.items()]
        general = [*self._pretraining(), *self.overrides, *self._given(cell), *more]
        if not pretrained:  # there is no source dataset that these could speak of
            general = [o for o in general if not o.lstrip("+~").startswith(("source.", "pretrain"))]
        if cell.via:
            own = [*self._bridge(cell, seed, runs, more), *own[1:]]
        # what the cell is made of stands first in the command, and no general override changes it
        keys = {o.partition("=")[0] for o in own}
        general = [o for o in general if o.lstrip("+~").partition("=")[0] not in keys]
        tags = [override("study.tags", list(self.tags))] if self.tags else []
        overrides = [f"study.name={self.name}", *own, *general, *tags, f"seed={seed}"]
        return Planned(cell, seed, job_of(last_wins(overrides), runs, self.name))

    def _bridge(self, cell: Cell, seed: int, runs: str | Path, more: Sequence[str]) -> list[str]:
        """Overrides that start a chain's trial from the one before it."""
        *via, last = cell.via
        values = {**cell.values, "target": last}
        before = self._planned(Cell(values, via=tuple(via)), seed, runs, more)
        checkpoint = override("source.checkpoint", str(before.job.folder / "last.ckpt"))
        return ["source=checkpoint", checkpoint, override("source.name", cell.source)]

    def _given(self, cell: Cell) -> list[str]:
        """What is said of cells like this one alone; a later rule wins."""
        rules = [rule for rule in self.given if _matches(cell.values, rule["when"])]
        return [text for rule in rules for text in rule["overrides"]]

    def _pretraining(self) -> list[str]:
        chosen = {"kimg": self.sources.kimg, "num_images": self.sources.num_images}
        return [override(f"pretrain.{k}", v) for k, v in chosen.items() if v is not None]


def load(
    config: Mapping[str, Any],
    options: Callable[[str], Sequence[str]],
    known: Sequence[str] = (),
) -> Study:
    """The study of a plain `study:` section; StudyError with all that is wrong with it.

    `options(group)` lists the options of a configuration group, empty for what is no group;
    `known` are the top-level keys of train.yaml.
    """
    problems = [*_keys(config), *_shapes(config)]
    if not problems:
        problems = [*_choices(config, options, known), *_rules(config, options)]
    if problems:
        raise StudyError(
            f"the study {config.get('name', '?')!r} cannot run:\n  " + "\n  ".join(problems)
        )
    sources = Sources(**(config.get("sources") or {}))
    study = Study(**{**config, "sources": sources})
    if not any(cell.role == "pair" for cell in study.cells()):
        raise StudyError(
            f"the study {study.name!r} has no pair: source == target is left out unless "
            "diagonal: true, and exclude may have taken the rest"
        )
    return study


def _product(factors: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*factors.values()):
        yield dict(zip(factors, values, strict=True))


def _matches(values: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(values.get(k) in (v if isinstance(v, list) else [v]) for k, v in rule.items())


def _keys(config: Mapping[str, Any]) -> Iterator[str]:
    allowed = [f.name for f in fields(Study)]
    for key in config.keys() - set(allowed):
        yield f"study.{key}: no such key; {near(str(key), allowed)}"
    if "factors" not in config:
        yield "study.factors is missing: name at least source and target, each a list"
    of_sources = [f.name for f in fields(Sources)]
    for key in (config.get("sources") or {}).keys() - set(of_sources):
        yield f"study.sources.{key}: no such key; {near(str(key), of_sources)}"


def _shapes(config: Mapping[str, Any]) -> Iterator[str]:
    if not _NAME.fullmatch(str(config.get("name"))):
        yield f"study.name={config.get('name')}: use letters, digits and . _ - (it names a folder)"
    factors = config.get("factors") or {}
    for key in ("source", "target"):
        if key not in factors:
            yield f"study.factors.{key} is missing: a list of datasets"
    for key, values in factors.items():
        if not isinstance(values, list) or not values:
            yield f"study.factors.{key}={values}: use a list of at least one value"
        elif len({repr(v) for v in values}) < len(values):
            yield f"study.factors.{key}={values}: a value stands there twice"
    seeds = config.get("seeds", [0])
    whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        yield f"study.seeds={seeds}: use a list of different whole numbers from 0"
    for key in ("overrides", "given", "controls", "exclude", "chains", "tags"):
        if not isinstance(config.get(key, []), list):
            yield f"study.{key}={config[key]}: use a list"
    for rule in config.get("given", []) if isinstance(config.get("given", []), list) else []:
        if not _is_rule(rule):
            yield f"study.given: {rule}: use {{when: {{factor: value}}, overrides: [key=value]}}"


def _is_rule(rule: Any) -> bool:
    return (
        isinstance(rule, dict)
        and rule.keys() == {"when", "overrides"}
        and isinstance(rule["when"], dict)
        and isinstance(rule["overrides"], list)
    )


def _choices(
    config: Mapping[str, Any], options: Callable[[str], Sequence[str]], known: Sequence[str]
) -> Iterator[str]:
    """Names of options and of values, held against what there is."""
    for key, values in config["factors"].items():
        yield from _choice(f"study.factors.{key}", key, values, options, known)
    said = [("study.overrides", text) for text in config.get("overrides", [])]
    said += [("study.given", text) for r in config.get("given", []) for text in r["overrides"]]
    for where, text in said:
        key, equals, value = str(text).partition("=")
        bare = key.lstrip("+~")
        if not equals and not key.startswith("~"):
            yield f"{where}: {text!r}: expected key=value"
        elif bare in config["factors"] or bare in ("seed", "study", "study.name", "runs"):
            yield f"{where}: {text!r}: a factor, seeds:, name: or runs= on the command line"
        elif not key.startswith(("+", "~")):
            plain = [value] if value[:1] not in "[{$'\"" else []
            yield from _choice(where, bare, plain, options, known)


def _choice(
    where: str,
    key: str,
    values: Sequence[Any],
    options: Callable[[str], Sequence[str]],
    known: Sequence[str],
) -> Iterator[str]:
    allowed = options(key.partition("@")[0])
    if not allowed and known and key.split(".")[0].split("/")[0].split("@")[0] not in known:
        yield f"{where}: {key} is no key of train.yaml; {near(key.split('.')[0], known)}"
    for value in values if allowed else ():
        for option in value if isinstance(value, list) else [value]:
            if option is not None and str(option) not in allowed:
                yield f"{where}: {key}={option} is no option; {near(str(option), allowed, 3)}"


def _rules(config: Mapping[str, Any], options: Callable[[str], Sequence[str]]) -> Iterator[str]:
    """What spans several keys."""
    factors = config["factors"]
    if "scratch" in factors["source"]:
        yield "study.factors.source: scratch is a control: name it in study.controls"
    for name in config.get("controls", []):
        if name not in CONTROLS:
            yield f"study.controls: {name} is none; there are {', '.join(CONTROLS)}"
    baseline = config.get("baseline", "scratch")
    if baseline is not None and baseline not in config.get("controls", list(CONTROLS)):
        yield f"study.baseline={baseline}: name it in study.controls too, or use null"
    rules = [("study.exclude", rule) for rule in config.get("exclude", [])]
    rules += [("study.given", rule["when"]) for rule in config.get("given", [])]
    for where, rule in rules:
        for key, value in rule.items():
            wanted = value if isinstance(value, list) else [value]
            for one in wanted:
                if one not in factors.get(key, []):
                    yield f"{where}: {key}={one} matches nothing in study.factors"
    for chain in config.get("chains", []):
        if not isinstance(chain, list) or len(chain) < 3:
            yield f"study.chains: {chain}: use at least three datasets: source, bridge, target"
            continue
        yield from _choice("study.chains", "source", chain, options, ())
        if any(a == b for a, b in itertools.pairwise(chain)):
            yield f"study.chains: {chain}: a dataset follows itself"
    if config.get("direction", "min") not in ("min", "max"):
        yield f"study.direction={config['direction']}: use min or max"
    yield from _sources(config.get("sources") or {})


def _sources(sources: Mapping[str, Any]) -> Iterator[str]:
    condition = sources.get("condition", "equal")
    if condition not in ("equal", "native"):
        yield f"study.sources.condition={condition}: use equal or native"
    kimg, count = sources.get("kimg"), sources.get("num_images")
    if kimg is not None and (isinstance(kimg, bool) or not isinstance(kimg, int | float)):
        yield f"study.sources.kimg={kimg}: use a number above 0"
    elif kimg is not None and kimg <= 0:
        yield f"study.sources.kimg={kimg}: use a number above 0"
    if count is not None and (type(count) is not int or count < 1):
        yield f"study.sources.num_images={count}: use a whole number from 1, or null"
    elif count is not None and condition == "native":
        yield f"study.sources.num_images={count}: native means all images; use condition: equal"
