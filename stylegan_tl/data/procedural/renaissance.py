"""Renaissance portraits: dark ground or arched window, headdress, sfumato, brown varnish."""

from __future__ import annotations

import numpy as np

from stylegan_tl.data.procedural.canvas import Canvas, Studio, smooth
from stylegan_tl.data.procedural.draws import Colour, Draws, mix, scale
from stylegan_tl.data.procedural.head import Head, face, neck, shoulders

__all__ = ["paint"]

_F = np.float32
_GOLD: Colour = (0.80, 0.62, 0.26)
_GARMENTS: tuple[Colour, ...] = (
    (0.52, 0.10, 0.09),
    (0.10, 0.18, 0.36),
    (0.14, 0.28, 0.18),
    (0.15, 0.11, 0.10),
    (0.55, 0.36, 0.14),
    (0.36, 0.14, 0.24),
)


def paint(studio: Studio, draw: Draws, size: int) -> np.ndarray:
    """A renaissance portrait, float32 [3, size, size]."""
    canvas = _background(studio, draw, size)
    head = _head(studio, draw)
    cloth = mix(draw.pick(_GARMENTS), studio.palette[0], 0.12)
    style = draw.pick(("veil", "veil", "flowing", "flowing", "cap", "beret", "turban"))
    if draw.chance(0.2):
        _halo(canvas, head)
    _behind(canvas, head, draw, style, cloth)
    neck(canvas, head, 1.75)
    shoulders(canvas, head, cloth, scale(cloth, 0.35), draw.uniform(0.70, 0.85))
    _neckline(canvas, head, draw, cloth)
    canvas.focus((head.x, head.y + 0.9 * head.size), (1.2 * head.size, 1.5 * head.size))
    face(canvas, head, draw.uniform(0.3, 0.9), draw.uniform(0.7, 0.9))
    _headdress(canvas, head, draw, style, cloth)
    if draw.chance(0.4):
        _hands(canvas, head)
    canvas.brush(studio, 0.022, 0.07, 0.1)
    _crackle(canvas, studio, draw)
    canvas.finish(studio, (0.84, 0.66, 0.36), draw.uniform(0.40, 0.75), 0.36)
    return canvas.rgb


def _head(studio: Studio, draw: Draws) -> Head:
    skin = draw.pick(
        ((0.95, 0.82, 0.66), (0.92, 0.76, 0.58), (0.86, 0.68, 0.50), (0.74, 0.54, 0.38))
    )
    shade = (0.30, 0.17, 0.09)
    hair = draw.pick(
        ((0.18, 0.10, 0.06), (0.32, 0.18, 0.09), (0.52, 0.34, 0.16), (0.62, 0.46, 0.24))
    )
    lips = mix(scale(skin, 0.75), (0.60, 0.16, 0.12), 0.5)
    turn = studio.light * -draw.uniform(0.4, 1.0)
    return Head(
        draw.uniform(-0.08, 0.08), draw.uniform(-0.30, -0.16), draw.uniform(0.38, 0.46),
        turn, studio.light, skin, shade, hair, (0.22, 0.14, 0.08), lips, 0.10,
        draw.uniform(0.68, 0.74),
    )  # fmt: skip


def _background(studio: Studio, draw: Draws, size: int) -> Canvas:
    dark = draw.pick(
        ((0.10, 0.08, 0.06), (0.13, 0.13, 0.10), (0.16, 0.10, 0.07), (0.09, 0.12, 0.12))
    )
    canvas = Canvas(size, dark)
    kind = draw.unit()
    if kind < 0.35:
        canvas.ellipse((0.5 * studio.light, -0.3), (1.2, 1.2), scale(dark, 2.2), 1.0, 0.0, 0.8)
    elif kind < 0.6:
        _scenery(canvas, studio, draw)
    else:
        _scenery(canvas, studio, draw)
        _arch(canvas, studio, draw, mix(dark, (0.42, 0.32, 0.20), 0.45))
    return canvas


