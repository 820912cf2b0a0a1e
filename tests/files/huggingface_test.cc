#include "files/huggingface.h"

#include <gmock/gmock.h>

#include <cmath>

#include "files/huggingface_support.h"
#include "tensor/float16.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t anything = INT64_MAX;

/// What every family's configuration says; `more` adds to it or replaces.
json config_of(std::string model_type, const json& more = {}) {
  json config = {{"model_type", std::move(model_type)},
                 {"hidden_size", 32},
                 {"intermediate_size", 48},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"max_position_embeddings", 512},
                 {"rms_norm_eps", 1e-6},
                 {"rope_theta", 20000.0},
                 {"vocab_size", 100}};
  if (!more.is_null()) config.update(more);
  return config;
}

ModelFile model_of(const json& config) {
  ModelFile model;
  read_huggingface_config(JsonObject(config, "config.json"), model);
  return model;
}

std::string error_in(const json& config) {
  return error_of([&] { (void)model_of(config); });
}

std::string error_in_folder(const std::string& path) {
  return error_of([&] { (void)open_model(path); });
}

int64_t number(const ModelFile& model, std::string_view key) {
  return model.metadata.get_int(key, 0, anything, -1);
}

double real(const ModelFile& model, std::string_view key) {
  return model.metadata.get_float(key, -1);
}

std::vector<float> floats(const ModelFile& model, std::string_view name) {
  const StoredTensor* tensor = model.find(name);
  if (!tensor) return {};
  std::vector<float> values(tensor->data.size() / bytes_of(tensor->format, 1));
  info(tensor->format).decode(tensor->data.data(), values.data(), values.size());
  return values;
}

std::vector<std::string> names(const ModelFile& model) {
  std::vector<std::string> all;
  for (const StoredTensor& tensor : model.tensors) all.push_back(tensor.name);
  std::sort(all.begin(), all.end());
  return all;
}

/// One-dimensional tensors of these names: the reader does not look at shapes.
std::vector<TestTensor> tensors_named(const std::vector<std::string>& list) {
  std::vector<TestTensor> tensors;
  for (const std::string& name : list) tensors.push_back(counting(name, {2}, static_cast<float>(tensors.size() * 10)));
  return tensors;
}

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
    const ModelFile m = model_of(config_of(type, {{"num_local_experts", 4}, {"num_experts_per_tok", 2}}));
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
  EXPECT_THAT(error_in(config_of("mixtral")), HasSubstr("num_local_experts is missing"));
}

TEST(HuggingFaceConfig, Qwen) {
  // A window that is given and not used.
  const ModelFile two = model_of(config_of("qwen2", {{"use_sliding_window", false}, {"sliding_window", 128}}));
  EXPECT_EQ(number(two, "qwen2.embedding_length"), 32);
  EXPECT_FALSE(two.metadata.has("qwen2.attention.sliding_window"));
  EXPECT_THAT(error_in(config_of("qwen2", {{"use_sliding_window", true}})), HasSubstr("use_sliding_window"));
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
}

TEST(HuggingFaceConfig, SmolLM3) {
  EXPECT_EQ(error_in(config_of("smollm3", {{"no_rope_layers", {1, 1, 1, 0, 1, 1, 1, 0}}})), "");
  EXPECT_EQ(error_in(config_of("smollm3", {{"no_rope_layer_interval", 4}})), "");
  EXPECT_THAT(error_in(config_of("smollm3", {{"no_rope_layers", {1, 0, 1, 0}}})), HasSubstr("no_rope_layers"));
  EXPECT_THAT(error_in(config_of("smollm3", {{"no_rope_layer_interval", 6}})), HasSubstr("every fourth"));
  EXPECT_THAT(error_in(config_of("smollm3", {{"use_sliding_window", true}})), HasSubstr("use_sliding_window"));
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
}

// ---- tensors ----

