#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "base/error.h"

namespace contexture {
namespace {

[[noreturn]] void refuse(std::string_view what, const std::string& path, std::string_view remedy) {
  fail("{} {}: {}; {}", what, printable(path, 400), std::strerror(errno), remedy);
}

[[noreturn]] void refuse_to_write(const std::string& path) {
  refuse("cannot write", path,
         errno == EFBIG ? "make room on the disk, or raise the limit of a file's size (ulimit -f)"
                        : "make room on the disk");
}

/// Where the file really goes: a symbolic link keeps pointing at it. What is no file (a device, a pipe, a folder) could
/// only be replaced, and is refused.
std::string target_of(const std::string& given) {
  const std::string path = through_links(given);
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::status_known(status)) {
    fail("cannot look for {}: {}; check the path", printable(given, 400), error.message());
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    fail("{} is there and is not a file; give the path of a file", printable(path, 400));
  }
  return path;
}

/// For a signal handler, which may take no lock: nobody takes one. A path that finds no free place is not removed when
/// a signal ends the program.
std::array<std::atomic<const char*>, 1024> partial_paths{};
static_assert(std::atomic<const char*>::is_always_lock_free, "read in a signal handler");

/// Only root may give files away, and to a group only its members; the permissions are kept in any case, but for those
/// that run a program as its owner.
void keep_owner_and_permissions(int fd, const struct stat& old) {
  const bool is_same_owner = fchown(fd, old.st_uid, old.st_gid) == 0;
  if (!is_same_owner) (void)!fchown(fd, static_cast<uid_t>(-1), old.st_gid);
  (void)!fchmod(fd, old.st_mode & (is_same_owner ? 07777 : 0777));
}

void replace_in_list(const char* there, const char* by) {
  for (std::atomic<const char*>& place : partial_paths) {
    const char* expected = there;
    if (place.compare_exchange_strong(expected, by)) return;
  }
}

}  // namespace

std::string name_beside(const std::string& path, const char* kind) {
  constexpr size_t longest_name = 200;  // file systems take 255 bytes: the random part must fit too
  const std::filesystem::path whole(path);
  const std::string stem = (whole.parent_path() / whole.filename().string().substr(0, longest_name)).string();
  // Random, and not the process's number: containers that share a folder have the same ones.
  std::random_device random;
  return fmt::format("{}.{}-{:08x}{:08x}", stem, kind, random(), random());
}

int create_beside(const std::string& path, const char* kind, unsigned mode, std::string& name) {
  int fd = -1;
  for (int tries = 0; fd < 0 && tries < 100; ++tries) {
    name = name_beside(path, kind);
    fd = open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 && errno != EEXIST) break;
  }
  return fd;
}

void remove_partial_paths() noexcept {
  for (const bool folders : {false, true}) {
    for (const std::atomic<const char*>& place : partial_paths) {
      if (const char* name = place) folders ? rmdir(name) : unlink(name);
    }
  }
}

PartialPath::PartialPath(std::string path) : path_(std::move(path)) {
  replace_in_list(nullptr, path_.c_str());
}

PartialPath::~PartialPath() {
  if (is_partial_ && unlink(path_.c_str()) != 0) rmdir(path_.c_str());
  keep();
}

void PartialPath::keep() {
  if (std::exchange(is_partial_, false)) replace_in_list(path_.c_str(), nullptr);
}

std::string through_links(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path target = path;
  for (int links = 0; links < 40 && fs::is_symlink(fs::symlink_status(target, error)); ++links) {
    const fs::path to = fs::read_symlink(target, error);
    if (error) return path;
    target = to.is_absolute() ? to : target.parent_path() / to;
  }
  const fs::path whole = fs::weakly_canonical(target, error);
  return error ? path : whole.string();
}

AtomicFile::AtomicFile(const std::string& path, FileAccess access) : path_(target_of(path)) {
  struct stat old = {};
  const bool replaces = stat(path_.c_str(), &old) == 0;
  std::string name;
  fd_ = create_beside(path_, "partial", access == FileAccess::owner_only || replaces ? 0600 : 0666, name);
  if (fd_ < 0) refuse("cannot create", name, "check the folder and its permissions");
  partial_.emplace(std::move(name));
  if (replaces) keep_owner_and_permissions(fd_, old);
}

AtomicFile::~AtomicFile() {
  close(fd_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse_to_write(path_);
    bytes = bytes.subspan(static_cast<size_t>(written));
    position_ += static_cast<size_t>(written);
  }
}

void AtomicFile::pad(size_t alignment) {
  write(std::vector<std::byte>((alignment - position_ % alignment) % alignment));
}

void AtomicFile::publish() {
  if (fsync(fd_) != 0) refuse_to_write(path_);
  if (rename(partial_->path().c_str(), path_.c_str()) != 0) refuse("cannot replace", path_, "check what is there");
  partial_->keep();
}

}  // namespace contexture