def _scenery(canvas: Canvas, studio: Studio, draw: Draws) -> None:
    horizon = draw.uniform(-0.15, 0.25)
    sky, mist = (0.42, 0.55, 0.60), (0.84, 0.80, 0.60)
    canvas.gradient([(-1.0, sky), (horizon, mist), (1.0, mist)])
    for k, colour in enumerate(((0.42, 0.50, 0.48), (0.36, 0.38, 0.22), (0.26, 0.23, 0.12))):
        table = studio.noise[k, k + 2, :6]
        line = smooth(np.stack([table, table]), canvas.size)[0] * _F(0.34)
        canvas.ridge(_F(horizon - 0.22 + 0.2 * k) + line, colour, scale(colour, 0.7), 0.6)
    x = draw.uniform(0.55, 0.8) * draw.pick((-1.0, 1.0))
    canvas.globe(
        (x, horizon - 0.1), (0.07, 0.28), (0.20, 0.24, 0.12), (0.10, 0.12, 0.06), studio.light
    )


def _arch(canvas: Canvas, studio: Studio, draw: Draws, stone: Colour) -> None:
    # A wall with one or two round-topped openings, through which the scenery shows.
    wall = np.ones((canvas.size, canvas.size), _F)
    x, y = canvas.axis[None, :], canvas.axis[:, None]
    wide = draw.uniform(0.24, 0.34)
    sides = draw.pick(((-0.62, 0.62), (0.62 * studio.light,), (-0.62 * studio.light,)))
    for side in sides:
        across = (x - _F(side)) / _F(wide)
        above = np.minimum(y + _F(0.45), 0) / _F(wide)
        inside = (across * across + above * above < 1) & (y < 0.35)
        wall *= 1 - inside.astype(_F)
    tone = 1 + _F(0.3) * (smooth(studio.noise[1, :8, :8], canvas.size) - _F(0.5))
    canvas.blend(wall, np.array(stone, _F)[:, None, None] * tone)


def _halo(canvas: Canvas, head: Head) -> None:
    at, radius = (head.x, head.y - 0.1 * head.size), 1.45 * head.size
    canvas.ellipse(at, (radius, radius), _GOLD)
    canvas.ellipse(at, (0.92 * radius, 0.92 * radius), scale(_GOLD, 0.82))
    canvas.ellipse(at, (0.85 * radius, 0.85 * radius), _GOLD)


def _behind(canvas: Canvas, head: Head, draw: Draws, style: str, cloth: Colour) -> None:
    size, dark = head.size, scale(head.hair, 0.4)
    if style == "veil":
        veil = draw.pick(
            ((0.86, 0.82, 0.70), (0.16, 0.22, 0.38), scale(cloth, 0.9), (0.14, 0.11, 0.10))
        )
        canvas.globe(
            (head.x, head.y + 0.35 * size),
            (1.12 * size, 1.62 * size),
            veil,
            scale(veil, 0.35),
            head.light,
        )
        canvas.globe(
            (head.x, head.y - 0.1 * size), (0.86 * size, 1.02 * size), head.hair, dark, head.light
        )
    elif style == "flowing":
        canvas.globe(
            (head.x, head.y + 0.35 * size), (1.0 * size, 1.45 * size), head.hair, dark, head.light
        )
    else:
        canvas.globe(
            (head.x, head.y + 0.05 * size), (0.92 * size, 1.1 * size), head.hair, dark, head.light
        )


