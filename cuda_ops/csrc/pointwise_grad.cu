// Launches of the gradient in pointwise.cuh.
#include "pointwise.cuh"

extern "C" int pointwise_grad(const void* g, const void* y, const void* scale, const void* noise,
                              const void* bias, void* dy, void* row_e, void* row_f,
                              void* column_e, void* column_f, int64_t samples, int64_t rows,
                              int64_t columns, int64_t channels, int64_t noise_stride,
                              int64_t pixels, int64_t vector, int64_t lanes, int64_t steps,
                              int64_t kind, int64_t from_output, double slope, double gain,
                              double limit, int dtype, void* stream) {
  const Cut cut{samples, rows, columns, channels, noise_stride, pixels, vector, lanes, steps};
  return choose_kernel(cut, dtype, kind, slope, gain, limit, [&](const auto& chosen) {
    using K = std::decay_t<decltype(chosen)>;
    using T = typename K::T;
    using M = typename K::M;
    const Operands<M> in{(const M*)scale, (const M*)noise, (const M*)bias, noise_stride};
    const Sums<M> sums{(M*)row_e, (M*)row_f, (M*)column_e, (M*)column_f};
    LAUNCH((grad_kernel<T, K::V, K::PIXELS, K::SMOOTH>), chosen.grid, chosen.block, 0,
           stream, (const T*)g, (const T*)y, in, (T*)dy, sums, chosen.curve, bool(from_output),
           chosen.tile);
  });
}
