// One small random model, written in every format that can be read, gives the same logits from each.

#include <gtest/gtest.h>

#include "engine/convert.h"
#include "engine/logits.h"
#include "files/huggingface_support.h"
#include "files/torch_support.h"
#include "support/random_model.h"

namespace contexture {
namespace {

constexpr size_t kDim = 64, kLayers = 2, kHeads = 4, kKvHeads = 2, kFfn = 96, kVocabulary = 80;

/// The GGUF file that the others are made from.
class Original {
 public:
  Original() {
    write_random_model({.dim = kDim,
                        .layers = kLayers,
                        .heads = kHeads,
                        .kv_heads = kKvHeads,
                        .ffn_dim = kFfn,
                        .vocabulary = kVocabulary,
                        .tied = false,
                        .seed = static_cast<uint32_t>(fresh_random()())},
                       file_.path());
    opened_ = open_model(file_.path());
  }
  const std::string& path() const { return file_.path(); }
  const std::vector<StoredTensor>& tensors() const { return opened_.tensors; }
  const StoredTensor& tensor(const std::string& name) const { return *opened_.find(name); }

 private:
  TemporaryFile file_;
  ModelFile opened_;
};

std::vector<std::byte> copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

/// What Hugging Face holds where GGUF has neighbouring pairs: row i of a head's first half is row 2i, of its second
/// half row 2i + 1.
std::vector<std::byte> in_halves(const StoredTensor& tensor) {
  const size_t rows = static_cast<size_t>(tensor.shape[0]), head = kDim / kHeads, bytes = tensor.data.size() / rows;
  std::vector<std::byte> out(tensor.data.size());
  for (size_t r = 0; r < rows; ++r) {
    const size_t at = r % head, from = r - at + (at < head / 2 ? 2 * at : 2 * (at - head / 2) + 1);
    std::copy_n(tensor.data.begin() + static_cast<ptrdiff_t>(from * bytes), bytes,
                out.begin() + static_cast<ptrdiff_t>(r * bytes));
  }
  return out;
}

using Names = std::vector<std::pair<const char*, const char*>>;

/// A GGUF tensor name in another format's words.
std::string renamed(std::string name, const char* layer, const Names& names) {
  for (const auto& [from, to] : names) {
    if (const size_t at = name.find(from); at != name.npos) name.replace(at, std::string(from).size(), to);
  }
  return name.starts_with("blk.") ? layer + name.substr(3) : name;
}

const Names kHuggingFaceNames = {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"},
                                 {"attn_norm", "input_layernorm"},     {"ffn_norm", "post_attention_layernorm"},
                                 {"attn_q", "self_attn.q_proj"},       {"attn_k", "self_attn.k_proj"},
                                 {"attn_v", "self_attn.v_proj"},       {"attn_output", "self_attn.o_proj"},
                                 {"ffn_gate", "mlp.gate_proj"},        {"ffn_up", "mlp.up_proj"},
                                 {"ffn_down", "mlp.down_proj"}};
const Names kMetaNames = {{"token_embd", "tok_embeddings"}, {"output_norm", "norm"},
                          {"attn_norm", "attention_norm"},  {"attn_q", "attention.wq"},
                          {"attn_k", "attention.wk"},       {"attn_v", "attention.wv"},
                          {"attn_output", "attention.wo"},  {"ffn_gate", "feed_forward.w1"},
                          {"ffn_up", "feed_forward.w3"},    {"ffn_down", "feed_forward.w2"}};

std::vector<TestTensor> huggingface_tensors(const Original& original) {
  std::vector<TestTensor> tensors;
  for (const StoredTensor& t : original.tensors()) {
    const bool rotated = t.name.ends_with("attn_q.weight") || t.name.ends_with("attn_k.weight");
    const std::string name =
        t.name == "output.weight" ? "lm_head.weight" : renamed(t.name, "model.layers", kHuggingFaceNames);
    tensors.push_back({name, t.shape, rotated ? in_halves(t) : copy(t.data)});
  }
  return tensors;
}

const nlohmann::json kHuggingFaceConfig = {{"model_type", "llama"},
                                           {"hidden_size", kDim},
                                           {"num_hidden_layers", kLayers},
                                           {"num_attention_heads", kHeads},
                                           {"num_key_value_heads", kKvHeads},
                                           {"intermediate_size", kFfn},
                                           {"vocab_size", kVocabulary},
                                           {"max_position_embeddings", 4096},
                                           {"rms_norm_eps", 1e-5},
                                           {"rope_theta", 10000.0},
                                           {"tie_word_embeddings", false}};
const nlohmann::json kMetaParams = {{"dim", kDim},
                                    {"n_layers", kLayers},
                                    {"n_heads", kHeads},
                                    {"n_kv_heads", kKvHeads},
                                    {"vocab_size", kVocabulary},
                                    {"norm_eps", 1e-5},
                                    {"multiple_of", 32},
                                    {"ffn_dim_multiplier", 0.5625},
                                    {"max_seq_len", 4096}};

CheckpointWriter checkpoint(const Original& original, const std::string& prefix) {
  CheckpointWriter writer;
  for (const StoredTensor& t : original.tensors()) {
    const std::string key = std::to_string(&t - original.tensors().data());
    writer.storage(key, t.data);
    writer.add_tensor(prefix + renamed(t.name, "layers", kMetaNames), {.key = key, .shape = t.shape, .strides = {}});
  }
  return writer;
}

/// llama2.c's order, as src/files/llama2c.cc describes it.
Bytes llama2c(const Original& original) {
  Bytes bytes;
  for (const size_t field : {kDim, kFfn, kLayers, kHeads, kKvHeads}) bytes.number(static_cast<int32_t>(field));
  constexpr int32_t context = 4096;
  bytes.number(-static_cast<int32_t>(kVocabulary)).number(context);
  const auto add = [&](const std::string& name) {
    const std::span<const std::byte> data = original.tensor(name).data;
    bytes.raw({reinterpret_cast<const char*>(data.data()), data.size()});
  };
  const auto add_layers = [&](const char* tensor) {
    for (size_t layer = 0; layer < kLayers; ++layer) add(fmt::format("blk.{}.{}.weight", layer, tensor));
  };
  add("token_embd.weight");
  for (const char* tensor :
       {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"}) {
    add_layers(tensor);
  }
  add("output_norm.weight");
  bytes.zeros(2 * sizeof(float) * context * (kDim / kHeads / 2));
  add("output.weight");
  return bytes;
}

class Formats : public testing::Test {
 protected:
  Original original_;
  TemporaryFolder folder_;
  std::vector<TokenId> tokens_ = random_tokens(20, kVocabulary);
  std::vector<float> expected_ = logits_of(original_.path(), tokens_);

  /// From the file itself and from what convert makes of it. `bound` 0: the same bits.
  void expect_same(const std::string& path, float bound = 0) {
    const TemporaryFile converted;
    convert_model({.in = path, .out = converted.path(), .type = std::nullopt});
    expect_near(logits_of(path, tokens_), bound, path);
    expect_near(logits_of(converted.path(), tokens_), bound, path + ", converted");
  }

 private:
  void expect_near(const std::vector<float>& logits, float bound, const std::string& what) {
    ASSERT_EQ(logits.size(), expected_.size()) << what;
    for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected_[i], bound) << what << ", " << i;
  }
};

// Its heads' channels lie in another order, so that sums of scores round in another order: some 2^-24 of numbers around
// 1, a few times over.
constexpr float kOtherOrder = 2e-5f;

TEST_F(Formats, Gguf) {
  expect_same(original_.path());
}

TEST_F(Formats, HuggingFace) {
  const HuggingFaceFolder whole(kHuggingFaceConfig, huggingface_tensors(original_));
  expect_same(whole.path(), kOtherOrder);
  expect_same(whole.file("config.json"), kOtherOrder);
}

TEST_F(Formats, HuggingFaceInShards) {
  HuggingFaceFolder sharded;
  sharded.write("config.json", kHuggingFaceConfig);
  std::vector<TestTensor> tensors = huggingface_tensors(original_), rest(tensors.begin() + 7, tensors.end());
  tensors.resize(7);
  save(sharded.file("model-1.safetensors"), safetensors(tensors));
  save(sharded.file("model-2.safetensors"), safetensors(rest));
  nlohmann::json map;
  for (const TestTensor& t : tensors) map[t.name] = "model-1.safetensors";
  for (const TestTensor& t : rest) map[t.name] = "model-2.safetensors";
  sharded.write("model.safetensors.index.json",
                nlohmann::json{{"metadata", nlohmann::json::object()}, {"weight_map", map}});
  expect_same(sharded.path(), kOtherOrder);
}

TEST_F(Formats, MetaFolder) {
  save(folder_.file("consolidated.00.pth"), checkpoint(original_, "").bytes());
  save(folder_.file("params.json"), Bytes().raw(kMetaParams.dump()));
  expect_same(folder_.path().string());
  expect_same(folder_.file("consolidated.00.pth"));
}

TEST_F(Formats, CheckpointWithAModelEntry) {
  const CheckpointWriter writer = checkpoint(original_, "_orig_mod.");
  PickleWriter pickle;
  pickle.op('}').op('(').text("model_args").op('}').op('(');
  for (const auto& [key, value] : kMetaParams.items()) {
    if (value.is_number_integer() && key != "multiple_of") pickle.text(key).integer(value.get<int32_t>());
  }
  pickle.op('u').text("model");
  writer.write_tensors(pickle);
  pickle.op('u');
  save(folder_.file("stories.pt"), writer.zip(pickle.finish()).bytes());
  expect_same(folder_.file("stories.pt"));
}

TEST_F(Formats, Llama2c) {
  save(folder_.file("model.bin"), llama2c(original_));
  expect_same(folder_.file("model.bin"));
}

}  // namespace
}  // namespace contexture
