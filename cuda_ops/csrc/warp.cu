#include "warp.cuh"

// Tiles of the result: 48 KB of shared memory.
template <class T>
constexpr int OUT_TILE = sizeof(math_t<T>) == 8 ? 16 : 32;

static WarpShape warp_shape(int64_t n0, int64_t c, int64_t size, int64_t linear,
                            const int64_t* xs, const int64_t* ys) {
  WarpShape s{int(c), int(size), int(ceil_div(c, LANES)), n0, {}, {}, linear != 0};
  for (int i = 0; i < 4; i++) s.xs[i] = xs[i], s.ys[i] = ys[i];
  return s;
}

template <class M>
static Filter<M> warp_filter(const double* taps) {
  Filter<M> f;
  for (int t = 0; t < TAPS; t++) f.taps[t] = M(taps[t]);
  f.centre = taps[TAPS];
  return f;
}

static unsigned tiles(int64_t extent, int64_t tile) {
  return unsigned(ceil_div(extent, tile) * ceil_div(extent, tile));
}

extern "C" {

// y [n, c, size, size] from x, or in the adjoint from the gradient; `group` images at a time, with
// the fine samples (and what folds back) of so many in `fine` and `wide`. `taps` [13], `xs` and
// `ys` [4] are in host memory; blits [n, 4], sources [n, 3, 3], colours [n, 4, 4] may be null.
int warp(const void* x, const int* blits, const double* sources, const double* colours, void* fine,
         void* y, const double* taps, const int64_t* xs, const int64_t* ys, int64_t n, int64_t c,
         int64_t size, int64_t group, int64_t linear, int dtype, void* stream) {
  return dispatch(dtype, [&](auto type) {
    using T = decltype(type);
    using M = math_t<T>;
    const Filter<M> f = warp_filter<M>(taps);
    const T* from = static_cast<const T*>(x);
    for (int64_t first = 0; first < n; first += group) {
      const WarpShape s = warp_shape(first, c, size, linear, xs, ys);
      const unsigned images = unsigned(n - first < group ? n - first : group), chunks = s.chunks;
      if (sources)
        LAUNCH((spread<T, false>), dim3(tiles(2 * size + 2 * REACH, FINE_TILE), images, chunks),
               dim3(THREADS), 0, stream, from, blits, sources, colours,
               static_cast<Lanes<M>*>(fine), s, f);
      LAUNCH((look_up<T, OUT_TILE<T>, false>), dim3(tiles(size, OUT_TILE<T>), images, chunks),
             dim3(THREADS), 0, stream, static_cast<const Lanes<M>*>(fine), from, blits, sources,
             colours, static_cast<T*>(y), static_cast<Lanes<M>*>(nullptr), s, f);
    }
    return launched();
  });
}

int warp_adjoint(const void* g, const int* blits, const double* sources, const double* colours,
                 void* fine, void* wide, void* y, const double* taps, const int64_t* xs,
                 const int64_t* ys, int64_t n, int64_t c, int64_t size, int64_t group, int dtype,
                 void* stream) {
  return dispatch(dtype, [&](auto type) {
    using T = decltype(type);
    using M = math_t<T>;
    const Filter<M> f = warp_filter<M>(taps);
    const T* from = static_cast<const T*>(g);
    for (int64_t first = 0; first < n; first += group) {
      const WarpShape s = warp_shape(first, c, size, true, xs, ys);
      const unsigned images = unsigned(n - first < group ? n - first : group), chunks = s.chunks;
      if (sources) {
        LAUNCH((spread<T, true>), dim3(tiles(2 * size + 2 * REACH, FINE_TILE), images, chunks),
               dim3(THREADS), 0, stream, from, blits, sources, colours,
               static_cast<Lanes<M>*>(fine), s, f);
        LAUNCH((look_up<T, OUT_TILE<T>, true>),
               dim3(tiles(size + 2 * REACH, OUT_TILE<T>), images, chunks), dim3(THREADS), 0,
               stream, static_cast<const Lanes<M>*>(fine), from, blits, sources, colours,
               static_cast<T*>(y), static_cast<Lanes<M>*>(wide), s, f);
      }
      LAUNCH((fold_back<T>), dim3(unsigned(ceil_div(size * size, THREADS)), images, chunks),
             dim3(THREADS), 0, stream, from, static_cast<const Lanes<M>*>(wide), blits, sources,
             colours, static_cast<T*>(y), s);
    }
    return launched();
  });
}

}  // extern "C"
