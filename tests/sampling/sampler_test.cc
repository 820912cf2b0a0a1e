#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <numeric>

#include "base/error.h"
#include "base/thread_pool.h"
#include "sampling/fields.h"
#include "support/allocations.h"
#include "support/random.h"

namespace contexture {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
const Sampling kPlain{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};

/// How often each token is chosen of `draws`.
std::map<TokenId, int> draw(const Sampling& options, const std::vector<float>& logits, int draws = 20000,
                            const std::vector<TokenId>& history = {}, const std::vector<TokenId>& banned = {}) {
  Sampler sampler(options, 0, banned);
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
  Sampling greedy;
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
  Sampling options = kPlain;
  options.temperature = 0.5;  // squares the odds
  const auto counts = draw(options, logits_of({2.0 / 3, 1.0 / 3}));
  EXPECT_NEAR(counts.at(0) / 20000.0, 0.8, 0.015);
}

TEST(Sampler, FiltersCutWhatTheySay) {
  const std::vector<float> logits = logits_of({0.05, 0.5, 0.3, 0.15});
  Sampling options = kPlain;
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
  Sampling options;
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
    Sampling options;
    options.seed = seed;
    Sampler sampler(options);
    Sampler::Candidates candidates;
    std::vector<TokenId> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.choose(logits, {}, candidates).id);
    return ids;
  };
  EXPECT_EQ(choices(9), choices(9));
  EXPECT_NE(choices(9), choices(10));
}

TEST(Sampler, LogProbabilitiesAreOfTheUntouchedDistribution) {
  Sampling options;
  options.temperature = 0.1f;
  Sampler sampler(options);
  Sampler::Candidates candidates;
  const Sampler::Choice choice = sampler.choose(logits_of({0.75, 0.25}), {}, candidates);
  EXPECT_EQ(choice.id, 0);
  EXPECT_NEAR(choice.log_probability, std::log(0.75), 1e-6);
}

TEST(Sampler, BannedTokensAreNeverChosen) {
  EXPECT_EQ(draw(kPlain, {5, 1, 1}, 2000, {}, {0}).count(0), 0u);
  Sampling greedy;
  greedy.temperature = 0;
  EXPECT_EQ(draw(greedy, {5, 1, 2}, 1, {}, {0}).begin()->first, 2);
  EXPECT_THROW(draw(greedy, {5}, 1, {}, {0}), Error);
  EXPECT_THROW(draw(kPlain, {5}, 1, {}, {0}), Error);
}

TEST(Sampler, RefusesOptionsThatMeanNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinity, -1.f}) {
    Sampling options;
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

/// How tokens were chosen before there were fast paths: sorted, in float64.
TokenId choose_in_float64(const std::vector<float>& row, const Sampling& s, uint64_t choice) {
  std::vector<size_t> order(row.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return row[a] > row[b]; });
  if (s.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(s.top_k)));
  const auto weight = [&](size_t i, double temperature) {
    return std::exp((static_cast<double>(row[order[i]]) - row[order[0]]) / temperature);
  };
  double total = 0, reached = 0;
  for (size_t i = 0; i < order.size(); ++i) total += weight(i, 1);
  size_t kept = 0;
  while (kept < order.size() && reached < s.top_p * total) reached += weight(kept++, 1);
  while (kept > 1 && weight(kept - 1, 1) < s.min_p) --kept;
  order.resize(kept);
  std::mt19937_64 random(s.seed);
  random.discard(choice);
  total = 0;
  for (size_t i = 0; i < order.size(); ++i) total += weight(i, s.temperature);
  double left = static_cast<double>(random() >> 11) * 0x1p-53 * total;
  std::map<size_t, double> by_id;
  for (size_t i = 0; i < order.size(); ++i) by_id[order[i]] = weight(i, s.temperature);
  for (const auto& [id, share] : by_id) {
    left -= share;
    if (left < 0) return static_cast<TokenId>(id);
  }
  return static_cast<TokenId>(by_id.rbegin()->first);
}

TEST(Sampler, TextsWithASeedAreThoseOfFloat64) {
  // Not with fresh numbers: where a random number lies within 1e-7 of the border between two tokens, another one is
  // chosen.
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Candidates candidates;
  const Sampling usual{.seed = 11}, hot{.temperature = 1.4f, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 12},
      nucleus{.temperature = 0.7f, .top_k = 0, .top_p = 0.9f, .min_p = 0, .seed = 13};
  for (const Sampling& s : {usual, hot, nucleus}) {
    Sampler sampler(s);
    for (uint64_t choice = 0; choice < 300; ++choice) {
      std::vector<float> row(700);
      for (float& x : row) x = 3 * normal(random);
      ASSERT_EQ(sampler.choose(row, {}, candidates).id, choose_in_float64(row, s, choice)) << choice;
    }
  }
}

