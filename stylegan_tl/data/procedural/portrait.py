"""Modern portraits: a face and bust before a flat or soft background, many people, bold colour."""

from __future__ import annotations

import numpy as np

from stylegan_tl.data.procedural.canvas import Canvas, Studio, smooth
from stylegan_tl.data.procedural.draws import Colour, Draws, hsv, mix, scale
from stylegan_tl.data.procedural.head import Head, face, neck, shoulders

__all__ = ["paint"]

_F = np.float32
_SKINS: tuple[Colour, ...] = (
    (0.98, 0.85, 0.75),
    (0.95, 0.78, 0.66),
    (0.90, 0.70, 0.55),
    (0.80, 0.58, 0.42),
    (0.66, 0.45, 0.31),
    (0.50, 0.33, 0.23),
    (0.38, 0.25, 0.18),
)
_HAIRS: tuple[Colour, ...] = (
    (0.10, 0.08, 0.07),
    (0.22, 0.14, 0.09),
    (0.40, 0.25, 0.14),
    (0.62, 0.40, 0.20),
    (0.88, 0.72, 0.42),
    (0.60, 0.24, 0.12),
    (0.74, 0.74, 0.76),
)


def paint(studio: Studio, draw: Draws, size: int) -> np.ndarray:
    """A modern portrait, float32 [3, size, size]."""
    canvas = _background(studio, draw, size)
    head = _head(studio, draw)
    cloth = draw.pick((*studio.palette, hsv(draw.unit(), 0.6, 0.8), (0.93, 0.93, 0.92)))
    style = draw.pick(("short", "short", "long", "long", "bob", "bun", "curly", "bald", "hat"))
    _hair_behind(canvas, head, style)
    neck(canvas, head)
    shoulders(canvas, head, cloth, scale(cloth, 0.55), draw.uniform(0.62, 0.78))
    _collar(canvas, head, draw, cloth)
    face(canvas, head, draw.uniform(0.0, 1.4), draw.uniform(0.85, 1.1))
    _hair_front(canvas, head, draw, style, cloth)
    if draw.chance(0.2) and style in ("short", "bald", "hat", "curly"):
        _beard(canvas, head)
    if draw.chance(0.2):
        _glasses(canvas, head, draw)
    canvas.brush(studio, 0.040 * studio.boldness, 0.16, 0.1)
    canvas.finish(studio, (1.0, 0.97, 0.90), draw.uniform(0.0, 0.3), 0.08)
    return canvas.rgb


def _background(studio: Studio, draw: Draws, size: int) -> Canvas:
    first, second = draw.pick(studio.palette[:4]), draw.pick(studio.palette[:4])
    first = mix(first, (0.95, 0.95, 0.93), draw.uniform(0.0, 0.5))
    canvas = Canvas(size, first)
    kind = draw.unit()
    if kind < 0.35:
        canvas.gradient([(-1.0, first), (1.0, mix(first, second, 0.6))])
    elif kind < 0.6:
        blur = smooth(studio.noise[0, :6, :6], size)
        canvas.blend(np.clip((blur - _F(0.4)) * 3, 0, 0.8), second)
    elif kind < 0.75:
        edge = draw.uniform(-0.5, 0.5)
        canvas.polygon([(edge, -1.0), (1.0, -1.0), (1.0, 1.0), (edge, 1.0)], second)
    return canvas


def _head(studio: Studio, draw: Draws) -> Head:
    skin = draw.pick(_SKINS)
    shade = mix(scale(skin, 0.52), (0.35, 0.12, 0.12), 0.2)
    if draw.chance(0.15):
        shade = mix(shade, studio.palette[1], 0.6)
        skin = mix(skin, studio.palette[0], 0.2)
    hair = draw.pick(_HAIRS)
    if draw.chance(0.08):
        hair = draw.pick(studio.palette[:3])
    eyes = draw.pick(
        ((0.30, 0.18, 0.10), (0.22, 0.13, 0.08), (0.25, 0.42, 0.62), (0.30, 0.45, 0.28))
    )
    lips = mix(scale(skin, 0.8), (0.75, 0.16, 0.20), draw.uniform(0.35, 0.85))
    return Head(
        draw.uniform(-0.10, 0.10), draw.uniform(-0.22, -0.06), draw.uniform(0.48, 0.58),
        draw.uniform(-0.5, 0.5), studio.light, skin, shade, hair, eyes, lips,
        wide=draw.uniform(0.70, 0.80),
    )  # fmt: skip


