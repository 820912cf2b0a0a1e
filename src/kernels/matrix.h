#pragma once

#include <cstddef>

#include "tensor/format.h"

namespace contexture {

/// A weight matrix as it lies in memory: rows one after the other, each whole blocks of its format. Rows are outputs.
struct Matrix {
  Format format = Format::f32;
  size_t rows = 0;
  size_t columns = 0;
  const std::byte* data = nullptr;  // (rows, columns)

  size_t row_bytes() const { return bytes_of(format, columns); }
  size_t bytes() const { return rows * row_bytes(); }
  const std::byte* row(size_t i) const { return data + i * row_bytes(); }
  /// Block formats are multiplied with int8 activations, the others with float ones.
  bool is_quantised() const { return info(format).block > 1; }
};

}  // namespace contexture
