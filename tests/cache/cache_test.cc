#include "cache/cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "cache/layout.h"
#include "cache/page_book.h"
#include "cache/saved_context.h"
#include "support/log_watch.h"
#include "support/random.h"
#include "support/sanitized.h"
#include "tensor/float16.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

constexpr CacheShape kShape{
    .layers = 2, .kv_heads = 3, .head_dim = 8, .k_format = Format::f32, .v_format = Format::f16};
constexpr size_t kSinks = 3;
constexpr size_t kRow = kShape.kv_heads * kShape.head_dim;

/// What a token's K and V should be: a number that says which token and layer it is.
float mark(int token, size_t layer, size_t channel, bool is_v) {
  return static_cast<float>(token % 31) + static_cast<float>(layer) / 2 + static_cast<float>(channel % 8) / 16 +
         (is_v ? 32.f : 0.f);  // below 64: f16 holds sixteenths exactly
}

void store_token(Cache& cache, SequenceId sequence, size_t position, int token) {
  const Slot slot = cache.slot(sequence, position);
  for (size_t layer = 0; layer < kShape.layers; ++layer) {
    std::vector<float> k(kRow), v(kRow);
    for (size_t c = 0; c < kRow; ++c) k[c] = mark(token, layer, c, false), v[c] = mark(token, layer, c, true);
    cache.store(layer, {&slot, 1}, k.data(), v.data());
  }
}

/// Reads a sequence through its view, as its last token does, and compares it with the tokens that it should hold.
void expect_tokens(const Cache& cache, SequenceId sequence, const std::vector<int>& tokens) {
  ASSERT_EQ(cache.length(sequence), tokens.size());
  const auto query = static_cast<int64_t>(tokens.size()) - 1;
  for (size_t layer = 0; layer < kShape.layers; ++layer) {
    std::vector<TokenSpan> spans;
    cache.view(sequence, spans);
    size_t at = 0;
    for (const TokenSpan& span : CacheView(spans, layer)) {
      if (!span.seen_from(query)) continue;
      for (size_t t = 0; t < span.count; ++t, ++at) {
        ASSERT_EQ(span.position(t), static_cast<int64_t>(at));
        for (size_t head = 0; head < kShape.kv_heads; ++head) {
          float k[8], v[8];
          decode_kv_row(span.k_format, span.k_row(t, head), k, 8);
          decode_kv_row(span.v_format, span.v_row(t, head), v, 8);
          for (size_t d = 0; d < 8; ++d) {
            ASSERT_EQ(k[d], mark(tokens[at], layer, head * 8 + d, false)) << "token " << at;
            ASSERT_EQ(v[d], mark(tokens[at], layer, head * 8 + d, true)) << "token " << at;
          }
        }
      }
    }
    ASSERT_EQ(at, tokens.size());
  }
}

/// A small cache whose tokens become cold, in formats that hold every mark exactly.
CachePlan small_plan(std::string_view layout) {
  return {.layout = std::string(layout),
          .shape = kShape,
          .sequences = 4,
          .context = layout_named(layout).truncates_anywhere ? size_t{40} : size_t{600},
          .step_tokens = 12,
          .options = own_options(layout, {{"hot_tokens", 20},
                                          {"sink_tokens", kSinks},
                                          {"cold_k_format", Format::f16},
                                          {"cold_v_format", Format::f32}})};
}

class EveryLayout : public testing::TestWithParam<std::string_view> {};

