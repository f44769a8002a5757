"""How many images a metric needs before its ranking settles: `… settle.py RUNS --target kitchen`.

Photographs: the finished trials under RUNS (experiments/freeze_strategies) on one target are ranked
by every metric from N of their fakes, in several draws, and each ranking is held against that from
all fakes (Kendall's tau-b). Procedural domains: `rooms/kitchen` at six known distances from
its family's mixture, whose true order and, for KID, true ratios are known by construction.

Extractors: `small` (bundled), `random` (the same network with random weights; Naeem et al. 2020
propose random features where ImageNet's mean nothing), `pixels` (8 × 8 thumbnails).
Writes photographs_<target>.csv, extractors_<target>.csv and procedural.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import Tensor, nn

from stylegan_tl.assembly import Target, open_domain, open_target
from stylegan_tl.data.progress import Progress
from stylegan_tl.measuring import fakes_of
from stylegan_tl.metrics.density_coverage import density_coverage
from stylegan_tl.metrics.fakes import make_rows, spool_folder
from stylegan_tl.metrics.features import Extractor, load_extractor
from stylegan_tl.metrics.fid import feature_distance, fid_infinity
from stylegan_tl.metrics.kid import kernel_distance
from stylegan_tl.metrics.memory import nearer_share
from stylegan_tl.metrics.precision_recall import precision_recall
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.metrics.small import SmallNetwork
from stylegan_tl.metrics.statistics import FeatureStatistics
from stylegan_tl.restore import restore
from stylegan_tl.study.trial import Trial

HERE = Path(__file__).parent
FAKES = 4096
SET = 2048  # pictures of each procedural domain
COUNTS = (32, 64, 128, 256, 512, 1024, 2048)
DRAWS = 10
SIGN = {"precision": -1, "recall": -1, "density": -1, "coverage": -1}  # more is better
Score = Callable[[Tensor, Tensor, Tensor], dict[str, float]]


def main() -> None:
    """Measure, write the tables, print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of the finished trials")
    parser.add_argument("--target", default="kitchen", help="last part of the target's name")
    parser.add_argument("--cache", type=Path, required=True, help="features are kept here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", choices=("photographs", "procedural"), help="default: both")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    extractors = _extractors()
    if given.part != "procedural":
        _on_photographs(given, extractors)
    if given.part != "photographs":
        _procedural(extractors["small"], given.cache)


def _on_photographs(given: argparse.Namespace, extractors: Mapping[str, Extractor]) -> None:
    trials = _trials(given.runs, given.target)
    print(f"{len(trials)} strategies on {given.target}, {FAKES} fakes each")
    target = open_target({**trials[0][1].config, "cache": str(given.cache)})
    rows = {name: _features(trial, folder, target, extractors, given.cache)
            for name, (folder, trial) in _by_strategy(trials).items()}  # fmt: skip
    reals = {e: _reals(extractors[e], target) for e in extractors}
    _photographs(given.target, rows, reals)
    _extractor_effect(given.target, rows, reals)


def _extractors() -> dict[str, Extractor]:
    torch.manual_seed(0)
    random = SmallNetwork()
    pixels = _Pixels()
    made = {"small": load_extractor("small")}
    for name, network in (("random", random), ("pixels", pixels)):
        made[name] = Extractor(
            "small", network, digest=f"{name} 0", num_features=network.num_features,
            resize=network.resize,
        )  # fmt: skip
    return made


class _Pixels(nn.Module):
    num_features, resize = 192, "box to 8 px"

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images.float() / 255, 8).flatten(1)


def _trials(root: Path, target: str) -> list[tuple[Path, Trial]]:
    found = [(p.parent, Trial.load(p)) for p in sorted(root.rglob("trial.json"))]
    return [
        (folder, trial) for folder, trial in found
        if trial.is_complete and trial.seed == 0 and trial.config["target"]["name"].endswith(target)
    ]  # fmt: skip


def _by_strategy(trials: list[tuple[Path, Trial]]) -> dict[str, tuple[Path, Trial]]:
    return {trial.choices["freeze"]: (folder, trial) for folder, trial in trials}


def _features(
    trial: Trial, folder: Path, target: Target, extractors: Mapping[str, Extractor], cache: Path
) -> dict[str, Tensor]:
    model, source = restore(folder)
    fakes = fakes_of(model, target, identity=source.sha256)
    spool = spool_folder(cache, fakes, extractors)
    wanted = [Protocol("fid", FAKES, "train", name) for name in extractors]
    progress = Progress(trial.choices["freeze"], FAKES)
    say = lambda done, total: progress(done)  # noqa: E731
    return make_rows(wanted, fakes, extractors, spool=spool, say=say).features


def _reals(extractor: Extractor, target: Target) -> dict[str, Tensor]:
    sides = {"train": target.train, "heldout": target.held_out}
    return {s: _extract(extractor, target.dataset.images(i)) for s, i in sides.items()}


def _extract(extractor: Extractor, images: np.ndarray) -> Tensor:
    return torch.cat([extractor(part) for part in torch.from_numpy(images).split(256)])


def _scores(fake: Tensor, train: Tensor, held_out: Tensor) -> dict[str, float]:
    """Every metric of the fakes; KID, FID and the k-NN metrics against the training images."""
    generator = torch.Generator().manual_seed(0)
    found = {
        "fid": feature_distance(fake, FeatureStatistics.from_features(train)),
        "kid": kernel_distance(fake, train)[0],
        "kid held out": kernel_distance(fake, held_out)[0],
        **precision_recall(fake, train),
        **density_coverage(fake, train),
        "nearer": nearer_share(fake, train, held_out, generator=generator)["value"],
    }
    if len(fake) >= 128:
        found["fidinf"] = fid_infinity(fake, train, generator=generator)["value"]
    return {name: SIGN.get(name, 1) * value for name, value in found.items()}


