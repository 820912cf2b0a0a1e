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

TEST(RmsNorm, WorksInPlace) {
  std::mt19937 random = fresh_random();
  std::vector<float> x = random_floats(random, 77);
  const std::vector<float> weight = random_floats(random, 77);
  std::vector<float> out(77);
  rms_norm(x.data(), weight.data(), 1e-5f, 77, out.data());
  rms_norm(x.data(), weight.data(), 1e-5f, 77, x.data());
  EXPECT_EQ(x, out);
}

struct GatedUnit {
  const char* name;
  void (*fast)(float*, const float*, size_t);
  void (*plain)(const float*, const float*, size_t, double*);
};

class GatedUnits : public testing::TestWithParam<GatedUnit> {};

TEST_P(GatedUnits, AgreesWithTheOracleFarIntoBothTails) {
  std::mt19937 random = fresh_random();
  for (const size_t columns : {1, 15, 16, 31, 200}) {
    std::vector<float> gate = random_floats(random, columns, 3);
    gate[0] = columns % 2 ? -300.f : 300.f;
    const std::vector<float> up = random_floats(random, columns), before = gate;
    std::vector<double> expected(columns);
    GetParam().plain(gate.data(), up.data(), columns, expected.data());
    GetParam().fast(gate.data(), up.data(), columns);
    for (size_t i = 0; i < columns; ++i) {
      // Relative, but where the oracle's own 1 + tanh cancels; what is left there is below any activation's last bit.
      ASSERT_NEAR(gate[i], expected[i], std::fabs(expected[i]) * 4e-6 + 1e-14) << before[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GatedUnits,
                         testing::Values(GatedUnit{"swiglu", swiglu, swiglu_plain},
                                         GatedUnit{"geglu", geglu, geglu_plain}),
                         [](const auto& unit) { return std::string(unit.param.name); });

TEST(Softcap, FollowsItsDefinition) {
  std::mt19937 random = fresh_random();
  for (const size_t columns : {1, 16, 33}) {
    std::vector<float> x = random_floats(random, columns, 50);
    const std::vector<float> before = x;
    softcap(x.data(), 30, columns);
    for (size_t i = 0; i < columns; ++i) ASSERT_NEAR(x[i], 30 * std::tanh(before[i] / 30.0), 2e-5) << before[i];
  }
  float not_a_number = NAN;
  softcap(&not_a_number, 30, 1);
  EXPECT_TRUE(std::isnan(not_a_number));
}

TEST(Scaling, AddsAndMultiplies) {
  std::vector<float> x = {1, 2, 3};
  const std::vector<float> y = {10, 20, 30};
  add_scaled(x.data(), y.data(), 0.5f, 3);
  EXPECT_EQ(x, (std::vector<float>{6, 12, 18}));
  multiply_by(x.data(), 2, 3);
  EXPECT_EQ(x, (std::vector<float>{12, 24, 36}));
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
