#include <algorithm>
#include <cmath>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "files/huggingface.h"
#include "files/huggingface_family.h"

// config.json as llama.cpp's metadata keys. What the keys mean is the model room's; here they are only carried over,
// and what they cannot say is refused.

namespace contexture {
namespace {

// No known model comes near these; beyond them a number is damage and not a size.
constexpr int64_t max_size = int64_t{1} << 31;

[[noreturn]] void refuse(const JsonObject& config, std::string_view what) {
  fail("{}: {}; use another model", printable(config.file(), 400), what);
}

/// "layer_types" must say what the family does anyway: newer configurations write the pattern out.
template <typename IsSliding>
void check_layer_types(const JsonObject& config, IsSliding is_sliding) {
  const nlohmann::json* types = config.find("layer_types");
  if (!types) return;
  if (!types->is_array()) config.refuse("layer_types", "a list of strings");
  for (size_t layer = 0; layer < types->size(); ++layer) {
    if ((*types)[layer] != (is_sliding(layer) ? "sliding_attention" : "full_attention")) {
      refuse(config, fmt::format("layer_types is not the pattern of this family from layer {} on", layer));
    }
  }
}

void full_attention(const JsonObject& config, FamilyWriter&) {
  check_layer_types(config, [](size_t) { return false; });
}

void refuse_sliding(const JsonObject& config, FamilyWriter& out) {
  if (config.get_bool("use_sliding_window", false) && config.has("sliding_window")) {
    refuse(config, "use_sliding_window is not supported");
  }
  full_attention(config, out);
}

/// Windows begin in a layer that the configuration names; where that is beyond the last there are none.
void qwen(const JsonObject& config, FamilyWriter& out) {
  const bool none =
      config.get_int("max_window_layers", 0, max_size) >= config.get_int("num_hidden_layers", 1, max_size);
  return none ? full_attention(config, out) : refuse_sliding(config, out);
}

void window_of_all(const JsonObject& config, FamilyWriter& out) {
  const bool sliding = config.has("sliding_window");
  if (sliding) out.set_int("attention.sliding_window", config.get_int("sliding_window", 1, max_size));
  check_layer_types(config, [sliding](size_t) { return sliding; });
}

void mixtral(const JsonObject& config, FamilyWriter& out) {
  window_of_all(config, out);
  out.set_int("expert_count", config.get_int("num_local_experts", 1, max_size));
  out.set_int("expert_used_count", config.get_int("num_experts_per_tok", 1, max_size));
}

void qwen3_moe(const JsonObject& config, FamilyWriter& out) {
  refuse_sliding(config, out);
  const nlohmann::json* dense = config.find("mlp_only_layers");
  if ((dense && *dense != nlohmann::json::array()) || config.get_int("decoder_sparse_step", 0, max_size, 1) != 1) {
    refuse(config, "layers without experts (mlp_only_layers, decoder_sparse_step) are not supported");
  }
  if (!config.get_bool("norm_topk_prob", false)) {
    refuse(config, "experts whose weights do not add up to 1 (norm_topk_prob false) are not supported");
  }
  out.set_int("expert_count", config.get_int("num_experts", 1, max_size));
  out.set_int("expert_used_count", config.get_int("num_experts_per_tok", 1, max_size));
  out.set_int("expert_feed_forward_length", config.get_int("moe_intermediate_size", 1, max_size));
}

/// Every fourth layer without rotation is what the architecture means; there is no key for anything else.
void smollm3(const JsonObject& config, FamilyWriter& out) {
  refuse_sliding(config, out);
  constexpr int64_t interval = 4;
  const nlohmann::json* layers = config.find("no_rope_layers");  // of each layer: whether it rotates, after all
  bool usual = layers || config.get_int("no_rope_layer_interval", 0, max_size, interval) == interval;
  if (layers && !layers->is_array()) config.refuse("no_rope_layers", "a list of 0 and 1");
  for (size_t layer = 0; layers && layer < layers->size(); ++layer) {
    usual = usual && (*layers)[layer] == ((layer + 1) % interval != 0 ? 1 : 0);
  }
  if (!usual) refuse(config, "layers without rotation (no_rope_layers) other than every fourth are not supported");
}

void granite(const JsonObject& config, FamilyWriter& out) {
  out.set_float("embedding_scale", config.get_number("embedding_multiplier", 1));
  out.set_float("residual_scale", config.get_number("residual_multiplier", 1));
  out.set_float("attention.scale", config.get_number("attention_multiplier", 1));
  out.set_float("logit_scale", config.get_number("logits_scaling", 1));
  full_attention(config, out);
}

void phi3(const JsonObject& config, FamilyWriter& out) {
  window_of_all(config, out);
  out.set_int("rope.scaling.original_context_length", config.get_int("original_max_position_embeddings", 1, max_size));
}

void set_query_scale(const JsonObject& config, FamilyWriter& out) {
  const double scalar = config.get_number("query_pre_attn_scalar");
  if (!(scalar > 0)) config.refuse("query_pre_attn_scalar", "a number above 0");
  out.set_float("attention.scale", 1 / std::sqrt(scalar));
}

void gemma2(const JsonObject& config, FamilyWriter& out) {
  set_query_scale(config, out);
  out.set_int("attention.sliding_window", config.get_int("sliding_window", 1, max_size));
  out.set_float("attn_logit_softcapping", config.get_number("attn_logit_softcapping", 0));
  out.set_float("final_logit_softcapping", config.get_number("final_logit_softcapping", 0));
  check_layer_types(config, [](size_t layer) { return layer % 2 == 0; });
}

void gemma3(const JsonObject& config, FamilyWriter& out) {
  set_query_scale(config, out);
  const int64_t usual = config.get_int("_sliding_window_pattern", 1, max_size, 6);
  const int64_t pattern = config.get_int("sliding_window_pattern", 1, max_size, usual);
  out.set_int("attention.sliding_window_pattern", pattern);
  out.set_int("attention.sliding_window", config.get_int("sliding_window", 1, max_size));
  out.set_float("final_logit_softcapping", config.get_number("final_logit_softcapping", 0));
  const JsonObject local = config.get_object("rope_parameters").get_object("sliding_attention");
  if (local.get_string("rope_type", "default") != "default") {
    refuse(config, "scaled rotation in layers with a window is not supported");
  }
  refuse_uncarried_rope_fields(local, "default");
  out.set_float("rope.freq_base_swa", local.get_number("rope_theta", config.get_number("rope_local_base_freq")));
  check_layer_types(config, [pattern](size_t layer) { return (static_cast<int64_t>(layer) + 1) % pattern != 0; });
}

// Of the classes of Hugging Face's transformers, configuration_*.py. A field that is null there is missing here.
constexpr std::string_view llama_defaults = R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6})";
constexpr std::string_view mistral_defaults = R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6, "sliding_window": 4096})";
constexpr std::string_view mixtral_defaults = R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2})";
constexpr std::string_view qwen2_defaults = R"({"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28})";
constexpr std::string_view qwen3_defaults = R"({"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28})";
constexpr std::string_view qwen3_moe_defaults = R"({"vocab_size": 151936, "hidden_size": 2048,
    "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 4,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "sliding_window": 4096, "moe_intermediate_size": 768,
    "num_experts": 128, "num_experts_per_tok": 8})";
