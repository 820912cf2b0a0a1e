#include "kernels/quantise.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// One block of 32: `x` has 32 floats. Writes 32 quants, 8 lanes of scale and 8 of bias.
HWY_INLINE void quantise_block(const float* HWY_RESTRICT x, int8_t* HWY_RESTRICT quants, float* HWY_RESTRICT scales,
                               int32_t* HWY_RESTRICT bias) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) {
    const float magnitude = std::fabs(x[i]);
    largest = magnitude > largest || magnitude != magnitude ? magnitude : largest;
  }
  const float scale = largest / 127;
  const float inverse = largest > 0 ? 127 / largest : 0;
  const FloatTag d;
  const hn::Rebind<int8_t, FloatTag> bytes;
  for (size_t i = 0; i < 32; i += kLanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse));
    hn::StoreU(hn::DemoteTo(bytes, hn::NearestInt(scaled)), bytes, quants + i);
  }
  for (int lane = 0; lane < 8; ++lane) {
    scales[lane] = scale;
    const int8_t* four = quants + lane * 4;
    bias[lane] = -128 * (four[0] + four[1] + four[2] + four[3]);
  }
}

void quantise_row_simd(const float* HWY_RESTRICT x, size_t columns, ActivationPair* HWY_RESTRICT out) {
  for (size_t block = 0; block < pairs_of(columns) * 2; ++block) {
    const size_t at = block * 32;
    ActivationPair& pair = out[block / 2];
    const size_t half = block % 2;
    float padded[32];
    const float* from = x + at;
    if (at + 32 > columns) {
      for (size_t i = 0; i < 32; ++i) padded[i] = at + i < columns ? x[at + i] : 0;
      from = padded;
    }
    quantise_block(from, pair.quants + half * 32, pair.scales + half * 8, pair.bias + half * 8);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(quantise_row_simd);

void quantise_row(const float* x, size_t columns, ActivationPair* out) {
  HWY_DYNAMIC_DISPATCH(quantise_row_simd)(x, columns, out);
}

void quantise_row_plain(const float* x, size_t columns, ActivationPair* out) {
  for (size_t column = 0; column < pairs_of(columns) * 64; column += 32) {
    float largest = 0;
    const auto value = [&](size_t i) { return column + i < columns ? x[column + i] : 0.f; };
    for (size_t i = 0; i < 32; ++i) {
      if (std::isnan(value(i))) largest = value(i);
      if (!std::isnan(largest)) largest = std::max(largest, std::fabs(value(i)));
    }
    ActivationPair& pair = out[column / 64];
    for (size_t i = 0; i < 32; ++i) {
      const float scaled = value(i) * (largest > 0 ? 127 / largest : 0);
      pair.quants[column % 64 + i] = std::isfinite(scaled) ? static_cast<int8_t>(std::nearbyint(scaled)) : 0;
    }
    for (size_t lane = column % 64 / 4; lane < column % 64 / 4 + 8; ++lane) {
      pair.scales[lane] = largest / 127;
      pair.bias[lane] = 0;
      for (size_t i = 0; i < 4; ++i) pair.bias[lane] -= 128 * pair.quants[lane * 4 + i];
    }
  }
}

}  // namespace contexture
#endif
