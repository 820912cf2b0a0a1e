// Rows of a cache as floats, one function a format. Included once per target, after hwy/highway.h.

#if defined(CONTEXTURE_KERNELS_UNPACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_UNPACK_INL
#undef CONTEXTURE_KERNELS_UNPACK_INL
#else
#define CONTEXTURE_KERNELS_UNPACK_INL
#endif

#include <cstring>

#include "hwy/highway.h"
#include "tensor/float16.h"
#include "tensor/format.h"
#include "tensor/q4_0.h"
#include "tensor/q8_0.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

HWY_INLINE float half_to_float(uint16_t half) {
#if HWY_ARCH_X86
  return _cvtsh_ss(half);
#else
  return f16_to_f32(half);
#endif
}

namespace hn = hwy::HWY_NAMESPACE;

// Nibbles and single bits are taken apart in 16-byte vectors, which every target has and the wider ones do not beat:
// blocks come in runs of 16 or 32 bytes.
using Bytes16 = hn::FixedTag<uint8_t, 16>;

/// 16 quants from 16 unsigned bytes, less an offset.
HWY_INLINE void store_quants(hn::Vec<Bytes16> unsigned_quants, uint8_t offset, int8_t* HWY_RESTRICT to) {
  const Bytes16 d;
  hn::StoreU(hn::Sub(unsigned_quants, hn::Set(d, offset)), d, reinterpret_cast<uint8_t*>(to));
}

HWY_INLINE hn::Vec<Bytes16> load16(const uint8_t* HWY_RESTRICT from) {
  return hn::LoadU(Bytes16(), from);
}
HWY_INLINE hn::Vec<Bytes16> low_nibbles(hn::Vec<Bytes16> v) {
  return hn::And(v, hn::Set(Bytes16(), uint8_t{15}));
}
HWY_INLINE hn::Vec<Bytes16> high_nibbles(hn::Vec<Bytes16> v) {
  return hn::ShiftRight<4>(v);
}

HWY_INLINE void unpack_four_bits(const uint8_t* nibbles, uint8_t offset, int8_t* HWY_RESTRICT q) {
  const auto bytes = load16(nibbles);
  store_quants(low_nibbles(bytes), offset, q);
  store_quants(high_nibbles(bytes), offset, q + 16);
}

/// `count` floats of an f32, f16 or bf16 row.
inline void unpack_floats(Format format, const std::byte* HWY_RESTRICT from, size_t count, float* HWY_RESTRICT to) {
  if (format == Format::f32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  const uint16_t* HWY_RESTRICT halves = reinterpret_cast<const uint16_t*>(from);
  if (format == Format::bf16) {
    for (size_t i = 0; i < count; ++i) to[i] = bf16_to_f32(halves[i]);
    return;
  }
  const hwy::HWY_NAMESPACE::CappedTag<float, 16> d;
  const hwy::HWY_NAMESPACE::Rebind<hwy::float16_t, decltype(d)> d16;
  const size_t lanes = Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto* at = reinterpret_cast<const hwy::float16_t*>(halves + i);
    StoreU(PromoteTo(d, LoadU(d16, at)), d, to + i);
  }
  for (; i < count; ++i) to[i] = half_to_float(halves[i]);
}

/// The floats of `count` int8 quants, times `scale`.
HWY_INLINE void scale_quants(const int8_t* HWY_RESTRICT quants, float scale, size_t count, float* HWY_RESTRICT to) {
  for (size_t i = 0; i < count; ++i) to[i] = static_cast<float>(quants[i]) * scale;
}

/// A block of a cache's row, whole or short.
HWY_INLINE void unpack_kv_block(const BlockQ8_0& block, size_t count, float* HWY_RESTRICT to) {
  scale_quants(block.q, half_to_float(block.d), count, to);
}

HWY_INLINE void unpack_kv_block(const BlockQ4_0& block, size_t count, float* HWY_RESTRICT to) {
  int8_t quants[32];
  if (count == 32) {
    unpack_four_bits(block.nibbles, 8, quants);
  } else {
    for (size_t i = 0; i < count / 2; ++i) {
      quants[i] = static_cast<int8_t>((block.nibbles[i] & 15) - 8);
      quants[count / 2 + i] = static_cast<int8_t>((block.nibbles[i] >> 4) - 8);
    }
  }
  scale_quants(quants, half_to_float(block.d), count, to);
}

template <class Block>
HWY_INLINE void unpack_kv_blocks(const std::byte* HWY_RESTRICT from, size_t count, float* HWY_RESTRICT to) {
  for (size_t at = 0; at < count; at += 32, from += sizeof(Block)) {
    unpack_kv_block(*reinterpret_cast<const Block*>(from), count - at < 32 ? count - at : 32, to + at);
  }
}

/// A row of a cache (tensor/kv_row.h) as floats: the list of the formats that attention reads, which is is_kv_format's.
inline void unpack_kv(Format format, const std::byte* HWY_RESTRICT from, size_t count, float* HWY_RESTRICT to) {
  switch (format) {
    case Format::q8_0:
      return unpack_kv_blocks<BlockQ8_0>(from, count, to);
    case Format::q4_0:
      return unpack_kv_blocks<BlockQ4_0>(from, count, to);
    default:
      return unpack_floats(format, from, count, to);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
