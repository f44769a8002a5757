"""Dining rooms: a laid table with chairs around it, a pendant lamp above, a sideboard, pictures."""

from __future__ import annotations

from stylegan_tl.data.procedural.draws import Colour, Draws, hsv, mix
from stylegan_tl.data.procedural.furniture import (
    chair,
    chest,
    pendant,
    picture,
    plant,
    rug,
    table,
    wall_place,
)
from stylegan_tl.data.procedural.room import Room
from stylegan_tl.data.procedural.scene import Frame, Texture

__all__ = ["furnish"]


def furnish(room: Room, draw: Draws) -> None:
    """Put a dining room's furniture into the room."""
    frame = _place(room, draw)
    long = draw.chance(0.55)
    half = (draw.uniform(0.62, 0.9), 0.45) if long else (0.45, draw.uniform(0.55, 0.8))
    round_table = draw.chance(0.3)
    if round_table:
        half = (draw.uniform(0.52, 0.66),) * 2
    if draw.chance(0.5):
        rug(frame, draw, room, (-half[0] - 0.65, half[0] + 0.65), (-half[1] - 0.65, half[1] + 0.65))
    top = draw.pick((room.palette.wood, room.palette.wood, room.palette.second_wood))
    _table(draw, room, frame, half, top, round_table)
    _chairs(draw, room, frame, half, top, long or round_table)
    _lamp(draw, room, frame, half)
    _laid(draw, room, frame, half)
    _walls(draw, room)


def _place(room: Room, draw: Draws) -> Frame:
    x = room.width * draw.bell(0.5, 0.14)
    return Frame(room.scene, x, room.depth - draw.uniform(1.45, 1.85), "front")


def _table(
    draw: Draws, room: Room, frame: Frame, half: tuple[float, float], top: Colour, is_round: bool
) -> None:
    if is_round:
        scene, centre = frame.scene, (frame.x, frame.z)
        frame.occlude((-0.3, 0.3), (-0.3, 0.3), (0.0, 0.3))
        scene.prism(centre, (0.0, 0.06), (0.3, 0.22), top)
        scene.prism(centre, (0.06, 0.70), (0.06, 0.06), top)
        scene.prism(centre, (0.70, 0.75), (half[0], half[0]), top)
        return
    s, t = (-half[0], half[0]), (-half[1], half[1])
    leg = draw.pick((top, room.palette.metal, (0.92, 0.91, 0.88)))
    table(frame, s, t, 0.75, top, leg)
    kind = draw.unit()
    cloth = draw.pick((room.palette.linen, room.palette.cloth, room.palette.accent))
    if kind < 0.22:
        wide = (s[0] - 0.02, s[1] + 0.02), (t[0] - 0.02, t[1] + 0.02)
        frame.box(*wide, (0.55, 0.755), cloth)
    elif kind < 0.5:
        frame.box((s[0] - 0.01, s[1] + 0.01), (-0.13, 0.13), (0.62, 0.757), cloth)


def _chairs(
    draw: Draws, room: Room, frame: Frame, half: tuple[float, float], top: Colour, ends: bool
) -> None:
    colour = draw.pick((top, top, room.palette.second_wood, (0.93, 0.92, 0.9), (0.15, 0.15, 0.16)))
    seat = draw.pick((colour, room.palette.cloth, room.palette.second_cloth, room.palette.linen))
    back = draw.uniform(0.88, 1.08)
    out = draw.uniform(0.02, 0.14)
    many = 2 if half[0] > 0.6 else 1
    for k in range(many):
        x = frame.x + (k - (many - 1) / 2) * 2 * half[0] / many
        chair(Frame(frame.scene, x, frame.z + half[1] + out, "front"), colour, seat, back)
        chair(Frame(frame.scene, x, frame.z - half[1] - out, "back"), colour, seat, back)
    if ends or draw.chance(0.5):
        rows = 1 if half[1] < 0.56 or ends else 2
        for k in range(rows):
            z = frame.z + (k - (rows - 1) / 2) * 0.62
            chair(Frame(frame.scene, frame.x - half[0] - out, z, "right"), colour, seat, back)
            chair(Frame(frame.scene, frame.x + half[0] + out, z, "left"), colour, seat, back)


