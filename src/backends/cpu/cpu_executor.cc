#include "backends/cpu/cpu_executor.h"

#include <algorithm>
#include <random>

#include "base/error.h"

namespace contexture {

CpuExecutor::CpuExecutor(std::shared_ptr<const Transformer> model, const CpuSizes& sizes)
    : Executor({.context = sizes.cache.context,
                .sequences = sizes.cache.sequences,
                .vocabulary = model->config().vocabulary,
                .hidden = model->config().dim,
                .step_tokens = sizes.step_tokens,
                .logit_rows = sizes.workspace.logit_rows}),
      pool_(sizes.workspace.threads),
      model_(std::move(model)),
      cache_(make_cache(sizes.cache)),
      workspace_(model_->config(), sizes.workspace) {}

StepResult CpuExecutor::forward(const Step& step) {
  const std::span<const float> logits = model_->forward(step, *cache_, workspace_, pool_);
  return result_of(step, logits, workspace_, model_->config().dim);
}

StepResult result_of(const Step& step, std::span<const float> logits, const Workspace& workspace, size_t dim) {
  if (step.cancelled && *step.cancelled) return {.cancelled = true};
  const size_t tokens = step.tokens.size();
  StepResult result{.logits = logits, .damaged = {workspace.damaged.data(), tokens}};
  if (step.wants_hidden) result.hidden = {workspace.normed.data(), tokens * dim};
  return result;
}

void CpuExecutor::fill(SequenceId sequence, size_t tokens) {
  fill_random(*cache_, sequence, tokens, capacities().step_tokens, [](int64_t) { return true; });
}

/// The same rows over and over: attention's time does not depend on the numbers.
void fill_random(Cache& cache, SequenceId sequence, size_t tokens, size_t piece,
                 const std::function<bool(int64_t position)>& is_here) {
  const CacheShape& shape = cache.shape();
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> k(piece * shape.kv_heads * shape.head_dim), v(k.size());
  for (std::vector<float>* side : {&k, &v}) {
    for (float& x : *side) x = normal(random);
  }
  std::vector<Slot> slots;
  for (size_t at = 0; at < tokens; at += piece) {
    const size_t count = std::min(piece, tokens - at), first = cache.length(sequence);
    if (!cache.append(sequence, count)) fail("no room for {} tokens of context", tokens);
    slots.clear();
    for (size_t position = first; position < first + count; ++position) {
      if (is_here(static_cast<int64_t>(position))) slots.push_back(cache.slot(sequence, position));
    }
    for (size_t layer = 0; layer < shape.layers; ++layer) cache.store(layer, slots, k.data(), v.data());
  }
}

}  // namespace contexture
