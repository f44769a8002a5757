"""Pairs of procedural domains whose distance is known by construction, to hold predictors against.

Domain k at distance d of its family's mixture M is P_k(d) = d P_k + (1 − d) M, so its difference
from P_k is (1 − d)(M − P_k): the total variation, and every integral probability metric, between
source P_k(d) and target P_k is 1 − d times that between M and P_k, exactly. Source and target have
no picture in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stylegan_tl.data.procedural import DOMAINS
from stylegan_tl.study.predict import Outcomes, Prediction, evaluate
from stylegan_tl.study.predictors import read_predictors

__all__ = ["KnownPair", "calibrate", "known_pairs"]


class KnownPair(NamedTuple):
    """Options for `source=` and `target=`, and how far apart they are: 0 (one domain) to 1."""

    source: dict[str, Any]
    target: dict[str, Any]
    distance: float


def known_pairs(
    domains: Sequence[str] = DOMAINS,
    knobs: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.0),
    size: int = 250,
) -> list[KnownPair]:
    """For each domain as the target, itself nearer and nearer to its mixture as the source."""
    pairs = []
    for domain in domains:
        target = _option(domain, domain, 1.0, size, 0)
        for knob in knobs:
            source = _option(f"{domain} at {knob:g}", domain, knob, size, size)
            pairs.append(KnownPair({**source, "checkpoint": None}, target, round(1 - knob, 9)))
    return pairs


def calibrate(
    records: str | Path,
    pairs: Sequence[KnownPair],
    *,
    generator: np.random.Generator,
    rounds: int = 1000,
) -> list[Prediction]:
    """How well each predictor in `records` finds the known order of sources, the best first.

    Every source model counts as one of the pair's; regret and chance are in units of the distance.
    """
    known = {(p.source["name"], p.target["name"]): [p.distance] for p in pairs}
    outcomes = Outcomes("known distance", "min", known)
    return evaluate(read_predictors(records), outcomes, generator=generator, rounds=rounds)


def _option(name: str, domain: str, distance: float, size: int, first: int) -> dict[str, Any]:
    option = {"kind": "procedural", "name": name, "domain": domain, "size": size}
    return {**option, "distance": distance, "first": first, "xflip": False}
