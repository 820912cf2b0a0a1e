#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "engine/plan.h"
#include "verify/faults.h"

namespace contexture {

/// How a sequence comes to hold its first tokens.
enum class Start {
  fresh,         // it is fed from the first token on
  fork,          // another one is forked, and goes on otherwise beside it
  forks_parent,  // it is forked, and the fork goes on otherwise beside it
  truncated,     // other tokens came after them and were taken back
  resumed,       // they are saved, and restored in another cache, as a session's are
  prefix_hit,    // another one began alike and is gone; what it left is found (layouts that share pages)
};

std::string_view name_of(Start start);

/// How one and the same prompt is run. Whatever it says, the logits must be the same bits.
struct Way {
  size_t chunk = 512;  // tokens of the sequence in a step
  int threads = 1;
  bool beside = false;  // other sequences' tokens stand before and after its own in every step
  Start start = Start::fresh;
  LayoutOptions options = {};  // of those that change no bit
};

/// "chunk 7, 2 threads, beside others, fork, pages of 8".
std::string describe(const Way& way, std::string_view layout);

/// Sees the caches and attentions of a run.
class RunWatcher {
 public:
  virtual ~RunWatcher() = default;
  /// The cache that the model shall use in place of this one, which is of this plan.
  virtual Cache& watch(const CachePlan& plan, Cache& cache) = 0;
  /// Before each step.
  virtual void before_step(std::span<const int64_t> positions) = 0;
  virtual AttentionObserver& observer() = 0;
};

/// A prompt for all ways, and what of its logits is compared.
struct LayoutPrompt {
  std::span<const int32_t> tokens;
  size_t logit_rows;  // of its last tokens; fewer than a quarter of them

  /// Where forks, hits and truncations part from it: no multiple of a page.
  size_t split() const { return tokens.size() * 5 / 8 | 1; }
  /// Other tokens fed after the split: more than a chunk of 32 and what a mixed cache keeps to spare.
  size_t detour() const { return std::min<size_t>(200, tokens.size()); }
  size_t context() const { return std::max(tokens.size(), split() + detour()); }
};

/// The memory that a run of the prompt needs: `cache` says layout, formats and what decides which rows are read.
MemoryPlan plan_run(const ModelFile& file, const CachePlan& cache, const Way& way, const LayoutPrompt& prompt);

/// Runs the prompt; the logits of its last logit_rows tokens (logit_rows, vocabulary), or none where it was cancelled.
/// All of the cache holds NaN before: who reads what was never stored shows it. Throws Error where a promise of the
/// cache is broken that leaves no logits to compare. `watcher` may be null, and needs Start::fresh and no company.
std::vector<float> run_layout(const ModelFile& file, const Transformer& model, const CachePlan& cache, const Way& way,
                              const LayoutPrompt& prompt, const Fault* fault, RunWatcher* watcher,
                              const std::atomic<bool>* cancelled);

}  // namespace contexture