TEST(HuggingFaceTensors, GetTheirNamesInGguf) {
  const std::vector<std::string> list = {"model.embed_tokens.weight",
                                         "model.norm.weight",
                                         "lm_head.weight",
                                         "model.layers.0.input_layernorm.weight",
                                         "model.layers.0.self_attn.q_proj.weight",
                                         "model.layers.0.self_attn.q_proj.bias",
                                         "model.layers.0.self_attn.k_proj.weight",
                                         "model.layers.0.self_attn.v_proj.weight",
                                         "model.layers.0.self_attn.o_proj.weight",
                                         "model.layers.0.self_attn.q_norm.weight",
                                         "model.layers.0.self_attn.k_norm.weight",
                                         "model.layers.0.self_attn.rotary_emb.inv_freq",
                                         "model.layers.0.post_attention_layernorm.weight",
                                         "model.layers.12.mlp.gate_proj.weight",
                                         "model.layers.12.mlp.up_proj.weight",
                                         "model.layers.12.mlp.down_proj.weight"};
  const HuggingFaceFolder folder(config_of("llama"), tensors_named(list));
  const ModelFile m = open_model(folder.path());
  EXPECT_THAT(names(m), ElementsAre("blk.0.attn_k.weight", "blk.0.attn_k_norm.weight", "blk.0.attn_norm.weight",
                                    "blk.0.attn_output.weight", "blk.0.attn_q.bias", "blk.0.attn_q.weight",
                                    "blk.0.attn_q_norm.weight", "blk.0.attn_v.weight", "blk.0.ffn_norm.weight",
                                    "blk.12.ffn_down.weight", "blk.12.ffn_gate.weight", "blk.12.ffn_up.weight",
                                    "output.weight", "output_norm.weight", "token_embd.weight"));
  EXPECT_THAT(floats(m, "token_embd.weight"), ElementsAre(0, 1));
  EXPECT_THAT(floats(m, "output.weight"), ElementsAre(20, 21));
  EXPECT_THAT(floats(m, "blk.0.attn_q.bias"), ElementsAre(50, 51));
  EXPECT_THAT(floats(m, "blk.12.ffn_gate.weight"), ElementsAre(130, 131));
  EXPECT_THAT(floats(m, "blk.12.ffn_up.weight"), ElementsAre(140, 141));
  EXPECT_THAT(floats(m, "blk.12.ffn_down.weight"), ElementsAre(150, 151));
}

TEST(HuggingFaceTensors, OfPhi3AreJoined) {
  const HuggingFaceFolder folder(
      config_of("phi3"),
      tensors_named({"model.layers.0.self_attn.qkv_proj.weight", "lm_head.weight",
                     "model.layers.0.mlp.gate_up_proj.weight", "model.layers.0.mlp.down_proj.weight"}));
  EXPECT_THAT(names(open_model(folder.path())),
              ElementsAre("blk.0.attn_qkv.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up.weight", "output.weight"));
}

TEST(HuggingFaceTensors, OfExpertsAreOneByOne) {
  const HuggingFaceFolder mixtral(
      config_of("mixtral", {{"num_local_experts", 2}, {"num_experts_per_tok", 1}}),
      tensors_named({"model.layers.1.block_sparse_moe.gate.weight",
                     "model.layers.1.block_sparse_moe.experts.0.w1.weight",
                     "model.layers.1.block_sparse_moe.experts.0.w2.weight",
                     "model.layers.1.block_sparse_moe.experts.10.w3.weight", "lm_head.weight"}));
  const ModelFile m = open_model(mixtral.path());
  EXPECT_THAT(floats(m, "blk.1.ffn_gate_inp.weight"), ElementsAre(0, 1));
  EXPECT_THAT(floats(m, "blk.1.ffn_gate.0.weight"), ElementsAre(10, 11));
  EXPECT_THAT(floats(m, "blk.1.ffn_down.0.weight"), ElementsAre(20, 21));
  EXPECT_THAT(floats(m, "blk.1.ffn_up.10.weight"), ElementsAre(30, 31));

  const HuggingFaceFolder qwen(
      config_of(
          "qwen3_moe",
          {{"num_experts", 2}, {"num_experts_per_tok", 1}, {"moe_intermediate_size", 8}, {"norm_topk_prob", true}}),
      tensors_named({"model.layers.1.mlp.gate.weight", "model.layers.1.mlp.experts.3.gate_proj.weight",
                     "model.layers.1.mlp.experts.3.down_proj.weight", "model.layers.1.mlp.experts.3.up_proj.weight",
                     "lm_head.weight"}));
  const ModelFile q = open_model(qwen.path());
  EXPECT_THAT(floats(q, "blk.1.ffn_gate_inp.weight"), ElementsAre(0, 1));
  EXPECT_THAT(floats(q, "blk.1.ffn_gate.3.weight"), ElementsAre(10, 11));
  EXPECT_THAT(floats(q, "blk.1.ffn_down.3.weight"), ElementsAre(20, 21));
  EXPECT_THAT(floats(q, "blk.1.ffn_up.3.weight"), ElementsAre(30, 31));
}

