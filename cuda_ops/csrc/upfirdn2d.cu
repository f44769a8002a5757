// Launches upfirdn2d: the fastest kernel that takes the sizes.
#include "upfirdn2d.cuh"

#include <cstring>

using namespace fir;

namespace {

constexpr int64_t BLOCKS = 0x7fffffff;
constexpr int SHARED = 48 * 1024;

bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// Whether every tap that an output meets lies within the halo of its pack of columns.
template <int MODE, int K>
bool within_halo(int taps, int pad) {
  constexpr int H = Window<MODE, K>::HALO;
  if (MODE == UP) {  // first sample ceil((phase - pad) / 2), last floor((taps - 1 + phase - pad) / 2)
    return -pad >= -2 * H - 1 && taps - pad <= 2 * H + 1;
  }
  return -pad >= -H && taps - 1 - pad <= (MODE == DOWN ? H + 1 : H);
}

template <class T, int MODE, int K>
bool launch_planes(const T* x, T* y, const Filter<math_t<T>>& f, const Size& s, void* stream) {
  constexpr int IN = Columns<T, MODE>::IN, OUT = Columns<T, MODE>::OUT, S = 4;
  const bool whole = s.w % IN == 0 && s.ow % OUT == 0 && aligned(x) && aligned(y);
  if (!whole || !within_halo<MODE, K>(f.fw, s.px)) return false;
  const int packs = s.ow / OUT, rows = S * Window<MODE, K>::PHASES;
  const int strips = int(ceil_div(s.oh, rows));
  const int64_t total = int64_t(s.n) * s.c * strips * packs;
  if (total > BLOCKS - THREADS || s.w > BLOCKS / 32 || s.ow > BLOCKS / 32) return false;
  LAUNCH((planes<T, MODE, K, S>), dim3(unsigned(ceil_div(total, THREADS))), dim3(THREADS), 0,
         stream, x, y, f, s, window_start<MODE>(s.py), unsigned(packs), unsigned(strips), unsigned(total));
  return true;
}

template <class T, int MODE, int K>
bool launch_pixels(const T* x, T* y, const Filter<math_t<T>>& f, const Size& s, void* stream) {
  constexpr int V = 16 / sizeof(T), PHASES = Window<MODE, K>::PHASES;
  constexpr int S = K > 4 ? 2 : 4;
  if (s.c % V || !aligned(x) || !aligned(y)) return false;
  const int cols = int(ceil_div(s.ow, PHASES)), strips = int(ceil_div(s.oh, S * PHASES));
  const int64_t total = int64_t(s.n) * strips * cols * (s.c / V);
  if (total > BLOCKS - THREADS || s.c > BLOCKS / 32) return false;
  LAUNCH((pixels<T, MODE, K, S>), dim3(unsigned(ceil_div(total, THREADS))), dim3(THREADS), 0,
         stream, x, y, f, s, window_start<MODE>(s.px), window_start<MODE>(s.py),
         unsigned(cols), unsigned(strips), unsigned(total));
  return true;
}

template <class T, int MODE>
bool launch_fast(const T* x, T* y, const Filter<math_t<T>>& f, const Size& s, bool channels_last,
                 void* stream) {
  const int taps = f.fw > f.fh ? f.fw : f.fh;
  if (taps <= 4 && (channels_last ? launch_pixels<T, MODE, 4>(x, y, f, s, stream)
                                  : launch_planes<T, MODE, 4>(x, y, f, s, stream)))
    return true;
  if constexpr (sizeof(T) < 8)  // eight taps of doubles need too many registers
    return taps <= 8 && (channels_last ? launch_pixels<T, MODE, 8>(x, y, f, s, stream)
                                       : launch_planes<T, MODE, 8>(x, y, f, s, stream));
  return false;
}

template <class T>
bool launch_tile(const T* x, T* y, const Filter<math_t<T>>& f, const Size& s, void* stream) {
  for (int th = 32, tw = 64; th >= 4; th /= 2, tw /= 2) {
    const int64_t ih = (int64_t(th - 1) * s.dy + f.fh - 1) / s.uy + 2;
    const int64_t iw = (int64_t(tw - 1) * s.dx + f.fw - 1) / s.ux + 2;
    const int64_t bytes = (f.fw + f.fh + ih * iw + ih * tw) * sizeof(math_t<T>);
    const bool larger_than_needed = th > 8 && (th >= 2 * s.oh || tw >= 2 * s.ow);
    if (bytes > SHARED || larger_than_needed) continue;
    const int64_t blocks = int64_t(s.n) * s.c * ceil_div(s.oh, th) * ceil_div(s.ow, tw);
    if (blocks > BLOCKS) return false;
    LAUNCH(tile<T>, dim3(unsigned(blocks)), dim3(THREADS), size_t(bytes), stream, x, y, f, s, th,
           tw, int(ih), int(iw));
    return true;
  }
  return false;
}

template <class T>
int launch_gather(const T* x, T* y, const Filter<math_t<T>>& f, const Size& s, bool channels_last,
                  void* stream) {
  const int64_t length = int64_t(s.ow) * (channels_last ? s.c : 1);
  const int64_t lines = int64_t(s.n) * (channels_last ? 1 : s.c) * s.oh;
  const int threads = length > 64 ? THREADS : length > 32 ? 64 : 32;
  const int64_t chunks = ceil_div(length, threads);
  if (length > BLOCKS - THREADS || lines * chunks > BLOCKS) return cudaErrorInvalidValue;
  LAUNCH(gather<T>, dim3(unsigned(lines * chunks)), dim3(threads), 0, stream, x, y, f, s,
         channels_last, int(chunks), int(length));
  return launched();
}

template <class T>
int resample(const T* x, T* y, const Filter<math_t<T>>& f, const Size& s, bool channels_last,
             void* stream) {
  const bool up = s.ux == 2 && s.uy == 2 && s.dx == 1 && s.dy == 1;
  const bool down = s.ux == 1 && s.uy == 1 && s.dx == 2 && s.dy == 2;
  const bool same = s.ux == 1 && s.uy == 1 && s.dx == 1 && s.dy == 1;
  const bool done =
      f.separable &&
      ((up && launch_fast<T, UP>(x, y, f, s, channels_last, stream)) ||
       (down && launch_fast<T, DOWN>(x, y, f, s, channels_last, stream)) ||
       (same && launch_fast<T, SAME>(x, y, f, s, channels_last, stream)) ||
       (!channels_last && launch_tile<T>(x, y, f, s, stream)));
  return done ? launched() : launch_gather<T>(x, y, f, s, channels_last, stream);
}

}  // namespace

