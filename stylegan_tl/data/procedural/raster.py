"""From faces to pixels: painter's order, near clipping and a vectorised scan-line rasteriser."""

from __future__ import annotations

import numpy as np

from stylegan_tl.data.procedural.scene import Camera, Face, Scene

__all__ = ["cover", "ordered_faces", "paint_order", "rasterise"]

_NEAR = 0.1
_CORNERS = 14


def ordered_faces(scene: Scene) -> list[Face]:
    """Every face of the scene, from the first to paint to the last."""
    faces = list(scene.flat)
    if scene.parts:
        low = np.array([part.low for part in scene.parts])
        high = np.array([part.high for part in scene.parts])
        for k in paint_order(low, high, np.array(scene.camera.position)):
            faces.extend(scene.parts[k].faces)
    return faces


def paint_order(low: np.ndarray, high: np.ndarray, eye: np.ndarray) -> list[int]:
    """Back-to-front order of axis-aligned boxes [n, 3], exact where they do not intersect.

    Two boxes are apart along some axis; the one on the far side of a plane between them can never
    hide the other. What is left (intersecting boxes, cycles) goes by distance.
    """
    count = len(low)
    gap = high[:, None] <= low[None, :] + 1e-6
    behind = gap & (eye >= high - 1e-6)[:, None]
    first = behind.any(-1) | (gap & (eye <= low + 1e-6)[None, :]).transpose(1, 0, 2).any(-1)
    offset = 0.5 * (low + high) - eye
    distance = (offset * offset).sum(-1)
    apart = first | first.T
    before = np.where(apart, first & ~first.T, distance[:, None] > distance[None, :])
    waiting = before.sum(0)
    alive = np.ones(count, bool)
    order: list[int] = []
    while len(order) < count:
        ready = np.flatnonzero(alive & (waiting == 0))
        if not ready.size:
            ready = np.flatnonzero(alive)
            ready = ready[np.argmax(distance[ready])][None]
        order.extend(ready.tolist())
        alive[ready] = False
        waiting = waiting - before[ready].sum(0)
    return order


def rasterise(camera: Camera, faces: list[Face], size: int, ids: np.ndarray, first: int) -> None:
    """Overpaint `ids` int32 [size * size] with `first + k` wherever face k is seen, in order."""
    if not faces:
        return
    points = np.array([_padded(face.corners) for face in faces])
    right, up, forward = camera.project(points)
    for k in np.flatnonzero((forward < _NEAR).any(1)):
        right[k], up[k], forward[k] = _clipped(right[k], up[k], forward[k])
    half = 0.5 * size
    column = (right / forward * camera.focal + 1) * half
    row = (1 + camera.shift - up / forward * camera.focal) * half
    cover(column, row, size, ids, first)


def cover(column: np.ndarray, row: np.ndarray, size: int, ids: np.ndarray, first: int) -> None:
    """Paint convex polygons given by corners [F, K] in pixels; pixel centres decide."""
    left, right = _row_ends(column, row, size)
    start = np.clip(np.ceil(left - 0.5), 0, size).astype(np.int32)
    count = np.clip(np.ceil(right - 0.5), 0, size).astype(np.int32) - start
    face, line = np.nonzero(count > 0)
    count, start = count[face, line], start[face, line] + line.astype(np.int32) * size
    before = np.cumsum(count) - count
    pixel = np.repeat(start - before, count) + np.arange(int(count.sum()))
    ids[pixel] = np.repeat(face + first, count)


def _row_ends(column: np.ndarray, row: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    # Every pixel row through a convex polygon meets one edge that goes down and one that goes up.
    next_row = np.roll(row, -1, 1)
    slope = (np.roll(column, -1, 1) - column) / np.where(next_row == row, 1.0, next_row - row)
    top = np.clip(np.ceil(np.minimum(row, next_row) - 0.5), 0, size).astype(np.int32)
    bottom = np.clip(np.ceil(np.maximum(row, next_row) - 0.5), 0, size).astype(np.int32)
    face, edge = np.nonzero(bottom > top)
    top, count = top[face, edge], (bottom - top)[face, edge]
    before = np.cumsum(count) - count
    line = np.repeat(top - before, count) + np.arange(int(count.sum()))
    many = np.repeat(np.arange(len(face)), count)
    face, edge = face[many], edge[many]
    where = column[face, edge] + (line + 0.5 - row[face, edge]) * slope[face, edge]
    ends = np.zeros((2, *(len(column), size)))
    ends[(next_row < row)[face, edge].astype(np.int8), face, line] = where
    return ends.min(0), ends.max(0)


def _padded(corners: list) -> list:
    return corners + [corners[-1]] * (_CORNERS - len(corners))


def _clipped(right: np.ndarray, up: np.ndarray, forward: np.ndarray) -> tuple:
    # Sutherland and Hodgman 1974 against the near plane.
    points = np.stack([right, up, forward], 1)
    kept = []
    for a, b in zip(points, np.roll(points, -1, 0)):  # noqa: B905
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            kept.append(a + (b - a) * ((_NEAR - a[2]) / (b[2] - a[2])))
    kept = kept or [np.array([0.0, 0.0, 1.0])]
    return tuple(np.array((kept + [kept[-1]] * _CORNERS)[:_CORNERS]).T)
