"""Neighbours and ball counts against scipy's pairwise distances in float64."""

import resource

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from stylegan_tl.metrics.neighbours import ball_hits, check_sets, distance_sums, nearest


def _rows(n, f=12, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, f, generator=generator) + shift


def _reference_scipy_nearest(x, y, k, same=False):
    distances = cdist(x.double().numpy(), y.double().numpy())
    if same:
        np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def _reference_scipy_hits(x, y, radii, closed):
    distances = cdist(x.double().numpy(), y.double().numpy())
    inside = distances <= radii.numpy() if closed else distances < radii.numpy()
    return inside.sum(1), inside.sum(0)


@pytest.mark.parametrize(
    ("dtype", "shift"),
    [(torch.float32, 0), (torch.float32, 300), (torch.float64, 300), (torch.float16, 0)],
)
def test_nearest_agrees_with_scipy(dtype, shift):
    x, y = _rows(70, shift=shift).to(dtype), _rows(90, seed=1, shift=shift).to(dtype)
    distances, indices = nearest(x, y, 5)
    wanted, order = _reference_scipy_nearest(x, y, 5)
    np.testing.assert_allclose(distances.numpy(), wanted, rtol=1e-12)
    np.testing.assert_array_equal(indices.numpy(), order)
    assert distances.dtype == torch.float64


def test_a_row_is_not_its_own_neighbour_but_its_copy_is():
    x = _rows(40)
    wanted, order = _reference_scipy_nearest(x, x, 3, same=True)
    distances, indices = nearest(x, x, 3, same=True)
    np.testing.assert_allclose(distances.numpy(), wanted, rtol=1e-12)
    np.testing.assert_array_equal(indices.numpy(), order)
    x[7] = x[21]
    distances, indices = nearest(x, x, 1, same=True)
    assert distances[7].item() == distances[21].item() == 0
    assert (indices[7].item(), indices[21].item()) == (21, 7)


def test_near_duplicates_keep_their_digits_far_from_the_origin():
    # The expansion alone has an error of 1e-13 · 2048 · 1000² here, squared distances 1e-10.
    x = _rows(30, f=2048, shift=1000.0).double()
    far = _rows(1, f=2048, shift=-1e6).double()  # so that centring does not help
    y = torch.cat([x[torch.arange(29, -1, -1)] + 1e-6 * _rows(30, f=2048, seed=1), far])
    distances, indices = nearest(x, y, 1)
    np.testing.assert_allclose(distances, _reference_scipy_nearest(x, y, 1)[0], rtol=1e-9)
    assert indices[:, 0].tolist() == list(range(29, -1, -1))
    assert torch.equal(nearest(x, x, 1)[0], torch.zeros(30, 1, dtype=torch.float64))


def test_a_neighbour_among_near_duplicates_is_found():
    # Five copies of every row, apart by less than the rounding of products of rows this long.
    base = torch.cat([_rows(8, f=64), 1e8 * _rows(2, f=64, seed=3)]).double()
    x = torch.cat([base + 1e-9 * _rows(10, f=64, seed=s) for s in range(5)])
    distances, _ = nearest(x, x, 3, same=True)
    np.testing.assert_allclose(
        distances.numpy(), _reference_scipy_nearest(x, x, 3, same=True)[0], rtol=1e-12
    )


