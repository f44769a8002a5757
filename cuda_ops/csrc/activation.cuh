// Activations with their first and second derivatives, and the clamp behind them.
#pragma once
#include <cmath>
#include <cstring>

#include "device.cuh"

// The codes of the activations, as in scale_act.py. PIECEWISE is leaky relu with any slope: also
// the identity (1) and relu (0).
enum Kind { PIECEWISE = 0, TANH, SIGMOID, ELU, SELU, SOFTPLUS, SWISH };

// f(v), f'(v), f''(v); what is not used is not computed.
template <class M>
struct Jet {
  M value, first, second;
};

// 1 / v for v >= 1; in float within 2 ulp, at a third of the instructions of a division.
__device__ __forceinline__ double reciprocal(double v) { return 1 / v; }
__device__ __forceinline__ float reciprocal(float v) { return __fdividef(1.f, v); }

template <class M>
__device__ __forceinline__ M logistic(M v) {
  return reciprocal(1 + exp(-v));
}

struct Tanh {
  template <class M>
  __device__ __forceinline__ Jet<M> operator()(M v) const {
    const M t = tanh(v), d = 1 - t * t;
    return {t, d, -2 * t * d};
  }
};
struct Sigmoid {
  template <class M>
  __device__ __forceinline__ Jet<M> operator()(M v) const {
    const M s = logistic(v), d = s * (1 - s);
    return {s, d, d * (1 - 2 * s)};
  }
};
struct Elu {
  template <class M>
  __device__ __forceinline__ Jet<M> operator()(M v) const {
    const M e = exp(v);
    return {v > 0 ? v : expm1(v), v > 0 ? M(1) : e, v > 0 ? M(0) : e};
  }
};
struct Selu {  // Klambauer et al. 2017
  template <class M>
  __device__ __forceinline__ Jet<M> operator()(M v) const {
    const M scale = M(1.0507009873554804934193349852946),
            bend = scale * M(1.6732632423543772848170429916717), e = bend * exp(v);
    return {v > 0 ? scale * v : bend * expm1(v), v > 0 ? scale : e, v > 0 ? M(0) : e};
  }
};
struct Softplus {
  template <class M>
  __device__ __forceinline__ Jet<M> operator()(M v) const {
    const M s = logistic(v);
    return {(v > 0 ? v : M(0)) + log1p(exp(v > 0 ? -v : v)), s, s * (1 - s)};
  }
};
struct Swish {
  template <class M>
  __device__ __forceinline__ Jet<M> operator()(M v) const {
    const M s = logistic(v), d = s * (1 - s);
    return {v * s, s + v * d, d * (2 + v * (1 - 2 * s))};
  }
};

// gain * act(v), clamped to [-limit, limit] (limit: infinity if there is none).
template <class M>
struct Curve {
  int kind;
  M slope, gain, limit;

  // Calls f(act) with the activation, an object with constant type: the branch is uniform.
  template <class F>
  __device__ __forceinline__ void smooth(F f) const {
    switch (kind) {
      case TANH: return f(Tanh{});
      case SIGMOID: return f(Sigmoid{});
      case ELU: return f(Elu{});
      case SELU: return f(Selu{});
      case SOFTPLUS: return f(Softplus{});
      default: return f(Swish{});
    }
  }
  template <bool SMOOTH, class F>
  __device__ __forceinline__ void with(F f) const {
    if constexpr (SMOOTH) {
      smooth(f);
    } else {
      const M low = slope;
      f([low](M v) {  // relu of -infinity is 0
        return Jet<M>{v > 0 ? v : low == 0 && v < 0 ? M(0) : low * v, v > 0 ? M(1) : low, M(0)};
      });
    }
  }
  __device__ __forceinline__ M clamped(M v) const {  // lets NaN through; two selects, no branch
    const M low = v < -limit ? -limit : v;
    return low > limit ? limit : low;
  }
  // The derivatives of the whole; zero where clamped, not where the limit is just met.
  __device__ __forceinline__ Jet<M> operator()(const Jet<M>& act) const {
    const M z = gain * act.value;
    const M inside = (z < 0 ? -z : z) > limit ? M(0) : gain;
    return {z, inside * act.first, inside * act.second};
  }
};
