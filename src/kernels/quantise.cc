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

HWY_INLINE void quantise_block(const float* HWY_RESTRICT x, ActivationBlock& out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) {
    const float magnitude = std::fabs(x[i]);
    largest = magnitude > largest || magnitude != magnitude ? magnitude : largest;
  }
  const float inverse = largest > 0 ? 127 / largest : 0;
  const FloatTag d;
  const hn::Rebind<int8_t, FloatTag> bytes;
  for (size_t i = 0; i < 32; i += kLanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse));
    hn::StoreU(hn::DemoteTo(bytes, hn::NearestInt(scaled)), bytes, out.quants + i);
  }
  int32_t sums[2] = {0, 0};
  for (int i = 0; i < 16; ++i) {
    sums[0] += out.quants[i];
    sums[1] += out.quants[16 + i];
  }
  out.scale = largest / 127;
  out.scaled_sum = out.scale * static_cast<float>(sums[0] + sums[1]);
  out.negative_sum = -(sums[0] + sums[1]);
  out.negative_sum_of_half = -sums[0];
}

void quantise_row_simd(const float* HWY_RESTRICT x, size_t columns, ActivationBlock* HWY_RESTRICT out) {
  for (size_t block = 0; block < blocks_of(columns); ++block) {
    const size_t at = block * 32;
    float padded[32];
    const float* from = x + at;
    if (at + 32 > columns) {
      for (size_t i = 0; i < 32; ++i) padded[i] = at + i < columns ? x[at + i] : 0;
      from = padded;
    }
    quantise_block(from, out[block]);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(quantise_row_simd);

void quantise_row(const float* x, size_t columns, ActivationBlock* out) {
  HWY_DYNAMIC_DISPATCH(quantise_row_simd)(x, columns, out);
}

void quantise_row_plain(const float* x, size_t columns, ActivationBlock* out) {
  for (size_t block = 0; block < blocks_of(columns); ++block) {
    float largest = 0;
    const auto value = [&](size_t i) { return block * 32 + i < columns ? x[block * 32 + i] : 0.f; };
    for (size_t i = 0; i < 32; ++i) {
      if (std::isnan(value(i))) largest = value(i);
      if (!std::isnan(largest)) largest = std::max(largest, std::fabs(value(i)));
    }
    ActivationBlock& to = out[block];
    int32_t sums[2] = {0, 0};
    for (size_t i = 0; i < 32; ++i) {
      const float scaled = value(i) * (largest > 0 ? 127 / largest : 0);
      to.quants[i] = std::isfinite(scaled) ? static_cast<int8_t>(std::nearbyint(scaled)) : 0;
      sums[i / 16] += to.quants[i];
    }
    to.scale = largest / 127;
    to.scaled_sum = to.scale * static_cast<float>(sums[0] + sums[1]);
    to.negative_sum = -(sums[0] + sums[1]);
    to.negative_sum_of_half = -sums[0];
  }
}

}  // namespace contexture
#endif
