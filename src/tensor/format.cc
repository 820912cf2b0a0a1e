#include "tensor/format.h"

#include <cstring>

#include "tensor/float16.h"
#include "tensor/fp8_e4m3.h"
#include "tensor/q4_0.h"
#include "tensor/q4_1.h"
#include "tensor/q4_k.h"
#include "tensor/q5_0.h"
#include "tensor/q5_1.h"
#include "tensor/q5_k.h"
#include "tensor/q6_k.h"
#include "tensor/q8_0.h"

namespace contexture {
namespace {

void decode_f32(const std::byte* in, float* out, size_t count) {
  std::memcpy(out, in, count * sizeof(float));
}
void encode_f32(const float* in, std::byte* out, size_t count) {
  std::memcpy(out, in, count * sizeof(float));
}

template <float (*widen)(uint16_t)>
void decode_half(const std::byte* in, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, in + i * 2, 2);
    out[i] = widen(half);
  }
}

template <uint16_t (*narrow)(float)>
void encode_half(const float* in, std::byte* out, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const uint16_t half = narrow(in[i]);
    std::memcpy(out + i * 2, &half, 2);
  }
}

void decode_fp8(const std::byte* in, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = fp8_e4m3_to_f32(std::to_integer<uint8_t>(in[i]));
}
void encode_fp8(const float* in, std::byte* out, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = std::byte{f32_to_fp8_e4m3(in[i])};
}

/// Blocks are copied out and in: a stranger's file need not align them.
template <class Block>
void decode_blocks(const std::byte* in, float* out, size_t count) {
  for (size_t i = 0; i < count; i += Block::elements, in += sizeof(Block)) {
    Block block;
    std::memcpy(&block, in, sizeof(Block));
    block.decode(out + i);
  }
}

template <class Block>
void encode_blocks(const float* in, std::byte* out, size_t count) {
  for (size_t i = 0; i < count; i += Block::elements, out += sizeof(Block)) {
    Block block;
    block.encode(in + i);
    std::memcpy(out, &block, sizeof(Block));
  }
}

template <class Block>
constexpr FormatInfo line(Format format, std::string_view name, uint32_t gguf_type,
                          void (*encode)(const float*, std::byte*, size_t) = nullptr) {
  return {format, name, gguf_type, Block::elements, sizeof(Block), decode_blocks<Block>, encode};
}

// In the order of the enumeration. gguf_type is the number that GGUF files give the format (ggml.h, enum ggml_type).
constexpr FormatInfo table[] = {
    {Format::f32, "f32", 0, 1, 4, decode_f32, encode_f32},
    {Format::f16, "f16", 1, 1, 2, decode_half<f16_to_f32>, encode_half<f32_to_f16>},
    {Format::bf16, "bf16", 30, 1, 2, decode_half<bf16_to_f32>, encode_half<f32_to_bf16>},
    line<BlockQ8_0>(Format::q8_0, "q8_0", 8, encode_blocks<BlockQ8_0>),
    line<BlockQ4_0>(Format::q4_0, "q4_0", 2, encode_blocks<BlockQ4_0>),
    line<BlockQ4_1>(Format::q4_1, "q4_1", 3),
    line<BlockQ5_0>(Format::q5_0, "q5_0", 6, encode_blocks<BlockQ5_0>),
    line<BlockQ5_1>(Format::q5_1, "q5_1", 7, encode_blocks<BlockQ5_1>),
    line<BlockQ4_K>(Format::q4_k, "q4_k", 12, encode_blocks<BlockQ4_K>),
    line<BlockQ5_K>(Format::q5_k, "q5_k", 13),
    line<BlockQ6_K>(Format::q6_k, "q6_k", 14, encode_blocks<BlockQ6_K>),
    {Format::fp8_e4m3, "fp8_e4m3", kNoGgufType, 1, 1, decode_fp8, encode_fp8},
    {Format::i8, "i8", 24, 1, 1, nullptr, nullptr},
    {Format::i64, "i64", 27, 1, 8, nullptr, nullptr},
};

}  // namespace

std::span<const FormatInfo> weight_formats() {
  return std::span(table).first(static_cast<size_t>(Format::fp8_e4m3));
}

const FormatInfo& info(Format format) {
  return table[static_cast<size_t>(format)];
}

std::optional<Format> format_from_name(std::string_view name) {
  for (const FormatInfo& f : table) {
    if (f.name == name && !is_integer(f.format)) return f.format;
  }
  return std::nullopt;
}

std::optional<Format> format_from_gguf(uint32_t gguf_type) {
  for (const FormatInfo& f : table) {
    if (f.gguf_type == gguf_type && gguf_type != kNoGgufType) return f.format;
  }
  return std::nullopt;
}

}  // namespace contexture
