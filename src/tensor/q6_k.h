#pragma once

#include <algorithm>
#include <cmath>
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

  void encode(const float* x) {
    *this = {};
    float fitted[16];
    for (int j = 0; j < 16; ++j) fitted[j] = fitted_scale(x + j * 16);
    const auto larger = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    d = f32_to_f16(*std::max_element(fitted, fitted + 16, larger) / -128);
    const float unit = f16_to_f32(d);
    for (int j = 0; unit != 0 && j < 16; ++j) {
      scales[j] = static_cast<int8_t>(std::clamp(to_nearest(fitted[j] / unit), -128.f, 127.f));
    }
    for (int i = 0; i < elements; ++i) {
      const float scale = unit * scales[i / 16];
      const int q = scale != 0 ? static_cast<int>(std::clamp(to_nearest(x[i] / scale), -32.f, 31.f)) + 32 : 32;
      set_quant(i, q);
    }
  }

 private:
  void set_quant(int i, int q) {
    const int half = i / 128, run = i / 32 % 4, at = i % 32;
    low[half * 64 + run % 2 * 32 + at] |= static_cast<uint8_t>((q & 15) << (run / 2 * 4));
    high[half * 32 + at] |= static_cast<uint8_t>(q >> 4 << (run * 2));
  }

  /// x[i] ≈ scale · q[i] for 16 numbers, q in -32..31: of 19 scales around the one that gives the largest magnitude
  /// the side that reaches further, the one whose least-squares fit errs least.
  static float fitted_scale(const float* x) {
    float extreme = 0, best_gain = -1, scale = 0;
    for (int i = 0; i < 16; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    if (extreme == 0) return 0;
    for (int step = -9; step <= 9; ++step) {
      const float inverse = (-32 + 0.1f * static_cast<float>(step)) / extreme;
      float qx = 0, qq = 0;
      for (int i = 0; i < 16; ++i) {
        const float q = std::clamp(to_nearest(x[i] * inverse), -32.f, 31.f);
        qx += q * x[i];
        qq += q * q;
      }
      const float gain = qx * qx / qq;  // by which the best scale for these q lowers the squared error
      if (gain > best_gain) best_gain = gain, scale = qx / qq;
    }
    return scale;
  }
};
static_assert(sizeof(BlockQ6_K) == 210);

}  // namespace contexture
