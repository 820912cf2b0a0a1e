#pragma once

#include <vector>

#include "kernels/packed_matrix.h"

namespace contexture {

/// A matrix packed into memory of its own.
struct Packed {
  explicit Packed(const Matrix& from) : matrix(packed_shape(from)), bytes(matrix.bytes()) {
    for (size_t i = 0; i < matrix.panels(); ++i) pack_panel(from, i, bytes.data() + i * matrix.panel_bytes());
    matrix.data = bytes.data();
  }
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  PackedMatrix matrix;
  std::vector<std::byte> bytes;
};

}  // namespace contexture
