#include "kernels/matmul.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "support/packed.h"
#include "support/random.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

constexpr float kPoison = std::numeric_limits<float>::signaling_NaN();

struct Case {
  Format format;
  size_t rows, columns;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const FormatInfo& f : weight_formats()) {
    for (const size_t rows : {1, 3, 16, 17, 33, 64, 70}) {
      for (const size_t blocks : {1, 2, 3, 5, 11}) {
        const size_t columns = f.block == 1 ? blocks * 24 - 16 + rows % 3 : blocks * f.block;
        all.push_back({f.format, rows, columns});
      }
    }
  }
  return all;
}

std::string name_of(const Case& c) {
  return fmt::format("{} {}x{}", name(c.format), c.rows, c.columns);
}

/// out (tokens, rows) of one product, from poisoned memory with a guard behind it.
std::vector<float> product(const Matrix& w, const std::vector<float>& x, size_t tokens, int threads) {
  std::vector<float> out(tokens * w.rows + 16, kPoison);
  MatmulScratch scratch(tokens, w.columns);
  ThreadPool pool(threads);
  const Packed packed(w);
  const Product p{&packed.matrix, out.data()};
  matmul({&p, 1}, x.data(), tokens, scratch, pool);
  for (size_t i = tokens * w.rows; i < out.size(); ++i) EXPECT_TRUE(std::isnan(out[i])) << "wrote past the end";
  out.resize(tokens * w.rows);
  return out;
}

TEST(Matmul, AgreesWithTheOracleForEveryFormatAndShape) {
  std::mt19937 random = fresh_random();
  for (const Case& c : cases()) {
    const size_t tokens = 1 + random() % 60;
    const std::vector<std::byte> bytes = random_weights(random, c.format, c.rows * c.columns);
    const Matrix w{c.format, c.rows, c.columns, bytes.data()};
    const std::vector<float> x = random_floats(random, tokens * c.columns);
    const std::vector<float> out = product(w, x, tokens, 2);
    const Packed packed(w);
    std::vector<float> row(c.columns), largest(c.rows);
    for (size_t r = 0; r < c.rows; ++r) {
      decode_row(packed.matrix, r, row.data());
      for (const float v : row) largest[r] = std::max(largest[r], std::fabs(v));
    }
    for (size_t t = 0; t < tokens; ++t) {
      std::vector<double> expected(c.rows);
      matmul_plain(packed.matrix, x.data() + t * c.columns, expected.data());
      double inputs = 0;
      for (size_t i = 0; i < c.columns; ++i) inputs += std::fabs(x[t * c.columns + i]);
      for (size_t r = 0; r < c.rows; ++r) {
        // Runs of 256 columns and the runs' sums (float), or two terms a block of 32 (quantised): each an error of
        // 2^-24 of what has added up, which is below Σ|x| times the largest weight, thrice that where a minimum is
        // added apart.
        const double roundings = static_cast<double>(std::min<size_t>(c.columns, 256) + c.columns / 16) + 8;
        const double bound = 3 * largest[r] * inputs * roundings * 0x1p-24;
        ASSERT_NEAR(out[t * c.rows + r], expected[r], bound) << name_of(c) << " token " << t << " row " << r;
      }
    }
  }
}

TEST(Matmul, GivesTheSameBitsForAnyCompanyAndThreads) {
  std::mt19937 random = fresh_random();
  for (const Case& c : cases()) {
    const size_t tokens = 45;
    const std::vector<std::byte> bytes = random_weights(random, c.format, c.rows * c.columns);
    const Matrix w{c.format, c.rows, c.columns, bytes.data()};
    const std::vector<float> x = random_floats(random, tokens * c.columns);
    const std::vector<float> together = product(w, x, tokens, 3);
    ASSERT_EQ(together, product(w, x, tokens, 1)) << name_of(c);
    for (size_t t = 0; t < tokens; t += kSanitized ? 11 : 1) {
      const std::vector<float> one(x.begin() + static_cast<ptrdiff_t>(t * c.columns),
                                   x.begin() + static_cast<ptrdiff_t>((t + 1) * c.columns));
      const std::vector<float> alone = product(w, one, 1, 2);
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + static_cast<ptrdiff_t>(t * c.rows)))
          << name_of(c) << " token " << t;
    }
  }
}

