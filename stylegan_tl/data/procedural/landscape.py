"""Landscapes: sky, sun and clouds, mountains, hills, water and trees in broad strokes."""

from __future__ import annotations

import numpy as np

from stylegan_tl.data.procedural.canvas import Canvas, Studio, smooth
from stylegan_tl.data.procedural.draws import Colour, Draws, hsv, mix, scale

__all__ = ["paint"]

_F = np.float32
_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((0.30, 0.52, 0.86), (0.80, 0.89, 0.95)),
    ((0.44, 0.66, 0.90), (0.94, 0.94, 0.88)),
    ((0.30, 0.34, 0.66), (0.98, 0.62, 0.38)),
    ((0.50, 0.46, 0.70), (1.00, 0.78, 0.62)),
    ((0.58, 0.63, 0.68), (0.84, 0.85, 0.83)),
    ((0.08, 0.12, 0.32), (0.28, 0.36, 0.58)),
    ((0.85, 0.55, 0.25), (1.00, 0.85, 0.50)),
)


def paint(studio: Studio, draw: Draws, size: int) -> np.ndarray:
    """A landscape, float32 [3, size, size]."""
    zenith, glow = draw.pick(_SKIES)
    zenith = mix(zenith, studio.palette[0], 0.15)
    horizon = draw.uniform(-0.25, 0.30)
    canvas = Canvas(size, zenith)
    canvas.gradient([(-1.0, zenith), (horizon, glow), (1.0, glow)])
    _clouds(canvas, studio, draw, mix(glow, (1.0, 1.0, 1.0), 0.6))
    if draw.chance(0.55):
        _sun(canvas, draw, horizon, glow)
    season = _season(draw, studio)
    if draw.chance(0.65):
        _mountains(canvas, draw, horizon, zenith, glow)
    ground = draw.pick(("hills", "hills", "lake", "sea", "field"))
    if ground in ("lake", "sea"):
        _water(canvas, studio, draw, horizon, zenith, glow)
    _hills(canvas, draw, horizon, season, glow, ground)
    if ground == "field":
        _rows(canvas, draw, horizon, season)
    _trees(canvas, studio, draw, horizon, season, ground)
    canvas.brush(studio, 0.05 * studio.boldness, 0.22, 0.75)
    canvas.finish(studio, (1.0, 0.94, 0.80), draw.uniform(0.0, 0.4), 0.12)
    return canvas.rgb


def _season(draw: Draws, studio: Studio) -> Colour:
    kind = draw.unit()
    if kind < 0.6:
        return hsv(draw.uniform(0.20, 0.36), draw.uniform(0.4, 0.75), draw.uniform(0.35, 0.65))
    if kind < 0.8:
        return hsv(draw.uniform(0.06, 0.13), draw.uniform(0.55, 0.8), draw.uniform(0.55, 0.8))
    if kind < 0.9:
        return (0.86, 0.89, 0.94)
    return mix(studio.palette[1], (0.4, 0.5, 0.3), 0.4)


def _clouds(canvas: Canvas, studio: Studio, draw: Draws, colour: Colour) -> None:
    broad = smooth(studio.noise[1, :8, :5], canvas.size)
    fine = smooth(studio.noise[0, :16, :8], canvas.size)
    amount = draw.uniform(0.35, 0.7)
    mask = np.clip((broad * _F(0.7) + fine * _F(0.3) - _F(amount)) * 5, 0, 0.85)
    canvas.blend(mask, colour)


def _sun(canvas: Canvas, draw: Draws, horizon: float, glow: Colour) -> None:
    at = (draw.uniform(-0.75, 0.75), horizon - draw.uniform(0.1, 0.6))
    radius = draw.uniform(0.07, 0.14)
    night = glow[0] < 0.5
    colour = draw.pick(
        ((1.0, 0.96, 0.75), (1.0, 0.85, 0.45), (1.0, 0.96, 0.80) if night else (1.0, 0.55, 0.3))
    )
    colour = (1.0, 0.97, 0.84) if night else colour
    canvas.focus(at, (1.3 * radius, 1.3 * radius))
    canvas.ellipse(at, (4 * radius, 4 * radius), mix(glow, colour, 0.7), 1.0, 0.0, 0.8)
    canvas.ellipse(at, (radius, radius), colour)