const Sampling kAllAtOnce{.temperature = 0.9f,
                          .top_k = 400,
                          .top_p = 0.98f,
                          .min_p = 0.001f,
                          .typical_p = 0.97f,
                          .top_n_sigma = 3,
                          .xtc_probability = 0.5f,
                          .xtc_threshold = 0.05f,
                          .repeat_penalty = 1.1f,
                          .dry_multiplier = 0.5f,
                          .seed = 21};

std::vector<std::vector<float>> some_rows(size_t count, size_t vocabulary) {
  std::mt19937 random = fresh_random();
  std::vector<std::vector<float>> rows;
  for (size_t i = 0; i < count; ++i) rows.push_back(random_floats(random, vocabulary, 3));
  return rows;
}

TEST(Sampler, AChoiceDependsOnItsPlaceInTheTextAndNotOnThoseBefore) {
  const auto rows = some_rows(40, 1000);
  const std::vector<TokenId> history = {1, 2, 3, 1, 2};
  Candidates candidates;
  Sampler whole(kAllAtOnce);
  for (uint64_t choice = 0; choice < rows.size(); ++choice) {
    Sampler resumed(kAllAtOnce, choice);
    const TokenId id = whole.choose(rows[choice], history, candidates).id;
    EXPECT_EQ(resumed.choose(rows[choice], history, candidates).id, id) << choice;
  }
}

TEST(Sampler, RowsMayBeChosenFromAtOnce) {
  const auto rows = some_rows(64, 2000);
  std::vector<TokenId> alone(rows.size()), together(rows.size());
  Candidates candidates;
  for (size_t i = 0; i < rows.size(); ++i) alone[i] = Sampler(kAllAtOnce, i).choose(rows[i], {}, candidates).id;
  ThreadPool pool(4);
  std::vector<Candidates> of_thread(4);
  pool.run(rows.size(), [&](size_t i, int thread) {
    together[i] = Sampler(kAllAtOnce, i).choose(rows[i], {}, of_thread[static_cast<size_t>(thread)]).id;
  });
  EXPECT_EQ(together, alone);
}

TEST(Sampler, AllocatesNothingOnceItHasReservedItsBytes) {
  if (!kWatchesAllocations) GTEST_SKIP();
  constexpr size_t kWidth = 5000, kContext = 3000;
  auto rows = some_rows(20, kWidth);
  rows[1].assign(kWidth, 1.5f);  // nothing to choose between
  for (size_t i = 0; i < kWidth; ++i) rows[2][i] = static_cast<float>(i % 3);
  std::vector<TokenId> history(kContext, 7);
  for (size_t i = 0; i < kContext; i += 3) history[i] = static_cast<TokenId>(i % kWidth);
  const std::vector<uint64_t> allowed((kWidth + 63) / 64, 0x5555555555555555);
  const auto with = [](const auto& change) {
    Sampling s = kPlain;
    change(s);
    return s;
  };
  std::vector<Sampler> samplers;
  for (const Sampling& s :
       {kPlain, kAllAtOnce, with([](Sampling& o) { o.temperature = 0; }),
        with([](Sampling& o) { o.temperature = 0.7f; }), with([](Sampling& o) { o.top_k = 3000; }),
        with([](Sampling& o) { o.top_p = 0.9f; }), with([](Sampling& o) { o.min_p = 0.001f; }),
        with([](Sampling& o) { o.typical_p = 0.9f; }), with([](Sampling& o) { o.top_n_sigma = 2; }),
        with([](Sampling& o) { o.xtc_probability = 1, o.xtc_threshold = 1e-5f; }),
        with([](Sampling& o) { o.mirostat = 2; }),
        with([](Sampling& o) { o.repeat_penalty = 1.2f, o.repeat_last_n = -1; }),
        with([](Sampling& o) { o.dry_multiplier = 1, o.dry_penalty_last_n = -1; }), with([](Sampling& o) {
          o.logit_bias = {{3, 1.f}, {9, kNever}};
        })}) {
    samplers.emplace_back(s, 0, std::vector<TokenId>{5});
  }
  const AllocationWatch reserving;
  Candidates candidates;
  candidates.reserve(kWidth, kContext);
  // An allocator gives a few bytes more than it is asked for, to each of the rows.
  EXPECT_GE(reserving.peak(), Candidates::bytes_for(kWidth, kContext));
  EXPECT_LE(reserving.peak(), Candidates::bytes_for(kWidth, kContext) + 8 * 64);
  const AllocationWatch watch;
  for (Sampler& sampler : samplers) {
    for (const auto& row : rows) {
      sampler.choose(row, history, candidates);
      sampler.choose(row, std::span(history).first(100), candidates, allowed);
    }
  }
  EXPECT_EQ(watch.peak(), 0u);
}

