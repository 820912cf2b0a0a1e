#include "files/model_file.h"

#include <filesystem>

#include "base/error.h"
#include "files/gguf.h"
#include "files/huggingface.h"
#include "files/llama2c.h"
#include "files/meta.h"
#include "files/safetensors.h"
#include "files/torch_checkpoint.h"

namespace contexture {
namespace {

/// A format whose models are a file each: does a file look like one, and how is it opened. To add a format, add its
/// line below.
struct FileFormat {
  std::string_view name;
  bool (*probe)(std::span<const std::byte> bytes);
  ModelFile (*open)(MappedFile file, const ModelUse& use);
};

constexpr FileFormat file_formats[] = {
    {"GGUF", is_gguf, [](MappedFile file, const ModelUse&) { return open_gguf(std::move(file)); }},
    {"safetensors", is_safetensors,
     [](MappedFile file, const ModelUse& use) { return open_huggingface(file.path(), use); }},
    {"PyTorch checkpoint", is_torch_checkpoint,
     [](MappedFile file, const ModelUse&) { return open_meta(file.path()); }},
    {"llama2.c .bin", is_llama2c, [](MappedFile file, const ModelUse&) { return open_llama2c(std::move(file)); }},
};

/// A format whose models are folders; `probe` takes the folder or a JSON file in it.
struct FolderFormat {
  std::string_view name;
  bool (*probe)(const std::string& path);
  ModelFile (*open)(const std::string& path, const ModelUse& use);
};

constexpr FolderFormat folder_formats[] = {
    {"Hugging Face's config.json and model.safetensors", is_huggingface_folder, open_huggingface},
    {"Meta's params.json and consolidated.00.pth", is_meta_folder,
     [](const std::string& path, const ModelUse&) { return open_meta(path); }},
};

bool is_json_object(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first != text.npos && text[first] == '{';
}

ModelFile open_folder(const std::string& path, const ModelUse& use) {
  std::string known;
  for (const FolderFormat& format : folder_formats) {
    if (format.probe(path)) return format.open(path, use);
    known += fmt::format("{}{}", known.empty() ? "" : ", or ", format.name);
  }
  fail("{}: no model in this folder ({}); give the path of a model's file or folder", printable(path, 400), known);
}

}  // namespace

const StoredTensor* ModelFile::find(std::string_view name) const {
  const auto place = tensor_index.find(name);
  return place == tensor_index.end() ? nullptr : &tensors[place->second];
}

void ModelFile::add(StoredTensor tensor) {
  const auto [place, fresh] = tensor_index.try_emplace(tensor.name, tensors.size());
  if (!fresh) {
    fail("{}: tensor {} is there twice; use another file of this model", printable(path, 400), printable(tensor.name));
  }
  tensors.push_back(std::move(tensor));
}

void ModelFile::add_made(std::string name, std::vector<float> values) {
  const std::vector<float>& kept = made.emplace_back(std::move(values));
  add({.name = std::move(name),
       .format = Format::f32,
       .shape = {static_cast<int64_t>(kept.size())},
       .data = std::as_bytes(std::span(kept))});
}

ModelFile open_model(const std::string& path, const ModelUse& use) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_folder(path, use);
  MappedFile file(path);
  if (file.bytes().empty()) fail("{} is empty; download or convert the model again", printable(path, 400));
  if (is_json_object(file.bytes())) return open_folder(path, use);
  std::string known;
  for (const FileFormat& format : file_formats) {
    if (format.probe(file.bytes())) return format.open(std::move(file), use);
    known += fmt::format("{}{}", known.empty() ? "" : ", ", format.name);
  }
  fail("{} is no model file that this program knows ({}); check the path, or convert the model", printable(path, 400),
       known);
}

}  // namespace contexture
