// 3x3 convolutions as Winograd's minimal filtering, channels-last float32.
//
//   y = A^T [ (B^T x B) . (G w G^T) ] A      tile by tile, 4x4 outputs each
//
// (Winograd 1980; Lavin & Gray 2016); winograd.h has the transforms. The input may be scaled by
// style and channel as it is read, and the tail of the layer applied as the output is written.
// The sum over channels is one matrix product per pair of frequencies, done while the tiles are in
// cache. Channel counts are multiples of VL.
#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "product.h"
#include "tail.h"
#include "winograd.h"

namespace {

// y is [n, h, w, co]; x is [n, fine_h, fine_w, ci], `stride` times as large.
struct Shape {
  int n, h, w, ci, co, fine_h, fine_w, rows, cols;  // rows, cols: tiles per image
  int in_image() const { return rows * cols; }
  int64_t tiles() const { return int64_t(n) * in_image(); }
};

template <class T>
Shape shape(int n, int h, int w, int ci, int co) {
  const int s = T::STRIDE;
  return {n, h, w, ci, co, s * h, s * w, (h + 3) / 4, (w + 3) / 4};
}

struct Position {
  int n, y, x;  // image; top left of the 4x4 output tile
};

inline Position position(const Shape& s, int64_t tile) {
  const int in_image = tile % s.in_image();
  return {int(tile / s.in_image()), in_image / s.cols * 4, in_image % s.cols * 4};
}

// Floats between two frequencies of a block: off the powers of two, which share cache sets.
inline int64_t stride(int block, int channels) { return int64_t(block) * channels + VL; }

// ---- filters ----

// Of `channels` columns the panel that starts at o has this many.
inline int panel_cols(int channels, int o) { return std::min(NR, channels - o); }

// u[panel][frequency][k][column] = G w G^T of w[3][3][k][n], turned by 180 degrees if `flip`.
template <class T>
void pack_filter(const float* w, int k, int n, bool flip, float* u) {
#pragma omp for schedule(static)
  for (int i = 0; i < k; i++)
    for (int o = 0; o < n; o += VL) {
      vec half[FREQ][3];
      for (int x = 0; x < 3; x++) {
        vec tap[3];
        for (int y = 0; y < 3; y++) {
          const int at = flip ? 8 - (3 * y + x) : 3 * y + x;
          tap[y] = load(w + (int64_t(at) * k + i) * n + o);
        }
        for (int f = 0; f < FREQ; f++)
          half[f][x] = T::G[f][0] * tap[0] + T::G[f][1] * tap[1] + T::G[f][2] * tap[2];
      }
      const int first = o / NR * NR, cols = panel_cols(n, first);
      float* out = u + int64_t(FILTERS) * k * first + int64_t(i) * cols + o - first;
      for (int f = 0; f < FILTERS; f++) {
        const float* g = T::G[f % FREQ];
        const vec* row = half[f / FREQ];
        store(out + int64_t(f) * k * cols, g[0] * row[0] + g[1] * row[1] + g[2] * row[2]);
      }
    }
}

// dw[3][3][ci][co] = G^T (du[0] + du[1] + ...) G.
template <class T>
void unpack_filter(const Shape& s, const float* du, int parts, float* dw) {
#pragma omp for schedule(static)
  for (int i = 0; i < s.ci; i++)
    for (int o = 0; o < s.co; o += VL) {
      const int64_t size = int64_t(s.ci) * s.co, at = int64_t(i) * s.co + o;
      vec half[3][FREQ] = {};
      for (int f = 0; f < FILTERS; f++) {
        vec sum = load(du + f * size + at);
        for (int p = 1; p < parts; p++) sum += load(du + (p * FILTERS + f) * size + at);
        for (int y = 0; y < 3; y++) half[y][f % FREQ] += T::G[f / FREQ][y] * sum;
      }
      for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
          vec tap = {};
          for (int f = 0; f < FREQ; f++) tap += T::G[f][x] * half[y][f];
          store(dw + (y * 3 + x) * size + at, tap);
        }
    }
}

// The filter frequency of product i of an axis: all odd samples meet the same tap.
inline int filter_of(int i) { return std::min(i, FREQ - 1); }

// m[product][t][cols] = v[product][t][k] u[filter][k][cols] for all pairs of products.
template <class T>
void multiply(const float* v, int64_t vs, const float* u, float* m, int64_t ms, int count, int k,
              int cols) {
  for (int a = 0; a < T::SIZE; a++)
    for (int b = 0; b < T::SIZE; b++) {
      const int64_t filter = filter_of(a) * FREQ + filter_of(b), at = a * T::SIZE + b;
      product(count, cols, v + at * vs, k, 1, u + filter * k * cols, cols, m + at * ms, cols, k,
              false);
    }
}

