// The parts of resampling on the CPU: which taps meet which samples, and rows of sums.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "vector.h"

namespace {

struct Tap {
  int from, tap;  // input index, filter index
};

// For each output index the taps that fall on an inserted sample inside the input.
inline std::vector<std::vector<Tap>> taps(int size, int out, int up, int down, int pad, int length) {
  std::vector<std::vector<Tap>> all(out);
  for (int o = 0; o < out; o++)
    for (int k = 0; k < length; k++) {
      const int at = o * down + k - pad;
      if (at >= 0 && at % up == 0 && at / up < size) all[o].push_back({at / up, k});
    }
  return all;
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

// One output row of one channel. The samples that one phase of the outputs (every `up`-th) meets
// under one tap are `down` apart, so they are first dealt to `down` lines with zeros around them.
inline void combine_columns(const float* row, const float* f, float* y, std::vector<float>& scratch,
                            int w, int ow, int length, int up, int down, int pad) {
  constexpr int STEP = 4 * VL;
  const int left = pad > 0 ? (pad + up - 1) / up : 0;
  const int last = std::max(((ow - 1) * down - pad + length - 1) / up, 0);
  const int line = (left + last) / down + 2 + STEP, count = (ow + up - 1) / up;
  scratch.assign(size_t(down) * line + count + STEP, 0.f);
  for (int q = 0; q < down; q++) {
    float* to = scratch.data() + q * line;
    int i = left > q ? (left - q + down - 1) / down : 0;
    const float* from = row + i * down + q - left;
    const int reach = w - 1 + left - q;  // negative: no sample on this line
    const int end = reach < 0 ? 0 : std::min(line, reach / down + 1);
    if (down == 1) std::copy(from, from + std::max(end - i, 0), to + i);
    else if (down == 2) for (int j = 0; j < end - i; j++) to[i + j] = from[2 * j];
    else for (int j = 0; j < end - i; j++) to[i + j] = from[int64_t(j) * down];
  }
  float* sums = scratch.data() + size_t(down) * line;
  for (int phase = 0; phase < up && phase < ow; phase++) {
    const int some = (ow - phase + up - 1) / up, start = phase * down - pad;
    const int first = ((-start) % up + up) % up;
    for (int t = 0; t < some; t += STEP) {
      vec acc[4] = {};
      for (int k = first; k < length; k += up) {
        const int at = (start + k) / up + left;  // exact
        const float* from = scratch.data() + at % down * line + at / down + t;
        const vec g = splat(f[k]);
        for (int j = 0; j < 4; j++) acc[j] += g * load(from + j * VL);
      }
      for (int j = 0; j < 4; j++) store(sums + t + j * VL, acc[j]);
    }
    if (up == 1) std::copy(sums, sums + some, y);
    else if (up == 2) for (int t = 0; t < some; t++) y[2 * t + phase] = sums[t];
    else for (int t = 0; t < some; t++) y[t * up + phase] = sums[t];
  }
}

// The taps as a correlation, times a gain.
inline std::vector<float> turned(const float* f, int length, bool flip, float gain) {
  std::vector<float> all(f, f + length);
  if (!flip) std::reverse(all.begin(), all.end());
  for (float& v : all) v *= gain;
  return all;
}

}  // namespace
