// Launches of the passes in pointwise.cuh.
#include <type_traits>

#include "pointwise.cuh"

extern "C" int pointwise(const void* y, const void* scale, const void* noise, const void* bias,
                         void* z, int64_t samples, int64_t rows, int64_t columns,
                         int64_t channels, int64_t noise_stride, int64_t pixels, int64_t vector,
                         int64_t lanes, int64_t steps, int64_t kind, double slope, double gain,
                         double limit, int dtype, void* stream) {
  const Cut cut{samples, rows, columns, channels, noise_stride, pixels, vector, lanes, steps};
  return choose_kernel(dtype, vector, pixels, kind, [&](auto type, auto width, auto px, auto sm) {
    using T = decltype(type);
    using M = math_t<T>;
    constexpr int V = decltype(width)::value;
    const Tile tile = cut.tile(V);
    const dim3 grid = cut.grid(tile);
    if (!grid.x) return int(cudaErrorInvalidValue);
    const Operands<M> in{(const M*)scale, (const M*)noise, (const M*)bias, noise_stride};
    const Curve<M> curve{int(kind), M(slope), M(gain), M(limit)};
    LAUNCH((value_kernel<T, V, decltype(px)::value, decltype(sm)::value>), grid, cut.block(), 0,
           stream, (const T*)y, in, (T*)z, curve, tile);
    return launched();
  });
}
