#pragma once

#include <span>
#include <string_view>

#include "model/config.h"

namespace contexture {

/// A family of models: how its metadata becomes a configuration. One file each, one line in the list (families.cc).
struct Family {
  std::string_view architecture;  ///< general.architecture
  ModelConfig (*configure)(const Metadata&);
};

std::span<const Family> families();

/// Llama 1, 2, 3, 3.1, 3.2 and what shares their architecture: TinyLlama, SmolLM, llama2.c's stories.
ModelConfig configure_llama(const Metadata& metadata);

}  // namespace contexture
