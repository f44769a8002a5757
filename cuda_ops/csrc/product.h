// Products of small matrices that lie in the cache, register tile by register tile.
#pragma once
#include <cstdint>

#include "vector.h"

namespace {

// C[m, n] = (or +=) sum_k A[m * ra + k * ka] B[k * ldb + n] for one register tile.
template <int ROWS, int VECS>
inline void tile_product(const float* a, int64_t ra, int64_t ka, const float* b, int64_t ldb,
                         float* c, int64_t ldc, int depth, bool add) {
  vec acc[ROWS][VECS];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < VECS; j++) acc[i][j] = vec{};
  for (int k = 0; k < depth; k++) {
    vec row[VECS];
    for (int j = 0; j < VECS; j++) {
      __builtin_prefetch(b + (k + 16) * ldb + j * VL);
      row[j] = load(b + k * ldb + j * VL);
    }
    for (int i = 0; i < ROWS; i++) {
      const vec s = splat(a[i * ra + k * ka]);
      for (int j = 0; j < VECS; j++) acc[i][j] += s * row[j];
    }
  }
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < VECS; j++) {
      float* out = c + i * ldc + j * VL;
      store(out, add ? load(out) + acc[i][j] : acc[i][j]);
    }
}

template <int ROWS, int VECS>
void rows_product(int rows, const float* a, int64_t ra, int64_t ka, const float* b, int64_t ldb,
                  float* c, int64_t ldc, int depth, bool add) {
  if (rows == ROWS)
    tile_product<ROWS, VECS>(a, ra, ka, b, ldb, c, ldc, depth, add);
  else if constexpr (ROWS > 1)
    rows_product<ROWS - 1, VECS>(rows, a, ra, ka, b, ldb, c, ldc, depth, add);
}

// The same for any number of rows, in equal parts of at most MR, and `cols` = VL or NR columns.
void product(int rows, int cols, const float* a, int64_t ra, int64_t ka, const float* b,
             int64_t ldb, float* c, int64_t ldc, int depth, bool add) {
  const int parts = (rows + MR - 1) / MR;
  for (int p = 0; p < parts; p++) {
    const int lo = rows * p / parts, hi = rows * (p + 1) / parts;
    auto run = cols == NR ? rows_product<MR, NV> : rows_product<MR, 1>;
    run(hi - lo, a + lo * ra, ra, ka, b, ldb, c + lo * ldc, ldc, depth, add);
  }
}

}  // namespace
