#include "engine/opened_model.h"

#include <malloc.h>

#include <filesystem>

#include "base/error.h"

namespace contexture {
namespace {

std::string vocabulary_size_key(const ModelFile& model) {
  return model.metadata.get_string("general.architecture", "") + ".vocab_size";
}

/// As the model says; 0: it does not.
int64_t vocabulary_size(const ModelFile& model) {
  return model.metadata.get_int(vocabulary_size_key(model), 0, int64_t{1} << 31, 0);
}

/// A tokenizer in the model's folder, for models whose files never hold one. The file named after the vocabulary's size
/// (llama2.c's) comes first: it says itself that it fits.
std::optional<Vocabulary> vocabulary_beside(const ModelFile& model) {
  const int64_t size = vocabulary_size(model);
  std::filesystem::path folder = model.path;
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) folder = folder.parent_path();
  const std::filesystem::path sized = folder / fmt::format("tok{}.bin", size);
  const bool is_sized = std::filesystem::is_regular_file(sized, ignored);
  const std::string file = is_sized ? sized.string() : find_vocabulary_file(folder.string());
  if (file.empty()) return std::nullopt;
  return vocabulary_from_file(file, size);
}

}  // namespace

std::optional<Vocabulary> find_vocabulary(const ModelFile& model, const std::string& tokenizer_path) {
  if (tokenizer_path.empty()) {
    if (std::optional<Vocabulary> inside = vocabulary_of(model.metadata)) return inside;
    if (model.holds_vocabulary) return std::nullopt;
  }
  std::optional<Vocabulary> found =
      tokenizer_path.empty() ? vocabulary_beside(model) : vocabulary_from_file(tokenizer_path, vocabulary_size(model));
  if (found) apply_token_metadata(*found, model.metadata);
  return found;
}

const Tokenizer& OpenedModel::need_tokenizer() const {
  if (!tokenizer) fail("{} has no tokenizer; name one with --tokenizer PATH", printable(file.path, 400));
  return *tokenizer;
}

OpenedModel open_with_tokenizer(const std::string& model_path, const std::string& tokenizer_path, const ModelUse& use) {
  OpenedModel opened{open_model(model_path, use), std::nullopt};
  if (std::optional<Vocabulary> vocabulary = find_vocabulary(opened.file, tokenizer_path)) {
    opened.tokenizer.emplace(std::move(*vocabulary));
    if (vocabulary_size(opened.file) == 0) {
      opened.file.metadata.set_int(vocabulary_size_key(opened.file), static_cast<int64_t>(opened.tokenizer->size()));
    }
    // The tables have been read; of a vocabulary of 128,000 they take some 20 MB, which no plan counts.
    for (const char* table : {"tokens", "merges", "scores", "token_type"}) {
      opened.file.metadata.forget(std::string("tokenizer.ggml.") + table);
    }
    malloc_trim(0);
  }
  return opened;
}

}  // namespace contexture