// Random operations against a trivial model of a cache: a map from sequences to their tokens.
TEST_P(EveryLayout, BehavesLikeAListOfTokens) {
  const CachePlan plan = small_plan(GetParam());
  const auto cache = make_cache(plan);
  std::map<SequenceId, std::vector<int>> model;
  std::mt19937 random = fresh_random();
  int next = 0;
  for (size_t operation = 0; operation < sized(5000); ++operation) {
    const auto some = [&] { return std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size())); };
    switch (random() % 7) {
      case 0: {
        const auto created = cache->create();
        ASSERT_EQ(created.has_value(), model.size() < plan.sequences);
        if (created) {
          ASSERT_TRUE(model.emplace(*created, std::vector<int>()).second) << "an id in use";
        }
        break;
      }
      case 1: {
        if (model.empty()) break;
        const auto from = some();
        const auto fork = cache->fork(from->first);
        ASSERT_EQ(fork.has_value(), model.size() < plan.sequences);
        if (fork) {
          ASSERT_TRUE(model.emplace(*fork, from->second).second);
        }
        break;
      }
      case 2: {
        if (model.empty() || random() % 4) break;
        const auto gone = some();
        cache->free(gone->first);
        model.erase(gone);
        break;
      }
      case 3: {
        if (model.empty() || random() % 2) break;
        auto& [sequence, tokens] = *some();
        const size_t length = tokens.size() - random() % (std::min<size_t>(tokens.size(), 40) + 1);
        const size_t left = cache->truncate(sequence, length);
        ASSERT_EQ(left, cache->length(sequence));
        if (!layout_of(plan).truncates_anywhere) {
          ASSERT_TRUE(left == length || left <= kSinks);
        } else {
          ASSERT_EQ(left, length);
        }
        tokens.resize(left);
        break;
      }
      case 4: {  // out of the cache and back in, among others
        if (model.empty()) break;
        const auto gone = some();
        const std::vector<int> tokens = gone->second;
        const SwappedContext swapped = swap_out(*cache, gone->first);
        cache->free(gone->first);
        model.erase(gone);
        const SequenceId back = cache->create().value();
        ASSERT_TRUE(swap_in(*cache, back, swapped));
        ASSERT_TRUE(model.emplace(back, tokens).second);
        break;
      }
      default: {
        if (model.empty()) break;
        auto& [sequence, tokens] = *some();
        const size_t n = random() % 12;
        const bool fits = tokens.size() + n <= plan.context;
        ASSERT_EQ(cache->append(sequence, n), fits);
        for (size_t i = 0; fits && i < n; ++i) {
          tokens.push_back(next++);
          store_token(*cache, sequence, tokens.size() - 1, tokens.back());
        }
        ASSERT_EQ(cache->length(sequence), tokens.size()) << "full changes nothing";
      }
    }
    if (operation % 20 == 0) {
      for (const auto& [sequence, tokens] : model) expect_tokens(*cache, sequence, tokens);
    }
  }
}

TEST_P(EveryLayout, ReadsNothingOfAFreedSequence) {
  const auto cache = make_cache({.layout = std::string(GetParam()), .shape = kShape, .sequences = 1, .context = 8});
  const SequenceId first = cache->create().value();
  ASSERT_TRUE(cache->append(first, 8));
  EXPECT_FALSE(cache->append(first, 1));
  EXPECT_FALSE(cache->create().has_value());
  cache->free(first);
  const SequenceId second = cache->create().value();
  EXPECT_EQ(cache->length(second), 0u);
  expect_tokens(*cache, second, {});
}

INSTANTIATE_TEST_SUITE_P(Layouts, EveryLayout, testing::ValuesIn(cache_layouts()),
                         [](const auto& layout) { return std::string(layout.param); });

// What a query reads cold is decided by its own position: [sinks, the block that holds the last 20 tokens).
TEST(Mixed, TheBoundaryIsAFunctionOfTheQuery) {
  const CachePlan plan = small_plan("mixed");
  const auto cache = make_cache(plan);
  const SequenceId sequence = cache->create().value();
  std::mt19937 random = fresh_random();
  std::vector<int> tokens;
  while (tokens.size() < plan.context) {
    const size_t first = tokens.size(), n = std::min<size_t>(1 + random() % 12, plan.context - first);
    ASSERT_TRUE(cache->append(sequence, n));
    for (size_t i = 0; i < n; ++i) {
      tokens.push_back(static_cast<int>(tokens.size()));
      store_token(*cache, sequence, first + i, tokens.back());
    }
    std::vector<TokenSpan> spans;
    cache->view(sequence, spans);
    ASSERT_LE(spans.size(), spans_of(plan));
    for (size_t query = first; query < tokens.size(); ++query) {
      const size_t hot = query + 1 < 20 ? 3 : std::max<size_t>(3, (query + 1 - 20) / 128 * 128);
      size_t at = 0;
      for (const TokenSpan& span : spans) {
        if (!span.seen_from(static_cast<int64_t>(query))) continue;
        for (size_t t = 0; t < span.count; ++t, ++at) {
          ASSERT_EQ(span.position(t), static_cast<int64_t>(at));
          const bool is_cold = at >= 3 && at < hot;
          ASSERT_EQ(span.k_format, is_cold ? Format::f16 : Format::f32) << "token " << at << " seen from " << query;
          ASSERT_EQ(span.v_format, is_cold ? Format::f32 : Format::f16);
        }
      }
      ASSERT_EQ(at, tokens.size());
    }
    expect_tokens(*cache, sequence, tokens);
  }
}

