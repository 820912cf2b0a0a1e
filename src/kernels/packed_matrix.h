#pragma once

#include <cstddef>

#include "kernels/matrix.h"

namespace contexture {

/// A weight matrix arranged for products: panels of 16 rows side by side, a vector's lane being a row, so that a
/// product reads memory once, front to back, and ends without horizontal sums. The numbers are those of the format,
/// bit for bit; the bytes are those of the file and at most 3 % more. Rows past the end of the last panel are zeros.
///
/// A panel holds for each unit of 32 columns, in this order, what its format has of:
///
///   d      f16 (16)         scale, of all 8 units of a superblock (q4_k q5_k q6_k): before the first of them
///   dmin   f16 (16)         the same, scale of minima (q4_k q5_k)
///   scale  f16 (16)         (q4_0 q4_1 q5_0 q5_1 q8_0);  u8 (16) (q4_k q5_k);  i8 (2, 16), a half each (q6_k)
///   min    f16 (16)         (q4_1 q5_1);  u8 (16) (q4_k q5_k)
///   low    nibbles (4, 16, 4)  byte (v, row, i): quant 4v + i in the low half, quant 16 + 4v + i in the high half
///   fifth  bits (16, 4)     byte (row, i): bit v is bit 4 of quant 4v + i, v < 8 (q5_0 q5_1 q5_k)
///   upper  bits (2, 16, 4)  byte (h, row, i): bits 2v and 2v + 1 are bits 4 and 5 of quant 16h + 4v + i, v < 4 (q6_k)
///   bytes  u8 (8, 16, 4)    byte (v, row, i): quant 4v + i, plus 128 (q8_0, in place of low)
///
/// and of float formats for each column its 16 elements.
struct PackedMatrix {
  static constexpr size_t panel_rows = 16;
  static constexpr size_t unit_columns = 32;

  Format format = Format::f32;
  size_t rows = 0;
  size_t columns = 0;
  const std::byte* data = nullptr;

  size_t panels() const { return (rows + panel_rows - 1) / panel_rows; }
  size_t panel_bytes() const;
  size_t bytes() const { return panels() * panel_bytes(); }
  const std::byte* panel(size_t i) const { return data + i * panel_bytes(); }
  /// Block formats are multiplied with int8 activations, the others with float ones.
  bool is_quantised() const { return info(format).block > 1; }
};

/// What pack makes of a matrix, its data to be set.
PackedMatrix packed_shape(const Matrix& matrix);

/// Writes one panel: to (panel_bytes).
void pack_panel(const Matrix& from, size_t panel, std::byte* to);

/// One row as floats, equal to the bit to its format's decode: token embeddings are looked up so. out (columns).
void decode_row(const PackedMatrix& weights, size_t row, float* out);

}  // namespace contexture
