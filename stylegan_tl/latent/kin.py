"""A source model and its transferred child: found, known to be related, weights between them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.restore import rebuild
from stylegan_tl.site.build import find_lineage
from stylegan_tl.source.classes import class_names, match_classes, with_classes
from stylegan_tl.source.portable import SourceModel, read_model

__all__ = ["between", "kin_of", "relation"]


def kin_of(config: dict[str, Any]) -> tuple[SourceModel, SourceModel, str]:
    """The source, its child and how they are related.

    The source's classes are put in the order of the child's. ValueError where the source is not
    found, the architectures or the classes differ, or they are not related and `unrelated` does not
    allow it.
    """
    child = read_model(Path(config["checkpoint"]))
    named = config["source"]["checkpoint"]
    cache = Path(config["cache"]).expanduser()
    source = read_model(Path(named)) if named else find_lineage(child, cache)
    if source is None:
        raise ValueError(f"{child.path} {_origin(child)}: name it by source.checkpoint=FILE")
    _check_same(source, child)
    source = _by_name(source, child)
    how = relation(source, child)
    if how is None and not config["unrelated"]:
        raise ValueError(
            f"{child.path} was not transferred from {source.path}, and they have no common source: "
            "their layers do not speak the same language; unrelated=true tries it all the same"
        )
    if how is None:
        print(f"warning: {child.path} and {source.path} are not related", file=sys.stderr)
    return source, child, how or "unrelated"


def relation(source: SourceModel, child: SourceModel) -> str | None:
    """How the child descends from the source: `child`, `siblings` of one source, or None."""
    above, beside = ([m.sha256, *_ancestors(m)] for m in (source, child))
    if source.sha256 in beside:
        return "child"
    return "siblings" if set(above) & set(beside) else None


def between(
    source: SourceModel, child: SourceModel, share: Callable[[str], float]
) -> dict[str, Tensor]:
    """G_ema's tensors, each the source's but for `share(name)` of the child's.

    Shares 0 and 1 give the tensors themselves; whole numbers are the nearer one's.
    """
    ours, theirs = source.state("G_ema"), child.state("G_ema")
    return {name: _lerp(ours[name], theirs[name], share(name)) for name in ours}


def _by_name(source: SourceModel, child: SourceModel) -> SourceModel:
    """The source with its classes in the child's order; ValueError for other classes.

    Where one of them has no names they are the same by number.
    """
    count = child.network.get("c_dim", 0)
    ours, theirs = (class_names(m.lineage, count) for m in (source, child))
    if not ours or not theirs or ours == theirs:
        return source
    if set(ours) != set(theirs):
        raise ValueError(
            f"{source.path} has the classes {', '.join(ours)}, {child.path} has "
            f"{', '.join(theirs)}: layers pass between models of the same classes"
        )
    match = match_classes(source, count, theirs)
    made = with_classes(source, rebuild(child), match)
    return replace(made, lineage={**source.lineage, "classes": theirs})


def _lerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    if share in (0, 1) or not a.is_floating_point():
        return b if share > 0.5 else a
    return torch.lerp(a, b, share)


def _ancestors(model: SourceModel) -> Iterator[str]:
    """Digests of what its G was transferred from, and that from, and of what was blended in."""
    waiting = [model.lineage]
    while waiting:
        lineage = waiting.pop()
        if (lineage.get("freeze") or {}).get("G") == "scratch":  # freeze=init_d takes D alone
            continue
        for parent in (lineage.get("source"), (lineage.get("blend") or {}).get("child")):
            if parent:
                yield parent["sha256"]
                waiting.append(parent.get("lineage") or {})


def _origin(model: SourceModel) -> str:
    parent = model.lineage.get("source")
    if not parent:
        return "was trained from scratch, so its source is not known"
    return f"came from {parent['name']} ({parent['sha256'][:12]}), which was not found here"


def _check_same(source: SourceModel, child: SourceModel) -> None:
    """ValueError unless both have the same generator."""
    if source.model != child.model:
        raise ValueError(
            f"{source.path} is a {_family(source)}, {child.path} a {_family(child)}: layers pass "
            "between models of one family"
        )
    ours, theirs = ({k: v.shape for k, v in m.state("G_ema").items()} for m in (source, child))
    wrong = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if not wrong:
        return _check_grown(source, child)
    have, has = source.network, child.network
    keys = sorted(k for k in have | has if have.get(k) != has.get(k))
    said = [f"{k} {have.get(k)} and {has.get(k)}" for k in keys]
    said = said or [f"{len(wrong)} tensors such as {wrong[0]}"]
    raise ValueError(
        f"{source.path} and {child.path} have different generators: {', '.join(said)}; layers pass "
        "between models of one architecture"
    )


def _check_grown(source: SourceModel, child: SourceModel) -> None:
    """ValueError if they grew progressively and have not come equally far."""
    lods = [m.state("G_ema").get("synthesis.lod", torch.zeros([])).item() for m in (source, child)]
    if lods[0] != lods[1]:
        sizes = [f"{m.path} to 1/{2**lod:g}" for m, lod in zip((source, child), lods, strict=True)]
        raise ValueError(
            f"these have grown {' and '.join(sizes)} of their resolution: layers pass between "
            "models that have grown equally far"
        )


def _family(model: SourceModel) -> str:
    return model.model.rpartition(".")[2]
