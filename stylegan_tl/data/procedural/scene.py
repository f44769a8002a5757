"""Convex solids in a room, seen in perspective: what there is to draw.

World axes: x to the right in [0, width], y up in [0, height], z away from the viewer, up to depth;
units are metres. Only +, -, *, / and sqrt touch coordinates, which IEEE 754 rounds exactly: the
same picture on every platform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from stylegan_tl.data.procedural.draws import Colour

__all__ = ["PLAIN", "Camera", "Face", "Frame", "Part", "Point", "Scene", "Span", "Texture"]

_SIDES = 12
_RING = tuple(
    (round(math.cos(2 * math.pi * k / _SIDES), 9), round(math.sin(2 * math.pi * k / _SIDES), 9))
    for k in range(_SIDES)
)
_INNER = 0.9659258  # the distance of a side of the unit ring from its centre
_MIDDLES = tuple(
    (
        round(math.cos(math.pi * (2 * k + 1) / _SIDES), 9),
        round(math.sin(math.pi * (2 * k + 1) / _SIDES), 9),
    )
    for k in range(_SIDES)
)
Point = tuple[float, float, float]
Span = tuple[float, float]


@dataclass(frozen=True)
class Texture:
    """A pattern laid over a face in world coordinates; see `shade.TEXTURES` for the kinds."""

    kind: str
    size: float = 1.0
    other: Colour = (0.0, 0.0, 0.0)
    strength: float = 1.0
    extent: tuple[float, float] = (0.0, 1.0)


PLAIN: Texture | None = None


@dataclass(frozen=True)
class Camera:
    """A camera that turns about the vertical only; `shift` lowers its picture like a shift lens."""

    position: Point
    sin_yaw: float
    cos_yaw: float
    focal: float
    shift: float

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Camera coordinates (right, up, forward) of world points [..., 3]."""
        x, y, z = (points[..., k] - self.position[k] for k in range(3))
        return self.cos_yaw * x - self.sin_yaw * z, y, self.sin_yaw * x + self.cos_yaw * z

    def rays(self, size: int) -> np.ndarray:
        """Ray directions float32 [3, size * size], of unit forward part, through pixel centres."""
        at = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1).astype(np.float32)
        right = (at / np.float32(self.focal))[None, :]
        up = ((self.shift - at) / np.float32(self.focal)).astype(np.float32)[:, None]
        out = np.empty((3, size, size), np.float32)
        out[0] = right * np.float32(self.cos_yaw) + np.float32(self.sin_yaw)
        out[1] = up
        out[2] = np.float32(self.cos_yaw) - right * np.float32(self.sin_yaw)
        return out.reshape(3, -1)


@dataclass
class Face:
    """A convex polygon: its corners, its outward normal and what it is made of."""

    corners: list[Point]
    normal: Point
    colour: Colour
    texture: Texture | None = PLAIN
    glow: float = 0.0
    ball: tuple[float, float, float, float] | None = None


@dataclass
class Part:
    """A convex solid: its bounding box and the faces and patches to paint together."""

    low: Point
    high: Point
    faces: list[Face] = field(default_factory=list)


