#pragma once

#include <algorithm>
#include <cmath>
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

  /// From the lowest, which takes 0, to the highest, which takes 31.
  void encode(const float* x) {
    const auto [lowest, highest] = std::minmax_element(x, x + elements);
    const float minimum = *lowest, scale = (*highest - minimum) / 31;
    d = f32_to_f16(scale);
    m = f32_to_f16(minimum);
    const float inverse = scale > 0 ? 1 / scale : 0;
    uint8_t quants[elements];
    for (int i = 0; i < elements; ++i) {
      quants[i] = static_cast<uint8_t>(std::clamp(std::lrintf((x[i] - minimum) * inverse), 0l, 31l));
    }
    q.set(quants);
  }
};
static_assert(sizeof(BlockQ5_1) == 24);

}  // namespace contexture
