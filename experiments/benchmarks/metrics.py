"""Times of the metrics beside their yardsticks: `python experiments/benchmarks/metrics.py`.

FID's distance against torchmetrics' and scipy's general square roots on the same statistics, the
statistics themselves, KID, precision and recall, density and coverage, SWD and the bundled
extractor. `--features 512` for a quick look. `--neighbours 50000` measures nearest neighbours among
as many rows alone, so that the peak memory is theirs; `--queries 2048` looks for fewer rows' only.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from stylegan_tl.metrics.density_coverage import density_coverage
from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.fid import feature_distance, frechet_distance
from stylegan_tl.metrics.kid import kernel_distance
from stylegan_tl.metrics.neighbours import ball_hits, nearest
from stylegan_tl.metrics.precision_recall import precision_recall
from stylegan_tl.metrics.statistics import FeatureStatistics, StatisticsAccumulator
from stylegan_tl.metrics.swd import sliced_wasserstein


def main() -> None:
    """Print one line per measurement and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-scipy", action="store_true", help="saves a minute or more")
    parser.add_argument("--neighbours", type=int, help="only k-NN, among as many rows")
    parser.add_argument("--queries", type=int, help="rows to find neighbours of; default: all")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.neighbours:
        _neighbours(given.queries or given.neighbours, given.neighbours, given.features)
        return
    print(f"{given.count} images, {given.features} features, {given.threads} threads")
    x, y = (_features(given.count, given.features, seed) for seed in (0, 1))
    _distances(x, y, not given.without_scipy)
    _manifolds(x, y)
    _rest(x, y)


def _neighbours(queries: int, count: int, num_features: int) -> None:
    print(f"{queries} × {count} rows of {num_features}, {torch.get_num_threads()} threads")
    x, y = (_features(n, num_features, seed) for seed, n in enumerate((queries, count)))
    held = x.nbytes + y.nbytes
    print(f"    features {held / 2**30:.2f} GiB, peak memory so far {_peak():.2f} GiB")
    seconds, found = _timed("3 nearest neighbours", lambda: nearest(x, y, 3), 1)
    rate = 2 * queries * count * num_features / seconds / 1e9
    print(f"    {rate:.0f} GFLOP/s, peak memory {_peak():.2f} GiB")
    radii = found[0][:, -1].mean().expand(count)
    _timed("ball hits", lambda: ball_hits(x, y, radii), 1)
    print(f"    peak memory {_peak():.2f} GiB")


def _manifolds(x: torch.Tensor, y: torch.Tensor) -> None:
    _timed("precision and recall, k = 3", lambda: precision_recall(x, y), 1)
    _timed("density and coverage, k = 5", lambda: density_coverage(x, y), 1)


def _peak() -> float:
    """Peak resident memory of the process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _distances(x: torch.Tensor, y: torch.Tensor, scipy_too: bool) -> None:
    seconds, first = _timed("FID statistics, batches of 64", lambda: _accumulate(x), 1)
    print(f"    {len(x) / seconds:.0f} images/s")
    second = FeatureStatistics.from_features(y)
    ours, value = _timed("FID distance, symmetric", lambda: frechet_distance(first, second), 3)
    few = x[: min(500, x.shape[1] // 2)]
    _timed(f"FID distance, {len(few)} fakes", lambda: feature_distance(few, second), 3)
    moments = (first.mean, first.cov, second.mean, second.cov)
    theirs, other = _timed("torchmetrics _compute_fid", lambda: _compute_fid(*moments).item(), 1)
    print(f"    torchmetrics / ours = {theirs / ours:.1f}: {other:.8f}, {value:.8f}")
    if scipy_too:
        slow, third = _timed("scipy.linalg.sqrtm", lambda: _scipy(*moments), 1)
        print(f"    scipy / ours = {slow / ours:.1f}: {third:.8f}, {value:.8f}")


def _rest(x: torch.Tensor, y: torch.Tensor) -> None:
    _timed("KID, all pairs of 1 000", lambda: kernel_distance(x[:1000], y[:1000]), 2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2000, 3, 64, 64), dtype=torch.uint8, generator=generator)
    real, fake = images.split(1000)
    _timed("SWD of 1 000 at 64 px", lambda: sliced_wasserstein(real, fake, generator=generator), 1)
    extractor = load_extractor("small")
    work = lambda: [extractor(part) for part in real.split(64)]  # noqa: E731
    seconds, _ = _timed("small extractor, 1 000 at 64 px", work, 5)
    print(f"    {len(real) / seconds:.0f} images/s")


def _features(count: int, num_features: int, seed: int) -> torch.Tensor:
    """Correlated features with a spectrum that falls by three decades."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -1.5, num_features)
    mix = torch.linalg.qr(torch.randn(num_features, num_features, generator=generator))[0]
    return torch.randn(count, num_features, generator=generator).mul_(scale) @ mix


def _accumulate(features: torch.Tensor) -> FeatureStatistics:
    accumulator = StatisticsAccumulator(features.shape[1])
    for part in features.split(64):
        accumulator.update(part)
    return accumulator.compute()


def _scipy(*moments: torch.Tensor) -> float:
    mean_x, cov_x, mean_y, cov_y = (m.numpy() for m in moments)
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    return float(np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x + cov_y - 2 * root))


def _timed(name: str, work: Callable[[], object], repeats: int) -> tuple[float, object]:
    wall, busy = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        result = work()
        wall.append(time.perf_counter() - began)
        busy.append(time.process_time() - used)
    print(f"{name:32s} {min(wall):8.3f} s wall {min(busy):8.3f} s CPU", flush=True)
    return min(wall), result


if __name__ == "__main__":
    main()
