// Vectors of floats through the compiler's own vector extension (GCC, Clang): no intrinsics.
#pragma once
#include <cstring>

#if defined(__AVX512F__)
constexpr int VL = 16;  // floats per vector
constexpr int MR = 14;  // rows of the register tile
#else
constexpr int VL = 8;
constexpr int MR = 6;
#endif
constexpr int NV = 2;          // vectors per row of the register tile
constexpr int NR = NV * VL;    // columns of the register tile

typedef float vec __attribute__((vector_size(VL * sizeof(float))));
typedef float vec_u __attribute__((vector_size(VL * sizeof(float)), aligned(4), may_alias));

static inline vec load(const float* p) { return *reinterpret_cast<const vec_u*>(p); }
static inline void store(float* p, vec v) { *reinterpret_cast<vec_u*>(p) = v; }
static inline vec splat(float a) { return a - vec{}; }
