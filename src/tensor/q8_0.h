#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/float16.h"

namespace contexture {

/// 32 elements in 34 bytes:
///
///   0  scale d, f16
///   2  q[32], int8           x[i] = d · q[i]
///
/// A short block at the end of a cache's row (tensor/kv_row.h) has fewer quants and is otherwise the same.
struct BlockQ8_0 {
  static constexpr int elements = 32;
  uint16_t d;
  int8_t q[32];

  void decode(float* x, int count = elements) const {
    const float scale = f16_to_f32(d);
    for (int i = 0; i < count; ++i) x[i] = scale * q[i];
  }

  void encode(const float* x, int count = elements) {
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
    const float scale = largest / 127;
    d = f32_to_f16(scale);
    const float inverse = scale > 0 ? 1 / scale : 0;
    for (int i = 0; i < count; ++i) q[i] = static_cast<int8_t>(std::lrintf(std::clamp(x[i] * inverse, -127.f, 127.f)));
  }

  static constexpr size_t bytes(size_t count) { return 2 + count; }
};
static_assert(sizeof(BlockQ8_0) == 34);

}  // namespace contexture
