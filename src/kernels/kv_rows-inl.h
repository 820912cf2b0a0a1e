// Rows of a cache (tensor/kv_row.h) as floats, one function a format. Included once per target.

#if defined(CONTEXTURE_KERNELS_KV_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_KV_ROWS_INL
#undef CONTEXTURE_KERNELS_KV_ROWS_INL
#else
#define CONTEXTURE_KERNELS_KV_ROWS_INL
#endif

#include "kernels/elements-inl.h"
#include "tensor/float16.h"
#include "tensor/kv_row.h"
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

/// A whole block of 32.
HWY_INLINE void unpack_block(const BlockQ8_0& block, float* HWY_RESTRICT to) {
  const Floats scale = splat(half_to_float(block.d));
  const std::byte* quants = reinterpret_cast<const std::byte*>(block.q);
  store(mul(load_small_ints<int8_t>(quants), scale), to);
  store(mul(load_small_ints<int8_t>(quants + 16), scale), to + 16);
}

HWY_INLINE void unpack_block(const BlockQ4_0& block, float* HWY_RESTRICT to) {
  const hn::FixedTag<uint8_t, 16> d;
  const auto nibbles = hn::LoadU(d, block.nibbles);
  HWY_ALIGN uint8_t quants[32];
  hn::Store(hn::Sub(hn::And(nibbles, hn::Set(d, uint8_t{15})), hn::Set(d, uint8_t{8})), d, quants);
  hn::Store(hn::Sub(hn::ShiftRight<4>(nibbles), hn::Set(d, uint8_t{8})), d, quants + 16);
  const Floats scale = splat(half_to_float(block.d));
  const std::byte* bytes = reinterpret_cast<const std::byte*>(quants);
  store(mul(load_small_ints<int8_t>(bytes), scale), to);
  store(mul(load_small_ints<int8_t>(bytes + 16), scale), to + 16);
}

template <class Block>
HWY_INLINE void unpack_blocks(const std::byte* HWY_RESTRICT row, size_t count, float* HWY_RESTRICT to) {
  // Blocks are bytes and 16-bit numbers, an even number of bytes each.
  const Block* blocks = reinterpret_cast<const Block*>(row);
  const size_t whole = count / 32;
  for (size_t i = 0; i < whole; ++i) unpack_block(blocks[i], to + i * 32);
  if (count % 32 != 0) blocks[whole].decode(to + whole * 32, static_cast<int>(count % 32));
}

/// `count` channels, a multiple of 8.
template <Format kFormat>
HWY_INLINE void unpack_row(const std::byte* HWY_RESTRICT row, size_t count, float* HWY_RESTRICT to) {
  if constexpr (kFormat == Format::q8_0) {
    unpack_blocks<BlockQ8_0>(row, count, to);
  } else if constexpr (kFormat == Format::q4_0) {
    unpack_blocks<BlockQ4_0>(row, count, to);
  } else {
    const size_t whole = count / 16 * 16;
    constexpr size_t kBytes = kFormat == Format::f32 ? 4 : 2;
    for (size_t i = 0; i < whole; i += 16) store(load_elements<kFormat>(row + i * kBytes), to + i);
    for (size_t i = whole; i < count; i += 4) store_four<kFormat>(row + i * kBytes, to + i);
  }
}

template <Format kFormat>
HWY_INLINE void unpack_rows_of(const std::byte* HWY_RESTRICT row, size_t stride, size_t count, size_t channels,
                               size_t dim, float* HWY_RESTRICT to) {
  for (size_t i = 0; i < count; ++i, row += stride, to += dim) {
    unpack_row<kFormat>(row, channels, to);
    const hn::FixedTag<float, 4> four;
    for (size_t d = channels; d < dim; d += 4) hn::StoreU(hn::Zero(four), four, to + d);
  }
}

/// `count` rows of `channels`, `stride` bytes apart, to (count, dim), padded with zeros. The crossing from run time to
/// compile time: the list is that of is_kv_format.
inline void unpack_rows(Format format, const std::byte* row, size_t stride, size_t count, size_t channels, size_t dim,
                        float* to) {
  switch (format) {
    case Format::f32:
      return unpack_rows_of<Format::f32>(row, stride, count, channels, dim, to);
    case Format::f16:
      return unpack_rows_of<Format::f16>(row, stride, count, channels, dim, to);
    case Format::bf16:
      return unpack_rows_of<Format::bf16>(row, stride, count, channels, dim, to);
    case Format::q8_0:
      return unpack_rows_of<Format::q8_0>(row, stride, count, channels, dim, to);
    case Format::q4_0:
      return unpack_rows_of<Format::q4_0>(row, stride, count, channels, dim, to);
    default:
      return;  // no plan is made with it
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
