#pragma once

#include <cstddef>

namespace contexture {

/// Multiplies every head by the orthonormal Hadamard matrix of its size (Sylvester's, entries ±1 / sqrt(head_dim)), a
/// rotation that is its own inverse. x (heads, head_dim); head_dim is a power of two.
void hadamard(float* x, size_t heads, size_t head_dim);

}  // namespace contexture
