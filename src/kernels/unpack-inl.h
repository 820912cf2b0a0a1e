// Weights of any format, unpacked for the products: block formats to int8 quants with scales (and minima) spread over
// lanes, float formats to f32. One function a format; the loops are plain and the compiler vectorises them for each
// target. Included once per target, after hwy/highway.h.

#if defined(CONTEXTURE_KERNELS_UNPACK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_UNPACK_INL
#undef CONTEXTURE_KERNELS_UNPACK_INL
#else
#define CONTEXTURE_KERNELS_UNPACK_INL
#endif

#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "tensor/float16.h"
#include "tensor/format.h"
#include "tensor/q4_0.h"
#include "tensor/q4_1.h"
#include "tensor/q4_k.h"
#include "tensor/q5_0.h"
#include "tensor/q5_1.h"
#include "tensor/q5_k.h"
#include "tensor/q6_k.h"
#include "tensor/q8_0.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// A row of quantised weights unpacked: for each block of 32 columns 32 quants, and for each of its 8 lanes (four
/// columns) a scale and -minimum / 128 (see ActivationPair). x[i] = scales[i / 4] · quants[i] + minimum.
struct UnpackedRow {
  int8_t* quants;  // (columns)
  float* scales;   // (columns / 4)
  float* minima;   // (columns / 4), written by formats with minima only
};

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

HWY_INLINE void fill8(float* HWY_RESTRICT to, float value) {
  const hn::CappedTag<float, 8> d;
  for (size_t i = 0; i < 8; i += hn::Lanes(d)) hn::StoreU(hn::Set(d, value), d, to + i);
}

// Minima as the products want them. Dividing by a power of two is exact.
HWY_INLINE void fill_minimum(float* HWY_RESTRICT to, float minimum) {
  fill8(to, minimum * (-1.f / 128));
}

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

/// 16 bytes, each 16 where bit i of the 16 (little endian) is set, else 0.
HWY_INLINE hn::Vec<Bytes16> spread_bits(const uint8_t* HWY_RESTRICT bits) {
  HWY_ALIGN static constexpr uint8_t bit_of_lane[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const Bytes16 d;
  HWY_ALIGN const uint8_t spread[16] = {bits[0], bits[0], bits[0], bits[0], bits[0], bits[0], bits[0], bits[0],
                                        bits[1], bits[1], bits[1], bits[1], bits[1], bits[1], bits[1], bits[1]};
  const auto is_set = hn::TestBit(hn::Load(d, spread), hn::Load(d, bit_of_lane));
  return hn::IfThenElseZero(is_set, hn::Set(d, uint8_t{16}));
}

HWY_INLINE void unpack(const BlockQ8_0& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  std::memcpy(q, b.q, 32);
  fill8(scales, half_to_float(b.d));
}

HWY_INLINE void unpack_four_bits(const uint8_t* nibbles, uint8_t offset, int8_t* HWY_RESTRICT q) {
  const auto bytes = load16(nibbles);
  store_quants(low_nibbles(bytes), offset, q);
  store_quants(high_nibbles(bytes), offset, q + 16);
}

HWY_INLINE void unpack(const BlockQ4_0& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  unpack_four_bits(b.nibbles, 8, q);
  fill8(scales, half_to_float(b.d));
}

HWY_INLINE void unpack(const BlockQ4_1& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  unpack_four_bits(b.nibbles, 0, q);
  fill8(scales, half_to_float(b.d));
  fill_minimum(minima, half_to_float(b.m));
}

HWY_INLINE void unpack_five_bits(const FiveBitQuants& quants, uint8_t offset, int8_t* HWY_RESTRICT q) {
  const auto bytes = load16(quants.nibbles);
  store_quants(hn::Or(low_nibbles(bytes), spread_bits(quants.fifth)), offset, q);
  store_quants(hn::Or(high_nibbles(bytes), spread_bits(quants.fifth + 2)), offset, q + 16);
}

HWY_INLINE void unpack(const BlockQ5_0& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  unpack_five_bits(b.q, 16, q);
  fill8(scales, half_to_float(b.d));
}

HWY_INLINE void unpack(const BlockQ5_1& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  unpack_five_bits(b.q, 0, q);
  fill8(scales, half_to_float(b.d));
  fill_minimum(minima, half_to_float(b.m));
}

template <class Block>
HWY_INLINE void unpack_scales256(const Block& b, float* HWY_RESTRICT scales, float* HWY_RESTRICT minima) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int j = 0; j < 8; ++j) {
    fill8(scales + j * 8, d * static_cast<float>(b.scales.scale(j)));
    fill_minimum(minima + j * 8, -dmin * static_cast<float>(b.scales.minimum(j)));
  }
}

HWY_INLINE void unpack(const BlockQ4_K& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  for (int at = 0; at < 128; at += 16) {
    const auto nibbles = load16(b.nibbles + at);
    int8_t* to = q + at / 32 * 64 + at % 32;
    store_quants(low_nibbles(nibbles), 0, to);
    store_quants(high_nibbles(nibbles), 0, to + 32);
  }
  unpack_scales256(b, scales, minima);
}

