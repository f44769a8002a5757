// The two schemes of winograd.cpp along one axis: a struct per stride.
//
// F(4, 3) takes 6 products per axis where the direct sum takes 12. With stride 2,
// y_i = (w0 e_i + w2 e_{i+1}) + w1 o_i on the even samples e and the odd samples o: F(4, 2) for the
// first term, 5 + 4 products where the direct sum takes 12. There x is first filtered with four
// taps per axis, on the fly.
// Interpolation points +-P, +-Q, infinity (and 0). With M the product of x - p over the points p,
// B^T holds the polynomials M / (x - p), G the powers of p over M'(p), A^T the powers of p. P and Q
// nearly minimise how much rounding errors grow (by 2.2 per axis with stride 1 and 1.7 on the even
// samples; 3.3 for +-1, +-2), among numbers whose squares and products are exact.
#pragma once
#include "vector.h"

namespace {

constexpr int FREQ = 6, FILTERS = FREQ * FREQ;       // of a transformed filter

// Stride 1, padding 1.
struct Plain {
  static constexpr int STRIDE = 1, PAD = 1, IN = 6, SIZE = 6;  // samples, products per axis
  static constexpr float P = 0.625f, Q = 1.5f, P2 = P * P, Q2 = Q * Q, S2 = P2 + Q2, R2 = P2 * Q2;
  static constexpr float MP = 2 * P2 * (P2 - Q2), MQ = 2 * Q2 * (Q2 - P2);  // M'(+-P), M'(+-Q)
  static constexpr float G[FREQ][3] = {{1 / R2, 0, 0},
                                       {1 / MP, P / MP, P2 / MP},
                                       {1 / MP, -P / MP, P2 / MP},
                                       {1 / MQ, Q / MQ, Q2 / MQ},
                                       {1 / MQ, -Q / MQ, Q2 / MQ},
                                       {0, 0, 1}};

  void in(const vec x[6], vec v[6]) const {  // B^T x
    const vec a = x[4] - Q2 * x[2], b = P * (x[3] - Q2 * x[1]);
    const vec c = x[4] - P2 * x[2], d = Q * (x[3] - P2 * x[1]);
    v[0] = R2 * x[0] + x[4] - S2 * x[2];
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + d;
    v[4] = c - d;
    v[5] = R2 * x[1] + x[5] - S2 * x[3];
  }
  static void out(const vec m[6], vec y[4]) {  // A^T m
    const vec a = m[1] + m[2], b = m[3] + m[4], c = P * (m[1] - m[2]), d = Q * (m[3] - m[4]);
    y[0] = m[0] + a + b;
    y[1] = c + d;
    y[2] = P2 * a + Q2 * b;
    y[3] = P2 * c + Q2 * d + m[5];
  }
  static void grad(const vec y[4], vec z[6]) {  // A y
    const vec a = y[0] + P2 * y[2], b = P * (y[1] + P2 * y[3]);
    const vec c = y[0] + Q2 * y[2], d = Q * (y[1] + Q2 * y[3]);
    z[0] = y[0];
    z[1] = a + b;
    z[2] = a - b;
    z[3] = c + d;
    z[4] = c - d;
    z[5] = y[3];
  }
};

// Stride 2 after four filter taps, together padding 2: twelve values give nine filtered samples
// e0 o0 e1 o1 e2 o2 e3 o3 e4, which give four outputs.
struct Strided {
  static constexpr int STRIDE = 2, PAD = 2, IN = 12, SIZE = 9;
  float taps[4];

  static constexpr float P = 0.375f, Q = 1.25f, P2 = P * P, Q2 = Q * Q, S2 = P2 + Q2, R2 = P2 * Q2;
  static constexpr float MP = 2 * P * (P2 - Q2), MQ = 2 * Q * (Q2 - P2);  // M'(P), M'(Q)
  static constexpr float G[FREQ][3] = {{1 / MP, 0, P / MP},   {-1 / MP, 0, P / MP},
                                       {1 / MQ, 0, Q / MQ},   {-1 / MQ, 0, Q / MQ},
                                       {0, 0, 1},             {0, 1, 0}};

  void in(const vec fine[12], vec v[9]) const {  // B^T of the filtered
    vec x[9];
    for (int i = 0; i < 9; i++)
      x[i] = taps[0] * fine[i] + taps[1] * fine[i + 1] + taps[2] * fine[i + 2] +
             taps[3] * fine[i + 3];
    const vec a = x[6] - Q2 * x[2], b = P * (x[4] - Q2 * x[0]);
    const vec c = x[6] - P2 * x[2], d = Q * (x[4] - P2 * x[0]);
    v[0] = a + b;
    v[1] = a - b;
    v[2] = c + d;
    v[3] = c - d;
    v[4] = R2 * x[0] + x[8] - S2 * x[4];
    for (int i = 0; i < 4; i++) v[5 + i] = x[2 * i + 1];
  }
  void back(const vec m[9], vec fine[12]) const {  // the adjoint of `in`
    vec x[9];
    const vec a = m[0] + m[1], b = P * (m[0] - m[1]), c = m[2] + m[3], d = Q * (m[2] - m[3]);
    x[0] = R2 * m[4] - Q2 * b - P2 * d;
    x[2] = -(Q2 * a + P2 * c);
    x[4] = b + d - S2 * m[4];
    x[6] = a + c;
    x[8] = m[4];
    for (int i = 0; i < 4; i++) x[2 * i + 1] = m[5 + i];
    for (int i = 0; i < 12; i++) {
      fine[i] = vec{};
      for (int k = 0; k < 4; k++)
        if (i - k >= 0 && i - k < 9) fine[i] += taps[k] * x[i - k];
    }
  }
  static void out(const vec m[9], vec y[4]) {  // A^T m
    const vec a = m[0] + m[1], b = m[2] + m[3], c = P * (m[0] - m[1]), d = Q * (m[2] - m[3]);
    y[0] = a + b + m[5];
    y[1] = c + d + m[6];
    y[2] = P2 * a + Q2 * b + m[7];
    y[3] = P2 * c + Q2 * d + m[4] + m[8];
  }
  static void grad(const vec y[4], vec z[9]) {  // A y
    const vec a = y[0] + P2 * y[2], b = P * (y[1] + P2 * y[3]);
    const vec c = y[0] + Q2 * y[2], d = Q * (y[1] + Q2 * y[3]);
    z[0] = a + b;
    z[1] = a - b;
    z[2] = c + d;
    z[3] = c - d;
    z[4] = y[3];
    for (int i = 0; i < 4; i++) z[5 + i] = y[i];
  }
};

}  // namespace
