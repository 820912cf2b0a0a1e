#include "engine/policy.h"

#include <gtest/gtest.h>

#include <deque>
#include <numeric>
#include <vector>

#include "cache/page_book.h"
#include "engine/scheduler.h"
#include "support/random.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

std::vector<size_t> shares(const std::vector<Wish>& wishes, const StepBudget& budget, const StepRates& rates = {}) {
  std::vector<size_t> all(wishes.size());
  share_step(wishes, budget, rates, all);
  return all;
}

using Shares = std::vector<size_t>;

TEST(Policy, TextsThatDecodeComeFirstAndPromptsShareTheRest) {
  const Wish decodes{1, true};
  EXPECT_EQ(shares({decodes, {1000, false}, decodes}, {100}), (Shares{1, 98, 1}));
  EXPECT_EQ(shares({{16'000, false}, {10, false}}, {512}), (Shares{502, 10}))
      << "a short prompt does not wait for a long one";
  EXPECT_EQ(shares({{16'000, false}, {16'000, false}}, {512}), (Shares{384, 128})) << "age wins the other half";
  EXPECT_EQ(shares({{5, false}, {0, false}, {7, false}}, {512}), (Shares{5, 0, 7}));
  EXPECT_TRUE(shares({}, {512}).empty());
  EXPECT_EQ(shares({decodes, decodes, decodes}, {2}), (Shares{1, 1, 0}));
  EXPECT_EQ(shares({{100, false}, decodes, decodes}, {18}), (Shares{16, 1, 1})) << "the oldest always gets on";
}

TEST(Policy, EachTextIsKeptARowAndTheOthersGoByAge) {
  const Wish decodes{1, true, 1}, prompt{100, false, 1}, scored{100, false, 100}, half{100, false, 50};
  EXPECT_EQ(shares({scored, decodes, decodes}, {.tokens = 102, .rows = 10}), (Shares{8, 1, 1}));
  EXPECT_EQ(shares({scored, scored}, {.tokens = 200, .rows = 10}), (Shares{9, 1}));
  EXPECT_EQ(shares({half, decodes}, {.tokens = 200, .rows = 10}), (Shares{59, 1})) << "its first half wants none";
  EXPECT_EQ(shares({scored, prompt}, {.tokens = 200, .rows = 10}), (Shares{9, 100}));
  EXPECT_EQ(shares({decodes, decodes, prompt}, {.tokens = 200, .rows = 2}), (Shares{1, 1, 99}));
  EXPECT_EQ(shares({scored, decodes}, {.tokens = 200, .rows = 1}), (Shares{1, 0})) << "the oldest always gets on";
}

TEST(Policy, AStepHasTimeForSoManyTokensOfPrompts) {
  const StepRates rates{.step_ns = 10'000, .prompt_token_ns = 1'000};
  EXPECT_EQ(prompt_tokens_in_time({512, 110'000}, rates), 100u);
  EXPECT_EQ(prompt_tokens_in_time({512, 0}, rates), 512u);
  EXPECT_EQ(prompt_tokens_in_time({512, 5'000}, rates), kLeastPart) << "never nothing";
  EXPECT_EQ(prompt_tokens_in_time({512, 110'000}, {}), 512u) << "nothing is known yet";
  EXPECT_EQ(shares({{1, true}, {1000, false}}, {512, 110'000}, rates), (Shares{1, 100}));
}

TEST(Policy, RatesFollowWhatIsSeen) {
  StepRates rates;
  for (int i = 0; i < 100; ++i) rates.observe(10'000, 0);
  EXPECT_NEAR(static_cast<double>(rates.step_ns), 10'000, 100);
  for (int i = 0; i < 100; ++i) rates.observe(110'000, 100);
  EXPECT_NEAR(static_cast<double>(rates.prompt_token_ns), 1'000, 20);
}

/// `given` is what there would be with rows for all.
void check_rows(const std::vector<Wish>& wishes, const StepBudget& budget, const Shares& given, const Shares& cut) {
  size_t rows = 0, wanted = 0, wanting = 0;
  for (size_t i = 0; i < wishes.size(); ++i) {
    rows += wishes[i].rows_of(cut[i]);
    wanted += wishes[i].rows_of(given[i]);
    wanting += wishes[i].rows_of(given[i]) > 0;
  }
  ASSERT_EQ(rows, std::min(wanted, budget.rows)) << "nothing is left unused";
  for (size_t i = 0; i < wishes.size(); ++i) {
    const size_t wants = wishes[i].rows_of(given[i]), has = wishes[i].rows_of(cut[i]);
    ASSERT_EQ(given[i] - cut[i], wants - has) << "what wants no row is not cut";
    ASSERT_TRUE(has > 0 || wants == 0 || wanting > budget.rows) << "nobody waits for one that is scored";
    const size_t others = wanting - (wants > 0 ? 1 : 0);
    ASSERT_TRUE(i > 0 || has >= std::min(wants, budget.rows - std::min(budget.rows, others))) << "the oldest first";
  }
}

TEST(Policy, OfAnyTextsTheBudgetHoldsAndEachGetsItsPart) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 20'000; ++round) {
    std::vector<Wish> wishes(1 + random() % 20);
    size_t decoding = 0, prompts = 0;
    for (Wish& w : wishes) {
      w = random() % 2 ? Wish{1, true, 1} : Wish{random() % 2000, false};
      if (!w.decodes && w.tokens > 0) w.rows = random() % 4 ? 1 : 1 + random() % w.tokens;
      decoding += w.decodes;
      prompts += !w.decodes && w.tokens > 0;
    }
    StepBudget budget{1 + random() % 600};
    const Shares given = shares(wishes, budget);
    budget.rows = 1 + random() % 60;
    check_rows(wishes, budget, given, shares(wishes, budget));
    const size_t all = std::accumulate(given.begin(), given.end(), size_t{0});
    ASSERT_LE(all, budget.tokens);
    const size_t asked =
        std::accumulate(wishes.begin(), wishes.end(), size_t{0}, [](size_t n, const Wish& w) { return n + w.tokens; });
    ASSERT_EQ(all, std::min(asked, budget.tokens)) << "nothing is left unused";
    ASSERT_GE(given[0], std::min({wishes[0].tokens, budget.tokens, wishes[0].decodes ? size_t{1} : kLeastPart}));
    const size_t rest = budget.tokens - std::min(budget.tokens, decoding);
    for (size_t i = 0; i < wishes.size(); ++i) {
      ASSERT_LE(given[i], wishes[i].tokens);
      if (wishes[i].decodes || prompts == 0 || rest < 2 * prompts * kLeastPart) continue;
      ASSERT_GE(given[i], std::min(wishes[i].tokens, rest / (2 * prompts)));
    }
  }
}

/// A model of one word: it computes nothing, and says the time that a step would take.
class FakeExecutor final : public Executor {
 public:
  FakeExecutor(size_t sequences, size_t context, size_t pages, uint64_t& clock)
      : Executor({.context = context,
                  .sequences = sequences,
                  .vocabulary = 2,
                  .step_tokens = 64,
                  .logit_rows = sequences + kLeastPart}),
        clock_(clock),
        logits_(2 * capacities().logit_rows),
        books_(pages, sequences, context) {}

  Books& books() override { return books_; }
  StepResult forward(const Step& step) override {
    if (breaks) throw std::runtime_error("the device is gone");
    clock_ += 1000 + 10 * step.tokens.size();
    const size_t rows = static_cast<size_t>(std::ranges::count(step.wants_logits, 1));
    EXPECT_LE(rows, capacities().logit_rows);
    return {.logits = std::span(logits_).first(2 * std::min(rows, capacities().logit_rows))};
  }
  PageBook& pages() { return books_.book; }
  bool breaks = false;

 private:
  struct PagedBooks final : Books {
    PagedBooks(size_t pages, size_t sequences, size_t context) : book(pages, 8, sequences, context) {}
    std::optional<SequenceId> create(uint64_t key) override { return book.create(key); }
    std::optional<SequenceId> fork(SequenceId s) override { return book.fork(s); }
    void free(SequenceId s) override { book.free(s); }
    bool append(SequenceId s, size_t tokens) override {
      std::optional<PageBook::Copy> copy;
      return book.append(s, tokens, copy);
    }
    size_t truncate(SequenceId s, size_t length) override { return book.truncate(s, length), length; }
    size_t length(SequenceId s) const override { return book.length(s); }
    size_t free_tokens() const override { return book.available() * 8; }
    void remember(SequenceId s, std::span<const int32_t> tokens) override { book.remember(s, tokens); }
    size_t remembered(SequenceId s) const override { return book.remembered(s); }
    void forget(SequenceId s) override { book.forget(s); }
    size_t adopt(SequenceId s, std::span<const int32_t> tokens) override {
      std::optional<PageBook::Copy> copy;
      return book.adopt(s, tokens, copy);
    }
    PageBook book;
  };

  uint64_t& clock_;
  std::vector<float> logits_;
  PagedBooks books_;
};

/// A text that makes so many tokens, whatever the logits are.
class FakeText final : public Text {
 public:
  struct Ends {
    size_t ended = 0, failed = 0, cut = 0;
    std::vector<uint64_t> at = {};  // (texts) the step
  };
  FakeText(size_t number, std::vector<TokenId> prompt, size_t makes, Ends& ends, const uint64_t& step)
      : number_(number), makes_(makes), prompt_(prompt.size()), ends_(ends), step_(step) {
    tokens_ = std::move(prompt);
  }
  size_t adoptable() const override { return tokens_.size() - 1; }
  /// One that makes nothing is scored, every token of it.
  size_t rows_wanted(size_t first, size_t count) const override {
    return makes_ == 0 ? count : first + count == tokens_.size() ? 1 : 0;
  }
  size_t most_tokens() const override { return prompt_ + makes_; }
  void begin(const PrefixReport&) override {}
  void ran(size_t, size_t length) override {
    if (length < tokens_.size()) return;
    if (tokens_.size() == prompt_ + makes_) {
      finished_ = true;
    } else {
      tokens_.push_back(1);
    }
  }
  void look(const Rows&, Candidates&) override {}
  void take() override {}
  void finish(FinishReason) override {
    finished_ = true;
    ++ends_.cut;
  }
  void deliver() override {
    ++ends_.ended;
    ends_.at[number_] = step_;
  }
  void failed(std::exception_ptr) noexcept override { ++ends_.failed; }

 private:
  const size_t number_, makes_, prompt_;
  Ends& ends_;
  const uint64_t& step_;
};

/// A million texts arrive at random over a pool that is too small for those that run.
///
/// The oldest text that has not ended is never preempted, and every step in which it runs carries kLeastPart of its
/// tokens, or all that it has: it ends within ⌈tokens / kLeastPart⌉ + tokens made steps from when it is the oldest. So
/// the last of n texts ends within the sum of that over all, in steps, from when it came.
TEST(Policy, AMillionArrivalsAllEndWithinTheBound) {
  const size_t texts = kSanitized ? 5'000 : 1'000'000;
  std::mt19937 random = fresh_random();
  uint64_t clock = 0, step = 1;
  FakeExecutor executor(6, 120, 40, clock);
  Scheduler scheduler(executor, nullptr, {.step_ns = 1500, .clock = [&] { return clock; }});
  FakeText::Ends ends;
  ends.at.resize(texts);
  std::deque<std::pair<size_t, uint64_t>> open;  // number and the step by which it must have ended
  uint64_t bound = 0;                            // the step by which all that have come must have ended
  size_t came = 0;
  while (came < texts || ends.ended < texts) {
    while (came < texts && scheduler.counts().waiting < 10 && random() % 3 != 0) {
      std::vector<TokenId> prompt(1 + random() % 80);
      const bool alike = random() % 2 == 0;
      for (TokenId& t : prompt) t = alike ? 1 : static_cast<TokenId>(random() % 2);
      const size_t makes = random() % 20, tokens = prompt.size() + makes;
      bound = std::max(bound, step) + (tokens + kLeastPart - 1) / kLeastPart + makes + 2;
      open.emplace_back(came, bound);
      scheduler.submit(std::make_unique<FakeText>(came, std::move(prompt), makes, ends, step));
      ++came;
    }
    scheduler.step();
    ++step;
    while (!open.empty() && open.front().second < step) {
      ASSERT_NE(ends.at[open.front().first], 0u) << "text " << open.front().first << " waits beyond its bound";
      open.pop_front();
    }
    if (step % 10'000 == 0) executor.pages().check();
  }
  EXPECT_EQ(ends.ended, texts);
  EXPECT_EQ(ends.failed, 0u);
  EXPECT_EQ(ends.cut, 0u);
  EXPECT_GT(scheduler.counts().preemptions, 0u);
  executor.pages().check();
  EXPECT_EQ(executor.pages().available(), 40u) << "every page is free, or kept for nobody in particular";
}

/// An executor that breaks ends the step, and whoever drives it ends the texts; the books are whole.
TEST(Policy, AnExecutorThatBreaksIsHeardByWhoeverDrives) {
  uint64_t clock = 0, step = 0;
  FakeExecutor executor(2, 120, 40, clock);
  Scheduler scheduler(executor, nullptr);
  FakeText::Ends ends;
  ends.at.resize(3);
  for (size_t i = 0; i < 3; ++i) {
    scheduler.submit(std::make_unique<FakeText>(i, std::vector<TokenId>(50, 1), 10, ends, step));
  }
  scheduler.step();
  executor.breaks = true;
  EXPECT_THROW(scheduler.step(), std::runtime_error);
  scheduler.fail_all(std::make_exception_ptr(std::runtime_error("closed")));
  EXPECT_EQ(ends.failed, 3u);
  EXPECT_EQ(scheduler.counts().running + scheduler.counts().waiting, 0u);
  executor.pages().check();
  EXPECT_EQ(executor.pages().available(), 40u);
}

}  // namespace
}  // namespace contexture
