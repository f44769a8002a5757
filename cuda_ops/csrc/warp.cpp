// The warp of warp.cuh on the CPU, one thread per image: float32, four channels to a pixel.
#include <algorithm>
#include <cstring>
#include <vector>

#include "warp_map.h"

namespace {

constexpr int LANES = 4;
typedef float pixel __attribute__((vector_size(16)));
typedef float pixel_u __attribute__((vector_size(16), aligned(4), may_alias));

struct Filter {
  float taps[TAPS];
  double centre;
};

// An image and its map.
struct Job {
  Blit blit;
  Affine map;
  bool moves;
  const double* colour;
  int channels, size, wide, fine;  // wide: the axis with REACH more pixels at either end
  Filter filter;
};

// Memory that a thread needs again for its next image.
struct Scratch {
  std::vector<pixel> wide, rows, fine, strip, line;
  std::vector<int> row_at, column_at, from;
  std::vector<float> x, y;
  std::vector<double> u, v;

  explicit Scratch(const Job& j)
      : wide(j.wide * j.wide), rows(int64_t(j.wide) * j.fine), fine(int64_t(j.fine) * j.fine),
        strip(TAPS * j.fine), line(j.fine + TAPS), row_at(j.wide), column_at(j.wide),
        from(j.fine), x(j.fine), y(j.fine), u(j.fine), v(j.fine) {}
};

inline pixel read(const float* at, int64_t stride, int channels) {
  pixel p = {};
  for (int l = 0; l < channels; l++) p[l] = at[l * stride];
  return p;
}
inline void write(float* at, int64_t stride, int channels, pixel p) {
  for (int l = 0; l < channels; l++) at[l * stride] = p[l];
}

// The columns of M (or of M^T), and the offset.
struct Colour {
  bool any;
  pixel columns[3], offset;

  Colour(const double* m, bool transposed, bool with_offset) : any(m), columns{}, offset{} {
    for (int r = 0; m && r < 3; r++) {
      for (int c = 0; c < 3; c++) columns[c][r] = float(m[transposed ? 4 * c + r : 4 * r + c]);
      if (with_offset) offset[r] = float(m[4 * r + 3]);
    }
  }
  pixel operator()(pixel p) const {
    return any ? columns[0] * p[0] + columns[1] * p[1] + columns[2] * p[2] + offset : p;
  }
};

// For each row and column of the widened axis the index of the image's row and column that it
// shows; their sum is the place of the pixel.
void places(const Job& job, int64_t row_stride, int64_t column_stride, int64_t* rows,
            int64_t* columns) {
  int row, column;
  for (int i = 0; i < job.wide; i++) {
    const int at = reflected(i - REACH, job.size);
    job.blit.source(at, 0, row, column);
    rows[i] = job.blit.turned ? column * column_stride : row * row_stride;
    job.blit.source(0, at, row, column);
    columns[i] = job.blit.turned ? row * row_stride : column * column_stride;
  }
}

// out[i] = gain * sum_t taps[t] rows[t][i]
template <int COUNT>
void blend(const pixel* const* rows, const float* taps, int step, float gain, int length,
           pixel* out) {
  float w[COUNT];
  const float* from[COUNT];
  for (int t = 0; t < COUNT; t++) w[t] = gain * taps[t * step], from[t] = (const float*)rows[t];
  float* __restrict to = (float*)out;
#pragma omp simd
  for (int i = 0; i < LANES * length; i++) {
    float sum = 0;
    for (int t = 0; t < COUNT; t++) sum += w[t] * from[t][i];
    to[i] = sum;
  }
}

// Twice as many samples along a row of `wide` pixels.
void widen(const Filter& f, const pixel* in, int fine, float gain, pixel* out) {
  for (int m = 0; m < fine / 2; m++) {
    pixel even = {}, odd = {};
    for (int t = 0; t < TAPS / 2; t++) {
      const pixel p = in[m + REACH - t];
      even += f.taps[2 * t] * p;
      odd += f.taps[2 * t + 1] * p;
    }
    out[2 * m] = gain * even;
    out[2 * m + 1] = gain * odd;
  }
}

// Half as many: out[i] = sum_t taps[t] in[2 i + t].
void narrow(const Filter& f, const pixel* in, int count, pixel* out) {
  for (int i = 0; i < count; i++) {
    pixel sum = {};
    for (int t = 0; t < TAPS; t++) sum += f.taps[t] * in[2 * i + t];
    out[i] = sum;
  }
}

// Rows of s.wide into s.rows, each twice as long.
void widen_rows(const Job& job, float gain, Scratch& s) {
  for (int i = 0; i < job.wide; i++)
    widen(job.filter, &s.wide[i * job.wide], job.fine, gain, &s.rows[int64_t(i) * job.fine]);
}

// Row j of the fine samples from s.rows.
void fine_row(const Job& job, int j, float gain, Scratch& s, pixel* out) {
  const pixel* rows[TAPS / 2];
  for (int t = 0; t < TAPS / 2; t++)
    rows[t] = &s.rows[int64_t(j / 2 + REACH - t) * job.fine];
  blend<TAPS / 2>(rows, job.filter.taps + j % 2, 2, gain, job.fine, out);
}

// For the samples of row j: where they look, as index of the upper left neighbour and weights.
void look(const Job& job, int j, Scratch& s) {
  const Affine map = job.map;
  const double last = map.fine - 1;
  double *u = s.u.data(), *v = s.v.data(), low = 0, high = 0;
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int k = 0; k < job.fine; k++) {
    u[k] = map.u(k, j);
    v[k] = map.v(k, j);
    low = std::min(low, std::min(u[k], v[k]));
    high = std::max(high, std::max(u[k], v[k]));
  }
  if (!(low >= -map.slack && high <= map.top())) {
#pragma omp simd
    for (int k = 0; k < job.fine; k++) {
      u[k] = map.folded(u[k]);
      v[k] = map.folded(v[k]);
    }
  }
  int* from = s.from.data();
  float *x = s.x.data(), *y = s.y.data();
#pragma omp simd
  for (int k = 0; k < job.fine; k++) {
    const double a = std::min(std::max(u[k], 0.0), last), b = std::min(std::max(v[k], 0.0), last);
    const int left = std::max(0, std::min(int(a), map.fine - 2));
    const int up = std::max(0, std::min(int(b), map.fine - 2));
    x[k] = float(a - left);
    y[k] = float(b - up);
    from[k] = up * map.fine + left;
  }
}

