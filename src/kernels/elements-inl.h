// Sixteen elements of a format as floats. Included once per target.

#if defined(CONTEXTURE_KERNELS_ELEMENTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_ELEMENTS_INL
#undef CONTEXTURE_KERNELS_ELEMENTS_INL
#else
#define CONTEXTURE_KERNELS_ELEMENTS_INL
#endif

#include "kernels/lanes-inl.h"
#include "tensor/format.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// 16 halves as floats.
HWY_INLINE Floats load_halves(const std::byte* from) {
  Floats f;
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  for (size_t p = 0; p < kParts; ++p) {
    f.part[p] = hn::PromoteTo(FloatTag(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from) + p * kLanes));
  }
  return f;
}

template <class Byte>
HWY_INLINE Floats load_small_ints(const std::byte* from) {
  Floats f;
  const hn::Rebind<Byte, FloatTag> d8;
  for (size_t p = 0; p < kParts; ++p) {
    const auto bytes = hn::LoadU(d8, reinterpret_cast<const Byte*>(from) + p * kLanes);
    f.part[p] = hn::ConvertTo(FloatTag(), hn::PromoteTo(IntTag(), bytes));
  }
  return f;
}

/// 16 elements of a float format.
template <Format kFormat>
HWY_INLINE Floats load_elements(const std::byte* HWY_RESTRICT from) {
  if constexpr (kFormat == Format::f32) return load(reinterpret_cast<const float*>(from));
  if constexpr (kFormat == Format::f16) return load_halves(from);
  static_assert(kFormat == Format::f32 || kFormat == Format::f16 || kFormat == Format::bf16);
  Floats f;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  for (size_t p = 0; p < kParts; ++p) {
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from) + p * kLanes);
    f.part[p] = hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  }
  return f;
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
