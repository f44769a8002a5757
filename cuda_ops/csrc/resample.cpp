// upfirdn2d on channels-last float32 tensors: for each output pixel the taps that meet a sample.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "vector.h"

namespace {

struct Tap {
  int from, tap;  // input index, filter index
};

// For each output index the taps that fall on an inserted sample inside the input.
std::vector<std::vector<Tap>> taps(int size, int out, int up, int down, int pad, int length) {
  std::vector<std::vector<Tap>> all(out);
  for (int o = 0; o < out; o++)
    for (int k = 0; k < length; k++) {
      const int at = o * down + k - pad;
      if (at >= 0 && at % up == 0 && at / up < size) all[o].push_back({at / up, k});
    }
  return all;
}

// VECS vectors of channels from c on of one output pixel.
template <int VECS>
inline void pixel(const float* x, const float* f, float* y, int w, int c, int fw,
                  const std::vector<Tap>& rows, const std::vector<Tap>& cols) {
  vec acc[VECS] = {};
  for (const Tap& r : rows)
    for (const Tap& k : cols) {
      const float* at = x + (int64_t(r.from) * w + k.from) * c;
      const vec g = splat(f[r.tap * fw + k.tap]);
      for (int j = 0; j < VECS; j++) acc[j] += g * load(at + j * VL);
    }
  for (int j = 0; j < VECS; j++) store(y + j * VL, acc[j]);
}

// One channel.
inline void single(const float* x, const float* f, float* y, int w, int c, int fw,
                   const std::vector<Tap>& rows, const std::vector<Tap>& cols) {
  float acc = 0;
  for (const Tap& r : rows)
    for (const Tap& k : cols)
      acc += f[r.tap * fw + k.tap] * x[(int64_t(r.from) * w + k.from) * c];
  *y = acc;
}

}  // namespace

extern "C" {

// y[n, oh, ow, c] from x[n, h, w, c]; f[fh, fw] is correlated.
void upfirdn2d_cpu(const float* x, const float* f, float* y, int n, int h, int w, int c, int oh,
                   int ow, int fh, int fw, int ux, int uy, int dx, int dy, int px, int py,
                   int threads) {
  const auto rows = taps(h, oh, uy, dy, py, fh), cols = taps(w, ow, ux, dx, px, fw);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t line = 0; line < int64_t(n) * oh; line++) {
    const float* image = x + line / oh * h * w * c;
    for (int o = 0; o < ow; o++) {
      float* out = y + (line * ow + o) * c;
      int at = 0;
      for (; at + 4 * VL <= c; at += 4 * VL)
        pixel<4>(image + at, f, out + at, w, c, fw, rows[line % oh], cols[o]);
      for (; at + VL <= c; at += VL)
        pixel<1>(image + at, f, out + at, w, c, fw, rows[line % oh], cols[o]);
      for (; at < c; at++) single(image + at, f, out + at, w, c, fw, rows[line % oh], cols[o]);
    }
  }
}

}  // extern "C"
