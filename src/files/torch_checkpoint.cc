#include "files/torch_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"

// A file of torch.save is a zip file whose entries, all under one folder and all uncompressed, are:
//
//   data.pkl     a pickle of the object; in place of each tensor's elements it refers to a storage by its key
//   data/KEY     a storage: elements one after the other, little-endian where `byteorder` does not say else
//   byteorder    "little" or "big"; older files have none
//   version      and others, which do not matter

namespace contexture {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t largest_pickle = 64 << 20;
constexpr size_t longest_text = 256;

constexpr unsigned char zip_magic[] = {'P', 'K', 3, 4};
// Before version 1.6 a file began with a pickle of this number, 0x1950a86a20f9469cfc6c.
constexpr unsigned char old_magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

template <size_t size>
bool begins_with(std::span<const std::byte> bytes, const unsigned char (&magic)[size]) {
  return bytes.size() >= size && std::memcmp(bytes.data(), magic, size) == 0;
}

std::optional<Format> format_of_storage(std::string_view type) {
  if (type == "torch.FloatStorage") return Format::f32;
  if (type == "torch.HalfStorage") return Format::f16;
  if (type == "torch.BFloat16Storage") return Format::bf16;
  return std::nullopt;
}

/// The bytes, where they are what today's torch.save writes.
std::span<const std::byte> check_begin(std::span<const std::byte> bytes, const std::string& path) {
  if (begins_with(bytes, old_magic)) {
    fail("{}: a checkpoint of PyTorch before 1.6; load it in a newer one and save it again with torch.save",
         printable(path, 400));
  }
  if (!begins_with(bytes, zip_magic)) fail("{} is no PyTorch checkpoint; check the path", printable(path, 400));
  return bytes;
}

/// "NAME/" of the entry NAME/data.pkl.
std::string find_prefix(const ZipArchive& archive, const std::string& path) {
  constexpr std::string_view pickle = "data.pkl";
  for (const std::string& name : archive.names()) {
    if (name.ends_with(pickle) && std::count(name.begin(), name.end(), '/') == 1 && name.size() > pickle.size() &&
        name[name.size() - pickle.size() - 1] == '/') {
      return name.substr(0, name.size() - pickle.size());
    }
  }
  fail("{}: a zip file without data.pkl, so no PyTorch checkpoint; check the path", printable(path, 400));
}

/// Strides of rows one after the other; those of dimensions of size 1 do not matter.
bool is_contiguous(const TorchCheckpoint::Tensor& tensor) {
  if (tensor.strides.size() != tensor.shape.size()) return false;
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    if (__builtin_mul_overflow(expected, tensor.shape[i], &expected)) return false;
  }
  return true;
}

}  // namespace

bool is_torch_checkpoint(std::span<const std::byte> bytes) {
  return begins_with(bytes, zip_magic) || begins_with(bytes, old_magic);
}

TorchCheckpoint::TorchCheckpoint(std::span<const std::byte> bytes, const std::string& path)
    : path_(printable(path, 400)),
      archive_(check_begin(bytes, path), path),
      prefix_(find_prefix(archive_, path)),
      pickle_(archive_.read(prefix_ + "data.pkl", largest_pickle), path) {
  if (archive_.has(prefix_ + "byteorder")) {
    constexpr size_t most = 16;
    const std::vector<char> order = archive_.read(prefix_ + "byteorder", most);
    if (std::string_view(order.data(), order.size()) != "little") {
      fail("{}: saved on a big-endian machine, which is not supported; save it again on another", path_);
    }
  }
  read_tensors();
}

