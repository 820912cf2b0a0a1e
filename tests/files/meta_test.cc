#include "files/meta.h"

#include <gmock/gmock.h>

#include "files/torch_support.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t anything = INT64_MAX;
// The smallest Llama with grouped heads: 8 channels, 2 heads, 1 KV head. Meta's rule gives a feed-forward of
// 2 · 32 / 3 = 21, up to the next multiple of 4.
constexpr int64_t kDim = 8, kFfnDim = 24, kVocabulary = 5;

json params() {
  return {{"dim", kDim},      {"n_layers", 2},    {"n_heads", 2},    {"n_kv_heads", 1},
          {"multiple_of", 4}, {"norm_eps", 1e-5}, {"vocab_size", -1}};
}

json with(const json& more) {
  json all = params();
  if (!more.is_null()) all.update(more);
  return all;
}

/// Every tensor begins with a number of its own.
CheckpointWriter llama(const std::string& prefix = "", bool output = true) {
  CheckpointWriter writer;
  float first = 1000;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    writer.add(prefix + name, std::move(shape), first);
    first += 1000;
  };
  add("tok_embeddings.weight", {kVocabulary, kDim});
  add("norm.weight", {kDim});
  if (output) add("output.weight", {kVocabulary, kDim});
  for (int layer = 0; layer < 2; ++layer) {
    const std::string at = fmt::format("layers.{}.", layer);
    add(at + "attention_norm.weight", {kDim});
    add(at + "attention.wq.weight", {kDim, kDim});
    add(at + "attention.wk.weight", {kDim / 2, kDim});
    add(at + "attention.wv.weight", {kDim / 2, kDim});
    add(at + "attention.wo.weight", {kDim, kDim});
    add(at + "ffn_norm.weight", {kDim});
    add(at + "feed_forward.w1.weight", {kFfnDim, kDim});
    add(at + "feed_forward.w2.weight", {kDim, kFfnDim});
    add(at + "feed_forward.w3.weight", {kFfnDim, kDim});
  }
  return writer;
}

class MetaFolder {
 public:
  explicit MetaFolder(const json& params, const CheckpointWriter& checkpoint = llama(),
                      const std::string& name = "consolidated.00.pth") {
    if (!params.is_null()) write("params.json", params);
    save(file(name), checkpoint.bytes());
  }
  void write(std::string_view name, const json& json) { save(file(name), Bytes().raw(json.dump())); }
  std::string path() const { return folder_.path().string(); }
  std::string file(std::string_view name) const { return folder_.file(name); }

 private:
  TemporaryFolder folder_;
};

std::string error_in(const std::string& path) {
  return error_of([&] { (void)open_model(path); });
}

std::string error_with(const json& more) {
  return error_in(MetaFolder(with(more)).path());
}

int64_t number(const ModelFile& model, std::string_view key) {
  return model.metadata.get_int(key, 0, anything, -1);
}

float first_element(const ModelFile& model, std::string_view name) {
  const StoredTensor* tensor = model.find(name);
  if (!tensor) return -1;
  float value;
  std::memcpy(&value, tensor->data.data(), sizeof(value));
  return value;
}

