#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace contexture {

/// Who may read a file that was not there before: all whom the process's umask lets, or its owner alone (what people
/// said to a model). A file that is replaced keeps its owner and permissions.
enum class FileAccess { shared, owner_only };

/// A path that must not outlive this process unless keep() is called: goes with this, and where a signal ends the
/// program at once. A folder goes where it is empty by then.
class PartialPath {
 public:
  explicit PartialPath(std::string path);
  ~PartialPath();
  PartialPath(const PartialPath&) = delete;
  PartialPath& operator=(const PartialPath&) = delete;

  const std::string& path() const { return path_; }
  /// It may stay, or has another name by now.
  void keep();

 private:
  std::string path_;
  bool is_partial_ = true;
};

/// Where a path leads, through links, also where nothing is there yet.
std::string through_links(const std::string& path);

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
  std::optional<PartialPath> partial_;
  int fd_ = -1;
  size_t position_ = 0;
};

/// A name beside `path` that nobody else has: PATH.KIND-RANDOM.
std::string name_beside(const std::string& path, const char* kind);

/// Creates and opens a file of a name of its own beside `path`, for reading and writing; `kind` is a part of the name.
/// Returns its descriptor, or -1 with errno set; `name` is what it was called.
int create_beside(const std::string& path, const char* kind, unsigned mode, std::string& name);

/// Removes all PartialPaths of this process, which must end then. Safe in a signal handler.
void remove_partial_paths() noexcept;

}  // namespace contexture
