#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/error.h"

namespace contexture {
namespace {

[[noreturn]] void refuse(std::string_view what, const std::string& path, std::string_view remedy) {
  fail("{} {}: {}; {}", what, printable(path, 400), std::strerror(errno), remedy);
}

/// Where the file really goes: a symbolic link keeps pointing at it. What is no file (a device, a pipe, a folder) could
/// only be replaced, and is refused.
std::string target_of(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return path;
  if (!std::filesystem::is_regular_file(status)) {
    fail("{} is there and is not a file; give the path of a file", printable(path, 400));
  }
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? path : target.string();
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(target_of(path)) {
  partial_ = fmt::format("{}.partial-{}", path_, getpid());
  fd_ = open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) refuse("cannot create", partial_, "check the folder and its permissions");
}

AtomicFile::~AtomicFile() {
  close(fd_);
  if (!published_) unlink(partial_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse("cannot write", path_, "make room on the disk");
    bytes = bytes.subspan(static_cast<size_t>(written));
    position_ += static_cast<size_t>(written);
  }
}

void AtomicFile::pad(size_t alignment) {
  write(std::vector<std::byte>((alignment - position_ % alignment) % alignment));
}

void AtomicFile::publish() {
  if (fsync(fd_) != 0) refuse("cannot write", path_, "make room on the disk");
  if (rename(partial_.c_str(), path_.c_str()) != 0) refuse("cannot replace", path_, "check what is there");
  published_ = true;
}

}  // namespace contexture
