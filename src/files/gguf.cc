#include "files/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"

// A GGUF file, all numbers little-endian:
//
//   header     "GGUF", u32 version (2 or 3), u64 number of tensors, u64 number of metadata pairs
//   metadata   pairs: string key, u32 type, value
//                string: u64 length, bytes      bool: one byte, 0 or 1      integers, floats: as they are
//                array:  u32 element type, u64 count, elements (perhaps arrays again)
//   tensors    for each: string name, u32 number of dimensions, u64 each dimension (innermost first), u32 type of its
//              elements, u64 offset in the data
//   data       begins at the next multiple of the alignment (metadata general.alignment, or 32); every tensor begins at
//              a multiple of it too
//
// v2 and v3 differ only in that v3 may be big-endian, which is refused here; v1 had 32-bit lengths and died young.
//
// The file is a stranger's. Every count is held against the bytes that are left before anything is allocated for it.

namespace contexture {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place");

constexpr char magic[] = {'G', 'G', 'U', 'F'};
constexpr int deepest_array = 4;
// What describes a model takes some ten megabytes, most of it the vocabulary. The bound is for sparse files, which have
// terabytes to prove a count with.
constexpr size_t largest_head = size_t{256} << 20;
// The smallest pair: an empty key, a type, a value of one byte. The smallest tensor: an empty name and one dimension.
constexpr size_t least_pair_bytes = 8 + 4 + 1;
constexpr size_t least_tensor_bytes = 8 + 4 + 8 + 4 + 8;

/// Where the reader stands. Nothing is read beyond the end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path, std::string_view remedy)
      : bytes_(bytes.first(std::min(bytes.size(), largest_head))), path_(printable(path, 400)), remedy_(remedy) {}