def _line(draw: Draws, size: int, count: int, rough: float) -> np.ndarray:
    # A skyline [size] in [-1, 1]: value noise of two scales.
    at = (np.arange(size, dtype=_F) + _F(0.5)) / _F(size)
    total = np.zeros(size, _F)
    for points, weight in ((count, 1.0), (4 * count, rough)):
        values = draw.field(points + 1) * 2 - 1
        whole = (at * points).astype(np.int32)
        part = at * points - whole
        if rough < 0.3:
            part = part * part * (3 - 2 * part)
        total += _F(weight) * (values[whole] + (values[whole + 1] - values[whole]) * part)
    return total


def _mountains(canvas: Canvas, draw: Draws, horizon: float, zenith: Colour, glow: Colour) -> None:
    rock = draw.pick(
        ((0.35, 0.38, 0.50), (0.42, 0.36, 0.46), (0.30, 0.40, 0.48), (0.45, 0.38, 0.33))
    )
    snow = draw.chance(0.4)
    tall = draw.uniform(0.16, 0.34)
    for k in range(draw.integer(1, 2)):
        line = (
            horizon - tall * (1.1 - 0.45 * k) + 0.8 * tall * _line(draw, canvas.size, 4 + k, 0.35)
        )
        haze = mix(mix(rock, zenith, 0.3), glow, 0.45 - 0.25 * k)
        canvas.ridge(line, haze, mix(haze, glow, 0.35), 0.6)
        if snow and k == 0:
            low = horizon - tall * 1.05 + 0.08 * _line(draw, canvas.size, 9, 0.5)
            depth = (line[None, :] < canvas.axis[:, None]) & (canvas.axis[:, None] < low[None, :])
            canvas.blend(depth.astype(_F) * _F(0.9), (0.96, 0.97, 1.0))


def _hills(
    canvas: Canvas, draw: Draws, horizon: float, season: Colour, glow: Colour, ground: str
) -> None:
    count = {"hills": 3, "lake": 1, "sea": 0, "field": 1}[ground]
    for k in range(count):
        level = horizon + (0.05 + 0.30 * k if ground == "hills" else 0.02)
        line = level + draw.uniform(0.04, 0.13) * _line(draw, canvas.size, 3, 0.12)
        colour = mix(scale(season, draw.uniform(0.75, 1.25)), glow, 0.30 - 0.12 * k)
        if ground == "lake":
            depth = (line[None, :] < canvas.axis[:, None]) & (canvas.axis[:, None] < horizon + 0.08)
            canvas.blend(depth.astype(_F), colour)
        else:
            canvas.ridge(line, colour, scale(colour, 0.62), 0.8)
    if ground == "lake" or (ground == "sea" and draw.chance(0.7)):
        shore = 0.62 + 0.15 * _line(draw, canvas.size, 2, 0.15)
        bank = season if ground == "lake" else mix(season, (0.86, 0.76, 0.56), 0.85)
        canvas.ridge(shore.astype(_F), bank, scale(bank, 0.6), 0.7)


