#include "files/gguf_writer.h"

#include <cassert>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/gguf.h"

// The bytes of a GGUF file are described in gguf.cc.

namespace contexture {
namespace {

/// The bytes before the data, gathered in memory.
class Head {
 public:
  template <typename T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }

  void text(std::string_view text) {
    number<uint64_t>(text.size());
    bytes_ += text;
  }

  void integer(MetadataType type, int64_t value) {
    switch (type) {
      case MetadataType::u8:
      case MetadataType::i8:
      case MetadataType::boolean:
        return number(static_cast<uint8_t>(value));
      case MetadataType::u16:
      case MetadataType::i16:
        return number(static_cast<uint16_t>(value));
      case MetadataType::u32:
      case MetadataType::i32:
        return number(static_cast<uint32_t>(value));
      default:
        return number(value);
    }
  }

  void real(MetadataType type, double value) {
    if (type == MetadataType::f32) return number(static_cast<float>(value));
    number(value);
  }

  /// A value without its type. (Where the variant does not hold what the type says, std::get throws: a mistake of the
  /// program, not of a file.)
  void value(const MetadataValue& value) {
    switch (value.type) {
      case MetadataType::f32:
      case MetadataType::f64:
        return real(value.type, std::get<double>(value.data));
      case MetadataType::string:
        return text(std::get<std::string>(value.data));
      case MetadataType::array:
        return array(value);
      case MetadataType::u64:
        return number(std::get<uint64_t>(value.data));
      default:
        return integer(value.type, std::get<int64_t>(value.data));
    }
  }

  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_)); }

 private:
  void array(const MetadataValue& array) {
    const MetadataType element = array.element;
    const auto write_all = [&](const auto& elements, auto write) {
      number(static_cast<uint32_t>(element));
      number<uint64_t>(elements.size());
      for (const auto& one : elements) write(one);
    };
    switch (element) {
      case MetadataType::f32:
      case MetadataType::f64:
        return write_all(std::get<std::vector<float>>(array.data), [&](float one) { real(element, one); });
      case MetadataType::string:
        return write_all(std::get<std::vector<std::string>>(array.data), [&](const std::string& one) { text(one); });
      case MetadataType::array:
        return write_all(std::get<std::vector<MetadataValue>>(array.data), [&](const auto& one) { this->array(one); });
      default:
        return write_all(std::get<std::vector<int64_t>>(array.data), [&](int64_t one) { integer(element, one); });
    }
  }

  std::string bytes_;
};

/// Bytes of a tensor; Error where its shape and format do not agree.
uint64_t bytes_of_tensor(const StoredTensor& tensor) {
  const FormatInfo& format = info(tensor.format);
  uint64_t rows = 1;
  bool good = !tensor.shape.empty() && tensor.shape.size() <= 4 && tensor.shape.back() % format.block == 0;
  for (size_t i = 0; good && i + 1 < tensor.shape.size(); ++i)
    good = !__builtin_mul_overflow(rows, tensor.shape[i], &rows);
  uint64_t bytes = 0;
  good = good && !__builtin_mul_overflow(rows, bytes_of(tensor.format, tensor.shape.back()), &bytes);
  if (!good || bytes == 0) {
    fail("tensor {}: ({}) is no shape for {}; give it whole rows of whole blocks", printable(tensor.name),
         fmt::join(tensor.shape, ", "), format.name);
  }
  return bytes;
}

[[noreturn]] void fail_size(const StoredTensor& tensor, size_t bytes) {
  fail("tensor {}: a shape of ({}) in {} does not make {} bytes; give it whole rows of whole blocks",
       printable(tensor.name), fmt::join(tensor.shape, ", "), name(tensor.format), bytes);
}

Head write_head(const Metadata& metadata, std::span<const StoredTensor> tensors, size_t alignment) {
  Head head;
  for (const char c : {'G', 'G', 'U', 'F'}) head.number(c);
  head.number<uint32_t>(3);
  head.number<uint64_t>(tensors.size());
  head.number<uint64_t>(metadata.entries().size());
  for (const auto& [key, value] : metadata.entries()) {
    head.text(key);
    head.number(static_cast<uint32_t>(value.type));
    head.value(value);
  }
  uint64_t offset = 0;
  for (const StoredTensor& tensor : tensors) {
    head.text(tensor.name);
    head.number(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) head.number(tensor.shape[i]);
    assert(info(tensor.format).gguf_type != kNoGgufType);
    head.number(info(tensor.format).gguf_type);
    head.number(offset);
    offset += bytes_of_tensor(tensor);
    offset = (offset + alignment - 1) / alignment * alignment;
  }
  return head;
}

}  // namespace

void write_gguf(const std::string& path, const Metadata& metadata, std::span<const StoredTensor> tensors) {
  for (const StoredTensor& tensor : tensors) {
    if (bytes_of_tensor(tensor) != tensor.data.size()) fail_size(tensor, tensor.data.size());
  }
  write_gguf(path, metadata, tensors, [&](size_t tensor, const auto& write) { write(tensors[tensor].data); });
}

void write_gguf(const std::string& path, const Metadata& metadata, std::span<const StoredTensor> tensors,
                const TensorProducer& produce) {
  const size_t alignment = gguf_alignment(metadata);
  const Head head = write_head(metadata, tensors, alignment);
  AtomicFile file(path);
  file.write(head.bytes());
  file.pad(alignment);
  for (size_t i = 0; i < tensors.size(); ++i) {
    size_t written = 0;
    produce(i, [&](std::span<const std::byte> piece) {
      file.write(piece);
      written += piece.size();
    });
    if (written != bytes_of_tensor(tensors[i])) fail_size(tensors[i], written);
    file.pad(alignment);
  }
  file.publish();
}

}  // namespace contexture
