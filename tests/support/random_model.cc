#include "support/random_model.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <random>

#include "base/error.h"
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

/// What a family's files hold beside, or in place of, Llama's keys and tensors.
struct FamilyParts {
  std::string_view name;
  bool biases = false;      // on Q, K and V
  bool head_norms = false;  // of each head's Q and K
  bool post_norms = false;  // of what attention and the feed-forward give
  bool joined = false;      // Q, K and V in one tensor, gate and up in another
  bool scales = false;      // of embedding, residual and logits
};

constexpr FamilyParts all_parts[] = {
    {.name = "llama"},
    {.name = "qwen2", .biases = true},
    {.name = "qwen3", .head_norms = true},
    {.name = "qwen3moe", .head_norms = true},
    {.name = "smollm3"},
    {.name = "granite", .scales = true},
    {.name = "phi3", .joined = true},
    {.name = "gemma"},
    {.name = "gemma2", .post_norms = true},
    {.name = "gemma3", .head_norms = true, .post_norms = true},
};

const FamilyParts& parts_of(const std::string& family) {
  for (const FamilyParts& parts : all_parts) {
    if (parts.name == family) return parts;
  }
  fail("no random models of the family '{}'", family);
}

Metadata keys_of(const RandomModel& model) {
  Metadata m;
  m.set_string("general.architecture", model.family);
  const std::string prefix = model.family + ".";
  const auto number = [&](const char* key, size_t value) {
    if (value) m.set_int(prefix + key, static_cast<int64_t>(value));
  };
  const auto real = [&](const char* key, float value) {
    if (value != 0) m.set_float(prefix + key, value);
  };
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) m.set_string(prefix + key, value);
  };
  number("block_count", model.layers);
  number("context_length", 4096);
  number("embedding_length", model.dim);
  // Qwen 3 MoE names the width of its experts apart; the other number is that of dense layers, of which it has none.
  const bool own_expert_width = model.family == "qwen3moe";
  number("feed_forward_length", own_expert_width ? 3 * model.ffn_dim : model.ffn_dim);
  if (own_expert_width) number("expert_feed_forward_length", model.ffn_dim);
  number("attention.head_count", model.heads);
  number("attention.head_count_kv", model.kv_heads);
  number("vocab_size", model.vocabulary);
  number("attention.key_length", model.head_dim);
  number("attention.value_length", model.head_dim);
  real("attention.layer_norm_rms_epsilon", model.epsilon);
  real("rope.freq_base", model.family == "gemma3" ? 1e6f : 10000.f);
  real("rope.freq_base_swa", model.rope_base_swa);
  number("rope.dimension_count", model.rope_dim);
  if (model.family == "llama") text("rope.style", model.rope_style);
  if (model.rope_scaling == "longrope") {  // the tensors say it, no key does
    number("rope.scaling.original_context_length", model.original_context);
    real("rope.scaling.attn_factor", 1.25f);
  } else {
    text("rope.scaling.type", model.rope_scaling);
    if (model.rope_scaling != "none") {
      real("rope.scaling.factor", 8);
      number("rope.scaling.original_context_length", model.original_context);
    }
  }
  number("attention.sliding_window", model.window);
  number("attention.sliding_window_pattern", model.window_pattern);
  number("expert_count", model.experts);
  number("expert_used_count", model.experts_used);
  real("attention.scale", model.attention_scale);
  real("attn_logit_softcapping", model.score_cap);
  real("final_logit_softcapping", model.logit_cap);
  if (parts_of(model.family).scales) {
    real("embedding_scale", 12);
    real("residual_scale", 0.22f);
    real("logit_scale", 3);
  }
  return m;
}

/// The tensors of a model, in the names and shapes of its family.
class Tensors {
 public:
  explicit Tensors(const RandomModel& model) : model_(model), parts_(parts_of(model.family)), list_(model.seed) {
    matrix("token_embd", model.vocabulary, model.dim);
    if (!model.tied) matrix("output", model.vocabulary, model.dim);
    norm("output_norm", model.dim);
    rope();
    for (size_t l = 0; l < model.layers; ++l) {
      block_ = fmt::format("blk.{}.", l);
      attention();
      norm(block_ + "ffn_norm", model.dim);
      if (model.experts) {
        experts();
      } else {
        feed_forward();
      }
      if (parts_.post_norms) norm(block_ + "post_ffw_norm", model.dim);
    }
  }

  const std::vector<StoredTensor>& list() const { return list_.tensors; }

 private:
  void matrix(const std::string& name, size_t rows, size_t columns, float gain = 1) {
    list_.add(name + ".weight", {static_cast<int64_t>(rows), static_cast<int64_t>(columns)}, model_.format,
              gain / std::sqrt(static_cast<float>(columns)));
  }

