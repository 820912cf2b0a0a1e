#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "base/error.h"
#include "cache/layout.h"
#include "engine/generate.h"
#include "engine/run_all.h"
#include "engine/runtime.h"
#include "support/allocations.h"
#include "support/random.h"
#include "support/random_model.h"
#include "support/same_generation.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using testing::ElementsAre;

/// A random model with a byte vocabulary, and requests to it.
class Scheduling : public testing::TestWithParam<std::string_view> {
 protected:
  void SetUp() override {
    write_random_model({.layers = 4, .head_dim = 64, .vocabulary = 259}, file_.path(), /*with_vocabulary=*/true);
    opened_.emplace(open_with_tokenizer(file_.path()));
  }

  static RunOptions options(std::string_view layout, size_t sequences, size_t context) {
    RunOptions options;
    options.cache.layout = layout;
    options.cache.shape.k_format = options.cache.shape.v_format = Format::f32;
    options.cache.sequences = sequences;
    options.cache.context = context;
    options.cache.options = own_options(layout, {{"hot_tokens", 20}});
    options.threads = 2;
    options.chunk = 48;
    options.logit_rows = sequences;
    return options;
  }

  /// Prompts of all lengths, some of which begin alike; greedy and drawn; some end by themselves or by a stop text.
  std::vector<Submission> requests(size_t count, size_t longest_prompt, size_t max_tokens) {
    std::vector<TokenId> common(longest_prompt);
    for (TokenId& t : common) t = static_cast<TokenId>(random_() % 259);
    std::vector<Submission> requests;
    for (size_t i = 0; i < count; ++i) {
      const size_t length = 1 + random_() % longest_prompt, shared = i % 2 == 0 ? random_() % (length + 1) : 0;
      Submission r;
      r.prompt.assign(common.begin(), common.begin() + static_cast<ptrdiff_t>(shared));
      while (r.prompt.size() < length) r.prompt.push_back(static_cast<TokenId>(random_() % 259));
      r.options = {.max_tokens = 1 + random_() % max_tokens,
                   .sampling = {.temperature = i % 3 == 0 ? 0.f : 1.5f,
                                .top_k = 0,
                                .top_p = 1,
                                .min_p = 0,
                                .repeat_penalty = i % 4 == 0 ? 1.2f : 1.f,
                                .seed = i},
                   .ignore_end = i % 5 != 0};
      if (i % 4 == 1) r.options.stop = {"a", "xyz"};
      requests.push_back(std::move(r));
    }
    return requests;
  }

  Generation alone(const Submission& request, size_t context, std::string_view layout = "contiguous") {
    Runtime runtime(opened_->file, options(layout, 1, context));
    return generate(runtime, *opened_->tokenizer, {.prompt = request.prompt, .options = request.options});
  }

  TemporaryFile file_;
  std::optional<OpenedModel> opened_;
  std::mt19937 random_ = fresh_random();
};

