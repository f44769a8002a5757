// Where the pixels of a warp come from; shared by the CPU and the CUDA kernels. The conventions are
// those of warp_ref.py. All places are in double: half an image away, float is off by 1e-5 pixels.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__) || defined(CUDA_OPS_EMULATE)
#define MAP_FUNCTION __device__ __forceinline__
#else
#define MAP_FUNCTION inline
#endif

namespace {

constexpr int TAPS = 12, REACH = TAPS / 2 - 1;  // fine samples show this many pixels beyond an end

// Samples of the twice as fine axis, at pixel (k - centre) / 2 each.
MAP_FUNCTION int fine_size(int size) { return 2 * size + 2 * REACH; }

MAP_FUNCTION int modulo(int a, int n) {
  const int r = a % n;
  return r < 0 ? r + n : r;
}

// The pixel that stands for pixel `at` of the axis continued by reflection.
MAP_FUNCTION int reflected(int at, int size) {
  if (at >= 0 && at < size) return at;
  const int last = size - 1;
  if (!last) return 0;
  const int m = modulo(at, 2 * last);
  return m > last ? 2 * last - m : m;
}

// Calls f(q) for every q in [low, high) with reflected(q - shift) == at.
template <class F>
MAP_FUNCTION void each_reflection(int at, int shift, int low, int high, int size, F f) {
  const int last = size - 1, period = last ? 2 * last : 1;
  const int ways = at == 0 || at == last ? 1 : 2;
  for (int way = 0; way < ways; way++)
    for (int q = low + modulo(shift + (way ? -at : at) - low, period); q < high; q += period) f(q);
}

// A flip, quarter turns and a shift by whole pixels with reflected borders.
struct Blit {
  bool row_flip, column_flip, turned;
  int x, y, size;

  MAP_FUNCTION void read(const int* p, int size_) {  // flip, turns, shift by x and y; null: none
    const int turns = p ? p[1] & 3 : 0;
    const bool flip = p && p[0];
    turned = turns & 1;
    row_flip = turns >= 2;
    column_flip = (turns == 1 || turns == 2) != flip;
    x = p ? p[2] : 0;
    y = p ? p[3] : 0;
    size = size_;
  }
  MAP_FUNCTION bool still() const {
    return !(row_flip || column_flip || turned || x || y);
  }
  // The pixel that is moved to (i, j).
  MAP_FUNCTION void source(int i, int j, int& row, int& column) const {
    const int at_y = reflected(i - y, size), at_x = reflected(j - x, size);
    row = turned ? at_x : at_y;
    column = turned ? at_y : at_x;
    if (row_flip) row = size - 1 - row;
    if (column_flip) column = size - 1 - column;
  }
  // The inverse, before shift and reflection.
  MAP_FUNCTION void unturned(int row, int column, int& at_y, int& at_x) const {
    if (row_flip) row = size - 1 - row;
    if (column_flip) column = size - 1 - column;
    at_y = turned ? column : row;
    at_x = turned ? row : column;
  }
};

// From fine samples (k, j) of the output to places (u, v) among those of the input.
struct Affine {
  double uk, uj, u0, vk, vj, v0;
  double centre, turn, slack;  // first turning point of the reflection, from it to the next
  int fine;

  // `m` [3, 3] from output to input pixels about the image's centre; false: the identity, or null.
  MAP_FUNCTION bool read(const double* m, int size, double centre_) {
    if (!m) return false;
    bool moves = false;
    for (int i = 0; i < 9; i++) moves |= m[i] != (i % 4 ? 0 : 1);
    const double middle = (size - 1) / 2.0, corner = -centre_ - 2 * middle;
    fine = fine_size(size);
    centre = centre_;
    turn = size > 1 ? 2.0 * (size - 1) : 1;
    slack = 5e-5 * (fine - 1);
    uk = m[0], uj = m[1], u0 = 2 * (m[2] + middle) + centre + (m[0] + m[1]) * corner;
    vk = m[3], vj = m[4], v0 = 2 * (m[5] + middle) + centre + (m[3] + m[4]) * corner;
    return moves;
  }
  MAP_FUNCTION double u(int k, int j) const { return fma(uk, double(k), fma(uj, double(j), u0)); }
  MAP_FUNCTION double v(int k, int j) const { return fma(vk, double(k), fma(vj, double(j), v0)); }
  MAP_FUNCTION double top() const { return fine - 1 + slack; }

  // The place that is looked up for `at`: samples just beyond the axis exist and hold its
  // reflection; what lies further is folded back about the first and last pixel.
  MAP_FUNCTION double folded(double at) const {
    if (at >= -slack && at <= top()) return at < 0 ? 0 : at > fine - 1 ? fine - 1 : at;
    const double period = 2 * turn, from = at - centre;
    return centre + turn - fabs(from - floor(from / period) * period - turn);
  }
};

}  // namespace
