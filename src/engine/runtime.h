#pragma once

#include <memory>

#include "backends/ring/ring_forward.h"
#include "base/thread_pool.h"
#include "contexture/contexture.h"
#include "engine/opened_model.h"
#include "engine/plan.h"
#include "model/transformer.h"
#include "text/tokenizer.h"

namespace contexture {

/// Everything that a run needs, allocated as planned and before the first token.
class Runtime {
 public:
  /// `plan` is of this file, which must outlive this.
  Runtime(const ModelFile& file, const MemoryPlan& plan);
  Runtime(const ModelFile& file, const RunOptions& options) : Runtime(file, plan_memory(file, options)) {}

  /// One rank of those that share a context. All make the same calls in the same order, and all get the same logits.
  /// `model` may be shared by ranks of one process; `plan` is for as many ranks as there are.
  Runtime(std::shared_ptr<const Transformer> model, const MemoryPlan& plan, Communicator& ranks,
          const RingChoice& choice);

  const MemoryPlan& plan() const { return plan_; }
  const Transformer& model() const { return *model_; }
  Cache& cache() { return *cache_; }
  Workspace& workspace() { return workspace_; }
  ThreadPool& pool() { return pool_; }
  RingForward* ring() { return ring_.get(); }  ///< null where one machine holds the context

  /// One forward pass over the cache (Transformer::forward): steps of up to plan().step_tokens.
  std::span<const float> forward(const Step& step);

 private:
  MemoryPlan plan_;
  ThreadPool pool_;
  std::shared_ptr<const Transformer> model_;
  std::unique_ptr<Cache> cache_;
  Workspace workspace_;
  std::unique_ptr<RingForward> ring_;
};

/// A sequence in a cache, freed when this goes.
class OwnedSequence {
 public:
  /// A new one. Throws Error where the cache has no room for another.
  explicit OwnedSequence(Cache& cache);
  /// One that is there.
  OwnedSequence(Cache& cache, SequenceId id) : cache_(cache), id_(id) {}
  ~OwnedSequence() { cache_.free(id_); }
  OwnedSequence(const OwnedSequence&) = delete;
  OwnedSequence& operator=(const OwnedSequence&) = delete;
  SequenceId id() const { return id_; }

 private:
  Cache& cache_;
  SequenceId id_;
};

}  // namespace contexture
