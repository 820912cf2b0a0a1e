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

HWY_INLINE void fill8(float* HWY_RESTRICT to, float value) {
  for (int i = 0; i < 8; ++i) to[i] = value;
}

// Minima as the products want them. Dividing by a power of two is exact.
HWY_INLINE void fill_minimum(float* HWY_RESTRICT to, float minimum) {
  fill8(to, minimum * (-1.f / 128));
}

HWY_INLINE void unpack(const BlockQ8_0& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  for (int i = 0; i < 32; ++i) q[i] = b.q[i];
  fill8(scales, half_to_float(b.d));
}

HWY_INLINE void unpack(const BlockQ4_0& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<int8_t>((b.nibbles[i] & 15) - 8);
  for (int i = 0; i < 16; ++i) q[16 + i] = static_cast<int8_t>((b.nibbles[i] >> 4) - 8);
  fill8(scales, half_to_float(b.d));
}

HWY_INLINE void unpack(const BlockQ4_1& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<int8_t>(b.nibbles[i] & 15);
  for (int i = 0; i < 16; ++i) q[16 + i] = static_cast<int8_t>(b.nibbles[i] >> 4);
  fill8(scales, half_to_float(b.d));
  fill_minimum(minima, half_to_float(b.m));
}

/// The fifth bits of 32 quants, each moved to bit 4 of its byte.
HWY_INLINE void add_fifth_bits(const uint8_t* HWY_RESTRICT fifth, int8_t* HWY_RESTRICT q) {
  for (int i = 0; i < 32; ++i) q[i] = static_cast<int8_t>(q[i] | (fifth[i / 8] >> (i % 8) & 1) << 4);
}

HWY_INLINE void unpack(const BlockQ5_0& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<int8_t>(b.nibbles[i] & 15);
  for (int i = 0; i < 16; ++i) q[16 + i] = static_cast<int8_t>(b.nibbles[i] >> 4);
  add_fifth_bits(b.fifth, q);
  for (int i = 0; i < 32; ++i) q[i] = static_cast<int8_t>(q[i] - 16);
  fill8(scales, half_to_float(b.d));
}

HWY_INLINE void unpack(const BlockQ5_1& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  for (int i = 0; i < 16; ++i) q[i] = static_cast<int8_t>(b.nibbles[i] & 15);
  for (int i = 0; i < 16; ++i) q[16 + i] = static_cast<int8_t>(b.nibbles[i] >> 4);
  add_fifth_bits(b.fifth, q);
  fill8(scales, half_to_float(b.d));
  fill_minimum(minima, half_to_float(b.m));
}

HWY_INLINE void unpack_nibbles256(const uint8_t* HWY_RESTRICT nibbles, int8_t* HWY_RESTRICT q) {
  for (int two = 0; two < 4; ++two) {
    const uint8_t* bytes = nibbles + two * 32;
    for (int i = 0; i < 32; ++i) q[two * 64 + i] = static_cast<int8_t>(bytes[i] & 15);
    for (int i = 0; i < 32; ++i) q[two * 64 + 32 + i] = static_cast<int8_t>(bytes[i] >> 4);
  }
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
  unpack_nibbles256(b.nibbles, q);
  unpack_scales256(b, scales, minima);
}

HWY_INLINE void unpack(const BlockQ5_K& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales,
                       float* HWY_RESTRICT minima) {
  unpack_nibbles256(b.nibbles, q);
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 32; ++i) q[j * 32 + i] = static_cast<int8_t>(q[j * 32 + i] | (b.fifth[i] >> j & 1) << 4);
  }
  unpack_scales256(b, scales, minima);
}

HWY_INLINE void unpack(const BlockQ6_K& b, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scales, float*) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = b.low + half * 64;
    const uint8_t* high = b.high + half * 32;
    int8_t* to = q + half * 128;
    for (int i = 0; i < 32; ++i) {
      to[i] = static_cast<int8_t>(((low[i] & 15) | (high[i] & 3) << 4) - 32);
      to[32 + i] = static_cast<int8_t>(((low[32 + i] & 15) | (high[i] >> 2 & 3) << 4) - 32);
      to[64 + i] = static_cast<int8_t>((low[i] >> 4 | (high[i] >> 4 & 3) << 4) - 32);
      to[96 + i] = static_cast<int8_t>((low[32 + i] >> 4 | high[i] >> 6 << 4) - 32);
    }
  }
  const float d = half_to_float(b.d);
  for (int i = 0; i < 64; ++i) scales[i] = d * static_cast<float>(b.scales[i / 4]);
}

template <class Block>
void unpack_row(const std::byte* HWY_RESTRICT from, size_t columns, const UnpackedRow& to) {
  for (size_t at = 0; at < columns; at += Block::elements, from += sizeof(Block)) {
    // A reinterpretation, not a copy: blocks consist of bytes and of 16-bit numbers, which x86 and ARM read unaligned.
    Block block;
    std::memcpy(&block, from, sizeof(Block));
    unpack(block, to.quants + at, to.scales + at / 4, to.minima + at / 4);
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

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