TEST(HuggingFaceTensors, OfGemmaAreNamedByWhereTheyStand) {
  const std::vector<std::string> list = {"model.layers.0.input_layernorm.weight",
                                         "model.layers.0.post_attention_layernorm.weight",
                                         "model.layers.0.pre_feedforward_layernorm.weight",
                                         "model.layers.0.post_feedforward_layernorm.weight",
                                         "model.layers.0.self_attn.q_norm.weight",
                                         "model.layers.0.mlp.up_proj.weight",
                                         "model.norm.weight"};
  for (const char* type : {"gemma2", "gemma3_text"}) {
    const HuggingFaceFolder folder(config_of(type), tensors_named(list));
    const ModelFile m = open_model(folder.path());
    // Norms with one added.
    EXPECT_THAT(floats(m, "blk.0.attn_norm.weight"), ElementsAre(1, 2));
    EXPECT_THAT(floats(m, "blk.0.post_attention_norm.weight"), ElementsAre(11, 12));
    EXPECT_THAT(floats(m, "blk.0.ffn_norm.weight"), ElementsAre(21, 22));
    EXPECT_THAT(floats(m, "blk.0.post_ffw_norm.weight"), ElementsAre(31, 32));
    EXPECT_THAT(floats(m, "blk.0.attn_q_norm.weight"), ElementsAre(41, 42));
    EXPECT_THAT(floats(m, "blk.0.ffn_up.weight"), ElementsAre(50, 51));
    EXPECT_THAT(floats(m, "output_norm.weight"), ElementsAre(61, 62));
  }
  const HuggingFaceFolder first(config_of("gemma"), tensors_named({"model.layers.0.post_attention_layernorm.weight"}));
  EXPECT_THAT(floats(open_model(first.path()), "blk.0.ffn_norm.weight"), ElementsAre(1, 2));
}

TEST(HuggingFaceTensors, NormsWithOneAddedMayBeBf16AndOutliveAMove) {
  TestTensor norm{"model.norm.weight", {2}, {}, "BF16"};
  const Bytes halves = Bytes().number(f32_to_bf16(0.5f)).number(f32_to_bf16(-0.25f));
  norm.data.assign(std::span<const std::byte>(halves).begin(), std::span<const std::byte>(halves).end());
  const HuggingFaceFolder folder(config_of("gemma"), {norm});
  ModelFile moved;
  {
    ModelFile model = open_model(folder.path());
    moved = std::move(model);
  }
  EXPECT_THAT(floats(moved, "output_norm.weight"), ElementsAre(1.5, 0.75));
}

TEST(HuggingFaceTensors, NormsWithOneAddedAreSmall) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{(1 << 20) + 1}, {2, 2}}) {
    const HuggingFaceFolder folder(config_of("gemma"), {counting("model.norm.weight", shape)});
    EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("model.norm.weight"), HasSubstr("no vector")));
  }
}

TEST(HuggingFaceTensors, OfGemma3WithVisionAreTheTextsAlone) {
  const json config = {{"model_type", "gemma3"}, {"text_config", config_of("gemma3_text")}};
  for (const std::string prefix : {"language_model.model.", "model.language_model."}) {
    const HuggingFaceFolder folder(
        config, tensors_named({prefix + "embed_tokens.weight", prefix + "layers.3.mlp.up_proj.weight",
                               "vision_tower.vision_model.embeddings.patch_embedding.weight",
                               "model.vision_tower.vision_model.post_layernorm.bias",
                               "multi_modal_projector.mm_input_projection_weight"}));
    EXPECT_THAT(names(open_model(folder.path())), ElementsAre("blk.3.ffn_up.weight", "token_embd.weight"));
  }
}

