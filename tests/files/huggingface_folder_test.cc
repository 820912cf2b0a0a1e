#include <gmock/gmock.h>

#include <cmath>

#include "files/huggingface.h"
#include "files/huggingface_models.h"
#include "tensor/float16.h"

namespace contexture {
namespace {

using namespace huggingface_models;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// ---- tensors ----

TEST(HuggingFaceTensors, GetTheirNamesInGguf) {
  const std::vector<std::string> list = {"model.embed_tokens.weight",
                                         "model.norm.weight",
                                         "lm_head.weight",
                                         "model.layers.0.input_layernorm.weight",
                                         "model.layers.0.self_attn.q_proj.weight",
                                         "model.layers.0.self_attn.q_proj.bias",
                                         "model.layers.0.self_attn.k_proj.weight",
                                         "model.layers.0.self_attn.v_proj.weight",
                                         "model.layers.0.self_attn.o_proj.weight",
                                         "model.layers.0.self_attn.q_norm.weight",
                                         "model.layers.0.self_attn.k_norm.weight",
                                         "model.layers.0.self_attn.rotary_emb.inv_freq",
                                         "model.layers.0.post_attention_layernorm.weight",
                                         "model.layers.12.mlp.gate_proj.weight",
                                         "model.layers.12.mlp.up_proj.weight",
                                         "model.layers.12.mlp.down_proj.weight"};
  const HuggingFaceFolder folder(config_of("llama"), tensors_named(list));
  const ModelFile m = open_model(folder.path());
  EXPECT_THAT(names(m), ElementsAre("blk.0.attn_k.weight", "blk.0.attn_k_norm.weight", "blk.0.attn_norm.weight",
                                    "blk.0.attn_output.weight", "blk.0.attn_q.bias", "blk.0.attn_q.weight",
                                    "blk.0.attn_q_norm.weight", "blk.0.attn_v.weight", "blk.0.ffn_norm.weight",
                                    "blk.12.ffn_down.weight", "blk.12.ffn_gate.weight", "blk.12.ffn_up.weight",
                                    "output.weight", "output_norm.weight", "token_embd.weight"));
  EXPECT_THAT(floats(m, "token_embd.weight"), ElementsAre(0, 1));
  EXPECT_THAT(floats(m, "output.weight"), ElementsAre(20, 21));
  EXPECT_THAT(floats(m, "blk.0.attn_q.bias"), ElementsAre(50, 51));
  EXPECT_THAT(floats(m, "blk.12.ffn_gate.weight"), ElementsAre(130, 131));
  EXPECT_THAT(floats(m, "blk.12.ffn_up.weight"), ElementsAre(140, 141));
  EXPECT_THAT(floats(m, "blk.12.ffn_down.weight"), ElementsAre(150, 151));
}

TEST(HuggingFaceTensors, OfPhi3AreJoined) {
  const HuggingFaceFolder folder(
      config_of("phi3"),
      tensors_named({"model.layers.0.self_attn.qkv_proj.weight", "lm_head.weight",
                     "model.layers.0.mlp.gate_up_proj.weight", "model.layers.0.mlp.down_proj.weight"}));
  EXPECT_THAT(names(open_model(folder.path())),
              ElementsAre("blk.0.attn_qkv.weight", "blk.0.ffn_down.weight", "blk.0.ffn_up.weight", "output.weight"));
}

TEST(HuggingFaceTensors, OfExpertsAreOneByOne) {
  const HuggingFaceFolder mixtral(
      config_of("mixtral", {{"num_local_experts", 2}, {"num_experts_per_tok", 1}}),
      tensors_named({"model.layers.1.block_sparse_moe.gate.weight",
                     "model.layers.1.block_sparse_moe.experts.0.w1.weight",
                     "model.layers.1.block_sparse_moe.experts.0.w2.weight",
                     "model.layers.1.block_sparse_moe.experts.10.w3.weight", "lm_head.weight"}));
  const ModelFile m = open_model(mixtral.path());
  EXPECT_THAT(floats(m, "blk.1.ffn_gate_inp.weight"), ElementsAre(0, 1));
  EXPECT_THAT(floats(m, "blk.1.ffn_gate.0.weight"), ElementsAre(10, 11));
  EXPECT_THAT(floats(m, "blk.1.ffn_down.0.weight"), ElementsAre(20, 21));
  EXPECT_THAT(floats(m, "blk.1.ffn_up.10.weight"), ElementsAre(30, 31));

  const HuggingFaceFolder qwen(
      config_of(
          "qwen3_moe",
          {{"num_experts", 2}, {"num_experts_per_tok", 1}, {"moe_intermediate_size", 8}, {"norm_topk_prob", true}}),
      tensors_named({"model.layers.1.mlp.gate.weight", "model.layers.1.mlp.experts.3.gate_proj.weight",
                     "model.layers.1.mlp.experts.3.down_proj.weight", "model.layers.1.mlp.experts.3.up_proj.weight",
                     "lm_head.weight"}));
  const ModelFile q = open_model(qwen.path());
  EXPECT_THAT(floats(q, "blk.1.ffn_gate_inp.weight"), ElementsAre(0, 1));
  EXPECT_THAT(floats(q, "blk.1.ffn_gate.3.weight"), ElementsAre(10, 11));
  EXPECT_THAT(floats(q, "blk.1.ffn_down.3.weight"), ElementsAre(20, 21));
  EXPECT_THAT(floats(q, "blk.1.ffn_up.3.weight"), ElementsAre(30, 31));
}

TEST(HuggingFaceTensors, OfGemmaAreNamedByWhereTheyStand) {
  const std::vector<std::string> list = {"model.layers.0.input_layernorm.weight",
                                         "model.layers.0.post_attention_layernorm.weight",
                                         "model.layers.0.pre_feedforward_layernorm.weight",
                                         "model.layers.0.post_feedforward_layernorm.weight",
                                         "model.layers.0.self_attn.q_norm.weight",
                                         "model.layers.0.mlp.up_proj.weight",
                                         "model.norm.weight"};
  for (const char* type : {"gemma2", "gemma3_text"}) {
    const HuggingFaceFolder folder(config_of(type), tensors_named(list));
    const ModelFile m = open_model(folder.path());
    // Norms with one added.
    EXPECT_THAT(floats(m, "blk.0.attn_norm.weight"), ElementsAre(1, 2));
    EXPECT_THAT(floats(m, "blk.0.post_attention_norm.weight"), ElementsAre(11, 12));
    EXPECT_THAT(floats(m, "blk.0.ffn_norm.weight"), ElementsAre(21, 22));
    EXPECT_THAT(floats(m, "blk.0.post_ffw_norm.weight"), ElementsAre(31, 32));
    EXPECT_THAT(floats(m, "blk.0.attn_q_norm.weight"), ElementsAre(41, 42));
    EXPECT_THAT(floats(m, "blk.0.ffn_up.weight"), ElementsAre(50, 51));
    EXPECT_THAT(floats(m, "output_norm.weight"), ElementsAre(61, 62));
  }
  const HuggingFaceFolder first(config_of("gemma"), tensors_named({"model.layers.0.post_attention_layernorm.weight"}));
  EXPECT_THAT(floats(open_model(first.path()), "blk.0.ffn_norm.weight"), ElementsAre(1, 2));
}

TEST(HuggingFaceTensors, NormsWithOneAddedMayBeBf16AndOutliveAMove) {
  TestTensor norm{"model.norm.weight", {2}, {}, "BF16"};
  const Bytes halves = Bytes().number(f32_to_bf16(0.5f)).number(f32_to_bf16(-0.25f));
  norm.data.assign(std::span<const std::byte>(halves).begin(), std::span<const std::byte>(halves).end());
  const HuggingFaceFolder folder(config_of("gemma"), {norm});
  ModelFile moved;
  {
    ModelFile model = open_model(folder.path());
    moved = std::move(model);
  }
  EXPECT_THAT(floats(moved, "output_norm.weight"), ElementsAre(1.5, 0.75));
}

TEST(HuggingFaceTensors, NormsWithOneAddedAreSmall) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{(1 << 20) + 1}, {2, 2}}) {
    const HuggingFaceFolder folder(config_of("gemma"), {counting("model.norm.weight", shape)});
    EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("model.norm.weight"), HasSubstr("no vector")));
  }
}

