#include "model/weights.h"

#include <fmt/ranges.h>

#include <cmath>
#include <unordered_set>

#include "base/error.h"

namespace contexture {
namespace {

/// Finds tensors by name and shape, and remembers which were asked for.
class TensorBinder {
 public:
  explicit TensorBinder(const ModelFile& file) : file_(file), path_(printable(file.path, 400)) {}

  const StoredTensor* find(const std::string& name, const std::vector<int64_t>& shape) {
    asked_.insert(name);
    const StoredTensor* tensor = file_.find(name);
    if (tensor && tensor->shape != shape) {
      fail("{}: tensor {} is ({}), the configuration wants ({}); the file contradicts itself", path_, name,
           fmt::join(tensor->shape, ", "), fmt::join(shape, ", "));
    }
    return tensor;
  }

  const StoredTensor& get(const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor* tensor = find(name, shape);
    if (!tensor) fail("{}: tensor {} is missing; the file holds no whole model", path_, name);
    return *tensor;
  }

  Matrix matrix(const std::string& name, size_t rows, size_t columns) {
    const StoredTensor& tensor = get(name, {static_cast<int64_t>(rows), static_cast<int64_t>(columns)});
    return count(tensor, {tensor.format, rows, columns, tensor.data.data()});
  }

  Matrix count(const StoredTensor& tensor, const Matrix& matrix) {
    bytes.of_format[static_cast<size_t>(tensor.format)] += tensor.data.size();
    bytes.mapped += tensor.data.size();
    return matrix;
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

 private:
  const ModelFile& file_;
  std::string path_;
  std::unordered_set<std::string> asked_;
};

/// Where the floats of norms go; without memory they are only counted.
class NormWriter {
 public:
  NormWriter(TensorBinder& binder, float* memory) : binder_(binder), memory_(memory) {}

  const float* add(const std::string& name, size_t count) {
    const StoredTensor& tensor = binder_.get(name, {static_cast<int64_t>(count)});
    if (info(tensor.format).block > 1) {
      fail("{}: norm {} is in {}; norms are f32, f16 or bf16", binder_.path(), name, contexture::name(tensor.format));
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

void bind_vocabulary(const ModelFile& file, ModelConfig& config) {
  const StoredTensor* embedding = file.find("token_embd.weight");
  if (!embedding)
    fail("{} holds no weights (no token_embd.weight); this command needs them", printable(file.path, 400));
  const size_t rows = static_cast<size_t>(embedding->shape[0]);
  if (config.vocabulary != 0 && config.vocabulary != rows) {
    fail("{}: token_embd.weight has {} rows, the vocabulary {} tokens; the file contradicts itself",
         printable(file.path, 400), rows, config.vocabulary);
  }
  config.vocabulary = rows;
}

LayerWeights bind_layer(TensorBinder& binder, NormWriter& norms, const ModelConfig& c, size_t layer) {
  const auto name = [layer](const char* tensor) { return fmt::format("blk.{}.{}.weight", layer, tensor); };
  const size_t q_dim = c.heads * c.head_dim, kv_dim = c.kv_heads * c.head_dim;
  LayerWeights w;
  w.attention_norm = norms.add(name("attn_norm"), c.dim);
  w.q = binder.matrix(name("attn_q"), q_dim, c.dim);
  w.k = binder.matrix(name("attn_k"), kv_dim, c.dim);
  w.v = binder.matrix(name("attn_v"), kv_dim, c.dim);
  w.attention_output = binder.matrix(name("attn_output"), c.dim, q_dim);
  w.ffn_norm = norms.add(name("ffn_norm"), c.dim);
  w.gate = binder.matrix(name("ffn_gate"), c.ffn_dim, c.dim);
  w.up = binder.matrix(name("ffn_up"), c.ffn_dim, c.dim);
  w.down = binder.matrix(name("ffn_down"), c.dim, c.ffn_dim);
  return w;
}

/// A model's own divisors of the frequencies; empty where it has none.
std::vector<float> rope_divisors(TensorBinder& binder, const ModelConfig& c) {
  const StoredTensor* tensor = binder.find("rope_freqs.weight", {static_cast<int64_t>(c.rope.dim / 2)});
  if (!tensor) return {};
  if (tensor->format != Format::f32) fail("{}: rope_freqs.weight is not f32", binder.path());
  std::vector<float> divisors(c.rope.dim / 2);
  info(Format::f32).decode(tensor->data.data(), divisors.data(), divisors.size());
  for (const float d : divisors) {
    if (!(d > 0) || std::isinf(d)) fail("{}: rope_freqs.weight holds {}; divisors are positive", binder.path(), d);
  }
  return divisors;
}

/// One pass over all tensors: with memory for the norms it binds, without it only checks and counts.
Weights bind(TensorBinder& binder, const ModelConfig& c, float* norm_memory, size_t& norm_floats) {
  NormWriter norms(binder, norm_memory);
  Weights w;
  w.embedding = binder.matrix("token_embd.weight", c.vocabulary, c.dim);
  w.layers.reserve(c.layers);
  for (size_t layer = 0; layer < c.layers; ++layer) {
    const size_t before = binder.bytes.mapped;
    w.layers.push_back(bind_layer(binder, norms, c, layer));
    binder.bytes.of_layer.push_back(binder.bytes.mapped - before);
  }
  w.output_norm = norms.add("output_norm.weight", c.dim);
  const StoredTensor* output =
      binder.find("output.weight", {static_cast<int64_t>(c.vocabulary), static_cast<int64_t>(c.dim)});
  w.output = output ? binder.count(*output, {output->format, c.vocabulary, c.dim, output->data.data()}) : w.embedding;
  w.rope_frequencies = rope_frequencies(c.rope, rope_divisors(binder, c));
  binder.refuse_unknown();
  norm_floats = norms.floats();
  binder.bytes.copied = AlignedArray<float>::bytes_for(norm_floats);
  return w;
}

}  // namespace

WeightBytes check_weights(const ModelFile& file, ModelConfig& config) {
  bind_vocabulary(file, config);
  TensorBinder binder(file);
  size_t norm_floats = 0;
  bind(binder, config, nullptr, norm_floats);
  return binder.bytes;
}

Weights load_weights(const ModelFile& file, ModelConfig& config) {
  size_t norm_floats = check_weights(file, config).copied / sizeof(float);
  AlignedArray<float> norms(norm_floats);
  TensorBinder binder(file);
  Weights weights = bind(binder, config, norms.data(), norm_floats);
  weights.norms = std::move(norms);
  return weights;
}

}  // namespace contexture
