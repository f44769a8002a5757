"""Every shell: two processes give what one gives, in any order and in batches of any size.

A further shell is one line of CASES: how it is made, and the rows that it is fed with keywords.
"""

from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from stylegan_tl.metrics.density_coverage import DensityCoverage
from stylegan_tl.metrics.diversity import Diversity
from stylegan_tl.metrics.evaluate import evaluate
from stylegan_tl.metrics.fakes import Fakes
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.fid import FrechetInceptionDistance, FrechetInceptionDistanceInfinity
from stylegan_tl.metrics.inception_score import InceptionScore
from stylegan_tl.metrics.kid import KernelInceptionDistance
from stylegan_tl.metrics.memory import NearerShare
from stylegan_tl.metrics.precision_recall import PrecisionRecall
from stylegan_tl.metrics.swd import SlicedWasserstein

WORLD = 2


def _features(n, seed, scale=1.0):
    return scale * torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def _images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)


FEATURES = [(_features(61, 0), {"real": False}), (_features(43, 1, 1.3) + 0.2, {"real": True})]
IMAGES = [(_images(21, 0), {"real": False}), (_images(21, 1) // 2, {"real": True})]
LOGITS = [(_features(61, 2, 2.0), {"real": False})]
HELD_OUT = (_features(30, 5), {"real": True, "held_out": True})
CASES = {
    "fid": (lambda: FrechetInceptionDistance(6), FEATURES),
    "fidinf": (lambda: FrechetInceptionDistanceInfinity(points=5, seed=3), FEATURES),
    "kid": (KernelInceptionDistance, FEATURES),
    "kid in subsets": (lambda: KernelInceptionDistance(subset_size=20, seed=3), FEATURES),
    "swd": (lambda: SlicedWasserstein(seed=3, patches=4, projections=8), IMAGES),
    "is": (lambda: InceptionScore(splits=4), LOGITS),
    "pr": (PrecisionRecall, FEATURES),
    "dc": (DensityCoverage, FEATURES),
    "diversity": (Diversity, FEATURES),
    "nearer": (lambda: NearerShare(seed=3), [*FEATURES, HELD_OUT]),
}


def _share(rows, rank, layout):
    """What one rank sees of `rows`: every third against the rest, or everything on rank 0."""
    if layout == "all on rank 0":
        return rows if rank == 0 else rows[:0]
    first = torch.arange(len(rows)) % 3 == 0
    return rows[first] if rank == 0 else rows[~first]


def _measure(name, batches, pick=lambda rows: rows):
    make, feeds = CASES[name]
    metric = make()
    for rows, keywords in feeds:
        for part in pick(rows).split(batches):
            metric.update(part, **keywords)
    return {key: value.item() for key, value in metric.compute().items()}


class _Pixels(torch.nn.Module):
    def forward(self, images):
        return images[:, :, :2, :2].flatten(1).float() / 255


class _Reals:
    content_hash = "reals"

    def images(self, indices):
        return _images(300, 2)[torch.as_tensor(indices)].numpy()


def _evaluate():
    """The whole evaluation of 300 fakes: the ranks make unequal parts of them."""
    fakes = _images(300, 7) // 2
    found = evaluate(
        ["fid300_train_small", "kid200_train_small", "pr300_train_small", "swd100_train"],
        fakes=Fakes(lambda start, count: fakes[start : start + count]),
        reals={"train": (_Reals(), np.arange(250))},
        extractors={"small": Extractor("small", _Pixels(), digest="d", num_features=12, resize="")},
    )
    return {record["metric"]: record["value"] for record in found}


def _work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    found = {
        (name, layout): _measure(
            name, 5 + 4 * rank, lambda rows, layout=layout: _share(rows, rank, layout)
        )
        for name in CASES
        for layout in ("every third", "all on rank 0")
    }
    found["evaluation"] = _evaluate()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_work, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.parametrize("layout", ["every third", "all on rank 0"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_what_one_gives(two_processes, name, layout):
    wanted = _measure(name, 1000)
    for found in two_processes:
        assert found[name, layout] == pytest.approx(wanted, rel=1e-9)


def test_an_evaluation_shared_by_two_processes_is_that_of_one(two_processes):
    wanted = _evaluate()
    assert len(wanted) == 5
    for found in two_processes:
        assert found["evaluation"] == wanted


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_images_changes_nothing(name):
    order = lambda rows: rows[torch.randperm(len(rows), generator=torch.Generator())]  # noqa: E731
    assert _measure(name, 16, order) == pytest.approx(_measure(name, 16), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batches", [1, 7, 30])
def test_the_size_of_batches_changes_nothing(name, batches):
    assert _measure(name, batches) == pytest.approx(_measure(name, 1000), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_used_again_after_a_reset(name):
    make, feeds = CASES[name]
    metric = make()
    for rows, keywords in feeds:
        metric.update(rows.flip(0)[:-2], **keywords)
    metric.reset()
    for rows, keywords in feeds:
        metric.update(rows, **keywords)
    found = {key: value.item() for key, value in metric.compute().items()}
    assert found == pytest.approx(_measure(name, 1000), rel=1e-9)
