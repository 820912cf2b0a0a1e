#pragma once

#include <cstdint>

#include "tensor/float16.h"

namespace contexture {

/// 256 elements in 210 bytes, sixteen sub-blocks of 16. The quants are cut into two halves of 128, each of them four
/// runs of 32:
///
///     0  lower four bits: 64 bytes a half; run 0 in the low halves of bytes 0..31, run 1 of bytes 32..63, runs 2 and 3
///        in the high halves of the same bytes
///   128  upper two bits: 32 bytes a half; run r in bits 2r and 2r + 1
///   192  scales s[16], int8
///   208  scale of the scales d, f16
///
///   x[i] = d · s[i / 16] · (q[i] - 32)
struct BlockQ6_K {
  static constexpr int elements = 256;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;

  int quant(int i) const {
    const int half = i / 128, run = i / 32 % 4, at = i % 32;
    const int lower = low[half * 64 + run % 2 * 32 + at] >> (run / 2 * 4) & 15;
    return lower | (high[half * 32 + at] >> (run * 2) & 3) << 4;
  }

  void decode(float* x) const {
    const float scale_of_scales = f16_to_f32(d);
    for (int i = 0; i < elements; ++i) x[i] = scale_of_scales * scales[i / 16] * (quant(i) - 32);
  }
};
static_assert(sizeof(BlockQ6_K) == 210);

}  // namespace contexture
