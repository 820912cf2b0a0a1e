// Sums to a result's encoding, sixteen at once. Included once per target, after lanes-inl.h.

#if defined(CONTEXTURE_KERNELS_SCALE_FIXED_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_SCALE_FIXED_INL
#undef CONTEXTURE_KERNELS_SCALE_FIXED_INL
#else
#define CONTEXTURE_KERNELS_SCALE_FIXED_INL
#endif

#include "kernels/fixed_point.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// out[i] = saturated(times(sums[i], factors[i * kStep]) + zero). kStep 0: one factor for all.
template <size_t kStep>
HWY_INLINE void scaled(const int64_t* HWY_RESTRICT sums, size_t count, const FixedFactor* HWY_RESTRICT factors,
                       int32_t zero, uint16_t* HWY_RESTRICT out) {
  constexpr size_t kGroup = 16;
  size_t i = 0;
  for (; i + kGroup <= count; i += kGroup) {
    // Of 31 bits, as nearly all are, products fit in 64: `times` without its choices.
    bool narrow = true;
    for (size_t j = 0; j < kGroup; ++j) {
      narrow &= sums[i + j] == static_cast<int32_t>(sums[i + j]) && factors[(i + j) * kStep].shift <= 61;
    }
    if (narrow) {
      for (size_t j = 0; j < kGroup; ++j) {
        const FixedFactor& f = factors[(i + j) * kStep];
        const int64_t value = (sums[i + j] * f.mantissa + (int64_t{1} << (f.shift - 1))) >> f.shift;
        out[i + j] = saturated(value + zero, 65535);
      }
    } else {
      for (size_t j = 0; j < kGroup; ++j)
        out[i + j] = saturated(times(sums[i + j], factors[(i + j) * kStep]) + zero, 65535);
    }
  }
  for (; i < count; ++i) out[i] = saturated(times(sums[i], factors[i * kStep]) + zero, 65535);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
