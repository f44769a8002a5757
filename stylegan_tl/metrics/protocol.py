"""A metric's name is its protocol: `fid1k_train_small` = FID of 1 000 fakes against the
training split, features of the small extractor.

The names that the field knows keep their meaning (`PRESETS`). What a record must say of its
protocol, and which values may be compared, is `stylegan_tl.study.comparable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "EXTRACTORS",
    "FAMILIES",
    "GRAMMAR",
    "KINDS",
    "LEAST_ROUNDS",
    "PRECISIONS",
    "PRESETS",
    "SPACES",
    "SPLITS",
    "Kind",
    "Protocol",
    "expand",
]

SPLITS = ("train", "heldout", "full", "source")
SPACES = ("wend", "wfull", "zend", "zfull")
SHIFTS = ("int", "frac")  # by whole pixels, by any part of one
EXTRACTORS = ("small", "inception", "vgg16", "lpips", "dinov2", "clip")
FEATURES = ("small", "inception", "vgg16", "dinov2", "clip")
PERCEPTUAL = ("small", "lpips")
PRECISIONS = ("fp32", "bf16")
LEAST_ROUNDS = 39  # of half-sampling: the 2.5 % quantile is then the lowest of them


class Kind(NamedTuple):
    """What a kind of metric is, what follows the count in its name, and which way is better."""

    what: str
    parts: tuple[str, ...]  # of: split, space, shift, extractor
    extractors: tuple[str, ...] = FEATURES
    better: str = "min"
    splits: tuple[str, ...] = ()  # that it compares with although its name does not say so
    needs: tuple[str, ...] = ("features",)  # also: logits, images, G, G_source, transform


_TWO = ("split", "extractor")
KINDS = {
    "fid": Kind("Fréchet distance", _TWO),
    "fidinf": Kind("Fréchet distance extrapolated to endless images", _TWO),
    "kid": Kind("kernel distance, unbiased, with its standard error", _TWO),
    "precision": Kind("share of fakes among the reals, k=3", _TWO, better="max"),
    "recall": Kind("share of reals among the fakes, k=3", _TWO, better="max"),
    "density": Kind("how many reals' balls hold a fake, k=5", _TWO, better="max"),
    "coverage": Kind("share of reals with a fake in their ball, k=5", _TWO, better="max"),
    "swd": Kind("sliced Wasserstein distance of patches", ("split",), needs=("images",)),
    "is": Kind(
        "Inception Score", ("extractor",), ("inception",), better="max", needs=("logits",)
    ),
    "ppl": Kind("perceptual path length", ("space", "extractor"), PERCEPTUAL, needs=("G",)),
    "eqt": Kind(
        "equivariance to translation, dB", ("shift",), better="max", needs=("G", "transform")
    ),
    "eqr": Kind("equivariance to rotation, dB", (), better="max", needs=("G", "transform")),
    "intra": Kind(
        "mean distance within the clusters of the nearest real", _TWO, PERCEPTUAL, "max",
        needs=("images",),
    ),
    "nearer": Kind(
        "share of fakes nearer to a training than to a held-out image", ("extractor",),
        splits=("train", "heldout"),
    ),
    "fidgap": Kind(
        "FID against train minus FID against held out, equal numbers", ("extractor",),
        better="max", splits=("train", "heldout"),
    ),
    "paired": Kind(
        "distance of source and target generator at the same z", ("extractor",), PERCEPTUAL,
        "max", needs=("images", "G_source"),
    ),
    "residue": Kind(
        "share of fakes that a classifier takes for the source", ("extractor",),
        splits=("source", "train"),
    ),
}  # fmt: skip
FAMILIES = {"pr": ("precision", "recall"), "dc": ("density", "coverage")}
GRAMMAR = (
    "<kind><count>_<parts>, the count plain (500) or in thousands (5k): "
    + ", ".join("_".join((kind, *(f"<{part}>" for part in k.parts))) for kind, k in KINDS.items())
    + f"; <split> is one of {', '.join(SPLITS)}, <extractor> of {', '.join(EXTRACTORS)}, <space> "
    + f"of {', '.join(SPACES)}, <shift> of {', '.join(SHIFTS)}"
    + "; pr and dc stand for precision and recall, density and coverage. Examples: "
    "fid1k_train_small, kid1k_heldout_inception, pr5k_train_small, swd500_train, ppl1k_wend_lpips"
)
_NAME = re.compile(r"([a-z]+)([1-9]\d*)(k?)((?:_[a-z0-9]+)*)")


@dataclass(frozen=True)
class Protocol:
    """One way to measure. `preset` is the field's own name where the protocol has one."""

    kind: str
    num_fakes: int
    split: str | None = None
    extractor: str | None = None
    space: str | None = None
    shift: str | None = None
    preset: str | None = None

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Read the name of one protocol; ValueError with the grammar for anything else."""
        known = {str(p): p for family in PRESETS.values() for p in family}
        if name in known:
            return known[name]
        match = _NAME.fullmatch(name)
        if match is None or match[1] not in KINDS:
            raise _unknown(name, "not of this form")
        kind, digits, thousands, rest = match.groups()
        parts, wanted = rest.split("_")[1:], KINDS[kind].parts
        if len(parts) != len(wanted):
            follows = "_".join(f"<{w}>" for w in wanted) or "nothing but its count"
            raise _unknown(name, f"{kind} is followed by {follows}")
        count = int(digits) * (1000 if thousands else 1)
        protocol = cls(kind, count, **dict(zip(wanted, parts, strict=True)))
        protocol._check(name)
        return protocol

    @property
    def better(self) -> str:
        """'min' or 'max'."""
        return KINDS[self.kind].better

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of reals that it compares with."""
        return (self.split,) if self.split else KINDS[self.kind].splits

    @property
    def least_reals(self) -> int:
        """The fewest reals of a split that it can be computed from."""
        least = {"precision": 4, "recall": 4, "density": 6, "coverage": 6, "residue": 5}
        return {**least, "fidinf": 30}.get(self.kind, 3)

    @property
    def least_fakes(self) -> int:
        """The fewest fakes that it can be computed from."""
        return 10 if self.kind == "is" else self.least_reals  # one in each split

    def needs(self, what: str) -> bool:
        """Whether it is computed from `what` (see `Kind.needs`)."""
        return what in KINDS[self.kind].needs

    def __str__(self) -> str:
        if self.preset:
            return self.preset
        thousands, rest = divmod(self.num_fakes, 1000)
        count = f"{self.num_fakes}" if rest else f"{thousands}k"
        parts = (getattr(self, part) for part in KINDS[self.kind].parts)
        return "_".join((f"{self.kind}{count}", *parts))

    def _check(self, name: str) -> None:
        allowed = {"split": SPLITS, "space": SPACES, "shift": SHIFTS}
        allowed["extractor"] = KINDS[self.kind].extractors
        for part in KINDS[self.kind].parts:
            if getattr(self, part) not in allowed[part]:
                raise _unknown(
                    name,
                    f"{part} {getattr(self, part)!r} is not one of {', '.join(allowed[part])}, "
                    f"which {self.kind} takes",
                )
        if self.num_fakes < 3:
            raise _unknown(name, "fewer than 3 fakes have no spread")
        official = _preset_of(self)
        if (official or str(self)) != name:
            raise _unknown(name, f"write {official or self}, so that one protocol has one name")


