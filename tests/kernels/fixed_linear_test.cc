// Fixed-point linears: the fast kernels against plain ones with 64-bit sums, bit for bit, over every
// format and odd sizes; and against sums at the edges of what 32 bits hold.

#include "kernels/fixed_linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/each_target.h"
#include "support/random.h"

namespace contexture {
namespace {

/// A random linear with its memory.
struct RandomLinear {
  std::vector<std::byte> quants;
  std::vector<int32_t> sums;
  std::vector<uint8_t> factors;
  std::vector<int64_t> bias;
  std::vector<FixedFactor> scale;
  FixedLinear linear;

  /// `extreme`: weights and activations as large as there are.
  RandomLinear(std::mt19937& random, int bits, size_t block, size_t rows, size_t columns, bool extreme) {
    const size_t panels = (rows + 15) / 16, units = (columns + 31) / 32, unit_bytes = bits == 4 ? 256 : 512;
    const size_t blocks = block ? (units * 32 + block - 1) / block : 0;
    quants.assign(panels * units * unit_bytes, std::byte(bits == 4 ? 0x88 : 128));
    sums.assign(panels * 16, 0);
    factors.assign(panels * blocks * 16, 1);
    for (uint8_t& f : factors) f = static_cast<uint8_t>(extreme ? 16u : 1u + static_cast<unsigned>(random()) % 16);
    const int limit = bits == 4 ? 7 : 127;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < columns; ++c) {
        const int w = extreme ? limit : static_cast<int>(random() % static_cast<unsigned>(2 * limit + 1)) - limit;
        const size_t unit = r / 16 * units + c / 32, i = c % 32;
        if (bits == 8) {
          quants[unit * 512 + i / 4 * 64 + r % 16 * 4 + i % 4] = static_cast<std::byte>(w + 128);
        } else {
          std::byte& b = quants[unit * 256 + i % 16 / 4 * 64 + r % 16 * 4 + i % 4];
          b = i < 16 ? (b & std::byte(0xf0)) | std::byte(w + 8) : (b & std::byte(0x0f)) | std::byte((w + 8) << 4);
        }
        sums[r] += w * (block ? factors[(r / 16 * blocks + c / block) * 16 + r % 16] : 1);
      }
      bias.push_back(static_cast<int64_t>(random() % 2000000) - 1000000);
      scale.push_back(fixed_factor((1 + static_cast<double>(random() % 1000)) / 1000 * (extreme ? 1e-7 : 2e-4)));
    }
    linear = {.rows = rows,
              .columns = columns,
              .bits = bits,
              .block = block,
              .quants = quants.data(),
              .sums = sums.data(),
              .factors = factors.data(),
              .bias = random() % 2 ? bias.data() : nullptr,
              .scale = scale.data(),
              .input_zero = extreme ? 0 : static_cast<int32_t>(random() % 65536),
              .output_zero = static_cast<int32_t>(random() % 65536)};
  }
};

struct Weights {
  int bits;
  size_t block;
};
constexpr Weights kWeights[] = {{4, 0}, {4, 16}, {4, 32}, {4, 64}, {8, 0}};

TEST(FixedLinear, FastIsPlain) {
  std::mt19937 random = fresh_random();
  ThreadPool pool(2);
  for (const auto& [bits, block] : kWeights) {
    for (const size_t rows : {1u, 16u, 37u, 160u}) {
      for (const size_t columns : {1u, 31u, 64u, 172u}) {
        for (const size_t tokens : {1u, 7u, 13u}) {
          const RandomLinear w(random, bits, block, rows, columns, false);
          std::vector<uint16_t> x(tokens * columns), fast(tokens * rows, 0xabcd), plain(tokens * rows);
          for (uint16_t& v : x) v = static_cast<uint16_t>(random());
          FixedScratch scratch;
          scratch.reserve(tokens, columns);
          for (FixedUnit& unit : scratch.units) std::memset(&unit, 0x55, sizeof unit);
          fixed_linear_plain(w.linear, x.data(), tokens, plain.data());
          each_target([&, bits = bits, block = block](const char* target) {
            fast.assign(fast.size(), 0xabcd);
            split_into_planes(x.data(), tokens, columns, scratch, pool);
            fixed_linear(w.linear, scratch, tokens, fast.data(), pool);
            ASSERT_EQ(fast, plain) << bits << " bits, block " << block << ", " << rows << " x " << columns << ", "
                                   << target;
          });
        }
      }
    }
  }
}

TEST(FixedLinear, LargestSumsFit) {
  std::mt19937 random = fresh_random();
  ThreadPool pool(1);
  for (const auto& [bits, block] : kWeights) {
    const size_t columns = 65536;
    const RandomLinear w(random, bits, block, 1, columns, true);
    for (const uint16_t value : {uint16_t{0}, uint16_t{65535}}) {
      const std::vector<uint16_t> x(columns, value);
      uint16_t fast = 1, plain = 2;
      FixedScratch scratch;
      scratch.reserve(1, columns);
      fixed_linear_plain(w.linear, x.data(), 1, &plain);
      each_target([&, bits = bits, block = block](const char* target) {
        split_into_planes(x.data(), 1, columns, scratch, pool);
        fixed_linear(w.linear, scratch, 1, &fast, pool);
        EXPECT_EQ(fast, plain) << bits << " bits, block " << block << ", " << target;
      });
    }
  }
}

TEST(FixedPoint, RoundsHalvesUp) {
  const FixedFactor half = fixed_factor(0.5);
  EXPECT_EQ(times(1, half), 1);
  EXPECT_EQ(times(-1, half), 0);
  EXPECT_EQ(times(3, half), 2);
  EXPECT_EQ(times(-3, half), -1);
  EXPECT_EQ(times((int64_t{1} << 40) + 1, half), (int64_t{1} << 39) + 1);
  std::mt19937_64 random(fresh_random()());
  for (int i = 0; i < 1000; ++i) {  // both paths of `times` are one number
    const auto value = static_cast<int64_t>(static_cast<int32_t>(random()));
    const FixedFactor f =
        fixed_factor(std::ldexp(1 + static_cast<double>(random() % 1000) / 1000, -static_cast<int>(random() % 40)));
    EXPECT_EQ(times(value, f), rounded_shift(static_cast<Int128>(value) * f.mantissa, f.shift));
  }
}

TEST(FixedPoint, IntegerRoot) {
  for (const uint64_t r : {uint64_t{0}, uint64_t{1}, uint64_t{65535}, uint64_t{0xffffffff}}) {
    EXPECT_EQ(integer_root(r * r), r);
    if (r > 0) {
      EXPECT_EQ(integer_root(r * r - 1), r - 1);
    }
  }
  EXPECT_EQ(integer_root(UINT64_MAX), 0xffffffffu);
}

}  // namespace
}  // namespace contexture
