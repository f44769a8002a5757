"""Pictures of a run: sample grids, before and after, their animation, a metric over kimg.

Images are uint8 arrays [N, 3, R, R]. Every file is written whole or not at all.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from stylegan_tl.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "animation", "before_after", "frames", "grid", "plot_metric", "save_grid", "sheet",
]  # fmt: skip

_PAPER = (255, 255, 255)
_INK = (31, 35, 40)
_FAINT = (101, 109, 118)
_BLUE, _GREY = "#2f6fb3", "#6e7681"


def grid(images: np.ndarray, columns: int | None = None, padding: int = 2) -> Image.Image:
    """Tile images row by row, `padding` white pixels between and around them.

    Image i is pixel for pixel at row i // columns, column i % columns. By default the grid is a
    little wider than high and, where the count allows, without empty places.
    """
    images = _checked(images)
    count, _, height, width = images.shape
    columns = columns or _default_columns(count)
    rows = math.ceil(count / columns)
    step_y, step_x = height + padding, width + padding
    canvas = np.full((rows * step_y + padding, columns * step_x + padding, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * step_y + padding, (i % columns) * step_x + padding
        canvas[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return Image.fromarray(canvas)


def save_grid(
    path: str | Path,
    images: np.ndarray,
    caption: str | None = None,
    columns: int | None = None,
    padding: int = 2,
) -> Image.Image:
    """Write `grid(images)` as PNG, with `caption` in a strip above it, and return it."""
    picture = grid(images, columns, padding)
    if caption:
        picture = _captioned(picture, caption)
    _save(path, picture)
    return picture


def before_after(
    path: str | Path,
    before: np.ndarray,
    after: np.ndarray,
    captions: tuple[str, str] = ("before", "after"),
    columns: int | None = None,
) -> Image.Image:
    """Write two labelled blocks side by side; the same place in both shows the same z.

    Tiles are enlarged by a whole factor until a block is about 500 pixels wide. ValueError if the
    two do not pair up.
    """
    before, after = _checked(before), _checked(after)
    if before.shape != after.shape:
        raise ValueError(
            f"before {before.shape} and after {after.shape} must show the same latents at the "
            "same resolution"
        )
    columns = columns or _default_columns(len(before), aspect=1.0)
    scale = max(1, round(500 / (columns * before.shape[-1])))
    blocks = [grid(_enlarged(images, scale), columns, padding=3) for images in (before, after)]
    picture = _side_by_side(blocks, captions)
    _save(path, picture)
    return picture


def sheet(
    path: str | Path,
    images: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str | None = None,
) -> Image.Image:
    """Write a table of pictures as PNG, with a label left of each row and above each column.

    `images` has len(rows) * len(columns) of them, row by row; tiles are enlarged by a whole factor
    to about 128 pixels while the table stays below about 2400. ValueError for another number.
    """
    images = _checked(images)
    if len(images) != len(rows) * len(columns):
        raise ValueError(f"{len(images)} images do not fill {len(rows)} rows x {len(columns)}")
    side = images.shape[-1]
    scale = max(1, min(128 // side, 2400 // (len(columns) * side)))
    tiles = grid(_enlarged(images, scale), len(columns), padding=3)
    picture = _labelled(tiles, side * scale + 3, rows, columns)
    picture = _captioned(picture, title, largest=17) if title else picture
    _save(path, picture)
    return picture


def animation(
    path: str | Path,
    pictures: Sequence[str | Path | Image.Image],
    ms: int = 350,
    hold_ms: int = 2500,
) -> Path:
    """Write the pictures (or the files they are in) as one endless animation.

    It rests `hold_ms` on the last. WebP; GIF where Pillow was built without it, and then the suffix
    says so: the path written is returned. Pictures narrower than 512 pixels are enlarged by a whole
    factor.
    """
    if not pictures:
        raise ValueError("animation: no pictures given, at least one is needed")
    shown = frames(pictures)
    durations = [ms] * (len(shown) - 1) + [hold_ms]
    path = Path(path)
    options: dict[str, Any] = {"quality": 90, "method": 4, "minimize_size": True}
    if path.suffix.lower() != ".webp" or not features.check("webp"):
        path, options = path.with_suffix(".gif"), {"disposal": 1}
    _save(
        path,
        shown[0],
        save_all=True,
        append_images=shown[1:],
        duration=durations,
        loop=0,
        **options,
    )
    return path


def frames(pictures: Sequence[str | Path | Image.Image]) -> list[Image.Image]:
    """Pictures (or the files they are in) in one size, and at least 512 pixels wide."""
    shown = [_enlarged_picture(_opened(picture)) for picture in pictures]
    largest = tuple(max(frame.size[i] for frame in shown) for i in (0, 1))
    return [_padded(frame, largest) for frame in shown]


def plot_metric(
    path: str | Path,
    records: Sequence[Mapping[str, Any]],
    metric: str,
    baselines: Mapping[str, float] | None = None,
    better: str = "min",
) -> "Axes":
    """Plot `metric` over kimg as PNG and return its axes.

    `records` have `kimg` and `value` (those of another `metric`, and those without a value, are
    passed over); `baselines` are named horizontal lines. ValueError if there is nothing to plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = _points(records, metric)
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: two runs in one process share no state
    axes = figure.add_subplot()
    _draw_curve(axes, points, better)
    _draw_baselines(axes, baselines or {})
    _dress(axes, metric, better)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())
    return axes


