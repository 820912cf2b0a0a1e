#include "engine/plan.h"

#include <algorithm>
#include <utility>

#include "backends/ring/sharded_cache.h"
#include "base/error.h"
#include "engine/text.h"

namespace contexture {

namespace {

/// So that sums of a few such numbers can be counted.
constexpr size_t kMostBytes = size_t{1} << 60;

/// Sizes cache and workspace of a plan whose model has been read.
void size_run(MemoryPlan& plan, const RunOptions& options) {
  plan.cache = options.cache;
  plan.cache.shape.layers = plan.config.layers;
  plan.cache.shape.kv_heads = plan.config.kv_heads;
  plan.cache.shape.head_dim = plan.config.head_dim;
  const Dealing dealing = options.dealing.value_or(dealing_of(plan.cache.sequences));
  // No step is longer than everything that the cache holds.
  const size_t held = std::max<size_t>(1, plan.cache.context * plan.cache.sequences);
  plan.step_tokens = plan.cache.step_tokens = std::min(options.chunk * options.ranks, held);
  const CachePlan share = ShardedCache::share_of(plan.cache, options.ranks, dealing);
  plan.workspace = {.tokens = most_in_step(plan.step_tokens, plan.cache.sequences, options.ranks, dealing),
                    .logit_rows = std::min(options.logit_rows, held),
                    .sequences = plan.cache.sequences,
                    .spans = spans_of(share),
                    .context = plan.cache.context,
                    .threads = options.threads};
  plan.cache_bytes = bytes_of(share);
  plan.workspace_bytes = Workspace::bytes_for(plan.config, plan.workspace);
  plan.ring = {.ranks = options.ranks,
               .dealing = dealing,
               .sequences = plan.cache.sequences,
               .step_tokens = plan.workspace.tokens,
               .shard_bytes = options.ranks == 1 ? 0 : plan.cache_bytes / plan.config.layers + 1,
               .heads = plan.config.heads,
               .head_dim = plan.config.head_dim};
  plan.workspace_bytes += RingAttention::bytes_for(plan.ring);
  plan.workspace_bytes += texts_looking(plan.cache.sequences, static_cast<size_t>(options.threads)) *
                          Candidates::bytes_for(plan.config.vocabulary, plan.cache.context);
  plan.swap_bytes = options.swap_bytes;
}

}  // namespace

CpuSizes sizes_of(const MemoryPlan& plan) {
  return {.cache = plan.cache, .workspace = plan.workspace, .step_tokens = plan.step_tokens};
}

MemoryPlan plan_memory(const ModelFile& file, const RunOptions& options) {
  if (options.swap_bytes > kMostBytes)
    fail("{} bytes of swap memory are more than any machine has", options.swap_bytes);
  MemoryPlan plan;
  plan.config = read_config(file.metadata);
  plan.weights = check_weights(file, plan.config);
  plan.weights_bytes = plan.weights.total();
  size_run(plan, options);
  return plan;
}

size_t default_context(const ModelConfig& config, size_t prompt_tokens, size_t max_tokens) {
  const size_t most = config.context;
  return std::max<size_t>(1, prompt_tokens >= most ? most : prompt_tokens + std::min(max_tokens, most - prompt_tokens));
}

size_t longest_context(const ModelFile& file, RunOptions options, size_t memory) {
  MemoryPlan plan = plan_memory(file, options);
  const auto fits = [&](size_t context) {
    options.cache.context = context;
    size_run(plan, options);
    return plan.total_bytes() <= memory;
  };
  // Doubled until it does not fit: many sequences of the longest context that there is have more bytes than can be
  // counted.
  constexpr size_t longest = size_t{1} << 32;
  size_t low = 0, beyond = 1;  // low fits, beyond does not
  while (beyond <= longest && fits(beyond)) low = std::exchange(beyond, 2 * beyond);
  while (beyond - low > 1) {
    const size_t middle = low + (beyond - low) / 2;
    (fits(middle) ? low : beyond) = middle;
  }
  return low;
}

}  // namespace contexture
