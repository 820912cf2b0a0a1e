#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace contexture {

/// How numbers lie in memory. Block formats hold runs of consecutive columns of one row; their bytes are described at
/// the head of each format's file in this folder.
enum class Format : uint8_t { f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, fp8_e4m3, i8, i64 };

/// Integers, which no weight and no cache is held in: a trace's positions, say.
constexpr bool is_integer(Format format) {
  return format == Format::i8 || format == Format::i64;
}

/// Of formats that GGUF files have no number for: they are in no such file but as bytes.
constexpr uint32_t kNoGgufType = UINT32_MAX;

/// One line of the table of formats.
struct FormatInfo {
  Format format;
  std::string_view name;  ///< as on the command line: "q4_0"
  uint32_t gguf_type;     ///< ggml_type in a GGUF file, or kNoGgufType
  uint32_t block;         ///< elements a block
  uint32_t block_bytes;
  void (*decode)(const std::byte* blocks, float* out, size_t count);  ///< count: elements, whole blocks
  void (*encode)(const float* in, std::byte* blocks, size_t count);   ///< nullptr: this format is only read
};

/// Those that weights may be held in; others are for a cache alone (tensor/kv_formats.h).
std::span<const FormatInfo> weight_formats();
const FormatInfo& info(Format format);
/// All but the integers, which have neither decode nor encode.
std::optional<Format> format_from_name(std::string_view name);
/// Integers too.
std::optional<Format> format_from_gguf(uint32_t gguf_type);

inline std::string_view name(Format format) {
  return info(format).name;
}

/// Bytes of `count` consecutive elements; `count` is whole blocks.
inline size_t bytes_of(Format format, size_t count) {
  const FormatInfo& f = info(format);
  return count / f.block * f.block_bytes;
}

}  // namespace contexture
