#include "files/model_file.h"

#include "base/error.h"
#include "files/gguf.h"
#include "files/llama2c.h"

namespace contexture {
namespace {

/// A file format: does a file look like one, and how is it opened. To add a format, add its line below.
struct FileFormat {
  std::string_view name;
  bool (*probe)(std::span<const std::byte> bytes);
  ModelFile (*open)(MappedFile file);
};

constexpr FileFormat file_formats[] = {
    {"GGUF", is_gguf, open_gguf},
    {"llama2.c .bin", is_llama2c, open_llama2c},
};

}  // namespace

const StoredTensor* ModelFile::find(std::string_view name) const {
  const auto place = tensor_index.find(name);
  return place == tensor_index.end() ? nullptr : &tensors[place->second];
}

void ModelFile::add(StoredTensor tensor) {
  const auto [place, fresh] = tensor_index.try_emplace(tensor.name, tensors.size());
  if (!fresh) {
    fail("{}: tensor {} is there twice; convert the model again", printable(path, 400), printable(tensor.name));
  }
  tensors.push_back(std::move(tensor));
}

ModelFile open_model(const std::string& path) {
  MappedFile file(path);
  if (file.bytes().empty()) fail("{} is empty; download or convert the model again", printable(path, 400));
  std::string known;
  for (const FileFormat& format : file_formats) {
    if (format.probe(file.bytes())) return format.open(std::move(file));
    known += known.empty() ? "" : ", ";
    known += format.name;
  }
  fail("{} is no model file that this program knows ({}); check the path, or convert the model", printable(path, 400),
       known);
}

}  // namespace contexture
