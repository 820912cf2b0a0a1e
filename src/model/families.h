#pragma once

#include <span>
#include <string_view>

#include "model/config.h"

namespace contexture {

/// A family of models: how its metadata becomes a configuration. One file each, one line in the list (families.cc).
/// A family's file holds what makes it differ from what all share (common.h), as fields of ModelConfig.
struct Family {
  std::string_view architecture;  ///< general.architecture
  ModelConfig (*configure)(const Metadata&);
};

std::span<const Family> families();

ModelConfig configure_llama(const Metadata& metadata);
ModelConfig configure_qwen2(const Metadata& metadata);
ModelConfig configure_qwen3(const Metadata& metadata);
ModelConfig configure_smollm3(const Metadata& metadata);
ModelConfig configure_granite(const Metadata& metadata);
ModelConfig configure_phi3(const Metadata& metadata);
ModelConfig configure_gemma(const Metadata& metadata);
ModelConfig configure_gemma2(const Metadata& metadata);
ModelConfig configure_gemma3(const Metadata& metadata);

}  // namespace contexture
