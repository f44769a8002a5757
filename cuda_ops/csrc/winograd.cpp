// 3x3 convolution with stride 1 and padding 1 as Winograd F(4x4, 3x3), channels-last float32.
//
//   y = A^T [ (B^T x B) . (G w G^T) ] A      for each 6x6 tile of x, 4x4 tile of y
//
// (Winograd 1980; Lavin & Gray 2016), which takes 36 products where the direct sum takes 144.
// Interpolation points 0, +-sqrt(1/2), +-sqrt(2), infinity: less rounding than 0, +-1, +-2.
// The sum over channels is one matrix product per frequency f = 0..35, done while the tiles are
// in cache. Channel counts are multiples of VL.
//
// A 6x6 filter with stride 2 and padding 2 is the same thing on the four phases (even and odd
// rows and columns) of x taken as channels, and its adjoint on the four phases of y; the filter's
// taps 2q + phase are then the 3x3 filter of that phase.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vector.h"

namespace {

constexpr int F = 36;  // frequencies
constexpr float P = 0.70710678118654752f, Q = 1.41421356237309505f;
constexpr float P2 = 0.5f, Q2 = 2.0f, S = P2 + Q2;  // P2 * Q2 = 1

// An image [n, h * split, w * split, c / split^2] seen as [n, h, w, c], c = (phase, channel).
struct Image {
  int h, w, c, split;
  int channels() const { return c / (split * split); }
  int phase(int k) const { return k / channels(); }
  int64_t at(int n, int row, int col, int k) const {
    const int py = phase(k) / split, px = phase(k) % split;
    const int64_t line = (int64_t(n) * h + row) * split + py;
    return ((line * w + col) * split + px) * channels() + k % channels();
  }
};

struct Shape {
  int n, h, w, ci, co, th, tw;  // th, tw: tiles per image
  Image x, y;
  int64_t tiles() const { return int64_t(n) * th * tw; }
};

Shape shape(int n, int h, int w, int ci, int co, int split_x, int split_y) {
  const Image x{h, w, ci, split_x}, y{h, w, co, split_y};
  return {n, h, w, ci, co, (h + 3) / 4, (w + 3) / 4, x, y};
}

// Where the filter's taps lie: tap q of phase p of input i and output o.
struct Filter {
  const float* w;
  int64_t y, x, phase_y, phase_x, in, out;
  const float* at(const Shape& s, int i, int o) const {
    const int pi = s.x.phase(i), po = s.y.phase(o);  // at most one of the two is split
    const int py = pi / s.x.split + po / s.y.split, px = pi % s.x.split + po % s.y.split;
    return w + py * phase_y + px * phase_x + i % s.x.channels() * in + o % s.y.channels() * out;
  }
};

// B^T d: six values to six values.
inline void transform_in(const vec d[6], vec v[6]) {
  vec e = d[4] - Q2 * d[2], o = P * (d[3] - Q2 * d[1]);
  vec g = d[4] - P2 * d[2], q = Q * (d[3] - P2 * d[1]);
  v[0] = d[0] + d[4] - S * d[2];
  v[1] = e + o;
  v[2] = e - o;
  v[3] = g + q;
  v[4] = g - q;
  v[5] = d[1] + d[5] - S * d[3];
}

// A^T m: six values to four.
inline void transform_out(const vec m[6], vec y[4]) {
  vec a = m[1] + m[2], b = m[3] + m[4], c = P * (m[1] - m[2]), d = Q * (m[3] - m[4]);
  y[0] = m[0] + a + b;
  y[1] = c + d;
  y[2] = P2 * a + Q2 * b;
  y[3] = P2 * c + Q2 * d + m[5];
}

// A y: four values to six (the transpose of transform_out).
inline void transform_grad(const vec y[4], vec z[6]) {
  vec a = y[0] + P2 * y[2], b = P * (y[1] + P2 * y[3]);
  vec c = y[0] + Q2 * y[2], d = Q * (y[1] + Q2 * y[3]);
  z[0] = y[0];
  z[1] = a + b;
  z[2] = a - b;
  z[3] = c + d;
  z[4] = c - d;
  z[5] = y[3];
}

// The rows of G: the points' powers over prod (p - q).
struct FilterTransform {
  float g[6][3];
  constexpr FilterTransform() : g{} {
    const float p[4] = {P, -P, Q, -Q};
    const float n[4] = {2 * P2 * (P2 - Q2), 2 * P2 * (P2 - Q2), 2 * Q2 * (Q2 - P2),
                        2 * Q2 * (Q2 - P2)};
    g[0][0] = 1.0f;
    for (int i = 0; i < 4; i++) {
      g[i + 1][0] = 1 / n[i];
      g[i + 1][1] = p[i] / n[i];
      g[i + 1][2] = p[i] * p[i] / n[i];
    }
    g[5][2] = 1.0f;
  }
};
constexpr FilterTransform G;

// C[m, n] = (or +=) sum_k A[m * ra + k * ka] B[k * ldb + n] for one register tile.
template <int ROWS, int VECS>
inline void tile_product(const float* a, int64_t ra, int64_t ka, const float* b, int64_t ldb,
                         float* c, int64_t ldc, int depth, bool add) {
  vec acc[ROWS][VECS];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < VECS; j++) acc[i][j] = vec{};
  for (int k = 0; k < depth; k++) {
    vec row[VECS];
    for (int j = 0; j < VECS; j++) row[j] = load(b + k * ldb + j * VL);
    for (int i = 0; i < ROWS; i++) {
      const vec s = splat(a[i * ra + k * ka]);
      for (int j = 0; j < VECS; j++) acc[i][j] += s * row[j];
    }
  }
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < VECS; j++) {
      float* out = c + i * ldc + j * VL;
      store(out, add ? load(out) + acc[i][j] : acc[i][j]);
    }
}