  void matrices(const std::string& name, size_t count, size_t rows, size_t columns) {
    list_.add(name + ".weight",
              {static_cast<int64_t>(count), static_cast<int64_t>(rows), static_cast<int64_t>(columns)}, model_.format,
              1 / std::sqrt(static_cast<float>(columns)));
  }

  void norm(const std::string& name, size_t size) {
    list_.add(name + ".weight", {static_cast<int64_t>(size)}, Format::f32, 0.2f, 1.f);
  }

  void bias(const std::string& name, size_t size) {
    list_.add(name + ".bias", {static_cast<int64_t>(size)}, Format::f32, 0.5f);
  }

  void rope() {
    const auto divisors = [this](const char* name, float about) {
      list_.add(name, {static_cast<int64_t>(model_.rotated() / 2)}, Format::f32, 0.1f, about);
    };
    if (model_.rope_divisors) divisors("rope_freqs.weight", 2);
    if (model_.rope_scaling == "longrope") {
      divisors("rope_factors_long.weight", 5);
      divisors("rope_factors_short.weight", 1.5f);
    }
  }

  void attention() {
    const size_t q_dim = model_.heads * model_.head(), kv_dim = model_.kv_heads * model_.head();
    norm(block_ + "attn_norm", model_.dim);
    if (parts_.joined) {
      matrix(block_ + "attn_qkv", q_dim + 2 * kv_dim, model_.dim, model_.score_gain);
    } else {
      matrix(block_ + "attn_q", q_dim, model_.dim, model_.score_gain);
      matrix(block_ + "attn_k", kv_dim, model_.dim, model_.score_gain);
      matrix(block_ + "attn_v", kv_dim, model_.dim);
    }
    if (parts_.biases) {
      bias(block_ + "attn_q", q_dim);
      bias(block_ + "attn_k", kv_dim);
      bias(block_ + "attn_v", kv_dim);
    }
    if (parts_.head_norms) {
      norm(block_ + "attn_q_norm", model_.head());
      norm(block_ + "attn_k_norm", model_.head());
    }
    matrix(block_ + "attn_output", model_.dim, q_dim);
    if (parts_.post_norms) norm(block_ + "post_attention_norm", model_.dim);
  }

  void feed_forward() {
    if (parts_.joined) {
      matrix(block_ + "ffn_up", 2 * model_.ffn_dim, model_.dim);
    } else {
      matrix(block_ + "ffn_gate", model_.ffn_dim, model_.dim);
      matrix(block_ + "ffn_up", model_.ffn_dim, model_.dim);
    }
    matrix(block_ + "ffn_down", model_.dim, model_.ffn_dim);
  }

  void experts() {
    // Routers stay in f32, whatever the format of the rest: so do they in quantised files.
    list_.add(block_ + "ffn_gate_inp.weight", {static_cast<int64_t>(model_.experts), static_cast<int64_t>(model_.dim)},
              Format::f32, 2 / std::sqrt(static_cast<float>(model_.dim)));
    if (!model_.separate_experts) {
      matrices(block_ + "ffn_gate_exps", model_.experts, model_.ffn_dim, model_.dim);
      matrices(block_ + "ffn_up_exps", model_.experts, model_.ffn_dim, model_.dim);
      matrices(block_ + "ffn_down_exps", model_.experts, model_.dim, model_.ffn_dim);
      return;
    }
    for (size_t e = 0; e < model_.experts; ++e) {
      matrix(fmt::format("{}ffn_gate.{}", block_, e), model_.ffn_dim, model_.dim);
      matrix(fmt::format("{}ffn_up.{}", block_, e), model_.ffn_dim, model_.dim);
      matrix(fmt::format("{}ffn_down.{}", block_, e), model_.dim, model_.ffn_dim);
    }
  }

  const RandomModel& model_;
  const FamilyParts& parts_;
  TensorList list_;
  std::string block_;
};

}  // namespace

TemporaryFile::TemporaryFile(const std::string& suffix) {
  static std::atomic<int> counter{0};
  static const unsigned tag = std::random_device{}();  // a killed run's files are never another's
  path_ = (std::filesystem::temp_directory_path() / fmt::format("contexture-test-{:x}-{}{}", tag, ++counter, suffix))
              .string();
}

TemporaryFile::~TemporaryFile() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

void write_random_model(const RandomModel& model, const std::string& path, bool with_vocabulary) {
  Metadata m = keys_of(model);
  if (with_vocabulary) add_vocabulary(m, model.vocabulary);
  write_gguf(path, m, Tensors(model).list());
}

}  // namespace contexture
