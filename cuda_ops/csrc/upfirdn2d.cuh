// upfirdn2d: y[o] = sum_k f[k] u[o * down + k - pad], u[i * up] = x[i] and zero between, per axis.
//
// Four kernels. `planes` (NCHW) and `pixels` (channels_last) are for factors of 2 and up to 8
// separable taps: a thread filters the rows that it reads in registers, 16 bytes at a time, and
// walks down a strip. `tile` (NCHW, separable) goes through shared memory; `gather` takes all else.
// Offsets of planes and rows are 64-bit, computed once per thread; within a row they are 32-bit.
#pragma once
#include <cstring>
#include <type_traits>

#include "device.cuh"

namespace fir {

constexpr int BY_VALUE = 160;  // taps that travel as kernel arguments
constexpr int THREADS = 128;

enum Mode { SAME, UP, DOWN };  // factor 1, up 2, down 2, in both axes

// The taps, in the arguments (no copy, no synchronisation, any stream) or in device memory.
template <class M>
struct Filter {
  M value[BY_VALUE];  // fx then fy; or the rows of a 2-D filter
  const M *x, *y;     // or these, if not null
  int fw, fh;
  bool separable, flip;
  M gain;
};

struct Size {
  int n, c, h, w, oh, ow, ux, uy, dx, dy, px, py;
};

// The k-th tap of the correlation in x (with the gain), in y, and of a 2-D filter.
template <class M>
__device__ __forceinline__ M tap_x(const Filter<M>& f, int k) {
  if (k < 0 || k >= f.fw) return 0;
  const int i = f.flip ? k : f.fw - 1 - k;
  return f.gain * (f.x ? f.x[i] : f.value[i]);
}
template <class M>
__device__ __forceinline__ M tap_y(const Filter<M>& f, int k) {
  if (k < 0 || k >= f.fh) return 0;
  const int i = f.flip ? k : f.fh - 1 - k;
  return f.y ? f.y[i] : f.value[f.fw + i];
}
template <class M>
__device__ __forceinline__ M tap_xy(const Filter<M>& f, int ky, int kx) {
  const int all = f.fw * f.fh, i = f.flip ? ky * f.fw + kx : all - 1 - (ky * f.fw + kx);
  return f.gain * (f.x ? f.x[i] : f.value[i]);
}

// -- factor 2, up to K taps -----------------------------------------------------------------------

// A window of input samples per output sample; with up = 2 per pair of them (the two phases).
template <int MODE, int K>
struct Window {
  static constexpr int PHASES = MODE == UP ? 2 : 1, STEP = MODE == DOWN ? 2 : 1;
  static constexpr int N = MODE == UP ? K / 2 + 1 : K;  // samples of a window that starts anywhere
  static constexpr int HALO = MODE == UP ? K / 4 : MODE == DOWN ? K / 2 - 1 : K / 2;
  static constexpr int X = MODE == DOWN ? 2 * HALO + 2 : 2 * HALO + 1;  // of one within the halo
};

// Where the window of output 0 starts.
template <int MODE>
__host__ __device__ __forceinline__ int window_start(int pad) {
  return MODE == UP ? -(pad >= 0 ? pad / 2 : -((1 - pad) / 2)) : -pad;
}

// Sample j of the window that starts at `start` meets tap k = up * (start + j) - phase + pad.
template <int MODE>
__device__ __forceinline__ int window_tap(int start, int phase, int j, int pad) {
  return (MODE == UP ? 2 : 1) * (start + j) - phase + pad;
}

// Weights of the windows into shared memory: x for NX samples from `x0`, y for NY from `y0`.
template <int MODE, int NX, int NY, class M>
__device__ __forceinline__ void weigh(const Filter<M>& f, int x0, int y0, int px, int py, M* cx,
                                      M* cy) {
  constexpr int PHASES = MODE == UP ? 2 : 1;
  for (int i = threadIdx.x; i < PHASES * NX; i += THREADS)
    cx[i] = tap_x(f, window_tap<MODE>(x0, i / NX, i % NX, px));
  for (int i = threadIdx.x; i < PHASES * NY; i += THREADS)
    cy[i] = tap_y(f, window_tap<MODE>(y0, i / NY, i % NY, py));
  __syncthreads();
}

// Filters down a strip: `row(r, h)` gives input row r filtered in x, `emit(o, v)` takes output
// row o of the strip, which has S windows.
template <int MODE, int N, int S, int W, class M, class Row, class Emit>
__device__ __forceinline__ void walk(const M* weights, Row row, Emit emit) {
  constexpr int PHASES = MODE == UP ? 2 : 1, STEP = MODE == DOWN ? 2 : 1;
  constexpr int ROWS = (S - 1) * STEP + N;
  M cy[PHASES * N], h[ROWS][W];
#pragma unroll
  for (int i = 0; i < PHASES * N; i++) cy[i] = weights[i];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    row(r, h[r]);
    if (r < N - 1 || (r - N + 1) % STEP) continue;
#pragma unroll
    for (int phase = 0; phase < PHASES; phase++) {
      M v[W] = {};
#pragma unroll
      for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < W; i++) v[i] += cy[phase * N + j] * h[r - N + 1 + j][i];
      emit((r - N + 1) / STEP * PHASES + phase, v);
    }
  }
}