void TorchCheckpoint::read_tensors() {
  const PickleValue* model = &pickle_.root();
  if (const PickleValue* inside = pickle_.find(*model, "model"); inside && inside->kind == Kind::dict) model = inside;
  if (model->kind != Kind::dict) fail("{}: holds no dictionary of tensors; save the model's state_dict", path_);

  constexpr std::string_view compiled = "_orig_mod.";
  const auto integers = [this](uint32_t place) {
    std::vector<int64_t> numbers;
    for (const uint32_t item : pickle_.at(place).items) numbers.push_back(pickle_.at(item).integer);
    return numbers;
  };
  for (size_t i = 0; i + 1 < model->items.size(); i += 2) {
    const PickleValue& key = pickle_.at(model->items[i]);
    const PickleValue& value = pickle_.at(model->items[i + 1]);
    if (key.kind != Kind::text || value.kind != Kind::tensor) continue;
    std::string_view name = key.text;
    if (name.starts_with(compiled)) name.remove_prefix(compiled.size());
    const PickleValue& storage = pickle_.at(value.items[0]);
    const bool fresh = tensors_
                           .try_emplace(std::string(name), Tensor{.type = storage.text,
                                                                  .storage = pickle_.at(storage.items[0]).text,
                                                                  .offset = pickle_.at(value.items[1]).integer,
                                                                  .shape = integers(value.items[2]),
                                                                  .strides = integers(value.items[3])})
                           .second;
    if (!fresh) fail("{}: tensor {} is there twice; save the model again", path_, printable(name));
  }
  if (tensors_.empty()) fail("{}: holds no tensors; save the model's state_dict", path_);
}

JsonObject TorchCheckpoint::arguments() const {
  nlohmann::json object = nlohmann::json::object();
  const PickleValue* given = pickle_.find(pickle_.root(), "model_args");
  for (size_t i = 0; given && given->kind == Kind::dict && i + 1 < given->items.size(); i += 2) {
    const PickleValue& key = pickle_.at(given->items[i]);
    const PickleValue& value = pickle_.at(given->items[i + 1]);
    // A text may be there any number of times and take room once: here every one would take its own.
    if (key.kind != Kind::text || key.text.size() > longest_text || value.text.size() > longest_text) continue;
    nlohmann::json& field = object[std::string(key.text)];
    if (value.kind == Kind::boolean) field = value.integer != 0;
    if (value.kind == Kind::integer) field = value.integer;
    if (value.kind == Kind::real) field = value.real;
    if (value.kind == Kind::text) field = std::string(value.text);
  }
  return JsonObject(std::move(object), path_ + " (model_args)");
}

StoredTensor TorchCheckpoint::stored(const std::string& name, std::string gguf_name) const {
  const Tensor& tensor = tensors_.at(name);
  const auto refuse = [&](const std::string& what) { fail("{}: tensor {} {}", path_, printable(name), what); };
  const std::optional<Format> format = format_of_storage(tensor.type);
  if (!format) {
    refuse(
        fmt::format("is of {}, which is not supported; save the model in float32, float16 or bfloat16", tensor.type));
  }
  const auto no_size = [](int64_t dimension) { return dimension < 1; };
  if (tensor.shape.empty() || tensor.shape.size() > largest_dimensions ||
      std::any_of(tensor.shape.begin(), tensor.shape.end(), no_size)) {
    refuse("has a shape that no weight has; save the model again");
  }
  if (!is_contiguous(tensor)) refuse("is not contiguous; save the model again with its tensors made contiguous()");

  const size_t element = info(*format).block_bytes;
  uint64_t begin = 0, size = element;
  bool overflow = tensor.offset < 0 || __builtin_mul_overflow(tensor.offset, element, &begin);
  for (const int64_t dimension : tensor.shape) overflow |= __builtin_mul_overflow(size, dimension, &size);
  const std::span<const std::byte> storage = archive_.find(fmt::format("{}data/{}", prefix_, tensor.storage));
  if (overflow || begin > storage.size() || size > storage.size() - begin) {
    refuse(fmt::format("reaches beyond its storage of {} bytes; download the file again", storage.size()));
  }
  const std::span<const std::byte> data = storage.subspan(begin, size);
  if (reinterpret_cast<uintptr_t>(data.data()) % element != 0) {
    refuse("does not begin at a multiple of its elements' size; save the model again with torch.save");
  }
  return {.name = std::move(gguf_name), .format = *format, .shape = tensor.shape, .data = data};
}

}  // namespace contexture
