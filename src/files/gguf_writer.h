#pragma once

#include <span>
#include <string>

#include "files/model_file.h"

namespace contexture {

/// Writes a GGUF v3 file; tensors keep their order, and are aligned as the key general.alignment says, or to 32 bytes.
/// The file appears under its name when it is whole and on the disk; until then it is PATH.partial-PID, which does not
/// outlive a failure. Throws Error: the disk is full, the folder is missing, a tensor's bytes do not match its shape.
void write_gguf(const std::string& path, const Metadata& metadata, std::span<const StoredTensor> tensors);

}  // namespace contexture
