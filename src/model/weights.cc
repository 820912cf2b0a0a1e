#include "model/weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <unordered_set>

#include "base/error.h"

namespace contexture {
namespace {

/// A shape without outer dimensions of 1, which files may write or leave out.
std::span<const int64_t> without_ones(std::span<const int64_t> shape) {
  while (shape.size() > 1 && shape.front() == 1) shape = shape.subspan(1);
  return shape;
}

/// A matrix of the file and where it goes.
struct Packing {
  Matrix from;
  PackedMatrix to;
};

/// Finds tensors by name and shape, and remembers which were asked for. Gives matrices their places one after the other
/// in `memory`; without memory they are only counted.
class TensorBinder {
 public:
  explicit TensorBinder(const ModelFile& file, std::byte* memory = nullptr)
      : file_(file), path_(printable(file.path, 400)), memory_(memory) {}

  const StoredTensor* find(const std::string& name, const std::vector<int64_t>& shape) {
    asked_.insert(name);
    const StoredTensor* tensor = file_.find(name);
    if (tensor && !std::ranges::equal(without_ones(tensor->shape), without_ones(shape))) {
      fail("{}: tensor {} is ({}), the configuration wants ({}); the file contradicts itself", path_, name,
           fmt::join(tensor->shape, ", "), fmt::join(shape, ", "));
    }
    return tensor;
  }

  const StoredTensor& get(const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor* tensor = find(name, shape);
    if (!tensor && file_.absent) {
      absent_.push_back({name, file_.absent->format, shape, {}});
      return absent_.back();
    }
    if (!tensor) fail("{}: tensor {} is missing; the file holds no whole model", path_, name);
    return *tensor;
  }

  bool has(const std::string& name) const {
    return file_.find(name) || (file_.absent && file_.absent->names.contains(name));
  }

  PackedMatrix matrix(const std::string& name, size_t rows, size_t columns) {
    return rows_of(get(name, {static_cast<int64_t>(rows), static_cast<int64_t>(columns)}), 0, rows);
  }

  /// Some rows of a tensor as a matrix of their own; of a tensor (n, rows, columns) the rows count through.
  PackedMatrix rows_of(const StoredTensor& tensor, size_t first, size_t rows) {
    Matrix matrix{tensor.format, rows, static_cast<size_t>(tensor.shape.back()), nullptr};
    if (!tensor.data.empty()) matrix.data = tensor.data.data() + first * matrix.row_bytes();
    PackedMatrix packed = packed_shape(matrix);
    const size_t packed_bytes = AlignedArray<std::byte>::bytes_for(packed.bytes());
    if (memory_) packed.data = memory_ + bytes.packed;
    bytes.of_format[static_cast<size_t>(tensor.format)] += packed_bytes;
    bytes.packed += packed_bytes;
    bytes.stored += matrix.bytes();
    packings.push_back({matrix, packed});
    return packed;
  }

  void refuse_unknown() const {
    for (const StoredTensor& tensor : file_.tensors) {
      if (!asked_.contains(tensor.name)) {
        fail("{}: tensor {} is not part of this family; ignoring it would give wrong answers", path_,
             printable(tensor.name));
      }
    }
  }

  /// Of the file, for errors.
  const std::string& path() const { return path_; }
  WeightBytes bytes;
  std::vector<Packing> packings;

 private:
  const ModelFile& file_;
  std::string path_;
  std::byte* memory_;
  std::unordered_set<std::string> asked_;
  std::deque<StoredTensor> absent_;  // as they would be
};

/// Where the floats of norms and biases go; without memory they are only counted.
class VectorWriter {
 public:
  VectorWriter(TensorBinder& binder, float* memory) : binder_(binder), memory_(memory) {}

  const float* add(const std::string& name, size_t count) {
    const StoredTensor& tensor = binder_.get(name, {static_cast<int64_t>(count)});
    if (info(tensor.format).block > 1) {
      fail("{}: vector {} is in {}; norms and biases are f32, f16 or bf16", binder_.path(), name,
           contexture::name(tensor.format));
    }
    float* to = memory_ ? memory_ + used_ : nullptr;
    if (to) info(tensor.format).decode(tensor.data.data(), to, count);
    used_ += (count + 15) / 16 * 16;
    return to;
  }

