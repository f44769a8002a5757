// upfirdn2d on channels-last float32 tensors: for each output pixel the taps that meet a sample.
// A contiguous NCHW tensor is one of N * C images with one channel.
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

// out[i] = sum over rows of f * x[row, i]: a whole row of all channels.
inline void combine_rows(const float* x, const float* f, float* out, int64_t length,
                         const std::vector<Tap>& rows) {
  int64_t i = 0;
  for (; i + 4 * VL <= length; i += 4 * VL) {
    vec acc[4] = {};
    for (const Tap& r : rows) {
      const vec g = splat(f[r.tap]);
      for (int j = 0; j < 4; j++) acc[j] += g * load(x + r.from * length + i + j * VL);
    }
    for (int j = 0; j < 4; j++) store(out + i + j * VL, acc[j]);
  }
  for (; i < length; i++) {
    float acc = 0;
    for (const Tap& r : rows) acc += f[r.tap] * x[r.from * length + i];
    out[i] = acc;
  }
}

// One output pixel from a row: VECS vectors of channels.
template <int VECS>
inline void combine_pixels(const float* row, const float* f, float* y, int c,
                           const std::vector<Tap>& cols) {
  vec acc[VECS] = {};
  for (const Tap& k : cols) {
    const vec g = splat(f[k.tap]);
    for (int j = 0; j < VECS; j++) acc[j] += g * load(row + int64_t(k.from) * c + j * VL);
  }
  for (int j = 0; j < VECS; j++) store(y + j * VL, acc[j]);
}

// One output row of few channels: the outputs of one phase (every `up`-th) meet the same taps, on
// samples `down` apart, so the loop over outputs is the inner one.
inline void combine_columns(const float* row, const float* f, float* y, float* sums, int w, int c,
                            int ow, int length, int up, int down, int pad) {
  for (int phase = 0; phase < up && phase < ow; phase++) {
    const int count = (ow - phase + up - 1) / up, start = phase * down - pad;
    std::fill(sums, sums + int64_t(count) * c, 0.f);
    for (int k = ((-start) % up + up) % up; k < length; k += up) {
      const int from = (start + k) / up;  // exact
      const int low = from < 0 ? (-from + down - 1) / down : 0;
      const int high = from < w ? std::min<int64_t>(count, (w - 1 - from) / down + 1) : 0;
      const float* at = row + int64_t(from) * c;
      if (c == 1 && down == 1)
        for (int t = low; t < high; t++) sums[t] += f[k] * at[t];
      else if (c == 1 && down == 2)
        for (int t = low; t < high; t++) sums[t] += f[k] * at[2 * t];
      else
        for (int t = low; t < high; t++)
          for (int i = 0; i < c; i++) sums[t * c + i] += f[k] * at[int64_t(t) * down * c + i];
    }
    for (int t = 0; t < count; t++)
      for (int i = 0; i < c; i++) y[(int64_t(t) * up + phase) * c + i] = sums[t * c + i];
  }
}

// The taps as a correlation, times a gain.
std::vector<float> turned(const float* f, int length, bool flip, float gain) {
  std::vector<float> all(f, f + length);
  if (!flip) std::reverse(all.begin(), all.end());
  for (float& v : all) v *= gain;
  return all;
}

}  // namespace

extern "C" {

// y[n, oh, ow, c] from x[n, h, w, c] with the filter f[fh, fw].
void upfirdn2d_cpu(const float* x, const float* taps2d, float* y, int64_t n, int64_t h, int64_t w,
                   int64_t c, int64_t oh, int64_t ow, int64_t fh, int64_t fw, int64_t ux,
                   int64_t uy, int64_t dx, int64_t dy, int64_t px, int64_t py, int64_t flip,
                   double gain, int64_t threads) {
  const auto rows = taps(h, oh, uy, dy, py, fh), cols = taps(w, ow, ux, dx, px, fw);
  const auto f = turned(taps2d, fh * fw, flip, gain);
#pragma omp parallel for schedule(static) num_threads(int(threads))
  for (int64_t line = 0; line < n * oh; line++) {
    const float* image = x + line / oh * h * w * c;
    for (int64_t o = 0; o < ow; o++) {
      float* out = y + (line * ow + o) * c;
      const auto &r = rows[line % oh], &k = cols[o];
      int64_t at = 0;
      for (; at + 4 * VL <= c; at += 4 * VL)
        pixel<4>(image + at, f.data(), out + at, w, c, fw, r, k);
      for (; at + VL <= c; at += VL) pixel<1>(image + at, f.data(), out + at, w, c, fw, r, k);
      for (; at < c; at++) single(image + at, f.data(), out + at, w, c, fw, r, k);
    }
  }
}

// The same with the filter fy[fh] x fx[fw]: rows first, into a buffer, then columns.
void upfirdn2d_separable_cpu(const float* x, const float* fx, const float* fy, float* y, int64_t n,
                             int64_t h, int64_t w, int64_t c, int64_t oh, int64_t ow, int64_t fh,
                             int64_t fw, int64_t ux, int64_t uy, int64_t dx, int64_t dy,
                             int64_t px, int64_t py, int64_t flip, double gain, int64_t threads) {
  const auto rows = taps(h, oh, uy, dy, py, fh), cols = taps(w, ow, ux, dx, px, fw);
  const auto gx = turned(fx, fw, flip, gain), gy = turned(fy, fh, flip, 1);
#pragma omp parallel num_threads(int(threads))
  {
    std::vector<float> row(w * c), sums(c < VL ? (ow / ux + 1) * c : 0);
#pragma omp for schedule(static)
    for (int64_t line = 0; line < n * oh; line++) {
      float* out = y + line * ow * c;
      combine_rows(x + line / oh * h * w * c, gy.data(), row.data(), w * c, rows[line % oh]);
      if (c < VL) {
        combine_columns(row.data(), gx.data(), out, sums.data(), w, c, ow, fw, ux, dx, px);
        continue;
      }
      for (int64_t o = 0; o < ow; o++, out += c) {
        int64_t at = 0;
        for (; at + 4 * VL <= c; at += 4 * VL)
          combine_pixels<4>(row.data() + at, gx.data(), out + at, c, cols[o]);
        for (; at + VL <= c; at += VL)
          combine_pixels<1>(row.data() + at, gx.data(), out + at, c, cols[o]);
        for (; at < c; at++) {
          float acc = 0;
          for (const Tap& k : cols[o]) acc += gx[k.tap] * row[int64_t(k.from) * c + at];
          out[at] = acc;
        }
      }
    }
  }
}

}  // extern "C"
