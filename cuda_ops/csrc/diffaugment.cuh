// Colour, translation and cutout in one pass over the pixels, and the adjoint of it.
//
//   f(x) = c s x + c (1 - s) grey(x) + (1 - c) mean(x)  [+ b]
//   y(p) = f(x)(p - shift) where that is inside and p is outside the hole, else 0
//
// with the mean over channels (grey) and over the whole image. f without b is its own adjoint, so
// the adjoint is f after the inverse translation of what lies outside the hole. The mean is summed
// in parts of fixed size in a fixed order.
#pragma once
#include "device.cuh"

namespace {

constexpr int THREADS = 256, PART = 4096;  // pixels of one partial sum

struct ImageShape {
  int channels, height, width, parts;
  int64_t xs[4], ys[4];  // strides in elements
  bool linear;           // leave out the brightness
};

// Where pixel (row, column) of an image goes to or comes from.
struct Place {
  int down, right;
  float centre_x, centre_y, half;

  // shifts [n, 2] (down, right) and holes [n, 3] (x, y, half; unit: the side), or null.
  __device__ __forceinline__ void read(const int* shifts, const float* holes, int64_t n) {
    down = shifts ? shifts[2 * n] : 0;
    right = shifts ? shifts[2 * n + 1] : 0;
    centre_x = holes ? holes[3 * n] : 0;
    centre_y = holes ? holes[3 * n + 1] : 0;
    half = holes ? holes[3 * n + 2] : 0;
  }
  __device__ __forceinline__ bool in_hole(const ImageShape& s, int row, int column) const {
    return half > 0 && fabsf((column + 0.5f) / s.width - centre_x) < half &&
           fabsf((row + 0.5f) / s.height - centre_y) < half;
  }
};

__device__ __forceinline__ bool inside(const ImageShape& s, int row, int column) {
  return row >= 0 && row < s.height && column >= 0 && column < s.width;
}

// sums[n, parts]. Grid: parts, images (strided over, as there may be many).
template <class T, bool ADJOINT>
__global__ void __launch_bounds__(THREADS)
part_sums(const T* x, const int* shifts, const float* holes, math_t<T>* sums, int64_t images,
          ImageShape s) {
  using M = math_t<T>;
  __shared__ M all[THREADS];
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    Place place;
    place.read(shifts, holes, n);
    const int64_t end = min(int64_t(s.height) * s.width, (int64_t(blockIdx.x) + 1) * PART);
    M sum = 0;
    for (int64_t i = int64_t(blockIdx.x) * PART + threadIdx.x; i < end; i += THREADS) {
      const int row = int(i / s.width), column = int(i % s.width);
      if (ADJOINT && (place.in_hole(s, row, column) ||
                      !inside(s, row - place.down, column - place.right)))
        continue;
      const T* at = x + n * s.xs[0] + row * s.xs[2] + column * s.xs[3];
      for (int c = 0; c < s.channels; c++) sum += widen(at[c * s.xs[1]]);
    }
    all[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
      __syncthreads();
      if (int(threadIdx.x) < half) all[threadIdx.x] += all[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[n * s.parts + blockIdx.x] = all[0];
    __syncthreads();
  }
}

// Adds up each image's partial sums, in one order, into the first. One warp an image.
template <class M>
__global__ void add_parts(M* sums, int64_t images, int parts) {
  for (int64_t n = blockIdx.x; n < images; n += gridDim.x) {
    M sum = 0;
    for (int part = int(threadIdx.x); part < parts; part += 32) sum += sums[n * parts + part];
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x == 0) sums[n * parts] = sum;
  }
}

// Grid: groups of pixels, images. factors [n, 3] (b, s, c) in the type of the arithmetic, or null.
template <class T, bool ADJOINT>
__global__ void __launch_bounds__(THREADS)
augment(const T* x, const math_t<T>* factors, const int* shifts, const float* holes,
        const math_t<T>* sums, T* y, int64_t images, ImageShape s) {
  using M = math_t<T>;
  const int64_t pixels = int64_t(s.height) * s.width;
  const int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= pixels) return;
  const int row = int(i / s.width), column = int(i % s.width);
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    Place place;
    place.read(shifts, holes, n);
    const int sign = ADJOINT ? 1 : -1;
    const int from_row = row + sign * place.down, from_column = column + sign * place.right;
    bool shown = inside(s, from_row, from_column);
    if constexpr (ADJOINT) shown = shown && !place.in_hole(s, from_row, from_column);
    else shown = shown && !place.in_hole(s, row, column);
    T* to = y + n * s.ys[0] + row * s.ys[2] + column * s.ys[3];
    const T* from = x + n * s.xs[0] + from_row * s.xs[2] + from_column * s.xs[3];
    if (!factors) {
      for (int c = 0; c < s.channels; c++)
        to[c * s.ys[1]] = shown ? from[c * s.xs[1]] : narrow<T>(M(0));
      continue;
    }
    M grey = 0;
    const M mean = sums[n * s.parts] / M(pixels * s.channels);
    if (shown)
      for (int c = 0; c < s.channels; c++) grey += widen(from[c * s.xs[1]]);
    grey /= s.channels;
    const M contrast = factors[3 * n + 2], own = contrast * factors[3 * n + 1];
    const M rest = (contrast - own) * grey + (1 - contrast) * mean +
                   (s.linear ? M(0) : factors[3 * n]);
    for (int c = 0; c < s.channels; c++) {
      const M value = shown ? own * widen(from[c * s.xs[1]]) + rest : ADJOINT ? rest : M(0);
      to[c * s.ys[1]] = narrow<T>(value);
    }
  }
}

}  // namespace