// ---- tiles ----

// v[product][t][ci] = B^T x B of `count` tiles, times styles[n, ci] if there are any.
template <class T>
void tiles_in(const T& scheme, const Shape& s, const float* x, const float* styles, int64_t tile,
              int count, float* v, int64_t vs) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    const int top = p.y * T::STRIDE - T::PAD, left = p.x * T::STRIDE - T::PAD;
    const float* image = x + int64_t(p.n) * s.fine_h * s.fine_w * s.ci;
    for (int c = 0; c < s.ci; c += VL) {
      vec half[T::SIZE][T::IN], d[T::IN], r[T::SIZE];
      for (int j = 0; j < T::IN; j++) {
        const int col = left + j;
        for (int i = 0; i < T::IN; i++) {
          const int row = top + i;
          const bool inside = row >= 0 && row < s.fine_h && col >= 0 && col < s.fine_w;
          d[i] = inside ? load(image + (int64_t(row) * s.fine_w + col) * s.ci + c) : vec{};
        }
        scheme.in(d, r);
        for (int i = 0; i < T::SIZE; i++) half[i][j] = r[i];
      }
      const vec style = styles ? load(styles + int64_t(p.n) * s.ci + c) : splat(1);
      for (int i = 0; i < T::SIZE; i++) {
        scheme.in(half[i], r);
        for (int j = 0; j < T::SIZE; j++) r[j] *= style;
        for (int j = 0; j < T::SIZE; j++) store(v + (i * T::SIZE + j) * vs + t * s.ci + c, r[j]);
      }
    }
  }
}

// x += B m B^T of `count` tiles (the adjoint of tiles_in), channels o .. o + cols.
template <class T>
void tiles_back(const T& scheme, const Shape& s, const float* m, int64_t ms, int64_t tile,
                int count, int o, int cols, float* x) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    float* image = x + int64_t(p.n) * s.fine_h * s.fine_w * s.ci;
    for (int c = 0; c < cols; c += VL) {
      vec half[T::IN][T::SIZE], d[T::SIZE], r[T::IN];
      for (int j = 0; j < T::SIZE; j++) {
        for (int i = 0; i < T::SIZE; i++) d[i] = load(m + (i * T::SIZE + j) * ms + t * cols + c);
        scheme.back(d, r);
        for (int i = 0; i < T::IN; i++) half[i][j] = r[i];
      }
      for (int i = 0; i < T::IN; i++) {
        const int row = p.y * T::STRIDE - T::PAD + i;
        if (row < 0 || row >= s.fine_h) continue;
        scheme.back(half[i], r);
        for (int j = 0; j < T::IN; j++) {
          const int col = p.x * T::STRIDE - T::PAD + j;
          if (col < 0 || col >= s.fine_w) continue;
          float* at = image + (int64_t(row) * s.fine_w + col) * s.ci + o + c;
          store(at, load(at) + r[j]);
        }
      }
    }
  }
}

// y = tail(A^T m A) of `count` tiles, channels o .. o + cols.
template <class T>
void tiles_out(const Shape& s, const float* m, int64_t ms, int64_t tile, int count, int o,
               int cols, const Tail& tail, float* y) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    for (int c = 0; c < cols; c += VL) {
      vec half[4][T::SIZE], d[T::SIZE], r[4];
      for (int j = 0; j < T::SIZE; j++) {
        for (int i = 0; i < T::SIZE; i++) d[i] = load(m + (i * T::SIZE + j) * ms + t * cols + c);
        T::out(d, r);
        for (int i = 0; i < 4; i++) half[i][j] = r[i];
      }
      for (int i = 0; i < 4 && p.y + i < s.h; i++) {
        T::out(half[i], r);
        const int64_t pixel = int64_t(p.y + i) * s.w + p.x;
        float* row = y + (int64_t(p.n) * s.h * s.w + pixel) * s.co + o + c;
        for (int j = 0; j < 4 && p.x + j < s.w; j++)
          store(row + int64_t(j) * s.co, tail(r[j], p.n, pixel + j, o + c));
      }
    }
  }
}

