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
  const size_t piece = std::max<size_t>(1, capacities().step_tokens);
  const RandomRows rows(cache_->shape(), piece);
  std::vector<Slot> slots;
  for (size_t at = 0; at < tokens; at += piece) {
    const size_t count = std::min(piece, tokens - at), first = cache_->length(sequence);
    if (!cache_->append(sequence, count)) fail("no room for {} tokens of context", tokens);
    slots.clear();
    for (size_t i = 0; i < count; ++i) slots.push_back(cache_->slot(sequence, first + i));
    rows.store(*cache_, slots);
  }
}

RandomRows::RandomRows(const CacheShape& shape, size_t tokens) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::vector<float>* side : {&k_, &v_}) {
    side->resize(tokens * shape.kv_heads * shape.head_dim);
    for (float& x : *side) x = normal(random);
  }
}

void RandomRows::store(Cache& cache, std::span<const Slot> slots) const {
  for (size_t layer = 0; layer < cache.shape().layers; ++layer) cache.store(layer, slots, k_.data(), v_.data());
}

}  // namespace contexture
