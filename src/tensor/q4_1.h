#pragma once

#include <cstdint>

#include "tensor/float16.h"

namespace contexture {

/// 32 elements in 20 bytes:
///
///   0  scale d, f16
///   2  minimum m, f16
///   4  nibbles: low half of byte i is q[i], high half is q[16 + i]           x[i] = d · q[i] + m
struct BlockQ4_1 {
  static constexpr int elements = 32;
  uint16_t d;
  uint16_t m;
  uint8_t nibbles[16];

  void decode(float* x) const {
    const float scale = f16_to_f32(d), minimum = f16_to_f32(m);
    for (int i = 0; i < 16; ++i) {
      x[i] = scale * (nibbles[i] & 15) + minimum;
      x[16 + i] = scale * (nibbles[i] >> 4) + minimum;
    }
  }
};
static_assert(sizeof(BlockQ4_1) == 20);

}  // namespace contexture
