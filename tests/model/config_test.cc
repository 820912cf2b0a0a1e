#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "files/gguf_writer.h"
#include "model/transformer.h"
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
  EXPECT_THAT(error_of([&] { read_config(m); }), HasSubstr("llama.rope.scaling.type is 'yarn'"));
}

/// A good model of a family with `change` made to its metadata.
ModelConfig config_with(const std::string& family, const std::function<void(Metadata&)>& change) {
  const Metadata llama = good();
  Metadata m;
  for (const auto& [key, value] : llama.entries()) {
    m.set(key.starts_with("llama.") ? family + key.substr(5) : key, value);
  }
  m.set_string("general.architecture", family);
  m.set_int(family + ".block_count", 6);
  change(m);
  return read_config(m);
}

std::string error_with_key(const std::string& family, const std::function<void(Metadata&)>& change) {
  return error_of([&] { config_with(family, change); });
}

MetadataValue array_of(MetadataType element, std::vector<int64_t> data) {
  return {.type = MetadataType::array, .element = element, .data = std::move(data)};
}

TEST(Config, ARotationFactorWithoutATypeIsLinear) {
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    const ModelConfig c = config_with("llama", [&](Metadata& m) { m.set_float(key, 4); });
    EXPECT_EQ(c.rope().scaling, RopeConfig::Scaling::linear) << key;
    EXPECT_EQ(c.rope().factor, 4) << key;
  }
  const ModelConfig none = config_with("llama", [](Metadata& m) {
    m.set_float("llama.rope.scaling.factor", 4);
    m.set_string("llama.rope.scaling.type", "none");
  });
  EXPECT_EQ(none.rope().scaling, RopeConfig::Scaling::none);
  for (const double off : {0, 1}) {
    const ModelConfig c = config_with("llama", [&](Metadata& m) { m.set_float("llama.rope.scaling.factor", off); });
    EXPECT_EQ(c.rope().scaling, RopeConfig::Scaling::none);
  }
  EXPECT_THAT(error_with_key("phi3",
                             [](Metadata& m) {
                               m.set_string("phi3.rope.scaling.type", "longrope");
                               m.set_float("phi3.rope.scaling.factor", 4);
                             }),
              HasSubstr("phi3.rope.scaling.factor is 4"));
  const ModelConfig stretched =
      config_with("llama", [](Metadata& m) { m.set_float("llama.rope.scaling.attn_factor", 1.5); });
  EXPECT_EQ(stretched.rope().magnitude, 1.5);
}

TEST(Config, NumbersOfLayersMayBeArraysOfEqualValues) {
  for (const MetadataType type : {MetadataType::u32, MetadataType::i32, MetadataType::u16, MetadataType::i64}) {
    const ModelConfig c = config_with("llama", [&](Metadata& m) {
      m.set("llama.attention.head_count", array_of(type, {8, 8, 8, 8, 8, 8}));
      m.set("llama.attention.head_count_kv", array_of(type, {4, 4, 4, 4, 4, 4}));
      m.set("llama.feed_forward_length", array_of(type, {96, 96, 96, 96, 96, 96}));
      m.set("llama.attention.sliding_window", array_of(type, {16, 16, 16, 16, 16, 16}));
    });
    EXPECT_EQ(c.heads, 8u);
    EXPECT_EQ(c.kv_heads, 4u);
    EXPECT_EQ(c.ffn_dim, 96u);
    EXPECT_EQ(c.each_layer[5].window, 16);
  }
  for (const char* key : {"attention.head_count", "attention.head_count_kv", "feed_forward_length"}) {
    const std::string full = fmt::format("llama.{}", key);
    const auto with = [&](std::vector<int64_t> values) {
      return error_with_key("llama", [&](Metadata& m) { m.set(full, array_of(MetadataType::i32, values)); });
    };
    EXPECT_THAT(with({8, 8, 8, 4, 8, 8}),
                testing::AllOf(HasSubstr(full + " is [8, 8, 8, 4, 8, 8]"), HasSubstr("layers that differ")))
        << key;
    EXPECT_THAT(with({8, 8}), HasSubstr("2 elements for 6 layers")) << key;
    EXPECT_THAT(with({}), HasSubstr("0 elements for 6 layers")) << key;
  }
}

