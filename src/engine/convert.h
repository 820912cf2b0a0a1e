#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tensor/format.h"

namespace contexture {

struct ConvertTask {
  std::string in;              ///< any model that open_model knows
  std::string out;             ///< the GGUF file to write
  std::string tokenizer = {};  ///< as of open_with_tokenizer
  /// Of the matrices; none: each keeps its own. Vectors become f32 and routers stay floats. With a 4-bit type the
  /// output matrix is q6_k, as is usual: it costs little and decides every token. Rows that are not whole blocks of
  /// their type become q5_0 (q4_k), q8_0 (q6_k) or f16, whichever comes first and has whole blocks.
  std::optional<Format> type;
  bool force = false;  ///< replaces an `out` that is no GGUF model
  int threads = 1;
  std::function<void(size_t done_bytes, size_t total_bytes)> progress = {};  ///< of the output
  const std::atomic<bool>* cancelled = nullptr;
};

struct Conversion {
  /// Matrices whose rows are not whole blocks of what they were to become.
  struct Fallback {
    Format wanted, written;
    std::vector<std::string> tensors;
  };

  size_t tensors = 0;
  size_t bytes = 0;                       ///< of the file written
  std::map<Format, size_t> formats = {};  ///< of tensors, how many
  std::vector<Fallback> fallbacks = {};   ///< also warned of
};

/// Whether matrices can be written in it.
bool can_convert_to(Format format);

/// Writes a model of any kind as one GGUF file, tokenizer inside, that other programs read too: Q and K are arranged as
/// the family's GGUF files have them, separate experts are joined. Tensors are read, changed and written a few rows at
/// a time. The file appears when it is whole. Throws Error: the model cannot be read, a value does not fit the type,
/// the disk is full, `cancelled` became true, `out` is a file that is read, or one that is no model without `force`.
Conversion convert_model(const ConvertTask& task);

}  // namespace contexture
