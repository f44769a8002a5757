#include "diffaugment.cuh"

namespace {

template <class T, bool ADJOINT>
int run(const T* x, const void* factors, const int* shifts, const float* holes, void* sums, T* y,
        int64_t n, const ImageShape& s, void* stream) {
  using M = math_t<T>;
  const unsigned images = unsigned(n < 65535 ? n : 65535);
  M* parts = static_cast<M*>(sums);
  if (factors) {
    LAUNCH((part_sums<T, ADJOINT>), dim3(s.parts, images), dim3(THREADS), 0, stream, x, shifts,
           holes, parts, n, s);
    LAUNCH((add_parts<M>), dim3(images), dim3(32), 0, stream, parts, n, s.parts);
  }
  const unsigned groups = unsigned(ceil_div(int64_t(s.height) * s.width, THREADS));
  LAUNCH((augment<T, ADJOINT>), dim3(groups, images), dim3(THREADS), 0, stream, x,
         static_cast<const M*>(factors), shifts, holes, static_cast<const M*>(parts), y, n, s);
  return launched();
}

}  // namespace

// y [n, c, h, w] from x, or from the gradient in the adjoint; `sums` is memory for [n, parts]
// partial sums. `strides` [8] of x and y are in host memory. factors, shifts and holes may be null.
extern "C" int diffaugment(const void* x, const void* factors, const int* shifts,
                           const float* holes, void* sums, void* y, const int64_t* strides,
                           int64_t n, int64_t c, int64_t h, int64_t w, int64_t parts,
                           int64_t linear, int64_t adjoint, int dtype, void* stream) {
  ImageShape s{int(c), int(h), int(w), int(parts), {}, {}, linear != 0};
  for (int i = 0; i < 4; i++) s.xs[i] = strides[i], s.ys[i] = strides[4 + i];
  if (parts != ceil_div(h * w, PART)) return cudaErrorInvalidValue;
  return dispatch(dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    return adjoint ? run<T, true>(from, factors, shifts, holes, sums, to, n, s, stream)
                   : run<T, false>(from, factors, shifts, holes, sums, to, n, s, stream);
  });
}