def _draws(seed: int) -> Iterable[tuple[int, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for count in COUNTS:
        for _ in range(DRAWS):
            yield count, torch.randperm(FAKES, generator=generator)[:count]


def _photographs(
    target: str, rows: Mapping[str, Mapping[str, Tensor]], reals: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Agreement of the ranking from N fakes with that from all, for the small extractor."""
    sides = reals["small"]
    features = {name: own["small"] for name, own in rows.items()}
    final = {name: _scores(f, **_sides(sides)) for name, f in features.items()}
    taus: dict[tuple[str, int], list[float]] = {}
    for count, chosen in _draws(0):
        values = {name: _scores(f[chosen], **_sides(sides)) for name, f in features.items()}
        for metric in next(iter(values.values())):
            tau = _tau([values[n][metric] for n in features], [final[n][metric] for n in features])
            taus.setdefault((metric, count), []).append(tau)
    table = []
    for metric in next(iter(final.values())):
        row: dict[str, object] = {"metric": metric}
        for count in COUNTS:
            own = taus.get((metric, count))
            row[str(count)] = "" if own is None else f"{median(own):.2f}"
        row["settles"] = _settles(metric, taus)
        table.append(row)
    _write(HERE / f"photographs_{target}.csv", table)


def _sides(sides: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"train": sides["train"], "held_out": sides["heldout"]}


def _settles(metric: str, taus: Mapping[tuple[str, int], list[float]]) -> object:
    """The smallest N from which nine draws in ten agree with the final ranking to tau 0.9."""
    settled: object = f"> {COUNTS[-1]}"
    for count in reversed(COUNTS):
        own = taus.get((metric, count))
        if own is None or np.quantile(own, 0.1) < 0.9:
            break
        settled = count
    return settled


def _tau(a: list[float], b: list[float]) -> float:
    found = kendalltau(a, b).statistic
    return 0.0 if np.isnan(found) else float(found)


def _extractor_effect(
    target: str, rows: Mapping[str, Mapping[str, Tensor]], reals: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Agreement of the final rankings between extractors, for each metric."""
    final = {
        e: {name: _scores(own[e][:2048], **_sides(reals[e])) for name, own in rows.items()}
        for e in reals
    }
    table = []
    for metric in next(iter(next(iter(final.values())).values())):
        column = {e: [final[e][n][metric] for n in rows] for e in final}
        table.append(
            {
                "metric": metric,
                "small~random": f"{_tau(column['small'], column['random']):.2f}",
                "small~pixels": f"{_tau(column['small'], column['pixels']):.2f}",
                "best by small": min(rows, key=lambda n: final["small"][n][metric]),
                "best by random": min(rows, key=lambda n: final["random"][n][metric]),
                "best by pixels": min(rows, key=lambda n: final["pixels"][n][metric]),
            }
        )
    _write(HERE / f"extractors_{target}.csv", table)


def _procedural(extractor: Extractor, cache: Path) -> None:
    """rooms/kitchen at known distances from its family's mixture: is the order found?"""
    distances = [i / 5 for i in range(6)]  # KID grows as the distance squared, exactly
    config = {"resolution": 64, "cache": str(cache), "held_out": 0.0, "seed": 0}
    option = {"kind": "procedural", "name": "rooms/kitchen", "domain": "rooms/kitchen"}
    sets = {}
    for d in distances:
        domain = open_domain({**option, "size": SET, "distance": d}, config)
        sets[d] = _extract(extractor, domain.dataset.images(domain.train))
    # indices from SET: no picture is in both
    other = open_domain({**option, "size": 2 * SET, "distance": 0.0}, config)
    mixture = _extract(extractor, other.dataset.images(np.arange(SET, 2 * SET)))
    table = []
    for count in COUNTS:
        taus: dict[str, list[float]] = {}
        ratios: list[float] = []
        generator = torch.Generator().manual_seed(1)
        for _ in range(DRAWS):
            left, right = (torch.randperm(SET, generator=generator)[:count] for _ in range(2))
            real = mixture[right]
            found = {d: _pair(sets[d][left], real) for d in distances}
            for metric in next(iter(found.values())):
                tau = _tau([found[d][metric] for d in distances], distances)
                taus.setdefault(metric, []).append(tau)
            ratios.append(found[0.6]["kid"] / found[1.0]["kid"])
        row = {"images": count} | {m: f"{median(t):.2f}" for m, t in taus.items()}
        spread = f"{np.quantile(ratios, 0.1):.2f} to {np.quantile(ratios, 0.9):.2f}"
        table.append({**row, "KID(0.6)/KID(1), truth 0.36": f"{median(ratios):.2f} ({spread})"})
    _write(HERE / "procedural.csv", table)


def _pair(left: Tensor, right: Tensor) -> dict[str, float]:
    found = {
        "fid": feature_distance(left, FeatureStatistics.from_features(right)),
        "kid": kernel_distance(left, right)[0],
        **precision_recall(left, right),
        **density_coverage(left, right),
    }
    return {name: SIGN.get(name, 1) * value for name, value in found.items()}


def _write(path: Path, table: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    print(f"\n{path.name}")
    for row in [dict(zip(table[0], table[0], strict=True)), *table]:
        print("  ".join(f"{value!s:<14}" for value in row.values()))


if __name__ == "__main__":
    main()
