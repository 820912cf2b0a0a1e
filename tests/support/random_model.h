#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "files/model_file.h"
#include "tensor/format.h"

namespace contexture {

/// The shape of a random Llama. Zero head_dim: dim / heads, and not written to the file.
struct RandomModel {
  size_t dim = 64, layers = 2, heads = 4, kv_heads = 2, head_dim = 0, ffn_dim = 96, vocabulary = 80;
  Format format = Format::f32;
  bool tied = true;
  bool rope_divisors = false;
  std::string rope_style = "interleaved";
  std::string rope_scaling = "none";
  size_t rope_dim = 0;  // 0: head_dim
  uint32_t seed = 1;

  size_t head() const { return head_dim ? head_dim : dim / heads; }
};

/// A file that is deleted when this goes.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& suffix = ".gguf");
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Writes it as GGUF, with a small vocabulary of single bytes when `with_vocabulary`.
void write_random_model(const RandomModel& model, const std::string& path, bool with_vocabulary = false);

}  // namespace contexture
