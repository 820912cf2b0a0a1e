#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "files/model_file.h"

namespace contexture {

/// Whether these bytes begin as a GGUF file does.
bool is_gguf(std::span<const std::byte> bytes);

/// What a GGUF file is read for.
struct GgufUse {
  bool with_integers = false;  // no model has tensors of integers: they are refused
  std::string_view remedy = "download or convert the model again";  // for a damaged file
};

/// Reads one GGUF file (v2 or v3, little-endian); of a split model, one part. Tensors point into `bytes`; `path` is for
/// messages alone. Throws Error on anything that does not hold together, and allocates no more than a small multiple
/// of the bytes that are really there.
ModelFile read_gguf(std::span<const std::byte> bytes, const std::string& path, const GgufUse& use = {});

/// The same for a file on the disk. Where it is one part of a split model, the whole model (gguf_split.cc).
ModelFile open_gguf(MappedFile file);

/// What tensor data is aligned to: the key general.alignment, or 32. Throws Error for an unusable one.
size_t gguf_alignment(const Metadata& metadata);

}  // namespace contexture