constexpr std::string_view smollm3_defaults = R"({"vocab_size": 128256, "hidden_size": 2048,
    "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 2e6})";
constexpr std::string_view phi3_defaults = R"({"vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
    "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5})";
constexpr std::string_view gemma_defaults = R"({"vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6})";
constexpr std::string_view gemma2_defaults = R"({"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "attn_logit_softcapping": 50, "final_logit_softcapping": 30})";
constexpr std::string_view gemma3_defaults = R"({"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
    "query_pre_attn_scalar": 256, "sliding_window": 4096})";

constexpr HuggingFaceFamily families[] = {
    {.model_type = "llama",
     .architecture = "llama",
     .halves_key = true,
     .defaults = llama_defaults,
     .particular = full_attention},
    {.model_type = "mistral",
     .architecture = "llama",
     .halves_key = true,
     .defaults = mistral_defaults,
     .particular = window_of_all},
    {.model_type = "mixtral",
     .architecture = "llama",
     .halves_key = true,
     .defaults = mixtral_defaults,
     .particular = mixtral},
    {.model_type = "qwen2", .architecture = "qwen2", .defaults = qwen2_defaults, .particular = qwen},
    {.model_type = "qwen3", .architecture = "qwen3", .defaults = qwen3_defaults, .particular = qwen},
    {.model_type = "qwen3_moe", .architecture = "qwen3moe", .defaults = qwen3_moe_defaults, .particular = qwen3_moe},
    {.model_type = "smollm3",
     .architecture = "smollm3",
     .halves_key = true,
     .tied = true,
     .defaults = smollm3_defaults,
     .particular = smollm3},
    {.model_type = "granite",
     .architecture = "granite",
     .halves_key = true,
     .defaults = llama_defaults,
     .particular = granite},
    {.model_type = "phi3", .architecture = "phi3", .defaults = phi3_defaults, .particular = phi3},
    {.model_type = "gemma",
     .architecture = "gemma",
     .gelu = true,
     .norms_plus_one = true,
     .tied = true,
     .defaults = gemma_defaults,
     .particular = full_attention},
    {.model_type = "gemma2",
     .architecture = "gemma2",
     .gelu = true,
     .norms_plus_one = true,
     .post_norms = true,
     .tied = true,
     .defaults = gemma2_defaults,
     .particular = gemma2},
    {.model_type = "gemma3_text",
     .architecture = "gemma3",
     .gelu = true,
     .norms_plus_one = true,
     .post_norms = true,
     .tied = true,
     .defaults = gemma3_defaults,
     .particular = gemma3},
    {.model_type = "gemma3",
     .architecture = "gemma3",
     .gelu = true,
     .norms_plus_one = true,
     .post_norms = true,
     .tied = true,
     .defaults = gemma3_defaults,
     .particular = gemma3},
};

