#include "kernels/quantise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

HWY_INLINE void quantise_block(const float* HWY_RESTRICT x, ActivationBlock& out) {
  const FloatTag d;
  auto magnitudes = hn::Zero(d);
  auto nothing = hn::Zero(d);  // NaN where x is NaN or infinite, else zeros
  for (size_t i = 0; i < 32; i += kLanes) {
    const auto v = hn::LoadU(d, x + i);
    magnitudes = hn::Max(magnitudes, hn::Abs(v));
    nothing = hn::MulAdd(v, hn::Zero(d), nothing);
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(d, magnitudes)) + hn::GetLane(hn::SumOfLanes(d, nothing));
  const float inverse = largest > 0 ? 127 / largest : 0;
  const hn::Rebind<int8_t, FloatTag> bytes;
  for (size_t i = 0; i < 32; i += kLanes) {
    const auto scaled = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse));
    hn::StoreU(hn::DemoteTo(bytes, hn::NearestInt(scaled)), bytes, out.quants + i);
  }
  // Sums of eight bytes with 128 added, which is taken back.
  const hn::FixedTag<uint8_t, 16> d16;
  int32_t sums[2];
  for (size_t half = 0; half < 2; ++half) {
    const auto quants = hn::LoadU(d16, reinterpret_cast<const uint8_t*>(out.quants) + 16 * half);
    const auto eights = hn::SumsOf8(hn::Xor(quants, hn::Set(d16, uint8_t{128})));
    sums[half] = static_cast<int32_t>(hn::ExtractLane(eights, 0) + hn::ExtractLane(eights, 1)) - 16 * 128;
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

void quantise_tile(const float* x, size_t tokens, size_t columns, ActivationTile* out) {
  constexpr size_t kBlocks = 8;
  for (size_t t = 0; t < ActivationTile::tokens; ++t) {
    for (size_t first = 0; first < blocks_of(columns); first += kBlocks) {
      const size_t begin = first * 32, end = std::min(columns, begin + kBlocks * 32);
      ActivationBlock row[kBlocks] = {};
      if (t < tokens) quantise_row(x + t * columns + begin, end - begin, row);
      for (size_t i = 0; i < blocks_of(end - begin); ++i) {
        ActivationTile& tile = out[first + i];
        std::memcpy(tile.quants[t], row[i].quants, sizeof(row[i].quants));
        tile.scales[t] = row[i].scale;
        tile.scaled_sums[t] = row[i].scaled_sum;
      }
    }
  }
}

void quantise_row_plain(const float* x, size_t columns, ActivationBlock* out) {
  for (size_t block = 0; block < blocks_of(columns); ++block) {
    float largest = 0;
    const auto value = [&](size_t i) { return block * 32 + i < columns ? x[block * 32 + i] : 0.f; };
    for (size_t i = 0; i < 32; ++i) {
      if (!std::isfinite(value(i))) largest = std::numeric_limits<float>::quiet_NaN();
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
