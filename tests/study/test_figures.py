"""The pictures of a study: what a cell says, what its colour means, which frames are shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made import write_trial
from PIL import Image

from stylegan_tl.pictures import save_grid
from stylegan_tl.study import figures
from stylegan_tl.study.__main__ import main
from stylegan_tl.study.collect import collect
from stylegan_tl.study.scores import scores
from stylegan_tl.study.statistics import mean_interval
from stylegan_tl.study.summary import plus_minus

METRIC = "fid1k_train_small"


@pytest.fixture
def root(tmp_path):
    """bedroom <-> kitchen, two seeds, with scratch at 400 for both."""
    root = tmp_path / "runs" / "pair"
    for seed, value in ((0, 90.0), (1, 110.0)):
        write_trial(root, {0: 300, 1: value}, seed=seed)
        write_trial(root, {0: 300, 1: 800.0}, source="kitchen", target="bedroom", seed=seed)
        for target in ("kitchen", "bedroom"):
            control = {"source": "scratch", "target": target, "seed": seed}
            write_trial(root, {0: 900, 1: 400.0}, **control)
    return root


def test_cells_and_colours(root) -> None:
    """100 against scratch's 400: 4 times better, two doublings; 800: one worse."""
    found = list(scores(collect(root), [METRIC]))
    cells = figures._cells(found, "final")
    own = cells["dcgan", "none", "bedroom", "kitchen"]
    scratch = cells["dcgan", "none", "scratch", "kitchen"]
    worse = cells["dcgan", "none", "kitchen", "bedroom"]
    assert sorted(own) == [90, 110]
    assert figures._times(own, scratch) == pytest.approx(2)
    assert figures._times(worse, scratch) == pytest.approx(-1)
    assert figures._times(np.array([math.inf]), scratch) == 0
    assert figures._times(own, None) == 0
    half = plus_minus(100.0, mean_interval(own), between="\n")
    assert half == "100\n± 127"  # 12.706 * sqrt(200) / sqrt(2)
    assert plus_minus(90.0, mean_interval(own[:1])) == "90.0"


def test_the_command_draws_both_pictures(root, tmp_path, capsys) -> None:
    """Green frames at 1 kimg only where the run's grid is green then."""
    for trial in collect(root):
        for kimg, level in ((0, 255), (1, 0)):
            tiles = np.full((4, 3, 32, 32), level, np.uint8)
            tiles[:, 1] = 255
            save_grid(root / trial.run / "grids" / f"kimg{kimg:05.2f}.png", tiles, columns=4)
    outcomes = collect(root)
    drawn = tmp_path / "pictures.png"
    figures.draw_pictures(drawn, outcomes, root)
    with Image.open(drawn) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    green = (pixels == (0, 255, 0)).all(axis=1).sum()
    assert 0.1 < green / len(pixels) < 0.5  # the right half, without what is between
    own = [
        "study=demo",
        f"runs={root.parent}",
        "study.name=pair",
        "study.metric=kid100_train_small",
    ]
    assert main(["figures", *own, f"metric={METRIC}", f"out={tmp_path / 'out'}"]) == 0
    names = [line.rsplit("/", 1)[-1] for line in capsys.readouterr().out.splitlines()]
    assert names == ["matrix.png", "pictures_dcgan_none.png"]
    with Image.open(tmp_path / "out" / "matrix.png") as picture:
        assert picture.width > 200
    with pytest.raises(SystemExit, match="2"):
        main(["figures", *own, "metric=nothing"])
    assert f"metric=nothing: trials have {METRIC}" in capsys.readouterr().err


def test_nothing_to_show_is_said(root) -> None:
    with pytest.raises(ValueError, match="no run has a grid"):
        figures.draw_pictures(root / "x.png", collect(root), root)
