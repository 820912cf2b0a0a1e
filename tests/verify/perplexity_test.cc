#include "verify/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/random.h"
#include "support/random_model.h"
#include "verify/divergence.h"
#include "verify/text_reader.h"

namespace contexture {
namespace {

constexpr size_t kWords = 80;

std::vector<TokenId> random_text(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>(random() % kWords);
  return tokens;
}

/// A random model whose attention matters, and runs of it.
class Scoring : public testing::Test {
 protected:
  Scoring() {
    write_random_model({.dim = 64, .heads = 2, .kv_heads = 1, .vocabulary = kWords, .score_gain = 3}, file_.path());
    model_ = open_model(file_.path());
  }

  Runtime runtime(size_t context, CachePlan cache = {}, size_t chunk = 64, int threads = 2) const {
    cache.context = context;
    return {model_, {.cache = cache, .threads = threads, .chunk = chunk, .logit_rows = chunk}};
  }

  static CachePlan cache(std::string_view layout, Format k, Format v) {
    return {.layout = std::string(layout), .shape = {.k_format = k, .v_format = v}};
  }

  Perplexity perplexity(const std::vector<TokenId>& text, const TextWindows& windows, const CachePlan& cache = {},
                        size_t chunk = 64, int threads = 2) const {
    Runtime run = runtime(std::min(windows.tokens, text.size()), cache, chunk, threads);
    return measure_perplexity(text, windows, run).value();
  }

  Divergence divergence(const std::vector<TokenId>& text, const CachePlan& reference, const CachePlan& cache) const {
    Runtime first = runtime(text.size(), reference), second = runtime(text.size(), cache);
    return measure_divergence(text, {.tokens = text.size()}, first, second).value();
  }

  /// -log p of tokens first .. of a window, each from all logits of the window at once.
  std::vector<double> nats_of_window(const std::vector<TokenId>& window, size_t first) const {
    Runtime run = runtime(window.size(), {}, window.size());
    TextReader reader(run);
    const std::span<const float> logits = reader.feed(window).value();
    std::vector<double> nats;
    for (size_t i = first; i < window.size(); ++i) {
      const std::span<const float> row = logits.subspan((i - 1) * kWords, kWords);
      double sum = 0;
      for (const float logit : row) sum += std::exp(static_cast<double>(logit));
      nats.push_back(std::log(sum) - static_cast<double>(row[static_cast<size_t>(window[i])]));
    }
    return nats;
  }

