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

/// The vocabulary of a model: the file `tokenizer_path` where given; else the one inside the file; else one beside it
/// (in a model's folder; for llama2.c's files tokenizer.bin, tok<vocabulary>.bin or tokenizer.model). Nothing where
/// there is none.
std::optional<Vocabulary> find_vocabulary(const ModelFile& model, const std::string& tokenizer_path = {});

/// Opens a model file and makes its tokenizer (find_vocabulary), whose tables the metadata then no longer holds.
OpenedModel open_with_tokenizer(const std::string& model_path, const std::string& tokenizer_path = {},
                                const ModelUse& use = {});

}  // namespace contexture