TEST(Matmul, GivesTheSameBitsOnEveryTarget) {
  std::mt19937 random = fresh_random();
  const size_t tokens = 37;  // enough for AMX, where there is any, and a tile that is not full
  const int64_t targets = hwy::SupportedTargets();
  for (const Case& c : cases()) {
    const std::vector<std::byte> bytes = random_weights(random, c.format, c.rows * c.columns);
    const Matrix w{c.format, c.rows, c.columns, bytes.data()};
    const std::vector<float> x = random_floats(random, tokens * c.columns);
    const std::vector<float> best = product(w, x, tokens, 1);
    for (int64_t left = targets; left != 0; left &= left - 1) {
      const int64_t target = left & -left;
      hwy::SetSupportedTargetsForTest(target);
      const std::vector<float> other = product(w, x, tokens, 1);
      hwy::SetSupportedTargetsForTest(0);
      ASSERT_EQ(best, other) << name_of(c) << " on " << hwy::TargetName(target);
    }
  }
}

// More tokens than are multiplied at once.
TEST(Matmul, GivesTheSameBitsForLongPrompts) {
  std::mt19937 random = fresh_random();
  for (const Format format : {Format::q4_0, Format::q6_k, Format::f16}) {
    const size_t tokens = 1100, rows = 70, columns = 512;
    const std::vector<std::byte> bytes = random_weights(random, format, rows * columns);
    const Matrix w{format, rows, columns, bytes.data()};
    const std::vector<float> x = random_floats(random, tokens * columns);
    const std::vector<float> together = product(w, x, tokens, 2);
    for (size_t t = 0; t < tokens; t += 1 + random() % 50) {
      const std::vector<float> one(x.begin() + static_cast<ptrdiff_t>(t * columns),
                                   x.begin() + static_cast<ptrdiff_t>((t + 1) * columns));
      const std::vector<float> alone = product(w, one, 1, 1);
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + static_cast<ptrdiff_t>(t * rows)))
          << name(format) << " token " << t;
    }
  }
}

TEST(PackedMatrix, HoldsTheNumbersOfItsFormatToTheBit) {
  std::mt19937 random = fresh_random();
  for (const Case& c : cases()) {
    const std::vector<std::byte> bytes = random_weights(random, c.format, c.rows * c.columns);
    const Matrix w{c.format, c.rows, c.columns, bytes.data()};
    const Packed packed(w);
    std::vector<float> expected(c.columns), row(c.columns);
    for (size_t r = 0; r < c.rows; ++r) {
      info(c.format).decode(w.row(r), expected.data(), c.columns);
      decode_row(packed.matrix, r, row.data());
      ASSERT_EQ(expected, row) << name_of(c) << " row " << r;
    }
    if (c.rows % 16 == 0) {
      EXPECT_LE(static_cast<double>(packed.matrix.bytes()), 1.03 * static_cast<double>(w.bytes())) << name_of(c);
    }
  }
}

TEST(Matmul, TakesSeveralProductsOfOneInput) {
  std::mt19937 random(7);
  const std::vector<float> x = random_floats(random, 3 * 64);
  const std::vector<std::byte> a_bytes = random_weights(random, Format::q4_0, 40 * 64);
  const std::vector<std::byte> b_bytes = random_weights(random, Format::f16, 7 * 64);
  const Matrix a{Format::q4_0, 40, 64, a_bytes.data()}, b{Format::f16, 7, 64, b_bytes.data()};
  std::vector<float> a_out(3 * 40, kPoison), b_out(3 * 7, kPoison);
  MatmulScratch scratch(3, 64);
  ThreadPool pool(2);
  const Packed packed_a(a), packed_b(b);
  const Product both[] = {{&packed_a.matrix, a_out.data()}, {&packed_b.matrix, b_out.data()}};
  matmul(both, x.data(), 3, scratch, pool);
  EXPECT_EQ(a_out, product(a, x, 3, 1));
  EXPECT_EQ(b_out, product(b, x, 3, 1));
}

