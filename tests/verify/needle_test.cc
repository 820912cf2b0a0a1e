#include "verify/needle.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "backends/ring/local_communicator.h"
#include "backends/ring/ring_executor.h"
#include "base/error.h"
#include "cache/layout.h"
#include "files/gguf_writer.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using testing::HasSubstr;

const char kModel[] = "models/needle.gguf";
constexpr size_t kNeedles = 50;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

RunOptions options_of(std::string_view layout, Format k, Format v, size_t page_tokens = 32) {
  RunOptions options;
  options.cache.layout = layout;
  options.cache.shape.k_format = k;
  options.cache.shape.v_format = v;
  options.cache.options = own_options(layout, {{"page_tokens", page_tokens}});
  options.threads = 2;
  return options;
}

/// The positions of the needles that are not found.
std::vector<size_t> lost(NeedleAsker& asker, const NeedleContext& context) {
  std::vector<size_t> positions;
  for (const Needle& needle : context.needles) {
    const NeedleAnswer answer = asker.ask(needle).value();
    EXPECT_EQ(answer.is_right(), answer.answer == needle.value);
    if (!answer.is_right()) positions.push_back(needle.position);
  }
  return positions;
}

TEST(HideNeedles, OneInEachPartAndNoneElsewhere) {
  const NeedleTokens tokens = needle_tokens(open_model(kModel));
  const std::set<TokenId> keys(tokens.keys.begin(), tokens.keys.end());
  const std::set<TokenId> values(tokens.values.begin(), tokens.values.end());
  for (const size_t depth : {100u, 101u, 128u, 149u, 4096u, 32768u}) {
    const NeedleContext context = hide_needles(tokens, depth, kNeedles);
    ASSERT_EQ(context.tokens.size(), depth);
    ASSERT_EQ(context.needles.size(), kNeedles);
    EXPECT_EQ(context.needles.front().position, 0u);
    EXPECT_EQ(context.needles.back().position, depth - 2);
    std::set<TokenId> hidden_keys, hidden_values;
    for (size_t i = 0; i < kNeedles; ++i) {
      const Needle& needle = context.needles[i];
      EXPECT_EQ(context.tokens[needle.position], needle.key);
      EXPECT_EQ(context.tokens[needle.position + 1], needle.value);
      EXPECT_LT(needle.position, (i + 1) * (depth / kNeedles + 1));
      if (i > 0) {
        EXPECT_GE(needle.position, context.needles[i - 1].position + 2);
      }
      hidden_keys.insert(needle.key);
      hidden_values.insert(needle.value);
    }
    EXPECT_EQ(hidden_keys.size(), kNeedles);
    EXPECT_EQ(hidden_values.size(), kNeedles);
    const auto of = [&](const std::set<TokenId>& role) {
      return std::count_if(context.tokens.begin(), context.tokens.end(), [&](TokenId t) { return role.contains(t); });
    };
    EXPECT_EQ(of(keys), static_cast<ptrdiff_t>(kNeedles));
    EXPECT_EQ(of(values), static_cast<ptrdiff_t>(kNeedles));
    EXPECT_EQ(context.tokens, hide_needles(tokens, depth, kNeedles).tokens);
  }
}

TEST(HideNeedles, BeforeAcrossAndBehindBorders) {
  const NeedleTokens tokens = needle_tokens(open_model(kModel));
  for (const size_t depth : {512u, 2048u, 4096u, 32768u}) {
    const NeedleContext context = hide_needles(tokens, depth, kNeedles);
    for (const size_t border : {8u, 32u, 128u, 256u}) {
      if (border * 4 > depth) continue;  // there are too few of them
      // The key is so many tokens behind a border, going round: border - 2 is just before the next.
      for (const size_t behind : {size_t{0}, border - 1, border - 2}) {
        EXPECT_TRUE(std::any_of(context.needles.begin(), context.needles.end(),
                                [&](const Needle& needle) { return needle.position % border == behind; }))
            << "depth " << depth << ": no key at " << behind << " of " << border;
      }
    }
  }
}

TEST(HideNeedles, RefusesWhatDoesNotFit) {
  const NeedleTokens tokens = needle_tokens(open_model(kModel));
  EXPECT_EQ(hide_needles(tokens, 100, 50).needles.size(), 50u);
  EXPECT_THAT(error_of([&] { hide_needles(tokens, 99, 50); }), HasSubstr("1 to 49"));
  EXPECT_EQ(hide_needles(tokens, 1000, tokens.keys.size()).needles.size(), tokens.keys.size());
  EXPECT_THAT(error_of([&] { hide_needles(tokens, 1000, tokens.keys.size() + 1); }), HasSubstr("1 to 260"));
  EXPECT_THAT(error_of([&] { hide_needles(tokens, 1000, 0); }), HasSubstr("1 to 260"));
  EXPECT_EQ(hide_needles(tokens, 2, 1).needles.front().position, 0u);
}

