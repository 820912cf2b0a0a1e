#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "files/model_file.h"

namespace contexture {

/// A tensor as a safetensors file names it.
struct SafeTensor {
  std::string dtype;           ///< "BF16"; perhaps one that we cannot read
  std::vector<int64_t> shape;  ///< outermost first, each ≥ 0; empty for a single number
  std::span<const std::byte> data;
};

using SafeTensors = std::map<std::string, SafeTensor>;

/// Whether these bytes begin as a safetensors file does.
bool is_safetensors(std::span<const std::byte> bytes);

/// The tensors of a safetensors file; they point into `bytes`, `path` is for messages alone. Every tensor lies inside
/// the file, none overlaps another, and those of a known dtype have the size that their shape says. Throws Error.
SafeTensors read_safetensors(std::span<const std::byte> bytes, const std::string& path);

/// The tensor under a name of GGUF's. Throws Error where its dtype is not F32, F16 or BF16, where it has no or more
/// than four dimensions or an empty one, or is not aligned; `origin` ("FILE: tensor NAME") begins the message.
StoredTensor to_stored(const SafeTensor& tensor, std::string name, const std::string& origin);

}  // namespace contexture
