"""A study as it was asked for on a command line: its definition, its trials, what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stylegan_tl.study.definition import Planned, Study, StudyError, load
from stylegan_tl.study.job import last_wins, override

__all__ = ["Opened", "distances_of", "open_study"]

_WHICH = "name the study: study=<name>; its file is conf/study/<name>.yaml"


@dataclass(frozen=True)
class Opened:
    """`config` is the composed configuration of the study's first trial; `more` the command
    line's overrides for all trials; `compose(overrides)` gives the configuration of any, and
    `has_source(config)`, where it can be asked, says whether its source model is there."""

    study: Study
    config: Mapping[str, Any]
    more: Sequence[str]
    compose: Callable[[Sequence[str]], dict[str, Any]]
    has_source: Callable[[dict[str, Any]], bool] | None = None

    @property
    def runs(self) -> Path:
        """The folder that holds the studies' folders."""
        return Path(self.config["runs"])

    @property
    def cache(self) -> Path:
        """The folder of packed data and source models."""
        return Path(self.config["cache"]).expanduser()

    @cached_property
    def trials(self) -> list[Planned]:
        """Every cell x every seed."""
        return self.study.trials(self.runs, self.more)


def distances_of(opened: Opened) -> Path | None:
    """The file of what is known of the study's pairs before training, if there is one.

    The study's own, which `study distances` writes, before that of all pairs.
    """
    places = (opened.runs / opened.study.name, opened.runs)
    files = (place / "distances.jsonl" for place in places)
    return next((file for file in files if file.is_file()), None)


def open_study(
    study: Mapping[str, Any],
    arguments: Sequence[str],
    compose: Callable[[Sequence[str]], dict[str, Any]],
    options: Callable[[str], Sequence[str]],
    count: Callable[..., int],
    check: Callable[[dict[str, Any]], None],
) -> Opened:
    """Check the plain `study:` section against everything else and lay out its trials.

    `arguments` are all task overrides of the command line; `count` is `count_train` of the data,
    `check` the `validate_values` of the configuration.
    """
    if "factors" not in study:
        raise StudyError(_WHICH)
    _check_name(study["name"], arguments)
    known = sorted(compose(()))
    definition = load(study, options, known)
    more = _for_all_trials(arguments, definition)
    config = compose(_first(definition, more))
    check(config)
    metric, names = definition.metric, config["metric"]["names"]
    if metric is not None and metric not in names:
        raise StudyError(
            f"study.metric={metric}: the trials would not measure it; they measure "
            f"{', '.join(names) or 'nothing'}. Add metric.names=[{metric}] to study.overrides"
        )
    if definition.needs_count:
        definition = definition.with_count(_smallest(definition, more, compose, count))
    return Opened(definition, config, more, compose)


def _check_name(name: str, arguments: Sequence[str]) -> None:
    """A copied file that still has the name of the other study would go on with its trials."""
    given = dict(a.split("=", 1) for a in arguments if a.startswith(("study=", "study.name=")))
    chosen = given.get("study", name)
    if chosen != name and "study.name" not in given:
        raise StudyError(
            f"study={chosen}: its file says name: {name}, so its trials would be those of that "
            f"study; write name: {chosen} there, or add study.name=…"
        )


def _for_all_trials(arguments: Sequence[str], study: Study) -> list[str]:
    """The command line's overrides that go into every trial; those of the study itself do not."""
    more = [a for a in arguments if not a.lstrip("+~").startswith(("study=", "study."))]
    for text in more:
        key, _, value = text.lstrip("+~").partition("=")
        if key in study.factors or key == "seed":
            name = "seeds" if key == "seed" else f"factors.{key}"
            raise StudyError(
                f"{text}: the study itself sets {key}; choose values with 'study.{name}=[…]'"
            )
        if "," in value and value[0] not in "[{'\"":
            raise StudyError(f"{text}: a study makes its own trials; give one value")
    return more


def _first(study: Study, more: Sequence[str]) -> list[str]:
    known = study.with_count(1) if study.needs_count else study
    return list(replace(known, seeds=known.seeds[:1]).trials("runs", more)[0].job.overrides)


def _smallest(
    study: Study,
    more: Sequence[str],
    compose: Callable[[Sequence[str]], dict[str, Any]],
    count: Callable[..., int],
) -> int:
    """Training images of the smallest source."""
    sizes = []
    for name in study.datasets:
        general = [*study.overrides, *more]
        config = compose(last_wins([*general, override("source", name)]))
        held_out = config["pretrain"]["held_out"]
        sizes.append(count(config["source"], config["resolution"], config["cache"], held_out))
    return min(sizes)
