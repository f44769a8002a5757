"""Pieces that several rooms use: rugs, lamps, pictures, plants, chests, shelves, tables, chairs."""

from __future__ import annotations

from stylegan_tl.data.procedural.draws import Colour, Draws, hsv, mix, scale
from stylegan_tl.data.procedural.room import Palette, Room
from stylegan_tl.data.procedural.scene import PLAIN, Frame, Span, Texture

__all__ = [
    "books",
    "chair",
    "chest",
    "lamp",
    "pendant",
    "picture",
    "plant",
    "rug",
    "table",
    "wall_place",
    "wardrobe",
]


def wall_place(room: Room, draw: Draws, facing: str, half: float, margin: float) -> Frame:
    """A frame on a wall with room for `half` metres to both sides, where the viewer sees it."""
    length = room.width if facing == "front" else room.depth
    low = half + margin if facing == "front" else length - 2.7 + half
    high = length - half - margin
    frames = [room.wall(facing, draw.uniform(min(low, high), high)) for _ in range(4)]
    return min(frames, key=lambda frame: max(0.55, room.off_centre(frame.point(0.0, 0.3, 1.0))))


def rug(frame: Frame, draw: Draws, room: Room, s: Span, t: Span) -> None:
    """A rug with a border and perhaps a pattern."""
    palette = room.palette
    colour = draw.pick((palette.cloth, palette.second_cloth, palette.accent, palette.linen))
    other = draw.pick((palette.linen, palette.accent, scale(colour, 0.6)))
    kind = draw.pick((None, "stripes", "bands", "checks", "dots"))
    texture = Texture(kind, draw.uniform(0.2, 0.45), other, 0.8) if kind else PLAIN
    frame.sheet(None, s, t, 0.012, mix(colour, other, 0.7))
    frame.sheet(None, (s[0] + 0.1, s[1] - 0.1), (t[0] + 0.1, t[1] - 0.1), 0.014, colour, texture)


def lamp(
    frame: Frame,
    at: tuple[float, float],
    level: float,
    tall: float,
    shade: Colour,
    palette: Palette,
    lit: bool,
) -> None:
    """A lamp with a shade, on a table (`level`) or on the floor."""
    x, _, z = frame.point(at[0], at[1], 0.0)
    scene, size = frame.scene, 0.14 + 0.06 * (tall > 1)
    scene.prism((x, z), (level, level + 0.03), (0.09, 0.09), palette.metal)
    scene.prism((x, z), (level + 0.03, level + tall - 0.26), (0.025, 0.025), palette.metal)
    bright = mix(shade, (1.0, 0.9, 0.7), 0.5) if lit else shade
    scene.prism(
        (x, z), (level + tall - 0.26, level + tall), (size, 0.7 * size), bright, PLAIN, 1.1 * lit
    )
    if lit:
        scene.lamps.append(((x, level + tall - 0.1, z), (1.0, 0.78, 0.50), 0.55))


def picture(frame: Frame, draw: Draws, palette: Palette, s: Span, low: float) -> None:
    """One, two or three framed pictures in a row above `low`."""
    count = draw.integer(1, 3)
    step = (s[1] - s[0]) / count
    tall = min(draw.uniform(0.4, 0.65), 2.3 - low)
    edge = draw.pick((palette.wood, palette.metal, (0.12, 0.12, 0.12), (0.95, 0.95, 0.93)))
    for k in range(count):
        a, b = s[0] + k * step + 0.07, s[0] + (k + 1) * step - 0.07
        paint = hsv(draw.unit(), draw.uniform(0.2, 0.8), draw.uniform(0.3, 0.9))
        other = hsv(draw.unit(), draw.uniform(0.1, 0.7), draw.uniform(0.5, 1.0))
        canvas = Texture("canvas", draw.uniform(0.12, 0.3), other)
        part = frame.box((a, b), (0.0, 0.03), (low, low + tall), edge)
        frame.panel(
            part, (a + 0.04, b - 0.04), 0.031, (low + 0.04, low + tall - 0.04), paint, canvas
        )


def plant(frame: Frame, draw: Draws, t: float, tall: float, level: float = 0.0) -> None:
    """A pot with leaves, about `tall` metres above `level`."""
    x, _, z = frame.point(0.0, t, 0.0)
    pot = draw.pick(((0.62, 0.33, 0.22), (0.9, 0.9, 0.88), (0.25, 0.27, 0.3)))
    scene, width = frame.scene, 0.16 * tall
    scene.prism((x, z), (level, level + 0.26 * tall), (0.7 * width, width), pot)
    for _ in range(draw.integer(5, 8)):
        green = hsv(draw.uniform(0.24, 0.38), draw.uniform(0.45, 0.75), draw.uniform(0.25, 0.6))
        dx, dz = draw.bell(0.0, 0.26) * tall, draw.bell(0.0, 0.2) * tall
        centre = (x + dx, level + draw.uniform(0.40, 0.92) * tall, z + dz)
        scene.ball(centre, draw.uniform(0.10, 0.17) * tall, green)