/// SiLU, or GELU by the tanh form under one of its names. "gelu" alone is another function, but in the first Gemma's
/// hidden_act it means that form too.
void check_activation(const HuggingFaceFamily& family, const JsonObject& config) {
  const bool named = config.has("hidden_activation");
  const char* const field = named ? "hidden_activation" : "hidden_act";
  const std::string activation = config.get_string(field, family.gelu ? "gelu_pytorch_tanh" : "silu");
  constexpr std::string_view silu[] = {"silu", "swish"};
  constexpr std::string_view gelu[] = {"gelu_pytorch_tanh", "gelu_python_tanh", "gelu_new", "gelu_fast"};
  const std::span<const std::string_view> right = family.gelu ? std::span<const std::string_view>(gelu) : silu;
  const bool meant = family.gelu && !named && activation == "gelu";
  if (meant || std::find(right.begin(), right.end(), activation) != right.end()) return;
  refuse(config, fmt::format("{} {} is not supported in a {} model", field, printable(activation), family.model_type));
}

void write_sizes(const JsonObject& config, FamilyWriter& out) {
  struct Size {
    const char* theirs;
    const char* gguf;
  };
  constexpr Size sizes[] = {{"num_hidden_layers", "block_count"},
                            {"max_position_embeddings", "context_length"},
                            {"hidden_size", "embedding_length"},
                            {"intermediate_size", "feed_forward_length"},
                            {"num_attention_heads", "attention.head_count"},
                            {"vocab_size", "vocab_size"}};
  for (const auto& [theirs, gguf] : sizes) out.set_int(gguf, config.get_int(theirs, 1, max_size));
  const int64_t heads = config.get_int("num_attention_heads", 1, max_size);
  out.set_int("attention.head_count_kv", config.get_int("num_key_value_heads", 1, max_size, heads));
  if (config.has("head_dim")) {
    const int64_t head_dim = config.get_int("head_dim", 1, max_size);
    out.set_int("attention.key_length", head_dim);
    out.set_int("attention.value_length", head_dim);
  }
  out.set_float("attention.layer_norm_rms_epsilon", config.get_number("rms_norm_eps"));
}

/// Where a configuration tells of the rotation: rope_scaling, or in newer ones rope_parameters, of Gemma 3 a set for
/// each type of layer.
JsonObject rope_object(const HuggingFaceFamily& family, const JsonObject& config) {
  if (!config.has("rope_parameters")) return config.get_object("rope_scaling");
  if (config.has("rope_scaling") && *config.find("rope_scaling") != *config.find("rope_parameters")) {
    refuse(config, "rope_scaling and rope_parameters contradict each other");
  }
  const JsonObject rope = config.get_object("rope_parameters");
  const bool by_layer = family.architecture == "gemma3" && rope.has("full_attention");
  return by_layer ? rope.get_object("full_attention") : rope;
}