TEST(Meta, PresentsItselfInTheVocabularyOfGguf) {
  const MetaFolder folder(params());
  for (const std::string& path : {folder.path(), folder.file("params.json"), folder.file("consolidated.00.pth")}) {
    const ModelFile m = open_model(path);
    EXPECT_EQ(m.kind, "PyTorch checkpoint");
    EXPECT_EQ(m.path, folder.file("consolidated.00.pth"));
    EXPECT_EQ(m.metadata.get_string("general.name"), std::filesystem::path(folder.path()).filename());
    EXPECT_EQ(m.metadata.get_string("general.architecture"), "llama");
    EXPECT_EQ(number(m, "llama.block_count"), 2);
    EXPECT_EQ(number(m, "llama.embedding_length"), kDim);
    EXPECT_EQ(number(m, "llama.feed_forward_length"), kFfnDim);
    EXPECT_EQ(number(m, "llama.vocab_size"), kVocabulary);
    EXPECT_EQ(number(m, "llama.attention.head_count"), 2);
    EXPECT_EQ(number(m, "llama.attention.head_count_kv"), 1);
    EXPECT_EQ(number(m, "llama.rope.dimension_count"), 4);
    EXPECT_EQ(m.metadata.get_float("llama.rope.freq_base"), 10000);
    EXPECT_FLOAT_EQ(static_cast<float>(m.metadata.get_float("llama.attention.layer_norm_rms_epsilon")), 1e-5f);
    // Meta's Q and K are stored as GGUF's are.
    EXPECT_FALSE(m.metadata.has("llama.rope.style"));
    EXPECT_FALSE(m.metadata.has("llama.rope.scaling.type"));
  }
}

TEST(Meta, FindsEveryWeightInItsPlace) {
  const MetaFolder folder(params());
  const ModelFile m = open_model(folder.path());
  EXPECT_EQ(m.tensors.size(), 3u + 2 * 9);
  float expected = 0;
  const auto expect_next = [&](const std::string& name) {
    EXPECT_EQ(first_element(m, name), expected += 1000) << name;
  };
  for (const char* name : {"token_embd", "output_norm", "output"}) expect_next(fmt::format("{}.weight", name));
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* name :
         {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"}) {
      expect_next(fmt::format("blk.{}.{}.weight", layer, name));
    }
  }
  EXPECT_THAT(m.find("blk.1.attn_k.weight")->shape, ElementsAre(kDim / 2, kDim));
  EXPECT_THAT(m.find("blk.1.ffn_down.weight")->shape, ElementsAre(kDim, kFfnDim));
}

TEST(Meta, ASharedHeadHasNoTensor) {
  EXPECT_EQ(open_model(MetaFolder(params(), llama("", false)).path()).find("output.weight"), nullptr);
  CheckpointWriter shared = llama("", false);
  shared.add_tensor("output.weight",
                    {.key = "0", .shape = {kVocabulary, kDim}, .strides = {}});  // the embedding's storage
  EXPECT_EQ(open_model(MetaFolder(params(), shared).path()).find("output.weight"), nullptr);
}

TEST(Meta, PassesOverComputedTables) {
  CheckpointWriter writer = llama();
  for (const char* name : {"rope.freqs", "freqs_cos", "freqs_sin", "freqs_cis", "layers.0.attention.mask"}) {
    writer.add(name, {2});
  }
  EXPECT_EQ(open_model(MetaFolder(params(), writer).path()).tensors.size(), 3u + 2 * 9);
}

TEST(Meta, RefusesUnknownTensors) {
  for (const char* name : {"layers.0.attention.wq.bias", "layers.0.attention.wq.scales", "cls.weight", "unmask",
                           "layers.00.attention.wq.weight", "layers.x.attention.wq.weight"}) {
    CheckpointWriter writer = llama();
    writer.add(name, {2});
    EXPECT_THAT(error_in(MetaFolder(params(), writer).path()), HasSubstr(fmt::format("tensor {} is not part", name)));
  }
}

TEST(Meta, WhatShapesSayMayBeLeftOut) {
  const ModelFile m = open_model(MetaFolder(json{{"n_heads", 2}}).path());
  EXPECT_EQ(number(m, "llama.block_count"), 2);
  EXPECT_EQ(number(m, "llama.embedding_length"), kDim);
  EXPECT_EQ(number(m, "llama.feed_forward_length"), kFfnDim);
  EXPECT_EQ(number(m, "llama.attention.head_count_kv"), 2);  // as many as heads, where it is not said
  const MetaFolder bare((json()));
  EXPECT_THAT(error_in(bare.path()),
              AllOf(HasSubstr("consolidated.00.pth"), HasSubstr("n_heads is missing"), HasSubstr("params.json")));
}

