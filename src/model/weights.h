#pragma once

#include <memory>
#include <vector>

#include "base/aligned.h"
#include "files/model_file.h"
#include "kernels/matrix.h"
#include "model/config.h"

namespace contexture {

struct LayerWeights {
  const float* attention_norm = nullptr;  // (dim)
  Matrix q;                               // (heads · head_dim, dim)
  Matrix k, v;                            // (kv_heads · head_dim, dim)
  Matrix attention_output;                // (dim, heads · head_dim)
  const float* ffn_norm = nullptr;        // (dim)
  Matrix gate, up;                        // (ffn_dim, dim)
  Matrix down;                            // (dim, ffn_dim)
};

/// A model's weights, in their own formats: matrices point into the mapped file, norms are copied as floats.
struct Weights {
  Matrix embedding;  // (vocabulary, dim)
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;    // (dim)
  Matrix output;                         // (vocabulary, dim); the embedding itself where the model ties them
  std::vector<double> rope_frequencies;  // (rope.dim / 2)
  AlignedArray<float> norms;             // what the norm pointers point to
};

/// Bytes of weights a format, and in all; what `plan` prints.
struct WeightBytes {
  size_t of_format[16] = {};     // by Format
  size_t mapped = 0;             // matrices, in the file
  size_t copied = 0;             // norms, as floats
  std::vector<size_t> of_layer;  // matrices of each layer; what `mapped` has beyond them is embedding and output
  size_t total() const { return mapped + copied; }
};

/// Fills in config.vocabulary from the embedding, checks every tensor's shape against the configuration and that the
/// file holds none that this family does not know (a bias unread would be a wrong answer). Copies no weights.
/// Throws Error naming the tensor, the shape found and the shape expected.
WeightBytes check_weights(const ModelFile& file, ModelConfig& config);

/// Binds the weights; `file` must outlive them. Throws Error as check_weights.
Weights load_weights(const ModelFile& file, ModelConfig& config);

}  // namespace contexture
