// What follows a convolution: z = gain * lrelu(scale[n, c] * y + noise[n, p] + bias[c]).
#pragma once
#include <cstdint>

#include "vector.h"

static inline vec choose(vec where_positive, vec yes, vec no) {
  return where_positive > 0 ? yes : no;
}

// slope = 1 is the identity; missing scale, noise, bias are null.
struct Tail {
  const float *scale, *noise, *bias;
  int64_t channels, pixels, noise_stride;  // noise_stride: 0 if all samples share the noise
  float slope, gain;

  bool empty() const { return !scale && !noise && !bias && slope == 1 && gain == 1; }
  vec linear(vec y, int64_t n, int64_t p, int64_t c) const {
    if (scale) y *= load(scale + n * channels + c);
    if (noise) y += noise[n * noise_stride + p];
    if (bias) y += load(bias + c);
    return y;
  }
  vec activate(vec v) const {  // relu of -infinity is 0, of NaN NaN
    const vec below = v * (slope * gain);
    return choose(v, v * gain, slope == 0 ? choose(-v, vec{}, below) : below);
  }
  vec operator()(vec y, int64_t n, int64_t p, int64_t c) const {
    return activate(linear(y, n, p, c));
  }
  // y again from z, for slope and gain above zero.
  vec inverse(vec z, int64_t n, int64_t p, int64_t c) const {
    vec v = choose(z, z * (1 / gain), z * (1 / (slope * gain)));
    if (noise) v -= noise[n * noise_stride + p];
    if (bias) v -= load(bias + c);
    return scale ? v / load(scale + n * channels + c) : v;
  }
};