TEST(Meta, WhatShapesSayMustAgree) {
  EXPECT_EQ(error_with({{"vocab_size", kVocabulary}}), "");
  EXPECT_THAT(error_with({{"dim", 16}}), AllOf(HasSubstr("params.json"), HasSubstr("dim is 16"), HasSubstr("have 8")));
  EXPECT_THAT(error_with({{"dim", -1}}), HasSubstr("dim is -1"));
  EXPECT_THAT(error_with({{"n_layers", 3}}), HasSubstr("n_layers is 3"));
  EXPECT_THAT(error_with({{"vocab_size", 6}}), HasSubstr("vocab_size is 6"));
  EXPECT_THAT(error_with({{"n_heads", "two"}}), HasSubstr("n_heads is \"two\""));
}

TEST(Meta, TheFeedForwardFollowsTheRule) {
  EXPECT_EQ(error_with({{"multiple_of", 24}}), "");
  EXPECT_THAT(error_with({{"multiple_of", 16}}), AllOf(HasSubstr("32"), HasSubstr("24 rows")));
  EXPECT_EQ(error_with({{"multiple_of", 6}, {"ffn_dim_multiplier", 1.1}}), "");  // 21 · 1.1 = 23
  EXPECT_THAT(error_with({{"ffn_dim_multiplier", 1.3}}), HasSubstr("28"));       // 27
  EXPECT_THAT(error_with({{"ffn_dim_multiplier", 0}}), HasSubstr("ffn_dim_multiplier"));
  EXPECT_THAT(error_with({{"multiple_of", 0}}), HasSubstr("multiple_of"));
  EXPECT_EQ(error_with({{"hidden_dim", 24}, {"multiple_of", 16}}), "");  // said outright
  EXPECT_THAT(error_with({{"hidden_dim", 32}}), HasSubstr("hidden_dim is 32"));
}

TEST(Meta, FindsTheFeedForwardsOfMetasModels) {
  // Llama 2 7B and 70B, Llama 3.1 8B, Llama 3.2 1B: kDim, factor, multiple and the rows of w1 as published.
  struct Model {
    int64_t kDim;
    double factor;
    int64_t multiple, expected;
  };
  for (const Model& m : {Model{4096, 0, 256, 11008}, Model{8192, 1.3, 4096, 28672}, Model{4096, 1.3, 1024, 14336},
                         Model{2048, 1.5, 256, 8192}}) {
    CheckpointWriter writer;  // shapes alone
    writer.add_tensor("tok_embeddings.weight", {.key = "0", .shape = {1, m.kDim}, .strides = {}});
    writer.add_tensor("layers.0.feed_forward.w1.weight", {.key = "0", .shape = {m.expected, m.kDim}, .strides = {}});
    const Bytes bytes = writer.bytes();
    json said = {{"n_heads", 32}, {"multiple_of", m.multiple}};
    if (m.factor > 0) said["ffn_dim_multiplier"] = m.factor;
    ModelFile model;
    // The tensors are not all there, but that comes later.
    const std::string error =
        error_of([&] { read_meta(TorchCheckpoint(bytes, "m"), JsonObject(said, "params.json"), model); });
    EXPECT_THAT(error, testing::Not(HasSubstr("multiple_of")));
    EXPECT_EQ(number(model, "llama.feed_forward_length"), m.expected);
  }
}

