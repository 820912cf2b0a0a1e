#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tensor/float16.h"

namespace contexture {

/// Eight pairs of 6-bit numbers in 12 bytes, as q4_k and q5_k keep the scales and minima of their eight sub-blocks.
/// Sub-blocks 0..3: bytes j and j + 4, lower six bits. Sub-blocks 4..7: lower four bits in byte j + 4 (scale in its
/// low half, minimum in its high half), upper two bits in the top of bytes j - 4 (scale) and j (minimum).
struct PackedScales {
  uint8_t bytes[12];

  int scale(int j) const { return j < 4 ? bytes[j] & 63 : (bytes[j + 4] & 15) | bytes[j - 4] >> 6 << 4; }
  int minimum(int j) const { return j < 4 ? bytes[j + 4] & 63 : bytes[j + 4] >> 4 | bytes[j] >> 6 << 4; }

  /// All eight at once; each below 64.
  void set(const uint8_t (&s)[8], const uint8_t (&m)[8]) {
    for (int j = 0; j < 4; ++j) {
      bytes[j] = static_cast<uint8_t>(s[j] | s[j + 4] >> 4 << 6);
      bytes[j + 4] = static_cast<uint8_t>(m[j] | m[j + 4] >> 4 << 6);
      bytes[j + 8] = static_cast<uint8_t>((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
  }
};

/// x[i] ≈ scale · q[i] - minimum for 32 numbers, q in 0..15, scale and minimum not negative: of 21 ranges around the
/// numbers' own, the one whose least-squares fit errs least.
struct NibbleFit {
  float scale = 0, minimum = 0;

  explicit NibbleFit(const float* x) {
    constexpr int n = 32, steps = 10;
    const auto [lowest, highest] = std::minmax_element(x, x + n);
    const float low = std::min(0.f, *lowest), range = std::max(*highest, low) - low;
    minimum = -low;
    if (!(range > 0)) return;
    float best = std::numeric_limits<float>::infinity();
    for (int step = -steps; step <= steps; ++step) {
      const Sums t = sums(x, low, (15 + 0.1f * static_cast<float>(step)) / range);
      float s = (n * t.qx - t.q * t.x) / (n * t.qq - t.q * t.q), m = (s * t.q - t.x) / n;
      if (!(s > 0 && m >= 0)) {
        m = 0;
        s = std::max(0.f, t.qx / t.qq);
      }
      // Σ (s q - m - x)², less Σ x², which is the same for all.
      const float error = s * s * t.qq + n * m * m - 2 * (s * m * t.q + s * t.qx - m * t.x);
      if (error < best) best = error, scale = s, minimum = m;
    }
  }

 private:
  struct Sums {
    float x = 0, q = 0, qq = 0, qx = 0;
  };

  /// In eight lanes, so that compilers make vectors of them.
  static Sums sums(const float* x, float low, float inverse) {
    constexpr int lanes = 8;
    float sx[lanes] = {}, sq[lanes] = {}, sqq[lanes] = {}, sqx[lanes] = {};
    for (int i = 0; i < 32; i += lanes) {
      for (int l = 0; l < lanes; ++l) {
        const float value = x[i + l], q = std::min(15.f, to_nearest((value - low) * inverse));
        sx[l] += value;
        sq[l] += q;
        sqq[l] += q * q;
        sqx[l] += q * value;
      }
    }
    Sums all;
    for (int l = 0; l < lanes; ++l) all.x += sx[l], all.q += sq[l], all.qq += sqq[l], all.qx += sqx[l];
    return all;
  }
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

  void encode(const float* x) {
    float fitted_scales[8], fitted_minima[8];
    for (int j = 0; j < 8; ++j) {
      const NibbleFit fit(x + j * 32);
      fitted_scales[j] = fit.scale;
      fitted_minima[j] = fit.minimum;
    }
    uint8_t s[8], m[8];
    d = share_out(fitted_scales, s);
    dmin = share_out(fitted_minima, m);
    scales.set(s, m);
    for (int i = 0; i < elements; ++i) {
      const int j = i / 32;
      const float scale = f16_to_f32(d) * s[j], minimum = f16_to_f32(dmin) * m[j];
      const float q = scale > 0 ? std::clamp(to_nearest((x[i] + minimum) / scale), 0.f, 15.f) : 0.f;
      uint8_t& byte = nibbles[j / 2 * 32 + i % 32];
      byte = j % 2 == 0 ? static_cast<uint8_t>(q) : static_cast<uint8_t>(byte | static_cast<int>(q) << 4);
    }
  }

 private:
  /// Eight numbers as 6-bit multiples of one, which is returned.
  static uint16_t share_out(const float (&values)[8], uint8_t (&multiples)[8]) {
    const uint16_t unit = f32_to_f16(*std::max_element(values, values + 8) / 63);
    const float unit_value = f16_to_f32(unit);
    for (int j = 0; j < 8; ++j) {
      const float multiple = unit_value > 0 ? std::min(63.f, to_nearest(values[j] / unit_value)) : 0.f;
      multiples[j] = static_cast<uint8_t>(multiple);
    }
    return unit;
  }
};
static_assert(sizeof(BlockQ4_K) == 144);

}  // namespace contexture
