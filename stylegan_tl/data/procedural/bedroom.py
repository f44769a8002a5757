"""Bedrooms: a bed of some kind, nightstands with lamps, a wardrobe or a chest, a rug, pictures."""

from __future__ import annotations

from stylegan_tl.data.procedural.draws import Colour, Draws, mix, scale
from stylegan_tl.data.procedural.furniture import (
    chest,
    lamp,
    picture,
    plant,
    rug,
    wall_place,
    wardrobe,
)
from stylegan_tl.data.procedural.room import Room
from stylegan_tl.data.procedural.scene import PLAIN, Frame, Texture

__all__ = ["furnish"]


def furnish(room: Room, draw: Draws) -> None:
    """Put a bedroom's furniture into the room."""
    wide = draw.uniform(1.4, 1.9) if draw.chance(0.8) else draw.uniform(0.95, 1.1)
    frame = _place(room, draw, wide)
    facing = frame.facing
    length = draw.uniform(1.95, 2.15)
    if draw.chance(0.6):
        reach = draw.uniform(0.3, 0.7)
        rug(frame, draw, room, (-wide / 2 - reach, wide / 2 + reach), (0.6, length + reach))
    _bed(room, draw, frame, wide, length)
    _nightstands(room, draw, frame, wide)
    if draw.chance(0.75) and room.free(facing, *_world(frame, wide / 2)):
        picture(frame, draw, room.palette, (-0.45 * wide, 0.45 * wide), 1.45)
    _extras(room, draw, facing)


def _place(room: Room, draw: Draws, wide: float) -> Frame:
    # Along a side wall only where the pillows come into view.
    facing, out = draw.pick(("front", "front", "right", "left")), draw.uniform(0.55, 0.9)
    if facing != "front":
        frame = room.wall(facing, room.depth - wide / 2 - out)
        if room.off_centre(frame.point(0.0, 0.25, 0.6)) < 0.85:
            return frame
    return wall_place(room, draw, "front", wide / 2 + 0.65, 0.0)


def _world(frame: Frame, half: float) -> tuple[float, float]:
    along = frame.x if frame.facing == "front" else frame.z
    return along - half, along + half


def _bed(room: Room, draw: Draws, frame: Frame, wide: float, length: float) -> None:
    palette, half = room.palette, wide / 2
    base = draw.pick((palette.wood, palette.second_wood, palette.cloth))
    low, high = draw.uniform(0.22, 0.32), draw.uniform(0.48, 0.58)
    frame.occlude((-half, half), (0.0, length), (0.0, high))
    frame.box((-half, half), (0.08, length), (0.08, low), base)
    frame.box((-half + 0.02, half - 0.02), (0.08, length - 0.02), (low, high), palette.linen)
    _headboard(draw, frame, half, base, high)
    _blanket(room, draw, frame, half, length, (low, high))
    _pillows(room, draw, frame, half, high)
    if draw.chance(0.3):
        frame.box((-half, half), (length, length + 0.06), (0.0, high + 0.12), base, Texture("wood"))


def _headboard(draw: Draws, frame: Frame, half: float, colour: Colour, high: float) -> None:
    top = high + draw.uniform(0.40, 0.75)
    if draw.chance(0.75):
        part = frame.box((-half - 0.04, half + 0.04), (0.0, 0.08), (0.0, top), colour)
        count = draw.pick((0, 2, 3, 4))
        for k in range(count):
            a = -half + 2 * half * k / count
            frame.panel(
                part,
                (a + 0.04, a + 2 * half / count - 0.04),
                0.081,
                (high, top - 0.08),
                scale(colour, 1.15),
            )
        return
    for k in range(7):
        at = -half + 2 * half * k / 6
        frame.box((at - 0.025, at + 0.025), (0.02, 0.07), (high - 0.2, top), colour)
    frame.box((-half - 0.03, half + 0.03), (0.02, 0.07), (top, top + 0.06), colour)


