#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "files/model_file.h"
#include "kernels/packed_matrix.h"
#include "model/config.h"
#include "model/step.h"

namespace contexture {

/// One feed-forward network: the layer's own, or one expert's.
struct FeedForward {
  PackedMatrix gate, up;  // (ffn_dim, dim)
  PackedMatrix down;      // (dim, ffn_dim)
};

/// What a family lacks is null or empty.
struct LayerWeights {
  const float* attention_norm = nullptr;       // (dim)
  PackedMatrix q;                              // (heads · head_dim, dim)
  PackedMatrix k, v;                           // (kv_heads · head_dim, dim)
  const float* q_bias = nullptr;               // (heads · head_dim)
  const float* k_bias = nullptr;               // (kv_heads · head_dim)
  const float* v_bias = nullptr;               // (kv_heads · head_dim)
  const float* q_norm = nullptr;               // (head_dim)
  const float* k_norm = nullptr;               // (head_dim)
  PackedMatrix attention_output;               // (dim, heads · head_dim)
  const float* attention_post_norm = nullptr;  // (dim)
  const float* ffn_norm = nullptr;             // (dim)
  PackedMatrix router;                         // (experts, dim)
  std::vector<FeedForward> ffn;                // one, or (experts)
  const float* ffn_post_norm = nullptr;        // (dim)
};

/// A model's weights, in their own formats: matrices arranged for products, vectors as floats.
struct Weights {
  PackedMatrix embedding;  // (vocabulary, dim)
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;  // (dim)
  PackedMatrix output;                 // (vocabulary, dim); the embedding itself where the model ties them
  // Radians a position for each pair of channels, (rotations, ropes, rope.dim / 2): by RotationId.
  std::vector<std::vector<std::vector<double>>> rope_frequencies;
  AlignedArray<std::byte> packed;  // what the matrices point to
  AlignedArray<float> vectors;     // norms and biases: what the float pointers point to
};

/// Bytes of weights in memory, and what they are in the file; what `plan` prints.
struct WeightBytes {
  size_t of_format[16] = {};     // matrices, by Format
  size_t packed = 0;             // matrices, all
  size_t copied = 0;             // norms and biases, as floats
  size_t stored = 0;             // matrices, in the file
  std::vector<size_t> of_layer;  // matrices of each layer; what `packed` has beyond them is embedding and output
  size_t total() const { return packed + copied; }
};

/// Fills in config.vocabulary from the embedding, checks every tensor's shape against the configuration and that the
/// file holds none that this family does not know (a bias unread would be a wrong answer). Copies no weights. Weights
/// that are not here (ModelFile::absent) count as what they would be.
/// Throws Error naming the tensor, the shape found and the shape expected.
WeightBytes check_weights(const ModelFile& file, ModelConfig& config);

/// Radians a position for each pair of channels, (ropes, rope.dim / 2), with the file's own divisors for a text of so
/// many tokens.
std::vector<std::vector<double>> read_rope_frequencies(const ModelFile& file, const ModelConfig& config, size_t tokens);

/// Nothing where K is rotated alike however long a text is. A model with LongRoPE (arXiv:2402.13753) brings two sets of
/// divisors: a text that may grow beyond so many tokens is another than one that may not, of the same prompt.
std::optional<size_t> rotation_border(const ModelFile& file);

/// By which of a model's sets of divisors a text is rotated that may grow to so many tokens.
inline RotationId rotation_of_text(std::optional<size_t> border, size_t tokens) {
  return border && tokens > *border;
}

/// Reads the weights out of the file, of which no byte is needed afterwards; the pages of its map are given back as it
/// goes, so that weights are not in memory twice. Throws Error as check_weights.
Weights load_weights(const ModelFile& file, ModelConfig& config, ThreadPool& pool);

}  // namespace contexture
