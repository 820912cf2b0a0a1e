#pragma once

#include <cstddef>

#include "backends/static_graph/graph.h"

namespace contexture {

/// The bytes of a constant. Dense kinds (f32, u16, i16, i64): rows · columns numbers, little-endian. f32_panels: a
/// PackedMatrix of f32. i8, i4 and i4_blocks, of matrices, are laid out for products as PackedMatrix is, in panels of
/// 16 rows (the last filled up with rows of zeros) and units of 32 columns (the last filled up with zeros). One after
/// the other:
///
///   scales       f32 (panels, 16)
///   sums         i32 (panels, 16)           Σ of the row's weights, each times its block's factor
///   factors      u8 (panels, blocks, 16)    1…16 (i4_blocks alone), filled up to a multiple of 64 bytes
///   panels       for each panel and unit:
///     i4, i4_blocks   nibbles (4, 16, 4)    byte (v, row, i): weight 4v + i in the low half, 16 + 4v + i in the high
///                                           one, plus 8
///     i8              u8 (8, 16, 4)         byte (v, row, i): weight 4v + i, plus 128
///
/// weight = scale of the row · factor of the block · stored number.
struct MatrixParts {
  static constexpr size_t kPanelRows = 16, kUnitColumns = 32;

  size_t panels = 0, units = 0, blocks = 0;
  size_t unit_bytes = 0;
  size_t scales = 0, sums = 0, factors = 0, quants = 0;  ///< offsets
  size_t bytes = 0;

  size_t panel_bytes() const { return units * unit_bytes; }
};

/// Of i8, i4 and i4_blocks.
MatrixParts parts_of(const GraphConstant& constant);

size_t constant_bytes(const GraphConstant& constant);

/// Inputs of a fixed-point linear, terms of a fixed-point matmul: so many that every sum of the kernels fits
/// (kernels/fixed_linear.h and fixed_elements.h show the bounds).
constexpr size_t kMaxFixedColumns = 65536;

}  // namespace contexture