def chest(
    frame: Frame, s: Span, deep: float, tall: float, colour: Colour, columns: int, rows: int
) -> None:
    """A chest of drawers, a nightstand or a sideboard."""
    frame.occlude(s, (0.0, deep), (0.0, tall))
    part = frame.box(s, (0.02, deep), (0.06, tall), colour, Texture("wood"))
    knob = scale(colour, 0.45)
    wide, high = (s[1] - s[0]) / columns, (tall - 0.12) / rows
    for i in range(columns):
        for j in range(rows):
            a, b = s[0] + i * wide + 0.03, s[0] + (i + 1) * wide - 0.03
            c, d = 0.08 + j * high, 0.08 + (j + 1) * high - 0.035
            frame.panel(part, (a, b), deep + 0.002, (c, d), scale(colour, 1.12))
            middle = (a + b) / 2
            frame.panel(
                part, (middle - 0.05, middle + 0.05), deep + 0.004, (d - 0.07, d - 0.035), knob
            )


def wardrobe(frame: Frame, s: Span, deep: float, tall: float, colour: Colour, doors: int) -> None:
    """A tall cupboard with doors and handles."""
    frame.occlude(s, (0.0, deep), (0.0, tall))
    part = frame.box(s, (0.0, deep), (0.0, tall), colour)
    wide = (s[1] - s[0]) / doors
    for k in range(doors):
        a, b = s[0] + k * wide + 0.03, s[0] + (k + 1) * wide - 0.03
        frame.panel(part, (a, b), deep + 0.002, (0.10, tall - 0.06), scale(colour, 1.12))
        at = b - 0.08 if k % 2 == 0 else a + 0.05
        frame.panel(part, (at, at + 0.03), deep + 0.004, (0.9, 1.2), scale(colour, 0.4))


def books(frame: Frame, draw: Draws, s: Span, deep: float, tall: float, colour: Colour) -> None:
    """An open shelf filled with books."""
    frame.occlude(s, (0.0, deep), (0.0, tall))
    part = frame.box(s, (0.0, deep), (0.0, tall), colour)
    rows = max(2, int(tall / 0.38))
    high = (tall - 0.06) / rows
    for row in range(rows):
        y = 0.05 + row * high
        frame.panel(
            part,
            (s[0] + 0.04, s[1] - 0.04),
            deep + 0.002,
            (y, y + high - 0.04),
            scale(colour, 0.35),
        )
        at = s[0] + 0.05
        while at < s[1] - 0.16:
            wide = draw.uniform(0.05, 0.12)
            paint = hsv(draw.unit(), draw.uniform(0.2, 0.8), draw.uniform(0.3, 0.85))
            if draw.chance(0.85):
                top = y + high * draw.uniform(0.6, 0.85)
                frame.panel(part, (at, at + wide), deep + 0.004, (y, top), paint)
            at += wide + 0.005


def table(
    frame: Frame, s: Span, t: Span, tall: float, colour: Colour, leg: Colour, thick: float = 0.05
) -> None:
    """A table with four legs."""
    frame.occlude((s[0] + 0.1, s[1] - 0.1), (t[0] + 0.1, t[1] - 0.1), (0.0, 0.1))
    frame.box(s, t, (tall - thick, tall), colour, Texture("wood"))
    for a in (s[0] + 0.05, s[1] - 0.11):
        for b in (t[0] + 0.05, t[1] - 0.11):
            frame.box((a, a + 0.06), (b, b + 0.06), (0.0, tall - thick), leg)


def chair(frame: Frame, colour: Colour, seat: Colour, back: float, wide: float = 0.44) -> None:
    """A chair that looks along the frame's facing; its seat is centred on the frame's origin."""
    half, level = wide / 2, 0.46
    frame.occlude((-half, half), (-half, half), (0.0, 0.05))
    frame.box((-half, half), (-half, half), (level - 0.04, level), colour, top=(seat, PLAIN))
    frame.box((-half, half), (-half, half), (level, level + 0.04), seat)
    for a in (-half, half - 0.05):
        for b in (-half, half - 0.05):
            frame.box((a, a + 0.05), (b, b + 0.05), (0.0, level - 0.04), colour)
    frame.box((-half, -half + 0.06), (-half, -half + 0.05), (level + 0.04, back), colour)
    frame.box((half - 0.06, half), (-half, -half + 0.05), (level + 0.04, back), colour)
    frame.box(
        (-half + 0.06, half - 0.06), (-half, -half + 0.05), (back - 0.24, back - 0.02), colour
    )


def pendant(frame: Frame, at: tuple[float, float], level: float, radius: float, ceiling: float,
            shade: Colour, lit: bool) -> None:  # fmt: skip
    """A lamp that hangs from the ceiling down to `level`."""
    x, _, z = frame.point(at[0], at[1], 0.0)
    scene = frame.scene
    scene.prism((x, z), (level + 0.25, ceiling), (0.012, 0.012), (0.15, 0.15, 0.15))
    scene.ball((x, level + 0.04, z), 0.55 * radius, (1.0, 0.93, 0.75), 1.3 if lit else 0.5)
    scene.prism((x, z), (level, level + 0.25), (radius, 0.35 * radius), shade, PLAIN, 0.35 * lit)
    if lit:
        scene.lamps.append(((x, level - 0.1, z), (1.0, 0.82, 0.58), 0.8))
