// What follows a convolution, with its gradients and their gradients, each in one pass:
//
//   v = scale[n, c] * y[n, c, p] + noise[n, p] + bias[c],   z = clamp(gain * act(v))
//
// Each sample is a matrix with contiguous rows: [C, P] ("planes", NCHW) or [P, C] ("pixels",
// channels last). A thread keeps V neighbouring columns and walks down the rows, so that what
// belongs to a column is read once and no element costs a division. Sums over rows stay in
// registers, sums over columns go through warp shuffles; each block writes its partial sums for
// a second stage to add, so results do not depend on the order of blocks. Offsets are 64 bits
// wide, made once per row and thread.
#pragma once
#include <type_traits>

#include "activation.cuh"

constexpr int THREADS = 256;  // as in scale_act.py
constexpr int WARPS = THREADS / 32;
constexpr unsigned ALL = 0xffffffffu;

// A block of [tx, THREADS / tx] threads takes tx * V columns and steps * THREADS / tx rows.
struct Tile {
  int64_t rows, columns;
  unsigned channels, row_blocks, column_blocks;  // channels: the period of the bias
  int steps;
};

// scale [n, c], noise [n or 1, p], bias [c]; null where there is none.
template <class M>
struct Operands {
  const M *scale, *noise, *bias;
  int64_t noise_stride;  // from sample to sample, 0 if they share it
};

// Partial sums over a block of e and of f: by row [samples * rows, column_blocks], by column
// [samples * row_blocks, columns]; null where not asked for.
template <class M>
struct Sums {
  M *row_e, *row_f, *column_e, *column_f;
};

template <int V>
struct Place {
  int64_t sample, row, column;  // of this thread's first step
  unsigned row_block, column_block;

  __device__ __forceinline__ explicit Place(const Tile& tile) {
    const unsigned rest = blockIdx.x / tile.column_blocks;
    column_block = blockIdx.x % tile.column_blocks;
    sample = rest / tile.row_blocks;
    row_block = rest % tile.row_blocks;
    row = int64_t(row_block) * tile.steps * blockDim.y + threadIdx.y;
    column = (int64_t(column_block) * blockDim.x + threadIdx.x) * V;
  }
};

// scale * y + add: a row's part and the columns' part of it.
template <class M>
struct Line {
  M scale, add;
};

template <class M, int V, bool PIXELS>
struct Columns {
  M scale[V], add[V];

  // `scale_if_none`: 1 for values, 0 for tangents.
  __device__ __forceinline__ Columns(const Operands<M>& in, const Place<V>& at, const Tile& tile,
                                     M scale_if_none) {
    unsigned c = PIXELS ? unsigned(at.column) % tile.channels : 0;
#pragma unroll
    for (int i = 0; i < V; i++) {
      scale[i] = scale_if_none;
      add[i] = 0;
      if (at.column + i >= tile.columns) continue;
      if (PIXELS) {
        if (in.scale) scale[i] = in.scale[at.sample * tile.channels + c];
        if (in.bias) add[i] = in.bias[c];
        if (++c == tile.channels) c = 0;
      } else if (in.noise) {
        add[i] = in.noise[at.sample * in.noise_stride + at.column + i];
      }
    }
  }
  __device__ __forceinline__ M operator()(M y, const Line<M>& line, int i) const {
    return (PIXELS ? scale[i] : line.scale) * y + (line.add + add[i]);
  }
};

template <bool PIXELS, class M, int V>
__device__ __forceinline__ Line<M> line_at(const Operands<M>& in, const Place<V>& at,
                                           const Tile& tile, int64_t row, unsigned c,
                                           M scale_if_none) {
  if (PIXELS) return {1, in.noise ? in.noise[at.sample * in.noise_stride + row] : M(0)};
  return {in.scale ? in.scale[at.sample * tile.rows + row] : scale_if_none,
          in.bias ? in.bias[c] : M(0)};
}

// Walks down a thread's rows, U at a time: start(u, offset, row, c) begins the loads of each,
// then finish(u, offset, row, inside) computes. All threads of a block take the same steps.
template <bool PIXELS, int U, int V, class Start, class Finish>
__device__ __forceinline__ void walk(const Tile& tile, const Place<V>& at, Start start,
                                     Finish finish) {
  const bool inside = at.column < tile.columns;
  unsigned c = 0;
  if (!PIXELS)
    c = tile.rows >> 32 ? unsigned(at.row % tile.channels) : unsigned(at.row) % tile.channels;
  int64_t row = at.row, offset = (at.sample * tile.rows + at.row) * tile.columns + at.column;
  const int64_t stride = blockDim.y * tile.columns;
  for (int step = 0; step < tile.steps; step += U) {
#pragma unroll
    for (int u = 0; u < U; u++) {
      if (inside && row + u * int64_t(blockDim.y) < tile.rows)
        start(u, offset + u * stride, row + u * int64_t(blockDim.y), c);
      if (!PIXELS) {
        c += blockDim.y;
        if (c >= tile.channels) c %= tile.channels;
      }
    }
#pragma unroll
    for (int u = 0; u < U; u++)
      finish(u, offset + u * stride, row + u * int64_t(blockDim.y),
             inside && row + u * int64_t(blockDim.y) < tile.rows);
    row += U * int64_t(blockDim.y);
    offset += U * stride;
  }
}

