#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/fixed_point.h"

namespace contexture {

/// 32 numbers of 16 bits as two planes of signed bytes: raw = 256 · high + low + 32,896.
struct FixedUnit {
  static constexpr size_t columns = 32;
  static constexpr int32_t offset = 32896;  // 128 · 256 + 128

  int8_t high[columns], low[columns];
  int32_t negative_high[2], negative_low[2];  ///< -Σ over each half
};

/// The input of linears, split into planes: once for all that have the same one.
struct FixedScratch {
  std::vector<FixedUnit> units;
  void reserve(size_t tokens, size_t columns) {
    units.resize(std::max(units.size(), tokens * ((columns + FixedUnit::columns - 1) / FixedUnit::columns)));
  }
};

/// x (tokens, columns), for which `scratch` has room.
void split_into_planes(const uint16_t* x, size_t tokens, size_t columns, FixedScratch& scratch, ThreadPool& pool);

/// A linear in fixed-point numbers. Weights of 4 or 8 bits in panels (static_graph/constants.h describes the bytes).
struct FixedLinear {
  size_t rows = 0, columns = 0;  ///< columns ≤ 65,536
  int bits = 4;
  size_t block = 0;  ///< columns that share a factor: 0 (all), 16, 32 or 64; with 4 bits
  const std::byte* quants = nullptr;
  const int32_t* sums = nullptr;       ///< Σ of a row's weights times factors (panels, 16)
  const uint8_t* factors = nullptr;    ///< (panels, blocks, 16)
  const int64_t* bias = nullptr;       ///< (rows), or none
  const FixedFactor* scale = nullptr;  ///< (rows): from sums to the output's encoding
  int32_t input_zero = 0, output_zero = 0;
};

/// Of an x that was split into planes: out[t][r] = scale[r] · (Σ weight[r][c] · (x[t][c] - input_zero) + bias[r]) +
/// output_zero, rounded once and saturated.
///
/// All sums are exact. Each plane's products are added in 32 bits: a weight below 2^8 unsigned times a byte, over
/// 65,536 columns, is below 255 · 128 · 65,536 < 2^31; with block factors, 7 · 16 · 128 · 65,536 < 2^30. Both planes
/// and the zero point meet in 64 bits. (Products of 16 bits with 4 would fill an int32 after 8,192 columns, with 8
/// after 516.)
void fixed_linear(const FixedLinear& linear, const FixedScratch& x, size_t tokens, uint16_t* out, ThreadPool& pool);

/// The same, written plainly with 64-bit sums: the oracle.
void fixed_linear_plain(const FixedLinear& linear, const uint16_t* x, size_t tokens, uint16_t* out);

}  // namespace contexture