template <int ROWS, int VECS>
void rows_product(int rows, const float* a, int64_t ra, int64_t ka, const float* b, int64_t ldb,
                  float* c, int64_t ldc, int depth, bool add) {
  if (rows == ROWS)
    tile_product<ROWS, VECS>(a, ra, ka, b, ldb, c, ldc, depth, add);
  else if constexpr (ROWS > 1)
    rows_product<ROWS - 1, VECS>(rows, a, ra, ka, b, ldb, c, ldc, depth, add);
}

// The same for any number of rows, in equal parts of at most MR, and `cols` = VL or NR columns.
void product(int rows, int cols, const float* a, int64_t ra, int64_t ka, const float* b,
             int64_t ldb, float* c, int64_t ldc, int depth, bool add) {
  const int parts = (rows + MR - 1) / MR;
  for (int p = 0; p < parts; p++) {
    const int lo = rows * p / parts, hi = rows * (p + 1) / parts;
    auto run = cols == NR ? rows_product<MR, NV> : rows_product<MR, 1>;
    run(hi - lo, a + lo * ra, ra, ka, b, ldb, c + lo * ldc, ldc, depth, add);
  }
}

// The start of panel `o` (columns o .. o + NR) in the packed filter [panel][f][ci][cols].
inline float* panel(float* u, const Shape& s, int o) { return u + int64_t(F) * s.ci * o; }
inline int panel_cols(const Shape& s, int o) { return std::min(NR, s.co - o); }

void pack_filter(const Shape& s, const Filter& w, float* u) {
#pragma omp for schedule(static)
  for (int i = 0; i < s.ci; i++)
    for (int o = 0; o < s.co; o += VL) {
      const float* from = w.at(s, i, o);
      vec t[6][3];
      for (int x = 0; x < 3; x++) {
        vec k[3];
        for (int y = 0; y < 3; y++)
          for (int l = 0; l < VL; l++) k[y][l] = from[y * w.y + x * w.x + l * w.out];
        for (int f = 0; f < 6; f++)
          t[f][x] = G.g[f][0] * k[0] + G.g[f][1] * k[1] + G.g[f][2] * k[2];
      }
      const int first = o / NR * NR, cols = panel_cols(s, first);
      float* out = panel(u, s, first) + int64_t(i) * cols + o - first;
      for (int f = 0; f < F; f++) {
        const float* g = G.g[f % 6];
        const vec* row = t[f / 6];
        store(out + int64_t(f) * s.ci * cols, g[0] * row[0] + g[1] * row[1] + g[2] * row[2]);
      }
    }
}