// The unsigned-by-signed instruction adds pairs in 16 bits on AVX2: the extremes must not saturate.
TEST(Matmul, ExtremeQuantsDoNotSaturate) {
  std::vector<std::byte> bytes(34 * 2);
  for (size_t block = 0; block < 2; ++block) {
    bytes[block * 34 + 1] = std::byte{0x3c};                                  // scale 1.0
    for (size_t i = 2; i < 34; ++i) bytes[block * 34 + i] = std::byte{0x80};  // -128
  }
  const Matrix w{Format::q8_0, 1, 64, bytes.data()};
  for (const float value : {1.f, -1.f}) {
    const std::vector<float> out = product(w, std::vector<float>(64, value), 1, 1);
    EXPECT_NEAR(out[0], -128 * 64 * value, 0.01);
  }
}

TEST(Quantise, IsTheOraclesToTheBit) {
  std::mt19937 random = fresh_random();
  for (const size_t columns : {1, 31, 32, 33, 64, 95, 96, 640}) {
    std::vector<float> x = random_floats(random, columns, 1e3f);
    for (size_t i = 0; i < columns; i += 7) x[i] = 0;
    if (columns > 64) std::fill(x.begin() + 32, x.begin() + 64, 0.f);
    std::vector<ActivationBlock> fast(blocks_of(columns)), plain(blocks_of(columns));
    std::memset(fast.data(), 0x7f, fast.size() * sizeof(ActivationBlock));
    quantise_row(x.data(), columns, fast.data());
    quantise_row_plain(x.data(), columns, plain.data());
    EXPECT_EQ(std::memcmp(fast.data(), plain.data(), fast.size() * sizeof(ActivationBlock)), 0) << columns;
    for (size_t i = 0; i < columns; ++i) {  // within half a step
      const ActivationBlock& block = fast[i / 32];
      EXPECT_NEAR(block.scale * block.quants[i % 32], x[i], block.scale * 0.501f);
    }
  }
}

TEST(Quantise, TilesHoldWhatRowsHold) {
  std::mt19937 random = fresh_random();
  for (const size_t columns : {1, 33, 256, 300, 640}) {
    for (const size_t tokens : {1, 7, 16}) {
      const std::vector<float> x = random_floats(random, tokens * columns);
      std::vector<ActivationTile> tiles(blocks_of(columns));
      std::memset(tiles.data(), 0x7f, tiles.size() * sizeof(ActivationTile));
      quantise_tile(x.data(), tokens, columns, tiles.data());
      std::vector<ActivationBlock> row(blocks_of(columns));
      for (size_t t = 0; t < 16; ++t) {
        std::fill(row.begin(), row.end(), ActivationBlock{});
        if (t < tokens) quantise_row_plain(x.data() + t * columns, columns, row.data());
        for (size_t i = 0; i < row.size(); ++i) {
          EXPECT_EQ(std::memcmp(tiles[i].quants[t], row[i].quants, 32), 0) << t << " of " << tokens;
          EXPECT_EQ(tiles[i].scales[t], row[i].scale);
          EXPECT_EQ(tiles[i].scaled_sums[t], row[i].scaled_sum);
        }
      }
    }
  }
}

TEST(Quantise, NotANumberStaysNotANumber) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (size_t at = 0; at < 64; at += 21) {
      std::vector<float> x(64, 1.f);
      x[at] = bad;
      std::mt19937 random(3);
      const std::vector<std::byte> bytes = random_weights(random, Format::q8_0, 64);
      const std::vector<float> out = product({Format::q8_0, 1, 64, bytes.data()}, x, 1, 1);
      EXPECT_FALSE(std::isfinite(out[0])) << bad << " at " << at;
    }
  }
}

}  // namespace
}  // namespace contexture
