#include "base/error.h"
#include "files/folder.h"
#include "files/huggingface_family.h"

// Names of tensors, "model.layers.0.self_attn.q_proj.weight" and so on, in GGUF's vocabulary.

namespace contexture {
namespace {

constexpr TensorName outside_layers[] = {
    {"embed_tokens", "token_embd"}, {"norm", "output_norm"}, {"lm_head", "output"}};

constexpr TensorName of_layer[] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.qkv_proj", "attn_qkv"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"mlp.gate", "ffn_gate_inp"},
    {"block_sparse_moe.gate", "ffn_gate_inp"},
};

constexpr TensorName of_expert[] = {
    {"gate_proj", "ffn_gate"}, {"up_proj", "ffn_up"}, {"down_proj", "ffn_down"},
    {"w1", "ffn_gate"},        {"w3", "ffn_up"},      {"w2", "ffn_down"},
};

/// "self_attn.q_proj" in layer "0" → "blk.0.attn_q"; empty where it is not known.
std::string layer_name(const HuggingFaceFamily& family, std::string_view layer, std::string_view module) {
  if (family.post_norms && module == "post_attention_layernorm") {
    return fmt::format("blk.{}.post_attention_norm", layer);
  }
  if (take_prefix(module, "mlp.experts.") || take_prefix(module, "block_sparse_moe.experts.")) {
    const std::string_view expert = take_number(module);
    const std::string_view name = look_up(of_expert, module);
    return expert.empty() || name.empty() ? "" : fmt::format("blk.{}.{}.{}", layer, name, expert);
  }
  const std::string_view name = look_up(of_layer, module);
  return name.empty() ? "" : fmt::format("blk.{}.{}", layer, name);
}

bool is_vision(std::string_view name) {
  take_prefix(name, "model.");
  return name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
}

}  // namespace

std::string gguf_tensor_name(const HuggingFaceFamily& family, std::string_view name, bool tied,
                             const std::string& path) {
  std::string_view rest = name;
  if (family.model_type == "gemma3") {
    if (is_vision(rest)) return "";
    // Older and newer savings put the text model's prefix on either side of "model.".
    if (!take_prefix(rest, "model.language_model.")) take_prefix(rest, "language_model.");
  }
  take_prefix(rest, "model.");
  if (rest.ends_with("rotary_emb.inv_freq")) return "";
  if (tied && rest == "lm_head.weight") return "";

  const size_t dot = rest.rfind('.');
  const std::string_view kind = dot == rest.npos ? "" : rest.substr(dot);
  std::string gguf;
  if (kind == ".weight" || kind == ".bias") {
    rest.remove_suffix(kind.size());
    if (take_prefix(rest, "layers.")) {
      const std::string_view layer = take_number(rest);
      if (!layer.empty()) gguf = layer_name(family, layer, rest);
    } else {
      gguf = look_up(outside_layers, rest);
    }
  }
  if (gguf.empty()) {
    fail("{}: tensor {} is not part of a {} model as this program knows it; ignoring it would give wrong answers",
         printable(path, 400), printable(name), family.model_type);
  }
  return gguf.append(kind);
}

}  // namespace contexture
