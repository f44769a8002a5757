// Integer blit, affine warp between wavelet filters, and colour matrix; and the adjoint of it all.
//
//   y = M D L U B x + t      B blit, U two-fold upsampling, L bilinear look-up, D = U^T with zeros
//   x = B^T U^T L^T D^T M^T g                                        beyond the ends, M, t colour
//
// `spread` makes the fine samples U B x (or D^T M^T g) of some images, four channels interleaved so
// that a sample is one 16-byte access; `look_up` makes D L of them (or U^T L^T) tile by tile, its
// fine samples in shared memory; `fold_back` is B^T with the folding of U^T. The adjoint of the
// look-up is gathered: each place finds the samples that look at it by inverting the map, so no
// atomics and one order of summation. Images that the affine map leaves alone take no part but in
// a copy of their pixels.
#pragma once
#include "device.cuh"
#include "warp_map.h"

namespace {

constexpr int THREADS = 256, LANES = 4, FINE_TILE = 32, STRIP = 8;

struct WarpShape {
  int channels, size, chunks;  // chunks: groups of four channels
  int64_t first;               // image of the first block
  int64_t xs[4], ys[4];        // strides of x (g in the adjoint) and of y, in elements
  bool linear;                 // leave out the colours' offset
};
template <class M>
struct Filter {
  M taps[TAPS];
  double centre;
};

template <class M>
using Lanes = Pack<M, LANES>;

template <class M>
__device__ __forceinline__ void add(Lanes<M>& sum, M weight, const Lanes<M>& v) {
#pragma unroll
  for (int l = 0; l < LANES; l++) sum.at[l] += weight * v.at[l];
}

template <class M>
__device__ __forceinline__ void scale(Lanes<M>& v, M by) {
#pragma unroll
  for (int l = 0; l < LANES; l++) v.at[l] *= by;
}

template <class T>
__device__ __forceinline__ Lanes<math_t<T>> read_pixel(const T* image, const int64_t* strides,
                                                       int channels, int row, int column) {
  Lanes<math_t<T>> p = {};
  const T* at = image + row * strides[2] + column * strides[3];
#pragma unroll
  for (int l = 0; l < LANES; l++)
    if (l < channels) p.at[l] = widen(at[l * strides[1]]);
  return p;
}

template <class T>
__device__ __forceinline__ void write_pixel(T* image, const int64_t* strides, int channels, int row,
                                            int column, const Lanes<math_t<T>>& p) {
  T* at = image + row * strides[2] + column * strides[3];
#pragma unroll
  for (int l = 0; l < LANES; l++)
    if (l < channels) at[l * strides[1]] = narrow<T>(p.at[l]);
}

// colour [4, 4] or null; M p + t, or M p, or M^T p.
template <class M>
__device__ __forceinline__ Lanes<M> coloured(const double* m, Lanes<M> p, bool offset) {
  if (!m) return p;
  Lanes<M> q = {};
#pragma unroll
  for (int r = 0; r < 3; r++)
    q.at[r] = M(m[4 * r]) * p.at[0] + M(m[4 * r + 1]) * p.at[1] + M(m[4 * r + 2]) * p.at[2] +
              (offset ? M(m[4 * r + 3]) : M(0));
  return q;
}
template <class M>
__device__ __forceinline__ Lanes<M> uncoloured(const double* m, Lanes<M> p) {
  if (!m) return p;
  Lanes<M> q = {};
#pragma unroll
  for (int c = 0; c < 3; c++)
    q.at[c] = M(m[c]) * p.at[0] + M(m[4 + c]) * p.at[1] + M(m[8 + c]) * p.at[2];
  return q;
}

__device__ __forceinline__ const double* of_image(const double* all, int64_t n, int count) {
  return all ? all + n * count : nullptr;
}

// Fine samples [images, chunks, K, K] of x. Grid: tiles, images, chunks.
template <class T, bool ADJOINT>
__global__ void __launch_bounds__(THREADS)
spread(const T* x, const int* blits, const double* sources, const double* colours,
       Lanes<math_t<T>>* fine, WarpShape s, Filter<math_t<T>> f) {
  using M = math_t<T>;
  constexpr int WIDE = FINE_TILE / 2 + REACH;
  __shared__ Lanes<M> pixels[WIDE][WIDE], rows[WIDE][FINE_TILE];
  const int64_t n = s.first + blockIdx.y;
  Affine map;
  if (!map.read(of_image(sources, n, 9), s.size, f.centre)) return;
  Blit blit;
  blit.read(blits ? blits + 4 * n : nullptr, s.size);
  const double* colour = of_image(colours, n, 16);
  const int across = (map.fine + FINE_TILE - 1) / FINE_TILE;
  const int k0 = blockIdx.x % across * FINE_TILE, j0 = blockIdx.x / across * FINE_TILE;
  const int c0 = blockIdx.z * LANES;
  const T* image = x + n * s.xs[0] + c0 * s.xs[1];
  for (int i = threadIdx.x; i < WIDE * WIDE; i += THREADS) {
    const int row = j0 / 2 - REACH + i / WIDE, column = k0 / 2 - REACH + i % WIDE;
    Lanes<M> p = {};
    if constexpr (ADJOINT) {
      if (row >= 0 && row < s.size && column >= 0 && column < s.size)
        p = uncoloured(colour, read_pixel(image, s.xs, s.channels - c0, row, column));
    } else {
      int from_row, from_column;
      blit.source(reflected(row, s.size), reflected(column, s.size), from_row, from_column);
      p = read_pixel(image, s.xs, s.channels - c0, from_row, from_column);
    }
    pixels[i / WIDE][i % WIDE] = p;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < WIDE * FINE_TILE; i += THREADS) {
    const int row = i / FINE_TILE, k = i % FINE_TILE;
    Lanes<M> sum = {};
#pragma unroll
    for (int t = 0; t < TAPS / 2; t++)
      add(sum, k % 2 ? f.taps[2 * t + 1] : f.taps[2 * t], pixels[row][k / 2 + REACH - t]);
    rows[row][k] = sum;
  }
  __syncthreads();
  Lanes<M>* out = fine + (int64_t(blockIdx.y) * s.chunks + blockIdx.z) * map.fine * map.fine;
  for (int i = threadIdx.x; i < FINE_TILE * FINE_TILE; i += THREADS) {
    const int j = i / FINE_TILE, k = i % FINE_TILE;
    if (j0 + j >= map.fine || k0 + k >= map.fine) continue;
    Lanes<M> sum = {};
#pragma unroll
    for (int t = 0; t < TAPS / 2; t++)
      add(sum, j % 2 ? f.taps[2 * t + 1] : f.taps[2 * t], rows[j / 2 + REACH - t][k]);
    scale(sum, ADJOINT ? M(0.5) : M(2));
    out[int64_t(j0 + j) * map.fine + k0 + k] = sum;
  }
}

// The fine sample that output sample (k, j) shows.
template <class M>
__device__ __forceinline__ Lanes<M> looked_up(const Lanes<M>* fine, const Affine& map, int k,
                                              int j) {
  const double u = map.folded(map.u(k, j)), v = map.folded(map.v(k, j));
  const int left = max(0, min(int(u), map.fine - 2)), up = max(0, min(int(v), map.fine - 2));
  const M x = M(u - left), y = M(v - up);
  const Lanes<M>* at = fine + int64_t(up) * map.fine + left;
  const Lanes<M> a = at[0], b = at[1], c = at[map.fine], d = at[map.fine + 1];
  Lanes<M> sum = {};
  add(sum, (1 - x) * (1 - y), a);
  add(sum, x * (1 - y), b);
  add(sum, (1 - x) * y, c);
  add(sum, x * y, d);
  return sum;
}

// Of the axis continued by reflection, the parts that look at one fine sample. Part 0 is the axis
// itself; parts 1, 2, ... lie above it, -1, -2, ... below.
struct Parts {
  int below, above, first;  // how many; first: turns from the first turning point to part 1