TEST(HuggingFaceTensors, OfGemma3WithVisionAreTheTextsAlone) {
  const json config = {{"model_type", "gemma3"}, {"text_config", config_of("gemma3_text")}};
  for (const std::string prefix : {"language_model.model.", "model.language_model."}) {
    const HuggingFaceFolder folder(
        config, tensors_named({prefix + "embed_tokens.weight", prefix + "layers.3.mlp.up_proj.weight",
                               "vision_tower.vision_model.embeddings.patch_embedding.weight",
                               "model.vision_tower.vision_model.post_layernorm.bias",
                               "multi_modal_projector.mm_input_projection_weight"}));
    EXPECT_THAT(names(open_model(folder.path())), ElementsAre("blk.3.ffn_up.weight", "token_embd.weight"));
  }
}

TEST(HuggingFaceTensors, UnknownNamesAreRefused) {
  for (const std::string name :
       {"model.layers.0.self_attn.sinks", "model.layers.x.mlp.up_proj.weight", "model.layers.01.mlp.up_proj.weight",
        "model.layers.99999999999999999999.mlp.up_proj.weight", "model.layers.0", "model.layers.0.", "score.weight", "",
        ".weight", "model.layers.0.mlp.experts.w1.weight", "model.layers.0.mlp.experts.1.weight",
        "vision_tower.encoder.weight"}) {
    const HuggingFaceFolder folder(config_of("llama"), tensors_named({name, "lm_head.weight"}));
    EXPECT_THAT(error_in_folder(folder.path()), HasSubstr(fmt::format("tensor {} is not part", name)));
  }
}