TEST(Meta, ScaledRotationIsLlama3s) {
  const ModelFile m = open_model(MetaFolder(with({{"use_scaled_rope", true}, {"rope_theta", 500000.0}})).path());
  EXPECT_EQ(m.metadata.get_string("llama.rope.scaling.type"), "llama3");
  EXPECT_EQ(m.metadata.get_float("llama.rope.scaling.factor"), 32);  // a small model, so Llama 3.2
  EXPECT_EQ(m.metadata.get_float("llama.rope.scaling.low_freq_factor"), 1);
  EXPECT_EQ(m.metadata.get_float("llama.rope.scaling.high_freq_factor"), 4);
  EXPECT_EQ(number(m, "llama.rope.scaling.original_context_length"), 8192);
  EXPECT_EQ(number(m, "llama.context_length"), 131072);
  EXPECT_EQ(m.metadata.get_float("llama.rope.freq_base"), 500000);
  const ModelFile said = open_model(MetaFolder(with({{"use_scaled_rope", true}, {"rope_scale_factor", 8}})).path());
  EXPECT_EQ(said.metadata.get_float("llama.rope.scaling.factor"), 8);
}

TEST(Meta, FieldsThatChangeTheAnswerAreCarriedOutOrRefused) {
  const auto error = [](const json& more) {
    const MetaFolder folder(with(more));
    return error_of([&] { (void)open_model(folder.path()); });
  };
  const ModelFile windows = open_model(MetaFolder(with({{"sliding_window", 4096}})).path());
  EXPECT_EQ(windows.metadata.get_int("llama.attention.sliding_window", 0, anything), 4096) << "as Mistral's has it";
  const ModelFile low = open_model(MetaFolder(with({{"use_scaled_rope", true}, {"low_freq_factor", 2}})).path());
  EXPECT_EQ(low.metadata.get_float("llama.rope.scaling.low_freq_factor"), 2);
  EXPECT_EQ(error({{"use_hf_rope", false}, {"moe", false}, {"partial_rotary_factor", 1.0}, {"lora_args", nullptr}}),
            "");
  EXPECT_THAT(error({{"use_hf_rope", true}}), AllOf(HasSubstr("params.json"), HasSubstr("use_hf_rope is true")));
  EXPECT_THAT(error({{"moe", {{"num_experts", 8}}}}), HasSubstr("moe is object"));
  EXPECT_THAT(error({{"partial_rotary_factor", 0.5}}), HasSubstr("partial_rotary_factor is 0.5"));
  EXPECT_THAT(error({{"quantization_args", {{"group_size", 32}}}}), HasSubstr("quantization_args"));
}

TEST(Meta, TheContextIsSaidOrTheUsualOne) {
  const auto context = [](const json& more) {
    return number(open_model(MetaFolder(with(more)).path()), "llama.context_length");
  };
  EXPECT_EQ(context({{"max_seq_len", 77}}), 77);
  EXPECT_EQ(context({}), 4096);
  EXPECT_EQ(context({{"norm_eps", 1e-6}}), 2048);
  EXPECT_EQ(context({{"rope_theta", 500000}}), 8192);
}

/// A trainer's checkpoint with model_args of 64 tokens.
Bytes trainers_checkpoint() {
  const CheckpointWriter writer = llama("_orig_mod.");
  PickleWriter pickle;
  pickle.op('}').op('(').text("model");
  writer.write_tensors(pickle);
  pickle.text("model_args").op('}').op('(').text("n_heads").integer(2).text("n_kv_heads").integer(1);
  pickle.text("max_seq_len").integer(64).op('u').op('u');
  return writer.zip(pickle.finish()).bytes();
}

TEST(Meta, ATrainersCheckpointBringsItsNumbers) {
  const TemporaryFolder folder;
  save(folder.file("stories.pt"), trainers_checkpoint());
  const ModelFile alone = open_model(folder.file("stories.pt"));
  EXPECT_EQ(alone.metadata.get_string("general.name"), "stories");
  EXPECT_EQ(number(alone, "llama.attention.head_count_kv"), 1);
  EXPECT_EQ(number(alone, "llama.context_length"), 64);
  EXPECT_EQ(first_element(alone, "token_embd.weight"), 1000);

  // params.json comes first, and what it leaves out comes from the checkpoint.
  save(folder.file("params.json"), Bytes().raw(R"({"n_heads": 4, "n_kv_heads": 2})"));
  for (const std::string& path : {folder.path().string(), folder.file("stories.pt"), folder.file("params.json")}) {
    const ModelFile both = open_model(path);
    EXPECT_EQ(number(both, "llama.attention.head_count"), 4);
    EXPECT_EQ(number(both, "llama.attention.head_count_kv"), 2);
    EXPECT_EQ(number(both, "llama.context_length"), 64);
  }
}