  __device__ __forceinline__ void read(const Affine& map, double k, double j, double start) {
    const double last = map.fine - 1, low = start + fmin(k, 0.0) * last + fmin(j, 0.0) * last;
    const double high = start + fmax(k, 0.0) * last + fmax(j, 0.0) * last;
    first = int(floor((map.top() - map.centre) / map.turn));
    below = low < -map.slack ? int(fmin(-floor((low - map.centre) / map.turn), 1e6)) : 0;
    above = high > map.top() ? int(fmin(floor((high - map.centre) / map.turn), 1e6)) - first + 1 : 0;
  }
};

// Where on the continued axis part `number` shows sample `cell`, and where the part begins and ends.
struct Part {
  double at, low, high;

  __device__ __forceinline__ void read(const Affine& map, const Parts& parts, int number,
                                       int cell) {
    if (!number) {
      at = cell;
      low = -map.slack;
      high = map.top();
      return;
    }
    const int turns = number < 0 ? number : parts.first + number - 1;
    at = turns % 2 ? (turns + 1) * map.turn + 2 * map.centre - cell : turns * map.turn + cell;
    low = map.centre + turns * map.turn;
    high = map.centre + (turns + 1) * map.turn;
  }
  // The weight with which a look at `place` sees the cell.
  __device__ __forceinline__ double weight(const Affine& map, double place, int number,
                                           int cell) const {
    double off = place - at;
    if (!number) {
      if (place < low || place > high) return 0;
      if ((cell == 0 && off < 0) || (cell == map.fine - 1 && off > 0)) off = 0;
    } else if (place < low || place >= high || (place >= -map.slack && place <= map.top())) {
      return 0;
    }
    return fmax(1 - fabs(off), 0.0);
  }
};

// The map's inverse: near which output samples to search for those that look at a fine sample.
struct Inverse {
  Parts us, vs;
  double over_det, wide, tall;  // half width and height of what maps to within one sample

