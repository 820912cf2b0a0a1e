#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/error.h"

namespace contexture {

// Arithmetic of fixed-point numbers, real = scale · (raw - zero point). Sums are exact integers; only where a result
// gets its own encoding is it rounded, once: floor(x + 1/2) of the exact product with an integer mantissa and a power
// of two. No floating-point number takes part.

/// A positive factor: mantissa · 2^-shift, mantissa in [2^30, 2^31), shift in [1, 94].
struct FixedFactor {
  int64_t mantissa = 0;
  int64_t shift = 1;  // as wide as the mantissa: vectors of both are loaded together
};

/// The nearest. Throws Error for what is not positive or beyond 2^±30 or so: encodings of a real model are far from it.
inline FixedFactor fixed_factor(double factor) {
  int exponent = 0;
  const double fraction = std::frexp(factor, &exponent);
  int64_t mantissa = std::llround(std::ldexp(fraction, 31));
  if (mantissa == int64_t{1} << 31) {
    mantissa >>= 1;
    ++exponent;
  }
  if (!(factor > 0) || !std::isfinite(factor) || exponent > 30 || exponent < -63) {
    fail("a factor of {:g} between two encodings; their scales do not fit each other", factor);
  }
  return {mantissa, 31 - exponent};
}

__extension__ using Int128 = __int128;

/// floor(value / 2^shift + 1/2), shift ≥ 1. What no encoding holds becomes ±2^62, far from overflowing.
inline int64_t rounded_shift(Int128 value, int64_t shift) {
  constexpr Int128 kLimit = Int128{1} << 62;
  return static_cast<int64_t>(std::clamp((value + (Int128{1} << (shift - 1))) >> shift, -kLimit, kLimit));
}
/// Of 63 bits with the rounding; shift ≤ 62.
inline int64_t rounded_shift(int64_t value, int64_t shift) {
  return (value + (int64_t{1} << (shift - 1))) >> shift;
}

/// value · factor, rounded. |value| < 2^62.
inline int64_t times(int64_t value, FixedFactor factor) {
  // Values of 31 bits, nearly all of them, need no 128: the same number.
  if (value == static_cast<int32_t>(value) && factor.shift <= 61) {
    return rounded_shift(value * factor.mantissa, factor.shift);
  }
  return rounded_shift(static_cast<Int128>(value) * factor.mantissa, factor.shift);
}

inline uint16_t saturated(int64_t value, int64_t largest) {
  return static_cast<uint16_t>(std::clamp<int64_t>(value, 0, largest));
}

/// The integer square root: the largest r with r² ≤ value.
inline uint64_t integer_root(uint64_t value) {
  uint64_t root = 0;
  for (uint64_t bit = uint64_t{1} << 31; bit != 0; bit >>= 1) {
    const uint64_t candidate = root | bit;
    if (candidate * candidate <= value) root = candidate;
  }
  return root;
}

}  // namespace contexture
