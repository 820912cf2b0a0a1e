#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/prefix_report.h"
#include "engine/runtime.h"
#include "engine/scheduler.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using testing::HasSubstr;

class Prefixes : public testing::Test {
 protected:
  void SetUp() override { write_random_model({.vocabulary = 259}, file_.path(), /*with_vocabulary=*/true); }
  LoadOptions load(const std::string& cache = "paged") {
    return {.model_path = file_.path(), .threads = 2, .context = 300, .cache = cache};
  }
  TemporaryFile file_;
  const GenerateOptions options_{.max_tokens = 12, .seed = 3, .ignore_end = true};
};

TEST_F(Prefixes, PromptsThatBeginAlikeAreNotRunAgainAndSayTheSame) {
  const std::string tale(100, 'a');
  LanguageModel fresh(load());
  const Generation expected = fresh.generate(tale + "xyz", options_);
  EXPECT_EQ(expected.prefilled_tokens, expected.prompt_tokens);
  EXPECT_EQ(expected.prefix.reused_tokens, 0u);
  EXPECT_FALSE(expected.prefix.first_difference) << "an empty cache holds nothing else";

  LanguageModel model(load());
  model.generate(tale + "bc", options_);
  const Generation hit = model.generate(tale + "xyz", options_);
  EXPECT_EQ(hit.prefix.reused_tokens, hit.prompt_tokens - 3);
  EXPECT_EQ(hit.prefilled_tokens, 3u);
  EXPECT_EQ(hit.token_ids, expected.token_ids);
  EXPECT_EQ(hit.log_probabilities, expected.log_probabilities) << "to the bit";
  ASSERT_TRUE(hit.prefix.first_difference);
  EXPECT_EQ(hit.prefix.first_difference->position, hit.prompt_tokens - 3);
  EXPECT_EQ(hit.prefix.first_difference->held_text, "b");
  EXPECT_EQ(hit.prefix.first_difference->given_text, "x");
  EXPECT_THAT(explain_prefix(hit), HasSubstr("\"b\""));

  const Generation again = model.generate(tale + "xyz", options_);
  EXPECT_EQ(again.prefilled_tokens, 1u) << "the last token is always run";
  EXPECT_FALSE(again.prefix.first_difference);
  EXPECT_EQ(again.log_probabilities, expected.log_probabilities);
}

TEST_F(Prefixes, WhatWasGeneratedIsHeldToo) {
  const OpenedModel opened = open_with_tokenizer(file_.path());
  RunOptions run;
  run.cache.context = 300;
  Runtime runtime(opened.file, run);
  std::vector<TokenId> prompt = {1, 70, 71, 72};
  const Generation made = generate(runtime, *opened.tokenizer, prompt, options_, {});
  prompt.insert(prompt.end(), made.token_ids.begin(), made.token_ids.end());
  const Generation after = generate(runtime, *opened.tokenizer, prompt, options_, {});
  EXPECT_EQ(after.prefilled_tokens, 1u) << "all but the last one were run before";
}

TEST_F(Prefixes, OtherLayoutsShareNothing) {
  for (const std::string cache : {"contiguous", "mixed"}) {
    LanguageModel model(load(cache));
    const Generation first = model.generate(std::string(50, 'a'), options_);
    const Generation second = model.generate(std::string(50, 'a'), options_);
    EXPECT_EQ(second.prefilled_tokens, second.prompt_tokens);
    EXPECT_EQ(second.token_ids, first.token_ids);
  }
}

TEST_F(Prefixes, OfABatch) {
  LoadOptions options = load();
  options.sequences = 3;
  options.pool_tokens = 350;
  options.page_tokens = 8;
  LanguageModel model(options);
  std::vector<GenerationRequest> requests;
  for (size_t i = 0; i < 7; ++i) requests.push_back({std::string(100, 'a') + std::string(i, 'b'), options_});
  requests[2].options.temperature = 0;
  requests[3].options.max_tokens = 60;
  std::vector<std::string> streamed(requests.size());
  const std::vector<Generation> made = model.generate_all(
      requests, [&](size_t request, const GeneratedToken& token) { return streamed[request] += token.text, true; });
  ASSERT_EQ(made.size(), requests.size());
  LanguageModel other(load("contiguous"));
  for (size_t i = 0; i < requests.size(); ++i) {
    const Generation alone = other.generate(requests[i].prompt, requests[i].options);
    EXPECT_EQ(made[i].token_ids, alone.token_ids) << i;
    EXPECT_EQ(made[i].text, alone.text);
    EXPECT_EQ(streamed[i], alone.text);
  }
  EXPECT_GE(made.back().prefix.reused_tokens, 100u);
  EXPECT_TRUE(model.generate_all({}).empty());
}

TEST_F(Prefixes, OptionsOfTheCacheReachIt) {
  LoadOptions options = load("mixed");
  options.k_format = "q8_0";
  options.cold_v_format = "f16";
  options.hot_tokens = 32;
  options.rotate = true;
  EXPECT_EQ(LanguageModel(options).generate("abc", options_).token_ids.size(), 12u);
  options.hot_tokens = 0;
  EXPECT_THROW(LanguageModel{options}, Error);
  options = load();
  options.page_tokens = 12;
  EXPECT_THROW(LanguageModel{options}, Error);
  options = load();
  options.cold_k_format = "q3";
  EXPECT_THROW(LanguageModel{options}, Error);
}

}  // namespace
}  // namespace contexture