TEST(HuggingFaceTensors, TwoNamesForOneAreRefused) {
  const HuggingFaceFolder folder(config_of("llama"),
                                 tensors_named({"model.norm.weight", "norm.weight", "lm_head.weight"}));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("output_norm.weight is there twice"));
}

TEST(HuggingFaceTensors, TheHeadIsSharedWhereTheFileSaysSo) {
  const auto has_output = [](const json& more, const std::vector<std::string>& list) {
    const HuggingFaceFolder folder(config_of("llama", more), tensors_named(list));
    return open_model(folder.path()).find("output.weight") != nullptr;
  };
  EXPECT_TRUE(has_output({}, {"model.embed_tokens.weight", "lm_head.weight"}));
  EXPECT_FALSE(has_output({}, {"model.embed_tokens.weight"}));
  EXPECT_FALSE(has_output({{"tie_word_embeddings", true}}, {"model.embed_tokens.weight", "lm_head.weight"}));
  const HuggingFaceFolder gemma(config_of("gemma"), tensors_named({"model.embed_tokens.weight", "lm_head.weight"}));
  EXPECT_EQ(open_model(gemma.path()).find("output.weight"), nullptr) << "as the family does where the file is silent";
  EXPECT_THAT(error_of([&] {
                has_output({{"tie_word_embeddings", false}}, {"model.embed_tokens.weight"});
              }),
              HasSubstr("lm_head.weight is missing"));
}

TEST(HuggingFaceTensors, OtherNumbersAreNamed) {
  TestTensor tensor = counting("model.layers.0.mlp.up_proj.weight", {2});
  tensor.dtype = "I32";
  const HuggingFaceFolder folder(config_of("qwen2"), {tensor});
  EXPECT_THAT(error_in_folder(folder.path()),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("mlp.up_proj.weight"), HasSubstr("I32")));
}

// ---- folders ----