TEST(HuggingFaceTensors, UnknownNamesAreRefused) {
  for (const std::string name :
       {"model.layers.0.self_attn.sinks", "model.layers.x.mlp.up_proj.weight", "model.layers.01.mlp.up_proj.weight",
        "model.layers.99999999999999999999.mlp.up_proj.weight", "model.layers.0", "model.layers.0.", "score.weight", "",
        ".weight", "model.layers.0.mlp.experts.w1.weight", "model.layers.0.mlp.experts.1.weight",
        "vision_tower.encoder.weight"}) {
    const HuggingFaceFolder folder(config_of("llama"), tensors_named({name, "lm_head.weight"}));
    EXPECT_THAT(error_in_folder(folder.path()), HasSubstr(fmt::format("tensor {} is not part", name)));
  }
}

TEST(HuggingFaceTensors, TwoNamesForOneAreRefused) {
  const HuggingFaceFolder folder(config_of("llama"),
                                 tensors_named({"model.norm.weight", "norm.weight", "lm_head.weight"}));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("output_norm.weight is there twice"));
}

TEST(HuggingFaceTensors, TheHeadIsSharedWhereTheFileSaysSo) {
  const auto has_output = [](const json& more, const std::vector<std::string>& list) {
    const HuggingFaceFolder folder(config_of("llama", more), tensors_named(list));
    return open_model(folder.path()).find("output.weight") != nullptr;
  };
  EXPECT_TRUE(has_output({}, {"model.embed_tokens.weight", "lm_head.weight"}));
  EXPECT_FALSE(has_output({}, {"model.embed_tokens.weight"}));
  EXPECT_FALSE(has_output({{"tie_word_embeddings", true}}, {"model.embed_tokens.weight", "lm_head.weight"}));
  EXPECT_THAT(error_of([&] {
                has_output({{"tie_word_embeddings", false}}, {"model.embed_tokens.weight"});
              }),
              HasSubstr("lm_head.weight is missing"));
}

TEST(HuggingFaceTensors, OtherNumbersAreNamed) {
  TestTensor tensor = counting("model.layers.0.mlp.up_proj.weight", {2});
  tensor.dtype = "I32";
  const HuggingFaceFolder folder(config_of("qwen2"), {tensor});
  EXPECT_THAT(error_in_folder(folder.path()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("mlp.up_proj.weight"), HasSubstr("I32")));
}

// ---- folders ----

TEST(HuggingFaceFolders, OpenByAnyOfTheirFiles) {
  HuggingFaceFolder folder(config_of("qwen2"), tensors_named({"model.norm.weight"}));
  folder.write("generation_config.json", json{{"eos_token_id", {4, 5}}});
  folder.write("tokenizer_config.json", json{{"chat_template", "inside"}});
  for (const std::string& path :
       {folder.path(), folder.path() + "/", folder.file("config.json"), folder.file("model.safetensors")}) {
    const ModelFile m = open_model(path);
    EXPECT_EQ(m.kind, "Hugging Face (safetensors)");
    EXPECT_EQ(std::filesystem::path(m.path).parent_path(), std::filesystem::path(folder.path() + "/").parent_path());
    EXPECT_EQ(m.metadata.get_string("general.name"), std::filesystem::path(folder.path()).filename());
    EXPECT_EQ(m.metadata.get_string("tokenizer.chat_template"), "inside");
    EXPECT_THAT(m.metadata.get_ints("tokenizer.end_token_ids"), ElementsAre(4, 5));
    EXPECT_THAT(names(m), ElementsAre("output_norm.weight"));
  }
  folder.write("chat_template.jinja", "beside");
  EXPECT_EQ(open_model(folder.path()).metadata.get_string("tokenizer.chat_template"), "beside");
}

