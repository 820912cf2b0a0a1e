#include "tensor/kv_row.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "support/random.h"

namespace contexture {
namespace {

TEST(KvRow, BytesAreThoseOfWholeBlocksAndAShortOne) {
  EXPECT_EQ(kv_row_bytes(Format::f16, 80), 160u);
  EXPECT_EQ(kv_row_bytes(Format::q8_0, 64), 68u);
  EXPECT_EQ(kv_row_bytes(Format::q8_0, 80), 68u + 2 + 16);
  EXPECT_EQ(kv_row_bytes(Format::q4_0, 80), 36u + 2 + 8);
  EXPECT_EQ(kv_row_bytes(Format::q4_0, 8), 6u);
  EXPECT_EQ(kv_row_bytes(Format::fp8_e4m3, 80), 80u);
  EXPECT_FALSE(is_kv_format(Format::q4_k));
  EXPECT_FALSE(is_kv_format(Format::i8));
}

TEST(KvRow, ComesBackWithinTheBoundsOfItsFormat) {
  std::mt19937 random = fresh_random();
  for (const Format format : kv_formats()) {
    for (const size_t count : {8, 16, 24, 32, 40, 56, 64, 80, 128, 256}) {
      for (const float scale : {1e-7f, 1e-3f, 1.f, 3e3f, 1e5f, 1e7f}) {
        const std::vector<float> in = random_floats(random, count, scale);
        const size_t bytes = kv_row_bytes(format, count);
        std::vector<std::byte> row(bytes + 4, std::byte{0x5a});
        encode_kv_row(format, in.data(), row.data(), count);
        for (size_t i = bytes; i < row.size(); ++i) ASSERT_EQ(row[i], std::byte{0x5a}) << "written past the row";
        std::vector<float> out(count, NAN), bounds(count, NAN);
        decode_kv_row(format, row.data(), out.data(), count);
        kv_row_error_bounds(format, in.data(), bounds.data(), count);
        for (size_t i = 0; i < count; ++i) {
          ASSERT_LE(std::fabs(out[i] - in[i]), bounds[i] * (1 + 1e-5f))
              << name(format) << ", " << count << " channels of about " << scale << ": " << in[i];
        }
      }
    }
  }
}

TEST(KvRow, ClampsAndCountsWhatIsBeyondItsFormat) {
  for (const Format format : kv_formats()) {
    std::vector<float> in(40, 0.f), out(40);
    in[1] = 7e4f, in[33] = -1e9f;
    std::vector<std::byte> row(kv_row_bytes(format, 40));
    const size_t clamped = encode_kv_row(format, in.data(), row.data(), 40);
    decode_kv_row(format, row.data(), out.data(), 40);
    const bool has_no_scale = format == Format::f16 || format == Format::fp8_e4m3;
    EXPECT_EQ(clamped, has_no_scale ? 2u : format == Format::q8_0 || format == Format::q4_0 ? 1u : 0u);
    for (const float x : out) EXPECT_TRUE(std::isfinite(x));
    if (format == Format::f16) {
      EXPECT_EQ(out[1], 65504);
      EXPECT_EQ(out[33], -65504);
    }
    if (format == Format::fp8_e4m3) {
      EXPECT_EQ(out[1], 448);
      EXPECT_EQ(out[33], -448);
    }
    in[34] = NAN;
    encode_kv_row(format, in.data(), row.data(), 40);
    decode_kv_row(format, row.data(), out.data(), 40);
    EXPECT_TRUE(std::isnan(out[34])) << name(format);
    EXPECT_FALSE(std::isnan(out[1])) << name(format);
  }
}

TEST(KvRow, WhatIsNotInTheListIsRefusedByName) {
  std::vector<std::byte> row(256);
  float out[32];
  EXPECT_THROW((void)kv_row_bytes(Format::q4_k, 32), Error);
  try {
    decode_kv_row(Format::q6_k, row.data(), out, 32);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "K and V cannot be held in q6_k; choose f32, f16, bf16, q8_0, q4_0 or fp8_e4m3");
  }
}

}  // namespace
}  // namespace contexture
