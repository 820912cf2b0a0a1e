#include "backends/static_graph/constants.h"

#include "kernels/packed_matrix.h"

namespace contexture {

MatrixParts parts_of(const GraphConstant& c) {
  MatrixParts p;
  p.panels = (c.rows + p.kPanelRows - 1) / p.kPanelRows;
  p.units = (c.columns + p.kUnitColumns - 1) / p.kUnitColumns;
  p.unit_bytes = c.kind == ConstantKind::i8 ? 512 : 256;
  p.sums = p.panels * p.kPanelRows * sizeof(float);
  p.factors = p.quants = 2 * p.sums;
  if (c.kind == ConstantKind::i4_blocks) {
    p.blocks = (p.units * p.kUnitColumns + c.block - 1) / c.block;
    p.quants += (p.panels * p.blocks * p.kPanelRows + 63) / 64 * 64;
  }
  p.bytes = p.quants + p.panels * p.panel_bytes();
  return p;
}

size_t constant_bytes(const GraphConstant& c) {
  switch (c.kind) {
    case ConstantKind::f32:
      return c.rows * c.columns * sizeof(float);
    case ConstantKind::u16:
    case ConstantKind::i16:
      return c.rows * c.columns * sizeof(uint16_t);
    case ConstantKind::i64:
      return c.rows * c.columns * sizeof(int64_t);
    case ConstantKind::f32_panels:
      return PackedMatrix{.format = Format::f32, .rows = c.rows, .columns = c.columns}.bytes();
    default:
      return parts_of(c).bytes;
  }
}

}  // namespace contexture