TEST_P(Scheduling, EachGetsTheTextItHasAlone) {
  for (const size_t logit_rows : {1, 4}) {
    RunOptions run = options(GetParam(), 4, 200);
    run.logit_rows = logit_rows;
    Runtime runtime(opened_->file, run);
    AllTogether scheduler(runtime, *opened_->tokenizer);
    std::vector<Submission> all = requests(10, 150, 60);
    std::vector<std::string> streamed(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      all[i].callbacks.on_token = [&streamed, i](const GeneratedToken& t) { return streamed[i] += t.text, true; };
      scheduler.submit(all[i]);
    }
    const std::vector<Generation> made = scheduler.run();
    ASSERT_EQ(made.size(), all.size());
    EXPECT_EQ(scheduler.preemptions(), 0u);
    for (size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(i);
      expect_same(made[i], alone(all[i], 200, GetParam() == "mixed" ? "mixed" : "contiguous"));
      EXPECT_EQ(streamed[i], made[i].text);
      EXPECT_EQ(made[i].prefix.reused_tokens + made[i].prefilled_tokens, all[i].prompt.size());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Scheduling, testing::ValuesIn(cache_layouts()),
                         [](const auto& layout) { return std::string(layout.param); });

/// Bytes of this process in memory: now, or at most since reset_peak.
size_t resident(const std::string& key = "VmRSS:") {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    size_t kilobytes = 0;
    if (word == key && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}
void reset_peak() {
  std::ofstream("/proc/self/clear_refs") << '5';
}

/// Sequences of up to 400 tokens in a pool for one and a half of them.
class PoolTooSmall : public Scheduling {
 protected:
  static constexpr size_t kContext = 400;

  /// The first two grow beyond the pool together, so that one of them surely makes room when it has rows.
  std::vector<Submission> crowd() {
    std::vector<Submission> all = requests(kSanitized ? 10 : 20, kContext / 2, kContext / 2);
    for (size_t i = 0; i < 2; ++i) {
      all[i].prompt.assign(1, static_cast<TokenId>(i));
      while (all[i].prompt.size() < 150) all[i].prompt.push_back(static_cast<TokenId>(random_() % 259));
      all[i].options.max_tokens = kContext / 2;
      all[i].options.ignore_end = true;
      all[i].options.stop.clear();
    }
    return all;
  }
};

TEST_F(PoolTooSmall, NothingIsLostAndMemoryStaysWithinThePlan) {
  std::vector<Submission> all = crowd();
  std::vector<Generation> expected;
  for (const Submission& r : all) expected.push_back(alone(r, kContext));
  for (const size_t page_tokens : {8, 32}) {
    RunOptions run = options("paged", all.size(), kContext);
    run.cache.options = {{"page_tokens", page_tokens}, {"pool_tokens", kContext * 3 / 2}};
    std::vector<std::string> streamed(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      all[i].callbacks.on_token = [&streamed, i](const GeneratedToken& t) { return streamed[i] += t.text, true; };
    }
    const MemoryPlan plan = plan_memory(opened_->file, run);
    reset_peak();
    [[maybe_unused]] const size_t resident_before = resident();
    const AllocationWatch watch;
    Runtime runtime(opened_->file, plan);
    AllTogether scheduler(runtime, *opened_->tokenizer);
    for (const Submission& r : all) scheduler.submit(r);
    const std::vector<Generation> made = scheduler.run();
    EXPECT_GT(scheduler.preemptions(), 0u);
    // Beside the plan: what is said, and the lists of who runs and waits.
    EXPECT_LE(watch.peak(), plan.total_bytes() + (size_t{1} << 18));
#if !defined(CONTEXTURE_SANITIZES_ADDRESSES) && \
    !defined(CONTEXTURE_SANITIZES_THREADS)  // which keep memory of their own
    // Threads' stacks and pages half used besides. A context for each would take 30 MB more.
    const size_t peak = resident("VmHWM:");
    EXPECT_LE(peak, resident_before + plan.total_bytes() + (size_t{3} << 20));
    EXPECT_GE(peak, resident_before) << "it is measured at all";
#endif
    size_t recomputed = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(i);
      expect_same(made[i], expected[i]);
      EXPECT_EQ(streamed[i], made[i].text) << "no text is told twice";
      recomputed += made[i].recomputed_tokens;
    }
    EXPECT_GT(recomputed, 0u);
  }
}

TEST_F(PoolTooSmall, WhoDoesNotFitAloneEndsThereAndHoldsUpNobody) {
  RunOptions run = options("paged", 3, 200);
  run.cache.options = {{"page_tokens", 8}, {"pool_tokens", 64}};
  Runtime runtime(opened_->file, run);
  AllTogether scheduler(runtime, *opened_->tokenizer);
  const GenerateOptions greedy{.sampling = {.temperature = 0}, .ignore_end = true};
  const Submission grows{std::vector<TokenId>(30, 7), greedy, {}, std::nullopt};
  const Submission never_fits{std::vector<TokenId>(80, 9), greedy, {}, std::nullopt};
  Submission small = grows;
  small.options.max_tokens = 5;
  for (const Submission& r : {grows, never_fits, small, grows}) scheduler.submit(r);
  const std::vector<Generation> made = scheduler.run();
  for (const size_t i : {0, 3}) {
    EXPECT_EQ(made[i].finish_reason, FinishReason::context);
    EXPECT_EQ(made[i].token_ids.size(), 64u + 1 - 30) << "the whole pool, and a token that needs no place";
  }
  EXPECT_EQ(made[0].token_ids, made[3].token_ids);
  EXPECT_EQ(made[1].finish_reason, FinishReason::context);
  EXPECT_TRUE(made[1].token_ids.empty());
  EXPECT_EQ(made[2].finish_reason, FinishReason::length);
}

TEST_F(Scheduling, FirstComeFirstServed) {
  RunOptions run = options("paged", 2, 100);
  Runtime runtime(opened_->file, run);
  AllTogether scheduler(runtime, *opened_->tokenizer);
  std::vector<size_t> first_tokens;
  std::set<size_t> began;
  for (size_t i = 0; i < 5; ++i) {
    Submission r{std::vector<TokenId>(20, static_cast<TokenId>(i)), {.max_tokens = 4, .ignore_end = true}, {}, {}};
    r.callbacks.on_token = [&, i](const GeneratedToken&) {
      if (began.insert(i).second) first_tokens.push_back(i);
      return true;
    };
    scheduler.submit(r);
  }
  scheduler.run();
  EXPECT_THAT(first_tokens, ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(Scheduling, RequestsMayComeWhileItRunsAndGoOneByOne) {
  Runtime runtime(opened_->file, options("paged", 3, 100));
  AllTogether scheduler(runtime, *opened_->tokenizer);
  const Submission later{{1, 2, 3}, {.max_tokens = 6, .sampling = {.seed = 5}, .ignore_end = true}, {}, std::nullopt};
  Submission leaves{{1, 9, 8}, {.max_tokens = 50, .ignore_end = true}, {}, std::nullopt};
  leaves.callbacks.on_token = [tokens = 0](const GeneratedToken&) mutable { return ++tokens < 3; };
  Submission first{{4, 5, 6}, {.max_tokens = 12, .ignore_end = true}, {}, std::nullopt};
  first.callbacks.on_token = [&, tokens = 0](const GeneratedToken&) mutable {
    if (++tokens == 4) scheduler.submit(later);
    return true;
  };
  scheduler.submit(first);
  scheduler.submit(leaves);
  const std::vector<Generation> made = scheduler.run();
  ASSERT_EQ(made.size(), 3u);
  EXPECT_EQ(made[0].token_ids.size(), 12u);
  EXPECT_EQ(made[1].finish_reason, FinishReason::cancelled);
  EXPECT_EQ(made[1].token_ids.size(), 3u);
  expect_same(made[2], alone(later, 100));
}

TEST_F(Scheduling, CancelEndsAllThatShareTheFlagAndLeavesTheOthers) {
  Runtime runtime(opened_->file, options("paged", 2, 100));
  AllTogether scheduler(runtime, *opened_->tokenizer);
  std::atomic<bool> cancelled{false};
  const Submission stays{{1, 2, 3}, {.max_tokens = 20, .ignore_end = true}, {}, std::nullopt};
  Submission goes = stays;
  goes.callbacks.cancelled = &cancelled;
  goes.callbacks.on_token = [&, tokens = 0](const GeneratedToken&) mutable { return cancelled = ++tokens == 3, true; };
  for (const Submission& r : {goes, stays, goes}) scheduler.submit(r);
  const std::vector<Generation> made = scheduler.run();
  EXPECT_EQ(made[0].finish_reason, FinishReason::cancelled);
  expect_same(made[1], alone(stays, 100));
  EXPECT_EQ(made[2].finish_reason, FinishReason::cancelled);
  EXPECT_TRUE(made[2].token_ids.empty()) << "it was still waiting";
  EXPECT_TRUE(runtime.cache().create() && runtime.cache().create()) << "no sequence is left behind";
}

TEST_F(Scheduling, RefusesWhatCannotBe) {
  Runtime runtime(opened_->file, options("paged", 1, 8));
  AllTogether scheduler(runtime, *opened_->tokenizer);
  EXPECT_THROW(scheduler.submit({{}, {}, {}, std::nullopt}), Error);
  EXPECT_THROW(scheduler.submit({std::vector<TokenId>(9, 1), {}, {}, std::nullopt}), Error);
  EXPECT_THROW(scheduler.submit({{1000}, {}, {}, std::nullopt}), Error);
  EXPECT_TRUE(scheduler.run().empty());
  const OwnedSequence other(runtime.cache());
  scheduler.submit({{1}, {.max_tokens = 1}, {}, std::nullopt});
  EXPECT_THROW(scheduler.run(), Error);
}

/// An executor whose tokens take long, by a clock that stands still otherwise.
class Slow final : public Executor {
 public:
  Slow(Executor& inner, uint64_t& clock) : Executor(inner.capacities()), inner_(inner), clock_(clock) {}
  Books& books() override { return inner_.books(); }
  Cache* cache_here() override { return inner_.cache_here(); }
  ThreadPool* threads() override { return inner_.threads(); }
  StepResult forward(const Step& step) override {
    clock_ += 1'000'000 + 10'000'000 * step.tokens.size();
    return inner_.forward(step);
  }

 private:
  Executor& inner_;
  uint64_t& clock_;
};

/// Where that is sooner than to run their tokens again, contexts that make room are copied out and come back.
TEST_F(PoolTooSmall, ContextsAreSwappedOutWhereThatIsSooner) {
  const std::vector<Submission> all = crowd();
  constexpr size_t for_one = kContext * 4096, for_all = size_t{1} << 24;  // 4,096 bytes a token
  for (const size_t swap_bytes : {size_t{0}, for_one, for_all}) {
    RunOptions run = options("paged", all.size(), kContext);
    run.cache.options = {{"page_tokens", 8}, {"pool_tokens", kContext * 3 / 2}};
    Runtime runtime(opened_->file, run);
    uint64_t clock = 0;
    Slow slow(runtime, clock);
    AllTogether scheduler(slow, *opened_->tokenizer, {.swap_bytes = swap_bytes, .clock = [&] { return clock; }});
    for (const Submission& r : all) scheduler.submit(r);
    const std::vector<Generation> made = scheduler.run();
    const SchedulerCounts counts = scheduler.scheduler().counts();
    EXPECT_GT(counts.preemptions, 0u);
    EXPECT_EQ(counts.swaps > 0, swap_bytes > 0);
    EXPECT_LE(counts.swaps, counts.preemptions);
    for (size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(i);
      expect_same(made[i], alone(all[i], kContext));
    }
  }
}

TEST_F(Scheduling, WhatIsCancelledFreesItsPagesWithinAStep) {
  Runtime runtime(opened_->file, options("paged", 2, 300));
  Scheduler scheduler(runtime, &*opened_->tokenizer);
  const size_t free_tokens = runtime.cache().free_tokens();
  std::optional<Generation> made;
  Submission goes{.prompt = std::vector<TokenId>(250, 5), .options = {.max_tokens = 40, .ignore_end = true}};
  goes.callbacks.on_finished = [&](Generation&& g) { made = std::move(g); };
  const TextId id = scheduler.submit(goes);
  EXPECT_TRUE(scheduler.step());
  EXPECT_LT(runtime.cache().free_tokens(), free_tokens);
  scheduler.cancel(id);
  EXPECT_FALSE(scheduler.step());
  ASSERT_TRUE(made);
  EXPECT_EQ(made->finish_reason, FinishReason::cancelled);
  EXPECT_EQ(runtime.cache().free_tokens(), free_tokens);
  scheduler.cancel(id);  // it has ended already
}

}  // namespace
}  // namespace contexture