  TemporaryFile file_;
  ModelFile model_;
};

TEST_F(Scoring, PerplexityIsWhatItsDefinitionSays) {
  const std::vector<TokenId> text = random_text(230, 1);
  for (const bool whole_only : {false, true}) {
    for (const size_t scored_from : {1, 51}) {
      const TextWindows windows{.tokens = 100, .scored_from = scored_from, .whole_only = whole_only, .begin = 1};
      std::vector<double> nats;
      for (size_t at = 0; at < text.size(); at += 100) {
        std::vector<TokenId> window(text.begin() + static_cast<ptrdiff_t>(at),
                                    text.begin() + static_cast<ptrdiff_t>(std::min(at + 100, text.size())));
        if (window.size() <= scored_from || (whole_only && window.size() < 100)) continue;
        window[0] = 1;
        const std::vector<double> some = nats_of_window(window, scored_from);
        nats.insert(nats.end(), some.begin(), some.end());
      }
      double mean = 0, variance = 0;
      for (const double n : nats) mean += n / static_cast<double>(nats.size());
      for (const double n : nats) variance += (n - mean) * (n - mean) / static_cast<double>(nats.size() - 1);
      const Perplexity perplexity = this->perplexity(text, windows, {}, 33);
      EXPECT_EQ(perplexity.tokens(), nats.size());
      EXPECT_EQ(perplexity.tokens(), windows.scored_of(text.size()));
      // The same float64 sums of up to 230 terms but for their order: 230 roundings of 2^-53 each are 3e-14 of a sum of
      // positive terms. exp carries an error of the mean (4.4 nats) on as a share: 2e-13 of 80.
      EXPECT_NEAR(perplexity.nats_per_token(), mean, 1e-13 * mean);
      EXPECT_NEAR(perplexity.value(), std::exp(mean), 1e-12 * std::exp(mean));
      // The variance is a difference of sums that are at most 1000 times as large here.
      const double error = std::exp(mean) * std::sqrt(variance / static_cast<double>(nats.size()));
      EXPECT_NEAR(perplexity.standard_error().value(), error, 1e-10 * error);
    }
  }
}

TEST_F(Scoring, IsTheSameBitsForAnyChunkThreadsAndLayoutOfOneFormat) {
  const std::vector<TokenId> text = random_text(300, 2);
  const TextWindows windows{.tokens = 140};
  const double expected = perplexity(text, windows).value();
  for (const size_t chunk : {1, 7, 32, 300}) {
    EXPECT_EQ(perplexity(text, windows, {}, chunk, 1).value(), expected) << chunk;
    EXPECT_EQ(perplexity(text, windows, cache("contiguous", Format::f16, Format::f16), chunk).value(), expected)
        << chunk;
  }
  EXPECT_NE(perplexity(text, windows, cache("paged", Format::f32, Format::f32)).value(), expected);
}

TEST_F(Scoring, RefusesWhatCannotBeScored) {
  EXPECT_THROW((void)perplexity({1}, {.tokens = 10}), Error);
  EXPECT_THROW((void)perplexity({1, 2, 3}, {.tokens = 10, .whole_only = true}), Error);
  EXPECT_THROW((void)perplexity({1, 2, kWords}, {.tokens = 10}), Error);
  EXPECT_THROW((void)perplexity({1, 2, -1}, {.tokens = 10}), Error);
  EXPECT_THROW((void)perplexity({1, 2, 3}, {.tokens = 1}), Error);
  Perplexity perplexity;
  EXPECT_EQ(perplexity.standard_error(), std::nullopt);
  EXPECT_THROW(perplexity.add(std::vector<float>{0, NAN, 1}, 0), Error);
  EXPECT_THROW(perplexity.add(std::vector<float>{0, INFINITY, 1}, 0), Error);
}

TEST_F(Scoring, CanBeCancelled) {
  const std::atomic<bool> cancelled = true;
  Runtime run = runtime(20);
  EXPECT_FALSE(measure_perplexity(random_text(20, 3), {.tokens = 20}, run, {.on_chunk = {}, .cancelled = &cancelled}));
}

TEST_F(Scoring, NothingDivergesFromItself) {
  const std::vector<TokenId> text = random_text(200, 4);
  const Divergence same =
      divergence(text, cache("contiguous", Format::f16, Format::q8_0), cache("paged", Format::f16, Format::q8_0));
  EXPECT_EQ(same.kl_max(), 0);
  EXPECT_EQ(same.kl_mean(), 0);
  EXPECT_EQ(same.top1(), 1);
  EXPECT_EQ(same.top5(), 1);
  EXPECT_EQ(same.perplexity().value(), same.reference_perplexity().value());
}

TEST_F(Scoring, FewerBitsDivergeMore) {
  const std::vector<TokenId> text = random_text(300, 5);
  const CachePlan reference = cache("contiguous", Format::f32, Format::f32);
  const auto of = [&](Format format) { return divergence(text, reference, cache("paged", format, format)); };
  const Divergence f16 = of(Format::f16), q8_0 = of(Format::q8_0), q4_0 = of(Format::q4_0);
  EXPECT_GT(f16.kl_mean(), 0);
  EXPECT_GT(q8_0.kl_mean(), 4 * f16.kl_mean());
  EXPECT_GT(q4_0.kl_mean(), 4 * q8_0.kl_mean());
  EXPECT_GT(q4_0.kl_max(), q4_0.kl_quantile(0.95));
  EXPECT_GT(q4_0.kl_quantile(0.95), q4_0.kl_mean());
  EXPECT_LT(q4_0.top1(), 1);
  EXPECT_EQ(q4_0.reference_perplexity().value(), f16.reference_perplexity().value());
  EXPECT_NE(q4_0.perplexity().value(), f16.perplexity().value());
}

TEST_F(Scoring, DivergenceNeedsOneVocabulary) {
  const TemporaryFile smaller;
  write_random_model({.vocabulary = kWords - 1}, smaller.path());
  const ModelFile other = open_model(smaller.path());
  CachePlan ten;
  ten.context = 10;
  Runtime reference(other, {.cache = ten, .chunk = 10, .logit_rows = 10}), run = runtime(10);
  EXPECT_THROW((void)measure_divergence(random_text(10, 6), {.tokens = 10}, reference, run), Error);
}

TEST(Divergence, QuantilesAreThoseOfItsTokens) {
  Divergence divergence;
  // KL((1/2, 1/2) ‖ softmax(x, 0)) grows with x.
  const std::vector<float> even = {0, 0};
  for (int i = 19; i >= 0; --i) divergence.add(even, std::vector<float>{static_cast<float>(i), 0}, 0);
  const auto kl = [](double x) { return std::log((1 + std::exp(x)) / 2) - x / 2; };
  // Both are differences of float64 logarithms below 20, each rounded to 2^-49 at worst; a few of them.
  EXPECT_NEAR(divergence.kl_quantile(0.95), kl(18), 0x1p-46);
  EXPECT_NEAR(divergence.kl_quantile(0.05), kl(0), 0x1p-46);
  EXPECT_NEAR(divergence.kl_max(), kl(19), 0x1p-46);
}

// The lengths at which an implementation of a paged cache that this project grew from went wrong, and more.
TEST_F(Scoring, PagesChangeNothingAtAnyLength) {
  const TemporaryFile small;
  write_random_model({.dim = 16, .heads = 2, .kv_heads = 1, .ffn_dim = 16, .vocabulary = kWords, .score_gain = 3},
                     small.path());
  model_ = open_model(small.path());
  for (const size_t length : {128, 512, 2048, 4096, 8192}) {
    const std::vector<TokenId> text = random_text(length, static_cast<uint32_t>(length));
    CachePlan paged = cache("paged", Format::f16, Format::f16);
    paged.options = {{"page_tokens", length % 4096 == 0 ? 16 : 32}};
    const Divergence d = divergence(text, cache("contiguous", Format::f16, Format::f16), paged);
    EXPECT_EQ(d.perplexity().value(), d.reference_perplexity().value()) << length;
    EXPECT_EQ(d.perplexity().tokens(), length - 1);
    EXPECT_EQ(d.kl_max(), 0) << length;
    EXPECT_EQ(d.top1(), 1) << length;
    EXPECT_EQ(d.top5(), 1) << length;
  }
}

}  // namespace
}  // namespace contexture