TEST(NeedleTokens, OtherModelsAreRefused) {
  const TemporaryFile other;
  write_random_model({}, other.path());
  EXPECT_THAT(error_of([&] { needle_tokens(open_model(other.path())); }), HasSubstr("is no needle model"));

  ModelFile file = open_model(kModel);
  const int64_t vocabulary = 894;
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{}, {-1}, {vocabulary}, {700, 700}, {500}}) {
    file.metadata.set_ints("needle.values", wrong);  // 500 is a key
    EXPECT_THAT(error_of([&] { needle_tokens(file); }), HasSubstr("needle.values")) << wrong.size();
  }
  file.metadata.set_ints("needle.values", {vocabulary - 1});
  EXPECT_EQ(needle_tokens(file).values, std::vector<TokenId>{vocabulary - 1});
}

struct NeedleCase {
  std::string_view name;
  CachePlan cache;
};

CachePlan plan_of(std::string_view layout, Format k, Format v, size_t page_tokens = 32) {
  return options_of(layout, k, v, page_tokens).cache;
}

CachePlan mixed(Format cold) {
  CachePlan plan = plan_of("mixed", Format::f16, Format::f16);
  plan.options = {{"cold_k_format", cold}, {"cold_v_format", cold}};
  return plan;
}

class AllNeedles : public testing::TestWithParam<NeedleCase> {};

