#include "files/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

// A safetensors file, all numbers little-endian:
//
//   u64      size of the header
//   header   JSON, perhaps with spaces after it: {"NAME": {"dtype": "BF16", "shape": [rows, columns],
//            "data_offsets": [begin, end]}, …, "__metadata__": {strings}}; the offsets count from the end of the header
//   data     tensors, dense, rows of the last dimension contiguous; each byte belongs to one tensor at most

namespace contexture {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place");

constexpr size_t largest_header = 32'000'000;  // the format allows 100 MB; files of 20,000 tensors have 3

/// Bytes of an element; 0 for a dtype that we have not heard of.
uint64_t bytes_of_dtype(std::string_view dtype) {
  struct Size {
    std::string_view dtype;
    uint64_t bytes;
  };
  constexpr Size sizes[] = {{"F64", 8},  {"F32", 4}, {"F16", 2},     {"BF16", 2},   {"I64", 8}, {"I32", 4},
                            {"I16", 2},  {"I8", 1},  {"U64", 8},     {"U32", 4},    {"U16", 2}, {"U8", 1},
                            {"BOOL", 1}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const Size& size : sizes) {
    if (size.dtype == dtype) return size.bytes;
  }
  return 0;
}

std::optional<Format> format_of_dtype(std::string_view dtype) {
  if (dtype == "F32") return Format::f32;
  if (dtype == "F16") return Format::f16;
  if (dtype == "BF16") return Format::bf16;
  return std::nullopt;
}

/// The header's size; 0 where the bytes cannot begin a file.
uint64_t header_size(std::span<const std::byte> bytes) {
  uint64_t size;
  if (bytes.size() < sizeof(size) + 2) return 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  return bytes[sizeof(size)] == std::byte{'{'} ? size : 0;
}

/// Reads one tensor's description.
class TensorReader {
 public:
  TensorReader(const std::string& path, const std::string& name, const nlohmann::json& entry)
      : path_(path), name_(name), entry_(entry) {}

  SafeTensor read(std::span<const std::byte> data) const {
    if (!entry_.is_object()) refuse("is described by no object");
    SafeTensor tensor{.dtype = dtype(), .shape = {}, .data = {}};
    for (const nlohmann::json& dimension : list("shape")) {
      const uint64_t size = number(dimension, "shape");
      if (size > INT64_MAX) refuse("has an absurd shape");
      tensor.shape.push_back(static_cast<int64_t>(size));
    }
    const nlohmann::json& offsets = list("data_offsets");
    if (offsets.size() != 2) refuse("has not two data_offsets");
    const uint64_t begin = number(offsets[0], "data_offsets"), end = number(offsets[1], "data_offsets");
    if (begin > end || end > data.size()) {
      refuse(fmt::format("lies at bytes {} to {} of {} bytes of data", begin, end, data.size()));
    }
    tensor.data = data.subspan(begin, end - begin);
    check_size(tensor);
    return tensor;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail("{}: tensor {} {}; download the file again", printable(path_, 400), printable(name_), what);
  }

  std::string dtype() const {
    const auto found = entry_.find("dtype");
    if (found == entry_.end() || !found->is_string()) refuse("has no dtype");
    return found->get<std::string>();
  }

  const nlohmann::json& list(const char* key) const {
    const auto found = entry_.find(key);
    if (found == entry_.end() || !found->is_array()) refuse(fmt::format("has no {}", key));
    return *found;
  }

  uint64_t number(const nlohmann::json& value, const char* key) const {
    if (!value.is_number_unsigned()) refuse(fmt::format("has something else than sizes in its {}", key));
    return value.get<uint64_t>();
  }

  void check_size(const SafeTensor& tensor) const {
    uint64_t size = bytes_of_dtype(tensor.dtype);
    if (size == 0) return;  // a new dtype, perhaps of part bytes; refused where it is needed
    bool overflow = false;
    for (const int64_t dimension : tensor.shape) overflow |= __builtin_mul_overflow(size, dimension, &size);
    if (overflow || size != tensor.data.size()) {
      refuse(fmt::format("has {} bytes, which its shape and dtype contradict", tensor.data.size()));
    }
  }

  const std::string& path_;
  const std::string& name_;
  const nlohmann::json& entry_;
};

void refuse_overlaps(const SafeTensors& tensors, const std::string& path) {
  std::vector<const SafeTensors::value_type*> ordered;
  for (const auto& entry : tensors) {
    if (!entry.second.data.empty()) ordered.push_back(&entry);
  }
  std::sort(ordered.begin(), ordered.end(),
            [](auto* a, auto* b) { return a->second.data.data() < b->second.data.data(); });
  for (size_t i = 1; i < ordered.size(); ++i) {
    const auto before = ordered[i - 1]->second.data;
    if (before.data() + before.size() > ordered[i]->second.data.data()) {
      fail("{}: tensors {} and {} overlap; download the file again", printable(path, 400),
           printable(ordered[i - 1]->first), printable(ordered[i]->first));
    }
  }
}

}  // namespace

bool is_safetensors(std::span<const std::byte> bytes) {
  const uint64_t size = header_size(bytes);
  return size >= 2 && size <= largest_header;
}

SafeTensors read_safetensors(std::span<const std::byte> bytes, const std::string& path) {
  const uint64_t size = header_size(bytes);
  if (size < 2 || size > largest_header) fail("{} is no safetensors file; check the path", printable(path, 400));
  if (size > bytes.size() - sizeof(uint64_t)) {
    fail("{}: cut off: the header alone takes {} bytes, the file has {}; download it again", printable(path, 400), size,
         bytes.size());
  }
  const auto header = bytes.subspan(sizeof(uint64_t), size);
  const auto data = bytes.subspan(sizeof(uint64_t) + size);
  const nlohmann::json entries =
      parse_json({reinterpret_cast<const char*>(header.data()), header.size()}, path + " (header)");
  SafeTensors tensors;
  for (const auto& [name, entry] : entries.items()) {
    if (name != "__metadata__") tensors.emplace(name, TensorReader(path, name, entry).read(data));
  }
  refuse_overlaps(tensors, path);
  return tensors;
}

StoredTensor to_stored(const SafeTensor& tensor, std::string name, const std::string& origin) {
  const std::optional<Format> format = format_of_dtype(tensor.dtype);
  if (!format) {
    fail("{} is in {}, which is not supported (F32, F16 and BF16 are); use a model in one of those", origin,
         printable(tensor.dtype));
  }
  const bool empty = std::count(tensor.shape.begin(), tensor.shape.end(), 0) > 0;
  if (tensor.shape.empty() || tensor.shape.size() > largest_dimensions || empty) {
    fail("{} has a shape that no weight has (1 to {} dimensions, none empty); use another model", origin,
         largest_dimensions);
  }
  if (reinterpret_cast<uintptr_t>(tensor.data.data()) % bytes_of_dtype(tensor.dtype) != 0) {
    fail("{} does not begin at a multiple of its elements' size; save the model again with the safetensors library",
         origin);
  }
  return {.name = std::move(name), .format = *format, .shape = tensor.shape, .data = tensor.data};
}

}  // namespace contexture