TEST(Meta, TheOnlyFittingJsonBesideItWillDo) {
  MetaFolder folder((json()), llama(), "demo.pth");
  folder.write("demo_config.json", params());
  folder.write("tokenizer.json", {{"model", {{"vocab", json::object()}}}});
  save(folder.file("broken.json"), Bytes().raw("{"));
  EXPECT_EQ(number(open_model(folder.file("demo.pth")), "llama.attention.head_count_kv"), 1);
  folder.write("second.json", params());
  EXPECT_THAT(error_in(folder.file("demo.pth")), HasSubstr("n_heads is missing"));
}

TEST(Meta, RefusesFoldersThatSayTooLittleOrTooMuch) {
  MetaFolder folder(params());
  save(folder.file("consolidated.01.pth"), llama().bytes());
  EXPECT_THAT(error_in(folder.path()), HasSubstr("several files"));
  EXPECT_THAT(error_in(folder.file("consolidated.01.pth")), HasSubstr("several files"));

  MetaFolder two(params(), llama(), "a.pth");
  save(two.file("b.pt"), llama().bytes());
  EXPECT_THAT(error_in(two.path()), HasSubstr("several checkpoints"));
  EXPECT_EQ(error_in(two.file("b.pt")), "");

  const TemporaryFolder empty;
  save(empty.file("params.json"), Bytes().raw("{}"));
  EXPECT_THAT(error_in(empty.path()), HasSubstr("no checkpoints"));
}

TEST(Meta, RefusesOtherModels) {
  EXPECT_THAT(error_in(MetaFolder(params(), CheckpointWriter().add("bert.weight", {2})).path()),
              HasSubstr("no matrix tok_embeddings.weight"));
  CheckpointWriter vector;
  vector.add("tok_embeddings.weight", {5});
  EXPECT_THAT(error_in(MetaFolder(params(), vector).path()), HasSubstr("no matrix tok_embeddings.weight"));
  for (const int64_t dimension : {-1, 0}) {
    CheckpointWriter empty;
    empty.add_tensor("tok_embeddings.weight", {.key = "0", .shape = {2, dimension}, .strides = {}});
    EXPECT_THAT(error_in(MetaFolder(params(), empty).path()), HasSubstr(fmt::format("size {}", dimension)));
  }
}

TEST(Meta, OpensExecuTorchsDemo) {
  const std::string path = "../shared/data/torch/demo_rand_params.pth";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
  const ModelFile model = open_model(path);
  EXPECT_EQ(model.kind, "PyTorch checkpoint");
  // As demo_config.json and Meta's rule say.
  EXPECT_EQ(number(model, "llama.embedding_length"), 64);
  EXPECT_EQ(number(model, "llama.block_count"), 5);
  EXPECT_EQ(number(model, "llama.attention.head_count"), 8);
  EXPECT_EQ(number(model, "llama.feed_forward_length"), 172);
  EXPECT_EQ(number(model, "llama.vocab_size"), 512);
  EXPECT_THAT(model.find("token_embd.weight")->shape, ElementsAre(512, 64));
  EXPECT_THAT(model.find("blk.4.ffn_down.weight")->shape, ElementsAre(64, 172));
  float largest = 0;
  for (const StoredTensor& tensor : model.tensors) {
    std::vector<float> values(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    for (const float value : values) largest = std::max(largest, std::abs(value));
  }
  EXPECT_GT(largest, 0.5f);  // numbers of a random model, and no other bytes of the file
  EXPECT_LT(largest, 100.f);
}

}  // namespace
}  // namespace contexture
