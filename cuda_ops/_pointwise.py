"""Launching the pointwise CUDA kernels (csrc/pointwise.cuh): layouts, tiles, second stages of sums.

`v = scale[n, c] * y + noise[n, p] + b[c]`, `z = clamp(gain * act(v))`, with the first and second
gradients, each one pass over the tensors.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_ops._native import launch

__all__ = ["Curve", "Operands", "grad", "in_pixels", "second", "value"]

_THREADS = 256  # as in csrc/pointwise.cuh
_BLOCKS = 2048  # enough to fill any GPU several times over


class Curve(NamedTuple):
    """`gain * act(v)` clamped to `[-limit, limit]`; `kind` as in csrc/activation.cuh."""

    kind: int
    slope: float
    gain: float
    limit: float


class Operands(NamedTuple):
    """What meets `y [N, C, H, W]`: scale `[N, C]`, noise `[N or 1, 1, H, W]`, b `[C]`."""

    scale: Tensor | None
    noise: Tensor | None
    b: Tensor | None


def in_pixels(y: Tensor) -> bool:
    """Say which layout serves `y`: channels last, or (False) contiguous; no copy if it has one."""
    if y.is_contiguous():
        return False
    if y.is_contiguous(memory_format=torch.channels_last):
        return True
    return y.shape[1] > 1 and y.stride(1) < y.stride(3)


def value(y: Tensor, operands: Operands, curve: Curve) -> Tensor:
    """Return `z`, laid out as `y`."""
    y, pixels = _laid_out(y, in_pixels(y))
    operands = _operands(operands, y.dtype)
    z = torch.empty_like(y)
    if y.numel():
        cut = _cut(y, pixels, (operands,), (y, z))
        launch("pointwise", y, y, *operands, z, *cut.arguments, curve.kind, *curve[1:])
    return z


def grad(
    g: Tensor,
    y: Tensor | None,
    operands: Operands,
    curve: Curve,
    mask: list[bool],
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of y and of the operands; those that `mask` leaves out are empty.

    `y` is the input; or, if `from_output`, `z` (piecewise linear, no clamp, gain above zero); or
    None where the slope is the same everywhere.
    """
    like = g if y is None else y
    shape, dtypes = _shapes(like, operands), _dtypes(operands)
    g, pixels = _laid_out(g, in_pixels(like))
    y = None if y is None else _laid_out(y, pixels)[0]
    dy = torch.empty_like(g)
    operands = _operands(operands, g.dtype)
    cut = _cut(g, pixels, (operands,), (g, y, dy))
    sums = _Sums(cut, g, *mask)
    if g.numel():
        launch(
            "pointwise_grad", g, g, y, *operands, dy, *sums.tensors, *cut.arguments, curve.kind,
            from_output, *curve[1:],
        )  # fmt: skip
    return dy, *sums.finished(shape, dtypes)


