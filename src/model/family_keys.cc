#include "model/family_keys.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"

namespace contexture {
namespace {

// No known model comes near it; beyond it a number is damage and not a size.
constexpr int64_t max_layers = 4096;

/// Keys that change what a model computes, and the values with which they change nothing. A family that carries one out
/// asks for it; in the files of the others it must hold one of these.
struct ComputingKey {
  std::string_view key;
  double neutral[2];
};
constexpr ComputingKey computing_keys[] = {
    {"attention.causal", {1, 1}},
    {"attention.output_scale", {0, 1}},
    {"attention.value_scale", {0, 1}},
    {"attn_logit_softcapping", {0, 0}},
    {"embedding_length_per_layer_input", {0, 0}},
    {"embedding_scale", {0, 1}},
    {"expert_gating_func", {0, 1}},  // 1 is softmax
    {"expert_group_count", {0, 1}},
    {"expert_group_used_count", {0, 1}},
    {"expert_weights_norm", {1, 1}},
    {"expert_weights_scale", {0, 1}},
    {"final_logit_softcapping", {0, 0}},
    {"full_attention_interval", {0, 1}},
    {"hash_layer_count", {0, 0}},
    {"interleave_moe_layer_step", {0, 1}},
    {"leading_dense_block_count", {0, 0}},
    {"logit_scale", {0, 1}},
    {"moe_every_n_layers", {0, 1}},
    {"moe_latent_size", {0, 0}},
    {"n_deepstack_layers", {0, 0}},
    {"nextn_predict_layers", {0, 0}},
    {"norm_before_residual", {0, 0}},
    {"rescale_every_n_layers", {0, 0}},
    {"residual_scale", {0, 1}},
    {"rope.scaling.alpha", {0, 1}},
    {"rope.scaling.yarn_attn_factor", {0, 1}},
    {"router_logit_softcapping", {0, 0}},
    {"swiglu_clamp_exp", {0, 0}},
    {"swiglu_clamp_shexp", {0, 0}},
    {"swin_norm", {0, 0}},
    {"use_parallel_residual", {0, 0}},
};

/// All other keys that begin so change what a model computes, those of times to come too, unless they are off (0).
constexpr std::string_view computing_groups[] = {"attention.", "rope.", "expert",           "ssm.",
                                                 "wkv.",       "kda.",  "hyper_connection", "shortconv."};

/// Of these groups, but without effect on the families here: they norm by RMS, and whether a rotation was trained or
/// only stretched makes no difference (Granite asks for it and means something else).
constexpr std::string_view without_effect[] = {"attention.layer_norm_epsilon", "attention.group_norm_epsilon",
                                               "attention.group_norm_groups", "rope.scaling.finetuned"};

template <typename List, typename Value>
bool is_in(const List& list, const Value& value) {
  return std::find(std::begin(list), std::end(list), value) != std::end(list);
}

/// A number, a bool, or an array whose elements are all the same; nothing for anything else.
std::optional<double> one_number(const MetadataValue& value) {
  const auto same = [](const auto& list) -> std::optional<double> {
    const bool all = std::all_of(list.begin(), list.end(), [&](auto one) { return one == list.front(); });
    if (list.empty() || !all) return std::nullopt;
    return static_cast<double>(list.front());
  };
  if (const auto* number = std::get_if<int64_t>(&value.data)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<uint64_t>(&value.data)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<double>(&value.data)) return *number;
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value.data)) return same(*list);
  if (const auto* list = std::get_if<std::vector<float>>(&value.data)) return same(*list);
  return std::nullopt;
}

/// As messages show a value; long ones not whole.
std::string shown(const MetadataValue& value) {
  const auto list_of = [](const auto& list) {
    constexpr size_t most = 8;
    const auto first = std::vector(list.begin(), list.begin() + static_cast<ptrdiff_t>(std::min(most, list.size())));
    return fmt::format("[{}{}]", fmt::join(first, ", "), list.size() > most ? ", ..." : "");
  };
  if (const auto* text = std::get_if<std::string>(&value.data)) return fmt::format("'{}'", printable(*text));
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value.data)) return list_of(*list);
  if (const auto* list = std::get_if<std::vector<float>>(&value.data)) return list_of(*list);
  const std::optional<double> number = one_number(value);
  if (number && value.type == MetadataType::boolean) return *number != 0 ? "true" : "false";
  return number ? fmt::format("{}", *number) : fmt::format("an {}", name(value.type));
}