class Scene:
    """The solids of a picture, the surfaces that lie flat on the room, lamps and occluders."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.flat: list[Face] = []
        self.parts: list[Part] = []
        self.lamps: list[tuple[Point, Colour, float]] = []
        self.occluders: list[tuple[Point, Point]] = []

    def decal(
        self,
        corners: list[Point],
        normal: Point,
        colour: Colour,
        texture: Texture | None = PLAIN,
        glow: float = 0.0,
        part: Part | None = None,
    ) -> None:
        """A flat patch on the room itself, or on the last face of a part that it belongs to."""
        face = Face(corners, normal, colour, texture, glow)
        if self._faces_viewer(face):
            (self.flat if part is None else part.faces).append(face)

    def box(
        self,
        low: Point,
        high: Point,
        colour: Colour,
        texture: Texture | None = PLAIN,
        glow: float = 0.0,
        top: tuple[Colour, Texture | None] | None = None,
    ) -> Part:
        """An axis-aligned box; only the faces towards the viewer are kept."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        eye = self.camera.position
        part = Part(low, high)
        add = part.faces.append
        if eye[0] < x0 or eye[0] > x1:
            x, side = (x0, -1.0) if eye[0] < x0 else (x1, 1.0)
            quad = [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)]
            add(Face(quad, (side, 0.0, 0.0), colour, texture, glow))
        if eye[1] < y0 or eye[1] > y1:
            y, side = (y0, -1.0) if eye[1] < y0 else (y1, 1.0)
            quad = [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]
            paint = top if top and side > 0 else (colour, texture)
            add(Face(quad, (0.0, side, 0.0), paint[0], paint[1], glow))
        if eye[2] < z0 or eye[2] > z1:
            z, side = (z0, -1.0) if eye[2] < z0 else (z1, 1.0)
            quad = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
            add(Face(quad, (0.0, 0.0, side), colour, texture, glow))
        self.parts.append(part)
        return part

    def solid(self, faces: list[Face]) -> Part:
        """Any convex solid from its faces; the faces turned away are dropped."""
        points = [corner for face in faces for corner in face.corners]
        columns = tuple(zip(*points, strict=True))
        low, high = tuple(map(min, columns)), tuple(map(max, columns))
        part = Part(low, high, [face for face in faces if self._faces_viewer(face)])  # type: ignore[arg-type]
        self.parts.append(part)
        return part

    def prism(
        self,
        centre: tuple[float, float],
        levels: tuple[float, float],
        radii: tuple[float, float],
        colour: Colour,
        texture: Texture | None = PLAIN,
        glow: float = 0.0,
        cap: Colour | None = None,
    ) -> Part:
        """An upright twelve-sided cone stump: lamp shades, pots, round tables, legs."""
        (cx, cz), (y0, y1), (r0, r1) = centre, levels, radii
        eye = self.camera.position
        below = [(cx + r0 * c, y0, cz + r0 * s) for c, s in _RING]
        above = [(cx + r1 * c, y1, cz + r1 * s) for c, s in _RING]
        lean = (r0 - r1) / (y1 - y0)
        length = math.sqrt(1 + lean * lean)
        dx, dy, dz = eye[0] - cx, eye[1] - y0, eye[2] - cz
        part = self._new_part((cx, y0, cz), max(r0, r1), y1)
        for k, (c, s) in enumerate(_MIDDLES):
            if c * dx + lean * dy + s * dz > r0 * _INNER:
                quad = [below[k], below[k - 11], above[k - 11], above[k]]
                normal = (c / length, lean / length, s / length)
                part.faces.append(Face(quad, normal, colour, texture, glow))
        if eye[1] > y1:
            part.faces.append(Face(above, (0.0, 1.0, 0.0), cap or colour, PLAIN, glow))
        elif eye[1] < y0:
            part.faces.append(Face(below, (0.0, -1.0, 0.0), colour, PLAIN, glow))
        return part

    def ball(self, centre: Point, radius: float, colour: Colour, glow: float = 0.0) -> Part:
        """A sphere, drawn as a disc towards the viewer with the normals of a sphere."""
        right = (self.camera.cos_yaw, 0.0, -self.camera.sin_yaw)
        x, y, z = centre
        disc = [
            (x + radius * c * right[0], y + radius * s, z + radius * c * right[2]) for c, s in _RING
        ]
        normal = (-self.camera.sin_yaw, 0.0, -self.camera.cos_yaw)
        face = Face(disc, normal, colour, PLAIN, glow, (x, y, z, radius))
        part = self._new_part((x, y - radius, z), radius, y + radius)
        part.faces.append(face)
        return part

    def occlude(self, low: Point, high: Point) -> None:
        """Let the box [low, high] darken the floor and the walls beside it."""
        self.occluders.append((low, high))

    def _new_part(self, foot: Point, radius: float, top: float) -> Part:
        x, y, z = foot
        part = Part((x - radius, y, z - radius), (x + radius, top, z + radius))
        self.parts.append(part)
        return part

    def _faces_viewer(self, face: Face) -> bool:
        (ex, ey, ez), (x, y, z) = self.camera.position, face.corners[0]
        nx, ny, nz = face.normal
        return (ex - x) * nx + (ey - y) * ny + (ez - z) * nz > 0


