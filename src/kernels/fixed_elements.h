#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/fixed_point.h"

namespace contexture {

// Fixed-point numbers of 16 bits, many at once: what kernels/fixed_point.h says of one number, in vectors. Of each
// there is a plain oracle in tests/kernels.

/// out = (a - a_zero) · a_factor + (b - b_zero) · b_factor + out_zero, both factors times 2^-shift: one rounding, and
/// saturated. Factors below 2^31, shift ≤ 61: sums stay below 2^62.
struct FixedSum {
  int64_t a_factor = 0, b_factor = 0;
  int shift = 1;
  int32_t a_zero = 0, b_zero = 0, out_zero = 0;
};
constexpr int kMaxSumShift = 61;
void fixed_sum(const FixedSum& f, const uint16_t* a, const uint16_t* b, uint16_t* out, size_t count);

/// out = factor · (a - a_zero) · (b - b_zero) + out_zero, rounded once and saturated. factor.shift ≤ 47: 65,535² · 2^31
/// and half of what is shifted out are below 2^63.
struct FixedProductOfTwo {
  FixedFactor factor;
  int32_t a_zero = 0, b_zero = 0, out_zero = 0;
};
constexpr int kMaxProductShift = 47;
void fixed_multiply(const FixedProductOfTwo& f, const uint16_t* a, const uint16_t* b, uint16_t* out, size_t count);

/// exp(-d · scale) for d = 0…65,535 as 31 bits, the product of two tables: (high[d / 256] · low[d mod 256] + 2^30) /
/// 2^31.
struct FixedExponential {
  uint32_t high[256], low[256];
  explicit FixedExponential(double scale);
};
/// One row: e = the table's at (the largest x) - x; out = (e · floor(65,535 · 2^47 / Σ e) + 2^46) / 2^47, the sum
/// exact. `e` is scratch (columns).
void fixed_softmax(const FixedExponential& table, const uint16_t* x, size_t columns, uint32_t* e, uint16_t* out);

/// A product of activations: out[r][i] = factor · Σ_k (a[r][k] - a_zero) · (b[k][i] - b_zero) + out_zero, rounded once
/// and saturated. a (rows, terms), b (terms, columns), out (rows, columns). Products with 8-bit numbers are added in 32
/// bits for 128 terms (65,535 · 255 · 128 < 2^31) and then in 64, those with 16-bit numbers in 64.
struct FixedProduct {
  size_t rows = 1, terms = 0, columns = 0;
  int32_t a_zero = 0, b_zero = 0, out_zero = 0;
  FixedFactor factor;
};
void fixed_product(const FixedProduct& p, const uint16_t* a, const uint8_t* b, uint16_t* out);
void fixed_product(const FixedProduct& p, const uint16_t* a, const uint16_t* b, uint16_t* out);

}  // namespace contexture
