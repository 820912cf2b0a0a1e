#include <fmt/format.h>
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

std::vector<RandomModel> float_models() {
  return {
      {.seed = 1},
      {.dim = 48,
       .layers = 3,
       .heads = 6,
       .kv_heads = 2,
       .head_dim = 16,
       .ffn_dim = 100,
       .vocabulary = 33,
       .tied = false,
       .seed = 2},
      {.dim = 40, .layers = 1, .heads = 5, .kv_heads = 1, .head_dim = 8, .ffn_dim = 17, .vocabulary = 7, .seed = 3},
      {.dim = 72, .heads = 9, .kv_heads = 3, .head_dim = 24, .format = Format::f16, .rope_divisors = true, .seed = 4},
      {.dim = 64, .heads = 2, .kv_heads = 2, .head_dim = 80, .format = Format::bf16, .rope_style = "halves", .seed = 5},
      {.rope_scaling = "llama3", .seed = 6},
      {.rope_style = "halves", .rope_scaling = "linear", .rope_dim = 8, .seed = 7},
      {.dim = 256, .layers = 1, .heads = 8, .kv_heads = 1, .head_dim = 256, .ffn_dim = 300, .seed = 8},
  };
}

TEST(Forward, FloatModelsAgreeWithTheFloat64Oracle) {
  for (const RandomModel& shape : float_models()) {
    const TemporaryFile file;
    write_random_model(shape, file.path());
    const ModelFile opened = open_model(file.path());
    const Transformer model(opened);
    const std::vector<int32_t> tokens = random_tokens(140, shape.vocabulary);
    const std::vector<float> logits = Driver(model, 1, tokens.size(), 2).in_chunks(tokens, 50);
    const std::vector<double> expected = oracle_logits(opened, tokens);
    ASSERT_EQ(logits.size(), expected.size());
    double worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) worst = std::max(worst, std::fabs(logits[i] - expected[i]));
    // Logits of about 1, some thousand roundings of 2^-24 deep.
    EXPECT_LT(worst, 1e-4) << "seed " << shape.seed;
  }
}

TEST(Forward, QuantisedModelsAgreeWithTheOracleOfTheSameRounding) {
  if (kThreadSanitized) GTEST_SKIP() << "shared out over threads as floats are";
  for (const FormatInfo& f : weight_formats()) {
    if (f.block == 1) continue;
    const RandomModel shape{
        .dim = 256, .heads = 4, .kv_heads = 2, .head_dim = 64, .ffn_dim = 512, .vocabulary = 61, .format = f.format};
    const TemporaryFile file;
    write_random_model(shape, file.path());
    const ModelFile opened = open_model(file.path());
    const Transformer model(opened);
    // An activation that lies on the border of two quants may round either way in float32 and in float64: one step of
    // 1/127 in one of 256 terms, and all that follows in its sequence differs. In one of some 60 tokens that happens:
    // of 21 sequences of three tokens most know nothing of it.
    std::vector<double> relative_errors;
    for (int sequence = 0; sequence < 21; ++sequence) {
      const std::vector<int32_t> tokens = random_tokens(3, shape.vocabulary);
      const std::vector<float> logits = Driver(model, 1, tokens.size(), 2).in_chunks(tokens, 2);
      const std::vector<double> expected = oracle_logits(opened, tokens);
      relative_errors.push_back(relative_error(logits, expected));
    }
    std::sort(relative_errors.begin(), relative_errors.end());
    EXPECT_LT(relative_errors[12], 2e-5) << f.name << ": the same sums in float32 and float64";
    EXPECT_LT(relative_errors.back(), 0.2) << f.name << ": quants that rounded the other way";
  }
}

TEST(Forward, GivesTheSameBitsForAnyThreadsChunksAndCompany) {
  for (const Format format : {Format::f32, Format::q4_k, Format::f16, Format::q4_0, Format::q8_0, Format::q6_k}) {
    if (kSanitized && format == Format::f16) break;  // how their products are shared out is one code; two are enough
    const RandomModel shape{
        .dim = 256, .heads = 8, .kv_heads = 4, .head_dim = 32, .ffn_dim = 256, .vocabulary = 50, .format = format};
    const TemporaryFile file;
    write_random_model(shape, file.path());
    const ModelFile opened = open_model(file.path());
    const Transformer model(opened);
    const std::vector<int32_t> tokens = random_tokens(kSanitized ? 140 : 530, shape.vocabulary);
    const std::vector<float> reference = Driver(model, 1, tokens.size(), 1, Format::f16).in_chunks(tokens, 512);
    for (const size_t chunk : {1, 7, 32, 512}) {
      for (const int threads : {1, 2, 5}) {
        if (chunk == 1 && threads == 5) continue;
        ASSERT_EQ(reference, Driver(model, 1, tokens.size(), threads, Format::f16).in_chunks(tokens, chunk))
            << name(format) << ", chunks of " << chunk << ", " << threads << " threads";
      }
    }
    for (const size_t page : {8, 32, 256}) {
      ASSERT_EQ(reference, Driver(model, 1, tokens.size(), 2, Format::f16, "paged", page).in_chunks(tokens, 7 + page))
          << name(format) << ", pages of " << page;
    }
    // Beside two other sequences, in uneven pieces.
    Driver driver(model, 3, tokens.size(), 2, Format::f16, "paged");
    const SequenceId other = driver.create(), mine = driver.create(), third = driver.create();
    std::vector<float> in_company;
    const size_t row = shape.vocabulary;
    for (size_t at = 0, n = 1; at < tokens.size(); at += n, n = n % 9 + 1) {
      n = std::min(n, tokens.size() - at);
      const std::vector<int32_t> piece(tokens.begin() + static_cast<ptrdiff_t>(at),
                                       tokens.begin() + static_cast<ptrdiff_t>(at + n));
      const size_t before = at % 3;
      std::vector<Driver::Chunk> chunks;
      if (before) chunks.push_back({other, random_tokens(before, shape.vocabulary)});
      chunks.push_back({mine, piece});
      chunks.push_back({third, random_tokens(1, shape.vocabulary)});
      const std::vector<float> logits = driver.step(chunks);
      in_company.insert(in_company.end(), logits.begin() + static_cast<ptrdiff_t>(before * row),
                        logits.begin() + static_cast<ptrdiff_t>((before + n) * row));
    }
    ASSERT_EQ(reference, in_company) << name(format) << " in company";
  }
}

