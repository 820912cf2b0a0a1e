#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/float16.h"

namespace contexture {

/// 32 elements in 18 bytes:
///
///   0  scale d, f16
///   2  nibbles: low half of byte i is q[i], high half is q[16 + i]           x[i] = d · (q[i] - 8)
///
/// A short block at the end of a cache's row (tensor/kv_row.h) has n < 32 elements, an even number: byte i holds q[i]
/// and q[n / 2 + i].
struct BlockQ4_0 {
  static constexpr int elements = 32;
  uint16_t d;
  uint8_t nibbles[16];

  void decode(float* x, int count = elements) const {
    const float scale = f16_to_f32(d);
    const int half = count / 2;
    for (int i = 0; i < half; ++i) {
      x[i] = scale * ((nibbles[i] & 15) - 8);
      x[half + i] = scale * ((nibbles[i] >> 4) - 8);
    }
  }

  /// The largest magnitude takes -8, the side that reaches further: the scale carries its sign.
  void encode(const float* x, int count = elements) {
    float extreme = 0;
    for (int i = 0; i < count; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    const float scale = extreme / -8;
    d = f32_to_f16(scale);
    const float inverse = scale != 0 ? 1 / scale : 0;
    const auto quantise = [&](float value) {
      return static_cast<uint8_t>(std::clamp(std::lrintf(value * inverse), -8l, 7l) + 8);
    };
    const int half = count / 2;
    for (int i = 0; i < half; ++i) nibbles[i] = static_cast<uint8_t>(quantise(x[i]) | quantise(x[half + i]) << 4);
  }

  static constexpr size_t bytes(size_t count) { return 2 + count / 2; }
};
static_assert(sizeof(BlockQ4_0) == 18);

}  // namespace contexture
