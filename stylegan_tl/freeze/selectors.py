"""Selectors: short names for parts of G and D, the same for every model family.

`G`                     the whole network
`G.conv`                a group (see `groups.GROUPS`)
`G.block@res:16`        of it, what stands at a resolution; also `..16`, `32..`, `8..32`
`D.block@image:2`       the two blocks nearest the image
`G.mapping@layers:4`    the first four layers of a mapping network
`G:synthesis.b8.*`      tensors by name; * stands for any characters, the rest is literal
`G.mapping?`            may be missing: a DCGAN has no mapping network; also `G:embed.bias?`
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from stylegan_tl.freeze.groups import GROUPS, Part
from stylegan_tl.networks.adapters import plain_name

__all__ = ["NotApplicable", "select"]

_SELECTOR = re.compile(
    r"(?P<net>[GD])(?:\.(?P<group>\w+)(?:@(?P<key>res|image|layers):(?P<value>.+))?)?"
)
_RANGE = re.compile(r"(?P<low>\d*)(?P<dots>\.\.)?(?P<high>\d*)")
_ALIASES = {"input": "const", "norm": "affine"}


class NotApplicable(ValueError):
    """The strategy means nothing for this model, and says why."""


def select(parts: Sequence[Part], selectors: Iterable[str]) -> list[Part]:
    """The parts that any of `selectors` means, in the order of `parts`.

    Raises ValueError for a selector that is not understood or matches nothing, NotApplicable for
    a group that this model does not have; the message says what there is.
    """
    chosen: set[str] = set()
    for selector in selectors:
        optional = selector.endswith("?")
        try:
            found = _matches(parts, selector.removesuffix("?"))
        except NotApplicable:
            if optional:
                continue
            raise
        if not optional:
            _check_resolutions(parts, selector)
        if not found and not optional:
            raise ValueError(f"freeze: {selector!r} matches nothing; {_available(parts, selector)}")
        chosen |= {part.name for part in found}
    return [part for part in parts if part.name in chosen]


def _matches(parts: Sequence[Part], selector: str) -> list[Part]:
    if selector[1:2] == ":":
        names = [(p, {p.name[2:], plain_name(p.name)[2:]}) for p in parts]
        own = [p for p, both in names if any(_named(name, selector[2:]) for name in both)]
        return [p for p in own if p.network == selector[0]]
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        raise ValueError(
            f"freeze: {selector!r} is not a selector; write for instance G, G.mapping, "
            "G.block@res:..16, D.block@image:2, G.mapping@layers:4 or G:synthesis.b8.*"
        )
    own = [p for p in parts if p.network == match["net"]]
    group = _ALIASES.get(match["group"], match["group"])
    if group is None:
        return own
    if group not in GROUPS:
        raise ValueError(f"freeze: {selector!r}: groups are {', '.join(GROUPS)}, input, norm")
    found = [p for p in own if group in p.groups]
    if not found:
        raise NotApplicable(
            f"freeze: this model's {match['net']} has no {group} ({GROUPS[group]}); "
            + _available(parts, selector)
        )
    return _narrowed(found, match["key"], match["value"], selector) if match["key"] else found


def _check_resolutions(parts: Sequence[Part], selector: str) -> None:
    """ValueError for a resolution of which neither G nor D has a block: it is a slip."""
    there = {p.resolution for p in parts}
    named = re.findall(r"\d+", selector.partition("@res:")[2])
    if wrong := [r for r in named if int(r) not in there]:
        raise ValueError(
            f"freeze: {selector!r} matches nothing at {' and '.join(wrong)} px; "
            f"{_available(parts, selector)}"
        )


def _narrowed(parts: list[Part], key: str, value: str, selector: str) -> list[Part]:
    wanted = _RANGE.fullmatch(value)
    if wanted is None or not (wanted["low"] or wanted["high"]) or (key != "res" and wanted["dots"]):
        allowed = "16, ..16, 32.. or 8..32" if key == "res" else "a number"
        raise ValueError(f"freeze: {selector!r}: write {allowed} after @{key}:")
    low = int(wanted["low"] or 0)
    high = int(wanted["high"] or (1 << 30)) if wanted["dots"] else low
    if key == "image":
        near = sorted({p.resolution for p in parts if p.resolution}, reverse=True)
        return [p for p in parts if p.resolution in near[:low]] if low <= len(near) else []
    if key == "layers":
        layers = {p.layer for p in parts if p.layer is not None}
        return [p for p in parts if p.layer is not None and p.layer < low <= max(layers) + 1]
    return [p for p in parts if p.resolution and low <= p.resolution <= high]


def _named(name: str, pattern: str) -> bool:
    """Whether the whole name fits; only * is special."""
    return fnmatchcase(name, re.sub(r"([?\[])", r"[\1]", pattern))


def _available(parts: Sequence[Part], selector: str) -> str:
    own = [p for p in parts if p.network == selector[:1]] or list(parts)
    groups = [group for group in GROUPS if any(group in p.groups for p in own)]
    at = sorted({p.resolution for p in own if p.resolution})
    layers = [p.layer for p in own if p.layer is not None]
    more = f", {max(layers) + 1} mapping layers" if layers else ""
    return f"there are {', '.join(groups)}, blocks at {', '.join(map(str, at))}{more}"
