#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "files/model_file.h"
#include "model/driver.h"
#include "model/oracle.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

struct Case {
  std::string name;
  RandomModel model;
  bool numbers_only = false;  // another case has the same kinds of tensors
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::vector<Case> cases() {
  return {
      {"llama", {.dim = 48, .heads = 6, .kv_heads = 3, .head_dim = 24, .ffn_dim = 100, .epsilon = 1e-2f}},
      {"mistral", {.dim = 40, .heads = 5, .kv_heads = 1, .head_dim = 8, .window = 37}, true},
      {"window_of_one", {.window = 1}, true},
      {"window_over_tiles", {.window = 130}, true},
      {"mixtral",
       {.dim = 72, .heads = 6, .kv_heads = 3, .head_dim = 16, .ffn_dim = 40, .experts = 5, .experts_used = 2}},
      {"mixtral_separate", {.ffn_dim = 56, .experts = 3, .experts_used = 2, .separate_experts = true}},
      {"qwen2", {.family = "qwen2", .dim = 56, .heads = 7, .kv_heads = 1, .ffn_dim = 101, .vocabulary = 51}},
      {"qwen3",
       {.family = "qwen3", .dim = 40, .heads = 6, .kv_heads = 2, .head_dim = 24, .ffn_dim = 70, .tied = false}},
      {"qwen3moe",
       {.family = "qwen3moe",
        .heads = 2,
        .kv_heads = 1,
        .head_dim = 40,
        .ffn_dim = 24,
        .experts = 9,
        .experts_used = 4}},
      {"smollm3", {.family = "smollm3", .layers = 5, .heads = 8, .kv_heads = 2}},
      {"granite",
       {.family = "granite", .dim = 48, .heads = 6, .kv_heads = 3, .attention_scale = 0.03f, .score_gain = 2}},
      {"granite_without_scale_of_scores", {.family = "granite"}, true},
      {"phi3", {.family = "phi3", .kv_heads = 4, .tied = false, .window = 100}},
      {"phi3_partial", {.family = "phi3", .dim = 96, .heads = 6, .kv_heads = 3, .rope_dim = 12}, true},
      {"phi3_long", {.family = "phi3", .rope_scaling = "longrope"}},
      {"phi3_short", {.family = "phi3", .rope_scaling = "longrope", .rope_dim = 8, .original_context = 8192}, true},
      {"gemma", {.family = "gemma", .dim = 48, .heads = 2, .kv_heads = 1, .head_dim = 256, .ffn_dim = 90}},
      {"gemma2",
       {.family = "gemma2",
        .layers = 3,
        .heads = 6,
        .kv_heads = 3,
        .head_dim = 32,
        .window = 33,
        .score_gain = 2,
        .score_cap = 5,
        .logit_cap = 2}},
      {"gemma2_scale",
       {.family = "gemma2",
        .heads = 2,
        .kv_heads = 1,
        .head_dim = 40,
        .window = 60,
        .attention_scale = 0.4f,
        .score_cap = 3},
       true},
      {"gemma2_27b",
       {.family = "gemma2",
        .dim = 24,
        .layers = 46,
        .heads = 3,
        .kv_heads = 1,
        .head_dim = 16,
        .ffn_dim = 24,
        .window = 50,
        .score_cap = 50},
       true},
      {"gemma3",
       {.family = "gemma3", .layers = 7, .kv_heads = 1, .head_dim = 32, .rope_scaling = "linear", .window = 29}},
      {"gemma3_own_keys",
       {.family = "gemma3",
        .dim = 40,
        .layers = 4,
        .heads = 6,
        .kv_heads = 3,
        .head_dim = 24,
        .rope_base_swa = 500,
        .window = 64,
        .window_pattern = 2},
       true},
      {"gemma3_27b",
       {.family = "gemma3",
        .dim = 24,
        .layers = 62,
        .heads = 3,
        .kv_heads = 1,
        .head_dim = 16,
        .ffn_dim = 24,
        .window = 50},
       true},
  };
}

std::vector<Case> cases_of_tensors() {
  std::vector<Case> all = cases();
  std::erase_if(all, [](const Case& c) { return c.numbers_only; });
  return all;
}

class Families : public testing::TestWithParam<Case> {};

struct Drawn {
  std::vector<int32_t> tokens;
  std::vector<double> expected;
};

/// Fresh tokens and what the oracle says of them. A router whose choice hangs on the last bits may rightly choose
/// otherwise in float32: such tokens, one draw in some hundred, are drawn again.
Drawn draw(const ModelFile& file, size_t count, size_t vocabulary) {
  for (;;) {
    Drawn drawn;
    drawn.tokens = random_tokens(count, vocabulary);
    double closest_choice;
    drawn.expected = oracle_logits(file, drawn.tokens, &closest_choice);
    if (closest_choice > 1e-5) return drawn;
  }
}

TEST_P(Families, AgreeWithTheFloat64Oracle) {
  const RandomModel& shape = GetParam().model;
  const TemporaryFile file;
  write_random_model(shape, file.path());
  const ModelFile opened = open_model(file.path());
  const Transformer model(opened);
  // More than two of attention's tiles of 128 tokens, so that windows begin in each place of one. Models of many layers
  // are here for their number of layers, and see fewer.
  const auto [tokens, expected] = draw(opened, shape.layers > 8 ? 60 : kSanitized ? 140 : 270, shape.vocabulary);
  const std::vector<float> logits = Driver(model, 1, tokens.size(), 2).in_chunks(tokens, tokens.size());
  ASSERT_EQ(logits.size(), expected.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    worst = std::max(worst, std::fabs(logits[i] - expected[i]));
    largest = std::max(largest, std::fabs(expected[i]));
  }
  // Each layer adds some thousand roundings of 2^-24 to those that came before, and widens them.
  EXPECT_LT(worst / largest, 5e-6 * static_cast<double>(shape.layers));

  for (const size_t chunk : {1, 3, 7, 150}) {
    ASSERT_EQ(logits, Driver(model, 1, tokens.size(), 1).in_chunks(tokens, chunk)) << "chunks of " << chunk;
  }
}

class QuantisedFamilies : public testing::TestWithParam<Case> {};

TEST_P(QuantisedFamilies, AgreeWithTheOracleOfTheSameRounding) {
  if (kThreadSanitized) GTEST_SKIP() << "shared out over threads as floats are";
  for (const Format format : {Format::q8_0, Format::q4_0}) {
    RandomModel shape = GetParam().model;
    shape.format = format;
    shape.layers = 2;  // the fewer, the fewer quants round the other way
    shape.dim = shape.ffn_dim = 256;
    shape.heads = 4;
    shape.kv_heads = 2;
    shape.head_dim = 64;
    const TemporaryFile file;
    write_random_model(shape, file.path());
    const ModelFile opened = open_model(file.path());
    const Transformer model(opened);
    // As in forward_test.cc: now and then a quant rounds the other way, and all that follows in its sequence differs.
    std::vector<double> relative_errors;
    for (int sequence = 0; sequence < 21; ++sequence) {
      const auto [tokens, expected] = draw(opened, 3, shape.vocabulary);
      const std::vector<float> logits = Driver(model, 1, tokens.size(), 2).in_chunks(tokens, 2);
      relative_errors.push_back(relative_error(logits, expected));
    }
    std::sort(relative_errors.begin(), relative_errors.end());
    EXPECT_LT(relative_errors[12], 2e-5) << name(format) << ": the same sums in float32 and float64";
    EXPECT_LT(relative_errors.back(), 0.2) << name(format) << ": quants that rounded the other way";
  }
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, Families, testing::ValuesIn(cases()), name_of);
INSTANTIATE_TEST_SUITE_P(All, QuantisedFamilies, testing::ValuesIn(cases_of_tensors()), name_of);

}  // namespace
}  // namespace contexture