  size_t floats() const { return used_; }

 private:
  TensorBinder& binder_;
  float* memory_;
  size_t used_ = 0;
};

/// Tensors that are not here are counted one by one, on the word of a configuration alone.
void check_count(const ModelFile& file, const ModelConfig& config) {
  constexpr size_t most = 1 << 16;  // the largest models known have some 23,000
  if (config.layers * std::max<size_t>(1, config.experts) <= most) return;
  fail("{}: {} layers of {} experts, more than any model has; use another copy of this file", printable(file.path, 400),
       config.layers, config.experts);
}

void bind_vocabulary(const ModelFile& file, ModelConfig& config) {
  const StoredTensor* embedding = file.find("token_embd.weight");
  if (!embedding && file.absent && config.vocabulary != 0) return;
  if (!embedding)
    fail("{} holds no weights (no token_embd.weight); this command needs them", printable(file.path, 400));
  const size_t rows = static_cast<size_t>(embedding->shape[0]);
  if (config.vocabulary != 0 && config.vocabulary != rows) {
    fail("{}: token_embd.weight has {} rows, the vocabulary {} tokens; the file contradicts itself",
         printable(file.path, 400), rows, config.vocabulary);
  }
  config.vocabulary = rows;
}

/// The names of one layer's tensors.
class LayerNames {
 public:
  explicit LayerNames(size_t layer) : layer_(layer) {}
  std::string weight(const char* tensor) const { return fmt::format("blk.{}.{}.weight", layer_, tensor); }
  std::string bias(const char* tensor) const { return fmt::format("blk.{}.{}.bias", layer_, tensor); }
  std::string expert(const char* tensor, size_t e) const {
    return fmt::format("blk.{}.{}.{}.weight", layer_, tensor, e);
  }

