#include <algorithm>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "files/gguf.h"

// A split model is several GGUF files, PREFIX-00001-of-00003.gguf and so on, each with its share of the tensors. The
// metadata of each says split.no (from 0), split.count and split.tensors.count (of the whole model); the first part
// holds the rest of the metadata. Tools that merge parts leave the keys behind, with a count of 0.

namespace contexture {
namespace {

using namespace std::string_view_literals;

constexpr int64_t most_parts = 99999;  // five digits in the name of the file

/// What one part says of the whole. Where there is one file only, the other numbers mean nothing.
struct Split {
  int64_t number = 0;
  int64_t count = 1;
  int64_t tensors = 0;
};

Split split_of(const Metadata& metadata) {
  const int64_t count = metadata.get_int("split.count", 0, most_parts, 1);
  if (count <= 1) return {};
  const int64_t number = metadata.get_int("split.no", 0, count - 1, 0);
  return {number, count, metadata.get_int("split.tensors.count", 0, INT64_MAX)};
}

/// Whether another GGUF file begins where this part ends: what `cat` makes of parts.
bool another_follows(const ModelFile& part) {
  constexpr size_t far_enough = size_t{1} << 20;  // padding, or all of a part that holds metadata alone
  const auto bytes = part.maps.front().bytes();
  size_t end = 1;
  for (const StoredTensor& tensor : part.tensors) {
    end = std::max(end, static_cast<size_t>(tensor.data.data() + tensor.data.size() - bytes.data()));
  }
  const std::string_view rest(reinterpret_cast<const char*>(bytes.data()) + end, bytes.size() - end);
  return rest.substr(0, part.tensors.empty() ? rest.npos : far_enough).find("GGUF\x03\0\0\0"sv) != rest.npos;
}

std::string ending(const Split& split) {
  return fmt::format("-{:05}-of-{:05}.gguf", split.number + 1, split.count);
}

ModelFile open_part(MappedFile file) {
  ModelFile part = read_gguf(file.bytes(), file.path());
  part.maps.push_back(std::move(file));
  return part;
}

ModelFile open_part(const std::string& path, const Split& expected) {
  if (!std::filesystem::exists(path)) {
    fail("{} is missing: part {} of {}; put all parts of the model in one folder", printable(path, 400),
         expected.number + 1, expected.count);
  }
  ModelFile part = open_part(MappedFile(path));
  const Split found = split_of(part.metadata);
  if (found.number != expected.number || found.count != expected.count || found.tensors != expected.tensors) {
    fail("{} says it is part {} of {} with {} tensors, where part {} of {} with {} belongs; download the parts again",
         printable(path, 400), found.number + 1, found.count, found.tensors, expected.number + 1, expected.count,
         expected.tensors);
  }
  return part;
}

/// Whether a key speaks of the file and not of the model.
bool is_of_part(std::string_view key) {
  return key == "split.no" || key == "general.alignment";
}

/// Moves what a part has to the whole.
void append_part(ModelFile& whole, ModelFile part) {
  for (const auto& [key, value] : part.metadata.entries()) {
    if (is_of_part(key)) continue;
    const MetadataValue* known = whole.metadata.find(key);
    if (!known) {
      whole.metadata.add(key, value);
    } else if (*known != value) {
      fail("{}: metadata key {} is not what the first part says; the parts are of different models",
           printable(part.path, 400), printable(key));
    }
  }
  for (StoredTensor& tensor : part.tensors) whole.add(std::move(tensor));
  for (MappedFile& map : part.maps) whole.maps.push_back(std::move(map));
}

}  // namespace

ModelFile open_gguf(MappedFile file) {
  const std::string path = file.path();
  ModelFile opened = open_part(std::move(file));
  Split split = split_of(opened.metadata);
  if (split.count == 1) return opened;
  if (another_follows(opened)) {
    fail(
        "{}: parts of a split model joined end to end, which makes no GGUF file; give the first of the parts as they "
        "were, or merge them with llama-gguf-split --merge",
        printable(path, 400));
  }

  const std::string end = ending(split);
  if (!path.ends_with(end)) {
    fail("{} is part {} of {}; name it, and the others beside it, so that the name ends with {}", printable(path, 400),
         split.number + 1, split.count, end);
  }
  const std::string prefix = path.substr(0, path.size() - end.size());
  const int64_t given = split.number;
  ModelFile whole;
  for (split.number = 0; split.number < split.count; ++split.number) {
    // NOLINTNEXTLINE(bugprone-use-after-move): one part is given
    ModelFile part = split.number == given ? std::move(opened) : open_part(prefix + ending(split), split);
    if (split.number == 0) {
      whole = std::move(part);
    } else {
      append_part(whole, std::move(part));
    }
  }
  whole.path = path;
  whole.kind += fmt::format(", {} parts", split.count);
  if (whole.tensors.size() != static_cast<uint64_t>(split.tensors)) {
    fail("{}: the parts hold {} tensors, but split.tensors.count says {}; download the parts again",
         printable(path, 400), whole.tensors.size(), split.tensors);
  }
  return whole;
}

}  // namespace contexture
