#include "verify/layout_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "cache/layout.h"
#include "cache/saved_context.h"
#include "model/transformer.h"

namespace contexture {
namespace {

constexpr size_t kBefore = 1, kAfter = 3;  // tokens of the company in a step

/// Writes NaN to all that a cache holds, and leaves it empty.
void fill_with_garbage(Cache& cache, const CachePlan& plan) {
  const std::vector<float> rows(plan.shape.kv_heads * plan.shape.head_dim, std::numeric_limits<float>::quiet_NaN());
  std::vector<SequenceId> sequences;
  while (const std::optional<SequenceId> sequence = cache.create()) {
    sequences.push_back(*sequence);
    for (size_t at = 0; at < plan.context; ++at) {
      if (!cache.append(*sequence, 1)) fail("a cache of {} tokens is full at {}", plan.context, at);
      const Slot slot = cache.slot(*sequence, at);
      for (size_t layer = 0; layer < plan.shape.layers; ++layer)
        cache.store(layer, {&slot, 1}, rows.data(), rows.data());
    }
  }
  for (const SequenceId sequence : sequences) cache.free(sequence);
}

SequenceId made(std::optional<SequenceId> sequence) {
  if (!sequence) fail("the cache has no room for a sequence that was planned");
  return *sequence;
}

/// One run: its memory, and the sequences in it.
class LayoutRun {
 public:
  LayoutRun(const MemoryPlan& plan, const Transformer& model, const Way& way, const LayoutPrompt& prompt,
            const Fault* fault, RunWatcher* watcher, const std::atomic<bool>* cancelled)
      : plan_(plan),
        model_(model),
        way_(way),
        prompt_(prompt),
        fault_(fault),
        watcher_(watcher),
        cancelled_(cancelled),
        workspace_(plan.config, plan.workspace),
        pool_(plan.workspace.threads) {
    if (watcher) observer_ = &watcher->observer();
    if (fault) faulty_observer_ = fault->observer(observer_);
    if (faulty_observer_) observer_ = faulty_observer_.get();
    for (size_t i = 0; i < prompt.detour(); ++i) other_.push_back(other_token(i));
    open_cache();
  }

  std::vector<float> run() {
    logits_.assign(prompt_.logit_rows * model_.config().vocabulary, 0);
    start();
    return is_cancelled() ? std::vector<float>() : std::move(logits_);
  }

 private:
  /// A cache, full of garbage and empty, in place of the one before.
  void open_cache() {
    faulty_.reset();
    made_ = make_cache(plan_.cache);
    fill_with_garbage(*made_, plan_.cache);
    cache_ = made_.get();
    if (fault_) faulty_ = fault_->cache(plan_.cache, *made_);
    if (faulty_) cache_ = faulty_.get();
    if (watcher_) cache_ = &watcher_->watch(plan_.cache, *cache_);
    if (way_.beside) company_ = {made(cache_->create()), made(cache_->create())};
  }

  void start() {
    const size_t split = prompt_.split();
    switch (way_.start) {
      case Start::fresh:
        return feed_prompt(made(cache_->create()), 0);
      case Start::truncated: {
        const SequenceId sequence = made(cache_->create());
        feed(sequence, prompt_.tokens.first(split));
        feed(sequence, other_);
        return feed_prompt(sequence, cache_->truncate(sequence, split));
      }
      case Start::resumed: {
        const SequenceId sequence = made(cache_->create());
        feed(sequence, prompt_.tokens.first(split));
        const SwappedContext saved = swap_out(*cache_, sequence);
        open_cache();
        const SequenceId resumed = made(cache_->create());
        if (!swap_in(*cache_, resumed, saved)) fail("a cache has no room for what one like it held");
        return feed_prompt(resumed, split);
      }
      case Start::prefix_hit: {
        const SequenceId before = made(cache_->create());
        feed(before, prompt_.tokens.first(split));
        feed(before, other_);
        cache_->free(before);
        const SequenceId sequence = made(cache_->create());
        const size_t adopted =
            cache_->adopt(sequence, prompt_.tokens.first(prompt_.tokens.size() - prompt_.logit_rows));
        if (adopted < split && !is_cancelled()) fail("only {} of {} tokens that pages hold are found", adopted, split);
        return feed_prompt(sequence, adopted);
      }
      case Start::fork:
      case Start::forks_parent: {
        const SequenceId parent = made(cache_->create());
        feed(parent, prompt_.tokens.first(split));
        const SequenceId child = made(cache_->fork(parent));
        return way_.start == Start::fork ? feed_both(child, parent) : feed_both(parent, child);
      }
    }
  }

  /// What is left of the prompt from token `at` on.
  void feed_prompt(SequenceId sequence, size_t at) { feed(sequence, prompt_.tokens.subspan(at), at); }

  /// The prompt goes on in one, other tokens in the other, by turns: both write what they shared.
  void feed_both(SequenceId ours, SequenceId others) {
    std::span<const int32_t> other = other_;
    for (size_t at = prompt_.split(), count; at < prompt_.tokens.size(); at += count) {
      count = std::min(way_.chunk, prompt_.tokens.size() - at);
      feed(ours, prompt_.tokens.subspan(at, count), at);
      const size_t beside = std::min(count, other.size());
      feed(others, other.first(beside));
      other = other.subspan(beside);
    }
  }

