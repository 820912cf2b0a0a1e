// A model over ranks that share its context, against the same model on one machine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "backends/ring/local_communicator.h"
#include "backends/ring/ring_executor.h"
#include "base/error.h"
#include "cache/layout.h"
#include "engine/generate.h"
#include "engine/logits.h"
#include "engine/runtime.h"
#include "model/oracle_llama.h"
#include "support/random.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

class RingModels : public testing::Test {
 protected:
  static RunOptions ring_options(size_t sequences, size_t ranks, std::string_view layout = "paged") {
    RunOptions options;
    options.cache.layout = layout;
    options.cache.shape.k_format = options.cache.shape.v_format = Format::f32;
    options.cache.sequences = options.logit_rows = sequences;
    options.cache.context = 400;
    options.cache.options = own_options(
        layout,
        {{"page_tokens", 8}, {"hot_tokens", 20}, {"cold_k_format", Format::f32}, {"cold_v_format", Format::f32}});
    options.cache.rotate = false;
    options.chunk = 32;
    options.ranks = ranks;
    return options;
  }

  /// The logits after each turn's last token of every sequence that has one; (turns, sequences, vocabulary).
  static std::vector<std::vector<float>> run_turns(Executor& executor, const std::vector<std::vector<size_t>>& turns,
                                                   uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<SequenceId> ids;
    for (size_t s = 0; s < turns[0].size(); ++s) ids.push_back(*executor.books().create());
    std::vector<std::vector<float>> all;
    for (const auto& turn : turns) {
      StepTokens tokens;
      for (size_t s = 0; s < ids.size(); ++s) {
        std::vector<int32_t> some(turn[s]);
        for (int32_t& t : some) t = static_cast<int32_t>(random() % 80);
        const size_t first = executor.books().length(ids[s]);
        EXPECT_TRUE(executor.books().append(ids[s], some.size()));
        if (!some.empty()) tokens.add(ids[s], first, some, some.size() - 1);
      }
      const std::span<const float> logits = executor.forward(tokens.step()).logits;
      all.emplace_back(logits.begin(), logits.end());
    }
    return all;
  }
};

/// Runs `body` at rank 0 over ranks that obey it.
void over_ranks(int ranks, const std::shared_ptr<const Transformer>& model, const MemoryPlan& plan,
                const RingChoice& choice, const std::function<void(RingExecutor&)>& body) {
  run_local_ranks(ranks, [&](Communicator& communicator) {
    RingExecutor executor(model, sizes_of(plan), plan.ring, communicator, choice);
    if (communicator.rank() != 0) return executor.obey();
    body(executor);
  });
}

class OverRanks : public RingModels, public testing::WithParamInterface<int> {};

TEST_P(OverRanks, TurnsOfManySequencesHaveTheLogitsOfOneMachine) {
  std::mt19937 random = fresh_random();
  const std::vector<std::vector<size_t>> turns = {{20, 0, 9, 1}, {1, 1, 1, 1}, {1, 0, 1, 1},  {7, 19, 1, 0},
                                                  {1, 1, 1, 1},  {1, 1, 1, 1}, {0, 3, 14, 9}, {1, 1, 1, 1}};
  for (const std::string family : {"llama", "gemma2"}) {
    const TemporaryFile file;
    RandomModel shape{.family = family, .layers = 3, .heads = 4, .kv_heads = 2};
    if (family == "gemma2") {
      shape.window = 16;
      shape.score_cap = 50;
      shape.logit_cap = 30;
    }
    write_random_model(shape, file.path());
    const ModelFile model = open_model(file.path());
    Runtime one(model, ring_options(4, 1));
    const uint32_t seed = static_cast<uint32_t>(random());
    const auto expected = run_turns(one, turns, seed);
    const auto shared = std::make_shared<const Transformer>(model);
    for (const std::string layout : {"contiguous", "paged", "mixed"}) {
      std::vector<std::vector<float>> by_kv;
      for (const char* mode : {"pass-kv", "pass-q", "auto"}) {
        const size_t ranks = static_cast<size_t>(GetParam());
        const MemoryPlan plan = plan_memory(model, ring_options(4, ranks, layout));
        over_ranks(GetParam(), shared, plan, {.mode = *ring_mode_from_name(mode)}, [&](RingExecutor& executor) {
          const auto made = run_turns(executor, turns, seed);
          ASSERT_EQ(made.size(), expected.size());
          if (by_kv.empty()) by_kv = made;
          EXPECT_EQ(made, by_kv) << family << ", " << layout << ", " << mode << ": the same bits every time";
          for (size_t turn = 0; turn < made.size(); ++turn) {
            ASSERT_EQ(made[turn].size(), expected[turn].size());
            float largest = 0;
            for (const float v : expected[turn]) largest = std::max(largest, std::abs(v));
            for (size_t i = 0; i < made[turn].size(); ++i) {
              // f32 all the way; only attention's sums run in another order.
              ASSERT_NEAR(made[turn][i], expected[turn][i], 1e-5 * static_cast<double>(largest))
                  << family << ", " << layout << ", " << mode << ", turn " << turn << ", value " << i;
            }
          }
        });
      }
    }
  }
}

