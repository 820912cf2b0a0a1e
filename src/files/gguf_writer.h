#pragma once

#include <functional>
#include <span>
#include <string>

#include "files/model_file.h"

namespace contexture {

/// Writes a GGUF v3 file; tensors keep their order, and are aligned as the key general.alignment says, or to 32 bytes.
/// The file appears under its name when it is whole and on the disk; until then it is PATH.partial-PID, which does not
/// outlive a failure. Throws Error: the disk is full, the folder is missing, a tensor's bytes do not match its shape.
void write_gguf(const std::string& path, const Metadata& metadata, std::span<const StoredTensor> tensors);

/// Called once a tensor, in order: hands its bytes to `write`, in as many pieces as it likes.
using TensorProducer =
    std::function<void(size_t tensor, const std::function<void(std::span<const std::byte> piece)>& write)>;

/// The same where the data is made as it is written, so that it never is in memory as a whole: the `data` of `tensors`
/// is not looked at.
void write_gguf(const std::string& path, const Metadata& metadata, std::span<const StoredTensor> tensors,
                const TensorProducer& produce);

}  // namespace contexture