def _checked(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(
            f"images must be uint8 [N, 3, R, R] with N > 0, got {images.dtype} {images.shape}"
        )
    return images


def _default_columns(count: int, aspect: float = 4 / 3) -> int:
    wanted = math.sqrt(count * aspect)
    full = [c for c in range(1, count + 1) if count % c == 0 and wanted / 1.5 <= c <= wanted * 1.6]
    return min(full, key=lambda c: abs(c - wanted), default=math.ceil(wanted))


def _enlarged(images: np.ndarray, scale: int) -> np.ndarray:
    """Each image on its own, so that no tile bleeds into its neighbour."""
    if scale == 1:
        return images
    size = (images.shape[3] * scale, images.shape[2] * scale)
    tiles = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    large = [np.asarray(tile.resize(size, Image.Resampling.LANCZOS)) for tile in tiles]
    return np.stack(large).transpose(0, 3, 1, 2)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _fitting_font(text: str, width: float, largest: int, smallest: int) -> ImageFont.FreeTypeFont:
    """The largest type in which `text` fits into `width` pixels."""
    sizes = range(largest, smallest, -1)
    return next((_font(s) for s in sizes if _font(s).getlength(text) <= width), _font(smallest))


def _printable(text: str) -> str:
    return text.replace("\u2192", "->")  # Pillow's own typeface has no arrow


def _captioned(picture: Image.Image, caption: str, largest: int | None = None) -> Image.Image:
    """`picture` under a strip with `caption`; wider than it if the caption needs that."""
    caption, largest = _printable(caption), largest or max(13, picture.width // 26)
    font = _fitting_font(caption, picture.width - 8, largest=largest, smallest=13)
    strip = round(font.size * 1.7)
    width = max(picture.width, math.ceil(font.getlength(caption)) + 8)
    canvas = Image.new("RGB", (width, picture.height + strip), _PAPER)
    canvas.paste(picture, (0, strip))
    ImageDraw.Draw(canvas).text((4, strip // 2), caption, _INK, font, anchor="lm")
    return canvas


def _side_by_side(blocks: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    margin, gap, strip = 16, 44, 34
    width, height = blocks[0].size
    canvas = Image.new("RGB", (2 * width + gap + 2 * margin, height + strip + 2 * margin), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (block, caption) in enumerate(zip(blocks, captions, strict=True)):
        x = margin + i * (width + gap)
        canvas.paste(block, (x, margin + strip))
        caption = _printable(caption)
        font = _fitting_font(caption, width - 6, largest=20, smallest=9)
        draw.text((x + 3, margin + strip // 2 - 3), caption, _INK, font, anchor="lm")
    _draw_arrow(draw, margin + width + gap // 2, margin + strip + height // 2)
    return canvas


def _draw_arrow(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.line((x - 12, y, x + 6, y), fill=_FAINT, width=3)
    draw.polygon([(x + 13, y), (x + 3, y - 7), (x + 3, y + 7)], fill=_FAINT)


def _labelled(
    tiles: Image.Image, step: int, rows: Sequence[str], columns: Sequence[str]
) -> Image.Image:
    """`tiles`, `step` pixels apart, with labels; those of columns shrink to the width of a tile."""
    rows, columns = ([_printable(label) for label in labels] for labels in (rows, columns))
    font = _font(14)
    left = math.ceil(max(font.getlength(label) for label in rows)) + 12
    canvas = Image.new("RGB", (tiles.width + left, tiles.height + 22), _PAPER)
    canvas.paste(tiles, (left, 22))
    draw = ImageDraw.Draw(canvas)
    for i, label in enumerate(rows):
        draw.text((left - 6, 22 + step * i + step // 2), label, _INK, font, anchor="rm")
    for i, label in enumerate(columns):
        fitting = _fitting_font(label, step - 4, largest=14, smallest=8)
        draw.text((left + step * i + step // 2 + 2, 12), label, _INK, fitting, anchor="mm")
    return canvas


def _opened(picture: str | Path | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    with Image.open(picture) as file:
        return file.convert("RGB")


def _enlarged_picture(picture: Image.Image, width: int = 512) -> Image.Image:
    scale = math.ceil(width / picture.width)
    size = (picture.width * scale, picture.height * scale)
    return picture if scale == 1 else picture.resize(size, Image.Resampling.LANCZOS)


def _padded(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    if frame.size == size:
        return frame
    canvas = Image.new("RGB", size, _PAPER)
    canvas.paste(frame, (0, 0))
    return canvas


def _save(path: str | Path, picture: Image.Image, **options: Any) -> None:
    buffer = io.BytesIO()
    kind = {".webp": "WEBP", ".gif": "GIF"}.get(Path(path).suffix.lower(), "PNG")
    picture.save(buffer, format=kind, **options)
    write_atomic(path, buffer.getvalue())


def _points(records: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[float, float]]:
    points = sorted(
        (record["kimg"], record["value"])
        for record in records
        if record.get("metric", metric) == metric
        and record.get("value") is not None
        and math.isfinite(record["value"])
    )
    if not points:
        raise ValueError(f"no finite value of {metric!r} to plot among {len(records)} records")
    return points


def _draw_curve(axes: "Axes", points: Sequence[tuple[float, float]], better: str) -> None:
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=_BLUE, linewidth=2, marker="o", markersize=5, clip_on=False, zorder=3)
    choose = min if better == "min" else max
    x, y = choose(points, key=lambda point: point[1])
    axes.plot([x], [y], "o", markersize=10, markerfacecolor="none", color=_BLUE, zorder=4)
    axes.set_title(f"best {y:.4g} at {x:.4g} kimg", loc="left", color=_BLUE, fontsize=11)


def _draw_baselines(axes: "Axes", baselines: Mapping[str, float]) -> None:
    for name, value in baselines.items():
        axes.axhline(value, color=_GREY, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{name} {value:.4g}",
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            color=_GREY,
            fontsize=9,
        )


def _dress(axes: "Axes", metric: str, better: str) -> None:
    axes.set_xlabel("real images shown to the discriminator (kimg)")
    axes.set_ylabel(f"{metric} ({'lower' if better == 'min' else 'higher'} is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    axes.margins(x=0.03)
