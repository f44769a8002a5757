"""Abstract paintings: grids, floating shapes, colour fields, planes, rings and drips."""

from __future__ import annotations

import math

import numpy as np

from stylegan_tl.data.procedural.canvas import Canvas, Studio, smooth
from stylegan_tl.data.procedural.draws import Colour, Draws, mix, scale

__all__ = ["paint"]

_F = np.float32
_INK: Colour = (0.06, 0.06, 0.08)


def paint(studio: Studio, draw: Draws, size: int) -> np.ndarray:
    """An abstract painting, float32 [3, size, size]."""
    style = draw.pick((_grid, _shapes, _shapes, _fields, _planes, _rings, _drips, _facets))
    canvas = style(studio, draw, size)
    canvas.finish(studio, (1.0, 0.95, 0.85), draw.uniform(0.0, 0.3), 0.06)
    return canvas.rgb


def _paper(studio: Studio, draw: Draws, size: int) -> Canvas:
    light = mix(studio.palette[3], (0.96, 0.94, 0.89), 0.5)
    return Canvas(size, draw.pick((light, light, light, scale(studio.palette[4], 0.8))))


def _turned(centre: tuple, half: tuple, angle: float) -> list[tuple[float, float]]:
    c, s = round(math.cos(angle), 9), round(math.sin(angle), 9)
    corners = [(-half[0], -half[1]), (half[0], -half[1]), (half[0], half[1]), (-half[0], half[1])]
    return [(centre[0] + a * c - b * s, centre[1] + a * s + b * c) for a, b in corners]


def _stroke(canvas: Canvas, first: tuple, last: tuple, wide: float, colour: Colour) -> None:
    dx, dy = last[0] - first[0], last[1] - first[1]
    length = math.sqrt(dx * dx + dy * dy) + 1e-6
    a, b = -dy / length * wide, dx / length * wide
    ends = [(first[0] + a, first[1] + b), (last[0] + a, last[1] + b),
            (last[0] - a, last[1] - b), (first[0] - a, first[1] - b)]  # fmt: skip
    canvas.polygon(ends, colour)


def _box(canvas: Canvas, x: tuple, y: tuple, colour: Colour) -> None:
    canvas.polygon([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], colour)


def _grid(studio: Studio, draw: Draws, size: int) -> Canvas:
    canvas = Canvas(size, (0.95, 0.94, 0.90))
    classic = draw.chance(0.6)
    paints = (
        ((0.82, 0.13, 0.12), (0.95, 0.80, 0.12), (0.12, 0.25, 0.60))
        if classic
        else studio.palette[:3]
    )
    xs = [-1.05, *sorted(draw.uniform(-0.85, 0.85) for _ in range(draw.integer(2, 4))), 1.05]
    ys = [-1.05, *sorted(draw.uniform(-0.85, 0.85) for _ in range(draw.integer(2, 4))), 1.05]
    for i in range(len(xs) - 1):
        for j in range(len(ys) - 1):
            if draw.chance(0.42):
                paint_ = draw.pick((*paints, *paints, _INK))
                _box(canvas, (xs[i], xs[i + 1]), (ys[j], ys[j + 1]), paint_)
    wide = draw.uniform(0.03, 0.055)
    for x in xs[1:-1]:
        _box(canvas, (x - wide, x + wide), (-1.0, 1.0), _INK)
    for y in ys[1:-1]:
        _box(canvas, (-1.0, 1.0), (y - wide, y + wide), _INK)
    return canvas


def _shapes(studio: Studio, draw: Draws, size: int) -> Canvas:
    canvas = _paper(studio, draw, size)
    paints = (*studio.palette[:3], *studio.palette[:3], _INK, studio.palette[4])
    for _ in range(draw.integer(2, 3)):
        at, radius = (draw.uniform(-0.6, 0.6), draw.uniform(-0.6, 0.6)), draw.uniform(0.25, 0.5)
        canvas.ellipse(at, (radius, radius), draw.pick(paints), 0.5, 0.0, 0.7)
    for _ in range(draw.integer(6, 11)):
        at, radius = (draw.uniform(-0.8, 0.8), draw.uniform(-0.8, 0.8)), draw.uniform(0.07, 0.28)
        kind, colour = draw.unit(), draw.pick(paints)
        if kind < 0.45:
            canvas.ellipse(at, (radius, radius), colour)
            if draw.chance(0.6):
                canvas.ellipse(at, (0.55 * radius, 0.55 * radius), draw.pick(paints))
        elif kind < 0.7:
            angle = draw.uniform(0.0, 6.2832)
            corners = _turned(at, (radius, radius), angle)
            canvas.polygon(corners[:3], colour)
        else:
            canvas.polygon(
                _turned(at, (1.4 * radius, 0.5 * radius), draw.uniform(0.0, 3.1416)), colour
            )
    for _ in range(draw.integer(3, 7)):
        first = (draw.uniform(-0.95, 0.95), draw.uniform(-0.95, 0.95))
        last = (draw.uniform(-0.95, 0.95), draw.uniform(-0.95, 0.95))
        _stroke(
            canvas, first, last, draw.uniform(0.010, 0.03), draw.pick((_INK, _INK, *studio.palette))
        )
    return canvas