// z[product][t][co] = A y A^T of `count` tiles, times styles[n, co] if there are any.
template <class T>
void tiles_grad(const Shape& s, const float* y, const float* styles, int64_t tile, int count,
                float* z, int64_t zs) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    for (int c = 0; c < s.co; c += VL) {
      vec half[T::SIZE][4], d[4], r[T::SIZE];
      for (int j = 0; j < 4; j++) {
        for (int i = 0; i < 4; i++) {
          const bool inside = p.y + i < s.h && p.x + j < s.w;
          const int64_t at = (int64_t(p.n) * s.h + p.y + i) * s.w + p.x + j;
          d[i] = inside ? load(y + at * s.co + c) : vec{};
        }
        T::grad(d, r);
        for (int i = 0; i < T::SIZE; i++) half[i][j] = r[i];
      }
      const vec style = styles ? load(styles + int64_t(p.n) * s.co + c) : splat(1);
      for (int i = 0; i < T::SIZE; i++) {
        T::grad(half[i], r);
        for (int j = 0; j < T::SIZE; j++) r[j] *= style;
        for (int j = 0; j < T::SIZE; j++) store(z + (i * T::SIZE + j) * zs + t * s.co + c, r[j]);
      }
    }
  }
}

// ---- convolutions ----

template <class T>
int64_t conv_scratch(int k, int n, int block, int threads) {
  const int64_t tiles = stride(block, k) + stride(block, NR);
  return int64_t(FILTERS) * k * n + T::SIZE * T::SIZE * threads * tiles;
}

template <class T>
void conv(const T& scheme, const Shape& s, const float* x, const float* styles, const float* w,
          bool flip, const Tail& tail, float* y, float* scratch, int block, int threads) {
  const int64_t vs = stride(block, s.ci), ms = stride(block, NR);
  const int64_t blocks = (s.tiles() + block - 1) / block;
  float* u = scratch;
#pragma omp parallel num_threads(threads)
  {
    pack_filter<T>(w, s.ci, s.co, flip, u);
    float* v = u + int64_t(FILTERS) * s.ci * s.co;
    v += omp_get_thread_num() * T::SIZE * T::SIZE * (vs + ms);
    float* m = v + T::SIZE * T::SIZE * vs;
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++) {
      const int count = std::min<int64_t>(block, s.tiles() - b * block);
      tiles_in(scheme, s, x, styles, b * block, count, v, vs);
      for (int o = 0; o < s.co; o += NR) {
        const int cols = panel_cols(s.co, o);
        multiply<T>(v, vs, u + int64_t(FILTERS) * s.ci * o, m, ms, count, s.ci, cols);
        tiles_out<T>(s, m, ms, b * block, count, o, cols, tail, y);
      }
    }
  }
}

// x = the adjoint of `conv` applied to y, w[3][3][co][ci]. Tiles of an image overlap, so one thread
// takes whole images, as many as fill a block, and applies the tail while they are in cache.
template <class T>
void conv_adjoint(const T& scheme, const Shape& s, const float* y, const float* styles,
                  const float* w, const Tail& tail, float* x, float* scratch, int block,
                  int threads) {
  const int64_t zs = stride(block, s.co), ms = stride(block, NR);
  const int64_t size = int64_t(s.fine_h) * s.fine_w * s.ci;
  const int group = std::max(1, block / s.in_image());  // images
  float* u = scratch;
#pragma omp parallel num_threads(threads)
  {
    pack_filter<T>(w, s.co, s.ci, false, u);
    float* z = u + int64_t(FILTERS) * s.ci * s.co;
    z += omp_get_thread_num() * T::SIZE * T::SIZE * (zs + ms);
    float* m = z + T::SIZE * T::SIZE * zs;
#pragma omp for schedule(dynamic)
    for (int image = 0; image < s.n; image += group) {
      const int next = std::min(image + group, s.n);
      std::fill(x + image * size, x + next * size, 0.0f);
      const int64_t last = int64_t(next) * s.in_image();
      for (int64_t tile = int64_t(image) * s.in_image(); tile < last; tile += block) {
        const int count = std::min<int64_t>(block, last - tile);
        tiles_grad<T>(s, y, styles, tile, count, z, zs);
        for (int o = 0; o < s.ci; o += NR) {
          const int cols = panel_cols(s.ci, o);
          multiply<T>(z, zs, u + int64_t(FILTERS) * s.co * o, m, ms, count, s.co, cols);
          tiles_back(scheme, s, m, ms, tile, count, o, cols, x);
        }
      }
      for (int64_t i = image; i < next && !tail.empty(); i++)
        for (int64_t p = 0; p < tail.pixels; p++)
          for (int c = 0; c < s.ci; c += VL) {
            float* at = x + i * size + p * s.ci + c;
            store(at, tail(load(at), i, p, c));
          }
    }
  }
}

template <class T>
int64_t grad_scratch(int ci, int co, int block, int threads) {
  const int64_t tiles = T::SIZE * T::SIZE * (stride(block, ci) + stride(block, co));
  return threads * (int64_t(FILTERS) * ci * co + tiles);
}

