"""A painted head and shoulders: the parts that modern and old portraits are made of."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_tl.data.procedural.canvas import Canvas
from stylegan_tl.data.procedural.draws import Colour, mix, scale

__all__ = ["Head", "face", "neck", "shoulders"]


@dataclass(frozen=True)
class Head:
    """Where a head is (centre, half height), how far it turns and what colours it has."""

    x: float
    y: float
    size: float
    turn: float
    light: float
    skin: Colour
    shade: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    soft: float = 0.0
    wide: float = 0.74

    def at(self, right: float, down: float) -> tuple[float, float]:
        """A point in units of the half height, moved by the turn of the head."""
        return self.x + (right + self.turn * 0.22) * self.size, self.y + down * self.size


def shoulders(canvas: Canvas, head: Head, colour: Colour, shade: Colour, wide: float) -> None:
    """A bust below the head."""
    top = head.y + 1.42 * head.size
    for side in (-1.0, 1.0):
        centre = (head.x + side * 0.55 * wide, top + 0.62 * head.size)
        canvas.globe(centre, (0.62 * wide, 0.66 * head.size), colour, shade, head.light)
    canvas.globe(
        (head.x, top + 1.15 * head.size), (1.1 * wide, 1.25 * head.size), colour, shade, head.light
    )


def neck(canvas: Canvas, head: Head, depth: float = 1.55) -> None:
    """The neck, with the shadow of the chin."""
    x, y, wide = head.x, head.y, 0.34 * head.size
    tone = mix(head.skin, head.shade, 0.35)
    bottom = y + depth * head.size
    canvas.polygon([(x - wide, y + 0.4 * head.size), (x + wide, y + 0.4 * head.size),
                    (x + 1.25 * wide, bottom), (x - 1.25 * wide, bottom)], tone)  # fmt: skip
    canvas.ellipse((x, bottom), (1.25 * wide, 0.22 * head.size), tone)
    shadow = (x - head.light * 0.10 * head.size, y + 0.98 * head.size)
    canvas.ellipse(shadow, (wide, 0.26 * head.size), head.shade, 0.7, 0.0, 0.8)


def face(canvas: Canvas, head: Head, smile: float, open_eyes: float = 1.0) -> None:
    """The face: an oval with jaw, eyes, brows, nose and mouth."""
    size, soft = head.size, head.soft
    canvas.globe(
        (head.x, head.y), (head.wide * size, size), head.skin, head.shade, head.light, 0.0, soft
    )
    jaw = (head.x + 0.03 * head.turn * size, head.y + 0.30 * size)
    canvas.globe(
        jaw, (0.9 * head.wide * size, 0.70 * size), head.skin, head.shade, head.light, 0.0, 0.35
    )
    blush = mix(head.skin, head.lips, 0.45)
    for side in (-1.0, 1.0):
        canvas.ellipse(head.at(0.40 * side, 0.28), (0.20 * size, 0.16 * size), blush, 1.0, 0.0, 0.6)
        _eye(canvas, head, side, open_eyes)
    _nose(canvas, head)
    _mouth(canvas, head, smile)
    canvas.focus((head.x, head.y), (0.85 * size, 1.05 * size))


def _eye(canvas: Canvas, head: Head, side: float, opened: float) -> None:
    size = head.size
    near = 1.0 - 0.25 * head.turn * side
    x, y = head.at(0.315 * side, -0.08)
    socket = mix(head.skin, head.shade, 0.55)
    canvas.ellipse((x, y - 0.02 * size), (0.22 * size * near, 0.16 * size), socket, 0.8, 0.0, 0.8)
    canvas.ellipse((x, y), (0.155 * size * near, 0.085 * size * opened), (0.93, 0.91, 0.88))
    canvas.ellipse(
        (x + 0.03 * head.turn * size, y), (0.078 * size, 0.085 * size * opened), head.eyes
    )
    canvas.ellipse(
        (x + 0.03 * head.turn * size, y), (0.04 * size, 0.045 * size), (0.05, 0.04, 0.04)
    )
    lid = (x, y - 0.085 * size * opened)
    canvas.ellipse(lid, (0.165 * size * near, 0.032 * size), scale(head.shade, 0.45))
    brow = (x + 0.01 * side * size, y - 0.23 * size)
    canvas.ellipse(
        brow, (0.20 * size * near, 0.042 * size), mix(head.hair, head.shade, 0.25), 0.2, 0.0, 0.9
    )


def _nose(canvas: Canvas, head: Head) -> None:
    size, dark = head.size, mix(head.skin, head.shade, 0.8)
    lean = 0.35 * head.turn
    canvas.ellipse(
        head.at(-0.10 * head.light + 0.02, 0.14), (0.085 * size, 0.27 * size), dark, 0.9, lean, 0.75
    )
    light = mix(head.skin, (1.0, 0.97, 0.9), 0.35)
    canvas.ellipse(
        head.at(0.035 * head.light, 0.10), (0.05 * size, 0.24 * size), light, 0.8, lean, 0.8
    )
    canvas.ellipse(
        head.at(0.0, 0.31), (0.125 * size, 0.07 * size), mix(head.skin, head.shade, 0.35), 0.4
    )
    canvas.ellipse(
        head.at(0.0, 0.365), (0.12 * size, 0.03 * size), scale(head.shade, 0.75), 0.4, 0.0, 0.9
    )


def _mouth(canvas: Canvas, head: Head, smile: float) -> None:
    size = head.size
    canvas.ellipse(head.at(0.0, 0.60), (0.25 * size, 0.085 * size), head.lips, 0.25)
    canvas.ellipse(head.at(0.0, 0.535), (0.24 * size, 0.05 * size), scale(head.lips, 0.78), 0.2)
    canvas.ellipse(head.at(0.0, 0.565), (0.26 * size, 0.022 * size), scale(head.lips, 0.40))
    for side in (-1.0, 1.0):
        corner = head.at(0.25 * side, 0.57 - 0.075 * smile)
        canvas.ellipse(corner, (0.05 * size, 0.025 * size), scale(head.lips, 0.5), 0.3, 0.0, 0.8)
    canvas.ellipse(
        head.at(0.0, 0.73), (0.18 * size, 0.05 * size), mix(head.skin, head.shade, 0.6), 0.8
    )