def _hair_behind(canvas: Canvas, head: Head, style: str) -> None:
    size, dark = head.size, scale(head.hair, 0.6)
    if style == "long":
        centre = (head.x, head.y + 0.45 * size)
        canvas.globe(centre, (1.05 * size, 1.50 * size), head.hair, dark, head.light)
    elif style == "bob":
        centre = (head.x, head.y + 0.10 * size)
        canvas.globe(centre, (1.05 * size, 1.08 * size), head.hair, dark, head.light)
    elif style == "curly":
        for k in range(9):
            c, s = (k - 4) / 4, ((k - 4) / 4) ** 2
            centre = (head.x + 0.85 * c * size, head.y + (-0.85 + 0.95 * s) * size)
            canvas.globe(centre, (0.42 * size, 0.42 * size), head.hair, dark, head.light)
    elif style == "bun":
        centre = (head.x, head.y - 1.12 * size)
        canvas.globe(centre, (0.38 * size, 0.34 * size), head.hair, dark, head.light)
    if style != "bald":
        centre = (head.x, head.y - 0.14 * size)
        canvas.globe(centre, (0.88 * size, 1.02 * size), head.hair, dark, head.light)
    canvas.focus((head.x, head.y + 0.2 * size), (1.25 * size, 1.6 * size))


def _hair_front(canvas: Canvas, head: Head, draw: Draws, style: str, cloth: Colour) -> None:
    size, dark = head.size, scale(head.hair, 0.6)
    if style == "bald":
        return
    if style == "hat":
        _hat(canvas, head, draw, cloth)
        return
    side = draw.pick((-1.0, 1.0))
    for x, wide, lean in ((-0.42 * side, 0.62, -0.5 * side), (0.45 * side, 0.48, 0.6 * side)):
        centre = (head.x + x * size, head.y - 0.76 * size)
        canvas.globe(centre, (wide * size, 0.34 * size), head.hair, dark, head.light, lean)
    if style in ("long", "bob"):
        for side in (-1.0, 1.0):
            centre = (head.x + 0.80 * side * size, head.y + 0.15 * size)
            canvas.globe(
                centre, (0.20 * size, 0.85 * size), head.hair, dark, head.light, -0.1 * side
            )
    elif draw.chance(0.5) and style == "bob":
        canvas.globe(
            (head.x, head.y - 0.6 * size), (0.65 * size, 0.3 * size), head.hair, dark, head.light
        )


def _hat(canvas: Canvas, head: Head, draw: Draws, cloth: Colour) -> None:
    size, colour = (
        head.size,
        draw.pick((cloth, (0.15, 0.15, 0.18), (0.85, 0.75, 0.5), (0.7, 0.15, 0.15))),
    )
    dark = scale(colour, 0.5)
    wide = draw.pick((0.95, 1.35))
    canvas.globe(
        (head.x, head.y - 0.95 * size), (0.80 * size, 0.52 * size), colour, dark, head.light
    )
    canvas.ellipse((head.x, head.y - 0.60 * size), (wide * size, 0.13 * size), scale(colour, 0.8))
    canvas.ellipse((head.x, head.y - 0.72 * size), (0.80 * size, 0.09 * size), dark)


def _collar(canvas: Canvas, head: Head, draw: Draws, cloth: Colour) -> None:
    x, y, size = head.x, head.y + 1.42 * head.size, head.size
    kind = draw.unit()
    if kind < 0.4:
        canvas.ellipse((x, y), (0.46 * size, 0.24 * size), mix(head.skin, head.shade, 0.3))
    elif kind < 0.7:
        shirt = (0.95, 0.95, 0.94)
        canvas.polygon(
            [(x - 0.42 * size, y - 0.1), (x + 0.42 * size, y - 0.1), (x, y + 0.9 * size)], shirt
        )
        tie = draw.pick(((0.6, 0.1, 0.12), (0.12, 0.16, 0.35), scale(cloth, 0.4)))
        canvas.polygon(
            [
                (x - 0.09 * size, y + 0.05 * size),
                (x + 0.09 * size, y + 0.05 * size),
                (x, y + 0.9 * size),
            ],
            tie,
        )
    else:
        canvas.ellipse((x, y - 0.05 * size), (0.5 * size, 0.20 * size), scale(cloth, 0.75))


def _beard(canvas: Canvas, head: Head) -> None:
    size, dark = head.size, mix(head.hair, head.shade, 0.3)
    canvas.ellipse(head.at(0.0, 0.82), (0.48 * size, 0.30 * size), dark, 0.35, 0.0, 0.9)
    canvas.ellipse(head.at(0.0, 0.47), (0.28 * size, 0.06 * size), dark, 0.3, 0.0, 0.9)
    canvas.ellipse(head.at(0.0, 0.61), (0.20 * size, 0.05 * size), scale(head.lips, 0.9), 0.3)


def _glasses(canvas: Canvas, head: Head, draw: Draws) -> None:
    size, rim = head.size, draw.pick(((0.08, 0.08, 0.09), (0.45, 0.22, 0.1), (0.75, 0.6, 0.3)))
    dark = draw.chance(0.35)
    for side in (-1.0, 1.0):
        at = head.at(0.33 * side, -0.06)
        canvas.ellipse(at, (0.27 * size, 0.22 * size), rim, 0.0, 0.0, 1.0 if dark else 0.85)
        if not dark:
            canvas.ellipse(at, (0.215 * size, 0.165 * size), mix(head.skin, (0.9, 0.95, 1.0), 0.3))
            canvas.ellipse(at, (0.10 * size, 0.10 * size), head.eyes)
    bridge = head.at(0.0, -0.08)
    canvas.ellipse(bridge, (0.09 * size, 0.03 * size), rim)
