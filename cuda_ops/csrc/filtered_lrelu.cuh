// filtered_lrelu: bias, up by zero-insertion and a filter, leaky relu, gain, clamp, filter and down.
//
//   m = up_u(f1, x + b),  a = clamp(gain * lrelu(m)),  y = down_d(f2, a)
//
// A block makes a tile of one plane of y; everything between stays in shared memory:
//   x [rows, cols] -> up in x -> up in y -> activation -> down in x -> down in y.
// Two bits per sample of m, four samples to a byte, keep the sign (1) and whether it was clamped
// (2). The gradient is the same pass with f1, u and f2, d swapped and turned, and the activation
// replaced by the factor that the bits give (Karras 2021 describes the layer).
#pragma once
#include "upfirdn2d.cuh"

namespace fir {

constexpr int LRELU_THREADS = 256, PER_PHASE = 6;  // taps that a sample of the unrolled kernels meets

enum Bits { NONE, WRITE, READ };

struct Pass {
  int c, h, w, mh, mw, oh, ow;  // sizes of x, m, y
  int u, d, p1x, p1y, p2x, p2y;
  int tile, mid, in, k1, k2;  // sides of the tiles of y, m, x; taps with the zeros after them
  int bits;
};

// Taps of `lines` lines: `length` samples each, `u` times as many as they meet of `in`.
template <int U, class M>
__device__ __forceinline__ void enlarge(const M* in, int in_line, int in_step, M* out, int out_line,
                                        int out_step, int lines, int length, const M* f, int u,
                                        int taps) {
  if constexpr (U == 0) {
    for (int i = threadIdx.x; i < lines * length; i += LRELU_THREADS) {
      const int line = i % lines, m = i / lines, phase = m % u;
      const M* from = in + line * in_line + (m / u + (phase > 0)) * in_step;
      M sum = 0;
      for (int k = phase ? u - phase : 0; k < taps; k += u, from += in_step) sum += f[k] * *from;
      out[line * out_line + m * out_step] = sum;
    }
  } else {
    constexpr int GROUPS = 8 / U, N = PER_PHASE;
    M w[U * N];
#pragma unroll
    for (int k = 0; k < U * N; k++) w[k] = f[k];
    for (int i = threadIdx.x; i < lines * (length / 8); i += LRELU_THREADS) {
      const int line = i % lines, chunk = i / lines;
      const M* from = in + line * in_line + chunk * GROUPS * in_step;
      M* to = out + line * out_line + chunk * 8 * out_step;
      M v[GROUPS + N];
#pragma unroll
      for (int j = 0; j < GROUPS + N; j++) v[j] = from[j * in_step];
#pragma unroll
      for (int m = 0; m < 8; m++) {
        const int phase = m % U, first = m / U + (phase > 0), tap = phase ? U - phase : 0;
        M sum = 0;
#pragma unroll
        for (int t = 0; t < N; t++) sum += w[tap + U * t] * v[first + t];
        to[m * out_step] = sum;
      }
    }
  }
}

// `emit(line, o, value)` takes `length` samples of each line, `d` samples of `in` apart.
template <int D, class M, class Emit>
__device__ __forceinline__ void reduce(const M* in, int in_line, int in_step, int lines, int length,
                                       const M* f, int d, int taps, Emit emit) {
  if constexpr (D == 0) {
    for (int i = threadIdx.x; i < lines * length; i += LRELU_THREADS) {
      const int line = i % lines, o = i / lines;
      const M* from = in + line * in_line + o * d * in_step;
      M sum = 0;
      for (int k = 0; k < taps; k++) sum += f[k] * from[k * in_step];
      emit(line, o, sum);
    }
  } else {
    constexpr int R = 4, K = D * PER_PHASE;
    M w[K];
#pragma unroll
    for (int k = 0; k < K; k++) w[k] = f[k];
    for (int i = threadIdx.x; i < lines * (length / R); i += LRELU_THREADS) {
      const int line = i % lines, o = i / lines * R;
      const M* from = in + line * in_line + o * D * in_step;
      M sum[R] = {};
#pragma unroll
      for (int j = 0; j < (R - 1) * D + K; j++) {
        const M v = from[j * in_step];
#pragma unroll
        for (int r = 0; r < R; r++)
          if (j >= r * D && j < r * D + K) sum[r] += w[j - r * D] * v;
      }
#pragma unroll
      for (int r = 0; r < R; r++) emit(line, o + r, sum[r]);
    }
  }
}

// The activation of one sample and its two bits, or the factor that the bits ask for.
template <class M>
__device__ __forceinline__ M activate(M v, M slope, M gain, M clamp, unsigned& code) {
  code = v > 0 ? 0 : 1;
  v = (v > 0 ? v : v * slope) * gain;
  if (clamp >= 0 && (v > clamp || v < -clamp)) {
    code |= 2;
    v = v > 0 ? clamp : -clamp;
  }
  return v;
}
template <class M>
__device__ __forceinline__ M by_bits(M v, M slope, M gain, unsigned code) {
  return code & 2 ? M(0) : v * gain * (code & 1 ? slope : M(1));
}

__device__ __forceinline__ int floor_to(int v, int step) {
  const int rest = v % step;
  return v - (rest < 0 ? rest + step : rest);
}

// Activates the tile `m` [mid, pitch], whose first sample is (top, left); samples outside become 0.
// Writes the bits of the samples [y0, y1) x [x0, x1), which no other block writes.
template <class M>
__device__ __forceinline__ void activate_tile(M* m, int pitch, unsigned char* bits, const Pass& s,
                                              int top, int left, int y0, int y1, int x0, int x1,
                                              M slope, M gain, M clamp) {
  const int first = floor_to(left, 4), groups = s.mid / 4 + 2, bytes = (s.mw + 3) / 4;
  for (int i = threadIdx.x; i < s.mid * groups; i += LRELU_THREADS) {
    const int r = i / groups, col = first + i % groups * 4, row = top + r;
    const bool inside = unsigned(row) < unsigned(s.mh) && col >= 0 && col < s.mw;
    unsigned char* at = inside ? bits + int64_t(row) * bytes + col / 4 : nullptr;
    const unsigned known = inside && s.bits == READ ? *at : 0;
    unsigned all = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int c = col + j - left;
      if (unsigned(c) >= unsigned(s.mid)) continue;
      M& v = m[r * pitch + c];
      unsigned code = 0;
      if (!inside || col + j >= s.mw) v = 0;
      else if (s.bits == READ) v = by_bits(v, slope, gain, known >> 2 * j & 3);
      else v = activate(v, slope, gain, clamp, code);
      all |= code << 2 * j;
    }
    if (inside && s.bits == WRITE && row >= y0 && row < y1 && col >= x0 && col < x1)
      *at = static_cast<unsigned char>(all);
  }
}

