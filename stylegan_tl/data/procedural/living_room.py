"""Living rooms: sofa and armchair, coffee table, rug, television or fireplace, shelves, lamps."""

from __future__ import annotations

from stylegan_tl.data.procedural.draws import Colour, Draws, hsv, scale
from stylegan_tl.data.procedural.furniture import (
    books,
    lamp,
    picture,
    plant,
    rug,
    table,
    wall_place,
)
from stylegan_tl.data.procedural.room import Room
from stylegan_tl.data.procedural.scene import PLAIN, Frame, Texture

__all__ = ["furnish"]


def furnish(room: Room, draw: Draws) -> None:
    """Put a living room's furniture into the room."""
    if draw.chance(0.55):
        _sofa_at_back(room, draw)
    else:
        _sofa_at_side(room, draw)


def _sofa_at_back(room: Room, draw: Draws) -> None:
    half = draw.uniform(0.85, 1.15)
    frame = wall_place(room, draw, "front", half + 0.4, 0.0)
    _rug_and_table(room, draw, frame, half)
    _sofa(room, draw, frame, half)
    if room.free("front", frame.x - half, frame.x + half):
        picture(frame, draw, room.palette, (-0.8 * half, 0.8 * half), 1.25)
    _beside(room, draw, frame, half)
    side = draw.pick(("right", "left"))
    place = wall_place(room, draw, side, 0.8, 0.55)
    kind = draw.unit()
    if kind < 0.4:
        _armchair(room, draw, place)
    elif kind < 0.75 and room.free(side, place.z - 0.6, place.z + 0.6):
        books(place, draw, (-0.6, 0.6), 0.32, draw.uniform(1.3, 2.0), room.palette.wood)
    else:
        _television(room, draw, place, room.free(side, place.z - 0.6, place.z + 0.6))


def _sofa_at_side(room: Room, draw: Draws) -> None:
    side = draw.pick(("right", "left"))
    half = draw.uniform(0.8, 1.0)
    frame = room.wall(side, room.depth - draw.uniform(0.35, 0.6) - half)
    back = wall_place(room, draw, "front", 0.75, 0.35)
    free = room.free("front", back.x - 0.75, back.x + 0.75)
    _rug_and_table(room, draw, frame, half)
    _sofa(room, draw, frame, half)
    if free and draw.chance(0.5):
        _fireplace(room, draw, back)
    elif draw.chance(0.75) or not free:
        _television(room, draw, back, free)
    else:
        books(back, draw, (-0.75, 0.75), 0.32, draw.uniform(1.5, 2.1), room.palette.wood)
    if draw.chance(0.5):
        plant(room.wall("front", room.width - 0.45 if side == "right" else 0.45), draw, 0.4, 1.1)


def _rug_and_table(room: Room, draw: Draws, frame: Frame, half: float) -> None:
    out = draw.uniform(1.25, 1.45)
    if draw.chance(0.75):
        wide = half + draw.uniform(0.0, 0.35)
        rug(frame, draw, room, (-wide, wide), (0.7, out + 1.0))
    colour = draw.pick((room.palette.wood, room.palette.second_wood, (0.9, 0.9, 0.88)))
    size = draw.uniform(0.38, 0.58)
    x, _, z = frame.point(0.0, out + 0.25, 0.0)
    if draw.chance(0.3):
        frame.scene.prism((x, z), (0.0, 0.36), (0.1, 0.1), colour)
        frame.scene.prism((x, z), (0.36, 0.41), (0.42, 0.42), colour)
    else:
        table(frame, (-size, size), (out, out + 0.5), 0.42, colour, colour, 0.06)
    if draw.chance(0.6):
        paint = hsv(draw.unit(), draw.uniform(0.2, 0.7), draw.uniform(0.5, 0.9))
        frame.scene.prism((x, z), (0.42, 0.58), (0.05, 0.08), paint)


def _sofa(room: Room, draw: Draws, frame: Frame, half: float) -> None:
    palette = room.palette
    colour = draw.pick((palette.cloth, palette.cloth, palette.second_cloth, palette.accent,
                        (0.35, 0.22, 0.15), (0.55, 0.55, 0.56)))  # fmt: skip
    deep, arm = draw.uniform(0.85, 0.95), draw.uniform(0.55, 0.66)
    back, wide = draw.uniform(0.78, 0.92), draw.uniform(0.14, 0.22)
    frame.occlude((-half, half), (0.05, deep), (0.0, 0.6))
    frame.box((-half + wide, half - wide), (0.05, deep - 0.04), (0.10, 0.30), scale(colour, 0.9))
    frame.box((-half + wide, half - wide), (0.05, 0.24), (0.30, back), colour)
    for a, b in ((-half, -half + wide), (half - wide, half)):
        frame.box((a, b), (0.05, deep), (0.06, arm), colour)
    count = 3 if half > 0.95 else 2
    step = (2 * half - 2 * wide) / count
    for k in range(count):
        a = -half + wide + k * step
        frame.cushion(
            (a + 0.01, a + step - 0.01), (0.26, deep + 0.01), (0.30, 0.46), scale(colour, 1.08)
        )
        frame.cushion(
            (a + 0.02, a + step - 0.02), (0.24, 0.40), (0.46, back + 0.03), scale(colour, 1.05)
        )
    for _ in range(draw.integer(0, 3)):
        at = draw.uniform(-half + wide + 0.2, half - wide - 0.2)
        paint = draw.pick((palette.accent, palette.linen, palette.second_cloth))
        frame.cushion((at - 0.2, at + 0.2), (0.42, 0.55), (0.47, 0.82), paint)