/// LongRoPE (arXiv:2402.13753): divisors for short and for long contexts, and a factor for the rotated vectors.
void write_longrope(const JsonObject& config, const JsonObject& rope, int64_t rope_dim, FamilyWriter& out) {
  const int64_t context = config.get_int("max_position_embeddings", 1, max_size);
  const int64_t original = rope.get_int("original_max_position_embeddings", 1, max_size,
                                        config.get_int("original_max_position_embeddings", 1, max_size, context));
  const bool said = config.has("original_max_position_embeddings") || rope.has("original_max_position_embeddings");
  const double stretch =
      said ? static_cast<double>(context) / static_cast<double>(original) : rope.get_number("factor", 1);
  const double usual =
      stretch > 1 && original > 1 ? std::sqrt(1 + std::log(stretch) / std::log(static_cast<double>(original))) : 1;
  out.set_string("rope.scaling.type", "longrope");
  out.set_int("rope.scaling.original_context_length", original);
  out.set_float("rope.scaling.attn_factor", rope.get_number("attention_factor", usual));
  for (const char* which : {"long", "short"}) {
    const std::string key = fmt::format("{}_factor", which);
    std::vector<float> divisors = rope.get_floats(key);
    if (divisors.size() != static_cast<size_t>(rope_dim) / 2 || divisors.empty()) {
      rope.refuse(key, fmt::format("a list of {} numbers", rope_dim / 2));
    }
    out.model().add_made(fmt::format("rope_factors_{}.weight", which), std::move(divisors));
  }
}

void write_rope(const HuggingFaceFamily& family, const JsonObject& config, FamilyWriter& out) {
  const JsonObject rope = rope_object(family, config);
  out.set_float("rope.freq_base", rope.get_number("rope_theta", config.get_number("rope_theta", 10000)));
  if (family.halves_key) out.set_string("rope.style", "halves");

  const int64_t heads = config.get_int("num_attention_heads", 1, max_size);
  const int64_t head_dim = config.get_int("head_dim", 1, max_size, config.get_int("hidden_size", 1, max_size) / heads);
  const double part = rope.get_number("partial_rotary_factor", config.get_number("partial_rotary_factor", 1));
  if (!(part > 0 && part <= 1)) config.refuse("partial_rotary_factor", "a number above 0 and up to 1");
  const auto rope_dim = static_cast<int64_t>(static_cast<double>(head_dim) * part);
  out.set_int("rope.dimension_count", rope_dim);

  std::string type = rope.get_string("rope_type", rope.get_string("type", "default"));
  if (type == "su") type = "longrope";
  if (type == "none") type = "default";
  if (type != "default" && type != "linear" && type != "llama3" && type != "longrope" && type != "yarn") {
    refuse(config, fmt::format("rope_scaling of type {} is not supported (linear, llama3, longrope and yarn are)",
                               printable(type)));
  }
  refuse_uncarried_rope_fields(rope, type);
  if (type == "default") return;
  if (type == "longrope") return write_longrope(config, rope, rope_dim, out);
  out.set_string("rope.scaling.type", type);
  out.set_float("rope.scaling.factor", rope.get_number("factor"));
  if (type == "linear") return;
  out.set_int("rope.scaling.original_context_length",
              rope.get_int("original_max_position_embeddings", 1, max_size,
                           config.get_int("max_position_embeddings", 1, max_size)));
  if (type == "llama3") {
    out.set_float("rope.scaling.low_freq_factor", rope.get_number("low_freq_factor"));
    out.set_float("rope.scaling.high_freq_factor", rope.get_number("high_freq_factor"));
  }
}

/// A model with vision has its text model's configuration inside.
JsonObject text_config(const HuggingFaceFamily& family, const JsonObject& config) {
  if (!config.has("text_config") || family.model_type != "gemma3") return config;
  JsonObject text = config.get_object("text_config");
  text.add_missing(config.value());
  return text;
}

}  // namespace

const HuggingFaceFamily& huggingface_family(const JsonObject& config) {
  const std::string type = config.get_string("model_type", "");
  std::string known;
  for (const HuggingFaceFamily& family : families) {
    if (family.model_type == type) return family;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", family.model_type);
  }
  fail("{}: unknown model_type '{}'; this version knows {}", printable(config.file(), 400), printable(type), known);
}

void read_huggingface_config(const JsonObject& whole, ModelFile& model) {
  const HuggingFaceFamily& family = huggingface_family(whole);
  if (whole.has("quantization_config")) {
    const std::string method = whole.get_object("quantization_config").get_string("quant_method", "unknown");
    fail("{}: weights quantised by {} are not supported; use the original model, or a quantised GGUF",
         printable(whole.file(), 400), printable(method));
  }
  JsonObject config = text_config(family, whole);
  config.add_missing(parse_json(family.defaults, "defaults"));
  refuse_uncarried_fields(family, config);
  check_activation(family, config);
  model.metadata.set_string("general.architecture", std::string(family.architecture));
  FamilyWriter out(model, family.architecture);
  write_sizes(config, out);
  if (family.particular) family.particular(config, out);
  write_rope(family, config, out);
}

}  // namespace contexture