// At 32,768 tokens with q4_0 cold and 256 hot, 0.31 of the bytes of all in f16: q4_0 takes 18 bytes where f16 takes 64,
// a share of 0.281; what a query reads hot adds at most 0.009, what a step of 512 keeps in the ring 0.02.
TEST(Mixed, TakesAThirdOfTheBytes) {
  const CacheShape shape{.layers = 2, .kv_heads = 2, .head_dim = 64};
  const CachePlan mixed{.layout = "mixed", .shape = shape, .context = 32768, .step_tokens = 512};
  const CachePlan plain{.layout = "contiguous", .shape = shape, .context = 32768};
  EXPECT_LE(static_cast<double>(bytes_of(mixed)), 0.31 * static_cast<double>(bytes_of(plain)));
  EXPECT_LE(static_cast<double>(bytes_read(mixed, 32768)), 0.295 * static_cast<double>(bytes_read(plain, 32768)));
}

TEST(Clamping, IsCountedInEveryLayoutAndSaidOnce) {
  static bool said_before = false;  // where the test is repeated: once a process
  const LogWatch log;
  for (const std::string_view layout : cache_layouts()) {
    CachePlan plan = small_plan(layout);
    // No sinks, so that a mixed cache encodes the first tokens twice.
    plan.options = own_options(
        layout,
        {{"sink_tokens", 0}, {"hot_tokens", 20}, {"cold_k_format", Format::f16}, {"cold_v_format", Format::q4_0}});
    const auto cache = make_cache(plan);
    const SequenceId sequence = cache->create().value();
    ASSERT_TRUE(cache->append(sequence, 2));
    std::vector<float> k(kRow, 1e6f), v(kRow, 1.f);
    v[3] = 7e4f, v[9] = -1e6f;  // beyond f16, and within q4_0; beyond both
    for (const size_t position : {0, 1}) {
      const Slot slot = cache->slot(sequence, position);
      for (size_t layer = 0; layer < kShape.layers; ++layer) cache->store(layer, {&slot, 1}, k.data(), v.data());
    }
    // Two tokens, two layers. V in f16: two values, K in f32: none. Cold K in f16: all, V in q4_0: one.
    EXPECT_EQ(cache->clamped_values(), 2u * 2 * (layout == "mixed" ? 2 + kRow + 1 : 2)) << layout;
  }
  const std::string text = log.text();
  const auto lines = std::count(text.begin(), text.end(), '\n');
  EXPECT_EQ(lines, said_before ? 0 : 1) << text;
  EXPECT_EQ(text.find("clamped") != std::string::npos, !said_before) << text;
  said_before = true;
}

TEST(CachePlan, RotatesWhereItHelps) {
  CachePlan plan{.layout = "contiguous", .shape = {.layers = 1, .kv_heads = 1, .head_dim = 64}, .context = 8};
  EXPECT_FALSE(rotation_of(plan).k);
  plan.shape.k_format = Format::q4_0;
  EXPECT_TRUE(rotation_of(plan).k);
  EXPECT_FALSE(rotation_of(plan).v);
  plan.shape.head_dim = 80;
  EXPECT_FALSE(rotation_of(plan).k);
  plan.rotate = true;
  EXPECT_THROW(make_cache(plan), Error);
}

TEST(CachePlan, ContiguousBytesAreKAndVOfEveryToken) {
  // 2 layers · 4 sequences · 3 heads · 40 tokens · 8 channels: 7,680 numbers, of 4 bytes (K) and 2 (V).
  EXPECT_EQ(bytes_of({.layout = "contiguous", .shape = kShape, .sequences = 4, .context = 40}), 7680u * 6);
}

TEST(CachePlan, PagedBytesAreThoseOfWholePagesAndTheirBooks) {
  // 40 tokens are 5 pages of 8, or 2 of 32; a pool of 100 tokens is 4 of 32.
  const auto kv_bytes = [](const CachePlan& plan, size_t pages) {
    return bytes_of(plan) - PageBook::bytes_for(pages, unit_of(plan), plan.sequences, plan.context);
  };
  CachePlan plan{.layout = "paged", .shape = kShape, .sequences = 4, .context = 40, .options = {{"page_tokens", 8}}};
  EXPECT_EQ(kv_bytes(plan, 20), 7680u * 6);
  EXPECT_EQ(spans_of(plan), 5u);
  plan.options.set("page_tokens", 32);
  EXPECT_EQ(kv_bytes(plan, 8), 7680u / 40 * 64 * 6);
  set_pool(plan, 100);
  EXPECT_EQ(kv_bytes(plan, 4), 7680u / 160 * 128 * 6);
  EXPECT_EQ(spans_of(plan), 2u);
  plan.options.set("page_tokens", 24);
  EXPECT_THROW(bytes_of(plan), Error);
}

