#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/float16.h"

namespace contexture {

/// 32 five-bit numbers as q5_0 and q5_1 keep them: the fifth bits apart, then nibbles as in q4_0.
struct FiveBitQuants {
  uint8_t fifth[4];
  uint8_t nibbles[16];

  int operator[](int i) const {
    const int low = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
    return low | (fifth[i / 8] >> (i % 8) & 1) << 4;
  }

  /// All 32, each 0 to 31.
  void set(const uint8_t (&quants)[32]) {
    for (int i = 0; i < 4; ++i) fifth[i] = 0;
    for (int i = 0; i < 32; ++i) fifth[i / 8] |= static_cast<uint8_t>(quants[i] >> 4 << (i % 8));
    for (int i = 0; i < 16; ++i) nibbles[i] = static_cast<uint8_t>((quants[i] & 15) | (quants[16 + i] & 15) << 4);
  }
};

/// 32 elements in 22 bytes:
///
///   0  scale d, f16
///   2  fifth bits: bit i of the 32 (little endian) is bit 4 of q[i]
///   6  nibbles: low half of byte i is q[i]'s lower four bits, high half q[16 + i]'s           x[i] = d · (q[i] - 16)
struct BlockQ5_0 {
  static constexpr int elements = 32;
  uint16_t d;
  FiveBitQuants q;

  void decode(float* x) const {
    const float scale = f16_to_f32(d);
    for (int i = 0; i < elements; ++i) x[i] = scale * (q[i] - 16);
  }

  /// The largest magnitude takes -16, the side that reaches further: the scale carries its sign.
  void encode(const float* x) {
    const auto larger = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    const float scale = *std::max_element(x, x + elements, larger) / -16;
    d = f32_to_f16(scale);
    const float inverse = scale != 0 ? 1 / scale : 0;
    uint8_t quants[elements];
    for (int i = 0; i < elements; ++i) {
      quants[i] = static_cast<uint8_t>(std::clamp(std::lrintf(x[i] * inverse), -16l, 15l) + 16);
    }
    q.set(quants);
  }
};
static_assert(sizeof(BlockQ5_0) == 22);

}  // namespace contexture
