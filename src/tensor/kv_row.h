#pragma once

#include <cstddef>

#include "tensor/format.h"

namespace contexture {

/// A row of a cache: K or V of one token and head. Like a row of weights, but of any even length: in block formats
/// what the length leaves over 32 makes a short block at the end.

/// Whether K and V can be held in it: f32, f16, bf16, q8_0, q4_0.
bool is_kv_format(Format format);

/// Bytes of a row of `count` channels, an even number.
size_t kv_row_bytes(Format format, size_t count);

/// Writes a row; how many values lay beyond what the format's 16-bit floats reach (65,504, or so many steps of a
/// block) and were clamped to it. What is not a number stays so: in block formats, for its whole block.
size_t encode_kv_row(Format format, const float* in, std::byte* row, size_t count);

void decode_kv_row(Format format, const std::byte* row, float* out, size_t count);

/// For each value of a row, how far what is read back may lie from it: from the format's definition alone.
void kv_row_error_bounds(Format format, const float* in, float* bounds, size_t count);

}  // namespace contexture