bool changes_nothing(std::string_view key, const MetadataValue& value) {
  if (is_in(without_effect, key)) return true;
  const std::optional<double> number = one_number(value);
  for (const ComputingKey& known : computing_keys) {
    if (known.key == key) return number && is_in(known.neutral, *number);
  }
  const bool computes = std::any_of(std::begin(computing_groups), std::end(computing_groups),
                                    [key](std::string_view group) { return key.starts_with(group); });
  return !computes || number == 0;
}

}  // namespace

FamilyKeys::FamilyKeys(const Metadata& metadata)
    : metadata_(metadata), architecture_(metadata.get_string("general.architecture")) {}

std::string FamilyKeys::asked(std::string_view key) const {
  asked_.emplace(key);
  return full(key);
}

size_t FamilyKeys::layers() const {
  return static_cast<size_t>(metadata_.get_int(asked("block_count"), 1, max_layers));
}

void FamilyKeys::refuse(std::string_view key, std::string_view why) const {
  const MetadataValue* value = metadata_.find(full(key));
  fail("{}: {} is {}; {}", metadata_.origin(), full(key), value ? shown(*value) : "missing", why);
}

size_t FamilyKeys::size(std::string_view key, int64_t high) const {
  if (!has(key)) return static_cast<size_t>(metadata_.get_int(asked(key), 1, high));  // which says that it is missing
  return size(key, 1, high, 0);
}

size_t FamilyKeys::size(std::string_view key, int64_t low, int64_t high, size_t fallback) const {
  asked_.emplace(key);
  if (!has(key)) return fallback;
  const std::vector<int64_t> numbers = each(key, low, high, fallback);
  const bool same = std::all_of(numbers.begin(), numbers.end(), [&](int64_t n) { return n == numbers.front(); });
  if (!same) refuse(key, "layers that differ in this are not supported; use another model");
  return static_cast<size_t>(numbers.front());
}

std::vector<int64_t> FamilyKeys::each(std::string_view key, int64_t low, int64_t high, size_t fallback,
                                      bool* is_each) const {
  asked_.emplace(key);
  if (is_each) *is_each = false;
  if (!has(key)) return std::vector<int64_t>(layers(), static_cast<int64_t>(fallback));
  const MetadataValue& value = *metadata_.find(full(key));
  std::vector<int64_t> numbers = metadata_.get_one_or_each(full(key), low, high);
  const bool is_array = value.type == MetadataType::array;
  if (is_each) *is_each = is_array || value.type == MetadataType::boolean;
  if (!is_array) return std::vector<int64_t>(layers(), numbers.front());
  if (numbers.size() != layers()) {
    refuse(key, fmt::format("it has {} elements for {} layers; the file contradicts itself", numbers.size(), layers()));
  }
  return numbers;
}

bool FamilyKeys::flag(std::string_view key, bool fallback) const {
  return size(key, 0, 1, fallback) != 0;
}

double FamilyKeys::number(std::string_view key, double fallback) const {
  const std::string name = asked(key);
  const MetadataValue* value = metadata_.find(name);
  if (!value) return fallback;
  const std::optional<double> number = one_number(*value);
  if (value->type == MetadataType::boolean || !number) return metadata_.get_float(name);  // which says what it is
  if (!std::isfinite(*number)) refuse(key, "that is no finite number; the model is damaged");
  return *number;
}

float FamilyKeys::factor(std::string_view key, double fallback) const {
  const float value = static_cast<float>(number(key, fallback));
  if (!(value > 0) || std::isinf(value)) refuse(key, "it must be above 0, and finite; the model is damaged");
  return value;
}

std::string FamilyKeys::text(std::string_view key, std::string_view fallback) const {
  return metadata_.get_string(asked(key), fallback);
}

void FamilyKeys::refuse_unread(const ModelConfig& config) const {
  const bool gelu = config.gate == ModelConfig::Gate::gelu;
  const std::string gate = text("hidden_activation", gelu ? "gelu" : "silu");
  if (gelu ? !gate.starts_with("gelu") : gate != "silu" && gate != "swish") {
    refuse("hidden_activation", fmt::format("this family is known with {} only", gelu ? "GELU" : "SiLU"));
  }
  const std::string prefix = architecture_ + ".";
  for (const auto& [name, value] : metadata_.entries()) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view key = std::string_view(name).substr(prefix.size());
    const bool of_no_experts = config.experts == 0 && key.starts_with("expert");
    if (asked_.contains(key) || of_no_experts || changes_nothing(key, value)) continue;
    fail("{}: {} is {}, which this version does not carry out for this family; use another model", metadata_.origin(),
         printable(name), shown(value));
  }
}

}  // namespace contexture
