// Rows of a cache (tensor/kv_row.h) as floats, one type a format. Included once per target.

#if defined(CONTEXTURE_KERNELS_KV_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_KV_ROWS_INL
#undef CONTEXTURE_KERNELS_KV_ROWS_INL
#else
#define CONTEXTURE_KERNELS_KV_ROWS_INL
#endif

#include "kernels/elements-inl.h"
#include "tensor/kv_formats.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// How a row of each format (tensor/kv_formats.h) becomes floats: `load`, 32 channels of it, which is all that
/// attention needs of whole blocks, and `unpack`, any multiple of 8. A format without one does not compile.
template <class Kv>
struct KvLoad;

/// Of formats whose channels stand alone: from how 16 are loaded.
template <class Kv, Floats (*load_16)(const std::byte*)>
struct ElementLoad {
  static HWY_INLINE void load(const std::byte* row, size_t block, const float*, Floats* to) {
    to[0] = load_16(row + block * 32 * Kv::element_bytes);
    to[1] = load_16(row + (block * 32 + 16) * Kv::element_bytes);
  }

  static HWY_INLINE void unpack(const std::byte* HWY_RESTRICT row, size_t count, float* HWY_RESTRICT to) {
    const size_t whole = count / 16 * 16;
    for (size_t i = 0; i < whole; i += 16) store(load_16(row + i * Kv::element_bytes), to + i);
    if (whole == count) return;
    HWY_ALIGN std::byte padded[16 * Kv::element_bytes] = {};
    HWY_ALIGN float floats[16];
    std::memcpy(padded, row + whole * Kv::element_bytes, 8 * Kv::element_bytes);
    store(load_16(padded), floats);
    std::memcpy(to + whole, floats, 8 * sizeof(float));
  }
};

/// Of formats in blocks of 32: from `load` itself.
template <class Kv>
struct BlockLoad {
  static HWY_INLINE void unpack(const std::byte* HWY_RESTRICT row, size_t count, float* HWY_RESTRICT to) {
    const size_t whole = count / 32;
    const float* floats_of_halves = f16_table();
    for (size_t i = 0; i < whole; ++i) {
      Floats block[2];
      KvLoad<Kv>::load(row, i, floats_of_halves, block);
      store(block[0], to + i * 32);
      store(block[1], to + i * 32 + 16);
    }
    if (count % 32 != 0) Kv::decode(row + Kv::bytes(whole * 32), to + whole * 32, count % 32);
  }
};

/// A block's scale in every lane: from a table, since each conversion would be two instructions of those that multiply.
HWY_INLINE Floats splat_scale(const std::byte* half, const float* floats_of_halves) {
  uint16_t bits;
  std::memcpy(&bits, half, 2);
  return splat(floats_of_halves[bits]);
}

template <>
struct KvLoad<KvF32> : ElementLoad<KvF32, load_elements<Format::f32>> {};
template <>
struct KvLoad<KvF16> : ElementLoad<KvF16, load_elements<Format::f16>> {};
template <>
struct KvLoad<KvBf16> : ElementLoad<KvBf16, load_elements<Format::bf16>> {};
/// 16 elements of fp8_e4m3 (tensor/fp8_e4m3.h), by way of halves with the same fraction and an exponent that is 8 less:
/// exact, subnormals too. NaN, all bits of the magnitude, gets a half's exponent of NaN.
HWY_INLINE Floats load_fp8(const std::byte* from) {
  Floats f;
  const hn::Rebind<uint8_t, FloatTag> d8;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::Rebind<hwy::float16_t, FloatTag> halves;
  for (size_t p = 0; p < kParts; ++p) {
    const auto code = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from) + p * kLanes));
    const auto magnitude = hn::And(code, hn::Set(d16, uint16_t{0x7f}));
    const auto nan = hn::And(hn::Add(magnitude, hn::Set(d16, uint16_t{1})), hn::Set(d16, uint16_t{0x80}));
    const auto sign = hn::And(hn::ShiftLeft<8>(code), hn::Set(d16, uint16_t{0x8000}));
    const auto half = hn::Or(hn::ShiftLeft<7>(hn::Or(magnitude, nan)), sign);
    f.part[p] = hn::Mul(hn::PromoteTo(FloatTag(), hn::BitCast(halves, half)), hn::Set(FloatTag(), 256.f));
  }
  return f;
}

template <>
struct KvLoad<KvFp8E4M3> : ElementLoad<KvFp8E4M3, load_fp8> {};

template <>
struct KvLoad<KvQ8_0> : BlockLoad<KvQ8_0> {
  static HWY_INLINE void load(const std::byte* row, size_t block, const float* floats_of_halves, Floats* to) {
    const std::byte* at = row + block * sizeof(BlockQ8_0);
    const Floats scale = splat_scale(at, floats_of_halves);
    to[0] = mul(load_small_ints<int8_t>(at + 2), scale);
    to[1] = mul(load_small_ints<int8_t>(at + 18), scale);
  }
};

template <>
struct KvLoad<KvQ4_0> : BlockLoad<KvQ4_0> {
  static HWY_INLINE void load(const std::byte* row, size_t block, const float* floats_of_halves, Floats* to) {
    const std::byte* at = row + block * sizeof(BlockQ4_0);
    const uint8_t* nibbles = reinterpret_cast<const uint8_t*>(at + 2);
    const hn::Rebind<uint8_t, FloatTag> d8;
    // (quant - 8) · scale in one rounding; 8 · scale is exact.
    const Floats scale = splat_scale(at, floats_of_halves), offset = mul(scale, splat(-8));
    for (size_t p = 0; p < kParts; ++p) {
      const auto both = hn::PromoteTo(IntTag(), hn::LoadU(d8, nibbles + p * kLanes));
      const auto low = hn::And(both, hn::Set(IntTag(), 15)), high = hn::ShiftRight<4>(both);
      to[0].part[p] = hn::MulAdd(hn::ConvertTo(FloatTag(), low), scale.part[p], offset.part[p]);
      to[1].part[p] = hn::MulAdd(hn::ConvertTo(FloatTag(), high), scale.part[p], offset.part[p]);
    }
  }
};

/// `count` rows of `channels`, `stride` bytes apart, to (count, dim), padded with zeros.
inline void unpack_rows(Format format, const std::byte* row, size_t stride, size_t count, size_t channels, size_t dim,
                        float* to) {
  with_kv_format(format, [&](auto kv) HWY_ATTR {
    const std::byte* from = row;
    float* floats = to;
    for (size_t i = 0; i < count; ++i, from += stride, floats += dim) {
      KvLoad<decltype(kv)>::unpack(from, channels, floats);
      const hn::FixedTag<float, 4> four;
      for (size_t d = channels; d < dim; d += 4) hn::StoreU(hn::Zero(four), four, floats + d);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
