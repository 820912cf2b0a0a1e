#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "verify/layout_run.h"

namespace contexture {

/// What the float64 oracle says of the attentions of a run.
struct OracleResult {
  size_t attentions = 0;      // of one query in one layer, that were recomputed
  double max_abs_error = 0;   // largest |out - exact|, exact from K and V as they were before the cache rounded them
  double format_share = 0;    // largest share of its bound that the format's part of that error takes
  double rounding_share = 0;  // the same of float32's rounding: out against float64 attention over the stored bytes
  std::string failure = {};   // the first one; empty: all is within its bounds
};

/// Watches a run of one sequence alone. It keeps K and V as they are given to the cache and holds against them what
/// attention reads and makes; oracle_check.cc derives the bounds.
class OracleCheck final : public RunWatcher, private AttentionObserver {
 public:
  /// Of every `every` blocks of 16 queries one is recomputed; what they read is compared with what was stored for all.
  /// `pool` is none that the run uses.
  OracleCheck(const ModelConfig& config, size_t tokens, size_t every, ThreadPool& pool);
  ~OracleCheck() override;

  Cache& watch(const CachePlan& plan, Cache& cache) override;
  void before_step(std::span<const int64_t> positions) override;
  AttentionObserver& observer() override { return *this; }

  const OracleResult& result() const { return result_; }

 private:
  class Recorder;
  struct Rows;
  class Head;

  void record(size_t layer, size_t tokens, const float* k, const float* v);
  void on_attention(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences) override;
  bool read_rows(const AttentionQueries& queries, size_t kv_head, Rows& rows);
  void check_block(const AttentionQueries& queries, const AttentionShape& shape, const std::vector<Rows>& rows);
  void fail_first(std::string failure);

  const size_t kv_heads_, head_dim_, tokens_, every_;
  ThreadPool& pool_;
  std::unique_ptr<Recorder> recorder_;
  std::vector<int64_t> positions_;  // of the present step
  std::vector<float> k_, v_;        // (layers, tokens, kv_heads, head_dim), as given to store
  size_t layer_ = 0;                // the present one
  OracleResult result_;
};

}  // namespace contexture
