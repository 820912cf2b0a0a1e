#include "tensor/kv_row.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/float16.h"
#include "tensor/q4_0.h"
#include "tensor/q8_0.h"

namespace contexture {
namespace {

constexpr float kLargestHalf = 65504;

/// The largest magnitude that a format holds; what lies beyond is clamped.
float reach(Format format) {
  switch (format) {
    case Format::f16:
      return kLargestHalf;
    case Format::q8_0:
      return kLargestHalf * 127;
    case Format::q4_0:
      return kLargestHalf * 8;
    default:
      return std::numeric_limits<float>::infinity();
  }
}

template <class Block>
void encode_blocks(const float* in, std::byte* row, size_t count) {
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

template <class Block>
void decode_blocks(const std::byte* row, float* out, size_t count) {
  for (size_t at = 0; at < count; at += Block::elements) {
    const size_t here = std::min<size_t>(Block::elements, count - at);
    Block block;
    std::memcpy(&block, row, Block::bytes(here));
    block.decode(out + at, static_cast<int>(here));
    row += Block::bytes(here);
  }
}

void encode(Format format, const float* in, std::byte* row, size_t count) {
  switch (format) {
    case Format::q8_0:
      return encode_blocks<BlockQ8_0>(in, row, count);
    case Format::q4_0:
      return encode_blocks<BlockQ4_0>(in, row, count);
    default:
      return info(format).encode(in, row, count);
  }
}

}  // namespace

bool is_kv_format(Format format) {
  switch (format) {
    case Format::f32:
    case Format::f16:
    case Format::bf16:
    case Format::q8_0:
    case Format::q4_0:
      return true;
    default:
      return false;
  }
}

size_t kv_row_bytes(Format format, size_t count) {
  assert(is_kv_format(format) && count % 2 == 0);
  const FormatInfo& f = info(format);
  const size_t whole = count / f.block * f.block_bytes, left = count % f.block;
  if (left == 0) return whole;
  return whole + (format == Format::q8_0 ? BlockQ8_0::bytes(left) : BlockQ4_0::bytes(left));
}

size_t encode_kv_row(Format format, const float* in, std::byte* row, size_t count) {
  const float most = reach(format);
  size_t beyond = 0;
  for (size_t i = 0; i < count; ++i) beyond += std::fabs(in[i]) > most;
  if (beyond == 0) {
    encode(format, in, row, count);
    return 0;
  }
  // In pieces that no format's blocks straddle; NaN passes std::clamp unchanged.
  constexpr size_t kPiece = 32;
  float clamped[kPiece];
  for (size_t at = 0; at < count; at += kPiece) {
    const size_t here = std::min(kPiece, count - at);
    for (size_t i = 0; i < here; ++i) clamped[i] = std::clamp(in[at + i], -most, most);
    encode(format, clamped, row, here);
    row += kv_row_bytes(format, here);
  }
  return beyond;
}

void decode_kv_row(Format format, const std::byte* row, float* out, size_t count) {
  switch (format) {
    case Format::q8_0:
      return decode_blocks<BlockQ8_0>(row, out, count);
    case Format::q4_0:
      return decode_blocks<BlockQ4_0>(row, out, count);
    default:
      return info(format).decode(row, out, count);
  }
}

void kv_row_error_bounds(Format format, const float* in, float* bounds, size_t count) {
  // Half a unit in the last place of a float with so many bits after the first, and of the smallest subnormals.
  const auto rounding = [](float magnitude, float half_unit, float smallest) {
    return std::max(magnitude * half_unit, smallest);
  };
  for (size_t at = 0; at < count; at += 32) {
    const size_t here = std::min<size_t>(32, count - at);
    float largest = 0;
    for (size_t i = 0; i < here; ++i) largest = std::max(largest, std::fabs(in[at + i]));
    for (size_t i = 0; i < here; ++i) {
      const float magnitude = std::fabs(in[at + i]);
      float& bound = bounds[at + i];
      if (format == Format::f32) {
        bound = 0;
      } else if (format == Format::f16) {
        bound = rounding(magnitude, 0x1p-11f, 0x1p-25f) + std::max(0.f, magnitude - kLargestHalf);
      } else if (format == Format::bf16) {
        bound = rounding(magnitude, 0x1p-8f, 0x1p-134f);
      } else {
        // q8_0 rounds to half a step; q4_0 reaches seven steps on one side and eight on the other, so that a value of
        // eight may move by one. In both the step itself is rounded to f16, and moves what is read so many times.
        const float steps = format == Format::q8_0 ? 127.f : 8.f;
        const float step = largest / steps;
        const float own = format == Format::q8_0 ? step / 2 : step;
        bound = own * (1 + 0x1p-20f) + steps * rounding(step, 0x1p-11f, 0x1p-25f) +
                std::max(0.f, largest - kLargestHalf * steps);
      }
    }
  }
}

}  // namespace contexture