std::vector<int64_t> windows_of(const ModelConfig& config) {
  std::vector<int64_t> windows;
  for (const LayerConfig& layer : config.each_layer) windows.push_back(layer.window);
  return windows;
}

TEST(Config, WindowPatternsMayBeANumberOrSayEachLayer) {
  using testing::ElementsAre;
  const char* const key = "gemma3.attention.sliding_window_pattern";
  const auto with = [&](const MetadataValue& value) {
    return config_with("gemma3", [&](Metadata& m) {
      m.set_int("gemma3.attention.sliding_window", 16);
      m.set(key, value);
    });
  };
  for (const MetadataType type : {MetadataType::boolean, MetadataType::u8, MetadataType::i32, MetadataType::u64}) {
    const ModelConfig c = with(array_of(type, {1, 0, 1, 1, 0, 0}));
    EXPECT_THAT(windows_of(c), ElementsAre(16, 0, 16, 16, 0, 0)) << name(type);
    EXPECT_EQ(c.each_layer[1].rope, 0);
    EXPECT_EQ(c.each_layer[2].rope, 1);
  }
  const auto one = [](MetadataType type, int64_t value) { return MetadataValue{.type = type, .data = value}; };
  EXPECT_THAT(windows_of(with(one(MetadataType::u32, 3))), ElementsAre(16, 16, 0, 16, 16, 0));
  EXPECT_THAT(windows_of(with(one(MetadataType::u32, 0))), ElementsAre(16, 16, 16, 16, 16, 16));
  EXPECT_THAT(windows_of(with(one(MetadataType::u32, 1))), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(windows_of(with(one(MetadataType::boolean, 1))), ElementsAre(16, 16, 16, 16, 16, 16));
  EXPECT_THAT(error_of([&] { with(array_of(MetadataType::boolean, {1, 0})); }), HasSubstr("2 elements for 6 layers"));
}

TEST(Config, WindowsOfLayersMayDiffer) {
  using testing::ElementsAre;
  const auto with = [](const std::string& family, std::vector<int64_t> windows) {
    return config_with(family, [&](Metadata& m) {
      m.set(family + ".attention.sliding_window", array_of(MetadataType::u32, windows));
    });
  };
  EXPECT_THAT(windows_of(with("llama", {8, 16, 0, 8, 8, 8})), ElementsAre(8, 16, 0, 8, 8, 8));
  EXPECT_THAT(windows_of(with("gemma2", {8, 0, 16, 0, 8, 0})), ElementsAre(8, 0, 16, 0, 8, 0));
  EXPECT_THAT(
      error_of([&] {
        with("gemma2", {8, 8, 16, 0, 8, 0});
      }),
      testing::AllOf(HasSubstr("gemma2.attention.sliding_window is [8, 8, 16, 0, 8, 0]"), HasSubstr("layer 1")));
}

// What a family carries out is in its tests; here, that nothing else is passed over.
TEST(Config, KeysThatChangeTheAnswerAreCarriedOutOrRefused) {
  const auto with = [](const std::string& family, const std::string& key, double value) {
    return error_with_key(family, [&](Metadata& m) { m.set_float(fmt::format("{}.{}", family, key), value); });
  };
  struct Case {
    const char* key;
    double neutral, other;
  };
  for (const Case& c : {Case{"logit_scale", 1, 0.5},
                        {"embedding_scale", 1, 12},
                        {"residual_scale", 1, 0.25},
                        {"attn_logit_softcapping", 0, 50},
                        {"final_logit_softcapping", 0, 30},
                        {"attention.clamp_kqv", 0, 8},
                        {"attention.max_alibi_bias", 0, 8},
                        {"attention.causal", 1, 0},
                        {"attention.temperature_scale", 0, 0.1},
                        {"use_parallel_residual", 0, 1},
                        {"rope.freq_base_swa", 0, 1e4},
                        {"rope.scaling.alpha", 1, 1000},
                        {"rope.scaling.yarn_log_multiplier", 0, 0.1},
                        {"rope.scaling.low_freq_factor", 0, 1},
                        {"rope.dimension_sections", 0, 16},
                        {"attention.something_new", 0, 2}}) {
    for (const char* family : {"llama", "qwen3", "smollm3"}) {
      EXPECT_EQ(with(family, c.key, c.neutral), "no error") << c.key;
      EXPECT_THAT(with(family, c.key, c.other), HasSubstr(fmt::format("{}.{} is {}", family, c.key, c.other)));
    }
  }
  EXPECT_THAT(with("qwen2", "attention.sliding_window", 128), HasSubstr("qwen2.attention.sliding_window is 128"));
  EXPECT_EQ(with("granite", "logit_scale", 0.5), "no error");
  EXPECT_EQ(with("gemma2", "attn_logit_softcapping", 50), "no error");
  EXPECT_EQ(with("gemma3", "rope.freq_base_swa", 2e4), "no error");
  EXPECT_THAT(with("gemma3", "rope.local.freq_base", 1e4), HasSubstr("gemma3.rope.local.freq_base"));
}

TEST(Config, KeysOfExpertsAreCarriedOutOrRefused) {
  const auto with = [](const std::string& key, double value, int64_t experts = 8) {
    return error_with_key("llama", [&](Metadata& m) {
      m.set_int("llama.expert_count", experts);
      m.set_int("llama.expert_used_count", 2);
      m.set_float("llama." + key, value);
    });
  };
  EXPECT_EQ(with("expert_weights_norm", 1), "no error");
  EXPECT_EQ(with("expert_gating_func", 1), "no error");
  EXPECT_THAT(with("expert_weights_norm", 0), HasSubstr("expert_weights_norm is 0"));
  EXPECT_THAT(with("expert_weights_scale", 2.5), HasSubstr("expert_weights_scale is 2.5"));
  EXPECT_THAT(with("expert_gating_func", 2), HasSubstr("expert_gating_func is 2"));
  EXPECT_THAT(with("expert_shared_count", 1), HasSubstr("expert_shared_count is 1"));
  EXPECT_THAT(with("leading_dense_block_count", 1), HasSubstr("leading_dense_block_count is 1"));
  EXPECT_EQ(with("expert_gating_func", 2, /*experts=*/0), "no error") << "there are none";
}

TEST(Config, KeysThatSayTheSameTwiceMustAgree) {
  const auto with = [](const std::string& family, const std::string& key, auto set) {
    return error_with_key(family, [&](Metadata& m) { set(m, fmt::format("{}.{}", family, key)); });
  };
  const auto text = [](const char* value) {
    return [=](Metadata& m, const std::string& k) { m.set_string(k, value); };
  };
  const auto size = [](int64_t value) { return [=](Metadata& m, const std::string& k) { m.set_int(k, value); }; };
  EXPECT_EQ(with("llama", "hidden_activation", text("silu")), "no error");
  EXPECT_EQ(with("gemma", "hidden_activation", text("gelu_pytorch_tanh")), "no error");
  EXPECT_THAT(with("llama", "hidden_activation", text("gelu")), HasSubstr("llama.hidden_activation is 'gelu'"));
  EXPECT_THAT(with("gemma", "hidden_activation", text("silu")), HasSubstr("gemma.hidden_activation is 'silu'"));
  for (const char* key : {"attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"}) {
    EXPECT_EQ(with("gemma3", key, size(8)), "no error") << key;
    EXPECT_THAT(with("gemma3", key, size(16)), HasSubstr(key)) << key;
  }
}

TEST(Config, KeysWithoutEffectPass) {
  EXPECT_EQ(error_with_key("qwen3",
                           [](Metadata& m) {
                             m.set_float("qwen3.attention.layer_norm_epsilon", 1e-5);
                             m.set_bool("qwen3.rope.scaling.finetuned", true);
                             m.set_int("qwen3.pooling_type", 1);
                             m.set_string("qwen3.tensor_data_layout", "Meta AI original pth");
                             m.set_int("qwen3.training.steps", 7);
                             m.set_string("general.anything", "at all");
                             m.set_float("llama.logit_scale", 9);  // another family's
                           }),
            "no error");
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
  return error_of([&] { Transformer model(bad); });
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
  EXPECT_EQ(error_with([](auto& t) {
              for (auto& x : t) {
                if (x.shape.size() == 1) x.shape.insert(x.shape.begin(), {1, 1});
                if (x.name == "blk.0.attn_k.weight") x.shape.insert(x.shape.begin(), 1);
              }
            }),
            "no error")
      << "outer dimensions of 1 say nothing";
}

/// A random model's weights as they are, and with those that `is_absent` not there: the same bytes are planned.
void expect_same_plan(const RandomModel& model, const std::function<bool(size_t)>& is_absent) {
  const TemporaryFile path;
  write_random_model(model, path.path());
  ModelFile whole = open_model(path.path()), part;
  ModelConfig config = read_config(whole.metadata);
  const WeightBytes bytes = check_weights(whole, config);
  part.metadata = whole.metadata;
  part.metadata.set_int(model.family + ".vocab_size", static_cast<int64_t>(config.vocabulary));
  part.absent = AbsentWeights{model.format, {}, "somewhere else"};
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    if (is_absent(i)) {
      part.absent->names.insert(whole.tensors[i].name);
    } else {
      part.add(whole.tensors[i]);
    }
  }
  config = read_config(part.metadata);
  const WeightBytes planned = check_weights(part, config);
  EXPECT_EQ(planned.packed, bytes.packed) << model.family;
  EXPECT_EQ(planned.copied, bytes.copied) << model.family;
  EXPECT_EQ(planned.stored, bytes.stored) << model.family;
  EXPECT_EQ(planned.of_layer, bytes.of_layer) << model.family;
  EXPECT_EQ(config.vocabulary, whole.find("token_embd.weight")->shape[0]) << model.family;
  ThreadPool pool(1);
  EXPECT_THAT(error_of([&] { (void)load_weights(part, config, pool); }), HasSubstr("somewhere else"));
}