// N elements as they lie in memory; zero until read. Whole words, so that a read that does not
// happen costs one instruction a word.
template <class T, int N>
struct alignas(sizeof(T) * N) Words {
  unsigned at[sizeof(T) * N / 4];
};

template <class T, int N, class M>
__device__ __forceinline__ void widen_words(const Words<T, N>& in, M* v) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {  // the upper half of a float
#pragma unroll
    for (int i = 0; i < N; i++) {
      const unsigned bits = i % 2 ? in.at[i / 2] & 0xffff0000u : in.at[i / 2] << 16;
      memcpy(v + i, &bits, 4);
    }
  } else {
    Pack<T, N> pack;
    memcpy(&pack, &in, sizeof(pack));
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = widen(pack.at[i]);
  }
}

template <class T, int N, class M>
__device__ __forceinline__ void put(T* to, const M* v, bool wanted) {
  Pack<T, N> out;
#pragma unroll
  for (int i = 0; i < N; i++) out.at[i] = narrow<T>(v[i]);
  if (wanted) *reinterpret_cast<Pack<T, N>*>(to) = out;
}

// NCHW: a thread takes one pack of columns (16 bytes on the larger side) with its halo.
template <class T, int MODE>
struct Columns {
  static constexpr int FULL = 16 / sizeof(T);
  static constexpr int IN = MODE == UP ? FULL / 2 : FULL, OUT = MODE == DOWN ? FULL / 2 : FULL;
};

template <class T, int MODE, int K, int S>
__global__ void __launch_bounds__(THREADS)
planes(const T* __restrict__ x, T* __restrict__ y, const __grid_constant__ Filter<math_t<T>> f,
       Size s, int y0, unsigned packs, unsigned strips, unsigned total) {
  using M = math_t<T>;
  using Win = Window<MODE, K>;
  constexpr int IN = Columns<T, MODE>::IN, OUT = Columns<T, MODE>::OUT, H = Win::HALO;
  constexpr int N = Win::N, X = Win::X;
  __shared__ M sx[Win::PHASES * X], sy[Win::PHASES * N];
  weigh<MODE, X, N>(f, -H, y0, s.px, s.py, sx, sy);
  const unsigned id = blockIdx.x * THREADS + threadIdx.x;
  if (id >= total) return;
  const unsigned line = id / packs, pack = id - line * packs;
  const int64_t plane = line / strips;
  const int strip = int(line - unsigned(plane) * strips), col = int(pack) * IN;
  const int top = strip * S * Win::STEP + y0, out_top = strip * S * Win::PHASES;
  x += (plane * s.h + top) * s.w + col;
  y += (plane * s.oh + out_top) * s.ow + int(pack) * OUT;
  M cx[Win::PHASES * X];
#pragma unroll
  for (int i = 0; i < Win::PHASES * X; i++) cx[i] = sx[i];
  const auto row = [&](int r, M* h) {
    const bool inside = unsigned(top + r) < unsigned(s.h);
    const T* from = x + r * s.w;
    Words<T, IN> own{};
    if (inside && col < s.w) own = *reinterpret_cast<const Words<T, IN>*>(from);
    M v[IN + 2 * H] = {};
#pragma unroll
    for (int i = 0; i < H; i++) {
      if (inside && unsigned(col - H + i) < unsigned(s.w)) v[i] = widen(from[i - H]);
      if (inside && col + IN + i < s.w) v[H + IN + i] = widen(from[IN + i]);
    }
    widen_words<T, IN>(own, v + H);
#pragma unroll
    for (int o = 0; o < OUT; o++) {
      const int phase = o % Win::PHASES, first = o / Win::PHASES * Win::STEP;
      h[o] = 0;
#pragma unroll
      for (int j = 0; j < X; j++) h[o] += cx[phase * X + j] * v[first + j];
    }
  };
  const auto emit = [&](int o, const M* v) {
    put<T, OUT>(y + o * s.ow, v, out_top + o < s.oh);
  };
  walk<MODE, N, S, OUT>(sy, row, emit);
}

