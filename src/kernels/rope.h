#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace contexture {

/// Which channels of a head rotate together (RoFormer, arXiv:2104.09864). Files of Meta and llama2.c pair neighbours,
/// those of Hugging Face the two halves; the weights differ accordingly and are never shuffled here.
enum class RopeStyle : uint8_t {
  interleaved,  ///< (2i, 2i + 1)
  halves,       ///< (i, i + dim / 2)
};

/// cos and sin of position · frequency for each token, times `magnitude`: table (tokens, dim / 2, 2). Angles in
/// float64: at position 100,000 a float angle is off by 0.008.
void rope_table(std::span<const int64_t> positions, std::span<const double> frequencies, float* table,
                double magnitude = 1);

/// Rotates the first `dim` channels of each head in place. x (heads, head_dim); table (dim / 2, 2).
void rope(float* x, size_t heads, size_t head_dim, size_t dim, RopeStyle style, const float* table);

}  // namespace contexture
