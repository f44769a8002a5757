"""Every picture is checked by reading it back: tiles by slicing, frames and sizes by Pillow."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stylegan_tl import pictures
from stylegan_tl.pictures import animation, before_after, grid, plot_metric, save_grid, sheet


def _images(count, resolution=8, seed=0):
    shape = (count, 3, resolution, resolution)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("count", "columns", "padding"), [(6, 3, 2), (5, 2, 0), (7, 7, 1), (1, 1, 3)]
)
def test_tiles_lie_exactly_where_slicing_says(count, columns, padding):
    images = _images(count)
    pixels = np.asarray(grid(images, columns, padding)).copy()
    rows = -(-count // columns)
    assert pixels.shape == (rows * (8 + padding) + padding, columns * (8 + padding) + padding, 3)
    for i in range(count):
        y, x = padding + i // columns * (8 + padding), padding + i % columns * (8 + padding)
        tile = pixels[y : y + 8, x : x + 8]
        np.testing.assert_array_equal(tile, np.moveaxis(images[i], 0, -1))
        tile[:] = 255
    assert (pixels == 255).all()  # nothing else was painted


@pytest.mark.parametrize(
    ("count", "columns"),
    [(1, 1), (3, 3), (6, 3), (8, 4), (12, 4), (16, 4), (32, 8), (64, 8), (7, 4)],
)
def test_default_grid_is_wide_and_full(count, columns):
    assert grid(_images(count), padding=0).width == 8 * columns


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 8, 8), np.float32),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((0, 3, 8, 8), np.uint8),
    ],
)
def test_wrong_images_are_named(wrong):
    with pytest.raises(ValueError, match=r"uint8 \[N, 3, R, R\]"):
        grid(wrong)


def test_caption_is_a_strip_above_untouched_tiles(tmp_path):
    images = _images(4)
    save_grid(tmp_path / "plain.png", images)
    save_grid(tmp_path / "said.png", images, "12 kimg \N{RIGHTWARDS ARROW} kitchen")
    plain, said = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("plain", "said"))
    strip = said.shape[0] - plain.shape[0]
    assert strip >= 16
    assert said.shape[1] > plain.shape[1]  # a small grid grows so that the caption stays legible
    np.testing.assert_array_equal(said[strip:, : plain.shape[1]], plain)
    dark = (said[:strip].max(axis=2) < 100).sum(axis=0).nonzero()[0]
    assert dark.min() >= 2
    assert dark.max() < said.shape[1] - 2  # no letter is cut off


def test_before_after_shows_the_same_place_for_the_same_latent(tmp_path):
    before, after = _images(4, 16, seed=1), _images(4, 16, seed=2)
    before[2], after[2] = 40, 200
    picture = before_after(tmp_path / "pair.png", before, after, ("source", "target"))
    pixels = np.asarray(Image.open(tmp_path / "pair.png")).astype(int)
    assert pixels.shape[:2] == picture.size[::-1]
    flat = {level: np.argwhere((pixels == level).all(axis=2)) for level in (40, 200)}
    boxes = {level: (found.min(axis=0), found.max(axis=0)) for level, found in flat.items()}
    side = 16 * round(500 / 32)
    for low, high in boxes.values():
        assert tuple(high - low + 1) == (side, side)
    assert boxes[40][0][0] == boxes[200][0][0]  # one row
    assert boxes[200][0][1] > picture.width / 2 > boxes[40][1][1]
    with pytest.raises(ValueError, match="same latents"):
        before_after(tmp_path / "x.png", before, after[:3])


def test_a_sheet_has_every_tile_beside_its_labels(tmp_path):
    images = _images(6, 128)  # of that size nothing is enlarged
    sheet(tmp_path / "a.png", images, ["seed 1", "seed 22"], ["a", "b", "c"])
    sheet(tmp_path / "b.png", images, ["", "seed 22"], ["", "b", "c"])
    sheet(tmp_path / "c.png", images, ["seed 1", "seed 22"], ["a", "b", "c"], "title")
    pixels, fewer, titled = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in "abc")
    top, left = (size - 3 - n * 131 for size, n in zip(pixels.shape[:2], (2, 3), strict=True))
    for i in range(6):
        y, x = top + 3 + i // 3 * 131, left + 3 + i % 3 * 131
        tile = pixels[y : y + 128, x : x + 128]
        np.testing.assert_array_equal(tile, np.moveaxis(images[i], 0, -1))
    painted = np.argwhere((pixels != fewer).any(axis=2))  # the two labels that are missing there
    assert set(painted[:, 0] < top) == {True, False}
    column = painted[painted[:, 0] < top]
    assert abs(column[:, 1].mean() - (left + 3 + 64)) < 4
    row = painted[painted[:, 0] >= top]
    assert abs(row[:, 0].mean() - (top + 3 + 64)) < 6
    assert row[:, 1].max() < left
    np.testing.assert_array_equal(titled[-len(pixels) :], pixels)
    with pytest.raises(ValueError, match="5 images"):
        sheet(tmp_path / "x.png", images[:5], ["a", "b"], ["a", "b", "c"])


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_animation_frames_and_times(tmp_path, suffix):
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.png")
        save_grid(paths[-1], np.full((2, 3, 32, 32), 60 * i, np.uint8))
    written = animation(tmp_path / f"grids{suffix}", paths, ms=200, hold_ms=1500)
    assert written == tmp_path / f"grids{suffix}"
    with Image.open(written) as moving:
        assert moving.n_frames == 3
        assert moving.width >= 512
        assert moving.info["loop"] == 0
        times = []
        for i in range(3):
            moving.seek(i)
            centre = moving.convert("RGB").getpixel((moving.width // 4, moving.height // 2))
            assert np.abs(np.subtract(centre, 60 * i)).max() <= 6
            times.append(moving.info["duration"])
    assert times == [200, 200, 1500]


def test_animation_falls_back_to_gif(tmp_path, monkeypatch):
    save_grid(tmp_path / "0.png", _images(2))
    monkeypatch.setattr(pictures.features, "check", lambda _: False)
    written = animation(tmp_path / "grids.webp", [tmp_path / "0.png"])
    assert written == tmp_path / "grids.gif"
    with Image.open(written) as picture:
        assert picture.format == "GIF"
    with pytest.raises(ValueError, match="at least one"):
        animation(tmp_path / "none.webp", [])


def test_frames_of_different_widths_share_one_canvas(tmp_path):
    for i, caption in enumerate(("1 kimg", "100 kimg and a much longer caption than the other")):
        save_grid(tmp_path / f"{i}.png", _images(4, 32), caption)
    written = animation(tmp_path / "g.webp", [tmp_path / "0.png", tmp_path / "1.png"])
    with Image.open(written) as moving:
        assert moving.n_frames == 2


RECORDS = [
    {"metric": "fid1k_train_small", "kimg": 4, "value": 30.0},
    {"metric": "fid1k_train_small", "kimg": 0, "value": 90.0},
    {"metric": "kid1k_train_small", "kimg": 0, "value": 0.1},
    {"metric": "fid1k_train_small", "kimg": 2, "value": None},
    {"metric": "fid1k_train_small", "kimg": 6, "value": 45.0},
]


def test_plot_draws_the_values_and_names_the_protocol(tmp_path):
    path = tmp_path / "fid.png"
    axes = plot_metric(path, RECORDS, "fid1k_train_small", {"scratch": 60.0})
    curve, ring, baseline = axes.get_lines()
    np.testing.assert_array_equal(curve.get_xydata(), [(0, 90), (4, 30), (6, 45)])
    np.testing.assert_array_equal(ring.get_xydata(), [(4, 30)])
    assert set(baseline.get_ydata()) == {60.0}
    assert "fid1k_train_small" in axes.get_ylabel()
    assert "kimg" in axes.get_xlabel()
    assert axes.get_title(loc="left") == "best 30 at 4 kimg"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    blue = np.abs(pixels - [0x2F, 0x6F, 0xB3]).max(axis=2) < 8
    across = axes.transData.transform([(0, 90), (4, 30), (6, 45)])
    for x, y in across.round().astype(int):  # the line on paper passes through each value
        assert blue[pixels.shape[0] - 1 - y, min(x, pixels.shape[1] - 1)]


def test_plot_of_a_metric_to_be_raised_and_of_nothing(tmp_path):
    axes = plot_metric(
        tmp_path / "r.png",
        [{"kimg": 1, "value": 0.2}, {"kimg": 2, "value": 0.4}],
        "recall",
        better="max",
    )
    assert axes.get_title(loc="left") == "best 0.4 at 2 kimg"
    with pytest.raises(ValueError, match="no finite value of 'kid'"):
        plot_metric(tmp_path / "k.png", RECORDS, "kid")


def test_pictures_import_neither_torch_nor_matplotlib():
    heavy = "{'torch', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, stylegan_tl.pictures; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