// dw[3][3][ci][co] of `conv`. Each thread sums over its own part of the tiles; the parts are added
// in their order, so the result does not vary from run to run.
template <class T>
void conv_grad(const T& scheme, const Shape& s, const float* x, const float* styles,
               const float* dy, const float* dy_styles, float* dw, float* scratch, int block,
               int threads) {
  const int64_t vs = stride(block, s.ci), zs = stride(block, s.co), size = int64_t(s.ci) * s.co;
#pragma omp parallel num_threads(threads)
  {
    const int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
    const int64_t first = s.tiles() * part / parts, last = s.tiles() * (part + 1) / parts;
    float* du = scratch + part * FILTERS * size;
    float* v = scratch + parts * FILTERS * size + part * T::SIZE * T::SIZE * (vs + zs);
    float* z = v + T::SIZE * T::SIZE * vs;
    if (first == last) std::fill_n(du, FILTERS * size, 0.0f);
    for (int64_t tile = first; tile < last; tile += block) {
      const int count = std::min<int64_t>(block, last - tile);
      tiles_in(scheme, s, x, styles, tile, count, v, vs);
      tiles_grad<T>(s, dy, dy_styles, tile, count, z, zs);
      for (int a = 0; a < T::SIZE; a++)
        for (int b = 0; b < T::SIZE; b++) {
          const int64_t filter = filter_of(a) * FREQ + filter_of(b), at = a * T::SIZE + b;
          const bool add = tile > first || a >= FREQ || b >= FREQ;
          for (int o = 0; o < s.co; o += NR)
            product(s.ci, panel_cols(s.co, o), v + at * vs, 1, s.ci, z + at * zs + o, s.co,
                    du + filter * size + o, s.co, count, add);
        }
    }
#pragma omp barrier
    unpack_filter<T>(s, scratch, int(parts), dw);
  }
}

}  // namespace

extern "C" {

int winograd_lanes() { return VL; }

// Floats of scratch for winograd_conv (k channels to n) and for winograd_grad.
int64_t winograd_conv_scratch(int k, int n, int by, int block, int threads) {
  return by == 2 ? conv_scratch<Strided>(k, n, block, threads)
                 : conv_scratch<Plain>(k, n, block, threads);
}
int64_t winograd_grad_scratch(int ci, int co, int by, int block, int threads) {
  return by == 2 ? grad_scratch<Strided>(ci, co, block, threads)
                 : grad_scratch<Plain>(ci, co, block, threads);
}

// to = tail(styles * from correlated with w[3][3][k][c], stride `by`); or the adjoint (w is still
// [3][3][channels of from][channels of to]). h and w are the sizes of the coarser side. With
// by = 2, `taps` filter the finer side. styles may be null.
void winograd_conv(const float* from, const float* styles, const float* w, const float* taps,
                   const float* scale, const float* noise, const float* bias, float* to,
                   float* scratch, int n, int h, int width, int k, int c, int by, int adjoint,
                   int64_t noise_stride, float slope, float gain, int block, int threads) {
  const int64_t pixels = int64_t(h) * width * (by == 2 && adjoint ? 4 : 1);
  const Tail tail{scale, noise, bias, c, pixels, noise_stride, slope, gain};
  if (by == 1) {
    const Shape s = shape<Plain>(n, h, width, k, c);
    return conv(Plain{}, s, from, styles, w, adjoint, tail, to, scratch, block, threads);
  }
  const Strided scheme{taps[0], taps[1], taps[2], taps[3]};
  if (adjoint) {
    const Shape s = shape<Strided>(n, h, width, c, k);
    conv_adjoint(scheme, s, from, styles, w, tail, to, scratch, block, threads);
  } else {
    const Shape s = shape<Strided>(n, h, width, k, c);
    conv(scheme, s, from, styles, w, false, tail, to, scratch, block, threads);
  }
}

// dw[3][3][ci][co]: the gradient of winograd_conv's w (not the adjoint's), from styles * x and
// dy_styles * dy.
void winograd_grad(const float* x, const float* styles, const float* dy, const float* dy_styles,
                   const float* taps, float* dw, float* scratch, int n, int h, int width, int ci,
                   int co, int by, int block, int threads) {
  if (by == 1)
    conv_grad(Plain{}, shape<Plain>(n, h, width, ci, co), x, styles, dy, dy_styles, dw, scratch,
              block, threads);
  else
    conv_grad(Strided{taps[0], taps[1], taps[2], taps[3]}, shape<Strided>(n, h, width, ci, co), x,
              styles, dy, dy_styles, dw, scratch, block, threads);
}

}  // extern "C"
