"""What of the source is left in a transferred generator: paired distance, and a classifier's share.

The share is a quantification problem: a classifier of source against target reals that errs, counts
fakes wrongly by as much. Its rates of error, measured on reals it was not trained on, correct the
count (adjusted count: Forman 2008, "Quantifying counts and costs via classification", section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_tl.metrics.pixels import within

__all__ = ["LEAST", "logistic_regression", "paired_distance", "source_residue"]

Embed = Callable[[Tensor], Tensor]
LEAST = 5  # images of each domain that `source_residue` needs by default: one a fold
_STEPS = 100  # of Newton; about ten are needed


def paired_distance(a: Tensor, b: Tensor, embed: Embed, *, batch: int = 16) -> dict[str, float]:
    """Mean perceptual distance of `a[i]` and `b[i]`: G_source(z) and G_target(z) for the same z.

    a, b:  uint8 [N, 3, R, R]; above 256 px they are averaged down.
    embed: images → [N, E], rows whose squared Euclidean distance is the perceptual distance.

    Gives `value` and its `stderr` over the pairs (NaN for a single one). ValueError for unequal or
    empty sets.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(
            f"pairs need two equal sets of images, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    found = [
        (embed(within(x)).double() - embed(within(y)).double()).square().sum(1)
        for x, y in zip(a.split(batch), b.split(batch), strict=True)
    ]
    distances = torch.cat(found)
    error = distances.std() / len(distances) ** 0.5 if len(distances) > 1 else torch.nan
    return {"value": distances.mean().item(), "stderr": float(error)}


def source_residue(
    fake: Tensor, source: Tensor, target: Tensor, *, generator: torch.Generator, folds: int = LEAST
) -> dict[str, float | str]:
    """Share of fakes that look like the source, by features [N, F] of fakes and of both domains.

    1. The larger domain is thinned at random to the size n of the smaller; both are dealt into
       `folds` folds; features are standardised by the mean and deviation of these 2n reals.
    2. A logistic regression (source 1, target 0; half the squared weights as penalty) is trained on
       all folds but one, in turn. On the fold left out it gives the share of source reals called
       source (tpr) and of target reals called source (fpr); `accuracy` = (tpr + 1 − fpr) / 2. Each
       fold's classifier also calls every fake; `observed` is the mean share over the classifiers.
    3. value = (observed − fpr) / (tpr − fpr), kept within [0, 1]. It is the share of source images
       in the fakes if they are a mixture of both domains; where they resemble neither, it says only
       on which side of the boundary they lie.

    `stderr` is the delta method's over fakes and over the reals behind tpr and fpr, each count k of
    n taken as (k + 1/2) / (n + 1) so that no error is zero; the classifiers count as given. If tpr
    − fpr is within two standard errors of zero, the domains cannot be told apart in these features:
    value and stderr are NaN and `note` says so. `generator` (CPU) draws the thinning and the folds.
    ValueError for fewer than `folds` images of a domain, no fakes, or numbers that are not finite.
    """
    _check(fake, source, target, folds)
    n = min(len(source), len(target))
    sides = [_drawn(x, n, generator).double() for x in (source, target)]
    x = torch.cat(sides)
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12 * mean.abs(), scale, torch.inf)  # constant: says nothing
    source_x, target_x, fake_x = ((some - mean) / scale for some in (*sides, fake.double()))
    votes = torch.zeros(len(fake), dtype=torch.float64, device=fake.device)
    true = false = 0
    for fold in range(folds):
        held = torch.arange(n, device=x.device) % folds == fold
        weights, bias = _trained(source_x[~held], target_x[~held])
        true += int((source_x[held] @ weights + bias > 0).sum())
        false += int((target_x[held] @ weights + bias > 0).sum())
        votes += (fake_x @ weights + bias > 0).double() / folds
    return _adjusted(votes.sum().item(), len(fake), true, false, n)


