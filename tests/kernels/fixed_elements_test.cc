// Fixed-point numbers many at once against the same one by one in 128 bits (kernels/fixed_point.h), bit for bit, on
// every target, for odd counts and for numbers at the edges.

#include "kernels/fixed_elements.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/each_target.h"
#include "support/random.h"

namespace contexture {
namespace {

constexpr uint16_t kUnwritten = 0xabcd;

std::vector<uint16_t> random_words(std::mt19937& random, size_t count) {
  std::vector<uint16_t> words(count);
  for (uint16_t& w : words) w = static_cast<uint16_t>(random() % 8 == 0 ? random() % 2 * 65535 : random());
  return words;
}
int32_t random_zero(std::mt19937& random) {
  return static_cast<int32_t>(random() % 4 == 0 ? random() % 2 * 65535 : random() % 65536);
}
FixedFactor random_factor(std::mt19937& random, int largest_shift) {
  FixedFactor f;
  f.mantissa = random() % 4 == 0 ? (int64_t{1} << 31) - 1 : (int64_t{1} << 30) + random() % (1u << 30);
  f.shift = 1 + static_cast<int>(random() % static_cast<unsigned>(largest_shift));
  return f;
}

constexpr size_t kCounts[] = {1, 7, 16, 33, 200};

TEST(FixedElements, SumsArePlain) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 100; ++round) {
    for (const size_t count : kCounts) {
      const FixedFactor fa = random_factor(random, kMaxSumShift), fb = random_factor(random, kMaxSumShift);
      const FixedSum f{.a_factor = fa.mantissa,
                       .b_factor = random() % 2 ? fb.mantissa : fb.mantissa >> 20,
                       .shift = static_cast<int>(fa.shift),
                       .a_zero = random_zero(random),
                       .b_zero = random_zero(random),
                       .out_zero = random_zero(random)};
      const std::vector<uint16_t> a = random_words(random, count), b = random_words(random, count);
      std::vector<uint16_t> plain(count), fast;
      for (size_t i = 0; i < count; ++i) {
        const Int128 exact =
            static_cast<Int128>(a[i] - f.a_zero) * f.a_factor + static_cast<Int128>(b[i] - f.b_zero) * f.b_factor;
        plain[i] = saturated(rounded_shift(exact, f.shift) + f.out_zero, 65535);
      }
      each_target([&](const char* target) {
        fast.assign(count, kUnwritten);
        fixed_sum(f, a.data(), b.data(), fast.data(), count);
        ASSERT_EQ(fast, plain) << target;
      });
    }
  }
}

TEST(FixedElements, ProductsOfTwoArePlain) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 100; ++round) {
    for (const size_t count : kCounts) {
      const FixedProductOfTwo f{.factor = random_factor(random, kMaxProductShift),
                                .a_zero = random_zero(random),
                                .b_zero = random_zero(random),
                                .out_zero = random_zero(random)};
      const std::vector<uint16_t> a = random_words(random, count), b = random_words(random, count);
      std::vector<uint16_t> plain(count), fast;
      for (size_t i = 0; i < count; ++i) {
        const Int128 exact = static_cast<Int128>(a[i] - f.a_zero) * (b[i] - f.b_zero) * f.factor.mantissa;
        plain[i] = saturated(rounded_shift(exact, f.factor.shift) + f.out_zero, 65535);
      }
      each_target([&](const char* target) {
        fast.assign(count, kUnwritten);
        fixed_multiply(f, a.data(), b.data(), fast.data(), count);
        ASSERT_EQ(fast, plain) << target;
      });
    }
  }
}

TEST(FixedElements, SoftmaxIsPlain) {
  std::mt19937 random = fresh_random();
  for (const double scale : {1e-6, 3e-4, 5e-3, 0.5}) {
    const FixedExponential table(scale);
    for (const size_t columns : {1u, 5u, 16u, 127u, 512u}) {
      std::vector<uint16_t> x = random_words(random, columns), plain(columns), fast;
      const uint16_t highest = *std::max_element(x.begin(), x.end());
      std::vector<uint64_t> e(columns);
      for (size_t i = 0; i < columns; ++i) {
        const size_t d = static_cast<size_t>(highest - x[i]);
        e[i] = (uint64_t{table.high[d / 256]} * table.low[d % 256] + (1u << 30)) >> 31;
        EXPECT_NEAR(static_cast<double>(e[i]), 0x1p31 * std::exp(-scale * static_cast<double>(d)), 2);
      }
      const uint64_t sum = std::accumulate(e.begin(), e.end(), uint64_t{0});
      for (size_t i = 0; i < columns; ++i) {
        const Int128 product = static_cast<Int128>(e[i]) * ((uint64_t{65535} << 47) / sum);
        plain[i] = static_cast<uint16_t>((product + (Int128{1} << 46)) >> 47);
      }
      std::vector<uint32_t> scratch;
      each_target([&](const char* target) {
        fast.assign(columns, kUnwritten);
        scratch.assign(columns, 0xabcdabcd);
        fixed_softmax(table, x.data(), columns, scratch.data(), fast.data());
        ASSERT_EQ(fast, plain) << target << ", " << columns << " columns";
      });
    }
  }
}

template <class B>
void compare_products(std::mt19937& random, size_t rows, size_t terms, size_t columns, bool extreme) {
  const FixedProduct p{.rows = rows,
                       .terms = terms,
                       .columns = columns,
                       .a_zero = extreme ? 0 : random_zero(random),
                       .b_zero = extreme          ? 0
                                 : sizeof(B) == 1 ? 128
                                                  : 32768,
                       .out_zero = random_zero(random),
                       .factor = fixed_factor(extreme ? 1e-6 : 1e-3)};
  std::vector<uint16_t> a = random_words(random, rows * terms), plain(rows * columns), fast;
  std::vector<B> b(terms * columns);
  for (uint16_t& v : a) {
    if (extreme) v = 65535;
    if (!extreme && random() % 3 == 0) v = static_cast<uint16_t>(p.a_zero);
  }
  for (B& v : b) v = static_cast<B>(extreme ? ~0u : static_cast<unsigned>(random()));
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < columns; ++i) {
      int64_t sum = 0;
      for (size_t k = 0; k < terms; ++k) {
        sum += (int64_t{a[r * terms + k]} - p.a_zero) * (int64_t{b[k * columns + i]} - p.b_zero);
      }
      plain[r * columns + i] = saturated(times(sum, p.factor) + p.out_zero, 65535);
    }
  }
  each_target([&](const char* target) {
    fast.assign(plain.size(), kUnwritten);
    fixed_product(p, a.data(), b.data(), fast.data());
    ASSERT_EQ(fast, plain) << rows << " x " << terms << " x " << columns << ", " << target;
  });
}

TEST(FixedElements, ProductsArePlain) {
  std::mt19937 random = fresh_random();
  for (const size_t rows : {1u, 4u, 6u}) {
    for (const size_t terms : {1u, 8u, 128u, 129u, 700u}) {
      for (const size_t columns : {1u, 8u, 16u, 48u, 65u, 200u}) {
        for (const bool extreme : {false, true}) {
          compare_products<uint8_t>(random, rows, terms, columns, extreme);
          compare_products<uint16_t>(random, rows, terms, columns, extreme);
        }
      }
    }
  }
}

}  // namespace
}  // namespace contexture