TEST(Sampler, GrowsToTheBytesThatItSaysAndNoFurther) {
  if (!kWatchesAllocations) GTEST_SKIP();
  const auto rows = some_rows(3, 4000);
  std::vector<TokenId> history;
  Sampler sampler(kAllAtOnce);
  const AllocationWatch watch;
  {
    Candidates candidates;
    history.reserve(3000);
    const size_t before = watch.peak();
    for (size_t i = 0; i < 3000; ++i) {
      history.push_back(static_cast<TokenId>(i % 5));
      if (i % 100 == 0) sampler.choose(std::span(rows[i % 3]).first(1000 + i), history, candidates);
    }
    // While a row grows there are two of it.
    EXPECT_LE(watch.peak() - before, Candidates::bytes_for(4000, 3000) + 5000 * sizeof(float) + 8 * 64);
  }
}

TEST(Sampler, MirostatKeepsTheSurpriseNearItsTarget) {
  std::mt19937 random = fresh_random();
  for (const float tau : {2.f, 4.f}) {
    Sampling s = kPlain;
    s.mirostat = 2, s.mirostat_tau = tau;
    Sampler sampler(s);
    Candidates candidates;
    double bound = 2 * tau, surprises = 0;
    constexpr int kTokens = 1500;
    for (int token = 0; token < kTokens; ++token) {
      // No surprise so near to the bound that roundings decide on which side it is.
      std::vector<float> row;
      double left;  // by the bound
      for (bool unsure = true; unsure;) {
        row = random_floats(random, 500, 1.5f);
        unsure = false, left = 0;
        double sum = 0;
        for (const float x : row) sum += std::exp(static_cast<double>(x));
        const double log_sum = std::log(sum);
        for (const float x : row) {
          const double surprise = (log_sum - x) / std::numbers::ln2;
          unsure |= std::fabs(surprise - bound) < 1e-4;
          if (surprise <= bound) left += std::exp(x - log_sum);
        }
      }
      const auto choice = sampler.choose(row, {}, candidates);
      const double p = std::exp(static_cast<double>(choice.log_probability));
      if (left > 0) {
        EXPECT_LE(-std::log2(p), bound + 1e-4);
      }
      const double surprise = left > 0 ? std::log2(left / p) : 0;  // the likeliest always stays
      bound -= 0.1 * (surprise - tau);
      surprises += surprise;
    }
    EXPECT_NEAR(surprises / kTokens, tau, 0.15);
  }
}

TEST(Sampler, BiasesAddUpAndRuleOut) {
  Sampling s = kPlain;
  s.logit_bias = {{0, kNever}, {2, 3}};
  const auto counts = draw(s, logits_of({0.9, 0.05, 0.05}));
  EXPECT_EQ(counts.count(0), 0u);
  const double share = std::exp(3) / (1 + std::exp(3));
  EXPECT_NEAR(counts.at(2) / 20000.0, share, 0.01);
  s.logit_bias = {{3, 1}};
  EXPECT_THROW(draw(s, {1, 2, 3}, 1), Error) << "there is no such token";
  for (const float bad : {-kNever, std::numeric_limits<float>::quiet_NaN()}) {
    s.logit_bias = {{0, bad}};
    EXPECT_THROW(draw(s, {1, 2, 3}, 1), Error);
  }
}

TEST(Sampler, EveryFieldHasARangeThatNaNIsNotIn) {
  for (const SamplingField& field : sampling_fields()) {
    Sampling s;
    EXPECT_NO_THROW(check_sampling(s));
    const auto refuses = [&](double value) {
      std::visit([&](auto member) { s.*member = static_cast<std::remove_cvref_t<decltype(s.*member)>>(value); },
                 field.member);
      EXPECT_THROW(check_sampling(s), Error) << field.name << " of " << value;
      EXPECT_NE(describe(s), describe(Sampling{})) << field.name;
    };
    refuses(field.low - 1);
    refuses(std::nextafter(static_cast<float>(field.high), 4e9f) + 1);
    if (std::holds_alternative<float Sampling::*>(field.member)) refuses(std::numeric_limits<double>::quiet_NaN());
  }
  Sampling s;
  s.mirostat = 1;
  EXPECT_THROW(check_sampling(s), Error);
}

}  // namespace
}  // namespace contexture
