#include "files/huggingface.h"

#include <gmock/gmock.h>

#include <cmath>

#include "files/huggingface_models.h"
#include "tensor/float16.h"

namespace contexture {
namespace {

using namespace huggingface_models;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// ---- configuration ----

TEST(HuggingFaceConfig, SaysSizesInTheVocabularyOfGguf) {
  const ModelFile m = model_of(config_of("llama"));
  EXPECT_EQ(m.metadata.get_string("general.architecture"), "llama");
  EXPECT_EQ(number(m, "llama.block_count"), 2);
  EXPECT_EQ(number(m, "llama.context_length"), 512);
  EXPECT_EQ(number(m, "llama.embedding_length"), 32);
  EXPECT_EQ(number(m, "llama.feed_forward_length"), 48);
  EXPECT_EQ(number(m, "llama.attention.head_count"), 4);
  EXPECT_EQ(number(m, "llama.attention.head_count_kv"), 2);
  EXPECT_EQ(number(m, "llama.rope.dimension_count"), 8);
  EXPECT_EQ(number(m, "llama.vocab_size"), 100);
  EXPECT_EQ(real(m, "llama.rope.freq_base"), 20000);
  EXPECT_FLOAT_EQ(static_cast<float>(real(m, "llama.attention.layer_norm_rms_epsilon")), 1e-6f);
  EXPECT_FALSE(m.metadata.has("llama.attention.key_length"));
  EXPECT_FALSE(m.metadata.has("llama.rope.scaling.type"));
}

TEST(HuggingFaceConfig, HeadsMayBeSaidOrNot) {
  const ModelFile said = model_of(config_of("llama", {{"head_dim", 16}}));
  EXPECT_EQ(number(said, "llama.attention.key_length"), 16);
  EXPECT_EQ(number(said, "llama.attention.value_length"), 16);
  EXPECT_EQ(number(said, "llama.rope.dimension_count"), 16);
  EXPECT_EQ(number(model_of(config_of("llama", {{"num_key_value_heads", nullptr}})), "llama.attention.head_count_kv"),
            4);
}

TEST(HuggingFaceConfig, SaysHowQAndKAreStoredWhereGgufDiffers) {
  for (const char* type : {"llama", "mistral", "mixtral", "smollm3", "granite"}) {
    const ModelFile m = model_of(config_of(type));
    EXPECT_EQ(m.metadata.get_string(m.metadata.get_string("general.architecture") + ".rope.style", ""), "halves")
        << type;
  }
  for (const char* type : {"qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text"}) {
    const ModelFile m = model_of(config_of(type));
    EXPECT_FALSE(m.metadata.has(m.metadata.get_string("general.architecture") + ".rope.style")) << type;
  }
}

TEST(HuggingFaceConfig, RotationScaling) {
  const ModelFile linear = model_of(config_of("llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 4}}}}));
  EXPECT_EQ(linear.metadata.get_string("llama.rope.scaling.type"), "linear");
  EXPECT_EQ(real(linear, "llama.rope.scaling.factor"), 4);

  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 32.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  const ModelFile m = model_of(config_of("llama", {{"rope_scaling", llama3}}));
  EXPECT_EQ(m.metadata.get_string("llama.rope.scaling.type"), "llama3");
  EXPECT_EQ(real(m, "llama.rope.scaling.factor"), 32);
  EXPECT_EQ(real(m, "llama.rope.scaling.low_freq_factor"), 1);
  EXPECT_EQ(real(m, "llama.rope.scaling.high_freq_factor"), 4);
  EXPECT_EQ(number(m, "llama.rope.scaling.original_context_length"), 8192);

  const json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const ModelFile qwen = model_of(config_of("qwen2", {{"rope_scaling", yarn}}));
  EXPECT_EQ(qwen.metadata.get_string("qwen2.rope.scaling.type"), "yarn");
  EXPECT_EQ(real(qwen, "qwen2.rope.scaling.factor"), 4);
  EXPECT_EQ(number(qwen, "qwen2.rope.scaling.original_context_length"), 32768);

  EXPECT_FALSE(model_of(config_of("llama", {{"rope_scaling", nullptr}})).metadata.has("llama.rope.scaling.type"));
  EXPECT_THAT(error_in(config_of("llama", {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}})),
              AllOf(HasSubstr("config.json"), HasSubstr("dynamic"), HasSubstr("llama3")));
}

TEST(HuggingFaceConfig, NewerFilesSayRotationInRopeParameters) {
  json config =
      config_of("llama", {{"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2}}}});
  config.erase("rope_theta");
  const ModelFile m = model_of(config);
  EXPECT_EQ(real(m, "llama.rope.freq_base"), 5e5);
  EXPECT_EQ(m.metadata.get_string("llama.rope.scaling.type"), "linear");
}

TEST(HuggingFaceConfig, Mistral) {
  EXPECT_EQ(model_of(config_of("mistral")).metadata.get_int("llama.attention.sliding_window", 0, 9999), 4096);
  const ModelFile m = model_of(config_of("mistral", {{"sliding_window", 128}}));
  EXPECT_EQ(m.metadata.get_string("general.architecture"), "llama");
  EXPECT_EQ(number(m, "llama.attention.sliding_window"), 128);
  EXPECT_FALSE(
      model_of(config_of("mistral", {{"sliding_window", nullptr}})).metadata.has("llama.attention.sliding_window"));
}

TEST(HuggingFaceConfig, Mixtral) {
  const ModelFile m = model_of(config_of("mixtral", {{"num_local_experts", 8}, {"num_experts_per_tok", 2}}));
  EXPECT_EQ(m.metadata.get_string("general.architecture"), "llama");
  EXPECT_EQ(number(m, "llama.expert_count"), 8);
  EXPECT_EQ(number(m, "llama.expert_used_count"), 2);
}

TEST(HuggingFaceConfig, Qwen) {
  // A window that is given and not used.
  const ModelFile two = model_of(config_of("qwen2", {{"use_sliding_window", false}, {"sliding_window", 128}}));
  EXPECT_EQ(number(two, "qwen2.embedding_length"), 32);
  EXPECT_FALSE(two.metadata.has("qwen2.attention.sliding_window"));
  const json sliding = {{"use_sliding_window", true}, {"max_window_layers", 1}};
  EXPECT_THAT(error_in(config_of("qwen2", sliding)), HasSubstr("use_sliding_window"));
  EXPECT_EQ(error_in(config_of("qwen2", {{"use_sliding_window", true}, {"max_window_layers", 2}})), "") << "never";
  EXPECT_THAT(error_in(config_of("qwen3", {{"layer_types", {"full_attention", "sliding_attention"}}})),
              HasSubstr("layer 1"));
  EXPECT_EQ(number(model_of(config_of("qwen3")), "qwen3.attention.key_length"), 128);  // as the library assumes
}

TEST(HuggingFaceConfig, QwenWithExperts) {
  const json experts = {{"num_experts", 6},       {"num_experts_per_tok", 3},         {"moe_intermediate_size", 24},
                        {"norm_topk_prob", true}, {"mlp_only_layers", json::array()}, {"decoder_sparse_step", 1}};
  const ModelFile m = model_of(config_of("qwen3_moe", experts));
  EXPECT_EQ(m.metadata.get_string("general.architecture"), "qwen3moe");
  EXPECT_EQ(number(m, "qwen3moe.expert_count"), 6);
  EXPECT_EQ(number(m, "qwen3moe.expert_used_count"), 3);
  EXPECT_EQ(number(m, "qwen3moe.expert_feed_forward_length"), 24);
  const auto with = [&](json change) {
    json config = config_of("qwen3_moe", experts);
    config.update(change);
    return error_in(config);
  };
  EXPECT_THAT(with({{"mlp_only_layers", {1}}}), HasSubstr("mlp_only_layers"));
  EXPECT_THAT(with({{"decoder_sparse_step", 2}}), HasSubstr("decoder_sparse_step"));
  EXPECT_THAT(with({{"norm_topk_prob", false}}), HasSubstr("norm_topk_prob"));
  EXPECT_THAT(with({{"use_sliding_window", true}, {"max_window_layers", 48}}), HasSubstr("use_sliding_window"));
}

TEST(HuggingFaceConfig, SmolLM3) {
  EXPECT_EQ(error_in(config_of("smollm3", {{"no_rope_layers", {1, 1, 1, 0, 1, 1, 1, 0}}})), "");
  EXPECT_EQ(error_in(config_of("smollm3", {{"no_rope_layer_interval", 4}})), "");
  EXPECT_THAT(error_in(config_of("smollm3", {{"no_rope_layers", {1, 0, 1, 0}}})), HasSubstr("no_rope_layers"));
  EXPECT_THAT(error_in(config_of("smollm3", {{"no_rope_layer_interval", 6}})), HasSubstr("every fourth"));
  EXPECT_THAT(error_in(config_of("smollm3", {{"use_sliding_window", true}, {"sliding_window", 64}})),
              HasSubstr("use_sliding_window"));
  EXPECT_EQ(error_in(config_of("smollm3", {{"use_sliding_window", true}})), "") << "with none to use";
}

TEST(HuggingFaceConfig, Granite) {
  const ModelFile m = model_of(config_of("granite", {{"embedding_multiplier", 12.0},
                                                     {"residual_multiplier", 0.25},
                                                     {"attention_multiplier", 0.0625},
                                                     {"logits_scaling", 8.0}}));
  EXPECT_EQ(real(m, "granite.embedding_scale"), 12);
  EXPECT_EQ(real(m, "granite.residual_scale"), 0.25);
  EXPECT_EQ(real(m, "granite.attention.scale"), 0.0625);
  EXPECT_EQ(real(m, "granite.logit_scale"), 8);
}

TEST(HuggingFaceConfig, Phi3) {
  const ModelFile m = model_of(config_of("phi3", {{"sliding_window", 64}, {"partial_rotary_factor", 0.75}}));
  EXPECT_EQ(number(m, "phi3.rope.dimension_count"), 6);
  EXPECT_EQ(number(m, "phi3.attention.sliding_window"), 64);
  EXPECT_EQ(number(m, "phi3.rope.scaling.original_context_length"), 4096);
  EXPECT_TRUE(m.tensors.empty());
}

TEST(HuggingFaceConfig, LongRopesDivisorsBecomeTensors) {
  json config = config_of("phi3", {{"max_position_embeddings", 2048}, {"original_max_position_embeddings", 512}});
  config["rope_scaling"] = {{"type", "longrope"}, {"long_factor", {1, 2, 3, 4.5}}, {"short_factor", {1, 1.25, 1.5, 2}}};
  const ModelFile m = model_of(config);
  EXPECT_EQ(m.metadata.get_string("phi3.rope.scaling.type"), "longrope");
  EXPECT_EQ(number(m, "phi3.rope.scaling.original_context_length"), 512);
  EXPECT_FLOAT_EQ(static_cast<float>(real(m, "phi3.rope.scaling.attn_factor")),
                  std::sqrt(1 + std::log(4.f) / std::log(512.f)));
  EXPECT_THAT(floats(m, "rope_factors_long.weight"), ElementsAre(1, 2, 3, 4.5));
  EXPECT_THAT(floats(m, "rope_factors_short.weight"), ElementsAre(1, 1.25, 1.5, 2));
  config["rope_scaling"]["long_factor"] = {1, 2, 3};
  EXPECT_THAT(error_in(config), AllOf(HasSubstr("long_factor"), HasSubstr("4 numbers")));
}

TEST(HuggingFaceConfig, Gemma) {
  const ModelFile m = model_of(config_of("gemma", {{"hidden_act", "gelu"}, {"head_dim", 16}}));
  EXPECT_EQ(m.metadata.get_string("general.architecture"), "gemma");
  EXPECT_EQ(number(m, "gemma.attention.key_length"), 16);
  EXPECT_EQ(number(model_of(config_of("gemma")), "gemma.attention.key_length"), 256);
}

TEST(HuggingFaceConfig, Gemma2) {
  const ModelFile m = model_of(config_of("gemma2", {{"query_pre_attn_scalar", 16},
                                                    {"sliding_window", 64},
                                                    {"attn_logit_softcapping", 40.0},
                                                    {"final_logit_softcapping", nullptr},
                                                    {"hidden_activation", "gelu_pytorch_tanh"},
                                                    {"layer_types", {"sliding_attention", "full_attention"}}}));
  EXPECT_EQ(real(m, "gemma2.attention.scale"), 0.25);
  EXPECT_EQ(number(m, "gemma2.attention.sliding_window"), 64);
  EXPECT_EQ(real(m, "gemma2.attn_logit_softcapping"), 40);
  EXPECT_EQ(real(m, "gemma2.final_logit_softcapping"), 0);  // none
  EXPECT_THAT(error_in(config_of("gemma2", {{"layer_types", {"full_attention", "sliding_attention"}}})),
              HasSubstr("layer 0"));
}

TEST(HuggingFaceConfig, Gemma3) {
  const ModelFile m =
      model_of(config_of("gemma3_text", {{"query_pre_attn_scalar", 64},
                                         {"sliding_window", 32},
                                         {"sliding_window_pattern", 3},
                                         {"rope_local_base_freq", 5000.0},
                                         {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}));
  EXPECT_EQ(m.metadata.get_string("general.architecture"), "gemma3");
  EXPECT_EQ(real(m, "gemma3.attention.scale"), 0.125);
  EXPECT_EQ(number(m, "gemma3.attention.sliding_window"), 32);
  EXPECT_EQ(number(m, "gemma3.attention.sliding_window_pattern"), 3);
  EXPECT_EQ(real(m, "gemma3.rope.freq_base"), 20000);
  EXPECT_EQ(real(m, "gemma3.rope.freq_base_swa"), 5000);
  EXPECT_EQ(m.metadata.get_string("gemma3.rope.scaling.type"), "linear");
  EXPECT_EQ(real(m, "gemma3.rope.scaling.factor"), 8);
  EXPECT_EQ(number(model_of(config_of("gemma3_text")), "gemma3.attention.sliding_window_pattern"), 6);
  EXPECT_THAT(error_in(config_of("gemma3_text", {{"attn_logit_softcapping", 50.0}})), HasSubstr("softcapping"));
}

TEST(HuggingFaceConfig, Gemma3SaysTwoRotationsInRopeParameters) {
  json config = config_of("gemma3_text");
  config.erase("rope_theta");
  config["rope_parameters"] = {{"full_attention", {{"rope_theta", 1e6}, {"rope_type", "linear"}, {"factor", 8.0}}},
                               {"sliding_attention", {{"rope_theta", 12000.0}, {"rope_type", "default"}}}};
  const ModelFile m = model_of(config);
  EXPECT_EQ(real(m, "gemma3.rope.freq_base"), 1e6);
  EXPECT_EQ(real(m, "gemma3.rope.freq_base_swa"), 12000);
  EXPECT_EQ(real(m, "gemma3.rope.scaling.factor"), 8);
}

TEST(HuggingFaceConfig, Gemma3WithVisionHasItsTextInside) {
  // The text part as Gemma 3 4B's file has it, all else as usual.
  const json text = {{"hidden_size", 2560},
                     {"intermediate_size", 10240},
                     {"model_type", "gemma3_text"},
                     {"num_hidden_layers", 34},
                     {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
                     {"sliding_window", 1024}};
  const ModelFile m = model_of({{"model_type", "gemma3"}, {"text_config", text}});
  EXPECT_EQ(number(m, "gemma3.block_count"), 34);
  EXPECT_EQ(number(m, "gemma3.attention.head_count"), 8);
  EXPECT_EQ(number(m, "gemma3.attention.head_count_kv"), 4);
  EXPECT_EQ(number(m, "gemma3.attention.key_length"), 256);
  EXPECT_EQ(number(m, "gemma3.context_length"), 131072);
  EXPECT_EQ(number(m, "gemma3.attention.sliding_window"), 1024);
  EXPECT_EQ(real(m, "gemma3.attention.scale"), 0.0625);
}

// What the library's classes assume, family by family (configuration_*.py of Hugging Face's transformers).
TEST(HuggingFaceConfig, ClassDefaultsApplyWhereAFieldIsLeftOut) {
  struct Class {
    const char* model_type;
    int64_t layers, embedding, feed_forward, heads, kv_heads, context, vocabulary, head_dim;
    double epsilon, theta;
  };
  for (const Class& c : {Class{"llama", 32, 4096, 11008, 32, 32, 2048, 32000, -1, 1e-6, 1e4},
                         {"mistral", 32, 4096, 14336, 32, 8, 131072, 32000, -1, 1e-6, 1e4},
                         {"mixtral", 32, 4096, 14336, 32, 8, 131072, 32000, -1, 1e-5, 1e6},
                         {"qwen2", 32, 4096, 22016, 32, 32, 32768, 151936, -1, 1e-6, 1e4},
                         {"qwen3", 32, 4096, 22016, 32, 32, 32768, 151936, 128, 1e-6, 1e4},
                         {"smollm3", 36, 2048, 11008, 16, 4, 32768, 128256, -1, 1e-6, 2e6},
                         {"granite", 32, 4096, 11008, 32, 32, 2048, 32000, -1, 1e-6, 1e4},
                         {"phi3", 32, 3072, 8192, 32, 32, 4096, 32064, -1, 1e-5, 1e4},
                         {"gemma", 28, 3072, 24576, 16, 16, 8192, 256000, 256, 1e-6, 1e4},
                         {"gemma2", 26, 2304, 9216, 8, 4, 8192, 256000, 256, 1e-6, 1e4},
                         {"gemma3_text", 26, 2304, 9216, 8, 4, 131072, 262208, 256, 1e-6, 1e6}}) {
    const ModelFile m = model_of({{"model_type", c.model_type}});
    const auto key = [&](const char* name) { return m.metadata.get_string("general.architecture") + "." + name; };
    EXPECT_EQ(number(m, key("block_count")), c.layers) << c.model_type;
    EXPECT_EQ(number(m, key("embedding_length")), c.embedding) << c.model_type;
    EXPECT_EQ(number(m, key("feed_forward_length")), c.feed_forward) << c.model_type;
    EXPECT_EQ(number(m, key("attention.head_count")), c.heads) << c.model_type;
    EXPECT_EQ(number(m, key("attention.head_count_kv")), c.kv_heads) << c.model_type;
    EXPECT_EQ(number(m, key("context_length")), c.context) << c.model_type;
    EXPECT_EQ(number(m, key("vocab_size")), c.vocabulary) << c.model_type;
    EXPECT_EQ(number(m, key("attention.key_length")), c.head_dim) << c.model_type;
    EXPECT_FLOAT_EQ(static_cast<float>(real(m, key("attention.layer_norm_rms_epsilon"))),
                    static_cast<float>(c.epsilon));
    EXPECT_EQ(real(m, key("rope.freq_base")), c.theta) << c.model_type;
  }
  const ModelFile experts = model_of({{"model_type", "qwen3_moe"}, {"norm_topk_prob", true}});
  EXPECT_EQ(number(experts, "qwen3moe.expert_count"), 128);
  EXPECT_EQ(number(experts, "qwen3moe.expert_used_count"), 8);
  EXPECT_EQ(number(experts, "qwen3moe.expert_feed_forward_length"), 768);
  EXPECT_EQ(number(model_of({{"model_type", "mixtral"}}), "llama.expert_count"), 8);
}

TEST(HuggingFaceConfig, FieldsThatChangeTheAnswerAreCarriedOutOrRefused) {
  const auto with = [](const char* type, const char* field, const json& value) {
    return error_in(config_of(type, {{field, value}}));
  };
  struct Case {
    const char* field;
    json neutral, other;
  };
  for (const Case& c : {Case{"logit_scale", 1, 0.5},
                        {"logits_scaling", 1.0, 8},
                        {"attn_logit_softcapping", 0, 50},
                        {"final_logit_softcapping", nullptr, 30},
                        {"query_pre_attn_scalar", nullptr, 128},
                        {"attention_multiplier", nullptr, 0.1},
                        {"sliding_window", nullptr, 4096},
                        {"mlp_bias", false, true},
                        {"use_qk_norm", false, true},
                        {"num_local_experts", 0, 8},
                        {"no_rope_layers", json::array(), {1, 0}},
                        {"use_bidirectional_attention", false, true},
                        {"clip_qkv", nullptr, 8.0},
                        {"layer_types", {"full_attention"}, {"linear_attention"}}}) {
    EXPECT_EQ(with("llama", c.field, c.neutral), "") << c.field;
    EXPECT_THAT(with("llama", c.field, c.other), HasSubstr(c.field));
  }
  EXPECT_THAT(with("gemma", "use_bidirectional_attention", true), HasSubstr("is true"));
  EXPECT_THAT(with("qwen3", "n_shared_experts", 1),
              HasSubstr("n_shared_experts is 1, which is not supported in a qwen3"));
  EXPECT_EQ(with("gemma2", "attn_logit_softcapping", 50), "");
  EXPECT_EQ(with("granite", "logits_scaling", 8), "");
  EXPECT_EQ(with("qwen3", "use_qk_norm", true), "") << "which it has";
  EXPECT_THAT(with("mistral", "layer_types", {"full_attention", "sliding_attention"}), HasSubstr("layer_types"));
}

TEST(HuggingFaceConfig, FieldsOfARotationBelongToItsType) {
  const auto with = [](const json& rope) { return error_in(config_of("llama", {{"rope_scaling", rope}})); };
  EXPECT_EQ(with({{"rope_type", "default"}, {"factor", 1.0}}), "");
  EXPECT_THAT(with({{"factor", 4.0}}), AllOf(HasSubstr("factor"), HasSubstr("type default")));
  EXPECT_THAT(with({{"rope_type", "default"}, {"mrope_section", {16, 24, 24}}}), HasSubstr("mrope_section"));
  EXPECT_THAT(with({{"rope_type", "linear"}, {"factor", 4.0}, {"alpha", 1000}}), HasSubstr("alpha"));
  EXPECT_THAT(with({{"rope_type", "linear"}, {"factor", 4.0}, {"attention_factor", 1.2}}),
              HasSubstr("attention_factor"));
  EXPECT_THAT(with({{"full_attention", {{"rope_type", "default"}}}}), HasSubstr("full_attention"));
  EXPECT_THAT(error_in(config_of("llama", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 4}}},
                                           {"rope_parameters", {{"rope_type", "default"}}}})),
              HasSubstr("contradict"));
  EXPECT_THAT(
      error_in(config_of("gemma3_text", {{"rope_parameters",
                                          {{"full_attention", {{"rope_type", "default"}}},
                                           {"sliding_attention", {{"rope_type", "default"}, {"factor", 8}}}}}})),
      HasSubstr("factor"));
  EXPECT_THAT(with({{"rope_type", "linear"}}), HasSubstr("factor is missing"));
  EXPECT_THAT(with({{"rope_type", "llama3"}, {"factor", 8.0}}), HasSubstr("low_freq_factor is missing"));
}

TEST(HuggingFaceConfig, ActivationsAreKnownByTheirNames) {
  const auto with = [](const char* type, const char* field, const char* name) {
    return error_in(config_of(type, {{field, name}}));
  };
  EXPECT_EQ(with("llama", "hidden_act", "swish"), "");
  for (const char* name : {"gelu_pytorch_tanh", "gelu_new", "gelu_fast"}) {
    EXPECT_EQ(with("gemma2", "hidden_activation", name), "");
  }
  EXPECT_EQ(with("gemma", "hidden_act", "gelu"), "") << "the first files say so and mean the tanh form";
  EXPECT_THAT(with("gemma", "hidden_activation", "gelu"), HasSubstr("hidden_activation gelu is not supported"));
  EXPECT_THAT(with("gemma2", "hidden_activation", "gelu_10"), HasSubstr("gelu_10"));
  EXPECT_THAT(with("llama", "hidden_act", "gelu_new"), HasSubstr("gelu_new"));
}

TEST(HuggingFaceConfig, RefusesWhatItCannotCarryOver) {
  EXPECT_THAT(error_in(config_of("mamba")),
              AllOf(HasSubstr("mamba"), HasSubstr("llama, mistral, mixtral"), HasSubstr("gemma3_text")));
  EXPECT_THAT(error_in(json::object()), HasSubstr("unknown model_type ''"));
  EXPECT_THAT(error_in(config_of("llama", {{"hidden_act", "relu"}})), HasSubstr("relu"));
  EXPECT_THAT(error_in(config_of("llama", {{"hidden_act", "gelu"}})), HasSubstr("gelu"));
  EXPECT_THAT(error_in(config_of("gemma", {{"hidden_act", "silu"}})), HasSubstr("silu"));
  EXPECT_THAT(error_in(config_of("llama", {{"quantization_config", {{"quant_method", "awq"}}}})), HasSubstr("awq"));
  EXPECT_THAT(error_in(config_of("llama", {{"hidden_size", "large"}})), HasSubstr("hidden_size is \"large\""));
  EXPECT_THAT(error_in(config_of("llama", {{"hidden_size", 0}})), HasSubstr("hidden_size is 0"));
  EXPECT_THAT(error_in(config_of("llama", {{"hidden_size", UINT64_MAX}})), HasSubstr("hidden_size"));
  EXPECT_THAT(error_in(config_of("llama", {{"hidden_size", 1.5}})), HasSubstr("hidden_size is 1.5"));
  EXPECT_THAT(error_in(config_of("llama", {{"rms_norm_eps", nullptr}})), HasSubstr("rms_norm_eps is missing"));
  EXPECT_THAT(error_in(config_of("llama", {{"rope_scaling", {1}}})), HasSubstr("rope_scaling is array"));
  EXPECT_THAT(error_in(config_of("llama", {{"partial_rotary_factor", 1.5}})), HasSubstr("partial_rotary_factor"));
}

// ---- tokens ----

TEST(HuggingFaceTokens, GenerationConfigComesFirst) {
  Metadata m;
  const JsonObject config(json{{"bos_token_id", 1}, {"eos_token_id", 2}}, "config.json");
  const JsonObject generation(
      json{{"eos_token_id", {128001, 128008}}, {"temperature", 0.625}, {"top_p", 0.875}, {"top_k", 20}}, "g.json");
  read_huggingface_tokens(config, generation, m);
  EXPECT_EQ(m.get_int("tokenizer.ggml.bos_token_id", 0, anything), 1);
  EXPECT_EQ(m.get_int("tokenizer.ggml.eos_token_id", 0, anything), 128001);
  EXPECT_THAT(m.get_ints("tokenizer.end_token_ids"), ElementsAre(128001, 128008));
  EXPECT_EQ(m.get_float("general.sampling.temp"), 0.625);
  EXPECT_EQ(m.get_float("general.sampling.top_p"), 0.875);
  EXPECT_EQ(m.get_int("general.sampling.top_k", 0, anything), 20);
}

TEST(HuggingFaceTokens, WithoutItTheConfigCounts) {
  Metadata m;
  read_huggingface_tokens(JsonObject(json{{"eos_token_id", 7}}, "config.json"), JsonObject(), m);
  EXPECT_THAT(m.get_ints("tokenizer.end_token_ids"), ElementsAre(7));
  EXPECT_FALSE(m.has("tokenizer.ggml.bos_token_id"));
  EXPECT_FALSE(m.has("general.sampling.temp"));
  const auto error = [](json id) {
    Metadata metadata;
    return error_of([&] {
      read_huggingface_tokens(JsonObject(json{{"eos_token_id", id}}, "c"), JsonObject(), metadata);
    });
  };
  EXPECT_THAT(error(-1), HasSubstr("eos_token_id"));
  EXPECT_THAT(error("</s>"), HasSubstr("eos_token_id"));
  EXPECT_THAT(error({2, UINT64_MAX}), HasSubstr("eos_token_id"));
}

TEST(HuggingFaceTokens, NoSamplingIsTemperatureZero) {
  Metadata m;
  read_huggingface_tokens(JsonObject(), JsonObject(json{{"do_sample", false}, {"temperature", 0.7}}, "g"), m);
  EXPECT_EQ(m.get_float("general.sampling.temp"), 0);
}

TEST(HuggingFaceTokens, ChatTemplates) {
  const auto template_of = [](const json& config) {
    Metadata m;
    read_huggingface_tokenizer_config(JsonObject(config, "tokenizer_config.json"), m);
    return m.get_string("tokenizer.chat_template", "none");
  };
  EXPECT_EQ(template_of({{"chat_template", "{{ x }}"}}), "{{ x }}");
  EXPECT_EQ(template_of({{"chat_template",
                          {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}}),
            "D");
  EXPECT_EQ(template_of({{"chat_template", {{{"name", "rag"}, {"template", "R"}}}}}), "R");
  EXPECT_EQ(template_of(json::object()), "none");
  EXPECT_THAT(error_of([&] { template_of({{"chat_template", 3}}); }), HasSubstr("chat_template is 3"));
  Metadata m;
  read_huggingface_tokenizer_config(JsonObject(json{{"add_bos_token", true}, {"add_eos_token", false}}, "t"), m);
  EXPECT_TRUE(m.get_bool("tokenizer.ggml.add_bos_token", false));
  EXPECT_FALSE(m.get_bool("tokenizer.ggml.add_eos_token", true));
  const json named = {{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}, {"lstrip", false}}}};
  read_huggingface_tokenizer_config(JsonObject(named, "t"), m);
  EXPECT_EQ(m.get_string("tokenizer.bos_token"), "<s>");
  EXPECT_EQ(m.get_string("tokenizer.eos_token"), "</s>");
}

}  // namespace
}  // namespace contexture
