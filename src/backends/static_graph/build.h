#pragma once

#include <map>
#include <string>
#include <vector>

#include "backends/static_graph/graph.h"
#include "backends/static_graph/recipe.h"
#include "files/model_file.h"
#include "model/config.h"

namespace contexture {

/// Layers [first_layer, first_layer + layers) of a model.
struct ShardRange {
  size_t index = 0, count = 1;
  size_t first_layer = 0, layers = 0;

  bool first() const { return index == 0; }
  bool last() const { return index + 1 == count; }
};

/// Layers cut into shards, sizes at most one apart, the larger ones first: 28 into 3 is 10, 9, 9.
std::vector<ShardRange> split_layers(size_t layers, size_t shards);

/// What the graphs of a compiled model have in common.
struct GraphOptions {
  size_t context = 512;        ///< C
  size_t prefill_length = 32;  ///< A of prefill_forward; 0: there is none
  bool decode = true;          ///< there is a kv_forward
  bool per_head = true;        ///< a KV tensor a head, not a layer
  Recipe recipe;
};

/// Smallest and largest value of a tensor over a calibration.
struct Range {
  float low = 0, high = 0;  ///< 0 is always among the values
  void add(std::span<const float> values);
  /// Those that are not -infinity: scores that no mask takes away.
  void add_finite(std::span<const float> values);
};

/// By the names of tensors; what one of them means is the same in every graph and shard.
using Ranges = std::map<std::string, Range, std::less<>>;

/// Asymmetric, 16 bits.
Encoding activation_encoding(Range range);
/// Symmetric around the middle of 8 or 16 bits.
Encoding kv_encoding(Range range, size_t bits);

/// Where a constant's numbers come from.
struct ConstantSource {
  enum class Kind : uint8_t { matrix, vector, embedding, cos, sin, bias };
  Kind kind = Kind::matrix;
  const StoredTensor* tensor = nullptr;
  size_t first_row = 0;   ///< matrix: of the tensor's rows
  size_t weight = 0;      ///< bias: the constant that it is added to
  float input_scale = 0;  ///< bias: of that linear's input
};

/// A shard whose constants have no data yet.
struct ShardDraft {
  ShardProgram program;
  std::vector<ConstantSource> sources;  ///< of each constant
};

/// Throws Error where graphs cannot be made of this model (experts, windows within the context).
void check_can_compile(const ModelConfig& config, size_t context);

/// The graphs of a shard. `file` has been checked against `config` (check_weights). `ranges`: of a calibration, which
/// a fixed-point recipe needs.
ShardDraft build_shard(const ModelFile& file, const ModelConfig& config, const ShardRange& shard,
                       const GraphOptions& options, const Ranges& ranges);

}  // namespace contexture
