#include "kernels/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "support/random.h"

namespace contexture {
namespace {

TEST(Hadamard, IsTheMatrixOfSignsAndItsOwnInverse) {
  std::mt19937 random = fresh_random();
  for (const size_t dim : {8, 16, 32, 64, 128, 256}) {
    const std::vector<float> x = random_floats(random, 3 * dim);
    std::vector<float> rotated = x;
    hadamard(rotated.data(), 3, dim);
    for (size_t head = 0; head < 3; ++head) {
      for (size_t i = 0; i < dim; ++i) {
        double expected = 0;  // entry (i, j) is -1 to the number of bits that i and j share
        for (size_t j = 0; j < dim; ++j) expected += (std::popcount(i & j) % 2 ? -1.0 : 1.0) * x[head * dim + j];
        ASSERT_NEAR(rotated[head * dim + i], expected / std::sqrt(static_cast<double>(dim)), 1e-5);
      }
    }
    hadamard(rotated.data(), 3, dim);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(rotated[i], x[i], 1e-5);
  }
}

}  // namespace
}  // namespace contexture
