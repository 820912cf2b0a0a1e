#pragma once

#include <cstddef>
#include <cstdint>

namespace contexture {

/// 32 activations of one token as block-quantised weights want them: int8 with one scale. The sums belong to what the
/// weights' formats shift or add: Σ (q - offset) · a = Σ q · a - offset · Σ a, and minima meet scale · Σ a.
struct ActivationBlock {
  int8_t quants[32];
  float scale;
  float scaled_sum;              // scale · Σ quants
  int32_t negative_sum;          // -Σ quants
  int32_t negative_sum_of_half;  // -Σ of the first 16
};
static_assert(sizeof(ActivationBlock) == 48);

inline size_t blocks_of(size_t columns) {
  return (columns + 31) / 32;
}

/// x (columns) -> out (blocks_of(columns)). Scale: largest magnitude / 127; quants: x · 127 / largest, to nearest, ties
/// to even. Columns past the end count as zeros. A block with a NaN or an infinity becomes NaN, not a wrong number.
void quantise_row(const float* x, size_t columns, ActivationBlock* out);

/// The same in plain scalar code: the oracle, equal to the bit.
void quantise_row_plain(const float* x, size_t columns, ActivationBlock* out);

/// The same of 16 tokens, side by side: what one instruction of AMX takes. Each of a row of `columns`.
struct ActivationTile {
  static constexpr size_t tokens = 16, columns = 32;
  int8_t quants[tokens][columns];
  float scales[tokens];
  float scaled_sums[tokens];
};
static_assert(sizeof(ActivationTile) <= ActivationTile::tokens * sizeof(ActivationBlock));

/// x (tokens, columns), at most 16 tokens -> out (blocks_of(columns)); tokens that are not there become zeros. Each
/// number is what quantise_row gives.
void quantise_tile(const float* x, size_t tokens, size_t columns, ActivationTile* out);

}  // namespace contexture
