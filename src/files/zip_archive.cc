#include "files/zip_archive.h"

#include <zip.h>

#include "base/error.h"

namespace contexture {
namespace {

struct CloseEntry {
  void operator()(zip_file_t* entry) const { zip_fclose(entry); }
};

}  // namespace

void ZipArchive::Close::operator()(zip* archive) const {
  zip_discard(archive);
}

ZipArchive::ZipArchive(std::span<const std::byte> bytes, const std::string& path)
    : bytes_(bytes), path_(printable(path, 400)) {
  zip_error_t error;
  zip_error_init(&error);
  source_ = zip_source_buffer_create(bytes.data(), bytes.size(), /*freep=*/0, &error);
  if (source_) archive_.reset(zip_open_from_source(source_, ZIP_RDONLY, &error));
  if (!archive_) {
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    zip_source_free(source_);
    fail("{}: no whole zip file ({}); download it again", path_, printable(why));
  }
  zip_error_fini(&error);
}

std::vector<std::string> ZipArchive::names() const {
  std::vector<std::string> all;
  const zip_int64_t count = zip_get_num_entries(archive_.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* name = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
    if (name) all.emplace_back(name);
  }
  return all;
}

bool ZipArchive::has(const std::string& name) const {
  return zip_name_locate(archive_.get(), name.c_str(), ZIP_FL_ENC_RAW) >= 0;
}

std::span<const std::byte> ZipArchive::find(const std::string& name) const {
  const zip_int64_t found = zip_name_locate(archive_.get(), name.c_str(), ZIP_FL_ENC_RAW);
  if (found < 0) fail("{}: {} is missing; download the file again", path_, printable(name));
  const auto index = static_cast<zip_uint64_t>(found);
  zip_stat_t stat;
  constexpr zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if (zip_stat_index(archive_.get(), index, 0, &stat) != 0 || (stat.valid & needed) != needed) {
    fail("{}: {} is not described; download the file again", path_, printable(name));
  }
  if (stat.comp_method != ZIP_CM_STORE || stat.encryption_method != ZIP_EM_NONE) {
    fail("{}: {} is compressed or encrypted, where PyTorch stores it as it is; save it again with torch.save", path_,
         printable(name));
  }
  if (stat.size == 0) return {};
  // libzip tells no entry's place; but where the file stands once an entry's first byte was read is one beyond it.
  std::byte first{};
  const std::unique_ptr<zip_file_t, CloseEntry> entry(zip_fopen_index(archive_.get(), index, ZIP_FL_COMPRESSED));
  const bool read = entry && zip_fread(entry.get(), &first, 1) == 1;
  const zip_int64_t end = read ? zip_source_tell(source_) : 0;
  if (end < 1 || static_cast<uint64_t>(end) > bytes_.size() || bytes_[static_cast<size_t>(end) - 1] != first ||
      stat.size > bytes_.size() - static_cast<size_t>(end) + 1) {
    fail("{}: {} is cut off; download the file again", path_, printable(name));
  }
  return bytes_.subspan(static_cast<size_t>(end) - 1, stat.size);
}

std::vector<char> ZipArchive::read(const std::string& name, size_t most) const {
  const size_t size = find(name).size();
  if (size > most) fail("{}: {} has {} bytes, more than {}; this is no model", path_, printable(name), size, most);
  std::vector<char> bytes(size);
  const std::unique_ptr<zip_file_t, CloseEntry> entry(zip_fopen(archive_.get(), name.c_str(), ZIP_FL_ENC_RAW));
  char beyond;  // the checksum is looked at where the end is met
  if (!entry || zip_fread(entry.get(), bytes.data(), size) != static_cast<zip_int64_t>(size) ||
      zip_fread(entry.get(), &beyond, 1) != 0) {
    fail("{}: {} is damaged: its checksum is wrong; download the file again", path_, printable(name));
  }
  return bytes;
}

}  // namespace contexture
