#pragma once

// The formats that K and V can be held in: one type each, and the one list of them. All that knows of a format is its
// type here and how the kernels load it (kernels/kv_rows-inl.h); a list of names, a check or an error text is made from
// the list.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "tensor/float16.h"
#include "tensor/format.h"
#include "tensor/fp8_e4m3.h"
#include "tensor/q4_0.h"
#include "tensor/q8_0.h"

namespace contexture {

constexpr float kLargestHalf = 65504;

/// Half a unit in the last place of a float whose fraction has so many bits, or of its smallest subnormals.
inline float half_unit(float magnitude, float relative, float smallest) {
  return std::max(magnitude * relative, smallest);
}

/// A channel is an element of its own.
template <Format kFormat, size_t kBytes>
struct KvElements {
  static constexpr Format format = kFormat;
  static constexpr size_t element_bytes = kBytes;

  /// Of a row of so many channels.
  static constexpr size_t bytes(size_t count) { return count * kBytes; }
  /// Values within the format's reach, or NaN, which stays so.
  static void encode(const float* in, std::byte* row, size_t count) { info(kFormat).encode(in, row, count); }
  static void decode(const std::byte* row, float* out, size_t count) { info(kFormat).decode(row, out, count); }
};

/// Channels are blocks of 32 with a scale, the last one short where they are no multiple of 32; a NaN is its whole
/// block's.
template <Format kFormat, class AnyBlock>
struct KvBlocks {
  static constexpr Format format = kFormat;
  using Block = AnyBlock;

  static constexpr size_t bytes(size_t count) {
    const size_t left = count % Block::elements;
    return count / Block::elements * sizeof(Block) + (left > 0 ? Block::bytes(left) : 0);
  }

  static void encode(const float* in, std::byte* row, size_t count) {
    for (size_t at = 0; at < count; at += Block::elements) {
      const size_t here = std::min<size_t>(Block::elements, count - at);
      Block block;
      block.encode(in + at, static_cast<int>(here));
      if (std::any_of(in + at, in + at + here, [](float x) { return std::isnan(x); })) {
        block.d = f32_to_f16(std::numeric_limits<float>::quiet_NaN());
      }
      std::memcpy(row, &block, Block::bytes(here));
      row += Block::bytes(here);
    }
  }

  static void decode(const std::byte* row, float* out, size_t count) {
    for (size_t at = 0; at < count; at += Block::elements) {
      const size_t here = std::min<size_t>(Block::elements, count - at);
      Block block;
      std::memcpy(&block, row, Block::bytes(here));
      block.decode(out + at, static_cast<int>(here));
      row += Block::bytes(here);
    }
  }

  /// The scale, rounded to f16, moves what is read so many times as there are steps; a value moves by `own` besides.
  static float bound(float largest, float steps, float own) {
    const float step = largest / steps;
    return own * step * (1 + 0x1p-20f) + steps * half_unit(step, 0x1p-11f, 0x1p-25f) +
           std::max(0.f, largest - kLargestHalf * steps);
  }
};

// reach: the largest magnitude that is held; what lies beyond is clamped to it.
// error_bound: how far what is read back may lie from a value of this magnitude, of whose block of 32 the largest is
// given.

struct KvF32 : KvElements<Format::f32, 4> {
  static constexpr float reach = std::numeric_limits<float>::infinity();
  static float error_bound(float, float) { return 0; }
};

struct KvF16 : KvElements<Format::f16, 2> {
  static constexpr float reach = kLargestHalf;
  static float error_bound(float magnitude, float) {
    return half_unit(magnitude, 0x1p-11f, 0x1p-25f) + std::max(0.f, magnitude - reach);
  }
};

struct KvBf16 : KvElements<Format::bf16, 2> {
  static constexpr float reach = std::numeric_limits<float>::infinity();
  static float error_bound(float magnitude, float) { return half_unit(magnitude, 0x1p-8f, 0x1p-134f); }
};

struct KvQ8_0 : KvBlocks<Format::q8_0, BlockQ8_0> {
  static constexpr float reach = kLargestHalf * 127;
  static float error_bound(float, float largest) { return bound(largest, 127, 0.5f); }
};

/// Reaches seven steps on one side and eight on the other, so that a value of eight may move by one.
struct KvQ4_0 : KvBlocks<Format::q4_0, BlockQ4_0> {
  static constexpr float reach = kLargestHalf * 8;
  static float error_bound(float, float largest) { return bound(largest, 8, 1); }
};

struct KvFp8E4M3 : KvElements<Format::fp8_e4m3, 1> {
  static constexpr float reach = kLargestFp8;
  static float error_bound(float magnitude, float) {
    return half_unit(magnitude, 0x1p-4f, 0x1p-10f) + std::max(0.f, magnitude - reach);
  }
};

template <class... Kv>
struct KvFormatList {
  static constexpr Format formats[] = {Kv::format...};
};

/// The list.
using KvFormats = KvFormatList<KvF32, KvF16, KvBf16, KvQ8_0, KvQ4_0, KvFp8E4M3>;

/// Throws Error: K and V cannot be held so.
[[noreturn]] void refuse_kv_format(Format format);

template <class First, class... Rest, class Use>
[[gnu::always_inline]] inline auto with_kv_format_of(KvFormatList<First, Rest...>, Format format, const Use& use) {
  if (format == First::format) return use(First());
  if constexpr (sizeof...(Rest) > 0) {
    return with_kv_format_of(KvFormatList<Rest...>(), format, use);
  } else {
    refuse_kv_format(format);
  }
}

/// The one crossing from run time to compile time: use(KvF16()) for Format::f16. Throws Error for what is not in the
/// list. In place, so that kernels of a target can be compiled into whoever asks.
template <class Use>
[[gnu::always_inline]] inline auto with_kv_format(Format format, const Use& use) {
  return with_kv_format_of(KvFormats(), format, use);
}

}  // namespace contexture
