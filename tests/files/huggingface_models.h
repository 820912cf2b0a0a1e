#pragma once

#include <gtest/gtest.h>

#include "files/huggingface.h"
#include "files/huggingface_support.h"

/// Small models as Hugging Face holds them, and what is asked of them.
namespace contexture::huggingface_models {

using nlohmann::json;

inline constexpr int64_t anything = INT64_MAX;

/// What every family's configuration says; `more` adds to it or replaces.
inline json config_of(std::string model_type, const json& more = {}) {
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

inline ModelFile model_of(const json& config) {
  ModelFile model;
  read_huggingface_config(JsonObject(config, "config.json"), model);
  return model;
}

inline std::string error_in(const json& config) {
  return error_of([&] { (void)model_of(config); });
}

inline std::string error_in_folder(const std::string& path) {
  return error_of([&] { (void)open_model(path); });
}

inline int64_t number(const ModelFile& model, std::string_view key) {
  return model.metadata.get_int(key, 0, anything, -1);
}

inline double real(const ModelFile& model, std::string_view key) {
  return model.metadata.get_float(key, -1);
}

inline std::vector<float> floats(const ModelFile& model, std::string_view name) {
  const StoredTensor* tensor = model.find(name);
  if (!tensor) return {};
  std::vector<float> values(tensor->data.size() / bytes_of(tensor->format, 1));
  info(tensor->format).decode(tensor->data.data(), values.data(), values.size());
  return values;
}

inline std::vector<std::string> names(const ModelFile& model) {
  std::vector<std::string> all;
  for (const StoredTensor& tensor : model.tensors) all.push_back(tensor.name);
  std::sort(all.begin(), all.end());
  return all;
}

/// One-dimensional tensors of these names: the reader does not look at shapes.
inline std::vector<TestTensor> tensors_named(const std::vector<std::string>& list) {
  std::vector<TestTensor> tensors;
  for (const std::string& name : list) tensors.push_back(counting(name, {2}, static_cast<float>(tensors.size() * 10)));
  return tensors;
}

}  // namespace contexture::huggingface_models