def second(
    h: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    g: Tensor,
    y: Tensor | None,
    operands: Operands,
    curve: Curve,
    mask: list[bool],
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Differentiate `grad`: return the gradients of g, y, scale, noise, b.

    `h` are the cotangents of `grad`'s four results. `mask` asks for those of y, scale, noise, b;
    the others are empty.
    """
    like = g if y is None else y
    shape, dtypes = _shapes(like, operands), _dtypes(operands)
    g, pixels = _laid_out(g, in_pixels(like))
    hy, y = (None if t is None else _laid_out(t, pixels)[0] for t in (h[0], y))
    operands, tangents = _operands(operands, g.dtype), _operands(Operands(*h[1:]), g.dtype)
    dg, gy = torch.empty_like(g), torch.empty_like(g) if mask[0] else None
    cut = _cut(g, pixels, (operands, tangents), (hy, g, y, dg, gy))
    sums = _Sums(cut, g, *mask[1:])
    if g.numel():
        launch(
            "pointwise_second", g, hy, *tangents, g, y, *operands, dg, gy, *sums.tensors,
            *cut.arguments, curve.kind, from_output, *curve[1:],
        )  # fmt: skip
    return dg, g.new_empty(0) if gy is None else gy, *sums.finished(shape, dtypes)


def _laid_out(y: Tensor, pixels: bool) -> tuple[Tensor, bool]:
    """Return `y` in the layout, copied if need be."""
    layout = torch.channels_last if pixels else torch.contiguous_format
    if y.is_contiguous(memory_format=layout):
        return y, pixels
    return torch.empty_like(y, memory_format=layout).copy_(y), pixels


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _operands(operands: Operands, dtype: torch.dtype) -> Operands:
    """Return the operands dense, in the type that the arithmetic is done in."""
    return Operands(*(None if t is None else t.to(_exact(dtype)).contiguous() for t in operands))


def _shapes(y: Tensor, operands: Operands) -> tuple[torch.Size, bool]:
    return y.shape, operands.noise is not None and operands.noise.shape[0] == 1


def _dtypes(operands: Operands) -> list[torch.dtype | None]:
    return [None if t is None else t.dtype for t in operands]


# -- tiles -----------------------------------------------------------------------------------------


class _Cut(NamedTuple):
    """How a tensor is cut into blocks: samples of `rows x columns`, see csrc/pointwise.cuh."""

    samples: int
    rows: int
    columns: int
    channels: int
    noise_stride: int
    pixels: bool
    width: int  # neighbouring elements of a thread
    lanes: int  # threads side by side
    steps: int  # rows of a thread

    @property
    def arguments(self) -> tuple[int, ...]:
        return *self[:6], self.width > 1, self.lanes, self.steps

    @property
    def row_blocks(self) -> int:
        return _ceil(self.rows, self.steps * (_THREADS // self.lanes))

    @property
    def column_blocks(self) -> int:
        return _ceil(self.columns, self.lanes * self.width)


def _cut(
    y: Tensor,
    pixels: bool,
    operands: tuple[Operands, ...],
    used: tuple[Tensor | None, ...],
) -> _Cut:
    """Cut `y` into blocks that read `operands` and the tensors `used`, all laid out alike."""
    samples, rows, columns, pixels, stride = _matrix(y, pixels, operands)
    width = 16 // y.element_size()
    if columns % width or any(t is not None and t.data_ptr() % 16 for t in used):
        width = 1
    lanes = min(32, 1 << max(0, _ceil(columns, width) - 1).bit_length())
    blocks = samples * _ceil(columns, lanes * width)
    steps = 32
    while steps > 4 and blocks * _ceil(rows, steps * (_THREADS // lanes)) < _BLOCKS:
        steps //= 2
    return _Cut(samples, rows, columns, y.shape[1], stride, pixels, width, lanes, steps)


def _matrix(
    y: Tensor, pixels: bool, operands: tuple[Operands, ...]
) -> tuple[int, int, int, bool, int]:
    """Return samples, rows, columns, the layout and the noise's stride.

    Samples that nothing sets apart become one. Rows too short for whole vectors become longer.
    """
    n, c, h, w = y.shape
    p, noise = h * w, next((o.noise for o in operands if o.noise is not None), None)
    scaled = any(o.scale is not None for o in operands)
    shared = noise is not None and noise.shape[0] == 1
    if all(t is None for o in operands for t in o):
        columns = math.gcd(y.numel(), 1024) or 1
        return 1, y.numel() // columns, columns, True, 0
    pixels = pixels or p == 1
    samples, rows, columns = (n, p, c) if pixels else (n, c, p)
    if not (scaled or shared if pixels else noise is not None):
        samples, rows = 1, n * rows
    width = 16 // y.element_size()
    fold = width // math.gcd(columns, width)  # so many rows end where a vector ends
    if pixels and noise is None and rows % fold == 0:
        rows, columns = rows // fold, columns * fold
    return samples, rows, columns, pixels, p if noise is not None and not shared else 0


def _ceil(a: int, b: int) -> int:
    return (a + b - 1) // b


# -- sums ------------------------------------------------------------------------------------------


class _Sums:
    """The blocks' partial sums for scale, noise and b, and their second stage."""

    def __init__(self, cut: _Cut, like: Tensor, scale: bool, noise: bool, b: bool) -> None:
        self.cut, self.like, self.asked = cut, like, (scale, noise, b)
        by_row = (cut.samples * cut.rows, cut.column_blocks)
        by_column = (cut.samples * cut.row_blocks, cut.columns)
        shapes = (by_row, None, by_column, by_column) if cut.pixels else (by_row, by_row, by_column)
        asked = (noise, False, b, scale) if cut.pixels else (b, scale, noise)
        exact = _exact(like.dtype)
        found = [
            like.new_empty(shape, dtype=exact) if wanted else None
            for shape, wanted in zip(shapes, asked, strict=True)
        ]
        self.tensors = (*found, None)[:4]

    def finished(
        self, shape: tuple[torch.Size, bool], dtypes: list[torch.dtype | None]
    ) -> list[Tensor]:
        """Return the sums for scale, noise, b, each in its dtype; empty where not asked for."""
        (n, c, h, w), shared = shape
        if self.like.numel() == 0:
            sizes = ((n, c), (1 if shared else n, 1, h, w), (c,))
            found = [self.like.new_zeros(size) for size in sizes]
        else:
            found = (self._pixels if self.cut.pixels else self._planes)(n, c, h, w, shared)
        return [
            t.to(dtype) if asked else self.like.new_empty(0)
            for t, dtype, asked in zip(found, dtypes, self.asked, strict=True)
        ]

    def _pixels(self, n: int, c: int, h: int, w: int, shared: bool) -> list[Tensor | None]:
        row_e, _, column_e, column_f = self.tensors
        noise = None if row_e is None else _over(row_e.view(n, 1, h, w, -1), 0 if shared else -1, 4)
        b = None if column_e is None else column_e.view(-1, c).sum(0)
        return [None if column_f is None else _over(column_f.view(n, -1, c), 1), noise, b]

    def _planes(self, n: int, c: int, h: int, w: int, shared: bool) -> list[Tensor | None]:
        row_e, row_f, column_e, _ = self.tensors
        parts = None if column_e is None else column_e.view(n, -1, 1, h, w)
        noise = None if parts is None else _over(parts.flatten(0, 1)[None] if shared else parts, 1)
        b = None if row_e is None else row_e.view(n, c, -1).sum((0, 2))
        return [None if row_f is None else _over(row_f.view(n, c, -1), 2), noise, b]


def _over(t: Tensor, *dims: int) -> Tensor:
    """Sum over the last of `dims` and, keeping it, over the first; -1 stands for no dimension."""
    if len(dims) == 2 and dims[0] >= 0:
        t = t.sum(dims[0], keepdim=True)
    return t.squeeze(dims[-1]) if t.shape[dims[-1]] == 1 else t.sum(dims[-1])
