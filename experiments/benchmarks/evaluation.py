"""Throughput of an evaluation: `python experiments/benchmarks/evaluation.py [--device cuda]`.

Times, in images a second: the extractor's bare forward on images that already lie on the device,
the generator alone, both in turn, and the evaluation's own pass (`make_rows`), which on a GPU
generates the next batch while this one is featurised. Then the harm of bfloat16 features: FID of
the same images against themselves in float32, beside FID of other images.

Networks have random weights of the real shapes: throughput does not depend on their values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stylegan_tl.metrics.fakes import Fakes, make_rows
from stylegan_tl.metrics.features import Extractor, load_extractor
from stylegan_tl.metrics.fid import frechet_distance
from stylegan_tl.metrics.inception import Inception
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.metrics.statistics import FeatureStatistics
from stylegan_tl.models.adversarial import to_uint8
from stylegan_tl.networks.stylegan2 import Generator


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--extractor", choices=("small", "inception"), default="small")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--channel-base", type=int, default=2048)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device(given.device)
    G = Generator(resolution=given.resolution, channel_base=given.channel_base, channel_max=512)
    G = G.to(device).eval().requires_grad_(False)
    extractor = _extractor(given.extractor, "fp32", device)
    print(torch.cuda.get_device_name() if device.type == "cuda" else f"{given.threads} threads")
    _throughput(given, G, extractor, device)
    _harm(given, G, device)


def _extractor(name: str, precision: str, device: torch.device) -> Extractor:
    if name == "small":
        return load_extractor("small", precision=precision).to(device)
    torch.manual_seed(1)
    network = Inception()
    return Extractor(
        name, network, digest="random", num_features=network.num_features, resize=network.resize,
        precision=precision,
    ).to(device)  # fmt: skip


def _sample(G: Generator, device: torch.device) -> Callable[[int, int], Tensor]:
    @torch.no_grad()
    def sample(start: int, count: int) -> Tensor:
        z = torch.randn(count, G.z_dim, generator=torch.Generator().manual_seed(start))
        return to_uint8(G(z.to(device), noise="const"))

    return sample


def _throughput(given: argparse.Namespace, G: Generator, extractor: Extractor, device) -> None:
    sample, count = _sample(G, device), given.images // given.batch * given.batch
    starts = range(0, count, given.batch)
    images = sample(0, given.batch)
    fakes = Fakes(sample)
    wanted = [Protocol("fid", count, "train", extractor.name)]
    runs = {
        "extractor alone": lambda: [extractor(images) for _ in starts],
        "generator alone": lambda: [sample(s, given.batch) for s in starts],
        "both in turn": lambda: [extractor(sample(s, given.batch)).cpu() for s in starts],
        "evaluation": lambda: make_rows(
            wanted, fakes, {extractor.name: extractor}, batch_size=given.batch
        ),
    }
    rates = {}
    for name, run in runs.items():
        _timed(lambda: extractor(sample(0, given.batch)), device)  # warm
        rates[name] = count / _timed(run, device)
        print(f"{name:<16} {rates[name]:8.1f} images/s")
    bound = 1 / (1 / rates["extractor alone"] + 1 / rates["generator alone"])
    whole, bare = rates["evaluation"], rates["extractor alone"]
    print(f"evaluation / extractor alone         {whole / bare:.2f}")
    print(f"evaluation / the two one after other {whole / bound:.2f}")


def _harm(given: argparse.Namespace, G: Generator, device: torch.device) -> None:
    sample, count = _sample(G, device), given.images
    found = {}
    for precision in ("fp32", "bf16"):
        extractor = _extractor(given.extractor, precision, device)
        rows = [extractor(sample(s, given.batch)) for s in range(0, count, given.batch)]
        found[precision] = torch.cat(rows).cpu()
    half = [FeatureStatistics.from_features(f) for f in found["fp32"].chunk(2)]
    whole = {name: FeatureStatistics.from_features(f) for name, f in found.items()}
    print(f"FID, bf16 against fp32, same images  {frechet_distance(*whole.values()):.3g}")
    print(f"FID, fp32, one half against another  {frechet_distance(*half):.3g}")


def _timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
