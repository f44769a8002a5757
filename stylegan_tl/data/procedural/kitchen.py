"""Kitchens: cabinet rows with a counter, stove and hood, sink, fridge, tiles; perhaps an island."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_tl.data.procedural.draws import Colour, Draws, hsv, mix, scale
from stylegan_tl.data.procedural.furniture import chair, pendant, table
from stylegan_tl.data.procedural.room import Room
from stylegan_tl.data.procedural.scene import PLAIN, Frame, Part, Span, Texture

__all__ = ["furnish"]

_STEEL: Colour = (0.74, 0.76, 0.78)
_DEEP = 0.62
_COUNTER = 0.92


@dataclass(frozen=True)
class _Style:
    """What all cabinets of one kitchen look like."""

    front: Colour
    upper: Colour
    counter: Colour
    handle: Colour
    tiles: Colour
    grout: Texture
    appliance: Colour
    inset: bool


def furnish(room: Room, draw: Draws) -> None:
    """Put a kitchen's furniture into the room."""
    style = _style(room, draw)
    side = draw.pick(("right", "left"))
    corner = draw.chance(0.7)
    _back_row(room, draw, style, side, corner)
    if corner:
        _side_row(room, draw, style, side)
    else:
        _fridge(_side_frame(room, draw, side), draw, style, -0.38)
    _middle(room, draw, style, side)


def _style(room: Room, draw: Draws) -> _Style:
    palette = room.palette
    front = draw.pick(((0.94, 0.93, 0.91), (0.94, 0.93, 0.91), palette.wood, palette.wood,
                       palette.second_wood, mix(palette.cloth, (0.7, 0.7, 0.7), 0.35)))  # fmt: skip
    upper = front if draw.chance(0.75) else (0.94, 0.93, 0.91)
    counter = draw.pick(((0.22, 0.22, 0.24), (0.88, 0.87, 0.85), palette.wood, (0.5, 0.49, 0.48)))
    tiles = draw.pick(((0.93, 0.93, 0.92), palette.second_cloth, hsv(draw.unit(), 0.3, 0.85)))
    other = mix(tiles, palette.accent, 0.5)
    grout = Texture("tiles", draw.uniform(0.12, 0.2), other, draw.pick((0.0, 0.0, 0.9)))
    appliance = draw.pick((_STEEL, _STEEL, (0.95, 0.95, 0.95), (0.16, 0.16, 0.17)))
    handle = draw.pick((palette.metal, scale(front, 0.4)))
    return _Style(front, upper, counter, handle, tiles, grout, appliance, draw.chance(0.5))


def _side_frame(room: Room, draw: Draws, side: str) -> Frame:
    return room.wall(side, room.depth - draw.uniform(0.9, 1.1))


def _back_row(room: Room, draw: Draws, style: _Style, side: str, corner: bool) -> None:
    frame, width = room.wall("front", 0.0), room.width
    fridge = corner and draw.chance(0.75)
    start, stop = 0.0, width
    if fridge and side == "right":
        stop = width - 0.78
        _fridge(frame, draw, style, stop)
    elif fridge:
        start = 0.78
        _fridge(frame, draw, style, 0.0)
    stove = _stove_place(room, draw, start + 0.7, stop - 1.3)
    _counter_run(frame, style, (start, stop), stove)
    _stove(frame, draw, style, stove)
    _splash(frame, style, (start, stop))
    hood = room.free("front", stove - 0.05, stove + 0.65)
    if hood:
        _hood(frame, draw, style, stove, room.height)
    _uppers(room, frame, style, (start, stop), stove if hood else None)
    _sink(room, frame, draw, style, (start, stop), stove)
    _clutter(frame, draw, (start, stop), stove)


def _stove_place(room: Room, draw: Draws, low: float, high: float) -> float:
    places = [low + (high - low) * k / 8 for k in range(9)] if high > low else [low]
    free = [at for at in places if room.free("front", at - 0.1, at + 0.7)]
    return draw.pick(free or places)


def _side_row(room: Room, draw: Draws, style: _Style, side: str) -> None:
    frame = room.wall(side, room.depth)
    sign = -1.0 if side == "right" else 1.0
    reach = draw.uniform(1.7, 2.5)
    span = tuple(sorted((sign * 0.64, sign * reach)))
    _doors_row(frame, style, span, None)
    frame.box((span[0], span[1]), (0.0, _DEEP + 0.03), (_COUNTER - 0.05, _COUNTER), style.counter)
    _splash(frame, style, span)
    if room.free(side, room.depth - reach, room.depth - 0.64):
        _upper_box(frame, style, span)
    _clutter(frame, draw, span, None)


def _counter_run(frame: Frame, style: _Style, span: Span, stove: float) -> None:
    _doors_row(frame, style, span, stove)
    for a, b in ((span[0], stove), (stove + 0.6, span[1])):
        if b > a:
            frame.box((a, b), (0.0, _DEEP + 0.03), (_COUNTER - 0.05, _COUNTER), style.counter)


