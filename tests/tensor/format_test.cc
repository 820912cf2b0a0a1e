#include "tensor/format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "support/random.h"
#include "tensor/float16.h"
#include "tensor/q4_k.h"

namespace contexture {
namespace {

TEST(Float16, EveryHalfRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
    } else {
      ASSERT_EQ(f32_to_f16(value), half) << bits;
    }
  }
}

TEST(Float16, RoundsToNearestTiesToEven) {
  // Between each two neighbours: below the middle goes down, above it goes up, the middle goes to the even one.
  for (uint16_t half = 0; half < 0x7bff; ++half) {
    const float low = f16_to_f32(half), high = f16_to_f32(static_cast<uint16_t>(half + 1));
    const float middle = (low + high) / 2;
    ASSERT_EQ(f32_to_f16(middle), half % 2 == 0 ? half : half + 1) << half;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.f)), half) << half;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), half + 1) << half;
    ASSERT_EQ(f32_to_f16(-middle), 0x8000 | (half % 2 == 0 ? half : half + 1)) << half;
  }
  EXPECT_EQ(f32_to_f16(65519.f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
}

TEST(Bfloat16, RoundsToNearestTiesToEven) {
  EXPECT_EQ(f32_to_bf16(1.f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(bf16_to_f32(f32_to_bf16(std::numeric_limits<float>::infinity()))));
}

TEST(Formats, NamesAndNumbersFindThem) {
  for (const FormatInfo& f : weight_formats()) {
    EXPECT_EQ(&info(f.format), &f) << "the table is in the order of the enumeration";
    EXPECT_EQ(format_from_name(f.name), f.format);
    EXPECT_EQ(format_from_gguf(f.gguf_type), f.format);
  }
  EXPECT_FALSE(format_from_name("q3_k"));
  EXPECT_FALSE(format_from_gguf(11));
}

TEST(Formats, EncodingErrsByHalfAStepAtMost) {
  std::mt19937 random = fresh_random();
  for (const FormatInfo& f : weight_formats()) {
    if (!f.encode || f.block == 256) continue;
    const size_t count = 256;
    const std::vector<float> x = random_floats(random, count, 5);
    std::vector<std::byte> bytes(bytes_of(f.format, count));
    std::vector<float> back(count, NAN);
    f.encode(x.data(), bytes.data(), count);
    f.decode(bytes.data(), back.data(), count);
    for (size_t at = 0; at < count; at += 32) {
      float largest = 0;
      for (size_t i = at; i < at + 32; ++i) largest = std::max(largest, std::fabs(x[i]));
      const auto [low, high] =
          std::minmax_element(x.begin() + static_cast<long>(at), x.begin() + static_cast<long>(at) + 32);
      const double range = *high - *low;
      for (size_t i = at; i < at + 32; ++i) {
        double bound = 0;
        // Half a step, and the scale's own rounding to f16 (2^-11) on the full range. q4_0 has -8..7: on the shorter
        // side the last value may be a whole step away; so with q5_0, of -16..15. q5_1 spans the block's own range,
        // with its lowest number rounded to f16 too.
        // Numbers of f16 below 2^-14 are 2^-24 apart.
        if (f.format == Format::f16) bound = std::max(std::fabs(x[i]) * 0x1p-11, 0x1p-25);
        if (f.format == Format::bf16) bound = std::fabs(x[i]) * 0x1p-8;
        if (f.format == Format::q8_0) bound = largest / 127 * 0.5 + largest * 0x1p-11;
        if (f.format == Format::q4_0) bound = largest / 8 + largest * 0x1p-11;
        if (f.format == Format::q5_0) bound = largest / 16 + largest * 0x1p-11;
        if (f.format == Format::q5_1) bound = range / 31 * 0.5 + (range + largest) * 0x1p-11;
        ASSERT_NEAR(back[i], x[i], bound * 1.0001) << f.name;
      }
    }
  }
}

/// Encoded and decoded again.
std::vector<float> through(Format format, const std::vector<float>& x) {
  std::vector<std::byte> bytes(bytes_of(format, x.size()), std::byte{0xff});
  std::vector<float> back(x.size(), NAN);
  info(format).encode(x.data(), bytes.data(), x.size());
  info(format).decode(bytes.data(), back.data(), x.size());
  return back;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b, size_t from, size_t count) {
  double sum = 0;
  for (size_t i = from; i < from + count; ++i) sum += (static_cast<double>(a[i]) - b[i]) * (a[i] - b[i]);
  return sum;
}

// What the formats allow: 16 steps over a sub-block's range (q4_k), 64 over twice its largest magnitude (q6_k), each
// element off by half a step when scale and minimum were exact. Both are shared out in units of the largest of the
// super-block, 1/63 (or 1/128) of it: half a unit more on the scale (times 15 or 32 steps) and on the minimum.
TEST(Formats, SuperBlocksErrByWhatTheirBitsAllow) {
  std::mt19937 random = fresh_random();
  for (const float offset : {0.f, 2.f, -30.f}) {
    std::vector<float> x = random_floats(random, 256, 5);
    for (size_t i = 0; i < 256; ++i) x[i] = (x[i] + offset) * (1.f + static_cast<float>(i / 32));
    const std::vector<float> four = through(Format::q4_k, x), six = through(Format::q6_k, x);
    double widest = 0, deepest = 0, largest = 0;
    for (size_t at = 0; at < 256; at += 32) {
      const auto [low, high] =
          std::minmax_element(x.begin() + static_cast<long>(at), x.begin() + static_cast<long>(at) + 32);
      widest = std::max(widest, std::max<double>(*high, 0) - std::min<double>(*low, 0));
      deepest = std::max(deepest, -static_cast<double>(*low));
      largest = std::max({largest, std::fabs(static_cast<double>(*low)), std::fabs(static_cast<double>(*high))});
    }
    for (size_t at = 0; at < 256; at += 32) {
      const auto [low, high] =
          std::minmax_element(x.begin() + static_cast<long>(at), x.begin() + static_cast<long>(at) + 32);
      const double range = std::max<double>(*high, 0) - std::min<double>(*low, 0);
      const double shared = (widest + deepest) / 63 / 2, step4 = range / 15;
      EXPECT_LE(squared_error(four, x, at, 32), 32 * std::pow(step4 / 2 + shared, 2)) << at << ", " << offset;
      EXPECT_LE(squared_error(six, x, at, 32), 32 * std::pow(largest / 32 / 2 + largest / 128 / 2, 2)) << at;
    }
  }
}

// Round-to-nearest over the whole range, scales unrounded, is what the fits start from: they must end below it, by more
// than the rounding of the scales costs. Normal numbers, as weights are.
TEST(Formats, FitsBeatPlainRounding) {
  std::mt19937 random = fresh_random();
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> x(256 * 64), plain(x.size());
  for (float& v : x) v = normal(random);
  for (size_t at = 0; at < x.size(); at += 32) {
    const auto [low, high] =
        std::minmax_element(x.begin() + static_cast<long>(at), x.begin() + static_cast<long>(at) + 32);
    const float scale = (*high - *low) / 15;
    for (size_t i = at; i < at + 32; ++i) plain[i] = std::nearbyint((x[i] - *low) / scale) * scale + *low;
  }
  const double four = squared_error(through(Format::q4_k, x), x, 0, x.size());
  EXPECT_LT(four, squared_error(plain, x, 0, x.size()));
  EXPECT_LT(four, squared_error(through(Format::q4_0, x), x, 0, x.size()));
  // Two bits more are a quarter of the step: a sixteenth of the squared error, nearly.
  EXPECT_LT(squared_error(through(Format::q6_k, x), x, 0, x.size()), four / 8);
}

// One block each, where every step of the range is taken once: they come back as they were, and so does a constant.
TEST(Formats, FiveBitsHoldAllTheirSteps) {
  std::vector<float> x(64);
  for (size_t i = 0; i < 32; ++i) x[i] = 0.25f * static_cast<float>((i * 7) % 32) - 4;  // -4 to 3.75
  std::fill(x.begin() + 32, x.end(), -1.5f);
  EXPECT_EQ(through(Format::q5_0, x), x);
  EXPECT_EQ(through(Format::q5_1, x), x);
  for (float& v : x) v = 100 - v;  // far from 0, which q5_1 alone can hold so finely
  EXPECT_EQ(through(Format::q5_1, x), x);
}

// Each bit more halves the step, which quarters the squared error; a scale that also spans the sign loses nothing on
// it.
TEST(Formats, FiveBitsErrLessThanFour) {
  std::mt19937 random = fresh_random();
  const std::vector<float> x = random_floats(random, 32 * 256, 0.05f);
  const auto error = [&](Format format) { return squared_error(through(format, x), x, 0, x.size()); };
  EXPECT_LT(error(Format::q5_0), error(Format::q4_0) / 3);
  EXPECT_LT(error(Format::q5_1), error(Format::q5_0));
  EXPECT_LT(error(Format::q8_0), error(Format::q5_1) / 16);
}

TEST(Formats, PackedScalesHoldWhatWasSet) {
  std::mt19937 random = fresh_random();
  uint8_t s[8], m[8];
  for (int j = 0; j < 8; ++j) s[j] = random() % 64, m[j] = random() % 64;
  PackedScales packed;
  packed.set(s, m);
  for (int j = 0; j < 8; ++j) {
    EXPECT_EQ(packed.scale(j), s[j]);
    EXPECT_EQ(packed.minimum(j), m[j]);
  }
}

TEST(Formats, ZerosStayZeros) {
  for (const FormatInfo& f : weight_formats()) {
    if (!f.encode) continue;
    const std::vector<float> zeros(256, 0.f);
    std::vector<std::byte> bytes(bytes_of(f.format, 256), std::byte{0xff});
    std::vector<float> back(256, NAN);
    f.encode(zeros.data(), bytes.data(), 256);
    f.decode(bytes.data(), back.data(), 256);
    for (const float v : back) ASSERT_EQ(v, 0) << f.name;
  }
}

// Blocks written out by hand from the descriptions at the heads of the files: one element each, worked out on paper.
TEST(Formats, BlocksDecodeAsDescribed) {
  std::vector<float> x(256);
  std::vector<std::byte> b(34);
  b[1] = std::byte{0x3c};  // d = 1
  b[2 + 5] = std::byte{0xfe};
  info(Format::q8_0).decode(b.data(), x.data(), 32);
  EXPECT_EQ(x[5], -2);

  b.assign(18, std::byte{0});
  b[1] = std::byte{0x40};      // d = 2
  b[2 + 3] = std::byte{0xf1};  // q[3] = 1, q[19] = 15
  info(Format::q4_0).decode(b.data(), x.data(), 32);
  EXPECT_EQ(x[3], 2 * (1 - 8));
  EXPECT_EQ(x[19], 2 * (15 - 8));

  b.assign(20, std::byte{0});
  b[1] = std::byte{0x40};  // d = 2
  b[3] = std::byte{0xc0};  // m = -2
  b[4] = std::byte{0x93};  // q[0] = 3, q[16] = 9
  info(Format::q4_1).decode(b.data(), x.data(), 32);
  EXPECT_EQ(x[0], 2 * 3 - 2);
  EXPECT_EQ(x[16], 2 * 9 - 2);

  b.assign(22, std::byte{0});
  b[1] = std::byte{0x3c};      // d = 1
  b[2 + 2] = std::byte{0x02};  // bit 17
  b[6 + 1] = std::byte{0x40};  // q[17] = 4 + 16
  info(Format::q5_0).decode(b.data(), x.data(), 32);
  EXPECT_EQ(x[17], 4 + 16 - 16);
  EXPECT_EQ(x[1], -16);

  b.assign(24, std::byte{0});
  b[1] = std::byte{0x3c};  // d = 1
  b[3] = std::byte{0x3c};  // m = 1
  b[4] = std::byte{0x01};  // bit 0
  b[8] = std::byte{0x07};  // q[0] = 7 + 16
  info(Format::q5_1).decode(b.data(), x.data(), 32);
  EXPECT_EQ(x[0], 7 + 16 + 1);

  b.assign(144, std::byte{0});
  b[1] = std::byte{0x3c};            // d = 1
  b[3] = std::byte{0x40};            // dmin = 2
  b[4 + 1] = std::byte{0x40 | 5};    // s[1] = 5, upper bits of s[5] = 1
  b[4 + 5] = std::byte{0x80 | 3};    // m[1] = 3, upper bits of m[5] = 2
  b[4 + 9] = std::byte{0x72};        // s[5] = 2 + 16, m[5] = 7 + 32
  b[16 + 4] = std::byte{0xa0};       // sub-block 1, element 4: 10
  b[16 + 64 + 6] = std::byte{0x90};  // sub-block 5, element 6: 9
  info(Format::q4_k).decode(b.data(), x.data(), 256);
  EXPECT_EQ(x[32 + 4], 5 * 10 - 2 * 3);
  EXPECT_EQ(x[5 * 32 + 6], 18 * 9 - 2 * 39);

  b.assign(176, std::byte{0});
  b[1] = std::byte{0x3c};       // d = 1
  b[4 + 1] = std::byte{3};      // s[1] = 3
  b[16 + 4] = std::byte{0x02};  // sub-block 1, element 4: bit 4
  b[48 + 4] = std::byte{0x50};  // and 5
  info(Format::q5_k).decode(b.data(), x.data(), 256);
  EXPECT_EQ(x[32 + 4], 3 * 21);

  b.assign(210, std::byte{0});
  b[209] = std::byte{0x3c};              // d = 1
  b[192 + 8 + 5] = std::byte{0xfd};      // s[13] = -3: half 1, run 2, elements 16..31
  b[64 + 20] = std::byte{0xb0};          // half 1, run 2, element 20: 11
  b[128 + 32 + 20] = std::byte{2 << 4};  // and 2 · 16
  info(Format::q6_k).decode(b.data(), x.data(), 256);
  EXPECT_EQ(x[128 + 64 + 20], -3 * (11 + 32 - 32));
}

}  // namespace
}  // namespace contexture
