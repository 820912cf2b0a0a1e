#pragma once

#include <cstddef>
#include <optional>

#include "backends/cpu/cpu_executor.h"
#include "backends/ring/ring_attention.h"
#include "cache/cache.h"
#include "model/transformer.h"

namespace contexture {

/// What decides the memory of a run.
struct RunOptions {
  CachePlan cache;  // its shape is filled in from the model
  int threads = 1;
  size_t chunk = 512;     // tokens of a step, at most
  size_t logit_rows = 1;  // of a step
  size_t ranks = 1;       // that share the context (backends/ring); chunk, threads and logit_rows are each rank's
  size_t swap_bytes = 0;  // for contexts of texts that are preempted
  std::optional<Dealing> dealing = {};  // of tokens to ranks; nothing said: dealing_of(sequences)
};

/// The exact bytes of a run, known before anything is loaded. Where ranks share the context, those of one rank: the one
/// that holds most.
struct MemoryPlan {
  ModelConfig config;
  WeightBytes weights;
  CachePlan cache;  // of the whole context, as is step_tokens
  WorkspaceSize workspace;
  RingSizes ring;
  size_t step_tokens = 0;  // of a step, at most
  size_t weights_bytes = 0;
  size_t cache_bytes = 0;
  size_t workspace_bytes = 0;
  size_t swap_bytes = 0;
  size_t total_bytes() const { return weights_bytes + cache_bytes + workspace_bytes + swap_bytes; }
};

/// What an executor is made with.
CpuSizes sizes_of(const MemoryPlan& plan);

/// Throws Error where the file holds no model that runs, or the cache cannot be made.
MemoryPlan plan_memory(const ModelFile& file, const RunOptions& options);

/// Tokens of context where nobody asked for a number: what the prompt and the answer need, up to what the model was
/// made for.
size_t default_context(const ModelConfig& config, size_t prompt_tokens, size_t max_tokens);

/// The longest context whose plan fits `memory` bytes; 0 where none does.
size_t longest_context(const ModelFile& file, RunOptions options, size_t memory);

}  // namespace contexture