  const std::string& path() const { return path_; }
  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }

  /// Throws Error: what is wrong with the file, and what mends it.
  template <typename... Values>
  [[noreturn]] void refuse(fmt::format_string<Values...> what, Values&&... values) const {
    fail("{}: {}; {}", path_, fmt::format(what, std::forward<Values>(values)...), remedy_);
  }

  /// What is being read, for messages.
  void enter(std::string part) { part_ = std::move(part); }
  const std::string& part() const { return part_; }

  std::span<const std::byte> take(uint64_t size) {
    if (size > left()) end_too_soon(fmt::format("{} bytes", size));
    const auto taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string text() {
    const auto bytes = take(number<uint64_t>());
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  /// A count of things that each take `least` bytes or more.
  uint64_t count(uint64_t least) {
    const auto count = number<uint64_t>();
    if (count > left() / least) end_too_soon(fmt::format("{} items of {} bytes each or more", count, least));
    return count;
  }

 private:
  [[noreturn]] void end_too_soon(const std::string& wanted) const {
    if (bytes_.size() == largest_head) {
      refuse("{} wants {} at byte {}, but no model needs more than {} bytes to describe it", part_, wanted, position_,
             largest_head);
    }
    refuse("cut off or damaged: {} wants {} at byte {}, {} are left", part_, wanted, position_, left());
  }

  std::span<const std::byte> bytes_;
  std::string path_;
  std::string_view remedy_;
  std::string part_ = "the header";
  size_t position_ = 0;
};

MetadataType read_type(Cursor& in) {
  const auto type = in.number<uint32_t>();
  if (type > static_cast<uint32_t>(MetadataType::f64)) {
    in.refuse("{} has type {}, which GGUF does not know", in.part(), type);
  }
  return static_cast<MetadataType>(type);
}

/// The fewest bytes that a value takes; for numbers, exactly what it takes.
size_t least_bytes(MetadataType type) {
  switch (type) {
    case MetadataType::u8:
    case MetadataType::i8:
    case MetadataType::boolean:
      return 1;
    case MetadataType::u16:
    case MetadataType::i16:
      return 2;
    case MetadataType::u32:
    case MetadataType::i32:
    case MetadataType::f32:
      return 4;
    case MetadataType::u64:
    case MetadataType::i64:
    case MetadataType::f64:
      return 8;
    case MetadataType::string:
      return 8;
    case MetadataType::array:
      return 4 + 8;
  }
  return 1;
}

/// Integers and booleans; u64 as two's complement.
int64_t read_integer(Cursor& in, MetadataType type) {
  switch (type) {
    case MetadataType::u8:
      return in.number<uint8_t>();
    case MetadataType::i8:
      return in.number<int8_t>();
    case MetadataType::u16:
      return in.number<uint16_t>();
    case MetadataType::i16:
      return in.number<int16_t>();
    case MetadataType::u32:
      return in.number<uint32_t>();
    case MetadataType::i32:
      return in.number<int32_t>();
    case MetadataType::boolean: {
      const auto value = in.number<uint8_t>();
      if (value > 1) {
        in.refuse("{} is a bool of value {}", in.part(), value);
      }
      return value;
    }
    default:
      return in.number<int64_t>();
  }
}

double read_float(Cursor& in, MetadataType type) {
  return type == MetadataType::f32 ? static_cast<double>(in.number<float>()) : in.number<double>();
}

template <typename T, typename Read>
std::vector<T> read_elements(uint64_t count, Read read) {
  std::vector<T> elements;
  elements.reserve(count);
  for (uint64_t i = 0; i < count; ++i) elements.push_back(read());
  return elements;
}

MetadataValue read_array(Cursor& in, int depth) {
  if (depth > deepest_array) {
    in.refuse("{} nests arrays more than {} deep", in.part(), deepest_array);
  }
  const MetadataType element = read_type(in);
  const uint64_t count = in.count(least_bytes(element));
  MetadataValue value{.type = MetadataType::array, .element = element, .data = {}};
  switch (element) {
    case MetadataType::f32:
    case MetadataType::f64:
      value.data = read_elements<float>(count, [&] { return static_cast<float>(read_float(in, element)); });
      break;
    case MetadataType::string:
      value.data = read_elements<std::string>(count, [&] { return in.text(); });
      break;
    case MetadataType::array:
      value.data = read_elements<MetadataValue>(count, [&] { return read_array(in, depth + 1); });
      break;
    default:
      value.data = read_elements<int64_t>(count, [&] { return read_integer(in, element); });
  }
  return value;
}

MetadataValue read_value(Cursor& in, MetadataType type) {
  switch (type) {
    case MetadataType::f32:
    case MetadataType::f64:
      return {.type = type, .data = read_float(in, type)};
    case MetadataType::string:
      return {.type = type, .data = in.text()};
    case MetadataType::array:
      return read_array(in, /*depth=*/1);
    case MetadataType::u64:
      return {.type = type, .data = in.number<uint64_t>()};
    default:
      return {.type = type, .data = read_integer(in, type)};
  }
}

uint32_t read_version(Cursor& in) {
  in.take(sizeof(magic));
  const auto version = in.number<uint32_t>();
  if (version == 2 || version == 3) return version;
  if (const uint32_t swapped = __builtin_bswap32(version); swapped >= 1 && swapped <= 3) {
    fail("{}: big-endian GGUF is not supported; convert the model to little-endian", in.path());
  }
  fail("{}: GGUF version {} is not supported (2 and 3 are); use a file of one of those", in.path(), version);
}

/// ggml's name for a type of elements; empty where we have not heard of it.
std::string_view ggml_type_name(uint32_t type) {
  constexpr std::string_view names[] = {
      "F32",      "F16",      "Q4_0",    "Q4_1",  "Q4_2",       "Q4_3",       "Q5_0",       "Q5_1",
      "Q8_0",     "Q8_1",     "Q2_K",    "Q3_K",  "Q4_K",       "Q5_K",       "Q6_K",       "Q8_K",
      "IQ2_XXS",  "IQ2_XS",   "IQ3_XXS", "IQ1_S", "IQ4_NL",     "IQ3_S",      "IQ2_S",      "IQ4_XS",
      "I8",       "I16",      "I32",     "I64",   "F64",        "IQ1_M",      "BF16",       "Q4_0_4_4",
      "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};
  return type < std::size(names) ? names[type] : std::string_view();
}

Format read_format(Cursor& in, bool with_integers) {
  const auto type = in.number<uint32_t>();
  if (const auto format = format_from_gguf(type); format && (with_integers || !is_integer(*format))) return *format;
  std::string known;
  for (const FormatInfo& format : weight_formats())
    known += fmt::format("{}{}", known.empty() ? "" : ", ", format.name);
  const std::string_view name = ggml_type_name(type);
  fail("{}: {} is of type {}{}, which is not supported (supported are {}); use a model in one of those", in.path(),
       in.part(), type, name.empty() ? "" : fmt::format(" ({})", name), known);
}

/// A tensor whose place in the data is still to be checked.
struct TensorEntry {
  StoredTensor tensor;
  uint64_t offset;
  uint64_t size;
};

/// Dimensions, outermost first. Of a model, without outer ones of 1, which some writers add: only the innermost stays.
std::vector<int64_t> read_shape(Cursor& in, bool with_ones) {
  const auto dimensions = in.number<uint32_t>();
  if (dimensions < 1 || dimensions > largest_dimensions) {
    in.refuse("{} has {} dimensions, not 1 to {}", in.part(), dimensions, largest_dimensions);
  }
  std::vector<int64_t> shape(dimensions);
  for (size_t i = dimensions; i-- > 0;) {
    shape[i] = in.number<int64_t>();
    if (shape[i] < 1) {
      in.refuse("{} has a dimension of size {}", in.part(), static_cast<uint64_t>(shape[i]));
    }
  }
  const auto real = std::find_if(shape.begin(), shape.end() - 1, [](int64_t size) { return size != 1; });
  if (!with_ones) shape.erase(shape.begin(), real);
  return shape;
}

TensorEntry read_tensor(Cursor& in, bool with_integers) {
  in.enter("the list of tensors");
  std::string name = in.text();
  in.enter(fmt::format("tensor {}", printable(name)));
  std::vector<int64_t> shape = read_shape(in, /*with_ones=*/with_integers);
  const Format format = read_format(in, with_integers);
  const FormatInfo& layout = info(format);
  if (shape.back() % layout.block != 0) {
    in.refuse("{} has rows of {} elements, but {} comes in blocks of {}", in.part(), shape.back(), layout.name,
              layout.block);
  }
  uint64_t size = static_cast<uint64_t>(shape.back()) / layout.block;
  bool overflow = __builtin_mul_overflow(size, layout.block_bytes, &size);
  for (size_t i = 0; i + 1 < shape.size(); ++i) overflow |= __builtin_mul_overflow(size, shape[i], &size);
  if (overflow) in.refuse("{} has an absurd size", in.part());
  const auto offset = in.number<uint64_t>();
  return {{.name = std::move(name), .format = format, .shape = std::move(shape), .data = {}}, offset, size};
}

/// Points every tensor at its bytes, or says what is wrong with its place.
void place_tensors(std::vector<TensorEntry>& entries, std::span<const std::byte> data, size_t alignment,
                   const Cursor& in) {
  for (TensorEntry& entry : entries) {
    const std::string tensor = printable(entry.tensor.name);
    if (entry.offset % alignment != 0) {
      in.refuse("tensor {} lies at offset {}, which is not a multiple of {}", tensor, entry.offset, alignment);
    }
    if (entry.offset > data.size() || entry.size > data.size() - entry.offset) {
      in.refuse("tensor {} wants {} bytes at offset {}, but the file has {} bytes of data", tensor, entry.size,
                entry.offset, data.size());
    }
    entry.tensor.data = data.subspan(entry.offset, entry.size);
  }

  std::vector<const TensorEntry*> ordered;
  ordered.reserve(entries.size());
  for (const TensorEntry& entry : entries) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < ordered.size(); ++i) {
    const TensorEntry& before = *ordered[i - 1];
    if (before.offset + before.size > ordered[i]->offset) {
      in.refuse("tensors {} and {} overlap", printable(before.tensor.name), printable(ordered[i]->tensor.name));
    }
  }
}

}  // namespace