TEST_P(AllNeedles, AreFound) {
  const ModelFile file = open_model(kModel);
  for (const size_t depth : {128u, 512u, 2048u, 4096u}) {
    RunOptions options{.cache = GetParam().cache};
    options.threads = 2;
    Runtime runtime(file, needle_options(options, depth));
    const NeedleContext context = hide_needles(needle_tokens(file), depth, kNeedles);
    NeedleAsker asker(runtime);
    ASSERT_TRUE(asker.read(context.tokens));
    EXPECT_EQ(lost(asker, context), std::vector<size_t>{}) << "depth " << depth;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Caches, AllNeedles,
    testing::Values(NeedleCase{"contiguous_f16", plan_of("contiguous", Format::f16, Format::f16)},
                    NeedleCase{"contiguous_f32_bf16", plan_of("contiguous", Format::f32, Format::bf16)},
                    NeedleCase{"pages_of_8", plan_of("paged", Format::f16, Format::f16, 8)},
                    NeedleCase{"pages_of_32", plan_of("paged", Format::f16, Format::f16, 32)},
                    NeedleCase{"pages_of_256", plan_of("paged", Format::f16, Format::f16, 256)},
                    NeedleCase{"paged_bf16_f32", plan_of("paged", Format::bf16, Format::f32, 64)},
                    NeedleCase{"paged_q8_0", plan_of("paged", Format::q8_0, Format::q8_0)},
                    NeedleCase{"paged_q4_0", plan_of("paged", Format::q4_0, Format::q4_0)},
                    NeedleCase{"mixed_f16", mixed(Format::f16)}, NeedleCase{"mixed_q4_0", mixed(Format::q4_0)}),
    [](const auto& info) { return std::string(info.param.name); });

/// The bytes of K or V of one token in one layer.
std::span<std::byte> row_of(Runtime& runtime, SequenceId sequence, size_t layer, size_t position, bool of_k) {
  std::vector<TokenSpan> spans;
  runtime.cache().view(sequence, spans);
  for (const TokenSpan& span : CacheView(spans, layer)) {
    const size_t first = static_cast<size_t>(span.first_position);
    if (position < first || position >= first + span.count) continue;
    const std::byte* row =
        of_k ? span.k + (position - first) * span.k_token_stride : span.v + (position - first) * span.v_token_stride;
    return {const_cast<std::byte*>(row), bytes_of(of_k ? span.k_format : span.v_format, 64)};
  }
  ADD_FAILURE() << "no span holds position " << position;
  return {};
}

/// Overwrites a token's row with that of the token before it, as a cache that confuses two slots would.
void confuse(Runtime& runtime, SequenceId sequence, size_t layer, size_t position, bool of_k) {
  const std::span<std::byte> from = row_of(runtime, sequence, layer, position - 1, of_k);
  std::copy(from.begin(), from.end(), row_of(runtime, sequence, layer, position, of_k).begin());
}

TEST(OneWrongToken, InTheSecondLayerLosesItsNeedleAndNoOther) {
  const ModelFile file = open_model(kModel);
  const size_t depth = 300;
  for (const std::string_view layout : {"contiguous", "paged"}) {
    Runtime runtime(file, needle_options(options_of(layout, Format::f16, Format::f16, 8), depth));
    const NeedleContext context = hide_needles(needle_tokens(file), depth, kNeedles);
    NeedleAsker asker(runtime);
    ASSERT_TRUE(asker.read(context.tokens));
    for (size_t i = 0; i < kNeedles; i += 7) {
      const Needle& needle = context.needles[i];
      for (const bool of_k : {true, false}) {
        const std::span<std::byte> row = row_of(runtime, asker.context(), 1, needle.position + 1, of_k);
        const std::vector<std::byte> right(row.begin(), row.end());
        confuse(runtime, asker.context(), 1, needle.position + 1, of_k);
        EXPECT_EQ(lost(asker, context), std::vector<size_t>{needle.position}) << layout << (of_k ? " K" : " V");
        std::copy(right.begin(), right.end(), row.begin());
      }
    }
    EXPECT_EQ(lost(asker, context), std::vector<size_t>{});
  }
}

TEST(OneWrongToken, InTheFirstLayerLosesItsNeedleAndNoOther) {
  const ModelFile file = open_model(kModel);
  const size_t depth = 300;
  const NeedleContext context = hide_needles(needle_tokens(file), depth, kNeedles);
  const std::span<const TokenId> tokens = context.tokens;
  for (size_t i = 1; i < kNeedles; i += 7) {
    for (const bool of_k : {true, false}) {
      const size_t position = context.needles[i].position;
      Runtime runtime(file, needle_options(options_of("paged", Format::f16, Format::f16, 8), depth));
      NeedleAsker asker(runtime);
      ASSERT_TRUE(asker.read(tokens.first(position + 1)));
      confuse(runtime, asker.context(), 0, position, of_k);
      ASSERT_TRUE(asker.read(tokens.subspan(position + 1)));
      EXPECT_EQ(lost(asker, context), std::vector<size_t>{position}) << (of_k ? "K" : "V");
    }
  }
}

TEST(NeedleAsker, StopsWhereItIsCancelled) {
  const ModelFile file = open_model(kModel);
  const NeedleContext context = hide_needles(needle_tokens(file), 2048, kNeedles);
  Runtime runtime(file, needle_options(options_of("paged", Format::f16, Format::f16), 2048));
  std::atomic<bool> cancelled{false};
  NeedleAsker asker(runtime, &cancelled);
  std::vector<size_t> done;
  EXPECT_FALSE(asker.read(context.tokens, [&](size_t tokens) {
    done.push_back(tokens);
    cancelled = tokens == 1024;
  }));
  EXPECT_EQ(done, (std::vector<size_t>{512, 1024}));
  EXPECT_FALSE(asker.ask(context.needles[0]).has_value());
}

std::string bytes_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(NeedleModel, IsWhatItsToolWrites) {
  if (std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) GTEST_SKIP() << "python3-numpy is not here";
  const TemporaryFile made;
  ASSERT_EQ(std::system(fmt::format("/usr/bin/python3 tools/needle_model/make.py {} >/dev/null", made.path()).c_str()),
            0);
  EXPECT_EQ(bytes_of_file(made.path()), bytes_of_file(kModel));
}

// A context over four ranks: needles whose key is one rank's and whose value the next one's are found, as all are.
TEST(Needles, AreFoundAcrossTheBordersOfRanks) {
  constexpr size_t depth = kSanitized ? 4096 : 32768;
  const ModelFile file = open_model(kModel);
  const NeedleTokens tokens = needle_tokens(file);
  NeedleContext context = hide_needles(tokens, depth, kNeedles);
  // Steps of 2,048 tokens have chunks of 256. Every second needle moves across a border within its part, if there is
  // one.
  for (size_t i = 1; i < kNeedles; i += 2) {
    const size_t begin = i * (depth / kNeedles) + std::min(i, depth % kNeedles), border = (begin / 256 + 1) * 256;
    if (border + 1 > begin + depth / kNeedles) continue;
    Needle& needle = context.needles[i];
    context.tokens[needle.position] = context.tokens[needle.position + 1] = tokens.fillers[0];
    needle.position = border - 1;
    context.tokens[border - 1] = needle.key;
    context.tokens[border] = needle.value;
  }
  RunOptions options = needle_options(options_of("paged", Format::f16, Format::f16), depth);
  options.threads = 1;
  options.ranks = 4;
  const MemoryPlan plan = plan_memory(file, options);
  const auto model = std::make_shared<const Transformer>(file);
  run_local_ranks(4, [&](Communicator& ranks) {
    RingExecutor executor(model, sizes_of(plan), plan.ring, ranks, {});
    if (ranks.rank() != 0) return executor.obey();
    NeedleAsker asker(executor);
    ASSERT_TRUE(asker.read(context.tokens));
    const Ownership& held = static_cast<const ShardedCache&>(executor.cache()).ownership(asker.context());
    size_t apart = 0;
    for (const Needle& needle : context.needles) {
      const int64_t key = static_cast<int64_t>(needle.position);
      apart += held.owner(key) != held.owner(key + 1);
    }
    EXPECT_GE(apart, depth == 4096 ? 4u : 15u);
    EXPECT_THAT(lost(asker, context), testing::IsEmpty());
  });
}

}  // namespace
}  // namespace contexture
