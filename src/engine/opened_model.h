#pragma once

#include <optional>
#include <string>

#include "files/model_file.h"
#include "text/tokenizer.h"

namespace contexture {

/// A model file opened with its tokenizer, if it has one. Holds no weights in memory beyond the map.
struct OpenedModel {
  ModelFile file;
  std::optional<Tokenizer> tokenizer;

  const Tokenizer& need_tokenizer() const;  ///< Throws Error where the file has none
};

/// Opens a model file and makes its tokenizer, whose tables the metadata then no longer holds. The tokenizer:
/// `tokenizer_path` where given; else the one inside the file; else, for llama2.c's files, one that lies beside it
/// (tokenizer.bin, tok<vocabulary>.bin, tokenizer.model).
OpenedModel open_with_tokenizer(const std::string& model_path, const std::string& tokenizer_path = {});

}  // namespace contexture
