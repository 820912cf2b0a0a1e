#include "cli/numpy_writer.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "cli/command.h"

namespace contexture::cli {

NumpyWriter::NumpyWriter(const std::string& path, size_t rows, size_t columns)
    : file_(path_to_write(path)), hash_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  EVP_DigestInit_ex(hash_.get(), EVP_sha256(), nullptr);
  // Magic, version, length of what follows, then a Python dictionary padded with spaces: a multiple of 64 bytes in all.
  constexpr size_t fixed = 10;
  std::string dictionary =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  dictionary.resize((fixed + dictionary.size() + 1 + 63) / 64 * 64 - fixed - 1, ' ');
  dictionary += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dictionary.size() & 0xff);
  header += static_cast<char>(dictionary.size() >> 8);
  header += dictionary;
  file_.write(std::as_bytes(std::span(header)));
}

NumpyWriter::~NumpyWriter() = default;

void NumpyWriter::add(std::span<const float> values) {
  EVP_DigestUpdate(hash_.get(), values.data(), values.size_bytes());
  file_.write(std::as_bytes(values));
}

std::string NumpyWriter::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(hash_.get(), digest, &size);
  file_.publish();
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace contexture::cli