// Prompts of every length at once, in pieces, over 1 to 8 ranks: against float64.
TEST_F(RingModels, EveryLengthHasTheLogitsOfTheOracle) {
  const TemporaryFile file;
  constexpr size_t vocabulary = 40;
  write_random_model(
      {.dim = 16, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 8, .ffn_dim = 16, .vocabulary = vocabulary},
      file.path());
  const ModelFile model = open_model(file.path());
  const std::vector<size_t> longer = kSanitized ? std::vector<size_t>{100} : std::vector<size_t>{1000, 4097};
  // All prompts begin alike, so that one oracle knows them all.
  const std::vector<int32_t> text = random_tokens(longer.back(), vocabulary);
  std::vector<std::vector<double>> expected(text.size() + 1);  // (length, vocabulary)
  LlamaOracle oracle(model);
  for (size_t t = 0; t < text.size(); ++t) expected[t + 1] = oracle.next(text[t]);
  const auto shared = std::make_shared<const Transformer>(model);
  for (const size_t n : {1, 2, 3, 4, 8}) {
    std::vector<size_t> lengths = {0, 1, 2, 2 * n - 1, 2 * n, 2 * n + 1};
    lengths.insert(lengths.end(), longer.begin(), longer.end());
    RunOptions options = ring_options(lengths.size(), n);
    options.cache.context = text.size();
    options.chunk = 2000;
    const MemoryPlan plan = plan_memory(model, options);
    over_ranks(static_cast<int>(n), shared, plan, {}, [&, n = n](RingExecutor& executor) {
      std::vector<SequenceId> ids;
      for (size_t s = 0; s < lengths.size(); ++s) ids.push_back(*executor.books().create());
      for (size_t done = 0; done < text.size(); done += 700) {
        StepTokens step;
        std::vector<size_t> ends;
        for (size_t s = 0; s < ids.size(); ++s) {
          if (lengths[s] <= done) continue;
          const size_t count = std::min<size_t>(lengths[s] - done, 700);
          ASSERT_TRUE(executor.books().append(ids[s], count));
          const bool is_last = done + count == lengths[s];
          step.add(ids[s], done, std::span(text).subspan(done, count), is_last ? count - 1 : count);
          if (is_last) ends.push_back(lengths[s]);
        }
        const std::span<const float> logits = executor.forward(step.step()).logits;
        ASSERT_EQ(logits.size(), ends.size() * vocabulary);
        for (size_t i = 0; i < logits.size(); ++i) {
          const std::vector<double>& truth = expected[ends[i / vocabulary]];
          double largest = 0;
          for (const double v : truth) largest = std::max(largest, std::abs(v));
          ASSERT_NEAR(logits[i], truth[i % vocabulary], 1e-5 * largest)
              << n << " ranks, " << ends[i / vocabulary] << " tokens";
        }
      }
    });
  }
}