@pytest.mark.parametrize("chunk_bytes", [1, 2**14, 2**17])
def test_chunks_change_nothing(chunk_bytes):
    x, y, radii = _rows(60), _rows(80, seed=1), torch.linspace(1, 6, 80)
    small = {"chunk_bytes": chunk_bytes}
    for found, wanted in (
        (nearest(x, y, 4, **small), nearest(x, y, 4)),
        (nearest(x, x, 4, same=True, **small), nearest(x, x, 4, same=True)),
        (ball_hits(x, y, radii, **small), ball_hits(x, y, radii)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=0)
    sums = distance_sums(x)
    torch.testing.assert_close(distance_sums(x, **small), sums, rtol=1e-10, atol=0)


def test_memory_stays_bounded():
    x = _rows(12_000, f=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nearest(x, x, 2, same=True, chunk_bytes=2**24)
    ball_hits(x, x, torch.full((12_000,), 0.1), chunk_bytes=2**24)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 200 * 1024  # all products at once: 1.1 GiB


def test_order_changes_nothing():
    x, y = _rows(50), _rows(60, seed=1)
    generator = torch.Generator().manual_seed(3)
    order, other = (torch.randperm(n, generator=generator) for n in (50, 60))
    distances, indices = nearest(x, y, 3)
    moved, where = nearest(x[order], y[other], 3)
    torch.testing.assert_close(moved, distances[order], rtol=1e-13, atol=0)
    assert torch.equal(other[where], indices[order])


@pytest.mark.parametrize("closed", [True, False])
def test_ball_hits_agree_with_scipy(closed):
    x, y = _rows(60), _rows(80, seed=1)
    radii = torch.linspace(0, 8, 80, dtype=torch.float64)
    found = ball_hits(x, y, radii, closed=closed)
    for mine, theirs in zip(found, _reference_scipy_hits(x, y, radii, closed), strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)
    assert 0 < found[0].sum() < 60 * 80


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("chunk_bytes", [2**16, 2**28])
def test_a_row_on_the_edge_of_a_ball_is_decided_as_asked(closed, shift, chunk_bytes):
    # Every ball has its own row, two neighbours, and the third on its edge.
    y = _rows(50, f=500, shift=shift)
    radii = nearest(y, y, 3, same=True)[0][:, -1]
    found = ball_hits(y, y, radii, closed=closed, chunk_bytes=chunk_bytes)
    assert found[1].tolist() == [4 if closed else 3] * 50


@pytest.mark.parametrize(("relative", "closed", "wanted"), [
    (1e-13, True, 1), (1e-13, False, 0), (-1e-13, True, 1), (-1e-13, False, 0),
    (1e-11, True, 0), (1e-11, False, 0), (-1e-11, True, 1), (-1e-11, False, 1),
])  # fmt: skip
def test_equal_means_to_a_part_in_ten_to_the_twelfth_of_the_square(relative, closed, wanted):
    x, y = torch.tensor([[1 + relative / 2]], dtype=torch.float64), torch.zeros(1, 1).double()
    found = ball_hits(x, y, torch.ones(1), closed=closed)
    assert [part.tolist() for part in found] == [[wanted], [wanted]]


def test_small_balls_among_near_duplicates_are_decided_by_differences():
    y = torch.cat([_rows(20, f=64), 1e8 * _rows(2, f=64, seed=3)]).double()
    x = y + 1e-8 * _rows(22, f=64, seed=1)
    gaps = (x - y).norm(dim=1)
    for factor, wanted in ((0.99, 0), (1.01, 1)):
        assert ball_hits(x, y, gaps * factor)[1][:20].tolist() == [wanted] * 20


def test_equal_rows_lie_in_closed_balls_of_no_radius():
    x = torch.full((30, 8), 0.1)
    assert nearest(x, x, 4, same=True)[0].abs().max() == 0
    assert ball_hits(x, x, torch.zeros(30))[0].tolist() == [30] * 30
    assert ball_hits(x, x, torch.zeros(30), closed=False)[0].tolist() == [0] * 30


def test_distance_sums_agree_with_scipy():
    x = _rows(70, shift=50.0)
    wanted = cdist(x.double().numpy(), x.double().numpy()).sum(1)
    np.testing.assert_allclose(distance_sums(x).numpy(), wanted, rtol=1e-12)


def test_nothing_is_added_to_a_graph():
    x = _rows(10).requires_grad_()
    assert not nearest(x, x, 2, same=True)[0].requires_grad


def test_bad_features_are_refused():
    x = _rows(4)
    with pytest.raises(ValueError, match="k=4: 4 rows have 1 to 3 neighbours"):
        nearest(x, x, 4, same=True)
    with pytest.raises(ValueError, match="k=0"):
        nearest(x, x, 0)
    with pytest.raises(ValueError, match="one extractor"):
        nearest(x, x[:, :5])
    with pytest.raises(ValueError, match=r"x is \(4, 12\) and y is \(3, 12\)"):
        nearest(x, x[:3], same=True)
    with pytest.raises(ValueError, match=r"fake: .* at least one row.*\(0, 12\)"):
        check_sets(fake=x[:0], real=x)
    with pytest.raises(ValueError, match="real: .*floats.*int64"):
        check_sets(fake=x, real=x.long())
    for radii in (torch.ones(3), -torch.ones(4), torch.full((4,), float("nan"))):
        with pytest.raises(ValueError, match="radii must be 4 numbers"):
            ball_hits(x, x, radii)
    for bad in (float("nan"), float("inf")):
        broken = x.clone()
        broken[2, 3] = bad
        with pytest.raises(ValueError, match="y: features hold NaN or infinity"):
            nearest(x, broken)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu():
    x, y = _rows(300, f=256), _rows(400, f=256, seed=1)
    distances, indices = nearest(x.cuda(), y.cuda(), 5)
    wanted, order = nearest(x, y, 5)
    torch.testing.assert_close(distances.cpu(), wanted, rtol=1e-12, atol=0)
    assert torch.equal(indices.cpu(), order)
    hits = ball_hits(x.cuda(), y.cuda(), torch.full((400,), 22.0).cuda())
    assert torch.equal(hits[0].cpu(), ball_hits(x, y, torch.full((400,), 22.0))[0])
