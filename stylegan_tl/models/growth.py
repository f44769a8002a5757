"""Progressive growing (Karras et al. 2018, arXiv:1710.10196): which resolution when, on the clock.

Every quantity is a function of nimg alone, so a run that resumes, also in a fade, grows on as it
would have. From the start resolution on, each resolution trains for `lod_training_kimg`; then the
next one fades in for `lod_transition_kimg`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Growth", "changes_stage"]

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Growth:
    """The schedule of a run up to `resolution`; None times are not allowed, 0 is.

    `lod_initial_resolution` is where it begins, or `start_resolution` where that is given.
    `batch_size` and `lr_factor` hold, by resolution ("32": …), what differs there from
    `training.batch_size` and by how much the learning rates are multiplied.
    """

    resolution: int
    lod_initial_resolution: int = 8
    lod_training_kimg: float = 600.0
    lod_transition_kimg: float = 600.0
    start_resolution: int | None = None
    batch_size: Mapping[str, int] | None = None
    lr_factor: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for key in ("lod_initial_resolution", "start_resolution"):
            self._check_resolution(key, getattr(self, key))
        for key in ("lod_training_kimg", "lod_transition_kimg"):
            if not _is_number(getattr(self, key), least=0):
                raise ValueError(f"model.growth.{key}={getattr(self, key)}: use 0 or more kimg")
        for key, kind in (("batch_size", int), ("lr_factor", (int, float))):
            for at, value in (getattr(self, key) or {}).items():
                if not str(at).isdecimal() or not _is_power(int(at)):
                    raise ValueError(f"model.growth.{key}.{at}: name a resolution, such as 32")
                if not isinstance(value, kind) or not _is_number(value) or value <= 0:
                    raise ValueError(f"model.growth.{key}.{at}={value}: use a number above 0")

    @property
    def start(self) -> int:
        """The resolution at nimg 0, in pixels."""
        first = self.start_resolution or self.lod_initial_resolution
        return min(first, self.resolution)

    def lod(self, nimg: int) -> float:
        """How far from the full resolution: k at R / 2^k, falling to k - 1 while that fades in."""
        first = (self.resolution // self.start).bit_length() - 1
        train, fade = self._images
        if first == 0 or train + fade == 0:
            return 0.0
        phase, within = divmod(nimg, train + fade)
        faded = (within - train) / fade if fade and within > train else 0.0
        return max(first - phase - faded, 0.0)

    def top(self, nimg: int) -> int:
        """The highest resolution in use, in pixels."""
        return self.resolution >> math.floor(self.lod(nimg))

    def stage(self, nimg: int) -> dict[str, float]:
        """The resolution in use and how far it has faded in, up to 1; empty where none grows."""
        if self.start == self.resolution:
            return {}
        fading = self.lod(nimg) % 1
        return {"resolution": self.top(nimg), "fade_in": 1 - fading if fading else 1.0}

    def batch_at(self, nimg: int, base: int) -> int:
        """Images of a step in the iteration that begins at `nimg`; `base` where none is named."""
        return _at(self.batch_size, self.top(nimg), base)

    def factor_at(self, nimg: int) -> float:
        """What multiplies both learning rates."""
        return _at(self.lr_factor, self.top(nimg), 1.0)

    def iterations(self, nimg: int, base: int, steps: int = 1) -> int:
        """How many iterations, of `steps` batches each, begin before `nimg`."""
        count, position = 0, 0
        for end in [*self._boundaries(nimg), nimg]:
            size = self.batch_at(position, base) * steps
            some = max(math.ceil((end - position) / size), 0)
            count, position = count + some, position + some * size
        return count

    def _boundaries(self, nimg: int) -> Iterator[int]:
        """Where `top` rises, before `nimg`: the first image of each fade."""
        train, fade = self._images
        for i in range((self.resolution // self.start).bit_length() - 1):
            at = i * (train + fade) + train + (fade > 0)
            if at < nimg:
                yield at

    @property
    def _images(self) -> tuple[int, int]:
        """How many a resolution trains on, and how many the next one fades in for."""
        return round(self.lod_training_kimg * 1000), round(self.lod_transition_kimg * 1000)

    def _check_resolution(self, key: str, value: int | None) -> None:
        if value is None and key == "start_resolution":
            return
        whole = isinstance(value, int) and _is_power(value)
        if not whole or (key == "start_resolution" and value > self.resolution):
            raise ValueError(
                f"model.growth.{key}={value}: use a power of two from 4 to resolution="
                f"{self.resolution}"
            )


def changes_stage(before: float, now: float) -> bool:
    """Whether a fade begins or ends between two values of lod: the optimizers begin anew there."""
    return math.floor(before) != math.floor(now) or math.ceil(before) != math.ceil(now)


def _at(table: Mapping[str, T] | None, resolution: int, default: T) -> T:
    return next((v for k, v in (table or {}).items() if int(k) == resolution), default)


def _is_power(value: int) -> bool:
    return value >= 4 and not value & (value - 1)


def _is_number(value: object, least: float = 0) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value < float("inf")