// V elements as one machine word, so that they travel in one instruction.
template <int BYTES>
struct WordOf;
template <>
struct WordOf<16> {
  using type = uint4;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <class T, int V>
using Word = typename WordOf<sizeof(T) * V>::type;

template <int V, class T>
__device__ __forceinline__ Word<T, V> load(const T* p) {
  return *reinterpret_cast<const Word<T, V>*>(p);
}
template <int V, class T>
__device__ __forceinline__ void store(T* p, const Pack<T, V>& v) {
  Word<T, V> word;
  memcpy(&word, &v, sizeof(word));
#ifndef CUDA_OPS_EMULATE
  if constexpr (sizeof(word) == 16) {  // left to itself, the compiler stores four times 4 bytes
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(word.x), "r"(word.y),
                 "r"(word.z), "r"(word.w) : "memory");
    return;
  }
#endif
  *reinterpret_cast<Word<T, V>*>(p) = word;
}
template <class T, int V>
__device__ __forceinline__ Pack<T, V> unpack(const Word<T, V>& word) {
  Pack<T, V> v;
  memcpy(&v, &word, sizeof(word));
  return v;
}

// -- sums -----------------------------------------------------------------------------------------

template <class M, int V>
struct Totals {
  M e[V] = {}, f[V] = {};
};

// Adds a row's sum over the block's columns and hands it to its first thread.
template <class M>
__device__ __forceinline__ void sum_row(M value, M* out, int64_t at) {
  for (int lanes = blockDim.x / 2; lanes; lanes /= 2) value += __shfl_xor_sync(ALL, value, lanes);
  if (threadIdx.x == 0 && at >= 0) out[at] = value;
}

// Adds the columns' sums over all threads of the block that have the same columns.
template <class M, int V>
__device__ void sum_columns(M (&value)[V], M* out, const Place<V>& at, const Tile& tile) {
  __shared__ M buffer[WARPS][32 * V];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int lanes = blockDim.x; lanes < 32; lanes *= 2)
#pragma unroll
    for (int i = 0; i < V; i++) value[i] += __shfl_xor_sync(ALL, value[i], lanes);
  if (thread % 32 < blockDim.x)
#pragma unroll
    for (int i = 0; i < V; i++) buffer[thread / 32][thread % 32 * V + i] = value[i];
  __syncthreads();
  const int64_t first = int64_t(at.column_block) * blockDim.x * V;
  const int64_t line = (at.sample * tile.row_blocks + at.row_block) * tile.columns + first;
  for (int j = thread; j < int(blockDim.x) * V && first + j < tile.columns; j += THREADS) {
    M sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += buffer[w][j];
    out[line + j] = sum;
  }
  __syncthreads();
}

template <bool PIXELS, class M, int V>
__device__ __forceinline__ void sum_up(Totals<M, V>& totals, const Sums<M>& sums,
                                       const Place<V>& at, const Tile& tile) {
  if (sums.column_e) sum_columns(totals.e, sums.column_e, at, tile);
  if (PIXELS && sums.column_f) sum_columns(totals.f, sums.column_f, at, tile);
}

// Takes the e and f of one row: into the totals of the columns and the sums of the row.
template <bool PIXELS, class M, int V>
__device__ __forceinline__ void add_row(const M (&e)[V], const M (&f)[V], Totals<M, V>& totals,
                                        const Sums<M>& sums, const Place<V>& at, const Tile& tile,
                                        int64_t row) {
  const int64_t out = (at.sample * tile.rows + row) * tile.column_blocks + at.column_block;
  if (sums.column_e)
#pragma unroll
    for (int i = 0; i < V; i++) totals.e[i] += e[i];
  if (PIXELS && sums.column_f)
#pragma unroll
    for (int i = 0; i < V; i++) totals.f[i] += f[i];
  const int64_t to = row < tile.rows ? out : -1;
  if (sums.row_e) {
    M sum = 0;
#pragma unroll
    for (int i = 0; i < V; i++) sum += e[i];
    sum_row(sum, sums.row_e, to);
  }
  if (!PIXELS && sums.row_f) {
    M sum = 0;
#pragma unroll
    for (int i = 0; i < V; i++) sum += f[i];
    sum_row(sum, sums.row_f, to);
  }
}