  static constexpr size_t kNotThePrompt = std::numeric_limits<size_t>::max();

  /// `at`: which of the prompt's tokens the first one is.
  void feed(SequenceId sequence, std::span<const int32_t> tokens, size_t at = kNotThePrompt) {
    for (size_t done = 0; done < tokens.size() && !is_cancelled(); done += way_.chunk) {
      const auto chunk = tokens.subspan(done, std::min(way_.chunk, tokens.size() - done));
      step(sequence, chunk, at == kNotThePrompt ? at : at + done);
    }
  }

  void step(SequenceId sequence, std::span<const int32_t> tokens, size_t at) {
    step_.clear();
    if (way_.beside) add_company(company_[0], kBefore);
    const size_t first_wanted = prompt_.tokens.size() - prompt_.logit_rows;
    add(sequence, tokens, at == kNotThePrompt ? tokens.size() : std::max(at, first_wanted) - at);
    if (watcher_) watcher_->before_step(step_.positions());
    if (way_.beside) add_company(company_[1], kAfter);
    const std::span<const float> rows = model_.forward(step_.step(cancelled_, observer_), *cache_, workspace_, pool_);
    if (is_cancelled()) return;
    cache_->remember(sequence, tokens);
    if (!rows.empty()) {
      const size_t first = std::max(at, first_wanted) - first_wanted;
      std::copy(rows.begin(), rows.end(), logits_.begin() + static_cast<ptrdiff_t>(first * model_.config().vocabulary));
    }
  }

  /// Appends tokens to a sequence and to the step.
  void add(SequenceId sequence, std::span<const int32_t> tokens, size_t skipped) {
    const size_t first = cache_->length(sequence);
    if (!cache_->append(sequence, tokens.size()))
      fail("a sequence of {} tokens has no room for {}", first, tokens.size());
    step_.add(sequence, first, tokens, skipped, model_.rotation_of(prompt_.context()));
  }

  void add_company(SequenceId sequence, size_t count) {
    size_t length = cache_->length(sequence);
    if (length + count > prompt_.context()) length = cache_->truncate(sequence, length / 2);
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < count; ++i) tokens.push_back(other_token(length * count + i));
    add(sequence, tokens, /*skipped=*/count);
  }

  /// Any tokens but the prompt's.
  int32_t other_token(size_t i) const {
    const size_t vocabulary = model_.config().vocabulary;
    const auto like = static_cast<size_t>(prompt_.tokens[(prompt_.split() + i) % prompt_.tokens.size()]);
    return static_cast<int32_t>((like + 1 + i % 3) % vocabulary);
  }

  bool is_cancelled() const { return cancelled_ && *cancelled_; }

  const MemoryPlan& plan_;
  const Transformer& model_;
  const Way& way_;
  const LayoutPrompt& prompt_;
  const Fault* fault_;
  RunWatcher* watcher_;
  const std::atomic<bool>* cancelled_;
  std::unique_ptr<Cache> made_, faulty_;
  Cache* cache_ = nullptr;
  std::unique_ptr<AttentionObserver> faulty_observer_;
  AttentionObserver* observer_ = nullptr;
  Workspace workspace_;
  ThreadPool pool_;
  std::vector<int32_t> other_;       // what is fed where the prompt is left
  std::vector<SequenceId> company_;  // before and after
  std::vector<float> logits_;
  StepTokens step_;
};

}  // namespace

std::string_view name_of(Start start) {
  switch (start) {
    case Start::fresh:
      return "fresh";
    case Start::fork:
      return "a fork";
    case Start::forks_parent:
      return "a fork's parent";
    case Start::truncated:
      return "truncated";
    case Start::resumed:
      return "resumed";
    case Start::prefix_hit:
      return "a prefix hit";
  }
  return {};
}

std::string describe(const Way& way, std::string_view layout) {
  std::string text = fmt::format("{}, chunk {}, {} thread{}, {}", name_of(way.start), way.chunk, way.threads,
                                 way.threads == 1 ? "" : "s", way.beside ? "beside others" : "alone");
  for (const auto& [name, value] : way.options.given()) {
    const LayoutOption* option = layout_named(layout).option(name);
    text += fmt::format(", {} {}", option->label, option->text_of(value.number));
  }
  return text;
}

MemoryPlan plan_run(const ModelFile& file, const CachePlan& cache, const Way& way, const LayoutPrompt& prompt) {
  RunOptions options{.cache = cache, .threads = way.threads};
  for (const auto& [name, value] : way.options.given()) options.cache.options.set(name, value);
  options.cache.context = prompt.context();
  options.cache.sequences = 2 + (way.beside ? 2 : 0);
  options.chunk = std::min(way.chunk, prompt.context()) + (way.beside ? kBefore + kAfter : 0);
  options.logit_rows = std::min(way.chunk, prompt.logit_rows);
  return plan_memory(file, options);
}

std::vector<float> run_layout(const ModelFile& file, const Transformer& model, const CachePlan& cache, const Way& way,
                              const LayoutPrompt& prompt, const Fault* fault, RunWatcher* watcher,
                              const std::atomic<bool>* cancelled) {
  const MemoryPlan plan = plan_run(file, cache, way, prompt);
  return LayoutRun(plan, model, way, prompt, fault, watcher, cancelled).run();
}

}  // namespace contexture
