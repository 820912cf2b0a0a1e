#pragma once

#include <cstddef>
#include <cstdint>

namespace contexture {

/// Activations as block-quantised weights want them: int8 in blocks of 32 columns, two blocks a pair.
///
/// Each pair also carries what the products need beside it, spread over the 16 lanes in which they add up (lane i sums
/// columns 4i .. 4i + 3): the blocks' scales, and -128 · (the lane's four quants). The latter lets an instruction that
/// multiplies unsigned with signed bytes (vpdpbusd) work on weights shifted by 128, and times minus the minimum over
/// 128 it is the share of formats that have minima.
struct ActivationPair {
  int8_t quants[64];
  float scales[16];
  int32_t bias[16];
};
static_assert(sizeof(ActivationPair) == 192);

inline size_t pairs_of(size_t columns) {
  return (columns + 63) / 64;
}

/// x (columns) -> out (pairs_of(columns)). Scale: largest magnitude / 127; quants: x · 127 / largest, to nearest, ties
/// to even. Columns past the end count as zeros. A block with a NaN or an infinity becomes NaN, not a wrong number.
void quantise_row(const float* x, size_t columns, ActivationPair* out);

/// The same in plain scalar code: the oracle, equal to the bit.
void quantise_row_plain(const float* x, size_t columns, ActivationPair* out);

}  // namespace contexture
