"""One row of the same latents at each of some kimg, from the grids that a run left.

python experiments/origins/strip.py RUN OUT.png 0 0.9 1.8 3.6 [--columns 8] [--first 0]
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from stylegan_tl.study.report.frames import grids_of

_GAP, _LABEL = 2, 62


def main() -> None:
    """Cut the first `--columns` tiles out of the grid nearest to each kimg."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("kimg", type=float, nargs="+")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    grids = dict(grids_of(given.run))
    moments = [min(grids, key=lambda k: abs(k - wanted)) for wanted in given.kimg]
    step = given.size + _GAP
    high = step * given.rows + 4
    page = Image.new("RGB", (_LABEL + step * given.columns, high * len(moments)), "white")
    for row, kimg in enumerate(moments):
        with Image.open(grids[kimg]) as picture:
            block = _first(picture.convert("RGB"), given.columns, given.rows, step)
        page.paste(block, (_LABEL, row * high))
        ImageDraw.Draw(page).text((2, row * high + step // 2), f"{kimg:g} kimg", fill="black")
    page.save(given.out, quality=88)


def _first(picture: Image.Image, columns: int, rows: int, step: int) -> Image.Image:
    """The first tiles of a grid, below its caption."""
    top = picture.height - _GAP - (picture.height - _GAP) // step * step
    return picture.crop((_GAP, top + _GAP, _GAP + step * columns, top + step * rows))


if __name__ == "__main__":
    main()