struct Position {
  int n, y, x;  // image; top left of the 4x4 output tile
};

// Floats between two frequencies of a block: off the powers of two, which share cache sets.
inline int64_t stride(int block, int channels) { return int64_t(block) * channels + VL; }

inline Position position(const Shape& s, int64_t tile) {
  const int in_image = tile % (s.th * s.tw);
  return {int(tile / (s.th * s.tw)), in_image / s.tw * 4, in_image % s.tw * 4};
}

// Write B^T x B of `count` tiles from `tile` to v[f * stride + t * ci + c].
void tiles_in(const Shape& s, const float* x, int64_t tile, int count, float* v, int64_t stride) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    for (int c = 0; c < s.ci; c += VL) {
      vec half[6][6];
      for (int j = 0; j < 6; j++) {
        vec d[6], r[6];
        const int col = p.x + j - 1;
        for (int i = 0; i < 6; i++) {
          const int row = p.y + i - 1;
          const bool inside = row >= 0 && row < s.h && col >= 0 && col < s.w;
          d[i] = inside ? load(x + s.x.at(p.n, row, col, c)) : vec{};
        }
        transform_in(d, r);
        for (int i = 0; i < 6; i++) half[i][j] = r[i];
      }
      for (int i = 0; i < 6; i++) {
        vec r[6];
        transform_in(half[i], r);
        for (int j = 0; j < 6; j++) store(v + (i * 6 + j) * stride + t * s.ci + c, r[j]);
      }
    }
  }
}

// Read M of `count` tiles at m[f * stride + t * cols + c], write channels o .. o + cols of y.
void tiles_out(const Shape& s, const float* m, int64_t stride, int64_t tile, int count, int o,
               int cols, float* y) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    for (int c = 0; c < cols; c += VL) {
      vec half[4][6];
      for (int j = 0; j < 6; j++) {
        vec d[6], r[4];
        for (int i = 0; i < 6; i++) d[i] = load(m + (i * 6 + j) * stride + t * cols + c);
        transform_out(d, r);
        for (int i = 0; i < 4; i++) half[i][j] = r[i];
      }
      for (int i = 0; i < 4 && p.y + i < s.h; i++) {
        vec r[4];
        transform_out(half[i], r);
        for (int j = 0; j < 4 && p.x + j < s.w; j++)
          store(y + s.y.at(p.n, p.y + i, p.x + j, o + c), r[j]);
      }
    }
  }
}

// Write A dy A^T of `count` tiles to z[f * stride + t * co + c].
void tiles_grad(const Shape& s, const float* dy, int64_t tile, int count, float* z,
                int64_t stride) {
  for (int t = 0; t < count; t++) {
    const Position p = position(s, tile + t);
    for (int c = 0; c < s.co; c += VL) {
      vec half[6][4];
      for (int j = 0; j < 4; j++) {
        vec d[4], r[6];
        for (int i = 0; i < 4; i++) {
          const bool inside = p.y + i < s.h && p.x + j < s.w;
          d[i] = inside ? load(dy + s.y.at(p.n, p.y + i, p.x + j, c)) : vec{};
        }
        transform_grad(d, r);
        for (int i = 0; i < 6; i++) half[i][j] = r[i];
      }
      for (int i = 0; i < 6; i++) {
        vec r[6];
        transform_grad(half[i], r);
        for (int j = 0; j < 6; j++) store(z + (i * 6 + j) * stride + t * s.co + c, r[j]);
      }
    }
  }
}

// dw = G^T (du[0] + du[1] + ...) G, [3, 3, ci, co] or [6, 6, ci / 4, co] if x is split.
void unpack_filter(const Shape& s, const float* du, int parts, float* dw) {
#pragma omp for schedule(static)
  for (int i = 0; i < s.ci; i++)
    for (int o = 0; o < s.co; o += VL) {
      vec t[3][6], k[3][3];
      const int64_t size = int64_t(s.ci) * s.co, at = int64_t(i) * s.co + o;
      for (int j = 0; j < 6; j++)
        for (int y = 0; y < 3; y++) {
          t[y][j] = vec{};
          for (int f = 0; f < 6; f++) {
            vec sum = load(du + (f * 6 + j) * size + at);
            for (int p = 1; p < parts; p++) sum += load(du + ((p * F) + f * 6 + j) * size + at);
            t[y][j] += G.g[f][y] * sum;
          }
        }
      for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
          k[y][x] = vec{};
          for (int f = 0; f < 6; f++) k[y][x] += G.g[f][x] * t[y][f];
          const int split = s.x.split, phase = s.x.phase(i);
          const int row = y * split + phase / split, col = x * split + phase % split;
          const int64_t tap = (row * 3 * split + col) * s.x.channels() + i % s.x.channels();
          store(dw + tap * s.co + o, k[y][x]);
        }
    }
}

}  // namespace