template <class T, int U, int D>
__global__ void __launch_bounds__(LRELU_THREADS)
filtered_lrelu(const T* __restrict__ x, const math_t<T>* __restrict__ b, unsigned char* bits,
               T* __restrict__ y, const __grid_constant__ Filter<math_t<T>> f, Pass s,
               math_t<T> gain2, math_t<T> slope, math_t<T> gain, math_t<T> clamp) {
  using M = math_t<T>;
  DYNAMIC_SHARED(M, memory);
  const int in_pitch = s.in | 1, mid_pitch = s.mid | 1, out_pitch = s.tile | 1;
  const int large = max(s.in * in_pitch, s.mid * mid_pitch);
  M *f1 = memory, *f2 = f1 + s.k1, *one = f2 + s.k2, *two = one + large;
  const int across = (s.ow + s.tile - 1) / s.tile, down = (s.oh + s.tile - 1) / s.tile;
  const int ox = int(blockIdx.x % across) * s.tile, oy = int(blockIdx.x / across % down) * s.tile;
  const int64_t plane = blockIdx.x / across / down;
  // the tile of m starts where a sample of x meets the first tap
  const int left = s.p1x + floor_to(ox * s.d - s.p2x - s.p1x, s.u);
  const int top = s.p1y + floor_to(oy * s.d - s.p2y - s.p1y, s.u);
  const int x_left = (left - s.p1x) / s.u, x_top = (top - s.p1y) / s.u;
  const M bias = b ? b[plane % s.c] : M(0);
  x += plane * s.h * s.w;
  y += plane * s.oh * s.ow;
  for (int i = threadIdx.x; i < s.k1; i += LRELU_THREADS) f1[i] = tap_x(f, i);
  for (int i = threadIdx.x; i < s.k2; i += LRELU_THREADS) f2[i] = gain2 * tap_y(f, i);
  for (int i = threadIdx.x; i < s.in * s.in; i += LRELU_THREADS) {
    const int r = i / s.in, c = i % s.in, row = x_top + r, col = x_left + c;
    const bool inside = unsigned(row) < unsigned(s.h) && unsigned(col) < unsigned(s.w);
    one[r * in_pitch + c] = inside ? widen(x[int64_t(row) * s.w + col]) + bias : M(0);
  }
  __syncthreads();
  enlarge<U>(one, in_pitch, 1, two, mid_pitch, 1, s.in, s.mid, f1, s.u, s.k1);
  __syncthreads();
  enlarge<U>(two, 1, mid_pitch, one, 1, mid_pitch, s.mid, s.mid, f1, s.u, s.k1);
  __syncthreads();
  const bool last_x = ox + s.tile >= s.ow, last_y = oy + s.tile >= s.oh;
  activate_tile(one, mid_pitch, bits + plane * s.mh * ((s.mw + 3) / 4), s, top, left, oy * s.d,
                last_y ? s.mh : (oy + s.tile) * s.d, ox * s.d,
                last_x ? s.mw : (ox + s.tile) * s.d, slope, gain, clamp);
  __syncthreads();
  reduce<D>(one + ox * s.d - s.p2x - left, mid_pitch, 1, s.mid, s.tile, f2, s.d, s.k2,
            [&](int line, int o, M v) { two[line * out_pitch + o] = v; });
  __syncthreads();
  reduce<D>(two + (oy * s.d - s.p2y - top) * out_pitch, 1, out_pitch, s.tile, s.tile, f2, s.d, s.k2,
            [&](int line, int o, M v) {
              if (oy + o < s.oh && ox + line < s.ow)
                y[int64_t(oy + o) * s.ow + ox + line] = narrow<T>(v);
            });
}

}  // namespace fir