def _water(
    canvas: Canvas, studio: Studio, draw: Draws, horizon: float, zenith: Colour, glow: Colour
) -> None:
    level = np.full(canvas.size, horizon + 0.06, _F)
    tint = draw.pick(((0.16, 0.40, 0.55), (0.20, 0.46, 0.52), (0.15, 0.28, 0.50)))
    canvas.ridge(level, mix(glow, tint, 0.30), mix(zenith, tint, 0.65), 0.9)
    ripple = smooth(studio.noise[3, :, :6], canvas.size)
    below = (canvas.axis[:, None] > horizon + 0.06).astype(_F)
    canvas.blend(below * np.clip((ripple - _F(0.66)) * 3, 0, 0.6), mix(glow, (1.0, 1.0, 1.0), 0.3))
    if draw.chance(0.35):
        x, y = draw.uniform(-0.6, 0.6), horizon + draw.uniform(0.12, 0.25)
        canvas.polygon(
            [(x - 0.12, y), (x + 0.12, y), (x + 0.07, y + 0.06), (x - 0.07, y + 0.06)],
            (0.3, 0.18, 0.12),
        )
        canvas.polygon([(x, y - 0.3), (x + 0.13, y - 0.03), (x, y - 0.03)], (0.95, 0.92, 0.86))
        canvas.focus((x, y - 0.1), (0.2, 0.24))


def _rows(canvas: Canvas, draw: Draws, horizon: float, season: Colour) -> None:
    vanish = draw.uniform(-0.5, 0.5)
    colour = draw.pick(
        ((0.90, 0.76, 0.30), (0.62, 0.45, 0.70), scale(season, 1.4), (0.80, 0.30, 0.25))
    )
    top = horizon + 0.14
    for k in range(-7, 8, 2):
        a, b = vanish + 0.55 * (k - 0.55), vanish + 0.55 * (k + 0.55)
        canvas.polygon([(vanish + 0.03 * k, top), (b, 1.0), (a, 1.0)], colour, 0.85)


def _trees(
    canvas: Canvas, studio: Studio, draw: Draws, horizon: float, season: Colour, ground: str
) -> None:
    kind = draw.pick(("round", "round", "pine", "cypress", "none"))
    leaf = scale(mix(season, (0.16, 0.26, 0.12), draw.uniform(0.3, 0.75)), draw.uniform(0.8, 1.1))
    count = {"sea": 0, "lake": draw.integer(2, 6)}.get(ground, draw.integer(2, 9))
    places = sorted((draw.uniform(0.12, 0.75), draw.uniform(-1.0, 1.0)) for _ in range(count))
    for depth, x in places if kind != "none" else []:
        y, tall = horizon + depth, (0.22 + 0.75 * depth) * draw.uniform(0.6, 1.0)
        if ground == "lake":  # on the far shore or on the near bank, never in the water
            y, tall = (0.70 + 0.3 * depth, tall) if depth > 0.5 else (horizon + 0.07, 0.6 * tall)
        _tree(canvas, studio, draw, kind, (x, y), tall, scale(leaf, draw.uniform(0.8, 1.25)))


def _tree(
    canvas: Canvas, studio: Studio, draw: Draws, kind: str, foot: tuple, tall: float, leaf: Colour
) -> None:
    (x, y), dark, trunk = foot, scale(leaf, 0.45), (0.28, 0.19, 0.13)
    canvas.ellipse((x + 0.2 * tall, y), (0.4 * tall, 0.06 * tall), dark, 0.6, 0.0, 0.6)
    canvas.focus((x, y - 0.5 * tall), (0.35 * tall, 0.6 * tall))
    wide = 0.035 * tall
    canvas.polygon(
        [(x - wide, y), (x - wide, y - 0.5 * tall), (x + wide, y - 0.5 * tall), (x + wide, y)],
        trunk,
    )
    if kind == "pine":
        for k in range(3):
            base, half = y - (0.15 + 0.25 * k) * tall, (0.26 - 0.06 * k) * tall
            canvas.polygon(
                [(x - half, base), (x, base - 0.42 * tall), (x + half, base)],
                scale(leaf, 0.7 + 0.15 * k),
            )
    elif kind == "cypress":
        canvas.globe((x, y - 0.55 * tall), (0.12 * tall, 0.55 * tall), leaf, dark, studio.light)
    else:
        for _ in range(5):
            dx, dy = draw.bell(0.0, 0.24) * tall, draw.bell(0.68, 0.2) * tall
            radius = draw.uniform(0.17, 0.26) * tall
            canvas.globe((x + dx, y - dy), (radius, 0.9 * radius), leaf, dark, studio.light)