/// Texts over ranks, in company and alone. Tokens are dealt by position: for a number of ranks a text has the same bits
/// whatever runs beside it.
TEST_P(OverRanks, TextsInCompanyAreWhatTheyAreAlone) {
  const TemporaryFile file;
  write_random_model({.layers = 2, .vocabulary = 259}, file.path(), /*with_vocabulary=*/true);
  const OpenedModel opened = open_with_tokenizer(file.path());
  std::mt19937 random = fresh_random();
  std::vector<Submission> requests(kSanitized ? 3 : 6);
  for (size_t i = 0; i < requests.size(); ++i) {
    for (size_t t = 1 + random() % 220; t > 0; --t) requests[i].prompt.push_back(static_cast<TokenId>(random() % 259));
    requests[i].options = {.max_tokens = 1 + random() % 40, .sampling = {.temperature = 0}, .ignore_end = true};
  }
  Runtime one(opened.file, ring_options(3, 1));
  std::vector<Submission> watched = requests;
  std::vector<std::vector<std::array<Alternative, 2>>> likeliest(requests.size());
  for (size_t i = 0; i < watched.size(); ++i) {
    watched[i].options.alternatives = 2;
    watched[i].callbacks.on_token = [&, i](const GeneratedToken& t) {
      if (t.id >= 0) likeliest[i].push_back({t.alternatives[0], t.alternatives[1]});
      return true;
    };
  }
  const std::vector<Generation> on_one = generate_all(one, opened.need_tokenizer(), watched);
  const auto shared = std::make_shared<const Transformer>(opened.file);
  const MemoryPlan plan = plan_memory(opened.file, ring_options(3, static_cast<size_t>(GetParam())));
  ASSERT_EQ(plan.ring.dealing, Dealing::by_position);
  const auto over = [&](const std::function<void(RingExecutor&)>& body) {
    over_ranks(GetParam(), shared, plan, {.mode = *ring_mode_from_name("pass-q")}, body);
  };
  std::vector<Generation> together;
  over([&](RingExecutor& executor) { together = generate_all(executor, opened.need_tokenizer(), requests); });
  over([&](RingExecutor& executor) {
    for (size_t i = 0; i < requests.size(); ++i) {
      const Generation alone = generate(executor, opened.need_tokenizer(), requests[i]);
      EXPECT_EQ(alone.token_ids, together[i].token_ids) << i;
      EXPECT_EQ(alone.log_probabilities, together[i].log_probabilities) << i << ": to the bit";
      // Ranks merge sums in another order: of two tokens as likely as each other either may come, and all that follows.
      ASSERT_EQ(alone.token_ids.size(), on_one[i].token_ids.size());
      const auto [here, there] = std::ranges::mismatch(alone.token_ids, on_one[i].token_ids);
      if (here != alone.token_ids.end()) {
        const auto& [first, second] = likeliest[i][static_cast<size_t>(here - alone.token_ids.begin())];
        EXPECT_NEAR(first.log_probability, second.log_probability, 1e-5) << i;
        EXPECT_EQ(*here, second.id) << i;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, OverRanks, testing::Values(1, 2, 3, 4, 8));

TEST(Ring, NoRankHoldsMoreThanItsShare) {
  const TemporaryFile file;
  write_random_model({.layers = 2, .vocabulary = 259}, file.path(), /*with_vocabulary=*/true);
  const OpenedModel opened = open_with_tokenizer(file.path());
  RunOptions options;
  options.cache.context = 256;
  options.cache.options = {{"page_tokens", 8}};
  options.ranks = 4;
  const MemoryPlan plan = plan_memory(opened.file, options);
  options.ranks = 1;
  const MemoryPlan alone = plan_memory(opened.file, options);
  // What travels: the visiting shard and the one that arrives, and the partial results of a step of both ways.
  const size_t shard = plan.cache_bytes / plan.config.layers,
               partials = plan.ring.step_tokens * plan.config.heads * (plan.config.head_dim + 2) * sizeof(float);
  EXPECT_LE(plan.ring.shard_bytes, shard + 1);
  EXPECT_LE(RingAttention::bytes_for(plan.ring), 2 * (shard + 1) + (2 * 4 + 1) * (partials + 256));
  // A quarter within a page, but for the books.
  EXPECT_LT(plan.cache_bytes, alone.cache_bytes / 4 + alone.cache_bytes / 32 + 4096);
  const auto shared = std::make_shared<const Transformer>(opened.file);
  over_ranks(4, shared, plan, {}, [&](RingExecutor& executor) {
    const OwnedSequence sequence(executor.books());
    const std::vector<TokenId> prompt(201, 65);
    (void)generate_in(
        executor, opened.need_tokenizer(), sequence.id(),
        {.prompt = prompt, .options = {.max_tokens = 30, .sampling = {.temperature = 0}, .ignore_end = true}});
    const std::vector<RingReport> reports = executor.report(sequence.id());
    uint64_t tokens = 0, bytes = 0;
    for (const RingReport& report : reports) {
      EXPECT_LE(report.tokens, 58u);                              // 230 tokens over 4 ranks
      EXPECT_EQ(report.k_bytes, report.tokens * 2 * 2 * 16 * 2);  // layers, KV heads, channels of f16
      EXPECT_EQ(report.k_bytes, report.v_bytes);
      tokens += report.tokens;
      bytes += report.k_bytes + report.v_bytes;
    }
    EXPECT_EQ(tokens, 230u);
    EXPECT_EQ(bytes, 230u * 256);
  });
}

TEST(Ring, OneThatIsCancelledLeavesTheOthersAndTheRanks) {
  const TemporaryFile file;
  write_random_model({.layers = 2, .vocabulary = 259}, file.path(), /*with_vocabulary=*/true);
  const OpenedModel opened = open_with_tokenizer(file.path());
  RunOptions options;
  options.cache.context = 4096;
  options.ranks = 3;
  const MemoryPlan plan = plan_memory(opened.file, options);
  const auto shared = std::make_shared<const Transformer>(opened.file);
  over_ranks(3, shared, plan, {}, [&](RingExecutor& executor) {
    std::atomic<bool> interrupted{false};
    size_t made = 0;
    Submission submission{.prompt = std::vector<TokenId>(9, 65),
                          .options = {.max_tokens = 3000, .sampling = {.temperature = 0}, .ignore_end = true}};
    submission.callbacks.cancelled = &interrupted;
    submission.callbacks.on_token = [&](const GeneratedToken&) { return interrupted = ++made == 5, true; };
    const Generation text = generate(executor, opened.need_tokenizer(), submission);
    EXPECT_EQ(text.finish_reason, FinishReason::cancelled);
    EXPECT_EQ(text.token_ids.size(), 5u);
    submission.callbacks = {};
    submission.options.max_tokens = 5;
    EXPECT_EQ(generate(executor, opened.need_tokenizer(), submission).token_ids, text.token_ids);
  });
}

TEST(Ring, RanksWaitForAsLongAsThereIsNothingToSay) {
  const TemporaryFile file;
  write_random_model({}, file.path());
  const ModelFile model = open_model(file.path());
  RunOptions options;
  options.cache.context = 64;
  options.ranks = 2;
  const MemoryPlan plan = plan_memory(model, options);
  const auto shared = std::make_shared<const Transformer>(model);
  run_local_ranks(
      2,
      [&](Communicator& communicator) {
        RingExecutor executor(shared, sizes_of(plan), plan.ring, communicator, {});
        if (communicator.rank() != 0) return executor.obey();
        std::this_thread::sleep_for(std::chrono::milliseconds(2500));  // longer than their patience
        EXPECT_TRUE(executor.books().create());
      },
      std::chrono::seconds(2));
}

}  // namespace
}  // namespace contexture
