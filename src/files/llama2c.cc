#include "files/llama2c.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/error.h"

// A llama2.c model, the "legacy" export, all numbers little-endian:
//
//   int32 × 7    dim, hidden_dim, layers, heads, kv_heads, vocabulary, seq_len
//                a negative vocabulary means that the classifier is a matrix of its own, else it is the embedding
//   float32      token_embedding   (vocabulary, dim)
//                attention_norm    (layers, dim)
//                wq, wk, wv, wo    (layers, heads * head_size, dim), (layers, kv_heads * head_size, dim) twice,
//                                  (layers, dim, heads * head_size)
//                ffn_norm          (layers, dim)
//                w1, w2, w3        (layers, hidden_dim, dim), (layers, dim, hidden_dim), (layers, hidden_dim, dim)
//                norm              (dim)
//                cos, sin          (seq_len, head_size / 2) each; once the tables of the rotation, now only in the way
//                classifier        (vocabulary, dim), where it is separate
//
// head_size is dim / heads. There is no magic number: a plausible header makes a file one of these, and then its size
// must be what the header says, to the byte. Tensors are aligned to 4 bytes, not more: the header takes 28.
//
// Later exports begin with the magic number "ak42" and a version; they are named and refused.

namespace contexture {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place");

constexpr size_t header_bytes = 7 * sizeof(int32_t);
constexpr uint32_t later_magic = 0x616b3432;

struct Header {
  int64_t dim, hidden_dim, layers, heads, kv_heads, vocabulary, seq_len;
  bool separate_classifier;

  int64_t head_size() const { return dim / heads; }
  int64_t kv_dim() const { return kv_heads * head_size(); }

  /// The limits are far above any real model, and low enough that no product below can overflow.
  bool plausible() const {
    const auto within = [](int64_t value, int64_t high) { return value >= 1 && value <= high; };
    return within(dim, 1 << 20) && within(hidden_dim, 1 << 24) && within(layers, 1 << 12) && within(heads, dim) &&
           within(kv_heads, heads) && within(vocabulary, 1 << 28) && within(seq_len, 1 << 28) && dim % heads == 0 &&
           heads % kv_heads == 0 && head_size() % 2 == 0;
  }

  /// Of the file.
  uint64_t bytes() const {
    const int64_t layer = 2 * dim + 2 * dim * dim + 2 * kv_dim() * dim + 3 * hidden_dim * dim;
    const int64_t tables = seq_len * head_size();
    const int64_t ends = vocabulary * dim * (separate_classifier ? 2 : 1) + dim;
    return header_bytes + sizeof(float) * static_cast<uint64_t>(layers * layer + tables + ends);
  }
};

/// Needs header_bytes.
Header read_header(std::span<const std::byte> bytes) {
  std::array<int32_t, 7> h;
  std::memcpy(h.data(), bytes.data(), header_bytes);
  const int64_t vocabulary = h[5];
  return {.dim = h[0],
          .hidden_dim = h[1],
          .layers = h[2],
          .heads = h[3],
          .kv_heads = h[4],
          .vocabulary = vocabulary < 0 ? -vocabulary : vocabulary,
          .seq_len = h[6],
          .separate_classifier = vocabulary < 0};
}

bool is_later_export(std::span<const std::byte> bytes) {
  uint32_t magic;
  if (bytes.size() < sizeof(magic)) return false;
  std::memcpy(&magic, bytes.data(), sizeof(magic));
  return magic == later_magic;
}

/// Hands out the weights in the order of the file. The size of the file is proven before.
class Llama2cWeights {
 public:
  Llama2cWeights(ModelFile& model, std::span<const std::byte> bytes) : model_(model), left_(bytes) {}

  void skip(int64_t count) { left_ = left_.subspan(static_cast<size_t>(count) * sizeof(float)); }

  void add(std::string name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t dimension : shape) count *= dimension;
    const auto data = left_.first(static_cast<size_t>(count) * sizeof(float));
    skip(count);
    model_.add({.name = std::move(name), .format = Format::f32, .shape = std::move(shape), .data = data});
  }

  /// One tensor of each layer, "blk.N.NAME.weight".
  void add_layers(int64_t layers, std::string_view name, const std::vector<int64_t>& shape) {
    for (int64_t layer = 0; layer < layers; ++layer) add(fmt::format("blk.{}.{}.weight", layer, name), shape);
  }

 private:
  ModelFile& model_;
  std::span<const std::byte> left_;
};

void set_metadata(const Header& header, Metadata& metadata) {
  metadata.set_string("general.architecture", "llama");
  metadata.set_int("llama.block_count", header.layers);
  metadata.set_int("llama.context_length", header.seq_len);
  metadata.set_int("llama.embedding_length", header.dim);
  metadata.set_int("llama.feed_forward_length", header.hidden_dim);
  metadata.set_int("llama.attention.head_count", header.heads);
  metadata.set_int("llama.attention.head_count_kv", header.kv_heads);
  metadata.set_int("llama.rope.dimension_count", header.head_size());
  metadata.set_int("llama.vocab_size", header.vocabulary);
  // Not in the file: llama2.c has them as constants.
  metadata.set_float("llama.rope.freq_base", 10000);
  metadata.set_float("llama.attention.layer_norm_rms_epsilon", 1e-5);
}

}  // namespace

bool is_llama2c(std::span<const std::byte> bytes) {
  return is_later_export(bytes) || (bytes.size() >= header_bytes && read_header(bytes).plausible());
}

ModelFile read_llama2c(std::span<const std::byte> bytes, const std::string& path) {
  const std::string file = printable(path, 400);
  if (is_later_export(bytes)) {
    fail("{}: a llama2.c model with the magic number ak42 is not supported; export it as version 0 (legacy)", file);
  }
  if (!is_llama2c(bytes)) fail("{} is no llama2.c model; check the path", file);
  const Header header = read_header(bytes);
  if (bytes.size() != header.bytes()) {
    fail(
        "{}: has the header of a llama2.c model of {} bytes, but the file has {}; check the path, or download it again",
        file, header.bytes(), bytes.size());
  }

  ModelFile model;
  model.path = path;
  model.kind = "llama2.c";
  model.metadata.set_origin(file);
  set_metadata(header, model.metadata);

  const int64_t layers = header.layers;
  Llama2cWeights weights(model, bytes.subspan(header_bytes));
  weights.add("token_embd.weight", {header.vocabulary, header.dim});
  weights.add_layers(layers, "attn_norm", {header.dim});
  weights.add_layers(layers, "attn_q", {header.dim, header.dim});
  weights.add_layers(layers, "attn_k", {header.kv_dim(), header.dim});
  weights.add_layers(layers, "attn_v", {header.kv_dim(), header.dim});
  weights.add_layers(layers, "attn_output", {header.dim, header.dim});
  weights.add_layers(layers, "ffn_norm", {header.dim});
  weights.add_layers(layers, "ffn_gate", {header.hidden_dim, header.dim});
  weights.add_layers(layers, "ffn_down", {header.dim, header.hidden_dim});
  weights.add_layers(layers, "ffn_up", {header.hidden_dim, header.dim});
  weights.add("output_norm.weight", {header.dim});
  weights.skip(header.seq_len * header.head_size());
  if (header.separate_classifier) weights.add("output.weight", {header.vocabulary, header.dim});
  return model;
}

ModelFile open_llama2c(MappedFile file) {
  ModelFile model = read_llama2c(file.bytes(), file.path());
  model.maps.push_back(std::move(file));
  return model;
}

}  // namespace contexture
