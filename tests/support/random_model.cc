#include "support/random_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cmath>

#include "files/gguf_writer.h"
#include "support/random.h"

namespace contexture {
namespace {

/// Keeps the bytes of the tensors alive while they are written.
class TensorList {
 public:
  explicit TensorList(uint32_t seed) : random_(seed) {}

  void add(const std::string& name, std::vector<int64_t> shape, Format format, float scale, float offset = 0) {
    size_t count = 1;
    for (const int64_t n : shape) count *= static_cast<size_t>(n);
    if (info(format).block == 1) {
      std::vector<float> values = random_floats(random_, count, scale);
      for (float& v : values) v += offset;
      memory_.push_back(std::make_unique<std::vector<std::byte>>(bytes_of(format, count)));
      info(format).encode(values.data(), memory_.back()->data(), count);
    } else {
      memory_.push_back(std::make_unique<std::vector<std::byte>>(random_weights(random_, format, count, scale)));
    }
    tensors.push_back({name, format, std::move(shape), *memory_.back()});
  }

  std::vector<StoredTensor> tensors;

 private:
  std::mt19937 random_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
};

void add_vocabulary(Metadata& m, size_t size) {
  std::vector<std::string> pieces = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  for (size_t id = 3; id < size; ++id) {
    // printable letters first, so that texts of tests are in the vocabulary
    const size_t byte = (id - 3 + 'a') % 256;
    pieces.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(6);
  }
  m.set_string("tokenizer.ggml.model", "llama");
  m.set_strings("tokenizer.ggml.tokens", pieces);
  m.set_floats("tokenizer.ggml.scores", std::vector<float>(size, 0.f));
  m.set_ints("tokenizer.ggml.token_type", types);
  m.set_int("tokenizer.ggml.bos_token_id", 1);
  m.set_int("tokenizer.ggml.eos_token_id", 2);
  m.set_int("tokenizer.ggml.unknown_token_id", 0);
}

}  // namespace

TemporaryFile::TemporaryFile(const std::string& suffix) {
  static std::atomic<int> counter{0};
  path_ = (std::filesystem::temp_directory_path() / fmt::format("contexture-test-{}-{}{}", getpid(), ++counter, suffix))
              .string();
}

TemporaryFile::~TemporaryFile() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

void write_random_model(const RandomModel& model, const std::string& path, bool with_vocabulary) {
  Metadata m;
  const auto number = [&m](const std::string& key, size_t value) {
    m.set_int("llama." + key, static_cast<int64_t>(value));
  };
  m.set_string("general.architecture", "llama");
  number("block_count", model.layers);
  number("context_length", 4096);
  number("embedding_length", model.dim);
  number("feed_forward_length", model.ffn_dim);
  number("attention.head_count", model.heads);
  number("attention.head_count_kv", model.kv_heads);
  number("vocab_size", model.vocabulary);
  m.set_float("llama.attention.layer_norm_rms_epsilon", 1e-5);
  m.set_float("llama.rope.freq_base", 10000);
  if (model.head_dim) {
    number("attention.key_length", model.head_dim);
    number("attention.value_length", model.head_dim);
  }
  if (model.rope_dim) number("rope.dimension_count", model.rope_dim);
  m.set_string("llama.rope.style", model.rope_style);
  m.set_string("llama.rope.scaling.type", model.rope_scaling);
  if (model.rope_scaling != "none") {
    m.set_float("llama.rope.scaling.factor", 8);
    number("rope.scaling.original_context_length", 64);
  }
  if (with_vocabulary) add_vocabulary(m, model.vocabulary);

  TensorList list(model.seed);
  const auto matrix = [&](const std::string& name, size_t rows, size_t columns) {
    list.add(name + ".weight", {static_cast<int64_t>(rows), static_cast<int64_t>(columns)}, model.format,
             1 / std::sqrt(static_cast<float>(columns)));
  };
  const auto norm = [&](const std::string& name) {
    list.add(name + ".weight", {static_cast<int64_t>(model.dim)}, Format::f32, 0.2f, 1.f);
  };
  const size_t q_dim = model.heads * model.head(), kv_dim = model.kv_heads * model.head();
  matrix("token_embd", model.vocabulary, model.dim);
  if (!model.tied) matrix("output", model.vocabulary, model.dim);
  norm("output_norm");
  if (model.rope_divisors) {
    list.add("rope_freqs.weight", {static_cast<int64_t>((model.rope_dim ? model.rope_dim : model.head()) / 2)},
             Format::f32, 0.1f, 2.f);
  }
  for (size_t l = 0; l < model.layers; ++l) {
    const std::string block = fmt::format("blk.{}.", l);
    norm(block + "attn_norm");
    matrix(block + "attn_q", q_dim, model.dim);
    matrix(block + "attn_k", kv_dim, model.dim);
    matrix(block + "attn_v", kv_dim, model.dim);
    matrix(block + "attn_output", model.dim, q_dim);
    norm(block + "ffn_norm");
    matrix(block + "ffn_gate", model.ffn_dim, model.dim);
    matrix(block + "ffn_up", model.ffn_dim, model.dim);
    matrix(block + "ffn_down", model.dim, model.ffn_dim);
  }
  write_gguf(path, m, list.tensors);
}

}  // namespace contexture
