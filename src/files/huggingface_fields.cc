#include <algorithm>

#include "base/error.h"
#include "files/computing_fields.h"
#include "files/huggingface_family.h"

// Fields of config.json that change what a model computes. Families read those that are theirs
// (huggingface_config.cc); what another one's configuration says by them must be what changes nothing.

namespace contexture {
namespace {

constexpr ComputingField computing_fields[] = {
    {"add_cross_attention", "[false]"},
    {"alibi", "[false]"},
    {"attention_chunk_size", "[]"},
    {"attention_multiplier", "[]", "granite"},
    {"attention_out_bias", "[false]"},
    {"attn_logit_softcapping", "[0]", "gemma2"},
    {"attn_temperature_tuning", "[false, 0]"},
    {"clip_qkv", "[]"},
    {"compression_config", "[]"},
    {"decoder_sparse_step", "[1]", "qwen3_moe"},
    {"dual_chunk_attention_config", "[]"},
    {"embedding_multiplier", "[1]", "granite"},
    {"final_logit_softcapping", "[0]", "gemma2 gemma3 gemma3_text"},
    {"first_k_dense_replace", "[0]"},
    {"global_rope_theta", "[]"},
    {"interleave_moe_layer_step", "[0, 1]"},
    {"is_causal", "[true]"},
    {"is_encoder_decoder", "[false]"},
    {"lm_head_bias", "[false]"},
    {"local_rope_theta", "[]"},
    {"logit_scale", "[1]"},
    {"logits_scaling", "[1]", "granite"},
    {"mlp_bias", "[false]"},
    {"mlp_only_layers", "[[]]", "qwen3_moe"},
    {"moe_layer_freq", "[1]"},
    {"mup_enabled", "[false]"},
    {"n_group", "[0, 1]"},
    {"n_shared_experts", "[0]"},
    {"no_rope_layer_interval", "[0]", "smollm3"},
    {"no_rope_layers", "[[]]", "smollm3"},
    {"norm_topk_prob", "[true]", "qwen3_moe"},
    {"num_experts", "[0]", "mixtral qwen3_moe"},
    {"num_local_experts", "[0]", "mixtral qwen3_moe"},
    {"num_shared_experts", "[0]"},
    {"parallel_attn", "[false]"},
    {"qk_layernorm", "[false]"},
    {"qk_norm", "[false]", "qwen3 qwen3_moe gemma3 gemma3_text"},
    {"query_pre_attn_scalar", "[]", "gemma2 gemma3 gemma3_text"},
    {"residual_multiplier", "[1]", "granite"},
    {"rope_local_base_freq", "[]", "gemma3 gemma3_text"},
    {"rotary_pct", "[1]"},
    {"routed_scaling_factor", "[1]"},
    {"scale_depth", "[]"},
    {"scale_emb", "[1]"},
    {"scoring_func", "[\"softmax\"]"},
    {"shared_expert_intermediate_size", "[0]"},
    {"sliding_window", "[]", "mistral mixtral phi3 qwen2 qwen3 qwen3_moe smollm3 gemma2 gemma3 gemma3_text"},
    {"topk_group", "[0, 1]"},
    {"use_bidirectional_attention", "[false]"},
    {"use_mrope", "[false]"},
    {"use_parallel_residual", "[false]"},
    {"use_qk_norm", "[false]", "qwen3 qwen3_moe gemma3 gemma3_text"},
    {"use_sliding_window", "[false]", "qwen2 qwen3 qwen3_moe smollm3"},
    {"v_head_dim", "[]"},
};

}  // namespace

void refuse_uncarried_fields(const HuggingFaceFamily& family, const JsonObject& config) {
  refuse_uncarried(computing_fields, family.model_type, config);
}

void refuse_uncarried_rope_fields(const JsonObject& rope, std::string_view type) {
  struct OfType {
    std::string_view type, fields;
  };
  constexpr OfType types[] = {
      {"default", ""},
      {"linear", "factor"},
      {"llama3", "factor low_freq_factor high_freq_factor"},
      {"longrope", "factor long_factor short_factor attention_factor"},
      {"yarn", "factor attention_factor beta_fast beta_slow mscale mscale_all_dim truncate"},
  };
  constexpr std::string_view of_all =
      "rope_type type rope_theta partial_rotary_factor original_max_position_embeddings finetuned";
  const auto found = std::find_if(std::begin(types), std::end(types), [&](const OfType& t) { return t.type == type; });
  const std::string_view of_type = found == std::end(types) ? "" : found->fields;
  for (const auto& [field, value] : rope.value().items()) {
    const bool says_nothing = value.is_null() || ((field == "factor" || field == "attention_factor") && value == 1);
    if (says_nothing || has_word(of_all, field) || has_word(of_type, field)) continue;
    fail("{}: rope_scaling has {} with the type {}, which this version does not know together; use another model",
         printable(rope.file(), 400), printable(field), type);
  }
}

}  // namespace contexture
