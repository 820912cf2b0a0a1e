#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "support/temporary_folder.h"

namespace contexture {

/// Assembles bytes field by field, wrong ones as well.
class Bytes {
 public:
  template <typename T>
  Bytes& number(T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    for (size_t i = 0; i < sizeof(T); ++i) bytes_.push_back(bytes[i]);  // insert() makes GCC 12 warn of nothing
    return *this;
  }
  Bytes& u8(uint8_t value) { return number(value); }
  Bytes& u32(uint32_t value) { return number(value); }
  Bytes& u64(uint64_t value) { return number(value); }
  Bytes& raw(std::string_view text) {
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), bytes, bytes + text.size());
    return *this;
  }
  Bytes& zeros(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  Bytes& pad(size_t alignment) { return zeros((alignment - bytes_.size() % alignment) % alignment); }

  // GGUF's parts.
  Bytes& header(uint32_t version, uint64_t tensors, uint64_t pairs) {
    return raw("GGUF").u32(version).u64(tensors).u64(pairs);
  }
  Bytes& text(std::string_view text) { return u64(text.size()).raw(text); }
  Bytes& key(std::string_view key, uint32_t type) { return text(key).u32(type); }
  /// `dimensions` as GGUF has them: innermost first.
  Bytes& tensor(std::string_view name, const std::vector<uint64_t>& dimensions, uint32_t type, uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t dimension : dimensions) u64(dimension);
    return u32(type).u64(offset);
  }

  operator std::span<const std::byte>() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  std::byte& operator[](size_t place) { return bytes_[place]; }

 private:
  std::vector<std::byte> bytes_;
};

/// The message of the Error that `work` throws; empty where it throws none.
template <typename Work>
std::string error_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline void save(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

inline std::vector<std::byte> load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {bytes, bytes + text.size()};
}

}  // namespace contexture
