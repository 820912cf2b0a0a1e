#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/atomic_file.h"

struct evp_md_ctx_st;

namespace contexture::cli {

/// Writes a float32 matrix as a NumPy file (format 1.0), row by row, and hashes the floats as they pass. The file
/// appears under its name when it is whole.
class NumpyWriter {
 public:
  NumpyWriter(const std::string& path, size_t rows, size_t columns);
  ~NumpyWriter();

  void add(std::span<const float> values);
  /// Makes the file whole; the SHA-256 of its floats, in hexadecimal.
  std::string finish();

 private:
  AtomicFile file_;
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> hash_;
};

}  // namespace contexture::cli