TEST(HuggingFaceFolders, OfTheHubsCacheAreNamedAfterTheModel) {
  const TemporaryFolder cache;
  const std::filesystem::path snapshot = cache.path() / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / "060db6499f32";
  std::filesystem::create_directories(snapshot);
  save(snapshot / "config.json", Bytes().raw(config_of("qwen2").dump()));
  save(snapshot / "model.safetensors", safetensors(tensors_named({"model.norm.weight"})));
  EXPECT_EQ(open_model(snapshot).metadata.get_string("general.name"), "Qwen2.5-0.5B");
}

TEST(HuggingFaceFolders, ShardsAreOpenedWhole) {
  HuggingFaceFolder folder;
  folder.write("config.json", config_of("qwen2"));
  save(folder.file("model-00001-of-00002.safetensors"),
       safetensors(tensors_named({"model.norm.weight", "model.embed_tokens.weight"})));
  save(folder.file("model-00002-of-00002.safetensors"),
       safetensors(tensors_named({"model.layers.0.mlp.up_proj.weight"})));
  const json index = {{"weight_map",
                       {{"model.norm.weight", "model-00001-of-00002.safetensors"},
                        {"model.embed_tokens.weight", "model-00001-of-00002.safetensors"},
                        {"model.layers.0.mlp.up_proj.weight", "model-00002-of-00002.safetensors"}}}};
  folder.write("model.safetensors.index.json", index);
  for (const std::string& path :
       {folder.path(), folder.file("model.safetensors.index.json"), folder.file("model-00002-of-00002.safetensors")}) {
    const ModelFile m = open_model(path);
    EXPECT_THAT(names(m), ElementsAre("blk.0.ffn_up.weight", "output_norm.weight", "token_embd.weight"));
    EXPECT_EQ(m.maps.size(), 2u);
    EXPECT_EQ(m.kind, "Hugging Face (safetensors), 2 parts");
  }

  json wrong = index;
  wrong["weight_map"]["model.layers.0.mlp.down_proj.weight"] = "model-00002-of-00002.safetensors";
  folder.write("model.safetensors.index.json", wrong);
  EXPECT_THAT(error_in_folder(folder.path()),
              AllOf(HasSubstr("model-00002-of-00002"), HasSubstr("mlp.down_proj.weight is missing")));

  for (const char* hostile : {"../model.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "a\\b"}) {
    wrong = index;
    wrong["weight_map"]["model.norm.weight"] = hostile;
    folder.write("model.safetensors.index.json", wrong);
    EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("no plain name")) << hostile;
  }
  wrong["weight_map"]["model.norm.weight"] = 3;
  folder.write("model.safetensors.index.json", wrong);
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("model.norm.weight is 3"));
  wrong["weight_map"]["model.norm.weight"] = "model-00003-of-00002.safetensors";
  folder.write("model.safetensors.index.json", wrong);
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("cannot open"));
}

TEST(HuggingFaceFolders, SayWhatIsMissing) {
  HuggingFaceFolder folder;
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("config.json"));
  save(folder.file("model.safetensors"), safetensors(tensors_named({"model.norm.weight"})));
  EXPECT_THAT(error_in_folder(folder.file("model.safetensors")), HasSubstr("config.json is missing"));
  std::filesystem::remove(folder.file("model.safetensors"));
  folder.write("config.json", config_of("llama"));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("no model.safetensors"));
  save(folder.file("pytorch_model.bin"), Bytes().raw("PK"));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("only pytorch_model.bin"));
  folder.write("config.json", "{\"model_type\":");
  EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("config.json"), HasSubstr("not JSON")));
  folder.write("config.json", "[1]");
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("no JSON object"));
}

TEST(HuggingFaceFolders, LargeJsonIsNotRead) {
  HuggingFaceFolder folder(config_of("llama"), tensors_named({"lm_head.weight"}));
  folder.write("tokenizer_config.json", "{}");
  std::filesystem::resize_file(folder.file("tokenizer_config.json"), uint64_t{4} << 30);
  EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("more than")));
}

}  // namespace
}  // namespace contexture
