#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "files/model_file.h"

namespace contexture {

/// Whether these bytes begin with a plausible header of llama2.c (the format has no magic number).
bool is_llama2c(std::span<const std::byte> bytes);

/// Reads a llama2.c model; tensors point into `bytes`, `path` is for messages alone. Throws Error.
ModelFile read_llama2c(std::span<const std::byte> bytes, const std::string& path);

/// The same for a file on the disk.
ModelFile open_llama2c(MappedFile file);

}  // namespace contexture