 private:
  size_t layer_;
};

/// Q, K and V: three matrices, or the rows of one (Phi-3's files).
void bind_qkv(TensorBinder& binder, VectorWriter& vectors, const ModelConfig& c, const LayerNames& names,
              LayerWeights& w) {
  const size_t q_dim = c.heads * c.head_dim, kv_dim = c.kv_heads * c.head_dim;
  if (binder.has(names.weight("attn_qkv"))) {
    const StoredTensor& joined =
        binder.get(names.weight("attn_qkv"), {static_cast<int64_t>(q_dim + 2 * kv_dim), static_cast<int64_t>(c.dim)});
    w.q = binder.rows_of(joined, 0, q_dim);
    w.k = binder.rows_of(joined, q_dim, kv_dim);
    w.v = binder.rows_of(joined, q_dim + kv_dim, kv_dim);
  } else {
    w.q = binder.matrix(names.weight("attn_q"), q_dim, c.dim);
    w.k = binder.matrix(names.weight("attn_k"), kv_dim, c.dim);
    w.v = binder.matrix(names.weight("attn_v"), kv_dim, c.dim);
  }
  if (c.qkv_bias || binder.has(names.bias("attn_q"))) {
    w.q_bias = vectors.add(names.bias("attn_q"), q_dim);
    w.k_bias = vectors.add(names.bias("attn_k"), kv_dim);
    w.v_bias = vectors.add(names.bias("attn_v"), kv_dim);
  }
  if (c.head_norms) {
    w.q_norm = vectors.add(names.weight("attn_q_norm"), c.head_dim);
    w.k_norm = vectors.add(names.weight("attn_k_norm"), c.head_dim);
  }
}

/// A dense feed-forward: three matrices, or gate and up as the rows of one (Phi-3's files).
FeedForward bind_dense(TensorBinder& binder, const ModelConfig& c, const LayerNames& names) {
  FeedForward f;
  if (binder.has(names.weight("ffn_gate"))) {
    f.gate = binder.matrix(names.weight("ffn_gate"), c.ffn_dim, c.dim);
    f.up = binder.matrix(names.weight("ffn_up"), c.ffn_dim, c.dim);
  } else {
    const StoredTensor& joined =
        binder.get(names.weight("ffn_up"), {static_cast<int64_t>(2 * c.ffn_dim), static_cast<int64_t>(c.dim)});
    f.gate = binder.rows_of(joined, 0, c.ffn_dim);
    f.up = binder.rows_of(joined, c.ffn_dim, c.ffn_dim);
  }
  f.down = binder.matrix(names.weight("ffn_down"), c.dim, c.ffn_dim);
  return f;
}

/// One matrix of every expert: joined (experts, rows, columns), or a tensor each (older files, Hugging Face).
std::vector<PackedMatrix> bind_experts(TensorBinder& binder, const ModelConfig& c, const LayerNames& names,
                                       const char* tensor, size_t rows, size_t columns) {
  std::vector<PackedMatrix> experts;
  const std::string joined = names.weight(fmt::format("{}_exps", tensor).c_str());
  for (size_t e = 0; e < c.experts; ++e) {
    if (binder.has(joined)) {
      const StoredTensor& all = binder.get(
          joined, {static_cast<int64_t>(c.experts), static_cast<int64_t>(rows), static_cast<int64_t>(columns)});
      experts.push_back(binder.rows_of(all, e * rows, rows));
    } else {
      experts.push_back(binder.matrix(names.expert(tensor, e), rows, columns));
    }
  }
  return experts;
}

void bind_ffn(TensorBinder& binder, const ModelConfig& c, const LayerNames& names, LayerWeights& w) {
  if (c.experts == 0) {
    w.ffn.push_back(bind_dense(binder, c, names));
    return;
  }
  w.router = binder.matrix(names.weight("ffn_gate_inp"), c.experts, c.dim);
  const std::vector<PackedMatrix> gates = bind_experts(binder, c, names, "ffn_gate", c.ffn_dim, c.dim);
  const std::vector<PackedMatrix> ups = bind_experts(binder, c, names, "ffn_up", c.ffn_dim, c.dim);
  const std::vector<PackedMatrix> downs = bind_experts(binder, c, names, "ffn_down", c.dim, c.ffn_dim);
  for (size_t e = 0; e < c.experts; ++e) w.ffn.push_back({gates[e], ups[e], downs[e]});
}

LayerWeights bind_layer(TensorBinder& binder, VectorWriter& vectors, const ModelConfig& c, size_t layer) {
  const LayerNames names(layer);
  LayerWeights w;
  w.attention_norm = vectors.add(names.weight("attn_norm"), c.dim);
  bind_qkv(binder, vectors, c, names, w);
  w.attention_output = binder.matrix(names.weight("attn_output"), c.dim, c.heads * c.head_dim);
  w.ffn_norm = vectors.add(names.weight("ffn_norm"), c.dim);
  bind_ffn(binder, c, names, w);
  if (c.post_norms) {
    w.attention_post_norm = vectors.add(names.weight("post_attention_norm"), c.dim);
    w.ffn_post_norm = vectors.add(names.weight("post_ffw_norm"), c.dim);
  }
  return w;
}

std::vector<float> read_divisors(TensorBinder& binder, const StoredTensor* tensor, size_t pairs) {
  if (!tensor) return {};
  if (tensor->format != Format::f32) fail("{}: {} is not f32", binder.path(), tensor->name);
  std::vector<float> divisors(pairs);
  info(Format::f32).decode(tensor->data.data(), divisors.data(), divisors.size());
  for (const float d : divisors) {
    if (!(d > 0) || std::isinf(d)) fail("{}: {} holds {}; divisors are positive", binder.path(), tensor->name, d);
  }
  return divisors;
}

/// A model's own divisors of the frequencies, by RotationId; one empty set where it has none. LongRoPE brings two:
/// which of them a text is rotated by is chosen once, since to change over in its midst would turn the K that are
/// stored already into wrong ones.
std::vector<std::vector<float>> rope_divisors(TensorBinder& binder, const ModelConfig& c) {
  const size_t pairs = c.rope().dim / 2;
  const std::vector<int64_t> shape = {static_cast<int64_t>(pairs)};
  const auto read = [&](const char* name) { return read_divisors(binder, binder.find(name, shape), pairs); };
  const std::vector<float> own = read("rope_freqs.weight"), of_short = read("rope_factors_short.weight"),
                           of_long = read("rope_factors_long.weight");
  if (!own.empty()) return {own};
  if (of_short.empty() && of_long.empty()) return {{}};
  return {of_short, of_long};
}

std::vector<std::vector<std::vector<double>>> rope_frequencies_of(TensorBinder& binder, const ModelConfig& c) {
  std::vector<std::vector<std::vector<double>>> all;
  for (const std::vector<float>& divisors : rope_divisors(binder, c)) {
    std::vector<std::vector<double>>& frequencies = all.emplace_back();
    for (const RopeConfig& rope : c.ropes) frequencies.push_back(rope_frequencies(rope, divisors));
  }
  return all;
}

/// One pass over all tensors: with memory for the vectors it binds, without it only checks and counts.
Weights bind(TensorBinder& binder, const ModelConfig& c, float* memory, size_t& floats) {
  VectorWriter vectors(binder, memory);
  Weights w;
  w.embedding = binder.matrix("token_embd.weight", c.vocabulary, c.dim);
  w.layers.reserve(c.layers);
  for (size_t layer = 0; layer < c.layers; ++layer) {
    const size_t before = binder.bytes.packed;
    w.layers.push_back(bind_layer(binder, vectors, c, layer));
    binder.bytes.of_layer.push_back(binder.bytes.packed - before);
  }
  w.output_norm = vectors.add("output_norm.weight", c.dim);
  w.output = binder.has("output.weight") ? binder.matrix("output.weight", c.vocabulary, c.dim) : w.embedding;
  w.rope_frequencies = rope_frequencies_of(binder, c);
  binder.refuse_unknown();
  floats = vectors.floats();
  binder.bytes.copied = AlignedArray<float>::bytes_for(floats);
  return w;
}

/// Packs all matrices, some megabytes at a time, and gives the file's pages back behind them.
void pack_all(const std::vector<Packing>& packings, std::byte* memory, const ModelFile& file, ThreadPool& pool) {
  constexpr size_t kPieceBytes = size_t{8} << 20;
  for (const Packing& p : packings) {
    const size_t panel_bytes = p.to.panel_bytes(), panels = p.to.panels();
    const size_t piece = std::max<size_t>(1, kPieceBytes / std::max<size_t>(1, panel_bytes));
    std::byte* to = memory + (p.to.data - memory);
    for (size_t first = 0; first < panels; first += piece) {
      const size_t count = std::min(piece, panels - first);
      pool.run(count, [&](size_t i, int) { pack_panel(p.from, first + i, to + (first + i) * panel_bytes); });
      const size_t begin = first * PackedMatrix::panel_rows;
      const size_t rows = std::min(p.from.rows - begin, count * PackedMatrix::panel_rows);
      const std::span<const std::byte> read(p.from.row(begin), rows * p.from.row_bytes());
      for (const MappedFile& map : file.maps) map.give_back(read);
    }
  }
}

}  // namespace

WeightBytes check_weights(const ModelFile& file, ModelConfig& config) {
  bind_vocabulary(file, config);
  if (file.absent) check_count(file, config);
  TensorBinder binder(file);
  size_t floats = 0;
  bind(binder, config, nullptr, floats);
  return binder.bytes;
}

std::optional<size_t> rotation_border(const ModelFile& file) {
  const bool has_any = file.find("rope_factors_short.weight") || file.find("rope_factors_long.weight");
  if (!has_any || file.find("rope_freqs.weight")) return std::nullopt;
  return static_cast<size_t>(read_config(file.metadata).rope().original_context);
}

std::vector<std::vector<double>> read_rope_frequencies(const ModelFile& file, const ModelConfig& config,
                                                       size_t tokens) {
  TensorBinder binder(file);
  return rope_frequencies_of(binder, config).at(rotation_of_text(rotation_border(file), tokens));
}

Weights load_weights(const ModelFile& file, ModelConfig& config, ThreadPool& pool) {
  if (file.absent) fail("{}: {}", printable(file.path, 400), file.absent->why);
  const WeightBytes bytes = check_weights(file, config);
  size_t floats = bytes.copied / sizeof(float);
  AlignedArray<float> vectors(floats);
  AlignedArray<std::byte> packed(bytes.packed);
  TensorBinder binder(file, packed.data());
  Weights weights = bind(binder, config, vectors.data(), floats);
  pack_all(binder.packings, packed.data(), file, pool);
  weights.packed = std::move(packed);
  weights.vectors = std::move(vectors);
  return weights;
}

}  // namespace contexture
