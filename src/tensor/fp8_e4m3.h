#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace contexture {

/// OCP 8-bit floating point E4M3 (Open Compute Project, OFP8, 2023): sign 1, exponent 4 (bias 7), fraction 3 bits.
/// There are no infinities: 0x7f and 0xff are NaN, and the largest number is 448.
constexpr float kLargestFp8 = 448;

inline float fp8_e4m3_to_f32(uint8_t code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  if (exponent == 15 && fraction == 7) return std::nanf("");
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                        : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

/// Rounds to nearest, ties to even; what is too large becomes the largest number, NaN stays NaN.
inline uint8_t f32_to_fp8_e4m3(float value) {
  const uint32_t sign = std::bit_cast<uint32_t>(value) >> 24 & 0x80;
  if (std::isnan(value)) return static_cast<uint8_t>(sign | 0x7f);
  const float magnitude = std::fmin(std::fabs(value), kLargestFp8);
  if (magnitude < 0x1p-6f) {  // adding 2^14 leaves the rounded multiple of 2^-9 in the low bits
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(magnitude + 0x1p14f) & 15));
  }
  const uint32_t bits = std::bit_cast<uint32_t>(magnitude), odd = bits >> 20 & 1;
  const uint32_t rounded = (bits + 0x7ffff + odd) >> 20;  // exponent and three bits of the fraction
  return static_cast<uint8_t>(sign | (rounded - ((127 - 7) << 3)));
}

}  // namespace contexture