/// Bit `bit` of each byte, moved to bit 4.
template <int kBit>
HWY_INLINE hn::Vec<Bytes16> fifth_bit(hn::Vec<Bytes16> v) {
  const auto bit = hn::And(v, hn::Set(Bytes16(), static_cast<uint8_t>(1 << kBit)));
  if constexpr (kBit < 4) return hn::ShiftLeft<4 - kBit>(bit);
  if constexpr (kBit > 4) return hn::ShiftRight<kBit - 4>(bit);
  return bit;
}

template <int kTwo>
HWY_INLINE void unpack_two_of_q5_k(const BlockQ5_K& b, int8_t* HWY_RESTRICT q) {
  for (int at = 0; at < 32; at += 16) {
    const auto nibbles = load16(b.nibbles + kTwo * 32 + at), fifth = load16(b.fifth + at);
    store_quants(hn::Or(low_nibbles(nibbles), fifth_bit<2 * kTwo>(fifth)), 0, q + kTwo * 64 + at);
    store_quants(hn::Or(high_nibbles(nibbles), fifth_bit<2 * kTwo + 1>(fifth)), 0, q + kTwo * 64 + 32 + at);
  }
}

HWY_INLINE void unpack(const BlockQ5_K& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  unpack_two_of_q5_k<0>(b, q);
  unpack_two_of_q5_k<1>(b, q);
  unpack_two_of_q5_k<2>(b, q);
  unpack_two_of_q5_k<3>(b, q);
  unpack_scales256(b, scales, minima);
}

HWY_INLINE void unpack(const BlockQ6_K& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  const auto upper = hn::Set(Bytes16(), uint8_t{0x30});  // where the upper two bits belong
  for (int half = 0; half < 2; ++half) {
    for (int at = 0; at < 32; at += 16) {
      const auto low = load16(b.low + half * 64 + at), low2 = load16(b.low + half * 64 + 32 + at);
      const auto high = load16(b.high + half * 32 + at);
      int8_t* to = q + half * 128 + at;
      store_quants(hn::Or(low_nibbles(low), hn::And(hn::ShiftLeft<4>(high), upper)), 32, to);
      store_quants(hn::Or(low_nibbles(low2), hn::And(hn::ShiftLeft<2>(high), upper)), 32, to + 32);
      store_quants(hn::Or(high_nibbles(low), hn::And(high, upper)), 32, to + 64);
      store_quants(hn::Or(high_nibbles(low2), hn::And(hn::ShiftRight<2>(high), upper)), 32, to + 96);
    }
  }
  const float d = half_to_float(b.d);
  const hn::FixedTag<float, 4> four;
  for (int i = 0; i < 16; ++i) hn::StoreU(hn::Set(four, d * static_cast<float>(b.scales[i])), four, scales + i * 4);
}

constexpr size_t kPrefetchBytes = 4096;

template <class Block>
void unpack_row(const std::byte* HWY_RESTRICT from, size_t columns, const UnpackedRow& to) {
  // Blocks are bytes and 16-bit numbers, an even number of bytes each, in tensors aligned to 8 or more.
  const Block* HWY_RESTRICT blocks = reinterpret_cast<const Block*>(from);
  for (size_t i = 0; i * Block::elements < columns; ++i) {
    // Rows follow each other, and unpacking is what waits for memory: ask for what comes a few rows later.
    hwy::Prefetch(reinterpret_cast<const std::byte*>(blocks + i) + kPrefetchBytes);
    const size_t at = i * Block::elements;
    unpack(blocks[i], to.quants + at, to.scales + at / 4, to.minima + at / 4);
  }
  if (columns % 64 != 0) {  // the last pair's second half: nothing
    std::memset(to.quants + columns, 0, 32);
    fill8(to.scales + columns / 4, 0);
    fill8(to.minima + columns / 4, 0);
  }
}

using UnpackRow = void (*)(const std::byte*, size_t, const UnpackedRow&);

/// The crossing from run time to compile time for block formats: the list of those that can be multiplied.
struct QuantisedKernel {
  UnpackRow unpack;
  bool has_minima;
};

inline QuantisedKernel quantised_kernel(Format format) {
  switch (format) {
    case Format::q8_0:
      return {unpack_row<BlockQ8_0>, false};
    case Format::q4_0:
      return {unpack_row<BlockQ4_0>, false};
    case Format::q4_1:
      return {unpack_row<BlockQ4_1>, true};
    case Format::q5_0:
      return {unpack_row<BlockQ5_0>, false};
    case Format::q5_1:
      return {unpack_row<BlockQ5_1>, true};
    case Format::q4_k:
      return {unpack_row<BlockQ4_K>, true};
    case Format::q5_k:
      return {unpack_row<BlockQ5_K>, true};
    case Format::q6_k:
      return {unpack_row<BlockQ6_K>, false};
    default:
      return {nullptr, false};
  }
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