def _doors_row(frame: Frame, style: _Style, span: Span, stove: float | None) -> None:
    pieces = [span] if stove is None else [(span[0], stove), (stove + 0.6, span[1])]
    for a, b in pieces:
        if b - a < 0.05:
            continue
        frame.occlude((a, b), (0.0, _DEEP - 0.06), (0.0, _COUNTER))
        frame.box((a, b), (0.0, _DEEP - 0.06), (0.0, 0.10), scale(style.front, 0.45))
        part = frame.box((a, b), (0.0, _DEEP), (0.10, _COUNTER - 0.05), style.front)
        count = max(1, int((b - a) / 0.48 + 0.5))
        wide = (b - a) / count
        for k in range(count):
            _door(frame, part, style, (a + k * wide, a + (k + 1) * wide), (0.12, 0.68), _DEEP)
            _drawer(frame, part, style, (a + k * wide, a + (k + 1) * wide), (0.70, 0.85))


def _door(frame: Frame, part: Part, style: _Style, s: Span, y: Span, t: float) -> None:
    colour = scale(style.front if t == _DEEP else style.upper, 0.72)
    frame.panel(part, (s[0] + 0.012, s[0] + 0.03), t + 0.002, y, colour)
    frame.panel(part, (s[1] - 0.03, s[1] - 0.012), t + 0.002, y, colour)
    if style.inset:
        frame.panel(
            part,
            (s[0] + 0.09, s[1] - 0.09),
            t + 0.002,
            (y[0] + 0.08, y[1] - 0.08),
            scale(colour, 1.22),
        )
    top = y[1] - 0.16 if t == _DEEP else y[0] + 0.04
    frame.panel(part, (s[1] - 0.09, s[1] - 0.055), t + 0.004, (top, top + 0.12), style.handle)


def _drawer(frame: Frame, part: Part, style: _Style, s: Span, y: Span) -> None:
    frame.panel(
        part,
        (s[0] + 0.02, s[1] - 0.02),
        _DEEP + 0.002,
        (y[0] - 0.03, y[0]),
        scale(style.front, 0.6),
    )
    middle = (s[0] + s[1]) / 2
    frame.panel(
        part,
        (middle - 0.07, middle + 0.07),
        _DEEP + 0.004,
        (y[0] + 0.06, y[0] + 0.09),
        style.handle,
    )


def _stove(frame: Frame, draw: Draws, style: _Style, at: float) -> None:
    colour, dark = style.appliance, (0.07, 0.07, 0.08)
    frame.occlude((at, at + 0.6), (0.0, _DEEP), (0.0, _COUNTER))
    part = frame.box(
        (at, at + 0.6), (0.0, _DEEP + 0.02), (0.0, _COUNTER), colour, top=(dark, PLAIN)
    )
    front = _DEEP + 0.022
    frame.panel(part, (at + 0.06, at + 0.54), front, (0.22, 0.62), dark)
    frame.panel(part, (at + 0.06, at + 0.54), front + 0.002, (0.66, 0.69), (0.85, 0.85, 0.86))
    for k in range(4):
        x = at + 0.10 + 0.12 * k
        frame.panel(part, (x, x + 0.05), front + 0.002, (0.78, 0.84), (0.2, 0.2, 0.2))
    if draw.chance(0.6):
        x, _, z = frame.point(at + draw.pick((0.17, 0.43)), 0.32, 0.0)
        pot = draw.pick((_STEEL, hsv(draw.unit(), 0.7, 0.7), (0.2, 0.2, 0.2)))
        frame.scene.prism((x, z), (_COUNTER, _COUNTER + 0.17), (0.12, 0.12), pot)


def _hood(frame: Frame, draw: Draws, style: _Style, at: float, ceiling: float) -> None:
    colour = draw.pick((_STEEL, style.appliance))
    frame.box((at, at + 0.6), (0.0, 0.48), (1.55, 1.64), colour)
    frame.box((at + 0.17, at + 0.43), (0.0, 0.26), (1.64, ceiling), colour)


def _splash(frame: Frame, style: _Style, span: Span) -> None:
    frame.panel(None, span, 0.008, (_COUNTER, 1.48), style.tiles, style.grout)


def _uppers(room: Room, frame: Frame, style: _Style, span: Span, hood: float | None) -> None:
    start = span[0]
    while start < span[1] - 0.3:
        stop = min(start + 0.45, span[1])
        blocked = hood is not None and stop > hood - 0.02 and start < hood + 0.62
        if not blocked and room.free("front", start - 0.15, stop + 0.15):
            _upper_box(frame, style, (start, stop))
        start = stop