void look_up(const Job& job, int j, Scratch& s, pixel* out) {
  look(job, j, s);
  for (int k = 0; k < job.fine; k++) {
    const pixel *a = &s.fine[s.from[k]], *b = a + job.fine;
    const pixel upper = a[0] + s.x[k] * (a[1] - a[0]), lower = b[0] + s.x[k] * (b[1] - b[0]);
    out[k] = upper + s.y[k] * (lower - upper);
  }
}

void scatter(const Job& job, int j, Scratch& s, const pixel* values) {
  look(job, j, s);
  for (int k = 0; k < job.fine; k++) {
    pixel *a = &s.fine[s.from[k]], *b = a + job.fine;
    const pixel lower = s.y[k] * values[k], upper = values[k] - lower;
    a[0] += (1 - s.x[k]) * upper;
    a[1] += s.x[k] * upper;
    b[0] += (1 - s.x[k]) * lower;
    b[1] += s.x[k] * lower;
  }
}

// An image that is not resampled, row by row and channel by channel.
void copy(const Job& job, const Colour& colour, const float* x, const int64_t* xs, float* y,
          const int64_t* ys) {
  std::vector<int64_t> rows(job.wide), columns(job.wide);
  places(job, xs[2], xs[3], rows.data(), columns.data());
  std::vector<float> line(LANES * job.size);
  const int size = job.size, channels = job.channels;
  for (int i = 0; i < size; i++) {
    for (int c = 0; c < channels; c++) {
      const float* from = x + rows[i + REACH] + c * xs[1];
      for (int j = 0; j < size; j++) line[c * size + j] = from[columns[j + REACH]];
    }
    for (int c = 0; c < channels; c++) {
      const float *r = line.data(), *g = r + size, *b = g + size, *own = r + c * size;
      float* to = y + i * ys[2] + c * ys[1];
      const int64_t step = ys[3];
      if (colour.any) {
        const float m[4] = {colour.columns[0][c], colour.columns[1][c], colour.columns[2][c],
                            colour.offset[c]};
        for (int j = 0; j < size; j++)
          to[j * step] = m[0] * r[j] + m[1] * g[j] + m[2] * b[j] + m[3];
      } else {
        for (int j = 0; j < size; j++) to[j * step] = own[j];
      }
    }
  }
}

void forward(const Job& job, const Colour& colour, const float* x, const int64_t* xs, float* y,
             const int64_t* ys, Scratch& s) {
  std::vector<int64_t> rows(job.wide), columns(job.wide);
  places(job, xs[2], xs[3], rows.data(), columns.data());
  for (int i = 0; i < job.wide; i++)
    for (int j = 0; j < job.wide; j++)
      s.wide[i * job.wide + j] = read(x + rows[i] + columns[j], xs[1], job.channels);
  widen_rows(job, 1, s);
  for (int j = 0; j < job.fine; j++) fine_row(job, j, 2, s, &s.fine[int64_t(j) * job.fine]);
  pixel* result = s.wide.data();
  for (int j = 0; j < job.fine; j++) {
    look_up(job, j, s, &s.strip[j % TAPS * job.fine]);
    if (j < TAPS - 1 || j % 2 == 0) continue;
    const pixel* last[TAPS];
    for (int t = 0; t < TAPS; t++) last[t] = &s.strip[(j + 1 + t) % TAPS * job.fine];
    blend<TAPS>(last, job.filter.taps, 1, 0.5f, job.fine, s.line.data());
    narrow(job.filter, s.line.data(), job.size, result);
    const int row = (j - TAPS + 1) / 2;
    for (int i = 0; i < job.size; i++)
      write(y + row * ys[2] + i * ys[3], ys[1], job.channels, colour(result[i]));
  }
}

