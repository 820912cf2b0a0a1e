#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/language_model.h"
#include "base/error.h"
#include "engine/generate.h"
#include "engine/prefix_report.h"
#include "engine/runtime.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using testing::HasSubstr;

class Prefixes : public testing::Test {
 protected:
  void SetUp() override { write_random_model({.vocabulary = 259}, file_.path(), /*with_vocabulary=*/true); }
  static EngineOptions options(const std::string& layout = "paged") {
    return {.context = 300, .sequences = 1, .cache = {.layout = layout}};
  }
  LanguageModel load(const std::string& layout = "paged") { return LanguageModel(file_.path(), options(layout)); }
  TemporaryFile file_;
  const GenerateOptions options_{.max_tokens = 12, .sampling = {.seed = 3}, .ignore_end = true};
};

TEST_F(Prefixes, PromptsThatBeginAlikeAreNotRunAgainAndSayTheSame) {
  const std::string tale(100, 'a');
  LanguageModel fresh(file_.path(), options());
  const Generation expected = fresh.generate(tale + "xyz", options_);
  EXPECT_EQ(expected.prefilled_tokens, expected.prompt_tokens);
  EXPECT_EQ(expected.prefix.reused_tokens, 0u);
  EXPECT_FALSE(expected.prefix.first_difference) << "an empty cache holds nothing else";

  LanguageModel model(file_.path(), options());
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
  const Generation made = generate(runtime, *opened.tokenizer, {.prompt = prompt, .options = options_});
  prompt.insert(prompt.end(), made.token_ids.begin(), made.token_ids.end());
  const Generation after = generate(runtime, *opened.tokenizer, {.prompt = prompt, .options = options_});
  EXPECT_EQ(after.prefilled_tokens, 1u) << "all but the last one were run before";
}

TEST_F(Prefixes, OtherLayoutsShareNothing) {
  for (const std::string cache : {"contiguous", "mixed"}) {
    LanguageModel model(file_.path(), options(cache));
    const Generation first = model.generate(std::string(50, 'a'), options_);
    const Generation second = model.generate(std::string(50, 'a'), options_);
    EXPECT_EQ(second.prefilled_tokens, second.prompt_tokens);
    EXPECT_EQ(second.token_ids, first.token_ids);
  }
}

TEST_F(Prefixes, OfABatch) {
  EngineOptions small = options();
  small.sequences = 3;
  small.cache.layout_options = {{"pool_tokens", "350"}, {"page_tokens", "8"}};
  LanguageModel model(file_.path(), small);
  std::vector<Request> requests;
  for (size_t i = 0; i < 7; ++i) {
    requests.push_back(LanguageModel::request(std::string(100, 'a') + std::string(i, 'b'), options_));
  }
  requests[2].sampling.temperature = 0;
  requests[3].limits.max_tokens = 60;
  std::vector<Stream> streams;
  for (const Request& request : requests) streams.push_back(model.engine().submit(request));
  LanguageModel other(file_.path(), options("contiguous"));
  Generation last;
  for (size_t i = 0; i < requests.size(); ++i) {
    std::string streamed;
    for (const Event& event : streams[i]) {
      if (const auto* token = std::get_if<TokenEvent>(&event)) streamed += token->text;
    }
    last = streams[i].wait();
    const Generation alone = generate(other.engine(), requests[i]);
    EXPECT_EQ(last.token_ids, alone.token_ids) << i;
    EXPECT_EQ(last.log_probabilities, alone.log_probabilities) << i;
    EXPECT_EQ(last.text, alone.text);
    EXPECT_EQ(streamed, alone.text);
  }
  EXPECT_GE(last.prefix.reused_tokens, 100u);
}

TEST_F(Prefixes, AreSharedWithinANamespaceAlone) {
  LanguageModel model(file_.path(), options());
  const auto of = [&](const std::string& tenant, const std::string& text) {
    Request request = LanguageModel::request(text, options_);
    request.name_space = tenant;
    return generate(model.engine(), request);
  };
  const std::string tale(60, 'a');
  const Generation first = of("ann", tale + "bc");
  const Generation stranger = of("bob", tale + "xyz");
  EXPECT_EQ(stranger.prefix.reused_tokens, 0u);
  EXPECT_FALSE(stranger.prefix.first_difference) << "nothing of another's text is told";
  const Generation again = of("ann", tale + "xyz");
  EXPECT_GE(again.prefix.reused_tokens, 60u);
  ASSERT_TRUE(again.prefix.first_difference);
  EXPECT_EQ(again.prefix.first_difference->held_text, "b");
  EXPECT_EQ(again.log_probabilities, stranger.log_probabilities);
}

TEST_F(Prefixes, OptionsOfTheCacheReachIt) {
  EngineOptions mixed = options("mixed");
  mixed.cache.k_format = "q8_0";
  mixed.cache.rotate = true;
  mixed.cache.layout_options = {{"cold_v_format", "f16"}, {"hot_tokens", "32"}};
  EXPECT_EQ(LanguageModel(file_.path(), mixed).generate("abc", options_).token_ids.size(), 12u);
  const auto refused = [&](const std::string& layout, const std::string& name, const std::string& value) {
    EngineOptions wrong = options(layout);
    wrong.cache.layout_options = {{name, value}};
    EXPECT_THROW(LanguageModel(file_.path(), wrong), Error) << layout << ", " << name << ", " << value;
  };
  refused("mixed", "hot_tokens", "0");
  refused("mixed", "cold_k_format", "q3");
  refused("mixed", "page_tokens", "8");
  refused("paged", "page_tokens", "12");
  refused("paged", "hot_tokens", "12");
}

}  // namespace
}  // namespace contexture