def _upper_box(frame: Frame, style: _Style, span: Span) -> None:
    part = frame.box(span, (0.0, 0.36), (1.48, 2.18), style.upper)
    count = max(1, int((span[1] - span[0]) / 0.45 + 0.5))
    wide = (span[1] - span[0]) / count
    for k in range(count):
        _door(
            frame, part, style, (span[0] + k * wide, span[0] + (k + 1) * wide), (1.50, 2.16), 0.36
        )


def _sink(room: Room, frame: Frame, draw: Draws, style: _Style, span: Span, stove: float) -> None:
    front = [window for window in room.windows if window.facing == "front"]
    at = sum(front[0].along) / 2 - 0.25 if front else stove + draw.pick((-0.75, 0.85))
    if not (span[0] + 0.05 < at < span[1] - 0.55) or stove - 0.5 < at < stove + 0.6:
        return
    frame.box((at, at + 0.5), (0.1, 0.52), (_COUNTER, _COUNTER + 0.012), (0.5, 0.52, 0.54))
    frame.box((at + 0.23, at + 0.27), (0.06, 0.10), (_COUNTER, _COUNTER + 0.3), style.handle)
    frame.box((at + 0.23, at + 0.27), (0.10, 0.26), (_COUNTER + 0.26, _COUNTER + 0.3), style.handle)


def _clutter(frame: Frame, draw: Draws, span: Span, stove: float | None) -> None:
    for _ in range(draw.integer(1, 4)):
        at = draw.uniform(span[0] + 0.15, max(span[0] + 0.16, span[1] - 0.15))
        if stove is not None and stove - 0.15 < at < stove + 0.75:
            continue
        colour = hsv(draw.unit(), draw.uniform(0.3, 0.85), draw.uniform(0.4, 0.9))
        x, _, z = frame.point(at, draw.uniform(0.15, 0.35), 0.0)
        kind = draw.unit()
        if kind < 0.5:
            tall = draw.uniform(0.15, 0.32)
            frame.scene.prism((x, z), (_COUNTER, _COUNTER + tall), (0.07, 0.05), colour)
        elif kind < 0.75:
            frame.scene.prism((x, z), (_COUNTER, _COUNTER + 0.08), (0.08, 0.14), (0.9, 0.88, 0.84))
            fruit = hsv(draw.pick((0.01, 0.08, 0.13, 0.25)), 0.8, 0.85)
            frame.scene.ball((x, _COUNTER + 0.12, z), 0.09, fruit)
        else:
            frame.box((at - 0.12, at + 0.12), (0.12, 0.34), (_COUNTER, _COUNTER + 0.22), colour)


def _fridge(frame: Frame, draw: Draws, style: _Style, at: float) -> None:
    colour = draw.pick((style.appliance, (0.95, 0.95, 0.96), _STEEL))
    tall, split = draw.uniform(1.75, 1.95), draw.pick((0.65, 1.2))
    frame.occlude((at, at + 0.76), (0.0, 0.68), (0.0, tall))
    part = frame.box((at + 0.02, at + 0.76), (0.0, 0.70), (0.03, tall), colour)
    frame.panel(part, (at + 0.02, at + 0.76), 0.702, (split, split + 0.025), scale(colour, 0.4))
    for a, b in ((split - 0.45, split - 0.08), (split + 0.1, split + 0.5)):
        frame.panel(part, (at + 0.08, at + 0.12), 0.702, (a, b), scale(colour, 0.45))


def _middle(room: Room, draw: Draws, style: _Style, side: str) -> None:
    kind = draw.unit()
    x = room.width * (0.62 if side == "right" else 0.38)
    if kind < 0.22:
        frame = Frame(room.scene, x, room.depth - 1.75, "front")
        half = draw.uniform(0.45, 0.65)
        frame.occlude((-half, half), (0.0, 0.6), (0.0, 0.9))
        part = frame.box((-half, half), (0.0, 0.6), (0.0, 0.86), style.front)
        frame.box((-half - 0.08, half + 0.08), (-0.05, 0.68), (0.86, 0.91), style.counter)
        for k in range(3):
            a = -half + 2 * half * k / 3
            frame.panel(
                part,
                (a + 0.02, a + 2 * half / 3 - 0.02),
                0.602,
                (0.1, 0.8),
                scale(style.front, 1.1),
            )
        if draw.chance(0.6):
            pendant(
                frame, (0.0, 0.3), 1.65, 0.16, room.height, room.palette.metal, draw.chance(0.6)
            )
    elif kind < 0.34:
        frame = Frame(room.scene, x, room.depth - 1.5, "front")
        table(frame, (-0.42, 0.42), (0.0, 0.7), 0.75, room.palette.wood, room.palette.wood)
        for facing, dx in (("right", -0.55), ("left", 0.55)):
            chair(
                Frame(room.scene, x + dx, room.depth - 1.85, facing),
                room.palette.wood,
                room.palette.cloth,
                0.95,
            )
