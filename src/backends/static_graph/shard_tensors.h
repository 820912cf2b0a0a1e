#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/static_graph/fixed_kv.h"
#include "contexture/graph_backend.h"

namespace contexture {

/// What a tensor is for, as its name says (include/contexture/graph_backend.h).
enum class TensorRole : uint8_t { tokens, positions, mask, hidden, rope_cos, rope_sin, logits, k, v };

struct ShardTensor {
  TensorRole role;
  size_t layer = 0, head = 0;  ///< of k and v
  bool per_head = false;
  const cxg_tensor* tensor;  ///< of the context
};

/// A graph of a shard with its tensors' parts in the model, in the graph's order.
struct ShardGraph {
  size_t index = 0;   ///< in its context
  size_t tokens = 0;  ///< A
  std::vector<ShardTensor> inputs, outputs;
};

struct Shard {
  std::string name;  ///< of its file, for errors
  std::optional<ShardGraph> prefill, decode;
};

/// What the shards of one model have in common.
struct StaticShape {
  size_t context = 0;  ///< C
  size_t vocabulary = 0, hidden = 0;
  size_t prefill_tokens = 0;  ///< A of prefill_forward; 0 where there is none
  bool decodes = false;       ///< there is a kv_forward
  std::vector<size_t> layers_of_shard;
  FixedKvShape kv;  ///< for all graphs that there are
};

/// Reads the parts of a context's graphs. Throws Error for a name or a shape that is none of a compiled model's.
Shard read_shard(std::span<const cxg_graph* const> graphs, const std::string& name);

/// Makes sure that the shards are one model, in order: each input is what its producer puts out, layers follow each
/// other, shapes agree. Throws Error with what was expected and what was found.
StaticShape read_shape(std::span<const Shard> shards);

/// Every tensor of a shard with its size and encoding, for people; a line each.
std::string describe(const Shard& shard);

}  // namespace contexture
