#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rope.h"
#include "support/random.h"

namespace contexture {
namespace {

TEST(RmsNorm, AgreesWithTheOracle) {
  std::mt19937 random = fresh_random();
  for (const size_t columns : {1, 7, 16, 17, 64, 100, 2048}) {
    const std::vector<float> x = random_floats(random, columns, 3), weight = random_floats(random, columns);
    std::vector<float> out(columns + 1, NAN);
    std::vector<double> expected(columns);
    rms_norm(x.data(), weight.data(), 1e-5f, columns, out.data());
    rms_norm_plain(x.data(), weight.data(), 1e-5f, columns, expected.data());
    for (size_t i = 0; i < columns; ++i) {
      // All squares are positive: the sum's relative error is below its roundings, the root's half of that.
      const double relative = (static_cast<double>(columns) / 16 + 12) * 0x1p-24;
      ASSERT_NEAR(out[i], expected[i], std::fabs(expected[i]) * relative) << columns;
    }
    EXPECT_TRUE(std::isnan(out[columns]));
  }
}

TEST(Swiglu, AgreesWithTheOracleFarIntoBothTails) {
  std::mt19937 random = fresh_random();
  for (const size_t columns : {1, 15, 16, 31, 200}) {
    std::vector<float> gate = random_floats(random, columns, 20);
    gate[0] = columns % 2 ? -300.f : 300.f;
    const std::vector<float> up = random_floats(random, columns);
    std::vector<double> expected(columns);
    swiglu_plain(gate.data(), up.data(), columns, expected.data());
    swiglu(gate.data(), up.data(), columns);
    for (size_t i = 0; i < columns; ++i) ASSERT_NEAR(gate[i], expected[i], std::fabs(expected[i]) * 2e-6 + 1e-30);
  }
}

TEST(AddTo, Adds) {
  std::vector<float> x = {1, 2, 3};
  const std::vector<float> y = {10, 20, 30};
  add_to(x.data(), y.data(), 3);
  EXPECT_EQ(x, (std::vector<float>{11, 22, 33}));
}

TEST(Rope, RotatesPairsByPositionTimesFrequency) {
  std::mt19937 random = fresh_random();
  const std::vector<double> frequencies = {1.0, 0.1, 0.01};
  for (const RopeStyle style : {RopeStyle::interleaved, RopeStyle::halves}) {
    for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{1} << 20}) {
      std::vector<float> x = random_floats(random, 2 * 8);  // two heads of 8, of which 6 rotate
      const std::vector<float> before = x;
      std::vector<float> table(6);
      rope_table({&position, 1}, frequencies, table.data());
      rope(x.data(), 2, 8, 6, style, table.data());
      for (size_t head = 0; head < 2; ++head) {
        for (size_t i = 0; i < 3; ++i) {
          const size_t a = head * 8 + (style == RopeStyle::interleaved ? 2 * i : i);
          const size_t b = head * 8 + (style == RopeStyle::interleaved ? 2 * i + 1 : i + 3);
          const double angle = static_cast<double>(position) * frequencies[i];
          EXPECT_NEAR(x[a], before[a] * std::cos(angle) - before[b] * std::sin(angle), 1e-6);
          EXPECT_NEAR(x[b], before[a] * std::sin(angle) + before[b] * std::cos(angle), 1e-6);
        }
        for (size_t i = 6; i < 8; ++i) EXPECT_EQ(x[head * 8 + i], before[head * 8 + i]) << "channels past dim stay";
      }
    }
  }
}

}  // namespace
}  // namespace contexture