def _fields(studio: Studio, draw: Draws, size: int) -> Canvas:
    ground = draw.pick(studio.palette)
    canvas = Canvas(size, ground)
    count = draw.integer(2, 3)
    at = -0.84
    edges = smooth(studio.noise[2], size) - _F(0.5)
    for k in range(count):
        tall = (1.68 - 0.08 * (count - 1)) / count * draw.uniform(0.75, 1.1)
        tall = 0.86 - at if k == count - 1 else tall
        colour = draw.pick([paint_ for paint_ in studio.palette if paint_ != ground])
        y = np.abs(canvas.axis - _F(at + tall / 2)) / _F(tall / 2)
        x = np.abs(canvas.axis) / _F(0.84)
        far = np.maximum((y - 1)[:, None] * _F(tall / 2), (x - 1)[None, :] * _F(0.84))
        mask = np.clip(-far * 14 + edges * _F(1.2), 0, 0.93)
        canvas.blend(mask, colour)
        at += tall + 0.08
    canvas.brush(studio, 0.07, 0.10, 0.9)
    return canvas


def _planes(studio: Studio, draw: Draws, size: int) -> Canvas:
    canvas = Canvas(size, (0.94, 0.92, 0.86))
    paints = (*studio.palette[:3], _INK, _INK, (0.80, 0.15, 0.12))
    angle = draw.uniform(-0.9, 0.9)
    for k in range(draw.integer(7, 13)):
        at = (draw.bell(0.0, 0.75), draw.bell(0.0, 0.75))
        half = (draw.uniform(0.08, 0.5), draw.uniform(0.02, 0.16))
        if k == 0:
            half = (draw.uniform(0.3, 0.5), draw.uniform(0.25, 0.45))
        turn = angle + draw.pick((0.0, 0.0, 1.5708, 0.3))
        canvas.polygon(_turned(at, half, turn), draw.pick(paints))
    return canvas


def _rings(studio: Studio, draw: Draws, size: int) -> Canvas:
    canvas = _paper(studio, draw, size)
    many = draw.pick((1, 2, 2))
    for i in range(many):
        for j in range(many):
            at = (0.0, 0.0) if many == 1 else (i - 0.5, j - 0.5)
            ground = draw.pick(studio.palette)
            if many > 1:
                _box(canvas, (at[0] - 0.5, at[0] + 0.5), (at[1] - 0.5, at[1] + 0.5), ground)
            count = draw.integer(3, 5)
            last = None
            for k in range(count):
                radius = 0.94 / many * (1 - k / count)
                last = draw.pick([paint_ for paint_ in studio.palette if paint_ != last])
                canvas.ellipse(at, (radius, radius), last)
    canvas.brush(studio, 0.03, 0.18)
    return canvas


def _drips(studio: Studio, draw: Draws, size: int) -> Canvas:
    canvas = _paper(studio, draw, size)
    paints = (*studio.palette[:3], _INK, studio.palette[3], studio.palette[4])
    for _ in range(draw.integer(14, 22)):
        colour, wide = draw.pick(paints), draw.uniform(0.012, 0.035)
        x, y = draw.uniform(-1.0, 1.0), draw.uniform(-1.0, 1.0)
        dx, dy = draw.uniform(-0.5, 0.5), draw.uniform(-0.5, 0.5)
        for _ in range(draw.integer(2, 4)):
            dx, dy = dx + draw.uniform(-0.4, 0.4), dy + draw.uniform(-0.4, 0.4)
            _stroke(canvas, (x, y), (x + dx, y + dy), wide, colour)
            x, y = x + dx, y + dy
        if draw.chance(0.6):
            canvas.ellipse((x, y), (2.6 * wide, 2.6 * wide), colour)
    return canvas


def _facets(studio: Studio, draw: Draws, size: int) -> Canvas:
    canvas = _paper(studio, draw, size)
    count = draw.integer(3, 5)
    nodes = [
        [
            (-1.0 + 2 * (i + 0.55 * (draw.unit() - 0.5) * (0 < i < count)) / count,
             -1.0 + 2 * (j + 0.55 * (draw.unit() - 0.5) * (0 < j < count)) / count)
            for i in range(count + 1)
        ]
        for j in range(count + 1)
    ]  # fmt: skip
    for j in range(count):
        for i in range(count):
            a, b, c, d = nodes[j][i], nodes[j][i + 1], nodes[j + 1][i + 1], nodes[j + 1][i]
            for corners in ([a, b, c], [a, c, d]) if (i + j) % 2 else ([a, b, d], [b, c, d]):
                canvas.polygon(
                    corners, scale(draw.pick(studio.palette[:4]), draw.uniform(0.6, 1.15))
                )
    canvas.brush(studio, 0.04, 0.12)
    return canvas