def _blanket(
    room: Room, draw: Draws, frame: Frame, half: float, length: float, levels: tuple[float, float]
) -> None:
    palette = room.palette
    colour = draw.pick(
        (palette.cloth, palette.cloth, palette.second_cloth, palette.linen, palette.accent)
    )
    other = draw.pick((palette.linen, palette.second_cloth, palette.accent, scale(colour, 0.6)))
    kind = draw.pick((None, None, "stripes", "bands", "checks", "dots"))
    texture = Texture(kind, draw.uniform(0.16, 0.40), other, 0.9) if kind else PLAIN
    start, drop = draw.uniform(0.65, 0.95), draw.uniform(0.05, 0.30)
    bottom = max(0.06, levels[0] - drop + 0.1)
    top = levels[1] + 0.05
    frame.box((-half - 0.03, half + 0.03), (start, length + 0.03), (bottom, top), colour, texture)
    frame.box(
        (-half - 0.03, half + 0.03),
        (start - 0.22, start),
        (levels[0], top + 0.01),
        mix(colour, palette.linen, 0.65),
    )
    if draw.chance(0.45):
        throw = draw.pick((palette.accent, palette.second_cloth, other))
        at = length - draw.uniform(0.55, 0.75)
        frame.box((-half - 0.05, half + 0.05), (at, at + 0.4), (bottom + 0.04, top + 0.02), throw)


def _pillows(room: Room, draw: Draws, frame: Frame, half: float, high: float) -> None:
    palette = room.palette
    count = 2 if half > 0.6 else 1
    colour = draw.pick((palette.linen, palette.linen, palette.second_cloth))
    size = 2 * half / count
    for k in range(count):
        a = -half + k * size
        frame.cushion((a + 0.06, a + size - 0.06), (0.10, 0.42), (high, high + 0.30), colour)
    if draw.chance(0.6):
        front = draw.pick((palette.accent, palette.cloth, palette.second_cloth))
        many = draw.integer(1, count)
        for k in range(many):
            at = (k - (many - 1) / 2) * size
            frame.cushion((at - 0.23, at + 0.23), (0.43, 0.60), (high, high + 0.30), front)


def _nightstands(room: Room, draw: Draws, frame: Frame, wide: float) -> None:
    colour = draw.pick((room.palette.wood, room.palette.second_wood))
    lit, shade = draw.chance(0.5), draw.pick((room.palette.linen, room.palette.accent))
    both = draw.chance(0.7)
    tall = draw.uniform(0.48, 0.62)
    for side in (-1, 1) if both else (draw.pick((-1, 1)),):
        centre = side * (wide / 2 + 0.33)
        chest(frame, (centre - 0.22, centre + 0.22), 0.42, tall, colour, 1, draw.integer(1, 2))
        if draw.chance(0.85):
            lamp(frame, (centre, 0.2), tall, draw.uniform(0.40, 0.55), shade, room.palette, lit)


def _extras(room: Room, draw: Draws, facing: str) -> None:
    other = draw.pick(("right", "left")) if facing == "front" else "front"
    frame = wall_place(room, draw, other, 0.75, 0.25)
    if facing != "front":
        away = 1.0 if facing == "right" else 0.0
        frame = room.wall("front", room.width / 2 + (2 * away - 1) * (room.width / 2 - 0.75))
    free = room.free(other, *_world(frame, 0.7))
    kind = draw.unit()
    colour = draw.pick((room.palette.wood, room.palette.second_wood))
    if kind < 0.4 and free:
        wardrobe(frame, (-0.65, 0.65), 0.55, draw.uniform(1.95, 2.2), colour, draw.integer(2, 3))
    elif kind < 0.8:
        chest(frame, (-0.55, 0.55), 0.45, draw.uniform(0.75, 0.9), colour, 2, 3)
        if free:
            picture(frame, draw, room.palette, (-0.4, 0.4), 1.2)
    elif kind < 0.9:
        plant(frame, draw, 0.3, draw.uniform(0.8, 1.2))