// -- the three passes -----------------------------------------------------------------------------

template <class T, int V, bool PIXELS, bool SMOOTH>
__global__ void __launch_bounds__(THREADS, 3)
    value_kernel(const T* y, Operands<math_t<T>> in, T* z, Curve<math_t<T>> curve, Tile tile) {
  using M = math_t<T>;
  constexpr int U = SMOOTH ? 2 : 4;
  const Place<V> at(tile);
  const Columns<M, V, PIXELS> columns(in, at, tile, M(1));
  Word<T, V> words[U];
  Line<M> lines[U];
  walk<PIXELS, U>(
      tile, at,
      [&](int u, int64_t offset, int64_t row, unsigned c) {
        words[u] = load<V>(y + offset);
        lines[u] = line_at<PIXELS>(in, at, tile, row, c, M(1));
      },
      [&](int u, int64_t offset, int64_t, bool inside) {
        if (!inside) return;
        Pack<T, V> some = unpack<T, V>(words[u]);
        curve.template with<SMOOTH>([&](auto act) {
#pragma unroll
          for (int i = 0; i < V; i++) {
            const M v = columns(widen(some.at[i]), lines[u], i);
            some.at[i] = narrow<T>(curve.clamped(curve.gain * act(v).value));
          }
        });
        store<V>(z + offset, some);
      });
}

// With e = g * dz/dv: dy = e * scale; the sums of e give dbias and dnoise, those of f = e * y
// dscale. `y` is the input or, if `from_output`, z without a clamp; null if dz/dv is constant.
// dy may be null.
template <class T, int V, bool PIXELS, bool SMOOTH>
__global__ void __launch_bounds__(THREADS, sizeof(T) > 4 || V == 8 && PIXELS ? 2 : 3)
    grad_kernel(const T* g, const T* y, Operands<math_t<T>> in, T* dy, Sums<math_t<T>> sums,
                Curve<math_t<T>> curve, bool from_output, Tile tile) {
  using M = math_t<T>;
  constexpr int U = SMOOTH ? 1 : 2;
  const Place<V> at(tile);
  const Columns<M, V, PIXELS> columns(in, at, tile, M(1));
  Totals<M, V> totals;
  Word<T, V> g_words[U], y_words[U] = {};
  Line<M> lines[U];
  walk<PIXELS, U>(
      tile, at,
      [&](int u, int64_t offset, int64_t row, unsigned c) {
        g_words[u] = load<V>(g + offset);
        if (y) y_words[u] = load<V>(y + offset);
        lines[u] = line_at<PIXELS>(in, at, tile, row, c, M(1));
      },
      [&](int u, int64_t offset, int64_t row, bool inside) {
        M e[V] = {}, f[V] = {};
        if (inside) {
          Pack<T, V> gs = unpack<T, V>(g_words[u]);
          const Pack<T, V> ys = unpack<T, V>(y_words[u]);
          curve.template with<SMOOTH>([&](auto act) {
#pragma unroll
            for (int i = 0; i < V; i++) {
              const M raw = widen(ys.at[i]);
              const M v = from_output ? raw : columns(raw, lines[u], i);
              e[i] = widen(gs.at[i]) * curve(act(v)).first;
              f[i] = e[i] * raw;
              gs.at[i] = narrow<T>(e[i] * (PIXELS ? columns.scale[i] : lines[u].scale));
            }
          });
          if (dy) store<V>(dy + offset, gs);
        }
        add_row<PIXELS>(e, f, totals, sums, at, tile, row);
      });
  sum_up<PIXELS>(totals, sums, at, tile);
}

