#pragma once

#include <string_view>

#include "files/json_object.h"
#include "files/model_file.h"

// Inside src/files alone: what the parts of the Hugging Face reader share.

namespace contexture {

/// Writes metadata keys under an architecture's prefix.
class FamilyWriter {
 public:
  FamilyWriter(ModelFile& model, std::string_view architecture) : model_(model), prefix_(architecture) {}
  void set_int(std::string_view key, int64_t value) { model_.metadata.set_int(full(key), value); }
  void set_float(std::string_view key, double value) { model_.metadata.set_float(full(key), value); }
  void set_string(std::string_view key, std::string value) { model_.metadata.set_string(full(key), std::move(value)); }
  ModelFile& model() { return model_; }

 private:
  std::string full(std::string_view key) const { return prefix_ + "." + std::string(key); }

  ModelFile& model_;
  std::string prefix_;
};

/// One family of models as Hugging Face knows it. To add one, add its line in huggingface_config.cc.
struct HuggingFaceFamily {
  std::string_view model_type;
  std::string_view architecture;  ///< in GGUF's vocabulary
  bool halves_key = false;        ///< the architecture's GGUF files reorder Q and K, so rope.style must be said
  bool gelu = false;              ///< the tanh form; else SiLU
  bool norms_plus_one = false;    ///< norms multiply by 1 + weight; GGUF's hold the sum
  bool post_norms = false;        ///< post_attention_layernorm is what it says, not the norm before the feed-forward
  bool tied = false;              ///< the head is the embedding where the configuration does not say
  /// What the library's class assumes where the configuration leaves a field out, as JSON.
  std::string_view defaults = "{}";
  /// What the family has beyond the common fields; may be null.
  void (*particular)(const JsonObject& config, FamilyWriter& out) = nullptr;
};

/// The family of config.json's model_type. Throws Error for an unknown one.
const HuggingFaceFamily& huggingface_family(const JsonObject& config);

/// Throws Error where the configuration has a field that changes what a model computes, that this family does not carry
/// out, and whose value is not the one that changes nothing.
void refuse_uncarried_fields(const HuggingFaceFamily& family, const JsonObject& config);
/// The same for what describes the rotation, rope_scaling or rope_parameters, of this type.
void refuse_uncarried_rope_fields(const JsonObject& rope, std::string_view type);

/// GGUF's name for a tensor; empty for one that is not needed (a table of the rotation, the vision part of Gemma 3, an
/// lm_head where `tied`). Throws Error for a name that is not known. `path` is for messages.
std::string gguf_tensor_name(const HuggingFaceFamily& family, std::string_view name, bool tied,
                             const std::string& path);

}  // namespace contexture
