#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/packed_matrix.h"
#include "kernels/quantise.h"

namespace contexture {

/// Memory that products need beside their operands, for products of at most these sizes.
class MatmulScratch {
 public:
  MatmulScratch(size_t max_tokens, size_t max_columns);
  static size_t bytes_for(size_t max_tokens, size_t max_columns);

  ActivationBlock* activations() { return activations_.data(); }

 private:
  AlignedArray<ActivationBlock> activations_;  // (max_tokens, blocks)
};

/// One product of a group that shares its input.
struct Product {
  const PackedMatrix* weights;  // (rows, columns)
  float* out;                   // (tokens, rows)
};

/// out[t] = W · x[t] for each product and token; x (tokens, columns). Against block formats x becomes int8 first (once
/// for the whole group, see quantise.h), against float formats it stays float.
///
/// Each output is one sum in the order of its columns: the same bits for any number of tokens and threads.
void matmul(std::span<const Product> products, const float* x, size_t tokens, MatmulScratch& scratch, ThreadPool& pool);

/// The instruction set that the kernels chose on this machine: "AVX2", "AVX3_DL".
const char* kernel_target();

/// Lets the kernels use `name` ("AVX2") and what is less, from now on: to measure what a lesser machine would give.
/// Fails, with the names that this machine has, on another.
void limit_kernel_target(std::string_view name);

/// out (rows) = W · x (columns) in float64, from the stored weights: the oracle. Against block formats x is rounded to
/// int8 blocks as above.
void matmul_plain(const PackedMatrix& weights, const float* x, double* out);

}  // namespace contexture
