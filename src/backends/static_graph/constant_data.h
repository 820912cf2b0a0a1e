#pragma once

#include "backends/static_graph/build.h"
#include "backends/static_graph/container.h"
#include "base/thread_pool.h"
#include "files/model_file.h"
#include "model/config.h"

namespace contexture {

/// Makes the bytes of constants from a model's tensors: decodes, rotates, quantises, arranges. Holds one matrix at a
/// time, and gives the file's pages back behind it.
class ConstantData {
 public:
  /// All outlive this. `planned_context`: of graphs with LongRoPE's factors.
  ConstantData(const ModelFile& file, const ModelConfig& config, size_t planned_context, ThreadPool& pool);

  /// Throws Error where a weight is not finite.
  void produce(const ShardDraft& draft, size_t constant, const ConstantSink& write) const;

  /// Of the whole embedding, scaled as the model does.
  Range embedding_range() const;
  /// Row `token` of it; out (dim).
  void embedding_row(size_t token, float* out) const;

 private:
  void produce_f32_panels(const GraphConstant& constant, const ConstantSource& source, const ConstantSink& write) const;
  void produce_fixed_matrix(const GraphConstant& constant, const ConstantSource& source,
                            const ConstantSink& write) const;
  void produce_vector(const GraphConstant& constant, const ConstantSource& source, const ConstantSink& write) const;
  void produce_bias(const ShardDraft& draft, size_t constant, const ConstantSink& write) const;
  void produce_embedding(const GraphConstant& constant, const ConstantSink& write) const;
  void produce_rope(const GraphConstant& constant, bool sine, const ConstantSink& write) const;

  const ModelFile& file_;
  const ModelConfig& config_;
  ThreadPool& pool_;
  std::vector<double> frequencies_;
};

/// One row of a matrix in integers: weights, and what they are multiplied with.
struct FixedRow {
  float scale = 1;
  std::vector<int8_t> weights;   // (columns)
  std::vector<uint8_t> factors;  // (blocks), of i4_blocks
};

/// Rounds a row of weights to the nearest numbers that i8, i4 or i4_blocks can hold.
void quantise_weights(std::span<const float> row, ConstantKind kind, size_t block, FixedRow& out);

}  // namespace contexture
