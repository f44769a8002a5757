"""From faces to pixels: painter's order, near clipping and a vectorised scan-line rasteriser."""

from __future__ import annotations

import numpy as np

from stylegan_tl.data.procedural.scene import Camera, Face, Point, Scene

__all__ = ["cover", "ordered_faces", "paint_order", "rasterise"]

_NEAR = 0.1


def ordered_faces(scene: Scene) -> list[Face]:
    """Every face of the scene, from the first to paint to the last."""
    faces = list(scene.flat)
    if scene.parts:
        low = np.array([part.low for part in scene.parts])
        high = np.array([part.high for part in scene.parts])
        for k in paint_order(low, high, scene.camera.position):
            faces.extend(scene.parts[k].faces)
    return faces


def paint_order(low: np.ndarray, high: np.ndarray, eye: Point) -> list[int]:
    """Back-to-front order of axis-aligned boxes [n, 3], exact where they do not intersect.

    Two boxes are apart along some axis; the one on the far side of a plane between them can never
    hide the other. What is left (intersecting boxes, cycles) goes by distance.
    """
    count = len(low)
    first = np.zeros((count, count), bool)
    for k in range(3):
        gap = high[:, None, k] <= low[None, :, k] + 1e-6
        first |= gap & (eye[k] >= high[:, k] - 1e-6)[:, None]
        first |= (gap & (eye[k] <= low[:, k] + 1e-6)[None, :]).T
    offset = 0.5 * (low + high) - np.array(eye)
    distance = (offset * offset).sum(1)
    apart = first | first.T
    before = np.where(apart, first & ~first.T, distance[:, None] > distance[None, :])
    return _peeled(before.astype(np.float32), distance)


def _peeled(before: np.ndarray, distance: np.ndarray) -> list[int]:
    # Layer by layer, what nothing waits for; in a cycle, the farthest goes first.
    waiting = before.sum(0)
    order: list[int] = []
    while len(order) < len(before):
        ready = np.flatnonzero(waiting == 0)
        if not ready.size:
            ready = np.argmax(np.where(waiting >= 0, distance, -1.0))[None]
        order.extend(ready.tolist())
        waiting -= before[ready].sum(0)
        waiting[ready] = -1e9
    return order


def rasterise(camera: Camera, faces: list[Face], size: int, ids: np.ndarray, first: int) -> None:
    """Overpaint `ids` int32 [size * size] with `first + k` wherever face k is seen, in order."""
    counts = np.array([len(face.corners) for face in faces], np.int32)
    points = np.array([corner for face in faces for corner in face.corners])
    right, up, forward = camera.project(points)
    if forward.min() < _NEAR:
        right, up, forward, counts = _all_clipped(right, up, forward, counts)
    half = 0.5 * size
    column = (right / forward * camera.focal + 1) * half
    row = (1 + camera.shift - up / forward * camera.focal) * half
    cover(column, row, counts, size, ids, first)


def cover(
    column: np.ndarray, row: np.ndarray, counts: np.ndarray, size: int, ids: np.ndarray, first: int
) -> None:
    """Paint convex polygons, in order, into `ids` int32 [size * size]; pixel centres decide.

    `column` and `row` hold the corners of all polygons in pixels, `counts` how many each has.
    """
    key, left, right = _row_ends(column, row, counts, size)
    start = np.clip(np.ceil(left - 0.5), 0, size).astype(np.int32)
    length = np.clip(np.ceil(right - 0.5), 0, size).astype(np.int32) - start
    face, line = np.divmod(key, np.int32(size))
    total = np.cumsum(length, dtype=np.int32)
    pixel = np.repeat(start + line * np.int32(size) - total + length, length)
    pixel += np.arange(len(pixel), dtype=np.int32)
    ids[pixel] = np.repeat(face + np.int32(first), length)


def _row_ends(
    column: np.ndarray, row: np.ndarray, counts: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Every pixel row through a convex polygon meets one edge that goes down and one that goes up.
    stop = np.cumsum(counts)
    following = np.arange(1, len(column) + 1)
    following[stop - 1] = stop - counts
    face = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    next_row = row[following]
    rise = next_row - row
    slope = (column[following] - column) / np.where(rise == 0, 1.0, rise)
    top = np.clip(np.ceil(np.minimum(row, next_row) - 0.5), 0, size).astype(np.int32)
    bottom = np.clip(np.ceil(np.maximum(row, next_row) - 0.5), 0, size).astype(np.int32)
    ends, keys = np.zeros((2, len(counts) * size), np.float32), None
    for side, edges in enumerate((rise > 0, rise < 0)):
        edge = np.flatnonzero(edges & (bottom > top))
        length = bottom[edge] - top[edge]
        total = np.cumsum(length, dtype=np.int32)
        line = np.repeat(top[edge] - total + length, length)
        line += np.arange(len(line), dtype=np.int32)
        base = (column[edge] + (0.5 - row[edge]) * slope[edge]).astype(np.float32)
        key = np.repeat(face[edge] * np.int32(size), length) + line
        where = np.repeat(slope[edge].astype(np.float32), length) * line.astype(np.float32)
        ends[side, key] = where + np.repeat(base, length)
        keys = key if keys is None else keys
    keys = np.sort(keys)
    one, other = ends[0, keys], ends[1, keys]
    return keys, np.minimum(one, other), np.maximum(one, other)


def _all_clipped(
    right: np.ndarray, up: np.ndarray, forward: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # Sutherland and Hodgman 1974 against the near plane; a face behind it shrinks to a point.
    points = np.stack([right, up, forward], 1).tolist()
    kept: list = []
    sizes = []
    at = np.cumsum(counts)
    nearest = np.minimum.reduceat(forward, at - counts).tolist()
    for stop, count, low in zip(at.tolist(), counts.tolist(), nearest, strict=True):
        ring = points[stop - count : stop]
        ring = ring if low >= _NEAR else _clipped(ring) or [[0.0, 0.0, 1.0]]
        kept.extend(ring)
        sizes.append(len(ring))
    table = np.array(kept)
    return table[:, 0], table[:, 1], table[:, 2], np.array(sizes, np.int32)


def _clipped(ring: list[list[float]]) -> list[list[float]]:
    kept = []
    for k, a in enumerate(ring):
        b = ring[(k + 1) % len(ring)]
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            part = (_NEAR - a[2]) / (b[2] - a[2])
            kept.append([a[i] + (b[i] - a[i]) * part for i in range(3)])
    return kept