TEST(Forward, RotatedCachesAgreeWithTheOracle) {
  const RandomModel shape{.heads = 4, .kv_heads = 2, .head_dim = 32, .seed = 9};
  const TemporaryFile file;
  write_random_model(shape, file.path());
  const ModelFile opened = open_model(file.path());
  const Transformer model(opened);
  const std::vector<int32_t> tokens = random_tokens(140, shape.vocabulary);
  const std::vector<double> expected = oracle_logits(opened, tokens);
  for (const std::string_view layout : cache_layouts()) {
    CachePlan plan{.layout = std::string(layout),
                   .shape = model.cache_shape(Format::f32, Format::f32),
                   .context = tokens.size(),
                   .options = own_options(
                       layout, {{"hot_tokens", 5}, {"cold_k_format", Format::f32}, {"cold_v_format", Format::f32}}),
                   .rotate = true};
    const std::vector<float> rotated = Driver(model, plan, 2).in_chunks(tokens, 50);
    // As above; rotating and rotating back are some twenty roundings more.
    EXPECT_LT(relative_error(rotated, expected), 1e-4) << layout;
    plan.rotate = false;
    EXPECT_NE(rotated, Driver(model, plan, 2).in_chunks(tokens, 50)) << layout << ": nothing was rotated";
  }
}

// A query's view of a mixed cache is a function of its position: nothing else may change a bit.
TEST(Forward, AMixedCacheGivesTheSameBitsForAnyThreadsAndChunks) {
  const RandomModel shape{.dim = 128, .heads = 4, .kv_heads = 2, .head_dim = 40, .vocabulary = 50, .seed = 10};
  const TemporaryFile file;
  write_random_model(shape, file.path());
  const ModelFile opened = open_model(file.path());
  const Transformer model(opened);
  const std::vector<int32_t> tokens = random_tokens(700, shape.vocabulary);
  CachePlan plan{.layout = "mixed",
                 .shape = model.cache_shape(Format::f16, Format::bf16),
                 .context = tokens.size(),
                 .options = {{"hot_tokens", 70}, {"cold_k_format", Format::q4_0}, {"cold_v_format", Format::q8_0}}};
  const std::vector<float> reference = Driver(model, plan, 1).in_chunks(tokens, 1);
  for (const size_t chunk : {7, 32, 200, 512, 700}) {
    plan.step_tokens = chunk;
    ASSERT_EQ(reference, Driver(model, plan, chunk % 2 ? 1 : 5).in_chunks(tokens, chunk)) << "chunks of " << chunk;
  }
}

TEST(Forward, OnlyWantedRowsGetLogits) {
  const RandomModel shape;
  const TemporaryFile file;
  write_random_model(shape, file.path());
  const ModelFile opened = open_model(file.path());
  const Transformer model(opened);
  const std::vector<int32_t> tokens = random_tokens(5, shape.vocabulary);
  const std::vector<float> all = Driver(model, 1, 5, 1).in_chunks(tokens, 5);

  const auto cache = make_cache({.shape = model.cache_shape(Format::f32, Format::f32), .context = 5});
  Workspace workspace(model.config(), {.tokens = 5, .logit_rows = 2});
  ThreadPool pool(1);
  const std::vector<SequenceId> sequences(5, cache->create().value());
  ASSERT_TRUE(cache->append(sequences[0], 5));
  const std::vector<int64_t> positions = {0, 1, 2, 3, 4};
  const std::vector<uint8_t> wants = {0, 1, 0, 0, 1};
  const auto logits =
      model.forward({.tokens = tokens, .positions = positions, .sequences = sequences, .wants_logits = wants}, *cache,
                    workspace, pool);
  ASSERT_EQ(logits.size(), 2 * shape.vocabulary);
  for (size_t i = 0; i < shape.vocabulary; ++i) {
    EXPECT_EQ(logits[i], all[shape.vocabulary + i]);
    EXPECT_EQ(logits[shape.vocabulary + i], all[4 * shape.vocabulary + i]);
  }
}

}  // namespace
}  // namespace contexture
