#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace contexture {
namespace {

/// Closes a file descriptor at the end of a scope, errors included.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

/// A Git LFS pointer is a text of three lines, the first of them this.
constexpr std::string_view pointer_begin = "version https://git-lfs.github.com/spec/v1\n";

/// Device and inode of every file that is mapped, as often as it is.
std::mutex mapped_mutex;
std::multiset<std::pair<uint64_t, uint64_t>> mapped_files;

bool begins_as_pointer(std::string_view text) {
  return text.starts_with(pointer_begin);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  // Not blocking: opening a FIFO would wait for its writer before we could refuse it.
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) fail("cannot open {}: {}; check the path", printable(path, 400), std::strerror(errno));
  struct stat status;
  if (fstat(file.fd, &status) != 0) fail("cannot read {}: {}", printable(path, 400), std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail("{} is not a file; give the path of a file", printable(path, 400));
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* data = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) fail("cannot map {}: {}", printable(path, 400), std::strerror(errno));
  data_ = static_cast<const std::byte*>(data);
  device_ = status.st_dev;
  inode_ = status.st_ino;
  {
    const std::lock_guard lock(mapped_mutex);
    mapped_files.emplace(device_, inode_);
  }
  if (begins_as_pointer({reinterpret_cast<const char*>(data_), size_})) {
    unmap();
    fail("{} is a Git LFS pointer and not the file itself; fetch it with git lfs pull, or download it",
         printable(path, 400));
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(device_, other.device_);
  std::swap(inode_, other.inode_);
  return *this;
}

MappedFile::~MappedFile() {
  unmap();
}

void MappedFile::unmap() {
  if (!data_) return;
  munmap(const_cast<std::byte*>(data_), size_);
  const std::lock_guard lock(mapped_mutex);
  mapped_files.erase(mapped_files.find({device_, inode_}));
}

bool is_mapped(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return false;
  const std::lock_guard lock(mapped_mutex);
  return mapped_files.contains({status.st_dev, status.st_ino});
}

bool is_git_lfs_pointer(const std::string& path) {
  std::string begin(pointer_begin.size(), '\0');
  std::ifstream(path, std::ios::binary).read(begin.data(), static_cast<std::streamsize>(begin.size()));
  return begins_as_pointer(begin);
}

void MappedFile::give_back(std::span<const std::byte> bytes) const {
  if (bytes.data() < data_ || bytes.data() + bytes.size() > data_ + size_) return;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  // The map begins on a page. Pages that are only partly of these bytes are given back too: they may be read again.
  const size_t begin = static_cast<size_t>(bytes.data() - data_) / page * page;
  const size_t end = static_cast<size_t>(bytes.data() - data_) + bytes.size();
  madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace contexture
