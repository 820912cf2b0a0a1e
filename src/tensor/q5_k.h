#pragma once

#include <cstdint>

#include "tensor/float16.h"
#include "tensor/q4_k.h"

namespace contexture {

/// 256 elements in 176 bytes, eight sub-blocks of 32:
///
///     0  scale of the scales d, f16
///     2  scale of the minima dmin, f16
///     4  scales s[8] and minima m[8] (PackedScales)
///    16  fifth bits: bit j of byte i is bit 4 of element i of sub-block j
///    48  nibbles: 32 bytes for each pair of sub-blocks, low halves the even one, high halves the odd one
///
///   x[i] = d · s[j] · q[i] - dmin · m[j],  j = i / 32
struct BlockQ5_K {
  static constexpr int elements = 256;
  uint16_t d;
  uint16_t dmin;
  PackedScales scales;
  uint8_t fifth[32];
  uint8_t nibbles[128];

  void decode(float* x) const {
    const float scale_of_scales = f16_to_f32(d), scale_of_minima = f16_to_f32(dmin);
    for (int j = 0; j < 8; ++j) {
      const float scale = scale_of_scales * scales.scale(j), minimum = scale_of_minima * scales.minimum(j);
      const uint8_t* bytes = nibbles + j / 2 * 32;
      const int shift = j % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int quant = (bytes[i] >> shift & 15) | (fifth[i] >> j & 1) << 4;
        x[j * 32 + i] = scale * quant - minimum;
      }
    }
  }
};
static_assert(sizeof(BlockQ5_K) == 176);

}  // namespace contexture
