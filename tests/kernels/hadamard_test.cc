#include "kernels/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "support/random.h"

namespace contexture {
namespace {

/// How far a head may be off after a transform. Each of log2(dim) rounds, all of one length of the vector but for a
/// factor, rounds every channel once, which moves the vector by 2^-24 of its length at most; so does the last product,
/// and its factor is the rounding of a root and of a quotient; one more for all that is of second order.
double bound_of(const float* head, size_t dim) {
  double squares = 0;
  for (size_t i = 0; i < dim; ++i) squares += static_cast<double>(head[i]) * head[i];
  return 0x1p-24 * (std::log2(static_cast<double>(dim)) + 4) * std::sqrt(squares);
}

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
        ASSERT_NEAR(rotated[head * dim + i], expected / std::sqrt(static_cast<double>(dim)),
                    bound_of(x.data() + head * dim, dim));
      }
    }
    hadamard(rotated.data(), 3, dim);
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(rotated[i], x[i], 2 * bound_of(x.data() + i / dim * dim, dim));
  }
}

}  // namespace
}  // namespace contexture