  __device__ __forceinline__ void read(const Affine& map) {
    us.read(map, map.uk, map.uj, map.u0);
    vs.read(map, map.vk, map.vj, map.v0);
    over_det = 1 / (map.uk * map.vj - map.uj * map.vk);
    wide = (fabs(map.vj) + fabs(map.uj)) * fabs(over_det) + 1e-3;
    tall = (fabs(map.vk) + fabs(map.uk)) * fabs(over_det) + 1e-3;
  }
};

// Samples [j_low, j_high] x [k_low, k_high]; empty where a high end is below its low one.
struct Window {
  int k_low, k_high, j_low, j_high;

  // fmin and fmax pass over NaN: a singular map has every sample tried.
  __device__ __forceinline__ void around(const Affine& map, const Inverse& inverse, double u,
                                         double v) {
    const double du = u - map.u0, dv = v - map.v0, last = map.fine - 1;
    const double k = (map.vj * du - map.uj * dv) * inverse.over_det;
    const double j = (map.uk * dv - map.vk * du) * inverse.over_det;
    k_low = int(fmin(fmax(ceil(k - inverse.wide), 0.0), last + 1));
    k_high = int(fmax(fmin(floor(k + inverse.wide), last), -1.0));
    j_low = int(fmin(fmax(ceil(j - inverse.tall), 0.0), last + 1));
    j_high = int(fmax(fmin(floor(j + inverse.tall), last), -1.0));
  }
};

// Away from the ends of the axes, where every look within one sample counts.
template <class M>
__device__ __forceinline__ void look_inside(Lanes<M>& sum, const Lanes<M>* samples,
                                            const Affine& map, const Window& w, int u, int v) {
  const M u0 = M(map.u(w.k_low, w.j_low) - u), v0 = M(map.v(w.k_low, w.j_low) - v);
  for (int j = w.j_low; j <= w.j_high; j++) {
    const M uj = u0 + M(map.uj) * (j - w.j_low), vj = v0 + M(map.vj) * (j - w.j_low);
    for (int k = w.k_low; k <= w.k_high; k++) {
      const M x = 1 - fabs(uj + M(map.uk) * (k - w.k_low));
      const M y = 1 - fabs(vj + M(map.vk) * (k - w.k_low));
      if (x > 0 && y > 0) add(sum, x * y, samples[int64_t(j) * map.fine + k]);
    }
  }
}

// The adjoint of looked_up: the sum of all output samples that look at fine sample (u, v).
template <class M>
__device__ Lanes<M> looking_at(const Lanes<M>* samples, const Affine& map, const Inverse& inverse,
                               int u, int v) {
  Lanes<M> sum = {};
  const bool inner = u > 0 && u < map.fine - 1 && v > 0 && v < map.fine - 1;
  for (int b = -inverse.vs.below; b <= inverse.vs.above; b++) {
    Part in_v;
    in_v.read(map, inverse.vs, b, v);
    for (int a = -inverse.us.below; a <= inverse.us.above; a++) {
      Part in_u;
      in_u.read(map, inverse.us, a, u);
      Window w;
      w.around(map, inverse, in_u.at, in_v.at);
      if (inner && !a && !b) {
        look_inside(sum, samples, map, w, u, v);
        continue;
      }
      for (int j = w.j_low; j <= w.j_high; j++)
        for (int k = w.k_low; k <= w.k_high; k++) {
          const double pu = map.u(k, j), pv = map.v(k, j);
          if (!(fabs(pu - in_u.at) < 1 && fabs(pv - in_v.at) < 1)) continue;
          const double x = in_u.weight(map, pu, a, u), y = in_v.weight(map, pv, b, v);
          if (x > 0 && y > 0) add(sum, M(x * y), samples[int64_t(j) * map.fine + k]);
        }
    }
  }
  return sum;
}

// y from fine samples; in the adjoint, `wide` [images, chunks, size + 2 REACH, ...] from them: what
// U^T leaves on the axis and beyond its ends. Grid: tiles, images, chunks.
template <class T, int TILE, bool ADJOINT>
__global__ void __launch_bounds__(THREADS)
look_up(const Lanes<math_t<T>>* fine, const T* x, const int* blits, const double* sources,
        const double* colours, T* y, Lanes<math_t<T>>* wide, WarpShape s, Filter<math_t<T>> f) {
  using M = math_t<T>;
  constexpr int WIDTH = 2 * TILE + 2 * REACH;
  __shared__ Lanes<M> strip[STRIP][WIDTH], rows[WIDTH][TILE];
  const int64_t n = s.first + blockIdx.y;
  Affine map;
  const bool moves = map.read(of_image(sources, n, 9), s.size, f.centre);
  const double* colour = of_image(colours, n, 16);
  const int extent = ADJOINT ? s.size + 2 * REACH : s.size, beyond = ADJOINT ? REACH : 0;
  const int across = (extent + TILE - 1) / TILE;
  const int x0 = blockIdx.x % across * TILE, y0 = blockIdx.x / across * TILE;
  const int c0 = blockIdx.z * LANES, channels = s.channels - c0;
  T* to = y + n * s.ys[0] + c0 * s.ys[1];
  if (!moves) {
    if (ADJOINT) return;
    Blit blit;
    blit.read(blits ? blits + 4 * n : nullptr, s.size);
    const T* image = x + n * s.xs[0] + c0 * s.xs[1];
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
      const int row = y0 + i / TILE, column = x0 + i % TILE;
      if (row >= s.size || column >= s.size) continue;
      int from_row, from_column;
      blit.source(row, column, from_row, from_column);
      const Lanes<M> p = read_pixel(image, s.xs, channels, from_row, from_column);
      write_pixel(to, s.ys, channels, row, column, coloured(colour, p, !s.linear));
    }
    return;
  }
  const int64_t plane = int64_t(blockIdx.y) * s.chunks + blockIdx.z;
  fine += plane * map.fine * map.fine;
  Inverse inverse;
  if constexpr (ADJOINT) inverse.read(map);
  for (int top = 0; top < WIDTH; top += STRIP) {
    for (int i = threadIdx.x; i < STRIP * WIDTH; i += THREADS) {
      const int k = 2 * (x0 - beyond) + i % WIDTH, j = 2 * (y0 - beyond) + top + i / WIDTH;
      Lanes<M> p = {};
      if (k >= 0 && k < map.fine && j >= 0 && j < map.fine) {
        if constexpr (ADJOINT) p = looking_at(fine, map, inverse, k, j);
        else p = looked_up(fine, map, k, j);
      }
      strip[i / WIDTH][i % WIDTH] = p;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < STRIP * TILE; i += THREADS) {
      const int row = i / TILE, column = i % TILE;
      if (top + row >= WIDTH) continue;
      Lanes<M> sum = {};
#pragma unroll
      for (int t = 0; t < TAPS; t++) add(sum, f.taps[t], strip[row][2 * column + t]);
      rows[top + row][column] = sum;
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
    const int row = y0 + i / TILE, column = x0 + i % TILE;
    if (row >= extent || column >= extent) continue;
    Lanes<M> sum = {};
#pragma unroll
    for (int t = 0; t < TAPS; t++) add(sum, f.taps[t], rows[2 * (i / TILE) + t][i % TILE]);
    scale(sum, ADJOINT ? M(2) : M(0.5));
    if constexpr (ADJOINT) wide[(plane * extent + row) * extent + column] = sum;
    else write_pixel(to, s.ys, channels, row, column, coloured(colour, sum, !s.linear));
  }
}

// B^T: each pixel of the result sums the pixels that show it. Grid: tiles, images, chunks.
template <class T>
__global__ void __launch_bounds__(THREADS)
fold_back(const T* g, const Lanes<math_t<T>>* wide, const int* blits, const double* sources,
          const double* colours, T* y, WarpShape s) {
  using M = math_t<T>;
  const int64_t n = s.first + blockIdx.y;
  const int at = blockIdx.x * THREADS + threadIdx.x, row = at / s.size, column = at % s.size;
  if (row >= s.size) return;
  const int c0 = blockIdx.z * LANES, channels = s.channels - c0, extent = s.size + 2 * REACH;
  Affine map;
  const bool moves = map.read(of_image(sources, n, 9), s.size, 0);
  const double* colour = of_image(colours, n, 16);
  Blit blit;
  blit.read(blits ? blits + 4 * n : nullptr, s.size);
  const T* image = g + n * s.xs[0] + c0 * s.xs[1];
  if (wide) wide += (int64_t(blockIdx.y) * s.chunks + blockIdx.z) * extent * extent;
  int at_y, at_x;
  blit.unturned(row, column, at_y, at_x);
  Lanes<M> sum = {};
  each_reflection(at_y, blit.y, 0, s.size, s.size, [&](int i) {
    each_reflection(at_x, blit.x, 0, s.size, s.size, [&](int j) {
      if (!moves) {
        add(sum, M(1), uncoloured(colour, read_pixel(image, s.xs, channels, i, j)));
        return;
      }
      each_reflection(i, 0, -REACH, s.size + REACH, s.size, [&](int p) {
        each_reflection(j, 0, -REACH, s.size + REACH, s.size, [&](int q) {
          add(sum, M(1), wide[int64_t(p + REACH) * extent + q + REACH]);
        });
      });
    });
  });
  write_pixel(y + n * s.ys[0] + c0 * s.ys[1], s.ys, channels, row, column, sum);
}

}  // namespace
