#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "files/gguf_writer.h"
#include "model/model.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using testing::HasSubstr;

Metadata good() {
  Metadata m;
  m.set_string("general.architecture", "llama");
  m.set_int("llama.block_count", 2);
  m.set_int("llama.context_length", 128);
  m.set_int("llama.embedding_length", 64);
  m.set_int("llama.feed_forward_length", 100);
  m.set_int("llama.attention.head_count", 8);
  return m;
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Config, FillsInWhatFilesLeaveOut) {
  const ModelConfig c = read_config(good());
  EXPECT_EQ(c.kv_heads, 8u) << "without head_count_kv every head has K and V of its own";
  EXPECT_EQ(c.head_dim, 8u);
  EXPECT_EQ(c.rope().dim, 8u);
  EXPECT_EQ(c.rope().base, 10000);
  EXPECT_EQ(c.rope().style, RopeStyle::interleaved);
  EXPECT_FLOAT_EQ(c.attention_shape().scale, 1 / std::sqrt(8.f));
}

TEST(Config, RefusesWhatCannotBeAndNamesIt) {
  struct Bad {
    const char* key;
    int64_t value;
    const char* says;
  };
  for (const Bad& bad :
       {Bad{"llama.block_count", 0, "llama.block_count"}, Bad{"llama.block_count", 1 << 30, "llama.block_count"},
        Bad{"llama.embedding_length", int64_t{1} << 40, "llama.embedding_length"},
        Bad{"llama.attention.head_count", 0, "llama.attention.head_count"},
        Bad{"llama.attention.head_count_kv", 3, "head_count_kv"},
        Bad{"llama.attention.head_count_kv", 9, "head_count_kv"},
        Bad{"llama.attention.key_length", 12, "multiple of 8"}, Bad{"llama.attention.value_length", 16, "16"},
        Bad{"llama.rope.dimension_count", 7, "even"},
        Bad{"llama.rope.dimension_count", 10, "llama.rope.dimension_count"},
        Bad{"llama.expert_count", 8, "expert_used_count"}}) {
    Metadata m = good();
    m.set_int(bad.key, bad.value);
    EXPECT_THAT(error_of([&] { read_config(m); }), HasSubstr(bad.says)) << bad.key << " = " << bad.value;
  }
  Metadata m = good();
  m.set_string("general.architecture", "mamba");
  EXPECT_THAT(error_of([&] { read_config(m); }), HasSubstr("'mamba'"));
  m = good();
  m.set_string("llama.rope.scaling.type", "yarn");
  EXPECT_THAT(error_of([&] { read_config(m); }), HasSubstr("'yarn'"));
}

TEST(RopeFrequencies, FollowTheirDefinitions) {
  RopeConfig rope{.dim = 4, .base = 100};
  EXPECT_EQ(rope_frequencies(rope), (std::vector<double>{1, 0.1}));
  const std::vector<float> divisors = {2, 4};
  EXPECT_EQ(rope_frequencies(rope, divisors), (std::vector<double>{0.5, 0.025}));
  rope.scaling = RopeConfig::Scaling::linear;
  rope.factor = 8;
  EXPECT_EQ(rope_frequencies(rope), (std::vector<double>{0.125, 0.0125}));
}

// Llama 3.2 1B (base 500,000, factor 32, low 1, high 4, original context 8,192, heads of 64). Where the ramp begins and
// ends follows from the definition: a pair turns 8192 · f / 2π times over the original context; more than 4 turns stay,
// fewer than 1 are divided by 32. f = 500000^(-i/32): 4 turns at i = 14.2, one at i = 17.5.
TEST(RopeFrequencies, Llama3ScalesLongWavelengthsOnly) {
  RopeConfig rope{.dim = 64, .base = 500000};
  const std::vector<double> plain = rope_frequencies(rope);
  rope.scaling = RopeConfig::Scaling::llama3;
  rope.factor = 32;
  const std::vector<double> scaled = rope_frequencies(rope);
  for (size_t i = 0; i < 32; ++i) {
    const double divided = plain[i] / scaled[i];
    if (i <= 14) {
      EXPECT_EQ(divided, 1) << i;
    } else if (i >= 18) {
      EXPECT_NEAR(divided, 32, 1e-9) << i;
    } else {
      EXPECT_GT(divided, 1) << i;
      EXPECT_LT(divided, 32) << i;
    }
  }
}

/// Rewrites a good random model with one tensor changed, and says what opening it as a model says.
std::string error_with(const std::function<void(std::vector<StoredTensor>&)>& change) {
  const TemporaryFile good_file, bad_file;
  write_random_model({}, good_file.path());
  const ModelFile file = open_model(good_file.path());
  std::vector<StoredTensor> tensors = file.tensors;
  change(tensors);
  write_gguf(bad_file.path(), file.metadata, tensors);
  const ModelFile bad = open_model(bad_file.path());
  return error_of([&] { Model model(bad); });
}

TEST(Weights, AreHeldAgainstTheConfiguration) {
  EXPECT_EQ(error_with([](auto&) {}), "no error");
  EXPECT_THAT(error_with([](auto& t) { std::erase_if(t, [](auto& x) { return x.name == "blk.1.ffn_up.weight"; }); }),
              HasSubstr("blk.1.ffn_up.weight is missing"));
  EXPECT_THAT(error_with([](auto& t) {
                for (auto& x : t) {
                  if (x.name == "blk.0.attn_k.weight") x.shape = {64, 32};
                }
              }),
              testing::AllOf(HasSubstr("blk.0.attn_k.weight"), HasSubstr("(64, 32)"), HasSubstr("(32, 64)")));
  EXPECT_THAT(error_with([](auto& t) {
                t.push_back(t.front());
                t.back().name = "blk.0.attn_q.bias";
              }),
              HasSubstr("blk.0.attn_q.bias"));
  EXPECT_THAT(error_with([](auto& t) { t.clear(); }), HasSubstr("no weights"));
}

}  // namespace
}  // namespace contexture
