"""Deferred shading: every pixel knows its face, so light is computed in world space, per pixel.

Light is linear; albedo is the square of sRGB and the result is stored as its square root (gamma 2).
Only +, -, *, / and sqrt are used, so that the picture is the same on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_tl.data.procedural.draws import Colour
from stylegan_tl.data.procedural.patterns import PATTERNS
from stylegan_tl.data.procedural.raster import ordered_faces, rasterise
from stylegan_tl.data.procedural.scene import Face, Point, Scene

__all__ = ["Light", "Shell", "Sun", "develop", "render_scene"]

_F = np.float32
_CONTACT = 0.35  # square of how far furniture darkens the room; beyond, the room stays as shared
_AXIS = {0: (2, 1), 1: (0, 2), 2: (0, 1)}


@dataclass(frozen=True)
class Light:
    """A soft light: a small area at `position`; with a normal it shines to that side only."""

    position: Point
    colour: Colour
    power: float
    normal: Point | None = None
    reach: float | None = None


@dataclass(frozen=True)
class Sun:
    """Sunlight through a pane (span along the wall, heights) in the wall `axis` = `plane`."""

    direction: Point
    colour: Colour
    axis: int
    plane: float
    pane: tuple[float, float, float, float]


@dataclass(frozen=True)
class Shell:
    """What bounds the room and fills it with light; shared by all domains."""

    width: float
    height: float
    depth: float
    faces: tuple[Face, ...]
    ambient: Colour
    lights: tuple[Light, ...]
    suns: tuple[Sun, ...]
    exposure: float
    noise: np.ndarray


def render_scene(shell: Shell, scene: Scene, size: int) -> np.ndarray:
    """Linear light of the scene, float32 [3, size, size]."""
    rays = scene.camera.rays(size)
    ids = _shell_ids(shell, scene, rays, size)
    faces = list(shell.faces) + ordered_faces(scene)
    rasterise(scene.camera, faces[len(shell.faces) :], size, ids, len(shell.faces))
    points, normals = _surface(scene, faces, ids, rays)
    colours = _table([face.colour for face in faces])
    albedo = np.take(colours * colours, ids, axis=1)
    glow = np.take(np.array([face.glow for face in faces], _F), ids)
    _apply_patterns(faces, ids, points, albedo, shell.noise)
    light = _illumination(shell, scene, points, normals)
    light *= _occlusion(shell, scene, ids, len(shell.faces) + len(scene.flat), points, normals)
    light *= 1 - np.minimum(glow, 1)
    light += glow
    return (albedo * light).reshape(3, size, size)


def develop(light: np.ndarray, exposure: float) -> np.ndarray:
    """Linear light to values in [0, 1]: Reinhard et al. 2002 with a white point, then gamma 2."""
    bright = light * _F(exposure)
    return np.sqrt(np.clip(bright * (1 + bright * _F(1 / 7.0)) / (1 + bright * _F(0.8)), 0, 1))


def _table(rows: list) -> np.ndarray:
    return np.ascontiguousarray(np.array(rows, _F).T)


def _shell_ids(shell: Shell, scene: Scene, rays: np.ndarray, size: int) -> np.ndarray:
    # Faces 0..4 are floor, ceiling, back, left and right; the nearest plane along the ray is seen.
    # A column of pixels shares its plan view and a row its slope, so the two are found apart.
    eye, (right, up, forward) = scene.camera.position, rays.reshape(3, size, size)
    right, up, forward = right[0], up[:, 0], forward[0]
    across = np.where(right > 0, _F(shell.width - eye[0]), _F(-eye[0]))
    across = across / np.where(np.abs(right) < 1e-6, _F(1e-6), right)
    ahead = _F(shell.depth - eye[2]) / np.maximum(forward, _F(1e-6))
    level = np.where(up > 0, _F(shell.height - eye[1]), _F(-eye[1]))
    level = level / np.where(np.abs(up) < 1e-6, _F(1e-6), up)
    upright = np.where(across < ahead, np.where(right > 0, 4, 3), 2).astype(np.int32)
    lying = np.where(up > 0, 1, 0).astype(np.int32)
    nearest = level[:, None] < np.minimum(across, ahead)[None, :]
    return np.where(nearest, lying[:, None], upright[None, :]).reshape(-1)


def _surface(
    scene: Scene, faces: list[Face], ids: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # World position and unit normal of every pixel, float32 [3, n] each.
    eye = np.array(scene.camera.position, _F)
    normal = _table([face.normal for face in faces])
    corner = _table([face.corners[0] for face in faces])
    offset = ((corner - eye[:, None]) * normal).sum(0)
    normals = np.take(normal, ids, axis=1)
    slant = normals[0] * rays[0] + normals[1] * rays[1] + normals[2] * rays[2]
    points = rays * (np.take(offset, ids) / np.where(slant == 0, _F(1e-6), slant))
    points += eye[:, None]
    for k, face in enumerate(faces):
        if face.ball:
            _round(face, np.flatnonzero(ids == k), points, normals)
    return points, normals


def _round(face: Face, where: np.ndarray, points: np.ndarray, normals: np.ndarray) -> None:
    x, y, z, radius = face.ball  # type: ignore[misc]
    out = (points[:, where] - np.array([[x], [y], [z]], _F)) / _F(radius)
    left = np.sqrt(np.maximum(1 - (out * out).sum(0), 0))
    normals[:, where] = out + left * np.array(face.normal, _F)[:, None]


def _apply_patterns(
    faces: list[Face],
    ids: np.ndarray,
    points: np.ndarray,
    albedo: np.ndarray,
    noise: np.ndarray,
) -> None:
    kinds: dict[tuple[int, int], tuple] = {}
    which = np.zeros(len(faces), np.int32)
    for k, face in enumerate(faces):
        if face.texture is not None:
            texture, axis = face.texture, _main_axis(face.normal)
            entry = kinds.setdefault((id(texture), axis), (len(kinds) + 1, texture, axis))
            which[k] = entry[0]
    if not kinds:
        return
    seen = np.take(which, ids)
    for number, texture, axis in kinds.values():
        where = np.flatnonzero(seen == number)
        if where.size:
            u, v = (points[k].take(where) for k in _AXIS[axis])
            other = np.array(texture.other, _F)[:, None]
            plain = albedo.take(where, axis=1)
            painted = PATTERNS[texture.kind](u, v, plain, other * other, texture, noise)
            for k in range(3):
                albedo[k][where] = painted[k]


def _main_axis(normal: Point) -> int:
    return max(range(3), key=lambda k: abs(normal[k]))


def _illumination(
    shell: Shell, scene: Scene, points: np.ndarray, normals: np.ndarray
) -> np.ndarray:
    ambient = np.array(shell.ambient, _F)[:, None]
    light = ambient * (_F(0.82) + _F(0.18) * normals[1] - _F(0.10) * normals[0])
    for lamp in shell.lights:
        _add_light(light, lamp, points, normals)
    for position, colour, power in scene.lamps:
        _add_light(light, Light(position, colour, power, None, 1.9), points, normals)
    for sun in shell.suns:
        _add_sun(light, sun, points, normals)
    return light


def _add_light(light: np.ndarray, lamp: Light, points: np.ndarray, normals: np.ndarray) -> None:
    x, y, z = (_F(lamp.position[k]) - points[k] for k in range(3))
    square = x * x
    square += y * y
    square += z * z
    square += _F(0.12)
    facing = x * normals[0]
    facing += y * normals[1]
    facing += z * normals[2]
    length = np.sqrt(square)
    facing += _F(0.25) * length
    strength = np.maximum(facing, 0, out=facing)
    strength /= square
    if lamp.normal is not None:
        out = -(x * _F(lamp.normal[0]) + y * _F(lamp.normal[1]) + z * _F(lamp.normal[2]))
        strength *= np.maximum(out, 0) / square * _F(1.6) + _F(0.05)
    else:
        strength /= length
    if lamp.reach is not None:
        fade = np.maximum(1 - square / _F(lamp.reach * lamp.reach), 0)
        strength *= fade * fade
    strength *= _F(lamp.power)
    for k in range(3):
        light[k] += strength * _F(lamp.colour[k])


def _add_sun(light: np.ndarray, sun: Sun, points: np.ndarray, normals: np.ndarray) -> None:
    direction = [_F(part) for part in sun.direction]
    facing = sum(direction[k] * normals[k] for k in range(3))
    far = (_F(sun.plane) - points[sun.axis]) / direction[sun.axis]
    along = points[2 - sun.axis] + far * direction[2 - sun.axis]
    height = points[1] + far * direction[1]
    a0, a1, y0, y1 = (_F(edge) for edge in sun.pane)
    across, above = (along - a0) / (a1 - a0), (height - y0) / (y1 - y0)
    inside = (np.abs(across - _F(0.5)) < 0.5) & (np.abs(above - _F(0.5)) < 0.5)
    inside &= (np.abs(across - _F(0.5)) > 0.03) & (facing > 0) & (far > 0.02)
    where = np.flatnonzero(inside)
    for k in range(3):
        light[k, where] += facing[where] * _F(sun.colour[k])


def _occlusion(
    shell: Shell,
    scene: Scene,
    ids: np.ndarray,
    flat: int,
    points: np.ndarray,
    normals: np.ndarray,
) -> np.ndarray:
    # Corners of the room darken everything; furniture darkens the floor and the walls near it.
    shade = _corner(points[1], np.abs(normals[1]), 0.10, 0.45)
    shade *= _corner(_F(shell.height) - points[1], np.abs(normals[1]), 0.12, 0.30)
    sides = np.minimum(points[0], _F(shell.width) - points[0])
    shade *= _corner(np.maximum(sides, 0), np.abs(normals[0]), 0.15, 0.32)
    shade *= _corner(np.maximum(_F(shell.depth) - points[2], 0), np.abs(normals[2]), 0.15, 0.32)
    if scene.occluders:
        where = np.flatnonzero(ids < flat)
        near = points[:, where]
        factor = np.ones(len(where), _F)
        for low, high in scene.occluders:
            factor *= _contact(low, high, near)
        shade[where] *= factor
    return shade


def _corner(distance: np.ndarray, along: np.ndarray, width: float, depth: float) -> np.ndarray:
    return 1 - (1 - along) * (_F(depth * width) / (distance + _F(width)))


def _contact(low: Point, high: Point, points: np.ndarray) -> np.ndarray:
    square = np.zeros(points.shape[1], _F)
    for k in range(3):
        outside = points[k] - _F((low[k] + high[k]) / 2)
        np.abs(outside, out=outside)
        outside -= _F((high[k] - low[k]) / 2)
        np.maximum(outside, 0, out=outside)
        outside *= outside
        square += outside
    near = np.maximum(1 - square * _F(1 / _CONTACT), 0)
    near *= near
    near *= near
    return 1 - _F(0.55) * near