// The gradient of <hy, dy> + <hs, dscale> + <hn, dnoise> + <hb, dbias>. With the tangent
// t = hy * scale + hs * y + hn + hb of v: dg = t * dz/dv; e = t * g * d2z/dv2 is the gradient of v,
// so gy = e * scale + hs * g * dz/dv; the sums of e give those of bias and noise, those of
// f = e * y + hy * g * dz/dv that of scale. hy, y, gy and `tangents` may be null.
template <class T, int V, bool PIXELS, bool SMOOTH>
__global__ void __launch_bounds__(THREADS, 2)
    second_kernel(const T* hy, const T* g, const T* y, Operands<math_t<T>> in,
                  Operands<math_t<T>> tangents, T* dg, T* gy, Sums<math_t<T>> sums,
                  Curve<math_t<T>> curve, bool from_output, Tile tile) {
  using M = math_t<T>;
  constexpr int U = SMOOTH || (V > 4 && PIXELS) ? 1 : 2;
  const Place<V> at(tile);
  const Columns<M, V, PIXELS> columns(in, at, tile, M(1)), moving(tangents, at, tile, M(0));
  Totals<M, V> totals;
  Word<T, V> h_words[U] = {}, g_words[U], y_words[U] = {};
  Line<M> lines[U], moves[U];
  walk<PIXELS, U>(
      tile, at,
      [&](int u, int64_t offset, int64_t row, unsigned c) {
        g_words[u] = load<V>(g + offset);
        if (hy) h_words[u] = load<V>(hy + offset);
        if (y) y_words[u] = load<V>(y + offset);
        lines[u] = line_at<PIXELS>(in, at, tile, row, c, M(1));
        moves[u] = line_at<PIXELS>(tangents, at, tile, row, c, M(0));
      },
      [&](int u, int64_t offset, int64_t row, bool inside) {
        M e[V] = {}, f[V] = {};
        if (inside) {
          Pack<T, V> gs = unpack<T, V>(g_words[u]), hs = unpack<T, V>(h_words[u]);
          const Pack<T, V> ys = unpack<T, V>(y_words[u]);
          curve.template with<SMOOTH>([&](auto act) {
#pragma unroll
            for (int i = 0; i < V; i++) {
              const M raw = widen(ys.at[i]), h = widen(hs.at[i]);
              const M scale = PIXELS ? columns.scale[i] : lines[u].scale;
              const M scale_moves = PIXELS ? moving.scale[i] : moves[u].scale;
              const Jet<M> z = curve(act(from_output ? raw : columns(raw, lines[u], i)));
              const M t = h * scale + moving(raw, moves[u], i), cotangent = widen(gs.at[i]);
              e[i] = t * cotangent * z.second;
              f[i] = e[i] * raw + h * cotangent * z.first;
              gs.at[i] = narrow<T>(t * z.first);
              hs.at[i] = narrow<T>(e[i] * scale + scale_moves * cotangent * z.first);
            }
          });
          store<V>(dg + offset, gs);
          if (gy) store<V>(gy + offset, hs);
        }
        add_row<PIXELS>(e, f, totals, sums, at, tile, row);
      });
  sum_up<PIXELS>(totals, sums, at, tile);
}

// -- launching ------------------------------------------------------------------------------------

// How the work is cut, as told by scale_act.py.
struct Cut {
  int64_t samples, rows, columns, channels, noise_stride, pixels, vector, lanes, steps;

  Tile tile(int width) const {
    const int64_t rows_per_block = steps * (THREADS / lanes);
    return {rows, columns, unsigned(channels), unsigned(ceil_div(rows, rows_per_block)),
            unsigned(ceil_div(columns, lanes * width)), int(steps)};
  }
  // 0 blocks if there are more than a launch takes.
  dim3 grid(const Tile& t) const {
    const int64_t blocks = samples * t.row_blocks * t.column_blocks;
    return blocks < (int64_t(1) << 31) ? dim3(unsigned(blocks)) : dim3(0);
  }
  dim3 block() const { return dim3(unsigned(lanes), unsigned(THREADS / lanes)); }
};

// The constants of a kernel, and what its launch takes beside its tensors.
template <class E, int WIDTH, bool IN_PIXELS, bool IS_SMOOTH>
struct Chosen {
  using T = E;
  using M = math_t<E>;
  static constexpr int V = WIDTH;
  static constexpr bool PIXELS = IN_PIXELS, SMOOTH = IS_SMOOTH;
  Tile tile;
  dim3 grid, block;
  Curve<M> curve;
};

// Calls f with the value as a constant.
template <class F>
int with_constant(bool value, F f) {
  return value ? f(std::true_type{}) : f(std::false_type{});
}

// Calls f with what is Chosen for an element type, a cut and an activation; returns the error.
template <class F>
int choose_kernel(const Cut& cut, int dtype, int64_t kind, double slope, double gain, double limit,
                  F f) {
  const auto launch = [&](auto type, auto vector, auto pixels, auto smooth) {
    using T = decltype(type);
    using M = math_t<T>;
    constexpr int V = decltype(vector)::value ? 16 / sizeof(T) : 1;
    const Tile tile = cut.tile(V);
    const dim3 grid = cut.grid(tile);
    if (!grid.x) return int(cudaErrorInvalidValue);
    f(Chosen<T, V, decltype(pixels)::value, decltype(smooth)::value>{
        tile, grid, cut.block(), {int(kind), M(slope), M(gain), M(limit)}});
    return launched();
  };
  return dispatch(dtype, [&](auto type) {
    return with_constant(cut.vector, [&](auto vector) {
      return with_constant(cut.pixels, [&](auto pixels) {
        return with_constant(kind, [&](auto smooth) {
          return launch(type, vector, pixels, smooth);
        });
      });
    });
  });
}
