#include "engine/convert_target.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "files/gguf.h"

namespace contexture {
namespace {

namespace fs = std::filesystem;

/// Whether both are one file, under whatever names.
bool is_same_file(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

/// A part of one is none: without it the others are lost too.
bool is_gguf_model(const fs::path& path) {
  try {
    const MappedFile file(path.string());
    const Metadata metadata = read_gguf(file.bytes(), path.string()).metadata;
    return metadata.has("general.architecture") && metadata.get_int("split.count", 0, INT64_MAX, 0) <= 1;
  } catch (const Error&) {
    return false;
  }
}

/// Whether `out` is a file of this folder. Which of them are read depends on which are there, so all count, but for
/// GGUF models: of those none is read for a model that is a folder, or for a tokenizer.
bool is_in_folder(const fs::path& out, const fs::path& folder) {
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    if (is_same_file(out, entry.path())) return !is_gguf_model(out);
  }
  return false;
}

bool is_read(const fs::path& out, const ConvertTask& task, const ModelFile& in) {
  for (const MappedFile& map : in.maps) {
    if (is_same_file(out, map.path())) return true;
  }
  std::error_code ignored;
  const fs::path tokenizer = task.tokenizer, folder = fs::path(in.path).parent_path();
  if (is_same_file(out, task.in) || is_same_file(out, tokenizer)) return true;
  if (fs::is_directory(tokenizer, ignored) && is_in_folder(out, tokenizer)) return true;
  return !in.holds_vocabulary && is_in_folder(out, folder.empty() ? "." : folder);
}

}  // namespace

void check_convert_target(const ConvertTask& task, const ModelFile& in) {
  const fs::path out = task.out;
  std::error_code ignored;
  if (fs::is_directory(out, ignored)) {
    fail("{} is a folder; name the file to write, {}", printable(task.out, 400),
         printable((out / "model.gguf").string(), 400));
  }
  if (!fs::exists(out, ignored)) return;
  if (is_read(out, task, in)) {
    fail("{} is a file that this conversion reads; give another name to the file to write", printable(task.out, 400));
  }
  if (task.force || fs::file_size(out, ignored) == 0 || is_gguf_model(out)) return;
  fail("{} is there and is no whole GGUF model; give another name to the file to write, or --force to replace it",
       printable(task.out, 400));
}

}  // namespace contexture