extern "C" {

int winograd_lanes() { return VL; }

// Floats of scratch that winograd_conv asks for.
int64_t winograd_conv_scratch(int ci, int co, int block, int threads) {
  return int64_t(F) * (int64_t(ci) * co + threads * (stride(block, ci) + stride(block, NR)));
}

// y[n, h, w, co] = x[n, h, w, ci] correlated with the filter at `w`, whose strides are given. Of
// x and y one may be split into phases; ci and co count the phases.
void winograd_conv(const float* x, const float* w, float* y, float* scratch, int n, int h,
                   int width, int ci, int co, int split_x, int split_y, int64_t tap_y,
                   int64_t tap_x, int64_t phase_y, int64_t phase_x, int64_t in, int64_t out,
                   int block, int threads) {
  const Shape s = shape(n, h, width, ci, co, split_x, split_y);
  const Filter filter{w, tap_y, tap_x, phase_y, phase_x, in, out};
  const int64_t blocks = (s.tiles() + block - 1) / block;
  const int64_t vs = stride(block, ci), ms = stride(block, NR);
  float* u = scratch;
#pragma omp parallel num_threads(threads)
  {
    pack_filter(s, filter, u);
    float* v = u + F * (int64_t(ci) * co + omp_get_thread_num() * (vs + ms));
    float* m = v + F * vs;
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++) {
      const int count = std::min<int64_t>(block, s.tiles() - b * block);
      tiles_in(s, x, b * block, count, v, vs);
      for (int o = 0; o < co; o += NR) {
        const int cols = panel_cols(s, o);
        for (int f = 0; f < F; f++)
          product(count, cols, v + f * vs, ci, 1, panel(u, s, o) + int64_t(f) * ci * cols, cols,
                  m + f * ms, cols, ci, false);
        tiles_out(s, m, ms, b * block, count, o, cols, y);
      }
    }
  }
}

int64_t winograd_grad_scratch(int ci, int co, int block, int threads) {
  return int64_t(threads) * F * (int64_t(ci) * co + stride(block, ci) + stride(block, co));
}

// dw = the gradient of winograd_conv's filter, from x and dy. Each thread sums over its own part
// of the tiles; the parts are added in their order, so the result does not vary.
void winograd_grad(const float* x, const float* dy, float* dw, float* scratch, int n, int h,
                   int width, int ci, int co, int split_x, int block, int threads) {
  const Shape s = shape(n, h, width, ci, co, split_x, 1);
  const int64_t vs = stride(block, ci), zs = stride(block, co), size = int64_t(ci) * co;
#pragma omp parallel num_threads(threads)
  {
    const int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
    const int64_t first = s.tiles() * part / parts, last = s.tiles() * (part + 1) / parts;
    float *du = scratch + part * F * size, *v = scratch + (parts * size + part * (vs + zs)) * F;
    float* z = v + F * vs;
    if (first == last) std::fill_n(du, F * size, 0.0f);
    for (int64_t tile = first; tile < last; tile += block) {
      const int count = std::min<int64_t>(block, last - tile);
      tiles_in(s, x, tile, count, v, vs);
      tiles_grad(s, dy, tile, count, z, zs);
      for (int f = 0; f < F; f++)
        for (int o = 0; o < co; o += NR)
          product(ci, panel_cols(s, o), v + f * vs, 1, ci, z + f * zs + o, co, du + f * size + o,
                  co, count, tile > first);
    }
#pragma omp barrier
    unpack_filter(s, scratch, int(parts), dw);
  }
}

}  // extern "C"
