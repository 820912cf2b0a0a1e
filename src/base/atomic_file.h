#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace contexture {

/// Who may read a file that was not there before: all whom the process's umask lets, or its owner alone (what people
/// said to a model). A file that is replaced keeps its owner and permissions.
enum class FileAccess { shared, owner_only };

/// A file being written that gets its name when it is whole and on the disk. Until then it lies beside that place as
/// NAME.partial-RANDOM, which does not outlive a failure: what was there before stays. Everything here throws Error.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path, FileAccess access = FileAccess::shared);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// Zeros up to the next multiple of `alignment`.
  void pad(size_t alignment);
  void publish();

 private:
  std::string path_;
  std::string partial_;
  int fd_ = -1;
  size_t position_ = 0;
  bool published_ = false;
};

/// A name beside `path` that nobody else has: PATH.KIND-RANDOM.
std::string name_beside(const std::string& path, const char* kind);

/// Creates and opens a file of a name of its own beside `path`, for reading and writing; `kind` is a part of the name.
/// Returns its descriptor, or -1 with errno set; `name` is what it was called.
int create_beside(const std::string& path, const char* kind, unsigned mode, std::string& name);

/// Removes the partial files of all AtomicFiles of this process, which must end then. Safe in a signal handler.
void remove_partial_files() noexcept;

}  // namespace contexture