def logistic_regression(x: Tensor, y: Tensor, *, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights [F] and bias [] that minimise Σ log(1 + e^(−s (x·w + b))) + penalty/2 ‖w‖².

    x float64 [N, F]; y [N] of 0 and 1, s = 2y − 1. By Newton's method with halved steps, to a
    relative 1e-12 of the objective. ValueError unless both classes are there.
    """
    if not 0 < int(y.sum()) < len(y):
        raise ValueError("a classifier needs examples of both classes")
    if len(x) < x.shape[1]:  # the best weights lie in the span of the rows: as many unknowns
        basis, rows = torch.linalg.qr(x.T)
        weights, bias = logistic_regression(rows.T, y, penalty=penalty)
        return basis @ weights, bias
    design = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    sign = 2 * y.to(x) - 1
    ridge = torch.full_like(design[0], penalty)
    ridge[-1] = 0
    theta = torch.zeros_like(ridge)
    value = _objective(theta, design, sign, ridge)
    for _ in range(_STEPS):
        before = value
        theta, value = _newton_step(theta, value, design, sign, ridge)
        if before - value <= 1e-12 * value:
            break
    return theta[:-1], theta[-1]


def _trained(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.cat([torch.ones(len(source)), torch.zeros(len(target))])
    return logistic_regression(torch.cat([source, target]), labels.to(source))


def _objective(theta: Tensor, design: Tensor, sign: Tensor, ridge: Tensor) -> Tensor:
    return F.softplus(-sign * (design @ theta)).sum() + (ridge * theta.square()).sum() / 2


def _newton_step(
    theta: Tensor, value: Tensor, design: Tensor, sign: Tensor, ridge: Tensor
) -> tuple[Tensor, Tensor]:
    """One step, halved until it descends; no step where none does."""
    chance = torch.sigmoid(-sign * (design @ theta))  # of the wrong class
    gradient = ridge * theta - design.T @ (sign * chance)
    curvature = (chance * (1 - chance)).clamp_min(1e-12)
    hessian = design.T @ (curvature[:, None] * design) + ridge.diag()
    step = torch.linalg.solve(hessian, gradient)
    for halvings in range(40):
        moved = theta - step / 2**halvings
        found = _objective(moved, design, sign, ridge)
        if found < value:
            return moved, found
    return theta, value


def _adjusted(votes: float, fakes: int, true: int, false: int, n: int) -> dict[str, float | str]:
    observed, tpr, fpr = votes / fakes, true / n, false / n
    found: dict[str, float | str] = {
        "value": torch.nan,
        "stderr": torch.nan,
        "accuracy": (tpr + 1 - fpr) / 2,
        "observed": observed,
        "tpr": tpr,
        "fpr": fpr,
    }
    gap = tpr - fpr
    of_fakes, of_tpr, of_fpr = (_variance(*c) for c in ((votes, fakes), (true, n), (false, n)))
    if gap <= 2 * (of_tpr + of_fpr) ** 0.5:
        return {**found, "note": "the classifier cannot tell the two domains apart: no share"}
    value = min(max((observed - fpr) / gap, 0.0), 1.0)
    variance = of_fakes + (1 - value) ** 2 * of_fpr + value**2 * of_tpr
    return {**found, "value": value, "stderr": variance**0.5 / gap}


def _variance(count: float, total: int) -> float:
    share = (count + 0.5) / (total + 1)
    return share * (1 - share) / total


def _drawn(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]


def _check(fake: Tensor, source: Tensor, target: Tensor, folds: int) -> None:
    widths = {x.shape[1] if x.ndim == 2 else None for x in (fake, source, target)}
    if len(widths) > 1 or None in widths:
        shapes = ", ".join(str(tuple(x.shape)) for x in (fake, source, target))
        raise ValueError(f"fakes, source and target need features [N, F] of one F, got {shapes}")
    if folds < 2:
        raise ValueError(f"folds={folds}: use 2 or more")
    if min(len(source), len(target)) < folds or not len(fake):
        raise ValueError(
            f"{len(source)} source, {len(target)} target and {len(fake)} fake images: at least "
            f"{folds} of each domain and one fake are needed"
        )
    for name, x in (("fakes", fake), ("source", source), ("target", target)):
        if not torch.isfinite(x).all():
            raise ValueError(f"features of {name} are not finite")
