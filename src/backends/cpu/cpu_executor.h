#pragma once

#include <functional>
#include <memory>

#include "backends/executor.h"
#include "model/transformer.h"

namespace contexture {

/// What a run on this machine's processor is made of.
struct CpuSizes {
  CachePlan cache;
  WorkspaceSize workspace;
  size_t step_tokens = 0;  // of a step, at most
};

/// The model on this machine's processor, over any cache. All memory is allocated when it is made.
class CpuExecutor : public Executor {
 public:
  /// The model may be shared with others. Throws Error where memory is short.
  CpuExecutor(std::shared_ptr<const Transformer> model, const CpuSizes& sizes);

  const Transformer& model() const { return *model_; }
  Cache& cache() { return *cache_; }
  Workspace& workspace() { return workspace_; }
  ThreadPool& pool() { return pool_; }

  Books& books() override { return *cache_; }
  StepResult forward(const Step& step) override;
  Cache* cache_here() override { return cache_.get(); }
  RotationId rotation_of(size_t tokens) const override { return model_->rotation_of(tokens); }
  void fill(SequenceId sequence, size_t tokens) override;
  ThreadPool* threads() override { return &pool_; }

 private:
  ThreadPool pool_;
  const std::shared_ptr<const Transformer> model_;
  const std::unique_ptr<Cache> cache_;
  Workspace workspace_;
};

/// What a step of this workspace gives: the hidden states where it wants them.
StepResult result_of(const Step& step, std::span<const float> logits, const Workspace& workspace, size_t dim);

/// Executor::fill over a cache, `piece` tokens at a time. `is_here`: whether the token at a position is this cache's.
void fill_random(Cache& cache, SequenceId sequence, size_t tokens, size_t piece,
                 const std::function<bool(int64_t position)>& is_here);

}  // namespace contexture
