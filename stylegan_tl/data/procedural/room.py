"""The empty room: all that rooms share, drawn from one distribution by the index alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stylegan_tl.data.procedural.draws import Colour, Draws, dye, hsv, mix, scale
from stylegan_tl.data.procedural.scene import PLAIN, Camera, Face, Frame, Point, Scene, Texture
from stylegan_tl.data.procedural.shade import Light, Shell, Sun

__all__ = ["Palette", "Room", "Window", "draw_room"]

_WOODS: tuple[Colour, ...] = (
    (0.80, 0.66, 0.48),
    (0.70, 0.52, 0.34),
    (0.58, 0.40, 0.25),
    (0.46, 0.29, 0.18),
    (0.34, 0.21, 0.14),
    (0.62, 0.34, 0.20),
    (0.86, 0.78, 0.66),
)
_WHITE: Colour = (0.93, 0.92, 0.89)
_LINEN: Colour = (0.95, 0.94, 0.91)


@dataclass(frozen=True)
class Palette:
    """The colours of a home; furniture of every domain takes its paint from here."""

    wall: Colour
    ceiling: Colour
    trim: Colour
    wood: Colour
    second_wood: Colour
    cloth: Colour
    second_cloth: Colour
    accent: Colour
    metal: Colour
    linen: Colour


@dataclass(frozen=True)
class Window:
    """A window: its wall ("front" for the back wall, "right" for the left one, "left" for the right
    one: the side that it looks to), its span along the wall in world coordinates and its heights.
    """

    facing: str
    along: tuple[float, float]
    levels: tuple[float, float]


@dataclass(frozen=True)
class Room:
    """The shared part of a picture: sizes, colours, windows, light and the scene to furnish."""

    width: float
    height: float
    depth: float
    palette: Palette
    windows: tuple[Window, ...]
    shell: Shell
    scene: Scene
    daylight: float

    def wall(self, facing: str, along: float) -> Frame:
        """A frame on a wall, its origin `along` metres along it in world coordinates."""
        if facing == "front":
            return Frame(self.scene, along, self.depth, facing)
        if facing == "right":
            return Frame(self.scene, 0.0, along, facing)
        return Frame(self.scene, self.width, along, facing)

    def off_centre(self, point: Point) -> float:
        """How far from the middle of the picture a point is seen, sideways; 1 is the edge."""
        x, z = point[0] - self.scene.camera.position[0], point[2] - self.scene.camera.position[2]
        camera = self.scene.camera
        right, forward = (
            camera.cos_yaw * x - camera.sin_yaw * z,
            camera.sin_yaw * x + camera.cos_yaw * z,
        )
        return abs(right / max(forward, 0.1)) * camera.focal

    def free(self, facing: str, low: float, high: float) -> bool:
        """Whether no window of that wall overlaps [low, high]."""
        return all(
            window.facing != facing or window.along[1] < low or window.along[0] > high
            for window in self.windows
        )


def draw_room(index: int) -> Room:
    """The room with this index; the same for every domain."""
    draw = Draws("rooms", "shared", index)
    width, depth, height = draw.uniform(3.1, 4.5), draw.uniform(3.3, 4.6), draw.uniform(2.4, 2.9)
    camera = _camera(draw, width, depth)
    palette = _palette(draw)
    scene = Scene(camera)
    daylight = draw.pick((1.0, 1.0, 1.0, 1.0, 0.75, 0.75, 0.25))
    windows = _windows(draw, width, height, depth)
    shell = _shell(draw, (width, height, depth), palette, windows, daylight)
    room = Room(width, height, depth, palette, windows, shell, scene, daylight)
    _hang_windows(draw, room)
    _skirting(room)
    return room


def _camera(draw: Draws, width: float, depth: float) -> Camera:
    distance = draw.uniform(3.7, 4.6)
    x = draw.bell(0.5, 0.34) * width
    yaw = (draw.bell(0.5, 0.30) * width - x) / distance
    cosine = 1 / math.sqrt(1 + yaw * yaw)
    focal = 2 * distance / (width * draw.uniform(1.05, 1.45))
    eye = (x, draw.uniform(1.30, 1.75), depth - distance)
    return Camera(eye, yaw * cosine, cosine, focal, -draw.uniform(0.10, 0.32))


def _palette(draw: Draws) -> Palette:
    hue = draw.unit()
    style = draw.unit()
    if style < 0.40:
        wall = hsv(0.11, draw.uniform(0.02, 0.16), draw.uniform(0.84, 0.95))
    elif style < 0.75:
        wall = hsv(hue, draw.uniform(0.10, 0.30), draw.uniform(0.74, 0.92))
    elif style < 0.90:
        wall = hsv(hue, draw.uniform(0.25, 0.55), draw.uniform(0.42, 0.75))
    else:
        wall = hsv(hue, draw.uniform(0.00, 0.08), draw.uniform(0.50, 0.85))
    other = hue + draw.pick((0.0, 0.5, 0.33, 0.67, 0.08)) + draw.uniform(-0.04, 0.04)
    cloth = dye(draw, other, (0.10, 0.72), (0.38, 0.88))
    second = dye(draw, other + draw.uniform(-0.1, 0.1), (0.05, 0.45), (0.55, 0.95))
    accent = dye(draw, draw.unit(), (0.50, 0.85), (0.55, 0.88))
    wood, second_wood = draw.pick(_WOODS), draw.pick((*_WOODS, _WHITE, (0.20, 0.19, 0.19)))
    metal = draw.pick(
        ((0.72, 0.73, 0.75), (0.72, 0.73, 0.75), (0.18, 0.18, 0.19), (0.76, 0.6, 0.34))
    )
    ceiling = mix(_WHITE, wall, draw.uniform(0.0, 0.25))
    trim = draw.pick((_WHITE, _WHITE, scale(wall, 0.9), wood))
    linen = mix(_LINEN, second, draw.pick((0.0, 0.0, 0.15, 0.5)))
    return Palette(wall, ceiling, trim, wood, second_wood, cloth, second, accent, metal, linen)


def _windows(draw: Draws, width: float, height: float, depth: float) -> tuple[Window, ...]:
    places = draw.pick((("front",), ("right",), ("left",), ("right",), ("left",), ("front", "left"),
                        ("front", "right")))  # fmt: skip
    sill = draw.pick((0.95, 0.95, 0.85, 1.05))
    head = min(height - 0.25, sill + draw.uniform(1.0, 1.35))
    windows = []
    for facing in places:
        size = draw.uniform(0.9, 1.7)
        reach = (0.35, width - 0.35) if facing == "front" else (depth - 2.6, depth - 0.35)
        centre = draw.uniform(reach[0] + size / 2, reach[1] - size / 2)
        windows.append(Window(facing, (centre - size / 2, centre + size / 2), (sill, head)))
    return tuple(windows)


def _floor(draw: Draws, palette: Palette) -> tuple[Colour, Texture]:
    kind = draw.unit()
    if kind < 0.58:
        wood = draw.pick(_WOODS)
        return wood, Texture("planks", draw.uniform(0.11, 0.24), strength=draw.uniform(0.4, 1.0))
    if kind < 0.78:
        tile = hsv(draw.pick((0.08, 0.1, 0.55)), draw.uniform(0.0, 0.35), draw.uniform(0.45, 0.92))
        other = mix(tile, draw.pick(((0.2, 0.2, 0.22), (0.9, 0.88, 0.84), palette.wall)), 0.8)
        size = draw.uniform(0.28, 0.55)
        return tile, Texture("tiles", size, other, draw.pick((0.0, 0.0, 1.0)))
    carpet = hsv(draw.unit(), draw.uniform(0.02, 0.35), draw.uniform(0.45, 0.85))
    return carpet, Texture("carpet", draw.uniform(0.7, 1.4), strength=0.8)


def _wallpaper(draw: Draws, palette: Palette) -> Texture | None:
    other = mix(palette.wall, draw.pick((_WHITE, palette.accent, palette.wood)), 0.35)
    kind = draw.unit()
    if kind < 0.78:
        return PLAIN
    if kind < 0.92:
        return Texture("stripes", draw.uniform(0.2, 0.5), other, 0.6)
    return Texture("dots", draw.uniform(0.25, 0.45), other, 0.7)


def _shell(
    draw: Draws,
    size: tuple[float, float, float],
    palette: Palette,
    windows: tuple[Window, ...],
    daylight: float,
) -> Shell:
    width, height, depth = size
    floor, texture = _floor(draw, palette)
    paper = _wallpaper(draw, palette)
    side = palette.wall if draw.chance(0.75) else mix(palette.wall, _WHITE, 0.6)
    faces = (
        Face([(0.0, 0.0, 0.0)], (0.0, 1.0, 0.0), floor, texture),
        Face([(0.0, height, 0.0)], (0.0, -1.0, 0.0), palette.ceiling),
        Face([(0.0, 0.0, depth)], (0.0, 0.0, -1.0), palette.wall, paper),
        Face([(0.0, 0.0, 0.0)], (1.0, 0.0, 0.0), side, paper if side == palette.wall else PLAIN),
        Face([(width, 0.0, 0.0)], (-1.0, 0.0, 0.0), side, paper if side == palette.wall else PLAIN),
    )
    warm = draw.uniform(0.0, 1.0)
    fill: Colour = (0.60 + 0.08 * warm, 0.60, 0.62 - 0.10 * warm)
    level = 0.34 + 0.26 * daylight
    lights = [
        Light((width * draw.uniform(0.15, 0.85), height * 0.85, depth - 4.2), fill, 3.0 * level),
        Light((width / 2, height - 0.35, depth * 0.55), (1.0, 0.86, 0.66), 1.15 - 0.75 * daylight),
    ]
    lights += [_window_light(window, size, daylight) for window in windows]
    suns = tuple(_suns(draw, windows, size, daylight))
    ambient = scale(fill, level)
    return Shell(
        *size, faces, ambient, tuple(lights), suns, draw.uniform(1.25, 1.7), draw.field(64, 64)
    )


def _window_light(window: Window, size: tuple[float, float, float], daylight: float) -> Light:
    middle = (window.along[0] + window.along[1]) / 2
    level = (window.levels[0] + window.levels[1]) / 2
    area = (window.along[1] - window.along[0]) * (window.levels[1] - window.levels[0])
    position, normal = {
        "front": ((middle, level, size[2] + 0.1), (0.0, 0.0, -1.0)),
        "right": ((-0.1, level, middle), (1.0, 0.0, 0.0)),
        "left": ((size[0] + 0.1, level, middle), (-1.0, 0.0, 0.0)),
    }[window.facing]
    colour = (0.92, 0.97, 1.05) if daylight > 0.9 else (1.05, 0.85, 0.62)
    return Light(position, colour, 0.85 * area * daylight, normal)


def _suns(draw: Draws, windows: tuple[Window, ...], size: Point, daylight: float) -> list[Sun]:
    sunny, slope, turn = draw.chance(0.5), draw.uniform(0.45, 0.95), draw.uniform(-0.7, 0.7)
    window = windows[0]
    if not sunny or daylight < 0.5:
        return []
    length = math.sqrt(1 + slope * slope + turn * turn)
    across, up, along = 1 / length, slope / length, turn / length
    colour = (1.5, 1.32, 1.0) if daylight > 0.9 else (1.3, 0.85, 0.45)
    pane = (*window.along, *window.levels)
    if window.facing == "front":
        return [Sun((along, up, across), colour, 2, size[2], pane)]
    if window.facing == "right":
        return [Sun((-across, up, along), colour, 0, 0.0, pane)]
    return [Sun((across, up, along), colour, 0, size[0], pane)]


def _hang_windows(draw: Draws, room: Room) -> None:
    sky = _sky(draw, room.daylight)
    drape = draw.pick((room.palette.second_cloth, room.palette.cloth, _LINEN, room.palette.accent))
    style = draw.pick(("curtains", "curtains", "bare", "blind"))
    glow = {1.0: 1.15, 0.75: 0.9}.get(room.daylight, 0.35)
    bars = draw.integer(1, 2), draw.integer(0, 2)
    for window in room.windows:
        _hang_window(room, window, sky, glow, bars)
        if style == "curtains":
            _curtains(room, window, drape)
        elif style == "blind":
            _blind(room, window, mix(_LINEN, drape, 0.4))


def _sky(draw: Draws, daylight: float) -> tuple[Colour, Colour, float]:
    ridge = draw.uniform(0.05, 0.45)
    if daylight > 0.9:
        zenith = mix((0.42, 0.64, 0.95), (0.85, 0.88, 0.92), draw.unit())
        return zenith, (0.93, 0.96, 1.0), ridge
    if daylight > 0.5:
        return (0.50, 0.55, 0.80), (1.0, 0.72, 0.45), ridge
    return (0.10, 0.14, 0.32), (0.25, 0.27, 0.45), ridge


def _hang_window(
    room: Room, window: Window, sky: tuple, glow: float, bars: tuple[int, int]
) -> None:
    frame, (low, high) = room.wall(window.facing, 0.0), window.levels
    s0, s1 = sorted(
        (_local(window.facing, window.along[0]), _local(window.facing, window.along[1]))
    )
    trim = room.palette.trim
    view = Texture("sky", 1.0, sky[1], sky[2], (low, high))
    frame.panel(None, (s0 - 0.09, s1 + 0.09), 0.005, (low - 0.06, high + 0.09), trim)
    frame.panel(None, (s0, s1), 0.01, (low, high), sky[0], view, glow)
    for k in range(1, bars[0] + 1):
        at = s0 + (s1 - s0) * k / (bars[0] + 1)
        frame.panel(None, (at - 0.025, at + 0.025), 0.012, (low, high), trim, PLAIN, 0.25)
    for k in range(1, bars[1] + 1):
        at = low + (high - low) * k / (bars[1] + 1)
        frame.panel(None, (s0, s1), 0.012, (at - 0.02, at + 0.02), trim, PLAIN, 0.25)
    frame.box((s0 - 0.12, s1 + 0.12), (0.0, 0.14), (low - 0.09, low - 0.04), trim)


def _curtains(room: Room, window: Window, colour: Colour) -> None:
    frame, (low, high) = room.wall(window.facing, 0.0), window.levels
    s0, s1 = sorted(
        (_local(window.facing, window.along[0]), _local(window.facing, window.along[1]))
    )
    part = 0.20 * (s1 - s0)
    bottom = low - 0.25
    folds = Texture("stripes", 0.11, scale(colour, 0.8), 1.0)
    for a, b in ((s0 - 0.16, s0 + part), (s1 - part, s1 + 0.16)):
        frame.box((a, b), (0.15, 0.21), (bottom, high + 0.14), colour, folds, 0.06)
    frame.box((s0 - 0.24, s1 + 0.24), (0.17, 0.20), (high + 0.14, high + 0.18), room.palette.metal)


def _blind(room: Room, window: Window, colour: Colour) -> None:
    frame, (low, high) = room.wall(window.facing, 0.0), window.levels
    s0, s1 = sorted(
        (_local(window.facing, window.along[0]), _local(window.facing, window.along[1]))
    )
    slats = Texture("bands", 0.09, scale(colour, 0.82), 1.0)
    frame.box(
        (s0 - 0.02, s1 + 0.02), (0.02, 0.06), (high - 0.4 * (high - low), high), colour, slats, 0.35
    )


def _local(facing: str, along: float) -> float:
    return -along if facing == "left" else along


def _skirting(room: Room) -> None:
    trim, width, depth = room.palette.trim, room.width, room.depth
    room.wall("front", 0.0).panel(None, (0.0, width), 0.01, (0.0, 0.09), trim)
    camera = room.scene.camera
    for side, x in (("right", 0.0), ("left", width)):  # from just before the camera's plane on
        across = camera.sin_yaw * (x - camera.position[0])
        start = camera.position[2] + (0.15 - across) / camera.cos_yaw
        span = (start, depth) if side == "right" else (-depth, -start)
        room.wall(side, 0.0).panel(None, span, 0.01, (0.0, 0.09), trim)