// s.fine has been filled: U^T and B^T of it, into sums[size * size].
void fold_back(const Job& job, Scratch& s, const int64_t* rows, const int64_t* columns,
               pixel* sums) {
  for (int p = 0; p < job.wide; p++) {
    const pixel* lines[TAPS];
    std::fill(s.rows.begin(), s.rows.begin() + job.fine, pixel{});
    for (int t = 0; t < TAPS; t++) {
      const int j = 2 * (p - REACH) + t;
      lines[t] = j >= 0 && j < job.fine ? &s.fine[int64_t(j) * job.fine] : s.rows.data();
    }
    // The line begins 2 REACH samples before the axis; there and after its end are zeros.
    pixel* line = s.rows.data() + job.fine;
    std::fill(line, line + 2 * job.wide + TAPS, pixel{});
    blend<TAPS>(lines, job.filter.taps, 1, 2, job.fine, line + 2 * REACH);
    narrow(job.filter, line, job.wide, s.wide.data());
    for (int q = 0; q < job.wide; q++) sums[rows[p] + columns[q]] += s.wide[q];
  }
}

void adjoint(const Job& job, const Colour& colour, const float* g, const int64_t* gs, float* y,
             const int64_t* ys, Scratch* scratch) {
  std::vector<int64_t> rows(job.wide), columns(job.wide);
  places(job, job.size, 1, rows.data(), columns.data());
  std::vector<pixel> sums(job.size * job.size);
  if (job.moves) {
    Scratch& s = *scratch;
    std::fill(s.wide.begin(), s.wide.end(), pixel{});
    for (int i = 0; i < job.size; i++)
      for (int j = 0; j < job.size; j++)
        s.wide[(i + REACH) * job.wide + j + REACH] =
            colour(read(g + i * gs[2] + j * gs[3], gs[1], job.channels));
    widen_rows(job, 1, s);
    std::fill(s.fine.begin(), s.fine.end(), pixel{});
    for (int j = 0; j < job.fine; j++) {
      fine_row(job, j, 0.5f, s, s.line.data());
      scatter(job, j, s, s.line.data());
    }
    fold_back(job, s, rows.data(), columns.data(), sums.data());
  } else {
    for (int i = 0; i < job.size; i++)
      for (int j = 0; j < job.size; j++)
        sums[rows[i + REACH] + columns[j + REACH]] +=
            colour(read(g + i * gs[2] + j * gs[3], gs[1], job.channels));
  }
  for (int i = 0; i < job.size; i++)
    for (int j = 0; j < job.size; j++)
      write(y + i * ys[2] + j * ys[3], ys[1], job.channels, sums[i * job.size + j]);
}

template <bool ADJOINT>
void run(const float* x, const int* blits, const double* sources, const double* colours, float* y,
         const double* taps, const int64_t* xs, const int64_t* ys, int64_t n, int64_t c,
         int64_t size, bool linear, int threads) {
  const int chunks = int((c + LANES - 1) / LANES);
#pragma omp parallel num_threads(threads)
  {
    Job job{};
    for (int t = 0; t < TAPS; t++) job.filter.taps[t] = float(taps[t]);
    job.filter.centre = taps[TAPS];
    job.size = int(size);
    job.wide = job.size + 2 * REACH;
    job.fine = fine_size(job.size);
    std::vector<Scratch> scratch;  // made with the first image that needs it
#pragma omp for schedule(dynamic)
    for (int64_t at = 0; at < n * chunks; at++) {
      const int64_t image = at / chunks, c0 = at % chunks * LANES;
      job.channels = int(std::min<int64_t>(LANES, c - c0));
      job.blit.read(blits ? blits + 4 * image : nullptr, job.size);
      job.moves = job.map.read(sources ? sources + 9 * image : nullptr, job.size, taps[TAPS]);
      const Colour colour(colours ? colours + 16 * image : nullptr, ADJOINT, !ADJOINT && !linear);
      const float* from = x + image * xs[0] + c0 * xs[1];
      float* to = y + image * ys[0] + c0 * ys[1];
      if (job.moves && scratch.empty()) scratch.emplace_back(job);
      Scratch* s = scratch.data();
      if (ADJOINT && (job.moves || !job.blit.still())) adjoint(job, colour, from, xs, to, ys, s);
      else if (job.moves) forward(job, colour, from, xs, to, ys, *s);
      else copy(job, colour, from, xs, to, ys);
    }
  }
}

}  // namespace

extern "C" {

// Arguments as in warp.cu; blits, sources and colours may be null.
void warp_cpu(const float* x, const int* blits, const double* sources, const double* colours,
              float* y, const double* taps, const int64_t* xs, const int64_t* ys, int64_t n,
              int64_t c, int64_t size, int linear, int threads) {
  run<false>(x, blits, sources, colours, y, taps, xs, ys, n, c, size, linear, threads);
}
void warp_adjoint_cpu(const float* g, const int* blits, const double* sources,
                      const double* colours, float* y, const double* taps, const int64_t* gs,
                      const int64_t* ys, int64_t n, int64_t c, int64_t size, int threads) {
  run<true>(g, blits, sources, colours, y, taps, gs, ys, n, c, size, true, threads);
}

}  // extern "C"
