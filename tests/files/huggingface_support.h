#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "files/support.h"

namespace contexture {

/// A tensor for a test's file.
struct TestTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;
  std::string dtype = "F32";
};

/// An f32 tensor whose elements are `first`, `first` + 1, …
inline TestTensor counting(std::string name, std::vector<int64_t> shape, float first = 0) {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  Bytes bytes;
  for (int64_t i = 0; i < count; ++i) bytes.number(first + static_cast<float>(i));
  const std::span<const std::byte> span = bytes;
  return {std::move(name), std::move(shape), {span.begin(), span.end()}};
}

/// A safetensors file, its header padded to eight bytes as the format's own library does.
inline Bytes safetensors(const std::vector<TestTensor>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  size_t end = 0;
  for (const TestTensor& t : tensors) {
    header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {end, end + t.data.size()}}};
    end += t.data.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  Bytes bytes;
  bytes.u64(text.size()).raw(text);
  for (const TestTensor& t : tensors) {
    bytes.raw({reinterpret_cast<const char*>(t.data.data()), t.data.size()});
  }
  return bytes;
}

/// A folder as it is downloaded from Hugging Face.
class HuggingFaceFolder {
 public:
  HuggingFaceFolder() = default;
  HuggingFaceFolder(const nlohmann::json& config, const std::vector<TestTensor>& tensors) {
    write("config.json", config);
    save(file("model.safetensors"), safetensors(tensors));
  }

  std::string path() const { return folder_.path().string(); }
  std::string file(std::string_view name) const { return folder_.file(name); }
  void write(std::string_view name, const nlohmann::json& json) { write(name, json.dump()); }
  void write(std::string_view name, const std::string& text) { save(file(name), Bytes().raw(text)); }
  void write(std::string_view name, const char* text) { write(name, std::string(text)); }

 private:
  TemporaryFolder folder_;
};

}  // namespace contexture
