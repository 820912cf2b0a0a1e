#include "kernels/hadamard.h"

#include <cmath>

namespace contexture {

// The fast transform: log2(n) rounds of sums and differences. A thousandth of what a layer's products cost, so it is
// left to the compiler to make vectors of it.
void hadamard(float* x, size_t heads, size_t head_dim) {
  const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
  for (size_t head = 0; head < heads; ++head, x += head_dim) {
    for (size_t half = 1; half < head_dim; half *= 2) {
      for (size_t block = 0; block < head_dim; block += 2 * half) {
        for (size_t i = block; i < block + half; ++i) {
          const float a = x[i], b = x[i + half];
          x[i] = a + b;
          x[i + half] = a - b;
        }
      }
    }
    for (size_t i = 0; i < head_dim; ++i) x[i] *= scale;
  }
}

}  // namespace contexture
