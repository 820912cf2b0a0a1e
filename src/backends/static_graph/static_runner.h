#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/static_graph/attention_mask.h"
#include "backends/static_graph/fixed_kv.h"
#include "backends/static_graph/graph_backend.h"
#include "backends/static_graph/graph_mode.h"
#include "backends/static_graph/shard_tensors.h"
#include "text/vocabulary.h"

namespace contexture {

struct StaticRunOptions {
  KvUpdate update = KvUpdate::smart_mask;
  std::optional<GraphMode> mode = {};  ///< nothing: all graphs that there are
  uint32_t threads = 1;
  uint32_t log_level = 0;
  std::string backend_options = {};
};

/// The bytes of a shard, which outlive who runs them, and the name of their file.
struct ShardBytes {
  std::string name;
  std::span<const std::byte> bytes;
};

/// Runs the shards of a compiled model one after the other over shared buffers, for one sequence. What a shard puts out
/// is what the next takes in, at the same address: hidden alternates between two buffers, cos and sin are the first
/// shard's and written anew by every execution, the mask is one for all, K and V lie in a FixedKv. All is bound once;
/// under shift_pointer K and V move and are bound to each new place.
class StaticRunner {
 public:
  /// Throws Error where the shards are no model (read_shape), where the mode needs a graph that there is none of, and
  /// where the backend refuses.
  StaticRunner(GraphBackend backend, const std::vector<ShardBytes>& shards, const StaticRunOptions& options);
  ~StaticRunner();

  const StaticShape& shape() const { return shape_; }
  GraphMode mode() const { return mode_; }
  const std::vector<Shard>& shards() const { return shards_; }
  std::span<const cxg_graph* const> graphs(size_t shard) const { return contexts_[shard]->graphs(); }
  const FixedKv& kv() const { return *kv_; }

  /// Tokens that can be held: C - 1 columns of cache; C where there is no cache.
  size_t capacity() const { return mode_ == GraphMode::prefill ? shape_.context : shape_.context - 1; }
  size_t length() const { return history_.size(); }
  const std::vector<TokenId>& tokens() const { return history_; }
  /// Forgets all but the first tokens.
  void truncate(size_t length);

  struct Feed {
    /// Of every token, in order; without it only the last one's logits are looked at.
    std::function<void(size_t token, std::span<const float> logits)> on_logits = {};
    std::function<void(size_t done, size_t total)> on_progress = {};
    const std::atomic<bool>* cancelled = nullptr;
  };
  /// Runs tokens behind those that are held; length() + tokens.size() must be within capacity(). The logits of the last
  /// one (vocabulary), dequantised, until the next call; none where it was cancelled between two executions: what ran
  /// is held.
  std::span<const float> feed(std::span<const TokenId> tokens, const Feed& feed);
  std::span<const float> feed(std::span<const TokenId> tokens) { return this->feed(tokens, Feed{}); }

  /// K or V of a head, dequantised: (tokens held, head_dim), row by row.
  std::vector<float> read_k(size_t layer, size_t head) const;
  std::vector<float> read_v(size_t layer, size_t head) const;

  struct Memory {
    size_t io = 0;          ///< tokens, positions, mask, hidden, cos, sin, logits
    size_t kv = 0;          ///< kv().bytes()
    size_t registered = 0;  ///< handles of places in them, all contexts together
  };
  Memory memory() const;
  /// Nanoseconds of all executions so far, by shard.
  std::vector<cxg_timings> timings(bool prefill) const;

 private:
  struct Buffers {
    size_t tokens, positions, mask, hidden[2], rope_cos, rope_sin, logits, bytes;
  };
  using Which = std::optional<ShardGraph> Shard::*;

  void choose_mode(std::optional<GraphMode> wanted);
  void plan_buffers();
  bool runs(Which which) const;
  void bind_shared(size_t shard, Which which);
  void bind_kv(Which which);
  size_t shared_offset(const ShardTensor& part, size_t shard, bool is_output) const;
  void prepare(Which which);
  void execute(Which which, std::span<const TokenId> tokens, size_t position);
  std::span<const float> logits_of(Which which, size_t row);
  std::vector<float> read(TensorRole role, size_t layer, size_t head) const;

  GraphDevice device_;
  std::vector<std::unique_ptr<GraphContext>> contexts_;
  std::vector<Shard> shards_;
  StaticShape shape_;
  GraphMode mode_ = GraphMode::hybrid;
  std::optional<FixedKv> kv_;
  std::optional<AttentionMask> mask_;
  Buffers at_ = {};
  std::byte* io_ = nullptr;
  std::byte* kv_memory_ = nullptr;
  Which arranged_ = nullptr;  // the graphs that mask and cache are ready for
  std::vector<TokenId> history_;
  std::vector<float> logits_;
};

/// Bytes of K and V by layer and in all, and those moved a step, each beside the formula of ExecuTorch's description;
/// a line each.
std::string describe(const FixedKv& kv);

}  // namespace contexture
