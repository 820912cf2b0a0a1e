// Float graphs against the engine's own forward pass: same weights, other code. Sums run in other orders, so a logit of
// a trained model may differ by rounding, about 1e-5; the promise is 1e-3.

#include <gtest/gtest.h>

#include <filesystem>

#include "../model/driver.h"
#include "backends/static_graph/compile.h"
#include "static_graph/static_driver.h"
#include "support/random_model.h"
#include "support/temporary_folder.h"

namespace contexture {
namespace {

struct Shape {
  std::string name;
  size_t context = 128, prefill = 32, shards = 1;
  bool per_head = false;
  GraphMode mode = GraphMode::hybrid;
};

/// The largest difference of a logit between the compiled model and the engine with an f32 cache: a prompt, then single
/// tokens.
double worst_difference(const std::string& model_path, const Shape& shape, size_t prompt, size_t decoded) {
  const ModelFile file = open_model(model_path);
  const TemporaryFolder temporary;
  const std::string folder = temporary.file("graphs");
  ThreadPool pool(2);
  compile_model(file,
                {.out = folder,
                 .shards = shape.shards,
                 .context = shape.context,
                 .prefill_length = shape.prefill,
                 .mode = shape.mode,
                 .per_head = shape.per_head,
                 .recipe = parse_recipe("float")},
                pool);
  StaticDriver graphs(folder);
  EXPECT_EQ(graphs.shards(), shape.shards);
  graphs.poison = std::byte{0xff};  // NaN: what a token does not fill must not matter
  const Transformer model(file);
  Driver engine(model, 1, shape.context, 2);
  engine.rotation = model.rotation_of(shape.context);
  const std::vector<int32_t> tokens = random_tokens(prompt + decoded, model.config().vocabulary);
  const auto middle = tokens.begin() + static_cast<ptrdiff_t>(prompt);
  std::vector<float> logits = graphs.feed({tokens.begin(), middle}, true);
  const std::vector<float> more = graphs.feed({middle, tokens.end()}, false);
  logits.insert(logits.end(), more.begin(), more.end());
  const std::vector<float> expected = engine.in_chunks(tokens, tokens.size());
  EXPECT_EQ(logits.size(), expected.size());
  double worst = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    worst = std::max(worst, static_cast<double>(std::fabs(logits[i] - expected[i])));
  return std::isfinite(worst) ? worst : 1e9;
}

TEST(FloatGraphs, BundledModelAsTheEngine) {
  for (const Shape& shape :
       {Shape{"one"}, Shape{.name = "two, per head", .shards = 2, .per_head = true},
        Shape{.name = "kv alone", .mode = GraphMode::kv}, Shape{.name = "512", .context = 512, .shards = 3}}) {
    SCOPED_TRACE(shape.name);
    EXPECT_LT(worst_difference("models/stories-1m.gguf", shape, 70, 5), 1e-3);
  }
}

TEST(FloatGraphs, Stories260KAsTheEngine) {
  const std::string path = "../shared/data/stories260k/stories260K.bin";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << " here";
  EXPECT_LT(worst_difference(path, {.name = "one"}, 33, 5), 1e-3);
  EXPECT_LT(worst_difference(path, {.name = "a layer a shard", .shards = 5, .per_head = true}, 33, 5), 1e-3);
}

TEST(FloatGraphs, Llama32ShapesAsTheEngine) {
  const TemporaryFile path;
  write_random_model({.dim = 96, .layers = 3, .heads = 6, .kv_heads = 2, .ffn_dim = 172, .rope_divisors = true},
                     path.path());
  EXPECT_LT(worst_difference(path.path(), {.name = "128", .shards = 2}, 65, 4), 1e-3);
  EXPECT_LT(worst_difference(path.path(), {.name = "512", .context = 512, .shards = 3, .per_head = true}, 65, 4), 1e-3);
}

TEST(FloatGraphs, EveryFamilyAsTheEngine) {
  const RandomModel models[] = {
      {.family = "qwen2", .dim = 56, .heads = 7, .kv_heads = 1, .ffn_dim = 101, .vocabulary = 51},
      {.family = "qwen3", .dim = 40, .heads = 6, .kv_heads = 2, .head_dim = 24, .ffn_dim = 70, .tied = false},
      {.family = "smollm3", .layers = 5, .heads = 8, .kv_heads = 2},
      {.family = "granite", .dim = 48, .heads = 6, .kv_heads = 3, .attention_scale = 0.03f, .score_gain = 2},
      {.family = "phi3", .dim = 96, .heads = 6, .kv_heads = 3, .rope_dim = 12},
      {.family = "phi3", .rope_scaling = "longrope"},
      {.family = "gemma", .dim = 48, .heads = 2, .kv_heads = 1, .head_dim = 256, .ffn_dim = 90},
      {.family = "gemma2", .layers = 3, .window = 70, .score_gain = 2, .score_cap = 5, .logit_cap = 2},
  };
  for (const RandomModel& model : models) {
    SCOPED_TRACE(model.family);
    const TemporaryFile path;
    write_random_model(model, path.path());
    EXPECT_LT(worst_difference(path.path(), {.name = "", .context = 64, .prefill = 16, .shards = 2}, 20, 3), 1e-3);
  }
}

}  // namespace
}  // namespace contexture
