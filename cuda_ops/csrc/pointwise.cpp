// The tail of a convolution as an operation of its own, its gradients and theirs, each in one pass.
// Channels-last [n, p, c] throughout, c at least VL; clamp < 0: none.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "tail.h"

namespace {

// dz/dv: gain or gain * slope, zero where clamped.
struct Slopes {
  float slope, gain, clamp;

  vec operator()(vec v) const {
    const vec here = choose(v, splat(gain), splat(gain * slope));
    if (clamp < 0) return here;
    const vec size = v * here;
    return choose(choose(size, size, -size) - clamp, vec{}, here);
  }
};

// Calls f(first, once) for vectors that cover all channels. The last may overlap the one before it:
// then once(v) is zero in the channels already seen, for sums.
template <class F>
void each_vector(int64_t channels, F f) {
  const int64_t whole = channels / VL * VL;
  for (int64_t c = 0; c < whole; c += VL) f(c, [](vec v) { return v; });
  if (whole == channels) return;
  vec fresh = {};
  for (int64_t l = whole + VL - channels; l < VL; l++) fresh[l] = 1;
  f(channels - VL, [fresh](vec v) { return v * fresh; });
}

}  // namespace

extern "C" {

// z = clamp(tail(y)).
void scale_act_cpu(const float* y, const float* scale, const float* noise, const float* bias,
                   float* z, int64_t n, int64_t p, int64_t c, int64_t noise_stride, float slope,
                   float gain, float clamp, int threads) {
  const Tail tail{scale, noise, bias, c, p, noise_stride, slope, gain};
  const vec top = splat(clamp), bottom = splat(-clamp);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n * p; i++)
    each_vector(c, [&, i](int64_t k, auto) {
      vec v = tail(load(y + i * c + k), i / p, i % p, k);
      if (clamp >= 0) v = choose(v - top, top, choose(bottom - v, bottom, v));
      store(z + i * c + k, v);
    });
}

// dy[n, p, c]; sums over the pixels of each of `parts` parts of a sample: dscale and dbias
// [n, parts, c]; sum over the channels: dnoise [n, p]. Null where not asked for. `y` is the input
// or, if `from_output`, the output of scale_act without a clamp.
void scale_act_grad_cpu(const float* dz, const float* y, const float* scale, const float* noise,
                        const float* bias, float* dy, float* dscale, float* dbias, float* dnoise,
                        int64_t n, int64_t p, int64_t c, int64_t noise_stride, int64_t parts,
                        float slope, float gain, float clamp, int from_output, int threads) {
  const Tail tail{scale, noise, bias, c, p, noise_stride, slope, gain};
  const Slopes slopes{slope, gain, clamp};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < n * parts; part++) {
    const int64_t s = part / parts, first = part % parts * p / parts;
    const int64_t last = (part % parts + 1) * p / parts;
    std::vector<float> sums(2 * c);
    float *sum_scale = sums.data(), *sum_bias = sum_scale + c;
    for (int64_t q = first; q < last; q++) {
      vec total = {};
      each_vector(c, [&, s, q](int64_t k, auto once) {
        const int64_t at = (s * p + q) * c + k;
        const vec saved = load(y + at);
        const vec v = from_output ? saved : tail.linear(saved, s, q, k);
        vec g = load(dz + at) * slopes(v);
        if (dnoise) total += once(g);
        if (dbias) store(sum_bias + k, load(sum_bias + k) + once(g));
        if (dscale) {
          const vec raw = from_output ? tail.inverse(saved, s, q, k) : saved;
          store(sum_scale + k, load(sum_scale + k) + once(g * raw));
        }
        if (scale) g *= load(scale + s * c + k);
        store(dy + at, g);
      });
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

// The gradients of <hy, dy> + <hs, dscale> + <hn, dnoise> + <hb, dbias>, with m = dz/dv:
//   dg = m * (hy * scale + hs * y + hn + hb),  gy = m * hs * g,  gscale = sum_p m * hy * g
// Any of hy, hs, hn, hb, gy, gscale [n, parts, c] may be null.
void scale_act_second_cpu(const float* hy, const float* hs, const float* hn, const float* hb,
                          const float* g, const float* y, const float* scale, const float* noise,
                          const float* bias, float* dg, float* gy, float* gscale, int64_t n,
                          int64_t p, int64_t c, int64_t noise_stride, int64_t parts, float slope,
                          float gain, float clamp, int from_output, int threads) {
  const Tail tail{scale, noise, bias, c, p, noise_stride, slope, gain};
  const Slopes slopes{slope, gain, clamp};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < n * parts; part++) {
    const int64_t s = part / parts, first = part % parts * p / parts;
    const int64_t last = (part % parts + 1) * p / parts;
    std::vector<float> sum(c);
    for (int64_t q = first; q < last; q++)
      each_vector(c, [&, s, q](int64_t k, auto once) {
        const int64_t at = (s * p + q) * c + k;
        const vec saved = load(y + at);
        const vec m = slopes(from_output ? saved : tail.linear(saved, s, q, k));
        vec t = {};
        if (hy) {
          t = load(hy + at);
          if (gscale) store(&sum[k], load(&sum[k]) + once(t * load(g + at) * m));
          if (scale) t *= load(scale + s * c + k);
        }
        if (hn) t += hn[s * noise_stride + q];
        if (hb) t += load(hb + k);
        if (hs) {
          const vec h = load(hs + s * c + k);
          t += h * saved;
          if (gy) store(gy + at, h * load(g + at) * m);
        }
        store(dg + at, t * m);
      });
    if (gscale) std::copy_n(sum.data(), c, gscale + part * c);
  }
}

}  // extern "C"
