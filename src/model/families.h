#pragma once

#include <span>
#include <string_view>

#include "model/family_keys.h"

namespace contexture {

/// A family of models: how its metadata becomes a configuration. One file each, one line in the list (families.cc).
/// A family's file holds what makes it differ from what all share (common.h), as fields of ModelConfig.
struct Family {
  std::string_view architecture;  ///< general.architecture
  ModelConfig (*configure)(const FamilyKeys&);
};

std::span<const Family> families();

ModelConfig configure_llama(const FamilyKeys& keys);
ModelConfig configure_qwen2(const FamilyKeys& keys);
ModelConfig configure_qwen3(const FamilyKeys& keys);
ModelConfig configure_smollm3(const FamilyKeys& keys);
ModelConfig configure_granite(const FamilyKeys& keys);
ModelConfig configure_phi3(const FamilyKeys& keys);
ModelConfig configure_gemma(const FamilyKeys& keys);
ModelConfig configure_gemma2(const FamilyKeys& keys);
ModelConfig configure_gemma3(const FamilyKeys& keys);

}  // namespace contexture
