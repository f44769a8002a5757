"""Patterns on surfaces: planks, tiles, stripes, checks, wood, carpet, bricks, sky and fire.

Each takes surface coordinates u, v [n] in metres, the albedo [3, n], a second albedo [3, 1], its
`Texture` and a table of noise [64, 64], and returns the new albedo [3, n].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stylegan_tl.data.procedural.scene import Texture

__all__ = ["PATTERNS"]

_F = np.float32
Array = np.ndarray
Pattern = Callable[[Array, Array, Array, Array, Texture, Array], Array]


def _cells(x: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    scaled = x * _F(1 / size)
    whole = np.floor(scaled)
    return whole.astype(np.int32), scaled - whole


def _look(noise: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.take(noise, (row & 63) * 64 + (column & 63))


def _blend(albedo: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return albedo + (other - albedo) * weight


def _planks(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    row, across = _cells(u, texture.size)
    length = 6.0 * texture.size
    column, along = _cells(v + length * _look(noise, row, row * 7), length)
    tone = _look(noise, row, column) - _F(0.5)
    gap = (across < 0.07) | (along < 0.015)
    return albedo * (1 + _F(0.7 * texture.strength) * tone) * np.where(gap, _F(0.62), _F(1))


def _tiles(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    column, across = _cells(u, texture.size)
    row, along = _cells(v, texture.size)
    odd = ((row + column) & 1).astype(_F) * _F(texture.strength)
    tone = 1 + _F(0.12) * (_look(noise, row, column) - _F(0.5))
    grout = (across < 0.07) | (along < 0.07)
    return _blend(albedo, other, odd) * tone * np.where(grout, _F(0.72), _F(1))


def _stripes(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    return _blend(albedo, other, (_cells(u, texture.size)[1] < 0.5) * _F(texture.strength))


def _bands(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    return _blend(albedo, other, (_cells(v, texture.size)[1] < 0.5) * _F(texture.strength))


def _checks(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    across, along = _cells(u, texture.size)[1] < 0.45, _cells(v, texture.size)[1] < 0.45
    weight = (across.astype(_F) + along.astype(_F)) * _F(0.5 * texture.strength)
    return _blend(albedo, other, weight)


def _dots(u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array) -> Array:
    row, along = _cells(v, texture.size)
    across = _cells(u + (row & 1) * _F(0.5 * texture.size), texture.size)[1]
    x, y = across - _F(0.5), along - _F(0.5)
    return _blend(albedo, other, (x * x + y * y < 0.07) * _F(texture.strength))


def _wood(u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array) -> Array:
    row = _cells(v, 0.06 * texture.size)[0]
    column = _cells(u, 0.6 * texture.size)[0]
    tone = _look(noise, row, column) - _F(0.5)
    return albedo * (1 + _F(0.4 * texture.strength) * tone)


def _carpet(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    fine = _look(noise, _cells(v, 0.05 * texture.size)[0], _cells(u, 0.05 * texture.size)[0])
    broad = _look(noise, _cells(v, 0.4 * texture.size)[0], _cells(u, 0.4 * texture.size)[0])
    return albedo * (1 + _F(0.35 * texture.strength) * (fine + _F(0.3) * broad - _F(0.65)))


def _bricks(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    row, along = _cells(v, texture.size)
    column, across = _cells(u + (row & 1) * _F(texture.size), 2 * texture.size)
    tone = 1 + _F(0.5) * (_look(noise, row, column) - _F(0.5))
    mortar = (along < 0.14) | (across < 0.07)
    return np.where(mortar, other, albedo * tone)


def _sky(u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array) -> Array:
    # From the horizon (`other`) up to the zenith (albedo), with hills and tree tops below.
    low, high = texture.extent
    height = (v - _F(low)) / _F(high - low)
    cell, part = _cells(u, 0.35)
    first, second = _look(noise, cell, cell * 3), _look(noise, cell + 1, cell * 3 + 3)
    ridge = _F(0.12) + _F(texture.strength) * (first + (second - first) * part)
    green = np.array([[0.22], [0.36], [0.16]], _F) * (_F(0.7) + first)
    weight = np.minimum(np.maximum(height, 0), 1)
    return np.where(height < ridge, green * other, _blend(other, albedo, weight))


def _fire(u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array) -> Array:
    low, high = texture.extent
    height = (v - _F(low)) / _F(high - low)
    cell, part = _cells(u, 0.11)
    first, second = _look(noise, cell, cell * 5), _look(noise, cell + 1, cell * 5 + 5)
    flame = _F(0.35) + _F(0.6) * (first + (second - first) * part)
    weight = np.minimum(np.maximum((flame - height) * 4, 0), 1)
    return _blend(other, albedo * np.maximum(1 - height, _F(0.3)), weight)


def _canvas(
    u: Array, v: Array, albedo: Array, other: Array, texture: Texture, noise: Array
) -> Array:
    # A picture on a wall: blocks of both colours.
    tone = _look(noise, _cells(v, 0.5 * texture.size)[0], _cells(u, texture.size)[0])
    return _blend(albedo, other, tone)


PATTERNS: dict[str, Pattern] = {
    "planks": _planks,
    "tiles": _tiles,
    "stripes": _stripes,
    "bands": _bands,
    "checks": _checks,
    "dots": _dots,
    "wood": _wood,
    "carpet": _carpet,
    "bricks": _bricks,
    "sky": _sky,
    "fire": _fire,
    "canvas": _canvas,
}