bool is_gguf(std::span<const std::byte> bytes) {
  return bytes.size() >= sizeof(magic) && std::memcmp(bytes.data(), magic, sizeof(magic)) == 0;
}

size_t gguf_alignment(const Metadata& metadata) {
  constexpr std::string_view key = "general.alignment";
  const int64_t alignment = metadata.get_int(key, /*low=*/8, /*high=*/1 << 20, /*fallback=*/32);
  if (!std::has_single_bit(static_cast<uint64_t>(alignment))) {
    fail("{}: metadata key {} is {}, which is not a power of two; use another file of this model", metadata.origin(),
         key, alignment);
  }
  return static_cast<size_t>(alignment);
}

ModelFile read_gguf(std::span<const std::byte> bytes, const std::string& path, const GgufUse& use) {
  if (!is_gguf(bytes)) fail("{} is no GGUF file; check the path", printable(path, 400));
  Cursor in(bytes, path, use.remedy);
  ModelFile model;
  model.path = path;
  model.metadata.set_origin(in.path());
  model.kind = fmt::format("GGUF v{}", read_version(in));
  model.holds_vocabulary = true;

  in.enter("the list of tensors");
  const uint64_t tensors = in.count(least_tensor_bytes);
  in.enter("the metadata");
  const uint64_t pairs = in.count(least_pair_bytes);
  for (uint64_t i = 0; i < pairs; ++i) {
    in.enter("the metadata");
    std::string key = in.text();
    in.enter(fmt::format("metadata key {}", printable(key)));
    const MetadataType type = read_type(in);
    model.metadata.add(std::move(key), read_value(in, type));
  }
  const size_t alignment = gguf_alignment(model.metadata);

  std::vector<TensorEntry> entries;
  entries.reserve(tensors);
  for (uint64_t i = 0; i < tensors; ++i) entries.push_back(read_tensor(in, use.with_integers));

  // A file without tensors may end before the padding.
  const size_t data = std::min((in.position() + alignment - 1) / alignment * alignment, bytes.size());
  place_tensors(entries, bytes.subspan(data), alignment, in);
  model.tensors.reserve(tensors);
  for (TensorEntry& entry : entries) model.add(std::move(entry.tensor));
  return model;
}

}  // namespace contexture
