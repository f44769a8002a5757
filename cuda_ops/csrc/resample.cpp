// upfirdn2d on channels-last float32 tensors: for each output pixel the taps that meet a sample.
// A contiguous NCHW tensor is one of N * C images with one channel.
#include "resample.h"

namespace {

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
    std::vector<float> row(w * c), scratch;
#pragma omp for schedule(static)
    for (int64_t line = 0; line < n * oh; line++) {
      float* out = y + line * ow * c;
      combine_rows(x + line / oh * h * w * c, gy.data(), row.data(), w * c, rows[line % oh]);
      if (c == 1) {
        combine_columns(row.data(), gx.data(), out, scratch, w, ow, fw, ux, dx, px);
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
