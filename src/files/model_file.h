#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "files/metadata.h"
#include "tensor/format.h"

namespace contexture {

inline constexpr size_t largest_dimensions = 4;  ///< of a tensor

/// A tensor as it lies in a mapped file, or in `ModelFile::made`.
struct StoredTensor {
  std::string name;  ///< in GGUF's vocabulary: "blk.0.attn_q.weight"
  Format format;
  std::vector<int64_t> shape;  ///< outermost first: (rows, columns); 1 to largest_dimensions, each ≥ 1
  std::span<const std::byte> data;
};

/// Weights that a model has and that are not here: none, or not all of its files.
struct AbsentWeights {
  Format format;                // that they are taken to be in
  std::set<std::string> names;  // those that are known; of a model without any list of them, the head if it has one
  std::string why;              // one line: what is missing, and where the format comes from
};

/// A model opened: metadata and tensors in GGUF's vocabulary, whatever the file's format. Tensors point into the maps,
/// but for a few small ones that no file holds as they are presented.
struct ModelFile {
  std::string path;  ///< of a folder's model: its main file, so that what else belongs to it lies beside this
  std::string kind;  ///< "GGUF v3", "llama2.c", "Hugging Face (safetensors)", "PyTorch checkpoint"
  bool holds_vocabulary = false;  ///< a GGUF file brings its tokenizer or has none; others' lies beside them
  Metadata metadata;
  std::vector<StoredTensor> tensors;
  std::map<std::string, size_t, std::less<>> tensor_index;  ///< name -> place in `tensors`
  std::vector<MappedFile> maps;
  std::vector<std::vector<float>> made;  ///< what tensors that lie in no file point to
  std::optional<AbsentWeights> absent;   ///< only where they were not asked for (ModelUse)

  const StoredTensor* find(std::string_view name) const;
  /// Throws Error where a tensor of this name is there already.
  void add(StoredTensor tensor);
  /// Adds a vector of floats that no file holds.
  void add_made(std::string name, std::vector<float> values);
};

/// What a model is opened for.
struct ModelUse {
  bool weights = true;  ///< without: a folder of Hugging Face's may lack its weights, or some
};

/// Opens a model of any known format (the lists are in model_file.cc): a file or a folder. Split GGUF files are opened
/// whole from any of their parts, folders from any of their model's files. Nothing is read but what describes the
/// model; tensor data stays in the map. Throws Error: one line with what is wrong, where, and how to mend it. Never
/// trusts a size in the file.
ModelFile open_model(const std::string& path, const ModelUse& use = {});

}  // namespace contexture
