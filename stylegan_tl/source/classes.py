"""Which class of a source model each class of the target starts from.

Classes are matched by name where both sides know names, by number where one does not and the
counts agree or the source's come first. A class that the source does not have starts as the mean of
the source's, as one of them, or as the network was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_tl.networks.classes import class_axis, class_scale
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["ClassMatch", "class_names", "class_tables", "match_classes", "with_classes"]

FRESH, MEAN = "fresh", "mean"


@dataclass(frozen=True)
class ClassMatch:
    """For each class of the target the rows of the source that it is the mean of; none: fresh.

    `origin` says it in words, by the target's names; `new` counts the classes that the source does
    not have, `dropped` names those that the target does not have.
    """

    rows: tuple[tuple[int, ...], ...]
    origin: dict[str, str]
    new: tuple[int, ...]
    dropped: tuple[str, ...]


def match_classes(
    source: SourceModel,
    count: int,
    names: Sequence[str],
    *,
    new: str | int = MEAN,
    adding: bool = False,
) -> ClassMatch:
    """Match the `count` classes of the target, of these names if any, with the source's.

    `new`: "mean", "fresh", or the name or number of a class of the source. `adding`: the target
    must hold every class of the source, and more; without names the source's come first.
    Raises SourceError where there is no such class, and where `adding` does not hold.
    """
    had = source.network["c_dim"]
    theirs = class_names(source.lineage, had)
    known = len(theirs) == had and len(names) == count
    ours = [*names] if len(names) == count else [str(i) for i in range(count)]
    if known:
        found = [theirs.index(name) if name in theirs else None for name in ours]
    else:
        first = had if adding or count == had else 0
        found = [i if i < first else None for i in range(count)]
        theirs = theirs or [str(i) for i in range(had)]
    if adding:
        _check_adding(source, theirs, ours, found)
    start, words = _start(source, theirs, new)
    rows = tuple(start if row is None else (row,) for row in found)
    how = "" if known else ", by number: one side has no names"
    origin = {
        name: words if row is None else f"{theirs[row]}{how}"
        for name, row in zip(ours, found, strict=True)
    }
    kept = {row for row in found if row is not None}
    dropped = tuple(name for i, name in enumerate(theirs) if i not in kept)
    return ClassMatch(rows, origin, tuple(i for i, r in enumerate(found) if r is None), dropped)


def class_names(lineage: Mapping[str, Any], count: int) -> list[str]:
    """The names of the `count` classes of a model by its lineage; none where it does not say all.

    Equal names would not tell classes apart: then there are none either.
    """
    found = lineage.get("classes")
    found = [str(name) for name in found] if isinstance(found, list | tuple) else []
    return found if len(found) == count == len(set(found)) else []


def class_tables(model: nn.Module) -> list[str]:
    """The tensors of `model.G` and `model.D` with a row for each class: 'G.embed.weight'."""
    return [
        f"{n}.{key}"
        for n in "GD"
        for key in getattr(model, n).state_dict()
        if class_axis(getattr(model, n), key) is not None
    ]


def with_classes(source: SourceModel, model: nn.Module, match: ClassMatch) -> SourceModel:
    """The source with the classes of `model`: every class table made of its rows by `match`.

    A class that stays is drawn and judged as it was by the source, whatever the number of classes.
    """
    tensors = dict(source.tensors)
    for name in class_tables(model):
        key, network = name.replace("G.", "G_ema.", 1), getattr(model, name[0])
        if key in tensors:
            given = tensors[key] * class_scale(network, name[2:], source.network["c_dim"])
            fresh = model.get_parameter(name).detach()
            tensors[key] = _table(given, fresh, match.rows, class_axis(network, name[2:]))
    return replace(source, tensors=tensors)


def _table(given: Tensor, fresh: Tensor, rows: Iterable[tuple[int, ...]], axis: int) -> Tensor:
    """Each row the mean of the `given` ones, or its own fresh one where there are none."""
    made = [
        given.index_select(axis, torch.tensor(chosen)).mean(axis) if chosen else own
        for chosen, own in zip(rows, fresh.unbind(axis), strict=True)
    ]
    return torch.stack(made, axis)


def _start(source: SourceModel, names: list[str], new: str | int) -> tuple[tuple[int, ...], str]:
    """The rows that a new class is the mean of, and how to say so."""
    if new == FRESH:
        return (), "new, as drawn"
    if new == MEAN:
        return tuple(range(len(names))), f"new, the mean of the source's {len(names)}"
    index = names.index(str(new)) if str(new) in names else new
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(names):
        raise SourceError(
            f"freeze.init={new}: {source.path} has the classes {', '.join(names)}; use one of "
            f"them, its number, {MEAN} or {FRESH}"
        )
    return (index,), f"new, as {names[index]}"


def _check_adding(
    source: SourceModel, theirs: list[str], ours: list[str], found: list[int | None]
) -> None:
    lost = [name for i, name in enumerate(theirs) if i not in found]
    if lost:
        raise SourceError(
            f"freeze=add_category keeps the classes of {source.path}, and the target has no images "
            f"of {', '.join(lost)}: put them into subfolders of these names, or use another freeze="
        )
    if None not in found:
        raise SourceError(
            f"freeze=add_category: the target has no class that {source.path} does not have; its "
            f"classes are {', '.join(ours)}"
        )