TEST(HuggingFaceFolders, OpenByAnyOfTheirFiles) {
  HuggingFaceFolder folder(config_of("qwen2"), tensors_named({"model.norm.weight"}));
  folder.write("generation_config.json", json{{"eos_token_id", {4, 5}}});
  folder.write("tokenizer_config.json", json{{"chat_template", "inside"}});
  for (const std::string& path :
       {folder.path(), folder.path() + "/", folder.file("config.json"), folder.file("model.safetensors")}) {
    const ModelFile m = open_model(path);
    EXPECT_EQ(m.kind, "Hugging Face (safetensors)");
    EXPECT_EQ(std::filesystem::path(m.path).parent_path(), std::filesystem::path(folder.path() + "/").parent_path());
    EXPECT_EQ(m.metadata.get_string("general.name"), std::filesystem::path(folder.path()).filename());
    EXPECT_EQ(m.metadata.get_string("tokenizer.chat_template"), "inside");
    EXPECT_THAT(m.metadata.get_ints("tokenizer.end_token_ids"), ElementsAre(4, 5));
    EXPECT_THAT(names(m), ElementsAre("output_norm.weight"));
  }
  folder.write("chat_template.jinja", "beside");
  EXPECT_EQ(open_model(folder.path()).metadata.get_string("tokenizer.chat_template"), "beside");
}

TEST(HuggingFaceFolders, OfTheHubsCacheAreNamedAfterTheModel) {
  const TemporaryFolder cache;
  const std::filesystem::path snapshot = cache.path() / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / "060db6499f32";
  std::filesystem::create_directories(snapshot);
  save(snapshot / "config.json", Bytes().raw(config_of("qwen2").dump()));
  save(snapshot / "model.safetensors", safetensors(tensors_named({"model.norm.weight"})));
  EXPECT_EQ(open_model(snapshot).metadata.get_string("general.name"), "Qwen2.5-0.5B");
}

TEST(HuggingFaceFolders, ShardsAreOpenedWhole) {
  HuggingFaceFolder folder;
  folder.write("config.json", config_of("qwen2"));
  save(folder.file("model-00001-of-00002.safetensors"),
       safetensors(tensors_named({"model.norm.weight", "model.embed_tokens.weight"})));
  save(folder.file("model-00002-of-00002.safetensors"),
       safetensors(tensors_named({"model.layers.0.mlp.up_proj.weight"})));
  const json index = {{"weight_map",
                       {{"model.norm.weight", "model-00001-of-00002.safetensors"},
                        {"model.embed_tokens.weight", "model-00001-of-00002.safetensors"},
                        {"model.layers.0.mlp.up_proj.weight", "model-00002-of-00002.safetensors"}}}};
  folder.write("model.safetensors.index.json", index);
  for (const std::string& path :
       {folder.path(), folder.file("model.safetensors.index.json"), folder.file("model-00002-of-00002.safetensors")}) {
    const ModelFile m = open_model(path);
    EXPECT_THAT(names(m), ElementsAre("blk.0.ffn_up.weight", "output_norm.weight", "token_embd.weight"));
    EXPECT_EQ(m.maps.size(), 2u);
    EXPECT_EQ(m.kind, "Hugging Face (safetensors), 2 parts");
  }

  json wrong = index;
  wrong["weight_map"]["model.layers.0.mlp.down_proj.weight"] = "model-00002-of-00002.safetensors";
  folder.write("model.safetensors.index.json", wrong);
  EXPECT_THAT(error_in_folder(folder.path()),
              AllOf(HasSubstr("model-00002-of-00002"), HasSubstr("mlp.down_proj.weight is missing")));

  for (const char* hostile : {"../model.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "a\\b"}) {
    wrong = index;
    wrong["weight_map"]["model.norm.weight"] = hostile;
    folder.write("model.safetensors.index.json", wrong);
    EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("no plain name")) << hostile;
  }
  wrong["weight_map"]["model.norm.weight"] = 3;
  folder.write("model.safetensors.index.json", wrong);
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("model.norm.weight is 3"));
  wrong["weight_map"]["model.norm.weight"] = "model-00003-of-00002.safetensors";
  folder.write("model.safetensors.index.json", wrong);
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("cannot open"));
}

