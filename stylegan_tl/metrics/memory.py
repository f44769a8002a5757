"""Memorisation: are the fakes nearer to training images than to unseen images of the same kind?

The three samples of Meehan et al. 2020 (fakes, training, unseen), compared by nearest images. Fakes
of the distribution, not of its training images, are as often nearer to one side as to the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat

from stylegan_tl.metrics.neighbours import CHUNK_BYTES, TIE, check_sets, nearest
from stylegan_tl.metrics.shell import FeatureMetric, scalars

__all__ = ["NearerShare", "nearer_share", "nearest_training"]


def nearer_share(
    fake: Tensor,
    train: Tensor,
    held_out: Tensor,
    *,
    generator: torch.Generator,
    chunk_bytes: int = CHUNK_BYTES,
) -> dict[str, float | None]:
    """Share of fakes [N, F] whose nearest image is of `train` [T, F], not of `held_out` [H, F].

    value:  the share; 0.5 if nothing is memorised, 1 if all is; equally near counts half.
    stderr: its standard error, by linearisation over the images of both sides, since fakes nearest
            to one image are not independent; 0 where all fakes agree.
    ratio:  median of distance to train / distance to held_out, of the logarithms, so that the sides
            mirror each other; 1 if nothing is memorised, 0 for copies (0 / 0 is 1). None where it
            is not finite: half of the fakes or more are copies of held-out images.
    count:  images taken of each side: the larger one is thinned by `generator` to the other's
            number, because more images are nearer by chance. The rows' order changes nothing.

    ValueError if a side has fewer than 2 images.
    """
    check_sets(fake=fake, train=train, held_out=held_out)
    count = min(len(train), len(held_out))
    if count < 2:
        raise ValueError(
            "memorisation needs at least 2 training and 2 held-out images, got "
            f"{len(train)} and {len(held_out)}"
        )
    sides = [_thin(rows, count, generator) for rows in (train, held_out)]
    found = [nearest(fake, rows, chunk_bytes=chunk_bytes) for rows in sides]
    (near, near_index), (far, far_index) = [(d[:, 0], i[:, 0]) for d, i in found]
    share = _nearer(near, far)
    return {
        "value": share.mean().item(),
        "stderr": _standard_error(share, near_index, far_index, count),
        "ratio": _median(_ratio(near, far)),
        "count": float(count),
    }


def nearest_training(
    fake: Tensor, train: Tensor, count: int, *, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `count` fakes nearest to a training image, nearest first, to be looked at.

    Distances (float64), indices into `fake` [N, F] and into `train` [T, F]; each [min(count, N)].
    """
    if count < 1:
        raise ValueError(f"count={count}: at least 1 pair")
    distances, indices = nearest(fake, train, chunk_bytes=chunk_bytes)
    found, which = distances[:, 0].sort(stable=True)
    return found[:count], which[:count], indices[which[:count], 0]


class NearerShare(FeatureMetric):
    """`nearer_share` of all features seen, on all ranks; a real is a training image or held out.

    Lower is better for "value"; "ratio" goes the other way.
    """

    higher_is_better = False

    held_out: list[Tensor]

    def __init__(self, *, seed: int = 0, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        self.seed = seed
        self.add_state("held_out", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool, held_out: bool = False) -> None:
        """Add `features` [N, F] of fakes, or of reals: training images unless `held_out`."""
        if held_out and not real:
            raise ValueError("held_out=True goes with real=True: fakes are not held out")
        if not held_out:
            super().update(features, real=real)
            return
        self.check(features)
        if len(features):
            self.held_out.append(features.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return {"value", "stderr", "ratio", "count"}, float64; NaN for a ratio of None."""
        sets = (self.rows(real=False), self.rows(real=True), self._held_out_rows())
        found = nearer_share(*sets, generator=torch.Generator().manual_seed(self.seed))
        return scalars({name: torch.nan if x is None else x for name, x in found.items()})

    def _held_out_rows(self) -> Tensor:
        if sum(len(part) for part in self.held_out) == 0:
            raise ValueError("NearerShare has no held-out images: update(…, held_out=True)")
        return dim_zero_cat(self.held_out)


def _thin(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random `count` of `rows`, the same whatever their order: drawn from a sorted list of them."""
    if len(rows) == count:
        return rows
    device = generator.device
    direction = torch.randn(rows.shape[1], generator=generator, device=device, dtype=torch.float64)
    along = torch.cat([part.double() @ direction.to(rows.device) for part in rows.split(4096)])
    drawn = torch.randperm(len(rows), generator=generator, device=device)[:count]
    return rows[along.argsort()[drawn.to(rows.device)]]


def _nearer(near: Tensor, far: Tensor) -> Tensor:
    """1 where `near` is the smaller distance, ½ where they are equal, 0 elsewhere."""
    gap = near.square() - far.square()
    equal = gap.abs() <= TIE * torch.maximum(near, far).square()
    return torch.where(equal, 0.5, (gap < 0).double())


def _standard_error(share: Tensor, near: Tensor, far: Tensor, count: int) -> float:
    """Error of p = S / (S + S'), S and S' the sums over each side's images of the fakes they win.

    Linearised: `n ((1 − p)² Var s + p² Var s') / N²` under the root. That is √(p (1 − p) / N) if
    no fakes share an image, and the permutation test's if p is ½.
    """
    p = share.mean()
    wins = share.new_zeros(2, count)
    wins[0].index_add_(0, near, share)
    wins[1].index_add_(0, far, 1 - share)
    spread = wins.var(1) * torch.stack([(1 - p).square(), p.square()])
    return (count * spread.sum()).sqrt().item() / len(share)


def _ratio(near: Tensor, far: Tensor) -> Tensor:
    return torch.where((near == 0) & (far == 0), 1.0, near / far)


def _median(ratio: Tensor) -> float | None:
    """e^(median log ratio), the geometric mean of the middle two; no logarithms, some are of 0."""
    middle = [torch.quantile(ratio, 0.5, interpolation=side) for side in ("lower", "higher")]
    value = (middle[0].sqrt() * middle[1].sqrt()).item()
    return value if math.isfinite(value) else None
