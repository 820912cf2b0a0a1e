#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "files/json_object.h"
#include "files/model_file.h"
#include "files/pickle.h"
#include "files/zip_archive.h"

namespace contexture {

/// Whether these bytes begin as a file of torch.save does, today's (a zip file) or that of PyTorch before 1.6.
bool is_torch_checkpoint(std::span<const std::byte> bytes);

/// A checkpoint as torch.save writes it: a state_dict, or a dictionary whose entry "model" is one. Tensors are used in
/// place. What else it holds (an optimizer's state) is passed over.
class TorchCheckpoint {
 public:
  /// `bytes` must outlive this; `path` is for messages. Throws Error.
  TorchCheckpoint(std::span<const std::byte> bytes, const std::string& path);

  /// The model's tensors by name, without the prefix _orig_mod. of compiled models.
  struct Tensor {
    std::string_view type;     ///< of its storage: "torch.FloatStorage"
    std::string_view storage;  ///< its key
    int64_t offset;            ///< in the storage, in elements
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;

    bool operator==(const Tensor&) const = default;
  };
  const std::map<std::string, Tensor, std::less<>>& tensors() const { return tensors_; }

  /// The entry "model_args": its numbers, truth values and short texts; empty where there is none.
  JsonObject arguments() const;

  /// A tensor under GGUF's name. Throws Error (naming it as the checkpoint does, `name`) where it is of a type that is
  /// not read, not contiguous, or its data is not all there.
  StoredTensor stored(const std::string& name, std::string gguf_name) const;

 private:
  void read_tensors();

  std::string path_;
  ZipArchive archive_;
  std::string prefix_;  // of the entries: "NAME/"
  Pickle pickle_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

}  // namespace contexture