TEST(Paged, PromptsThatBeginAlikeShareWhatWasComputed) {
  const auto cache =
      make_cache({.layout = "paged", .shape = kShape, .sequences = 3, .context = 64, .options = {{"page_tokens", 8}}});
  std::vector<int> tokens(21);
  for (int i = 0; i < 21; ++i) tokens[static_cast<size_t>(i)] = i;
  const std::vector<int32_t> ids(tokens.begin(), tokens.end());
  const SequenceId first = cache->create().value();
  ASSERT_TRUE(cache->append(first, 21));
  for (size_t i = 0; i < 21; ++i) store_token(*cache, first, i, tokens[i]);
  cache->remember(first, ids);
  cache->free(first);
  const SequenceId second = cache->create().value();
  EXPECT_EQ(cache->adopt(second, std::span(ids).first(20)), 20u);
  tokens.resize(20);
  expect_tokens(*cache, second, tokens);
}

/// What is said of a plan that cannot be.
std::string refusal(const CachePlan& plan) {
  try {
    (void)bytes_of(plan);
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

TEST(LayoutOptions, AreRefusedByNameWhereALayoutHasNone) {
  const CachePlan plan{.layout = "paged", .shape = kShape, .context = 40, .options = {{"hot_tokens", 20}}};
  EXPECT_EQ(refusal(plan),
            "a paged cache has no option hot_tokens (it has page_tokens, pool_tokens); leave it out, or choose mixed");
  CachePlan mixed{.layout = "mixed", .shape = kShape, .context = 40, .options = {{"hot_tokens", 0}}};
  EXPECT_EQ(refusal(mixed), "hot_tokens of a mixed cache is 0; give a whole number from 1 to 1099511627776");
  mixed.options = {{"cold_v_format", Format::q6_k}};
  EXPECT_EQ(refusal(mixed), "cold_v_format of a mixed cache is q6_k; give f32, f16, bf16, q8_0, q4_0 or fp8_e4m3");
  mixed.options = {};
  EXPECT_EQ(refusal(mixed), "");
}

TEST(LayoutOptions, AreReadFromTextsDescribedAndCompared) {
  CachePlan plan{.layout = "mixed", .shape = {.head_dim = 64}, .context = 512};
  set_option(plan, "hot_tokens", "30");
  set_option(plan, "cold_k_format", "q8_0");
  EXPECT_EQ(describe(plan), "mixed, 512 tokens, K f16 V f16, hot 30, sinks 4, cold K q8_0, cold V q4_0, V rotated");
  EXPECT_EQ(row_options(plan), "hot_tokens=30 sink_tokens=4 cold_k_format=q8_0 cold_v_format=q4_0");
  EXPECT_EQ(row_options(plan, /*numbers_only=*/true), "hot_tokens=30 sink_tokens=4");
  for (const char* wrong : {"", "3 ", "x", "-1", "0", "1099511627777", "0x10"}) {
    EXPECT_THROW(set_option(plan, "hot_tokens", wrong), Error) << wrong;
  }
  EXPECT_THROW(set_option(plan, "cold_k_format", "q6_k"), Error);
  EXPECT_THROW(set_option(plan, "page_tokens", "8"), Error);
  plan.layout = "paged";
  plan.options = {};
  EXPECT_EQ(row_options(plan), "") << "pages change no bit";
  EXPECT_EQ(all_options(plan), "page_tokens=32 pool_tokens=0");
}

TEST(CachePlan, RefusesWhatCannotBe) {
  EXPECT_THROW(bytes_of({.layout = "round", .shape = kShape, .context = 4}), Error);
  CacheShape shape = kShape;
  shape.k_format = Format::q6_k;
  EXPECT_THROW(bytes_of({.shape = shape, .context = 4}), Error);
  EXPECT_THROW(bytes_of({.shape = kShape, .sequences = 1u << 20, .context = size_t{1} << 50}), Error);
#if !defined(CONTEXTURE_SANITIZES_ADDRESSES)  // which ends the program where operator new would throw
  EXPECT_THROW(make_cache({.shape = kShape, .sequences = 1, .context = size_t{1} << 50}), Error);
#endif
}

}  // namespace
}  // namespace contexture
