"""The procedural domains: deterministic, sharing what they should, as far apart as they say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache
from itertools import product

import numpy as np
import pytest

from stylegan_tl.data.procedural import DOMAINS, content, render
from stylegan_tl.data.procedural.raster import cover, paint_order
from stylegan_tl.data.procedural.room import draw_room

ROOMS = tuple(domain for domain in DOMAINS if domain.startswith("rooms/"))
ART = tuple(domain for domain in DOMAINS if domain.startswith("art/"))

# Mean of each quarter of each channel of picture 7 at 32 px: models are trained on these pictures.
GOLDEN = {
    "rooms/bedroom": "158 183 156 142 136 162 153 138 133 158 151 137",
    "rooms/kitchen": "145 182 141 171 131 162 142 171 129 158 139 164",
    "rooms/dining_room": "157 186 161 171 135 166 156 162 131 159 152 152",
    "rooms/living_room": "143 197 129 165 127 172 126 165 120 165 121 164",
    "art/landscape": "53 62 57 56 74 82 102 99 100 110 47 45",
    "art/abstract": "199 142 203 165 197 150 205 166 185 136 190 158",
    "art/portrait": "157 158 148 140 155 157 158 148 146 149 140 133",
    "art/renaissance": "109 112 57 45 87 94 43 36 50 56 23 19",
}


def _digest(resolution: int = 32) -> str:
    pictures = [render(domain, index, resolution) for domain in DOMAINS for index in (0, 12345)]
    return hashlib.sha256(np.stack(pictures).tobytes()).hexdigest()


def test_domains_are_the_two_families_of_four():
    assert {name.split("/")[1] for name in ROOMS} == {
        "bedroom", "kitchen", "dining_room", "living_room"
    }  # fmt: skip
    assert {name.split("/")[1] for name in ART} == {
        "landscape", "abstract", "portrait", "renaissance"
    }  # fmt: skip


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_render_is_a_full_range_rgb_picture(domain: str, resolution: int):
    picture = render(domain, 3, resolution)
    assert picture.shape == (3, resolution, resolution)
    assert picture.dtype == np.uint8
    assert picture.flags["C_CONTIGUOUS"]
    assert picture.std() > 12
    assert picture.max() - picture.min() > 90


@pytest.mark.parametrize("domain", DOMAINS)
def test_resolution_only_samples_the_same_picture_finer(domain: str):
    fine = render(domain, 5, 128).astype(float).reshape(3, 32, 4, 32, 4).mean((2, 4))
    assert np.abs(fine - render(domain, 5, 32)).mean() < 9


def test_another_process_with_another_hash_seed_renders_the_same_bytes():
    code = (
        "import hashlib, numpy as np\n"
        "from stylegan_tl.data.procedural import DOMAINS, render\n"
        "pictures = [render(d, i, 32) for d in DOMAINS for i in (0, 12345)]\n"
        "print(hashlib.sha256(np.stack(pictures).tobytes()).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "4242", "OMP_NUM_THREADS": "1"},
    )
    assert other.stdout.strip() == _digest()


@pytest.mark.parametrize("domain", DOMAINS)
def test_pictures_have_not_changed_since_models_were_trained_on_them(domain: str):
    quarters = render(domain, 7, 32).reshape(3, 2, 16, 2, 16).mean((2, 4)).reshape(-1)
    np.testing.assert_allclose(quarters, [float(v) for v in GOLDEN[domain].split()], atol=1.0)


@pytest.mark.parametrize("domain", DOMAINS)
def test_pictures_of_different_indices_differ(domain: str):
    pictures = {render(domain, index, 16).tobytes() for index in range(24)}
    assert len(pictures) == 24


def test_order_of_rendering_does_not_matter():
    first = [render(domain, 9, 32) for domain in DOMAINS]
    again = [render(domain, 9, 32) for domain in reversed(DOMAINS)][::-1]
    np.testing.assert_array_equal(first, again)


# ---- what rooms share ----


def test_rooms_of_an_index_share_every_pixel_that_furniture_leaves_alone():
    shares, corners = [], []
    for index in range(12):
        pictures = [render(domain, index, 64).astype(int) for domain in ROOMS]
        for a, b in product(range(4), repeat=2):
            if a < b:
                shares.append((pictures[a] == pictures[b]).all(0).mean())
                corners.append(np.abs(pictures[a] - pictures[b])[:, :3, [0, 1, -2, -1]].mean())
    assert np.median(shares) > 0.25
    assert np.median(corners) == 0  # the ceiling above both upper corners


def test_rooms_of_different_indices_do_not_share_pixels():
    one, other = render(ROOMS[0], 0, 64), render(ROOMS[1], 1, 64)
    assert (one == other).all(0).mean() < 0.02


def test_room_is_drawn_from_the_index_alone():
    first, again, other = draw_room(4), draw_room(4), draw_room(5)
    assert (first.width, first.palette, first.windows) == (
        again.width,
        again.palette,
        again.windows,
    )
    assert first.scene.camera == again.scene.camera
    assert first.palette != other.palette


# ---- the knob ----


@pytest.mark.parametrize("family", [ROOMS, ART], ids=["rooms", "art"])
def test_share_of_own_content_is_the_distance_and_nested(family: tuple[str, ...]):
    count, last = 900, np.zeros(900, bool)
    for distance in (0.0, 0.3, 0.7, 1.0):
        chosen = np.array(
            [[content(d, i, distance=distance) for i in range(count)] for d in family]
        )
        same = (chosen == chosen[0]).all(0)  # the domains differ exactly where each shows its own
        assert abs(same.mean() - (1 - distance)) < 4 * 0.5 / count**0.5
        assert (last <= ~same).all()
        last = ~same
        own = np.mean(chosen == np.array(family)[:, None])
        assert abs(own - (distance + (1 - distance) / 4)) < 4 * 0.5 / count**0.5


@pytest.mark.parametrize("family", [ROOMS, ART], ids=["rooms", "art"])
def test_at_distance_zero_all_domains_show_the_same_pictures(family: tuple[str, ...]):
    for index in range(8):
        pictures = {render(domain, index, 32, distance=0.0).tobytes() for domain in family}
        assert len(pictures) == 1


def test_content_names_what_is_rendered():
    for index, distance in product(range(8), (0.3, 0.7)):
        shown = content("rooms/kitchen", index, distance=distance)
        np.testing.assert_array_equal(
            render("rooms/kitchen", index, 16, distance=distance), render(shown, index, 16)
        )


@cache
def _features(domain: str, index: int) -> np.ndarray:
    # Colours on a 4 x 4 grid and edges on an 8 x 8 grid.
    picture = render(domain, index, 32) / 255.0
    colour = picture.reshape(3, 4, 8, 4, 8).mean((2, 4))
    across, down = np.zeros((2, 32, 32))
    across[:, 1:], down[1:] = np.diff(picture.mean(0), axis=1), np.diff(picture.mean(0), axis=0)
    edges = [4 * np.abs(edge).reshape(8, 4, 8, 4).mean((1, 3)) for edge in (across, down)]
    return np.concatenate([part.reshape(-1) for part in (colour, *edges)])


def _table(family: tuple[str, ...], indices: range, distance: float) -> np.ndarray:
    # [domain, picture, feature]; what `content` names is what `render` shows (tested above).
    return np.array(
        [[_features(content(d, i, distance=distance), i) for i in indices] for d in family]
    )


def _accuracy(family: tuple[str, ...], distance: float) -> float:
    # Ridge regression onto the class, trained on some rooms and tested on others.
    train, test = (_table(family, part, distance) for part in (range(60), range(60, 100)))
    count, width = len(family), train.shape[-1]
    mean = train.reshape(-1, width).mean(0)
    x = train.reshape(-1, width) - mean
    y = np.repeat(np.eye(count), train.shape[1], 0) - 1 / count
    weights = np.linalg.solve(x.T @ x + 1.0 * np.eye(width), x.T @ y)
    guess = ((test - mean) @ weights).argmax(-1)
    return float((guess == np.arange(count)[:, None]).mean())


@pytest.mark.parametrize("family", [ROOMS, ART], ids=["rooms", "art"])
def test_a_linear_classifier_separates_as_far_as_the_knob_says(family: tuple[str, ...]):
    apart, together = _accuracy(family, 1.0), _accuracy(family, 0.0)
    half = _accuracy(family, 0.5)
    assert apart > 0.75
    assert abs(together - 0.25) < 0.05
    assert together < half < apart


# ---- errors ----


def test_unknown_domain_names_the_choices():
    with pytest.raises(ValueError, match=r"'rooms/garage'.*rooms/bedroom.*art/renaissance"):
        render("rooms/garage", 0, 32)


@pytest.mark.parametrize("resolution", [0, 8, 2048, 64.0, True, "64"])
def test_bad_resolution_is_refused(resolution: object):
    with pytest.raises(ValueError, match="resolution must be an integer from 16 to 1024"):
        render("rooms/bedroom", 0, resolution)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 1.5, True, "3"])
def test_bad_index_is_refused(index: object):
    with pytest.raises(ValueError, match="index must be an integer of 0 or more"):
        render("rooms/bedroom", index, 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", [-0.1, 1.1, float("nan")])
def test_bad_distance_is_refused(distance: float):
    with pytest.raises(ValueError, match=r"distance must lie in \[0, 1\]"):
        render("rooms/bedroom", 0, 32, distance=distance)


def test_numpy_integers_are_integers():
    np.testing.assert_array_equal(
        render("art/abstract", np.int64(6), np.int32(32)), render("art/abstract", 6, 32)
    )


# ---- the rasteriser ----


def _reference_half_planes(corners: np.ndarray, size: int) -> np.ndarray:
    # A pixel is inside a convex polygon if its centre lies on one side of all edges.
    y, x = np.mgrid[:size, :size] + 0.5
    sides = []
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        sides.append((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]))
    return np.all(np.array(sides) > 0, 0) | np.all(np.array(sides) < 0, 0)


def test_cover_agrees_with_half_planes_and_paints_in_order():
    random, size = np.random.default_rng(0), 40
    ids, expected = np.full(size * size, -1, np.int32), np.full((size, size), -1, np.int32)
    polygons = []
    for _ in range(30):
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 9)))
        centre, radius = random.uniform(-5, 45, 2), random.uniform(2, 15)
        polygons.append(centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1))
    for k, corners in enumerate(polygons):
        expected[_reference_half_planes(corners, size)] = k
    points = np.concatenate(polygons)
    counts = np.array([len(corners) for corners in polygons], np.int32)
    cover(points[:, 0], points[:, 1], counts, size, ids, 0)
    np.testing.assert_array_equal(ids.reshape(size, size), expected)


def test_paint_order_puts_what_hides_after_what_is_hidden():
    # A shelf of cubes, shuffled: along the view each must come after the ones behind it.
    random = np.random.default_rng(1)
    cells = random.permutation(np.array(list(product(range(4), range(3), range(5)))))
    low = cells + 0.1
    order = paint_order(low, low + 0.8, (2.0, 1.5, -4.0))
    place = {tuple(cells[k]): at for at, k in enumerate(order)}
    assert sorted(order) == list(range(len(cells)))
    for x, y, z in place:
        if z:
            assert place[x, y, z] < place[x, y, z - 1]