def _armchair(room: Room, draw: Draws, frame: Frame) -> None:
    colour = draw.pick((room.palette.second_cloth, room.palette.accent, room.palette.cloth))
    frame.occlude((-0.4, 0.4), (0.1, 0.85), (0.0, 0.5))
    frame.box((-0.28, 0.28), (0.1, 0.82), (0.1, 0.44), colour)
    frame.box((-0.28, 0.28), (0.1, 0.28), (0.44, 0.9), scale(colour, 1.05))
    for a, b in ((-0.42, -0.28), (0.28, 0.42)):
        frame.box((a, b), (0.1, 0.85), (0.06, 0.6), scale(colour, 0.95))


def _beside(room: Room, draw: Draws, frame: Frame, half: float) -> None:
    for sign in (-1, 1):
        at = sign * (half + 0.3)
        if not 0.2 < frame.x + at < room.width - 0.2:
            continue
        kind = draw.unit()
        if kind < 0.4:
            shade = draw.pick((room.palette.linen, room.palette.accent))
            lamp(
                frame,
                (at, 0.35),
                0.0,
                draw.uniform(1.45, 1.65),
                shade,
                room.palette,
                draw.chance(0.6),
            )
        elif kind < 0.7:
            plant(
                Frame(frame.scene, frame.x + at, frame.z, "front"),
                draw,
                0.35,
                draw.uniform(0.9, 1.3),
            )


def _television(room: Room, draw: Draws, frame: Frame, free: bool) -> None:
    colour = draw.pick((room.palette.wood, room.palette.second_wood, (0.16, 0.16, 0.17)))
    frame.occlude((-0.75, 0.75), (0.0, 0.42), (0.0, 0.45))
    part = frame.box((-0.75, 0.75), (0.02, 0.42), (0.08, 0.46), colour, Texture("wood"))
    for k in range(3):
        a = -0.75 + 0.5 * k
        frame.panel(part, (a + 0.03, a + 0.47), 0.422, (0.12, 0.42), scale(colour, 1.15))
    low = draw.uniform(0.85, 1.0) if free and draw.chance(0.5) else 0.52
    size = draw.uniform(0.5, 0.64)
    dark = (0.05, 0.05, 0.06)
    screen = frame.box((-size, size), (0.12, 0.17), (low, low + 1.15 * size), dark)
    if low < 0.6:
        frame.box((-0.15, 0.15), (0.1, 0.22), (0.46, low), dark)
    lit = draw.chance(0.35)
    image = hsv(draw.unit(), draw.uniform(0.3, 0.7), 0.8) if lit else (0.10, 0.11, 0.13)
    shown = Texture("canvas", 0.3, hsv(draw.unit(), 0.4, 0.9)) if lit else PLAIN
    span = (low + 0.03, low + 1.15 * size - 0.03)
    frame.panel(screen, (-size + 0.03, size - 0.03), 0.172, span, image, shown, 0.6 * lit)


def _fireplace(room: Room, draw: Draws, frame: Frame) -> None:
    stone: Colour = draw.pick(((0.92, 0.91, 0.88), (0.62, 0.33, 0.26), (0.55, 0.54, 0.52)))
    bricks = Texture("bricks", 0.12, scale(stone, 1.2)) if stone[0] < 0.9 else PLAIN
    frame.occlude((-0.75, 0.75), (0.0, 0.35), (0.0, 1.1))
    part = frame.box((-0.7, 0.7), (0.0, 0.34), (0.0, 1.08), stone, bricks)
    frame.box((-0.8, 0.8), (0.0, 0.42), (1.08, 1.15), draw.pick((stone, room.palette.wood)))
    flame = Texture("fire", 1.0, (0.06, 0.05, 0.05), 1.0, (0.05, 0.78))
    lit = draw.chance(0.8)
    hearth = (1.0, 0.62, 0.18) if lit else (0.06, 0.05, 0.05)
    frame.panel(
        part, (-0.42, 0.42), 0.342, (0.05, 0.78), hearth, flame if lit else PLAIN, 1.2 * lit
    )
    if lit:
        x, _, z = frame.point(0.0, 0.7, 0.0)
        frame.scene.lamps.append(((x, 0.4, z), (1.0, 0.6, 0.28), 0.6))
    if draw.chance(0.8):
        picture(frame, draw, room.palette, (-0.5, 0.5), 1.35)