@dataclass(frozen=True)
class Frame:
    """A place along a wall: `s` runs along it, `t` out of it into the room, `y` up.

    `facing` is the side that the furniture looks to: "front" (towards the viewer), "right", "left"
    or "back".
    """

    scene: Scene
    x: float
    z: float
    facing: str = "front"

    def point(self, s: float, t: float, y: float) -> Point:
        """World point of the local one."""
        if self.facing == "front":
            return self.x + s, y, self.z - t
        if self.facing == "back":
            return self.x - s, y, self.z + t
        if self.facing == "right":
            return self.x + t, y, self.z + s
        return self.x - t, y, self.z - s

    def span(self, s: Span, t: Span, y: Span) -> tuple[Point, Point]:
        """World corners (low, high) of a local box."""
        first, second = self.point(s[0], t[0], y[0]), self.point(s[1], t[1], y[1])
        low = tuple(map(min, first, second))
        high = tuple(map(max, first, second))
        return low, high  # type: ignore[return-value]

    def box(
        self,
        s: Span,
        t: Span,
        y: Span,
        colour: Colour,
        texture: Texture | None = PLAIN,
        glow: float = 0.0,
        top: tuple[Colour, Texture | None] | None = None,
    ) -> Part:
        """A box in local coordinates."""
        return self.scene.box(*self.span(s, t, y), colour, texture, glow, top)

    def occlude(self, s: Span, t: Span, y: Span) -> None:
        """`Scene.occlude` in local coordinates."""
        self.scene.occlude(*self.span(s, t, y))

    def normal(self) -> Point:
        """The direction that the furniture looks to."""
        return {
            "front": (0.0, 0.0, -1.0),
            "back": (0.0, 0.0, 1.0),
            "right": (1.0, 0.0, 0.0),
            "left": (-1.0, 0.0, 0.0),
        }[self.facing]

    def panel(
        self,
        part: Part | None,
        s: Span,
        t: float,
        y: Span,
        colour: Colour,
        texture: Texture | None = PLAIN,
        glow: float = 0.0,
    ) -> None:
        """An upright patch that looks to the front: doors, screens, pictures."""
        quad = [
            self.point(s[0], t, y[0]),
            self.point(s[1], t, y[0]),
            self.point(s[1], t, y[1]),
            self.point(s[0], t, y[1]),
        ]
        self.scene.decal(quad, self.normal(), colour, texture, glow, part)

    def sheet(
        self,
        part: Part | None,
        s: Span,
        t: Span,
        y: float,
        colour: Colour,
        texture: Texture | None = PLAIN,
    ) -> None:
        """A level patch that looks up: rugs, hobs, sinks."""
        corners = ((s[0], t[0]), (s[1], t[0]), (s[1], t[1]), (s[0], t[1]))
        quad = [self.point(a, b, y) for a, b in corners]
        self.scene.decal(quad, (0.0, 1.0, 0.0), colour, texture, 0.0, part)

    def cushion(
        self,
        s: Span,
        t: Span,
        y: Span,
        colour: Colour,
        texture: Texture | None = PLAIN,
    ) -> Part:
        """A soft box: an eight-sided profile across (t, y), extended along s."""
        (t0, t1), (y0, y1) = t, y
        dt, dy = 0.28 * (t1 - t0), 0.28 * (y1 - y0)
        ring = [
            (t0 + dt, y0), (t1 - dt, y0), (t1, y0 + dy), (t1, y1 - dy),
            (t1 - dt, y1), (t0 + dt, y1), (t0, y1 - dy), (t0, y0 + dy),
        ]  # fmt: skip
        faces = []
        for k in range(8):
            (ta, ya), (tb, yb) = ring[k], ring[(k + 1) % 8]
            corners = [self.point(s[0], ta, ya), self.point(s[1], ta, ya)]
            corners += [self.point(s[1], tb, yb), self.point(s[0], tb, yb)]
            out = self._direction(0.0, yb - ya, -(tb - ta))
            faces.append(Face(corners, out, colour, texture))
        for side, sign in ((s[0], -1.0), (s[1], 1.0)):
            corners = [self.point(side, ta, ya) for ta, ya in ring]
            faces.append(Face(corners, self._direction(sign, 0.0, 0.0), colour, texture))
        return self.scene.solid(faces)

    def _direction(self, s: float, t: float, y: float) -> Point:
        length = math.sqrt(s * s + t * t + y * y)
        origin, tip = self.point(0.0, 0.0, 0.0), self.point(s / length, t / length, y / length)
        return tip[0] - origin[0], tip[1] - origin[1], tip[2] - origin[2]
