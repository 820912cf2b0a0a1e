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

/// The shape of a random model of any family. Zero or empty: the family goes without it, and the file does not name it.
struct RandomModel {
  std::string family = "llama";  // general.architecture
  size_t dim = 64, layers = 2, heads = 4, kv_heads = 2, head_dim = 0, ffn_dim = 96, vocabulary = 80;
  Format format = Format::f32;
  bool tied = true;
  bool rope_divisors = false;
  std::string rope_style = {};  // written under the llama family alone; empty: as its GGUF files have it
  std::string rope_scaling = "none";
  size_t rope_dim = 0;           // 0: head_dim
  size_t original_context = 64;  // of rope scaling; the model's own context is 4,096
  float rope_base_swa = 0;       // of Gemma 3's windowed layers
  size_t window = 0;             // tokens that a token sees, itself among them
  size_t window_pattern = 0;     // Gemma 3: every how many layers one sees everything
  size_t experts = 0, experts_used = 0;
  bool separate_experts = false;       // a tensor an expert, as files of early 2024 have it
  float attention_scale = 0;           // what scores are multiplied by
  float score_gain = 1;                // Q and K are made this much larger, so that soft-caps and scales matter
  float score_cap = 0, logit_cap = 0;  // Gemma 2
  float epsilon = 1e-5f;               // of norms
  uint32_t seed = 1;

  size_t head() const { return head_dim ? head_dim : dim / heads; }
  size_t rotated() const { return rope_dim ? rope_dim : head(); }
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