// y[n, c, oh, ow] from x[n, c, h, w], both in one layout. The filter is fx[fw] and fy[fh], or, with
// fy null, fx[fh, fw]; in float (double for double), on the host (`by_value`) or on the device.
extern "C" int upfirdn2d(const void* x, const void* fx, const void* fy, void* y, int64_t n,
                         int64_t c, int64_t h, int64_t w, int64_t oh, int64_t ow, int64_t fh,
                         int64_t fw, int64_t ux, int64_t uy, int64_t dx, int64_t dy, int64_t px,
                         int64_t py, int64_t flip, int64_t by_value, int64_t channels_last,
                         double gain, int dtype, void* stream) {
  return dispatch(dtype, [&](auto type) {
    using T = decltype(type);
    using M = math_t<T>;
    const Size s{int(n),  int(c),  int(h),  int(w),  int(oh), int(ow),
                 int(ux), int(uy), int(dx), int(dy), int(px), int(py)};
    Filter<M> f{};
    f.fw = int(fw), f.fh = int(fh), f.gain = M(gain), f.separable = fy, f.flip = flip;
    if (by_value) {
      if ((fy ? fw + fh : fw * fh) > BY_VALUE) return static_cast<int>(cudaErrorInvalidValue);
      std::memcpy(f.value, fx, sizeof(M) * (fy ? fw : fw * fh));
      if (fy) std::memcpy(f.value + fw, fy, sizeof(M) * fh);
    } else {
      f.x = static_cast<const M*>(fx), f.y = static_cast<const M*>(fy);
    }
    return resample<T>(static_cast<const T*>(x), static_cast<T*>(y), f, s, channels_last, stream);
  });
}
