"""A metric's name is its protocol: `fid1k_train_small` = FID of 1 000 fakes against the
training split, features of the small extractor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["EXTRACTORS", "GRAMMAR", "SPLITS", "Protocol"]

SPLITS = ("train", "heldout")
EXTRACTORS = ("small", "inception")
GRAMMAR = (
    "{fid|kid}<fakes>_{train|heldout}_{small|inception} or swd<fakes>_{train|heldout}, where "
    "<fakes> is a plain count (500) or thousands (5k): fid1k_train_small, kid1k_heldout_inception, "
    "swd500_train"
)
_NAME = re.compile(r"(fid|kid|swd)([1-9]\d*)(k?)_([a-z]+)(?:_([a-z]+))?")


@dataclass(frozen=True)
class Protocol:
    """One way to measure: `kind` fid | kid | swd, number of fakes, split of reals, extractor."""

    kind: str
    num_fakes: int
    split: str
    extractor: str | None

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Read a protocol name; ValueError with the grammar for anything else."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise _unknown(name, "not of this form")
        kind, digits, thousands, split, extractor = match.groups()
        protocol = cls(kind, int(digits) * (1000 if thousands else 1), split, extractor)
        protocol._check(name)
        return protocol

    def __str__(self) -> str:
        thousands, rest = divmod(self.num_fakes, 1000)
        count = f"{self.num_fakes}" if rest else f"{thousands}k"
        return "_".join(filter(None, (f"{self.kind}{count}", self.split, self.extractor)))

    def _check(self, name: str) -> None:
        if self.split not in SPLITS:
            raise _unknown(name, f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        wanted = (None,) if self.kind == "swd" else EXTRACTORS
        if self.extractor not in wanted:
            have = "no extractor" if self.extractor is None else f"extractor {self.extractor!r}"
            need = "takes none" if self.kind == "swd" else f"needs one of {', '.join(EXTRACTORS)}"
            raise _unknown(name, f"{have}, and {self.kind} {need}")
        if self.num_fakes < 3:
            raise _unknown(name, "fewer than 3 fakes have no spread")
        if str(self) != name:
            raise _unknown(name, f"write {self}, so that one protocol has one name")


def _unknown(name: str, reason: str) -> ValueError:
    return ValueError(f"metric {name!r}: {reason}. A metric's name is its protocol: {GRAMMAR}")