# NVIDIA's definitions (StyleGAN2-ADA and StyleGAN3, metrics/metric_main.py): 50 000 fakes of G_ema
# without truncation, all images of the dataset, never mirrored. KID: 100 subsets of 1 000.
# Precision and recall: VGG16 features, k=3, at most 200 000 reals. Inception Score: 10 splits.
PRESETS = {
    "fid50k_full": (Protocol("fid", 50_000, "full", "inception", preset="fid50k_full"),),
    "kid50k_full": (Protocol("kid", 50_000, "full", "inception", preset="kid50k_full"),),
    "pr50k3_full": tuple(
        Protocol(kind, 50_000, "full", "vgg16", preset=f"pr50k3_full_{kind}")
        for kind in FAMILIES["pr"]
    ),
    "is50k": (Protocol("is", 50_000, extractor="inception", preset="is50k"),),
    "ppl2_wend": (Protocol("ppl", 50_000, None, "lpips", "wend", preset="ppl2_wend"),),
}


def expand(names: Iterable[str | Protocol]) -> list[Protocol]:
    """Protocols of names, presets and families (`pr5k_train_small`); each protocol once."""
    found: dict[Protocol, None] = {}
    for name in names:
        for protocol in [name] if isinstance(name, Protocol) else _expanded(name):
            found.setdefault(protocol)
    return list(found)


def _expanded(name: str) -> Iterable[Protocol]:
    if name in PRESETS:
        return PRESETS[name]
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in FAMILIES:
        return [Protocol.parse(name)]
    return [Protocol.parse(kind + name[len(match[1]) :]) for kind in FAMILIES[match[1]]]


def _preset_of(protocol: Protocol) -> str | None:
    """The field's name of the same protocol; KID's preset is another estimator, so another one."""
    for family in PRESETS.values():
        for known in family:
            same = (known.kind, known.num_fakes, known.split, known.extractor, known.space)
            own = (protocol.kind, protocol.num_fakes, protocol.split, protocol.extractor)
            if same == (*own, protocol.space) and protocol.kind != "kid":
                return known.preset
    return None


def _unknown(name: str, reason: str) -> ValueError:
    return ValueError(f"metric {name!r}: {reason}. A metric's name is its protocol: {GRAMMAR}")
