"""A canvas to paint on: soft shapes, noise, brush strokes, varnish. Colours are sRGB in [0, 1].

Coordinates are x to the right and y down, both in [-1, 1]. Only +, -, *, / and sqrt touch pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stylegan_tl.data.procedural.draws import Colour, Draws, dye, hsv, mix
from stylegan_tl.data.procedural.raster import cover

__all__ = ["Canvas", "Studio", "draw_studio", "smooth"]

_F = np.float32


@dataclass(frozen=True)
class Studio:
    """What all paintings share, drawn by the index alone: palette, light, hand and canvas."""

    palette: tuple[Colour, ...]
    light: float
    boldness: float
    noise: np.ndarray
    strokes: np.ndarray
    weave: float
    contrast: float


def draw_studio(index: int) -> Studio:
    """The studio of this index; the same for every domain of the family."""
    draw = Draws("art", "shared", index)
    hue = draw.unit()
    steps = draw.pick(((0.0, 0.08, 0.5), (0.0, 0.33, 0.67), (0.0, 0.12, 0.9), (0.0, 0.42, 0.58)))
    palette = [
        dye(draw, hue + step + draw.uniform(-0.03, 0.03), (0.45, 0.82), (0.5, 0.94))
        for step in steps
    ]
    palette.append(hsv(hue + 0.1, draw.uniform(0.04, 0.2), draw.uniform(0.85, 0.97)))
    palette.append(hsv(hue + 0.6, draw.uniform(0.1, 0.5), draw.uniform(0.08, 0.25)))
    return Studio(
        tuple(palette),
        draw.pick((-1.0, 1.0)),
        draw.uniform(0.6, 1.3),
        draw.field(4, 16, 16),
        draw.field(2, 520, 8),
        draw.uniform(0.0, 0.05),
        draw.uniform(0.92, 1.08),
    )


def smooth(table: np.ndarray, size: int) -> np.ndarray:
    """A small table [h, w] stretched to [size, size] with smooth (cubic Hermite) interpolation."""
    rows, row_part = _stretch(table.shape[0], size)
    columns, column_part = _stretch(table.shape[1], size)
    wide = table[:, columns] + (table[:, columns + 1] - table[:, columns]) * column_part
    first = wide.take(rows, axis=0)
    second = wide.take(rows + 1, axis=0)
    second -= first
    second *= row_part[:, None]
    second += first
    return second


def _stretch(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    at = (np.arange(size, dtype=_F) + _F(0.5)) * _F((count - 1) / size)
    whole = np.minimum(at.astype(np.int32), count - 2)
    part = at - whole
    return whole, part * part * (3 - 2 * part)


def _flow(noise: np.ndarray, at: np.ndarray) -> np.ndarray:
    # A smooth field of directions [2, n], in [-0.5, 0.5] each, at places [n, 2] in [0, 1).
    place = at.T * _F(noise.shape[-1] - 1)
    (x, y) = whole = place.astype(np.int32)
    across, along = place - whole
    upper = noise[:, y, x] + (noise[:, y, x + 1] - noise[:, y, x]) * across
    lower = noise[:, y + 1, x] + (noise[:, y + 1, x + 1] - noise[:, y + 1, x]) * across
    return upper + (lower - upper) * along - _F(0.5)


def _turn(corners: list[tuple[float, float]]) -> float:
    # -1 or 1: which way round the corners go.
    area = sum(corners[k - 1][0] * y - x * corners[k - 1][1] for k, (x, y) in enumerate(corners))
    return -1.0 if area > 0 else 1.0


class Canvas:
    """A painting in progress: `rgb` float32 [3, size, size] and where fine brushes are needed."""

    def __init__(self, size: int, ground: Colour) -> None:
        self.size = size
        self.rgb = np.empty((3, size, size), _F)
        self.rgb[:] = np.array(ground, _F)[:, None, None]
        self.detail = np.zeros((size, size), _F)
        self.axis = ((np.arange(size, dtype=_F) + _F(0.5)) * _F(2 / size) - 1).astype(_F)

    def blend(
        self,
        mask: np.ndarray,
        colour: Colour | np.ndarray,
        area: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        """Paint `colour` where `mask` in [0, 1] says, within `area` (two slices)."""
        if isinstance(colour, tuple):
            colour = np.array(colour, _F)[:, None, None]
        part = self.rgb[(slice(None), *area)]
        part += (colour - part) * mask

    def gradient(self, stops: list[tuple[float, Colour]]) -> None:
        """Fill from top to bottom through the (y, colour) stops."""
        at = [stop[0] for stop in stops]
        for k in range(3):
            values = np.interp(self.axis, at, [stop[1][k] for stop in stops]).astype(_F)
            self.rgb[k] = values[:, None]

    def ellipse(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
        soft: float = 0.0,
        lean: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """A filled ellipse with an edge that fades over `soft` of its radius; `lean` shears it."""
        area, x, y = self._local(centre, radii, lean)
        if not x.size or not y.size:
            return
        mask = self._inside(x * x + y * y, radii, soft)
        self.blend(mask * _F(opacity), colour, area)

    def globe(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
        shade: Colour,
        light: float,
        lean: float = 0.0,
        soft: float = 0.0,
    ) -> None:
        """An ellipsoid lit from the upper left (`light` < 0) or the upper right."""
        area, x, y = self._local(centre, radii, lean)
        if not x.size or not y.size:
            return
        square = x * x + y * y
        height = np.sqrt(np.maximum(1 - square, 0))
        lit = _F(0.52) * _F(light) * x - _F(0.38) * y + _F(0.76) * height
        lit = np.clip(lit * _F(1.15) + _F(0.05), 0, 1)
        first, second = (np.array(c, _F)[:, None, None] for c in (shade, colour))
        self.blend(self._inside(square, radii, soft), first + (second - first) * lit, area)

    def polygon(
        self, corners: list[tuple[float, float]], colour: Colour, opacity: float = 1.0
    ) -> None:
        """A convex polygon."""
        xs, ys = zip(*corners, strict=True)
        rows, columns = slice(*self._range(min(ys), max(ys))), slice(*self._range(min(xs), max(xs)))
        x, y = self.axis[None, columns], self.axis[rows, None]
        if not x.size or not y.size:
            return
        turn = _turn(corners)
        inside = np.full((y.size, x.size), np.inf, _F)
        for k, (ax, ay) in enumerate(corners):
            bx, by = corners[k - 1]
            length = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2) + 1e-9
            dx, dy = turn * (bx - ax) / length, turn * (by - ay) / length
            across = (y - _F(ay)) * _F(dx) - (x - _F(ax)) * _F(dy)
            np.minimum(inside, across, out=inside)
        mask = np.clip(inside * _F(self.size / 2) + _F(0.5), 0, 1) * _F(opacity)
        self.blend(mask, colour, (rows, columns))

    def ridge(self, heights: np.ndarray, colour: Colour, below: Colour, fade: float = 0.5) -> None:
        """Ground below a skyline y = heights [size], from `colour` at the top to `below`."""
        rows = slice(self._range(float(heights.min()), 1.0)[0], self.size)
        depth = self.axis[rows, None] - heights[None, :]
        mask = np.clip(depth * _F(self.size / 2) + _F(0.5), 0, 1)
        weight = np.clip(depth * _F(1 / fade), 0, 1)
        first, second = (np.array(c, _F)[:, None, None] for c in (colour, below))
        self.blend(mask, first + (second - first) * weight, (rows, slice(None)))

    def focus(self, centre: tuple[float, float], radii: tuple[float, float]) -> None:
        """Ask for fine brushes inside an ellipse."""
        area, x, y = self._local(centre, radii, 0.0)
        part = self.detail[area]
        np.maximum(part, (x * x + y * y < 1).astype(_F), out=part)

    def brush(self, studio: Studio, size: float, jitter: float, along: float = 0.0) -> None:
        """Repaint with strokes: a broad layer, then a finer one; colours come from what is there.

        `along` in [0, 1] turns the strokes from the flow of the noise towards the horizontal.
        """
        reference = self.rgb.reshape(3, -1).copy()
        for layer, (table, scale) in enumerate(zip(studio.strokes, (1.0, 0.55), strict=True)):
            self._strokes(reference, studio.noise, table, size * scale, jitter, along, layer)

    def finish(self, studio: Studio, varnish: Colour, amount: float, vignette: float) -> None:
        """Canvas weave, a varnish that tints everything, and darker corners."""
        tone = smooth(studio.noise[0], self.size) - _F(0.5)
        self.rgb *= 1 + _F(2 * studio.weave) * tone
        tint = np.array(mix((1.0, 1.0, 1.0), varnish, amount), _F)
        self.rgb *= tint[:, None, None]
        square = self.axis * self.axis
        self.rgb *= 1 - _F(vignette) * _F(0.5) * (square[:, None] + square[None, :])
        self.rgb += (self.rgb - _F(0.5)) * _F(studio.contrast - 1)

    def _local(self, centre: tuple, radii: tuple, lean: float) -> tuple:
        # Slices around the shape, and its own coordinates there: the unit circle is its edge.
        reach = radii[0] + abs(lean) * radii[1]
        columns = slice(*self._range(centre[0] - reach, centre[0] + reach))
        rows = slice(*self._range(centre[1] - radii[1], centre[1] + radii[1]))
        y = (self.axis[rows, None] - _F(centre[1])) / _F(radii[1])
        x = (self.axis[None, columns] - _F(centre[0])) / _F(radii[0])
        return (rows, columns), x - y * _F(lean * radii[1] / radii[0]), y

    def _range(self, low: float, high: float) -> tuple[int, int]:
        start, stop = ((edge + 1) * self.size / 2 for edge in (low, high))
        return max(0, math.floor(start)), max(0, min(self.size, math.ceil(stop)))

    def _inside(self, square: np.ndarray, radii: tuple[float, float], soft: float) -> np.ndarray:
        edge = soft + 2.0 / (self.size * min(radii))
        return np.clip((1 - np.sqrt(square)) * _F(1 / edge) + _F(0.5 if soft == 0 else 0), 0, 1)

    def _strokes(
        self,
        reference: np.ndarray,
        noise: np.ndarray,
        table: np.ndarray,
        scale: float,
        jitter: float,
        along: float,
        layer: int,
    ) -> None:
        size = self.size
        at = (table[:, :2] * _F(size)).astype(np.int32)
        pixel = at[:, 1] * size + at[:, 0]
        if layer == 0:
            keep = self.detail.reshape(-1)[pixel] < 0.5
            table, at, pixel = table[keep], at[keep], pixel[keep]
        fine = np.where(self.detail.reshape(-1)[pixel] > 0.5, 0.3, 1.0)
        right, down = _flow(noise[2:4, :5, :5], table[:, :2])
        right, down = right + along, down * (1 - along)
        norm = np.sqrt(right * right + down * down) + 1e-6
        right, down = right / norm, down / norm
        long = scale * (0.6 + 0.8 * table[:, 2]) * fine * size
        thin = long * (0.22 + 0.2 * table[:, 3])
        ends = np.array([[-1, 0, 1, 1, 0, -1], [-0.7, -1, -0.7, 0.7, 1, 0.7]])[:, None, :]
        s, t = ends[0] * long[:, None], ends[1] * thin[:, None]
        column = table[:, :1] * size + s * right[:, None] - t * down[:, None]
        row = table[:, 1:2] * size + s * down[:, None] + t * right[:, None]
        ids = np.full(size * size, -1, np.int32)
        counts = np.full(len(table), 6, np.int32)
        cover(column.reshape(-1), row.reshape(-1), counts, size, ids, 0)
        tone = 1 + _F(jitter) * (table[:, 4] - _F(0.5)) * fine.astype(_F)
        hue = _F(0.5 * jitter) * (table[:, 5:8].T - _F(0.5)) * fine.astype(_F)
        colours = reference[:, pixel] * tone + hue
        where = np.flatnonzero(ids >= 0)
        flat, stroke = self.rgb.reshape(3, -1), ids.take(where)
        for k in range(3):
            flat[k][where] = colours[k].take(stroke)