TEST(Weights, ThatAreAbsentCountAsWhatTheyWouldBe) {
  for (const RandomModel& model :
       {RandomModel{.format = Format::bf16, .tied = false},
        {.family = "qwen2", .format = Format::f16},
        {.family = "qwen3", .format = Format::bf16},
        {.family = "phi3", .format = Format::bf16, .tied = false},
        {.family = "gemma3", .format = Format::bf16, .window = 16, .window_pattern = 2},
        {.format = Format::f32, .experts = 4, .experts_used = 2, .separate_experts = true}}) {
    expect_same_plan(model, [](size_t) { return true; });
    expect_same_plan(model, [](size_t i) { return i % 3 == 0; });
  }
  // Without any list of names: the head is all that must be known.
  const TemporaryFile path;
  write_random_model({.format = Format::bf16, .tied = false}, path.path());
  const ModelFile whole = open_model(path.path());
  ModelFile none;
  none.metadata = whole.metadata;
  none.metadata.set_int("llama.vocab_size", 80);
  none.absent = AbsentWeights{Format::bf16, {"output.weight"}, "nothing is here"};
  ModelConfig config = read_config(whole.metadata), bare = read_config(none.metadata);
  EXPECT_EQ(check_weights(none, bare).total(), check_weights(whole, config).total());
  bare.experts = 60000;
  EXPECT_THAT(error_of([&] { check_weights(none, bare); }), HasSubstr("more than any model has"));
}

}  // namespace
}  // namespace contexture
