// The operation of diffaugment.cuh on the CPU: float32, one thread per image, row by row.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

struct Shape {
  int channels, height, width;
  const int64_t *xs, *ys;  // strides in elements
};

struct Span {
  int low = 0, high = 0;  // [low, high)
  bool has(int i) const { return i >= low && i < high; }
};

// The pixels of an axis whose centre is within `half` of `centre`, of its length.
Span hole(float centre, float half, int length) {
  Span s{length, length};
  for (int i = 0; i < length; i++)
    if (std::fabs((i + 0.5f) / length - centre) < half) {
      s.low = std::min(s.low, i);
      s.high = i + 1;
    }
  return s.low < length ? s : Span{};
}

// Rows and columns of the input that are shown, and the hole in the side that it is cut from.
struct View {
  int down, right;  // from output to input
  Span rows, columns, hole_rows, hole_columns;

  View(const Shape& s, const int* shift, const float* box, bool adjoint) {
    const int sign = adjoint ? 1 : -1;
    down = shift ? sign * shift[0] : 0;
    right = shift ? sign * shift[1] : 0;
    rows = {std::max(0, -down), std::min(s.height, s.height - down)};
    columns = {std::max(0, -right), std::min(s.width, s.width - right)};
    columns.high = std::max(columns.low = std::min(columns.low, s.width), columns.high);
    if (box) {
      hole_columns = hole(box[0], box[2], s.width);
      hole_rows = hole(box[1], box[2], s.height);
      if (adjoint) {  // the hole in the coordinates of the result
        hole_rows = {hole_rows.low - down, hole_rows.high - down};
        hole_columns = {hole_columns.low - right, hole_columns.high - right};
      }
    }
  }
  // Zeros where row `i` shows nothing.
  void cut(int i, int width, int64_t step, float* row) const {
    if (!rows.has(i)) {
      for (int j = 0; j < width; j++) row[j * step] = 0;
      return;
    }
    for (int j = 0; j < columns.low; j++) row[j * step] = 0;
    for (int j = columns.high; j < width; j++) row[j * step] = 0;
    if (hole_rows.has(i))
      for (int j = std::max(0, hole_columns.low); j < std::min(width, hole_columns.high); j++)
        row[j * step] = 0;
  }
};

// What row `i` of the result shows of x, zeros elsewhere: line[width].
void shown(const Shape& s, const View& view, const float* x, int c, int i, float* line) {
  const int64_t step = s.xs[3];
  const float* from = x + c * s.xs[1] + (i + view.down) * s.xs[2] + view.right * step;
  if (view.rows.has(i))
    for (int j = view.columns.low; j < view.columns.high; j++) line[j] = from[j * step];
  view.cut(i, s.width, 1, line);
}

float sum_of(const float* line, int64_t step, int count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < count; j++) sum += line[j * step];
  return sum;
}

// The mean over the image; in the adjoint over the part of the gradient that is shown.
float mean_of(const Shape& s, const View& view, const float* x, bool adjoint, float* line) {
  double sum = 0;
  for (int c = 0; c < s.channels; c++)
    for (int i = 0; i < s.height; i++) {
      if (adjoint) shown(s, view, x, c, i, line);
      sum += adjoint ? sum_of(line, 1, s.width)
                     : sum_of(x + c * s.xs[1] + i * s.xs[2], s.xs[3], s.width);
    }
  return float(sum / (double(s.channels) * s.height * s.width));
}

void image(const Shape& s, const View& view, const float* x, const float* factors, bool linear,
           bool adjoint, float* y, float* lines) {
  float* grey = lines + int64_t(s.channels) * s.width;
  const float contrast = factors ? factors[2] : 1, own = factors ? contrast * factors[1] : 1;
  float offset = 0;
  if (factors) {
    offset = (1 - contrast) * mean_of(s, view, x, adjoint, grey);
    if (!linear) offset += factors[0];
  }
  const float share = (contrast - own) / s.channels;
  for (int i = 0; i < s.height; i++) {
    std::fill(grey, grey + s.width, 0.0f);
    for (int c = 0; c < s.channels; c++) {
      float* line = lines + int64_t(c) * s.width;
      shown(s, view, x, c, i, line);
      if (factors)
        for (int j = 0; j < s.width; j++) grey[j] += line[j];
    }
    for (int c = 0; c < s.channels; c++) {
      const float* line = lines + int64_t(c) * s.width;
      float* to = y + c * s.ys[1] + i * s.ys[2];
      const int64_t step = s.ys[3];
      if (factors)
        for (int j = 0; j < s.width; j++) to[j * step] = own * line[j] + share * grey[j] + offset;
      else
        for (int j = 0; j < s.width; j++) to[j * step] = line[j];
      if (factors && !adjoint) view.cut(i, s.width, step, to);
    }
  }
}

}  // namespace

// Arguments as in diffaugment.cu; factors, shifts and holes may be null.
extern "C" void diffaugment_cpu(const float* x, const float* factors, const int* shifts,
                                const float* holes, float* y, const int64_t* strides, int64_t n,
                                int64_t c, int64_t h, int64_t w, int linear, int adjoint,
                                int threads) {
  const Shape s{int(c), int(h), int(w), strides, strides + 4};
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> lines((c + 1) * w);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < n; i++) {
      const View view(s, shifts ? shifts + 2 * i : nullptr, holes ? holes + 3 * i : nullptr,
                      adjoint);
      image(s, view, x + i * s.xs[0], factors ? factors + 3 * i : nullptr, linear, adjoint,
            y + i * s.ys[0], lines.data());
    }
  }
}
