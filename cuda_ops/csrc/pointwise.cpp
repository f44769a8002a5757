// The tail of a convolution as an operation of its own, with all its gradients in one pass.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "tail.h"

extern "C" {

// z = clamp(tail(y)); clamp < 0: none. Channels-last [n, p, c], c a multiple of VL.
void scale_act_cpu(const float* y, const float* scale, const float* noise, const float* bias,
                   float* z, int64_t n, int64_t p, int64_t c, int64_t noise_stride, float slope,
                   float gain, float clamp, int threads) {
  const Tail tail{scale, noise, bias, c, p, noise_stride, slope, gain};
  const vec top = splat(clamp), bottom = splat(-clamp);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n * p; i++)
    for (int64_t k = 0; k < c; k += VL) {
      vec v = tail(load(y + i * c + k), i / p, i % p, k);
      if (clamp >= 0) v = choose(v - top, top, choose(bottom - v, bottom, v));
      store(z + i * c + k, v);
    }
}

// dy[n, p, c]; sums over the pixels of each of `parts` parts of a sample: dscale and dbias
// [n, parts, c]; sum over the channels: dnoise [n, p]. Null where not asked for. `y` is the input
// or, if `from_output`, the output of scale_act without a clamp.
void scale_act_grad_cpu(const float* dz, const float* y, const float* scale, const float* noise,
                        const float* bias, float* dy, float* dscale, float* dbias, float* dnoise,
                        int64_t n, int64_t p, int64_t c, int64_t noise_stride, int64_t parts,
                        float slope, float gain, float clamp, int from_output, int threads) {
  const Tail tail{scale, noise, bias, c, p, noise_stride, slope, gain};
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
        const int64_t at = (s * p + q) * c + k;
        const vec saved = load(y + at), v = from_output ? saved : tail.linear(saved, s, q, k);
        vec slope_here = choose(v, up, low);
        if (clamp >= 0) {
          const vec size = v * slope_here;
          slope_here = choose(choose(size, size, -size) - clamp, zero, slope_here);
        }
        vec g = load(dz + at) * slope_here;
        if (dnoise) total += g;
        if (dbias) store(sum_bias + k, load(sum_bias + k) + g);
        if (dscale) {
          const vec raw = from_output ? tail.inverse(saved, s, q, k) : saved;
          store(sum_scale + k, load(sum_scale + k) + g * raw);
        }
        if (scale) g *= load(scale + s * c + k);
        store(dy + at, g);
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