def _lamp(draw: Draws, room: Room, frame: Frame, half: tuple[float, float]) -> None:
    shade = draw.pick(
        (room.palette.metal, room.palette.accent, (0.94, 0.92, 0.86), (0.13, 0.13, 0.13))
    )
    lit = draw.chance(0.7) or room.daylight < 0.5
    level, radius = draw.uniform(1.45, 1.68), draw.uniform(0.2, 0.32)
    if half[0] > 0.75 and draw.chance(0.5):
        for k in (-1, 0, 1):
            pendant(frame, (k * 0.45, 0.0), level, 0.13, room.height, shade, lit and k == 0)
        return
    if draw.chance(0.25):
        _chandelier(frame, level, room.height, room.palette.metal)
        return
    pendant(frame, (0.0, 0.0), level, radius, room.height, shade, lit)


def _chandelier(frame: Frame, level: float, ceiling: float, metal: Colour) -> None:
    scene, x, z = frame.scene, frame.x, frame.z
    scene.prism((x, z), (level + 0.12, ceiling), (0.015, 0.015), metal)
    scene.prism((x, z), (level + 0.06, level + 0.10), (0.3, 0.3), metal)
    for dx, dz in ((-0.28, 0.0), (0.28, 0.0), (0.0, -0.28), (0.0, 0.28), (0.2, 0.2), (-0.2, -0.2)):
        scene.ball((x + dx, level + 0.17, z + dz), 0.055, (1.0, 0.92, 0.72), 1.4)
    scene.lamps.append(((x, level, z), (1.0, 0.82, 0.58), 0.8))


def _laid(draw: Draws, room: Room, frame: Frame, half: tuple[float, float]) -> None:
    scene, top = frame.scene, 0.757
    plate = draw.pick(((0.95, 0.95, 0.94), room.palette.second_cloth))
    if draw.chance(0.65):
        for dx in (-0.5, 0.5):
            for dz in (-0.6, 0.6):
                x, z = frame.x + dx * half[0], frame.z + dz * half[1]
                scene.prism((x, z), (top, top + 0.02), (0.10, 0.12), plate)
    kind = draw.unit()
    if kind < 0.55:
        vase = hsv(draw.unit(), draw.uniform(0.1, 0.6), draw.uniform(0.5, 0.95))
        scene.prism((frame.x, frame.z), (top, top + 0.2), (0.05, 0.07), vase)
        bloom = hsv(draw.unit(), draw.uniform(0.5, 0.85), draw.uniform(0.6, 0.95))
        for _ in range(5):
            dx, dz, dy = draw.bell(0.0, 0.12), draw.bell(0.0, 0.1), draw.uniform(0.22, 0.40)
            colour = draw.pick((bloom, bloom, (0.25, 0.45, 0.2)))
            scene.ball((frame.x + dx, top + dy, frame.z + dz), 0.055, colour)
    elif kind < 0.8:
        scene.prism((frame.x, frame.z), (top, top + 0.08), (0.08, 0.17), plate)
        for dx in (-0.07, 0.0, 0.07):
            fruit = hsv(draw.pick((0.02, 0.09, 0.13, 0.27)), 0.8, 0.85)
            scene.ball((frame.x + dx, top + 0.11, frame.z), 0.06, fruit)


def _walls(draw: Draws, room: Room) -> None:
    colour = draw.pick((room.palette.wood, room.palette.second_wood))
    frame = wall_place(room, draw, "front", 0.8, 0.1)
    free = room.free("front", frame.x - 0.7, frame.x + 0.7)
    kind = draw.unit()
    if kind < 0.5:
        chest(frame, (-0.7, 0.7), 0.42, draw.uniform(0.78, 0.92), colour, draw.integer(2, 3), 1)
    elif kind < 0.7:
        plant(frame, draw, 0.3, draw.uniform(0.9, 1.3))
    if free and draw.chance(0.7):
        picture(frame, draw, room.palette, (-0.6, 0.6), 1.35)
    for side in ("right", "left"):
        place = wall_place(room, draw, side, 0.6, 0.3)
        if draw.chance(0.35) and room.free(side, place.z - 0.5, place.z + 0.5):
            picture(place, draw, room.palette, (-0.45, 0.45), 1.35)
    if draw.chance(0.2):
        _wainscot(room, mix(room.palette.wall, (0.95, 0.95, 0.93), 0.7))


def _wainscot(room: Room, colour: Colour) -> None:
    panels = Texture("stripes", 0.5, mix(colour, (0.0, 0.0, 0.0), 0.06), 1.0)
    frame = room.wall("front", 0.0)
    frame.panel(None, (0.0, room.width), 0.004, (0.09, 0.8), colour, panels)
