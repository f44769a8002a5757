// What follows a convolution: z = gain * lrelu(scale[n, c] * y + noise[n, p] + bias[c]).
#pragma once
#include <cstdint>

#include "vector.h"

static inline vec choose(vec where_positive, vec yes, vec no) {
  return where_positive > 0 ? yes : no;
}

// Access to a whole vector of channels, or to the first few of one (the others read as zero).
struct Whole {
  vec get(const float* p) const { return load(p); }
  void put(float* p, vec v) const { store(p, v); }
};
struct Few {
  int64_t count;
  vec get(const float* p) const {
    vec v = {};
    std::memcpy(&v, p, count * sizeof(float));
    return v;
  }
  void put(float* p, vec v) const { std::memcpy(p, &v, count * sizeof(float)); }
};

// Calls f(first, lanes) for each vector of `channels`.
template <class F>
static inline void each_vector(int64_t channels, F f) {
  const int64_t whole = channels / VL * VL;
  for (int64_t c = 0; c < whole; c += VL) f(c, Whole{});
  if (whole < channels) f(whole, Few{channels - whole});
}

// slope = 1 is the identity; missing scale, noise, bias are null.
struct Tail {
  const float *scale, *noise, *bias;
  int64_t channels, pixels, noise_stride;  // noise_stride: 0 if all samples share the noise
  float slope, gain;

  bool empty() const { return !scale && !noise && !bias && slope == 1 && gain == 1; }
  template <class Lanes = Whole>
  vec linear(vec y, int64_t n, int64_t p, int64_t c, Lanes lanes = {}) const {
    if (scale) y *= lanes.get(scale + n * channels + c);
    if (noise) y += noise[n * noise_stride + p];
    if (bias) y += lanes.get(bias + c);
    return y;
  }
  vec activate(vec v) const { return choose(v, v * gain, v * (slope * gain)); }
  template <class Lanes = Whole>
  vec operator()(vec y, int64_t n, int64_t p, int64_t c, Lanes lanes = {}) const {
    return activate(linear(y, n, p, c, lanes));
  }
  // y again from z, for slope and gain above zero.
  template <class Lanes = Whole>
  vec inverse(vec z, int64_t n, int64_t p, int64_t c, Lanes lanes = {}) const {
    vec v = choose(z, z * (1 / gain), z * (1 / (slope * gain)));
    if (noise) v -= noise[n * noise_stride + p];
    if (bias) v -= lanes.get(bias + c);
    return scale ? v / lanes.get(scale + n * channels + c) : v;
  }
};