// Channels last: a thread takes 16 bytes of channels of one window's column.
template <class T, int MODE, int K, int S>
__global__ void __launch_bounds__(THREADS)
pixels(const T* __restrict__ x, T* __restrict__ y, const __grid_constant__ Filter<math_t<T>> f,
       Size s, int x0, int y0, unsigned cols, unsigned strips, unsigned total) {
  using M = math_t<T>;
  using Win = Window<MODE, K>;
  constexpr int V = 16 / sizeof(T), N = Win::N, PHASES = Win::PHASES;
  __shared__ M sx[PHASES * N], sy[PHASES * N];
  weigh<MODE, N, N>(f, x0, y0, s.px, s.py, sx, sy);
  const unsigned id = blockIdx.x * THREADS + threadIdx.x;
  if (id >= total) return;
  const unsigned packs = unsigned(s.c) / V, pixel = id / packs, line = pixel / cols;
  const int channel = int(id - pixel * packs) * V, col = int(pixel - line * cols);
  const int64_t image = line / strips;
  const int strip = int(line - unsigned(image) * strips), left = col * Win::STEP + x0;
  const int top = strip * S * Win::STEP + y0, out_top = strip * S * PHASES;
  x += ((image * s.h + top) * s.w + left) * s.c + channel;
  y += ((image * s.oh + out_top) * s.ow + col * PHASES) * s.c + channel;
  const int64_t row_bytes = int64_t(s.w) * s.c * sizeof(T), out_step = int64_t(s.ow) * s.c;
  const char* column[N];
#pragma unroll
  for (int j = 0; j < N; j++) column[j] = reinterpret_cast<const char*>(x + j * s.c);
  M cx[PHASES * N];
#pragma unroll
  for (int i = 0; i < PHASES * N; i++) cx[i] = sx[i];
  const auto row = [&](int r, M* h) {
    const bool inside = unsigned(top + r) < unsigned(s.h);
#pragma unroll
    for (int i = 0; i < PHASES * V; i++) h[i] = 0;
#pragma unroll
    for (int first = 0; first < N; first += 4) {  // so many packs in flight
      Words<T, V> in[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        in[j] = Words<T, V>{};
        if (first + j < N && inside && unsigned(left + first + j) < unsigned(s.w))
          in[j] = *reinterpret_cast<const Words<T, V>*>(column[first + j] + r * row_bytes);
      }
#pragma unroll
      for (int j = 0; j < 4 && first + j < N; j++) {
        M v[V];
        widen_words<T, V>(in[j], v);
#pragma unroll
        for (int i = 0; i < PHASES * V; i++) h[i] += cx[i / V * N + first + j] * v[i % V];
      }
    }
  };
  const auto emit = [&](int o, const M* v) {
#pragma unroll
    for (int phase = 0; phase < PHASES; phase++)
      put<T, V>(y + o * out_step + phase * s.c, v + phase * V,
                out_top + o < s.oh && col * PHASES + phase < s.ow);
  };
  walk<MODE, N, S, PHASES * V>(sy, row, emit);
}

// -- any factors ----------------------------------------------------------------------------------

