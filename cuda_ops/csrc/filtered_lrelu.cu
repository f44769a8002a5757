// Launches filtered_lrelu; the tile is chosen by filtered_lrelu.py.
#include "filtered_lrelu.cuh"

#include <cstring>

using namespace fir;

namespace {

// The shared memory that a block of the current device may ask for.
int most_shared() {
  int device = 0, bytes = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return bytes;
}

template <class T, int U, int D>
int launch_pass(const T* x, const void* b, void* bits, T* y, const Filter<math_t<T>>& f,
                const Pass& s, int64_t planes, int64_t bytes, double gain2, double slope,
                double gain, double clamp, void* stream) {
  using M = math_t<T>;
  const int64_t blocks = planes * ceil_div(s.oh, s.tile) * ceil_div(s.ow, s.tile);
  if (blocks > 0x7fffffff) return cudaErrorInvalidValue;
  if (bytes > 48 * 1024) {  // always to the most: another thread may be launching it too
    const auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    const auto error = cudaFuncSetAttribute(filtered_lrelu<T, U, D>, attribute, most_shared());
    if (error != cudaSuccess) return cudaGetLastError(), error;  // not left for the next launch
  }
  LAUNCH((filtered_lrelu<T, U, D>), dim3(unsigned(blocks)), dim3(LRELU_THREADS), size_t(bytes),
         stream, x, static_cast<const M*>(b), static_cast<unsigned char*>(bits), y, f, s, M(gain2),
         M(slope), M(gain), M(clamp));
  return launched();
}

}  // namespace

// y[n, c, oh, ow] from x[n, c, h, w], NCHW, over samples m[mh, mw]; f1[k1] and f2[k2] in float
// (double for double), on the host (`by_value`) or on the device, times gain1 and gain2 per axis;
// `k1`, `k2` count the zeros after the taps that the unrolled kernels (`fast`) want. `clamp` < 0 is
// none. `mode` says what happens to `bits` [n, c, mh, (mw + 3) / 4]: 0 nothing, 1 written, 2 read.
extern "C" int filtered_lrelu_pass(
    const void* x, const void* f1, const void* f2, const void* b, void* bits, void* y, int64_t n,
    int64_t c, int64_t h, int64_t w, int64_t mh, int64_t mw, int64_t oh, int64_t ow, int64_t u,
    int64_t d, int64_t p1x, int64_t p1y, int64_t p2x, int64_t p2y, int64_t taps1, int64_t taps2,
    int64_t fast, int64_t tile, int64_t mid, int64_t in, int64_t k1, int64_t k2, int64_t bytes,
    int64_t flip, int64_t by_value, int64_t mode, double gain1, double gain2, double slope,
    double gain, double clamp, int dtype, void* stream) {
  return dispatch(dtype, [&](auto type) {
    using T = decltype(type);
    using M = math_t<T>;
    const Pass s{int(c),   int(h),   int(w),   int(mh),   int(mw),  int(oh), int(ow),
                 int(u),   int(d),   int(p1x), int(p1y),  int(p2x), int(p2y), int(tile),
                 int(mid), int(in),  int(k1),  int(k2),   int(mode)};
    Filter<M> f{};
    f.fw = int(taps1), f.fh = int(taps2), f.gain = M(gain1), f.separable = true, f.flip = flip;
    if (by_value) {
      if (taps1 + taps2 > BY_VALUE) return static_cast<int>(cudaErrorInvalidValue);
      std::memcpy(f.value, f1, sizeof(M) * taps1);
      std::memcpy(f.value + taps1, f2, sizeof(M) * taps2);
    } else {
      f.x = static_cast<const M*>(f1), f.y = static_cast<const M*>(f2);
    }
    const auto launch = !fast           ? launch_pass<T, 0, 0>
                        : u == 2 && d == 2 ? launch_pass<T, 2, 2>
                        : u == 4           ? launch_pass<T, 4, 2>
                                           : launch_pass<T, 2, 4>;
    return launch(static_cast<const T*>(x), b, bits, static_cast<T*>(y), f, s, n * c, bytes, gain2,
                  slope, gain, clamp, stream);
  });
}
