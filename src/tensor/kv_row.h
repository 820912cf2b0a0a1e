#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "tensor/format.h"

namespace contexture {

/// A row of a cache: K or V of one token and head. Like a row of weights, but of any even length: in block formats
/// what the length leaves over 32 makes a short block at the end. The formats are listed in tensor/kv_formats.h.

/// All that K and V can be held in.
std::span<const Format> kv_formats();
bool is_kv_format(Format format);
/// For messages: "f32, f16 or bf16", of all of them.
std::string kv_format_names();

/// Bytes of a row of `count` channels, an even number.
size_t kv_row_bytes(Format format, size_t count);

/// Writes a row; how many values lay beyond what the format reaches (65,504 in 16 bits, or so many steps of a block;
/// 448 in 8) and were clamped to it. What is not a number stays so: in block formats, for its whole block.
size_t encode_kv_row(Format format, const float* in, std::byte* row, size_t count);

void decode_kv_row(Format format, const std::byte* row, float* out, size_t count);

/// For each value of a row, how far what is read back may lie from it: from the format's definition alone.
void kv_row_error_bounds(Format format, const float* in, float* bounds, size_t count);

}  // namespace contexture
