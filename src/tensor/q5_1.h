#pragma once

#include <cstdint>

#include "tensor/float16.h"
#include "tensor/q5_0.h"

namespace contexture {

/// 32 elements in 24 bytes:
///
///   0  scale d, f16
///   2  minimum m, f16
///   4  fifth bits: bit i of the 32 (little endian) is bit 4 of q[i]
///   8  nibbles: low half of byte i is q[i]'s lower four bits, high half q[16 + i]'s           x[i] = d · q[i] + m
struct BlockQ5_1 {
  static constexpr int elements = 32;
  uint16_t d;
  uint16_t m;
  FiveBitQuants q;

  void decode(float* x) const {
    const float scale = f16_to_f32(d), minimum = f16_to_f32(m);
    for (int i = 0; i < elements; ++i) x[i] = scale * q[i] + minimum;
  }
};
static_assert(sizeof(BlockQ5_1) == 24);

}  // namespace contexture
