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
  Floats f;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::RebindToUnsigned<FloatTag> d32;
  for (size_t p = 0; p < kParts; ++p) {
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from) + p * kLanes);
    f.part[p] = hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  }
  return f;
}

/// The same of 4 numbers, to memory.
template <Format kFormat>
HWY_INLINE void store_four(const std::byte* HWY_RESTRICT from, float* HWY_RESTRICT to) {
  const hn::FixedTag<float, 4> d;
  if constexpr (kFormat == Format::f32) {
    hn::StoreU(hn::LoadU(d, reinterpret_cast<const float*>(from)), d, to);
  } else if constexpr (kFormat == Format::f16) {
    const hn::Rebind<hwy::float16_t, decltype(d)> d16;
    hn::StoreU(hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from))), d, to);
  } else {
    const hn::RebindToUnsigned<decltype(d)> d32;
    const hn::Rebind<uint16_t, decltype(d)> d16;
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)));
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(bits)), d, to);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
