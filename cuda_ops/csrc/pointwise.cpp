// z = clamp(gain * lrelu(scale[n, c] * y + noise[n, p] + bias[c])) on channels-last tensors, with
// all gradients in one pass. slope = 1 is the identity; missing scale, noise, bias are null.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "vector.h"

namespace {

struct Arguments {
  const float *y, *scale, *noise, *bias;
  int64_t n, p, c;          // samples, pixels, channels (a multiple of VL)
  int64_t noise_stride;     // 0 if all samples share the noise
  float slope, gain, clamp;  // clamp < 0: none
};

inline vec choose(vec condition_positive, vec yes, vec no) {
  return condition_positive > 0 ? yes : no;
}

// scale * y + noise + bias at channel c of pixel p of sample n.
inline vec before(const Arguments& a, int64_t n, int64_t p, int64_t c) {
  vec v = load(a.y + (n * a.p + p) * a.c + c);
  if (a.scale) v *= load(a.scale + n * a.c + c);
  if (a.noise) v += a.noise[n * a.noise_stride + p];
  if (a.bias) v += load(a.bias + c);
  return v;
}

}  // namespace

extern "C" {

void scale_act_cpu(const float* y, const float* scale, const float* noise, const float* bias,
                   float* z, int64_t n, int64_t p, int64_t c, int64_t noise_stride, float slope,
                   float gain, float clamp, int threads) {
  const Arguments a{y, scale, noise, bias, n, p, c, noise_stride, slope, gain, clamp};
  const vec top = splat(clamp), bottom = splat(-clamp);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n * p; i++)
    for (int64_t k = 0; k < c; k += VL) {
      vec v = before(a, i / p, i % p, k);
      v = choose(v, v * gain, v * (slope * gain));
      if (clamp >= 0) v = choose(v - top, top, choose(bottom - v, bottom, v));
      store(z + i * c + k, v);
    }
}

// dy[n, p, c]; sums over the pixels of each of `parts` parts of a sample: dscale and dbias
// [n, parts, c]; sum over the channels: dnoise [n, p]. Null where not asked for.
void scale_act_grad_cpu(const float* dz, const float* y, const float* scale, const float* noise,
                        const float* bias, float* dy, float* dscale, float* dbias, float* dnoise,
                        int64_t n, int64_t p, int64_t c, int64_t noise_stride, int64_t parts,
                        float slope, float gain, float clamp, int threads) {
  const Arguments a{y, scale, noise, bias, n, p, c, noise_stride, slope, gain, clamp};
  const vec up = splat(gain), low = splat(gain * slope), zero = {};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < n * parts; part++) {
    const int64_t s = part / parts, first = part % parts * p / parts;
    const int64_t last = (part % parts + 1) * p / parts;
    std::vector<float> sums(2 * c);
    float *sum_scale = sums.data(), *sum_bias = sum_scale + c;
    for (int64_t q = first; q < last; q++) {
      vec total = {};
      for (int64_t k = 0; k < c; k += VL) {
        const vec v = before(a, s, q, k);
        vec slope_here = choose(v, up, low);
        if (clamp >= 0) {
          const vec size = v * slope_here;
          slope_here = choose(choose(size, size, -size) - clamp, zero, slope_here);
        }
        vec g = load(dz + (s * p + q) * c + k) * slope_here;
        if (dnoise) total += g;
        if (dbias) store(sum_bias + k, load(sum_bias + k) + g);
        if (dscale) {
          const vec raw = load(y + (s * p + q) * c + k);
          store(sum_scale + k, load(sum_scale + k) + g * raw);
        }
        if (scale) g *= load(scale + s * c + k);
        store(dy + (s * p + q) * c + k, g);
      }
      if (dnoise) {
        float sum = 0;
        for (int l = 0; l < VL; l++) sum += total[l];
        dnoise[s * p + q] = sum;
      }
    }
    if (dscale) std::copy_n(sum_scale, c, dscale + part * c);
    if (dbias) std::copy_n(sum_bias, c, dbias + part * c);
  }
}

}  // extern "C"