def _headdress(canvas: Canvas, head: Head, draw: Draws, style: str, cloth: Colour) -> None:
    size, dark = head.size, scale(head.hair, 0.4)
    for side in (-1.0, 1.0):
        centre = (head.x + 0.42 * side * size, head.y - 0.78 * size)
        canvas.globe(centre, (0.52 * size, 0.34 * size), head.hair, dark, head.light, 0.75 * side)
        if style in ("flowing", "beret"):
            lock = (head.x + 0.80 * side * size, head.y + 0.35 * size)
            canvas.globe(
                lock, (0.20 * size, 0.95 * size), head.hair, dark, head.light, -0.12 * side
            )
    top = (head.x, head.y - 0.88 * size)
    if style in ("beret", "cap"):
        colour = draw.pick(((0.45, 0.08, 0.07), (0.10, 0.09, 0.09), scale(cloth, 0.8)))
        radii = (1.08 * size, 0.34 * size) if style == "beret" else (0.84 * size, 0.42 * size)
        canvas.globe(
            (top[0], top[1] - 0.05 * size), radii, colour, scale(colour, 0.35), head.light, 0.1
        )
    elif style == "turban":
        colour = draw.pick(((0.30, 0.42, 0.62), (0.75, 0.65, 0.40), (0.62, 0.16, 0.12)))
        for k, tone in enumerate((0.8, 1.0, 0.9)):
            band = (top[0], top[1] + (0.12 - 0.22 * k) * size)
            canvas.globe(
                band,
                ((0.92 - 0.12 * k) * size, 0.24 * size),
                scale(colour, tone),
                scale(colour, 0.35),
                head.light,
                0.4,
            )
    elif draw.chance(0.5):
        canvas.ellipse((head.x, head.y - 0.62 * size), (0.62 * size, 0.035 * size), _GOLD)
        canvas.ellipse(
            (head.x, head.y - 0.60 * size), (0.06 * size, 0.07 * size), (0.5, 0.06, 0.08)
        )


def _neckline(canvas: Canvas, head: Head, draw: Draws, cloth: Colour) -> None:
    x, y, size = head.x, head.y + 1.55 * head.size, head.size
    kind = draw.unit()
    tone = mix(head.skin, head.shade, 0.22)
    if kind < 0.5:
        half, low = 0.66 * size, y + 0.36 * size
        _band(canvas, (x, y - 0.24 * size, low), (0.34 * size, half), tone)
        _band(canvas, (x, low, low + 0.09 * size), (half, half), mix(_GOLD, cloth, 0.35))
    elif kind < 0.75:
        canvas.ellipse((x, y), (0.60 * size, 0.42 * size), (0.88, 0.85, 0.76))
        canvas.ellipse((x, y - 0.06 * size), (0.50 * size, 0.36 * size), tone)
    else:
        canvas.ellipse((x, y - 0.08 * size), (0.52 * size, 0.20 * size), (0.90, 0.88, 0.82), 0.1)
        canvas.ellipse((x, y - 0.12 * size), (0.36 * size, 0.13 * size), scale(cloth, 0.4))
    if draw.chance(0.4):
        canvas.ellipse((x, y + 0.62 * size), (0.07 * size, 0.09 * size), _GOLD)


def _band(canvas: Canvas, levels: tuple, halves: tuple[float, float], colour: Colour) -> None:
    x, top, bottom = levels
    canvas.polygon(
        [
            (x - halves[0], top),
            (x + halves[0], top),
            (x + halves[1], bottom),
            (x - halves[1], bottom),
        ],
        colour,
    )


def _hands(canvas: Canvas, head: Head) -> None:
    y, size = head.y + 2.75 * head.size, head.size
    for side in (1.0, -1.0):
        centre = (head.x + 0.22 * side * size, y)
        canvas.globe(
            centre, (0.46 * size, 0.19 * size), head.skin, head.shade, head.light, -0.5 * side
        )
    canvas.focus((head.x, y), (0.7 * size, 0.3 * size))


def _crackle(canvas: Canvas, studio: Studio, draw: Draws) -> None:
    strength = draw.uniform(0.0, 0.35)
    cracks = np.abs(smooth(studio.noise[1], canvas.size) - smooth(studio.noise[3], canvas.size))
    canvas.rgb *= 1 - _F(strength) * np.clip(1 - cracks * 24, 0, 1)
