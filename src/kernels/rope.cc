#include "kernels/rope.h"

#include <cmath>

namespace contexture {

void rope_table(std::span<const int64_t> positions, std::span<const double> frequencies, float* table,
                double magnitude) {
  for (const int64_t position : positions) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      *table++ = static_cast<float>(magnitude * std::cos(angle));
      *table++ = static_cast<float>(magnitude * std::sin(angle));
    }
  }
}

void rope(float* x, size_t heads, size_t head_dim, size_t dim, RopeStyle style, const float* table) {
  const bool interleaved = style == RopeStyle::interleaved;
  const size_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : dim / 2;
  for (size_t head = 0; head < heads; ++head, x += head_dim) {
    for (size_t i = 0; i < dim / 2; ++i) {
      float& a = x[i * step];
      float& b = x[i * step + apart];
      const float c = table[2 * i], s = table[2 * i + 1];
      const float rotated = a * c - b * s;
      b = a * s + b * c;
      a = rotated;
    }
  }
}

}  // namespace contexture
