#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "engine/stop_matcher.h"

namespace contexture {
namespace {

const GenerateOptions kPlain{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};

/// How often each token is chosen of `draws`.
std::map<TokenId, int> draw(const GenerateOptions& options, const std::vector<float>& logits, int draws = 20000,
                            const std::vector<TokenId>& history = {}, const std::vector<TokenId>& banned = {}) {
  Sampler sampler(options, banned);
  Sampler::Candidates candidates;
  std::map<TokenId, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.choose(logits, history, candidates).id];
  return counts;
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(Sampler, GreedyTakesTheLikeliestAndTheFirstOfEquals) {
  GenerateOptions greedy;
  greedy.temperature = 0;
  EXPECT_EQ(draw(greedy, {1, 3, 2, 3}, 10), (std::map<TokenId, int>{{1, 10}}));
}

TEST(Sampler, DrawsInProportion) {
  const std::vector<double> p = {0.5, 0.3, 0.2};
  const auto counts = draw(kPlain, logits_of(p));
  for (TokenId id = 0; id < 3; ++id) {
    // Five standard deviations of a binomial of 20,000.
    const double expected = p[static_cast<size_t>(id)], bound = 5 * std::sqrt(expected * (1 - expected) / 20000);
    EXPECT_NEAR(counts.at(id) / 20000.0, expected, bound);
  }
}

TEST(Sampler, TemperatureSharpens) {
  GenerateOptions options = kPlain;
  options.temperature = 0.5;  // squares the odds
  const auto counts = draw(options, logits_of({2.0 / 3, 1.0 / 3}));
  EXPECT_NEAR(counts.at(0) / 20000.0, 0.8, 0.015);
}

TEST(Sampler, FiltersCutWhatTheySay) {
  const std::vector<float> logits = logits_of({0.05, 0.5, 0.3, 0.15});
  GenerateOptions options = kPlain;
  options.top_k = 2;
  EXPECT_EQ(draw(options, logits).size(), 2u);
  options = kPlain;
  options.top_p = 0.79f;  // 0.5 + 0.3 reach it
  EXPECT_EQ(draw(options, logits).size(), 2u);
  options.top_p = 0.81f;
  EXPECT_EQ(draw(options, logits).size(), 3u);
  options = kPlain;
  options.min_p = 0.29f;  // 0.15 / 0.5 = 0.3 stays, 0.05 / 0.5 goes
  EXPECT_EQ(draw(options, logits).size(), 3u);
  options.min_p = 0.31f;
  EXPECT_EQ(draw(options, logits).size(), 2u);
  options.top_k = 1;
  options.top_p = 0.0f;
  EXPECT_EQ(draw(options, logits), (std::map<TokenId, int>{{1, 20000}}));
}

TEST(Sampler, RepetitionPenaltyLooksAtTheLast64Tokens) {
  GenerateOptions options;
  options.temperature = 0;
  options.repeat_penalty = 2;
  EXPECT_EQ(draw(options, {3, 2, 1}, 1, {0}).begin()->first, 1) << "3 / 2 is below 2";
  EXPECT_EQ(draw(options, {-1, -1.5, -9}, 1, {0}).begin()->first, 1) << "-1 · 2 is below -1.5";
  std::vector<TokenId> long_ago(65, 2);
  long_ago[0] = 0;
  EXPECT_EQ(draw(options, {3, 2, 1}, 1, long_ago).begin()->first, 0);
}

TEST(Sampler, SameSeedSameTokens) {
  std::mt19937 random(4);
  std::vector<float> logits(1000);
  std::normal_distribution<float> normal;
  for (float& l : logits) l = normal(random);
  const auto choices = [&](uint64_t seed) {
    GenerateOptions options;
    options.seed = seed;
    Sampler sampler(options, {});
    Sampler::Candidates candidates;
    std::vector<TokenId> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.choose(logits, {}, candidates).id);
    return ids;
  };
  EXPECT_EQ(choices(9), choices(9));
  EXPECT_NE(choices(9), choices(10));
}

TEST(Sampler, LogProbabilitiesAreOfTheUntouchedDistribution) {
  GenerateOptions options;
  options.temperature = 0.1f;
  Sampler sampler(options, {});
  Sampler::Candidates candidates;
  const Sampler::Choice choice = sampler.choose(logits_of({0.75, 0.25}), {}, candidates);
  EXPECT_EQ(choice.id, 0);
  EXPECT_NEAR(choice.log_probability, std::log(0.75), 1e-6);
}

TEST(Sampler, BannedTokensAreNeverChosen) {
  EXPECT_EQ(draw(kPlain, {5, 1, 1}, 2000, {}, {0}).count(0), 0u);
  GenerateOptions greedy;
  greedy.temperature = 0;
  EXPECT_EQ(draw(greedy, {5, 1, 2}, 1, {}, {0}).begin()->first, 2);
  EXPECT_THROW(draw(greedy, {5}, 1, {}, {0}), Error);
  EXPECT_THROW(draw(kPlain, {5}, 1, {}, {0}), Error);
}

TEST(Sampler, RefusesOptionsThatMeanNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinity, -1.f}) {
    GenerateOptions options;
    options.temperature = bad;
    EXPECT_THROW(draw(options, {1, 2}, 1), Error);
    options = {};
    options.top_p = bad;
    EXPECT_THROW(draw(options, {1, 2}, 1), Error);
    options = {};
    options.min_p = bad;
    EXPECT_THROW(draw(options, {1, 2}, 1), Error);
    options = {};
    options.repeat_penalty = bad;
    EXPECT_THROW(draw(options, {1, 2}, 1), Error);
  }
}

TEST(Sampler, RefusesLogitsThatAreNotNumbers) {
  EXPECT_THROW(draw(kPlain, {1, std::numeric_limits<float>::quiet_NaN()}, 1), Error);
}

TEST(StopMatcher, FindsStopsAcrossPiecesAndHoldsBackTheirBeginnings) {
  StopMatcher stops({"END", "\n\n"});
  EXPECT_EQ(stops.push("hello E"), "hello ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("ough"), "ENough");
  EXPECT_EQ(stops.push("\n"), "");
  EXPECT_EQ(stops.push("x\n"), "\nx");
  EXPECT_EQ(stops.push("\nrest"), "");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.push("more"), "");
}

TEST(StopMatcher, TakesTheEarliestAndGivesBackTheRest) {
  StopMatcher stops({"bc", "abcd", ""});
  EXPECT_EQ(stops.push("xab"), "x");
  EXPECT_EQ(stops.push("c"), "a");
  EXPECT_TRUE(stops.stopped());
  StopMatcher none({"abc"});
  EXPECT_EQ(none.push("xab"), "x");
  EXPECT_EQ(none.finish(), "ab");
  EXPECT_FALSE(none.stopped());
}

}  // namespace
}  // namespace contexture
