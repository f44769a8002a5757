// Launches of the passes in pointwise.cuh.
#include "pointwise.cuh"

extern "C" int pointwise(const void* y, const void* scale, const void* noise, const void* bias,
                         void* z, int64_t samples, int64_t rows, int64_t columns,
                         int64_t channels, int64_t noise_stride, int64_t pixels, int64_t vector,
                         int64_t lanes, int64_t steps, int64_t kind, double slope, double gain,
                         double limit, int dtype, void* stream) {
  const Cut cut{samples, rows, columns, channels, noise_stride, pixels, vector, lanes, steps};
  return choose_kernel(cut, dtype, kind, slope, gain, limit, [&](const auto& chosen) {
    using K = std::decay_t<decltype(chosen)>;
    using T = typename K::T;
    using M = typename K::M;
    const Operands<M> in{(const M*)scale, (const M*)noise, (const M*)bias, noise_stride};
    LAUNCH((value_kernel<T, K::V, K::PIXELS, K::SMOOTH>), chosen.grid, chosen.block, 0,
           stream, (const T*)y, in, (T*)z, chosen.curve, chosen.tile);
  });
}