TEST(HuggingFaceFolders, NeedNoWeightsWhereNoneAreAskedFor) {
  const auto without = [](const HuggingFaceFolder& folder) { return open_model(folder.path(), {.weights = false}); };
  const char* const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
  HuggingFaceFolder folder;
  folder.write("config.json", config_of("llama", {{"torch_dtype", "bfloat16"}}));
  const ModelFile bare = without(folder);
  ASSERT_TRUE(bare.absent);
  EXPECT_EQ(bare.absent->format, Format::bf16);
  EXPECT_THAT(bare.absent->names, ElementsAre("output.weight"));
  EXPECT_THAT(bare.absent->why, AllOf(HasSubstr("model.safetensors is missing"), HasSubstr("bfloat16")));
  EXPECT_EQ(number(bare, "llama.block_count"), 2);

  folder.write("config.json", config_of("llama", {{"tie_word_embeddings", true}, {"dtype", "float16"}}));
  folder.write("model.safetensors", pointer);
  EXPECT_EQ(without(folder).absent->format, Format::f16);
  EXPECT_TRUE(without(folder).absent->names.empty());
  EXPECT_THAT(without(folder).absent->why, HasSubstr("is a Git LFS pointer"));
  EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("model.safetensors"), HasSubstr("Git LFS pointer")));

  save(folder.file("model.safetensors"), safetensors(tensors_named({"model.embed_tokens.weight"})));
  EXPECT_FALSE(without(folder).absent);
  EXPECT_THAT(names(without(folder)), ElementsAre("token_embd.weight"));
}

TEST(HuggingFaceFolders, MayLackSomeShardsWhereNoneAreAskedFor) {
  HuggingFaceFolder folder;
  folder.write("config.json", config_of("llama"));
  folder.write("model.safetensors.index.json",
               json{{"weight_map",
                     {{"model.norm.weight", "model-00001-of-00002.safetensors"},
                      {"model.layers.0.mlp.up_proj.weight", "model-00002-of-00002.safetensors"},
                      {"lm_head.weight", "model-00002-of-00002.safetensors"}}}});
  save(folder.file("model-00001-of-00002.safetensors"), safetensors(tensors_named({"model.norm.weight"})));
  const ModelFile part = open_model(folder.path(), {.weights = false});
  EXPECT_THAT(names(part), ElementsAre("output_norm.weight"));
  ASSERT_TRUE(part.absent);
  EXPECT_EQ(part.absent->format, Format::f32) << "config.json does not say";
  EXPECT_THAT(part.absent->names, ElementsAre("blk.0.ffn_up.weight", "output.weight"));
  EXPECT_THAT(part.absent->why, AllOf(HasSubstr("model-00002-of-00002.safetensors is missing"), HasSubstr("float32")));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("model-00002-of-00002.safetensors"));
}

TEST(HuggingFaceFolders, SayWhatIsMissing) {
  HuggingFaceFolder folder;
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("config.json"));
  save(folder.file("model.safetensors"), safetensors(tensors_named({"model.norm.weight"})));
  EXPECT_THAT(error_in_folder(folder.file("model.safetensors")), HasSubstr("config.json is missing"));
  std::filesystem::remove(folder.file("model.safetensors"));
  folder.write("config.json", config_of("llama"));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("no model.safetensors"));
  save(folder.file("pytorch_model.bin"), Bytes().raw("PK"));
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("only pytorch_model.bin"));
  folder.write("config.json", "{\"model_type\":");
  EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("config.json"), HasSubstr("not JSON")));
  folder.write("config.json", "[1]");
  EXPECT_THAT(error_in_folder(folder.path()), HasSubstr("no JSON object"));
}

TEST(HuggingFaceFolders, LargeJsonIsNotRead) {
  HuggingFaceFolder folder(config_of("llama"), tensors_named({"lm_head.weight"}));
  folder.write("tokenizer_config.json", "{}");
  std::filesystem::resize_file(folder.file("tokenizer_config.json"), uint64_t{4} << 30);
  EXPECT_THAT(error_in_folder(folder.path()), AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("more than")));
}

}  // namespace
}  // namespace contexture
