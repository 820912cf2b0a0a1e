#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/random.h"
#include "tensor/fp8_e4m3.h"

namespace contexture {
namespace {

/// The 126 numbers above zero, spelled out by the definition: eight a power of two, from 2^-6 on, and seven eighths
/// below.
std::vector<float> positive_numbers() {
  std::vector<float> numbers;
  for (int eighth = 1; eighth < 8; ++eighth) numbers.push_back(std::ldexp(static_cast<float>(eighth), -9));
  for (int power = -6; power <= 8; ++power) {
    for (int eighth = 0; eighth < 8; ++eighth)
      numbers.push_back(std::ldexp(1.f + static_cast<float>(eighth) / 8, power));
  }
  numbers.pop_back();  // 480, whose code is NaN's
  return numbers;
}

TEST(Fp8, All256CodesAreWhatTheDefinitionSays) {
  const std::vector<float> numbers = positive_numbers();
  ASSERT_EQ(numbers.size(), 126u);
  EXPECT_EQ(numbers.back(), 448);
  for (uint32_t code = 0; code < 256; ++code) {
    const float value = fp8_e4m3_to_f32(static_cast<uint8_t>(code));
    const uint32_t magnitude = code & 127;
    EXPECT_EQ(std::signbit(value), code >= 128 && magnitude != 127) << code;
    if (magnitude == 127) {
      EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_EQ(std::fabs(value), magnitude == 0 ? 0 : numbers[magnitude - 1]) << code;
      EXPECT_EQ(f32_to_fp8_e4m3(value), code) << "comes back";
    }
  }
  EXPECT_EQ(f32_to_fp8_e4m3(NAN) & 127, 127);
}

TEST(Fp8, RoundsToNearestTiesToEven) {
  std::vector<float> numbers = positive_numbers();
  numbers.insert(numbers.begin(), 0.f);
  for (size_t code = 0; code + 1 < numbers.size(); ++code) {
    const float middle = (numbers[code] + numbers[code + 1]) / 2;
    const size_t even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(f32_to_fp8_e4m3(middle), even);
    EXPECT_EQ(f32_to_fp8_e4m3(-middle), even | 128);
    EXPECT_EQ(f32_to_fp8_e4m3(std::nextafter(middle, 0.f)), code);
    EXPECT_EQ(f32_to_fp8_e4m3(std::nextafter(middle, 1e9f)), code + 1);
  }
  for (const float beyond : {448.f, 464.f, 1e30f, INFINITY}) EXPECT_EQ(f32_to_fp8_e4m3(beyond), 126) << beyond;
  EXPECT_EQ(f32_to_fp8_e4m3(-1e9f), 254);
}

TEST(Fp8, RandomNumbersGoToTheNearest) {
  const std::vector<float> numbers = positive_numbers();
  std::mt19937 random = fresh_random();
  for (const float scale : {1e-3f, 0.1f, 1.f, 100.f}) {
    for (const float x : random_floats(random, 2000, scale)) {
      const float back = std::fabs(fp8_e4m3_to_f32(f32_to_fp8_e4m3(x))), magnitude = std::fabs(x);
      float nearest = magnitude;  // to zero
      for (const float number : numbers) nearest = std::min(nearest, std::fabs(number - magnitude));
      ASSERT_EQ(std::fabs(back - magnitude), nearest) << x;
    }
  }
}

}  // namespace
}  // namespace contexture
