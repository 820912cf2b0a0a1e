#pragma once

#include <cstdint>

#include "tensor/float16.h"

namespace contexture {

/// Eight pairs of 6-bit numbers in 12 bytes, as q4_k and q5_k keep the scales and minima of their eight sub-blocks.
/// Sub-blocks 0..3: bytes j and j + 4, lower six bits. Sub-blocks 4..7: lower four bits in byte j + 4 (scale in its
/// low half, minimum in its high half), upper two bits in the top of bytes j - 4 (scale) and j (minimum).
struct PackedScales {
  uint8_t bytes[12];

  int scale(int j) const { return j < 4 ? bytes[j] & 63 : (bytes[j + 4] & 15) | bytes[j - 4] >> 6 << 4; }
  int minimum(int j) const { return j < 4 ? bytes[j + 4] & 63 : bytes[j + 4] >> 4 | bytes[j] >> 6 << 4; }
};

/// 256 elements in 144 bytes, eight sub-blocks of 32:
///
///     0  scale of the scales d, f16
///     2  scale of the minima dmin, f16
///     4  scales s[8] and minima m[8] (PackedScales)
///    16  nibbles: 32 bytes for each pair of sub-blocks, low halves the even one, high halves the odd one
///
///   x[i] = d · s[j] · q[i] - dmin · m[j],  j = i / 32
struct BlockQ4_K {
  static constexpr int elements = 256;
  uint16_t d;
  uint16_t dmin;
  PackedScales scales;
  uint8_t nibbles[128];

  void decode(float* x) const {
    const float scale_of_scales = f16_to_f32(d), scale_of_minima = f16_to_f32(dmin);
    for (int j = 0; j < 8; ++j) {
      const float scale = scale_of_scales * scales.scale(j), minimum = scale_of_minima * scales.minimum(j);
      const uint8_t* bytes = nibbles + j / 2 * 32;
      const int shift = j % 2 * 4;
      for (int i = 0; i < 32; ++i) x[j * 32 + i] = scale * (bytes[i] >> shift & 15) - minimum;
    }
  }
};
static_assert(sizeof(BlockQ4_K) == 144);

}  // namespace contexture
