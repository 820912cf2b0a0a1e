#pragma once

#include <memory>
#include <vector>

#include "base/aligned.h"
#include "files/model_file.h"
#include "kernels/matrix.h"
#include "model/config.h"

namespace contexture {

/// One feed-forward network: the layer's own, or one expert's.
struct FeedForward {
  Matrix gate, up;  // (ffn_dim, dim)
  Matrix down;      // (dim, ffn_dim)
};

/// What a family lacks is null or empty.
struct LayerWeights {
  const float* attention_norm = nullptr;       // (dim)
  Matrix q;                                    // (heads · head_dim, dim)
  Matrix k, v;                                 // (kv_heads · head_dim, dim)
  const float* q_bias = nullptr;               // (heads · head_dim)
  const float* k_bias = nullptr;               // (kv_heads · head_dim)
  const float* v_bias = nullptr;               // (kv_heads · head_dim)
  const float* q_norm = nullptr;               // (head_dim)
  const float* k_norm = nullptr;               // (head_dim)
  Matrix attention_output;                     // (dim, heads · head_dim)
  const float* attention_post_norm = nullptr;  // (dim)
  const float* ffn_norm = nullptr;             // (dim)
  Matrix router;                               // (experts, dim)
  std::vector<FeedForward> ffn;                // one, or (experts)
  const float* ffn_post_norm = nullptr;        // (dim)
};

/// A model's weights, in their own formats: matrices point into the mapped file, vectors are copied as floats.
struct Weights {
  Matrix embedding;  // (vocabulary, dim)
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;  // (dim)
  Matrix output;                       // (vocabulary, dim); the embedding itself where the model ties them
  std::vector<std::vector<double>> rope_frequencies;  // (ropes, rope.dim / 2)
  AlignedArray<float> vectors;                        // norms and biases: what the float pointers point to
};

/// Bytes of weights a format, and in all; what `plan` prints.
struct WeightBytes {
  size_t of_format[16] = {};     // by Format
  size_t mapped = 0;             // matrices, in the file
  size_t copied = 0;             // norms and biases, as floats
  std::vector<size_t> of_layer;  // matrices of each layer; what `mapped` has beyond them is embedding and output
  size_t total() const { return mapped + copied; }
};

/// Fills in config.vocabulary from the embedding, checks every tensor's shape against the configuration and that the
/// file holds none that this family does not know (a bias unread would be a wrong answer). Copies no weights.
/// Throws Error naming the tensor, the shape found and the shape expected.
WeightBytes check_weights(const ModelFile& file, ModelConfig& config);

/// Binds the weights; `file` must outlive them. `planned_context`: tokens that a run will hold (0: what the model was
/// made for); it decides between LongRoPE's short and long divisors. Throws Error as check_weights.
Weights load_weights(const ModelFile& file, ModelConfig& config, size_t planned_context = 0);

}  // namespace contexture