// The first tap that meets a sample, and which sample: output o starts at o * down - pad.
struct Meeting {
  int tap, from;
  __device__ __forceinline__ Meeting(int start, int up) {
    tap = start > 0 ? (up - start % up) % up : -start % up;
    from = (start + tap) / up;  // exact
  }
};

// NCHW, separable: tile of the input in shared memory, filtered in x, then in y.
template <class T>
__global__ void __launch_bounds__(THREADS)
tile(const T* __restrict__ x, T* __restrict__ y, const __grid_constant__ Filter<math_t<T>> f,
     Size s, int th, int tw, int ih, int iw) {
  using M = math_t<T>;
  DYNAMIC_SHARED(M, memory);
  M *fx = memory, *fy = fx + f.fw, *in = fy + f.fh, *mid = in + ih * iw;
  const int across = (s.ow + tw - 1) / tw, down = (s.oh + th - 1) / th;
  const int ox = int(blockIdx.x % across) * tw, oy = int(blockIdx.x / across % down) * th;
  const int64_t plane = blockIdx.x / across / down;
  const int left = Meeting(ox * s.dx - s.px, s.ux).from;
  const int top = Meeting(oy * s.dy - s.py, s.uy).from;
  x += plane * s.h * s.w;
  for (int i = threadIdx.x; i < f.fw; i += THREADS) fx[i] = tap_x(f, i);
  for (int i = threadIdx.x; i < f.fh; i += THREADS) fy[i] = tap_y(f, i);
  for (int i = threadIdx.x; i < ih * iw; i += THREADS) {
    const int r = i / iw + top, c = i % iw + left;
    const bool inside = unsigned(r) < unsigned(s.h) && unsigned(c) < unsigned(s.w);
    in[i] = inside ? widen(x[int64_t(r) * s.w + c]) : M(0);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < ih * tw; i += THREADS) {
    const Meeting m((ox + i % tw) * s.dx - s.px, s.ux);
    const M* from = in + i / tw * iw + m.from - left;
    M sum = 0;
    for (int k = m.tap; k < f.fw; k += s.ux) sum += fx[k] * *from++;
    mid[i] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < th * tw; i += THREADS) {
    const int r = oy + i / tw, c = ox + i % tw;
    if (r >= s.oh || c >= s.ow) continue;
    const Meeting m(r * s.dy - s.py, s.uy);
    const M* from = mid + (m.from - top) * tw + i % tw;
    M sum = 0;
    for (int k = m.tap; k < f.fh; k += s.uy, from += tw) sum += fy[k] * *from;
    y[(plane * s.oh + r) * s.ow + c] = narrow<T>(sum);
  }
}

// Any layout and filter: a thread sums one output; `chunks` blocks share a row of `length`.
template <class T>
__global__ void __launch_bounds__(THREADS)
gather(const T* __restrict__ x, T* __restrict__ y, const __grid_constant__ Filter<math_t<T>> f,
       Size s, bool channels_last, int chunks, int length) {
  using M = math_t<T>;
  const int i = int(blockIdx.x % chunks) * blockDim.x + threadIdx.x;
  const unsigned line = blockIdx.x / chunks;
  if (i >= length) return;
  const int inner = channels_last ? s.c : 1, ox = i / inner, oy = int(line % s.oh);
  x += int64_t(line / s.oh) * s.h * s.w * inner + i % inner;
  const Meeting mx(ox * s.dx - s.px, s.ux), my(oy * s.dy - s.py, s.uy);
  M sum = 0;
  for (int ky = my.tap, r = my.from; ky < f.fh; ky += s.uy, r++) {
    if (unsigned(r) >= unsigned(s.h)) continue;
    const T* from = x + int64_t(r) * s.w * inner;
    M part = 0;
    for (int kx = mx.tap, c = mx.from; kx < f.fw; kx += s.ux, c++)
      if (unsigned(c) < unsigned(s.w))
        part += (f.separable ? tap_x(f, kx) : tap_xy(f, ky, kx)) *
                widen(from[int64_t(c) * inner]);
    sum += f.separable ? tap_y(f, ky) * part : part;
  }
  y[int64_t(line) * length + i] = narrow<T>(sum);
}

}  // namespace fir
