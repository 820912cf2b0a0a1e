#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "files/metadata.h"
#include "kernels/attention.h"
#include "kernels/rope.h"

namespace contexture {

/// How positions turn into rotation.
struct RopeConfig {
  enum class Scaling : uint8_t {
    none,
    linear,  ///< positions divided by `factor` (arXiv:2306.15595)
    llama3,  ///< long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)
  };
  RopeStyle style = RopeStyle::interleaved;
  size_t dim = 0;  // channels of a head that rotate; even
  double base = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double original_context = 8192;                              // llama3
};

/// Radians a position for each pair of channels, (dim / 2). `divisors`: a model's own (rope_freqs.weight), or empty.
std::vector<double> rope_frequencies(const RopeConfig& rope, std::span<const float> divisors = {});

/// What a model is, whatever family it belongs to: the forward pass reads nothing else.
struct ModelConfig {
  std::string family;
  size_t layers = 0;
  size_t dim = 0;    // of the hidden state
  size_t heads = 0;  // query heads; a multiple of kv_heads
  size_t kv_heads = 0;
  size_t head_dim = 0;  // a multiple of 8
  size_t ffn_dim = 0;
  size_t vocabulary = 0;
  size_t context = 0;  // tokens that the model was made for
  float norm_epsilon = 1e-5f;
  RopeConfig rope;

  AttentionShape attention_shape() const;
};

/// Reads the configuration of any known family (the list is in families.cc). Throws Error where the family is unknown
/// (it names itself) or a number is missing, absurd or contradicts another.
ModelConfig read_config(const Metadata& metadata);

}  // namespace contexture
