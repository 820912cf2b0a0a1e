#pragma once

#include <array>
#include <string>
#include <vector>

#include "files/support.h"

namespace contexture {

inline uint32_t crc32(std::span<const std::byte> bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> entries;
    for (uint32_t i = 0; i < entries.size(); ++i) {
      entries[i] = i;
      for (int bit = 0; bit < 8; ++bit) entries[i] = entries[i] >> 1 ^ (entries[i] & 1 ? 0xedb88320u : 0);
    }
    return entries;
  }();
  uint32_t crc = ~0u;
  for (const std::byte byte : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<uint32_t>(byte)) & 0xff];
  return ~crc;
}

/// Writes a zip file of stored entries, wrong ones as well.
class ZipWriter {
 public:
  struct Entry {
    std::string name;
    std::vector<std::byte> data;
    uint16_t method = 0;     ///< 8: says that it is deflated
    size_t alignment = 64;   ///< of the data
    int64_t said_size = -1;  ///< what the headers say; -1: the truth
    uint32_t crc_change = 0;
  };

  ZipWriter& add(Entry entry) {
    entries_.push_back(std::move(entry));
    return *this;
  }
  ZipWriter& add(std::string name, std::span<const std::byte> data) {
    return add(Entry{.name = std::move(name), .data = {data.begin(), data.end()}});
  }

  Bytes bytes() const {
    constexpr size_t local_header = 30;
    Bytes out, directory;
    for (const Entry& e : entries_) {
      const size_t offset = out.size();
      const uint32_t size = static_cast<uint32_t>(e.said_size < 0 ? static_cast<int64_t>(e.data.size()) : e.said_size);
      const uint32_t crc = crc32(e.data) ^ e.crc_change;
      // An extra field fills up to the alignment; its own head takes four bytes.
      const size_t begin = offset + local_header + e.name.size() + 4;
      const size_t fill = (e.alignment - begin % e.alignment) % e.alignment;
      const auto sizes = [&](Bytes& to) { to.u32(0).u32(crc).u32(size).u32(size); };
      out.raw("PK\3\4").number<uint16_t>(20).number<uint16_t>(0).number(e.method);
      sizes(out);
      out.number(static_cast<uint16_t>(e.name.size())).number(static_cast<uint16_t>(4 + fill)).raw(e.name);
      out.raw("FB").number(static_cast<uint16_t>(fill)).zeros(fill);
      out.raw({reinterpret_cast<const char*>(e.data.data()), e.data.size()});
      directory.raw("PK\1\2").number<uint16_t>(20).number<uint16_t>(20).number<uint16_t>(0).number(e.method);
      sizes(directory);
      directory.number(static_cast<uint16_t>(e.name.size())).zeros(12).u32(static_cast<uint32_t>(offset)).raw(e.name);
    }
    const auto count = static_cast<uint16_t>(entries_.size());
    const std::span<const std::byte> list = directory;
    const auto place = static_cast<uint32_t>(out.size());
    out.raw({reinterpret_cast<const char*>(list.data()), list.size()});
    out.raw("PK\5\6").u32(0).number(count).number(count).u32(static_cast<uint32_t>(list.size())).u32(place);
    return out.number<uint16_t>(0);
  }

 private:
  std::vector<Entry> entries_;
};

/// Assembles a pickle of protocol 2.
class PickleWriter {
 public:
  PickleWriter() { raw("\x80\x02"); }
  PickleWriter& raw(std::string_view bytes) {
    text_.append(bytes);
    return *this;
  }
  PickleWriter& op(uint8_t code) {
    text_.push_back(static_cast<char>(code));
    return *this;
  }
  template <typename T>
  PickleWriter& op(uint8_t code, T argument) {
    op(code);
    return raw({reinterpret_cast<const char*>(&argument), sizeof(T)});
  }
  PickleWriter& global(std::string_view module, std::string_view name) {
    return op('c').raw(module).raw("\n").raw(name).raw("\n");
  }
  PickleWriter& text(std::string_view text) { return op('X', static_cast<uint32_t>(text.size())).raw(text); }
  PickleWriter& integer(int32_t value) { return op('J', value); }
  PickleWriter& integers(const std::vector<int64_t>& values) {
    op('(');
    for (const int64_t value : values) integer(static_cast<int32_t>(value));
    return op('t');
  }

  struct Tensor {
    std::string key;
    std::vector<int64_t> shape;
    std::vector<int64_t> strides;  ///< empty: contiguous
    int64_t offset = 0;
    std::string type = "FloatStorage";
  };
  PickleWriter& tensor(Tensor t) {
    if (t.strides.empty()) {
      t.strides.assign(t.shape.size(), 1);
      for (size_t i = t.shape.size(); i-- > 1;) t.strides[i - 1] = t.strides[i] * t.shape[i];
    }
    global("torch._utils", "_rebuild_tensor_v2").op('(').op('(');
    text("storage").global("torch", t.type).text(t.key).text("cpu").integer(0).op('t').op('Q');
    integer(static_cast<int32_t>(t.offset)).integers(t.shape).integers(t.strides);
    op(0x89).global("collections", "OrderedDict").op(')').op('R');  // requires_grad, hooks
    return op('t').op('R');
  }

  std::vector<char> finish() const {
    std::string all = text_ + ".";
    return {all.begin(), all.end()};
  }

 private:
  std::string text_;
};

/// A checkpoint: tensors of floats counted on from the number that each begins with, and what else its dictionary says.
class CheckpointWriter {
 public:
  CheckpointWriter& add(std::string name, std::vector<int64_t> shape, float first = 0) {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    Bytes data;
    for (int64_t i = 0; i < count; ++i) data.number(first + static_cast<float>(i));
    const std::string key = std::to_string(storages_.size());
    storage(key, data);
    return add_tensor(std::move(name), {.key = key, .shape = std::move(shape), .strides = {}});
  }
  CheckpointWriter& add_tensor(std::string name, PickleWriter::Tensor tensor) {
    tensors_.emplace_back(std::move(name), std::move(tensor));
    return *this;
  }
  CheckpointWriter& storage(std::string key, std::span<const std::byte> data) {
    storages_.emplace_back(std::move(key), std::vector<std::byte>(data.begin(), data.end()));
    return *this;
  }

  /// The dictionary of tensors.
  void write_tensors(PickleWriter& pickle) const {
    pickle.global("collections", "OrderedDict").op(')').op('R').op('(');
    for (const auto& [name, tensor] : tensors_) pickle.text(name).tensor(tensor);
    pickle.op('u');
  }

  ZipWriter zip(const std::vector<char>& pickle) const {
    ZipWriter zip;
    zip.add("archive/data.pkl", std::as_bytes(std::span(pickle)));
    for (const auto& [key, data] : storages_) zip.add("archive/data/" + key, data);
    zip.add("archive/version", Bytes().raw("3\n"));
    return zip;
  }
  /// As torch.save(model.state_dict()) writes it.
  ZipWriter zip() const {
    PickleWriter pickle;
    write_tensors(pickle);
    return zip(pickle.finish());
  }
  Bytes bytes() const { return zip().bytes(); }

 private:
  std::vector<std::pair<std::string, PickleWriter::Tensor>> tensors_;
  std::vector<std::pair<std::string, std::vector<std::byte>>> storages_;
};

}  // namespace contexture
