#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/thread_pool.h"
#include "contexture/contexture.h"
#include "engine/opened_model.h"
#include "engine/plan.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace contexture {

/// Everything that a run needs, allocated as planned and before the first token.
class Runtime {
 public:
  /// `plan` is of this file, which must outlive this.
  Runtime(const ModelFile& file, const MemoryPlan& plan);
  Runtime(const ModelFile& file, const RunOptions& options) : Runtime(file, plan_memory(file, options)) {}

  const MemoryPlan& plan() const { return plan_; }
  const Model& model() const { return model_; }
  Cache& cache() { return *cache_; }
  Workspace& workspace() { return workspace_; }
  ThreadPool& pool() { return pool_; }

 private:
  MemoryPlan plan_;
  ThreadPool pool_;
  Model model_;
  std::unique_ptr<Cache> cache_;
  Workspace workspace_;
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

/// What a generation tells while it runs.
struct GenerationCallbacks {
  std::function<bool(const GeneratedToken&)> on_token;        ///< false: stop
  std::function<void(size_t done, size_t total)> on_prefill;  ///< after each chunk of the prompt
  const std::atomic<bool>* cancelled = nullptr;               ///< looked at after every layer
  AttentionObserver* observer = nullptr;                      ///< sees every attention
};

/// Throws Error where a prompt cannot be completed: it is empty, does not fit the context, or has tokens that the model
/// does not know.
void check_prompt(const MemoryPlan& plan, std::span<const TokenId> prompt);

/// Completes a prompt in a sequence of its own, which is freed at the end. Throws Error as check_prompt.
Generation generate(Runtime& runtime, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerationCallbacks& callbacks);

/// The same in a sequence that already holds the first tokens of the prompt: only the others are run, at least one. One
/// that holds nothing first adopts what the cache has of the prompt. `also_end` ends it beside the vocabulary's end
/// tokens. Afterwards the sequence holds the tokens that were run: of the prompt and what was generated, all but
/// perhaps the last ones; after an exception it is of no further use.
Generation generate_in(Runtime& runtime, const Tokenizer& tokenizer, SequenceId sequence,
                       std::span<const TokenId> prompt, const GenerateOptions& options,
                       const GenerationCallbacks& callbacks, std::optional<TokenId> also_end = std::nullopt);

}  // namespace contexture
