#include "files/llama2c.h"

#include <gmock/gmock.h>

#include <array>

#include "files/support.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// The smallest model with grouped heads: head_size 2, kv_dim 2.
constexpr int32_t dim = 4, hidden = 3, layers = 2, heads = 2, kv_heads = 1, vocabulary = 5, seq_len = 7;

Bytes header(std::array<int32_t, 7> fields) {
  Bytes bytes;
  for (const int32_t field : fields) bytes.number(field);
  return bytes;
}

/// Every weight is its own place in the file, counted in floats.
Bytes tiny(bool separate_classifier) {
  Bytes bytes = header({dim, hidden, layers, heads, kv_heads, separate_classifier ? -vocabulary : vocabulary, seq_len});
  const int layer = dim + dim * dim + 2 * 2 * dim + dim * dim + dim + 3 * hidden * dim;
  const int count = vocabulary * dim * (separate_classifier ? 2 : 1) + layers * layer + dim + seq_len * 2;
  for (int i = 0; i < count; ++i) bytes.number(static_cast<float>(i));
  return bytes;
}

float first(const ModelFile& model, std::string_view name) {
  const StoredTensor* tensor = model.find(name);
  if (!tensor) return -1;
  float value;
  std::memcpy(&value, tensor->data.data(), sizeof(value));
  return value;
}

std::string llama2c_error(std::span<const std::byte> bytes) {
  return error_of([&] { (void)read_llama2c(bytes, "tiny.bin"); });
}

TEST(Llama2c, PresentsItselfInTheVocabularyOfGguf) {
  const Bytes bytes = tiny(false);
  EXPECT_TRUE(is_llama2c(bytes));
  const ModelFile model = read_llama2c(bytes, "tiny.bin");
  const Metadata& m = model.metadata;
  EXPECT_EQ(model.kind, "llama2.c");
  EXPECT_EQ(m.get_string("general.architecture"), "llama");
  EXPECT_EQ(m.get_int("llama.embedding_length", 0, 100), dim);
  EXPECT_EQ(m.get_int("llama.feed_forward_length", 0, 100), hidden);
  EXPECT_EQ(m.get_int("llama.block_count", 0, 100), layers);
  EXPECT_EQ(m.get_int("llama.attention.head_count", 0, 100), heads);
  EXPECT_EQ(m.get_int("llama.attention.head_count_kv", 0, 100), kv_heads);
  EXPECT_EQ(m.get_int("llama.rope.dimension_count", 0, 100), 2);
  EXPECT_EQ(m.get_int("llama.vocab_size", 0, 100), vocabulary);
  EXPECT_EQ(m.get_int("llama.context_length", 0, 100), seq_len);
  EXPECT_EQ(m.get_float("llama.rope.freq_base"), 10000.0);
  EXPECT_FLOAT_EQ(static_cast<float>(m.get_float("llama.attention.layer_norm_rms_epsilon")), 1e-5f);
}

TEST(Llama2c, FindsEveryWeightInItsPlace) {
  const Bytes bytes = tiny(true);
  const ModelFile model = read_llama2c(bytes, "tiny.bin");
  EXPECT_EQ(model.tensors.size(), 3u + 9 * layers);
  float place = 0;
  const auto expect = [&](std::string_view name, std::vector<int64_t> shape) {
    EXPECT_EQ(first(model, name), place) << name;
    ASSERT_TRUE(model.find(name));
    EXPECT_EQ(model.find(name)->shape, shape) << name;
    float count = 1;
    for (const int64_t dimension : shape) count *= static_cast<float>(dimension);
    EXPECT_EQ(model.find(name)->data.size(), static_cast<size_t>(count) * sizeof(float));
    place += count;
  };
  const auto expect_layers = [&](std::string_view name, const std::vector<int64_t>& shape) {
    for (int layer = 0; layer < layers; ++layer) expect(fmt::format("blk.{}.{}.weight", layer, name), shape);
  };
  expect("token_embd.weight", {vocabulary, dim});
  expect_layers("attn_norm", {dim});
  expect_layers("attn_q", {dim, dim});
  expect_layers("attn_k", {2, dim});
  expect_layers("attn_v", {2, dim});
  expect_layers("attn_output", {dim, dim});
  expect_layers("ffn_norm", {dim});
  expect_layers("ffn_gate", {hidden, dim});
  expect_layers("ffn_down", {dim, hidden});
  expect_layers("ffn_up", {hidden, dim});
  expect("output_norm.weight", {dim});
  place += seq_len * 2;  // the tables of the rotation
  expect("output.weight", {vocabulary, dim});
}

TEST(Llama2c, ASharedClassifierHasNoTensor) {
  const Bytes bytes = tiny(false);
  EXPECT_EQ(read_llama2c(bytes, "tiny.bin").find("output.weight"), nullptr);
}

TEST(Llama2c, RefusesEveryOtherSize) {
  const Bytes whole = tiny(false);
  const std::span<const std::byte> bytes = whole;
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    ASSERT_NE(llama2c_error(cut), "") << "at byte " << size;
  }
  EXPECT_THAT(llama2c_error(bytes.first(bytes.size() - 1)),
              AllOf(HasSubstr("tiny.bin"), HasSubstr(fmt::format("model of {} bytes", bytes.size())),
                    HasSubstr(fmt::format("the file has {}", bytes.size() - 1))));
  EXPECT_THAT(llama2c_error(Bytes(whole).u8(0)), HasSubstr(fmt::format("the file has {}", bytes.size() + 1)));
}

TEST(Llama2c, RefusesImplausibleHeaders) {
  EXPECT_TRUE(is_llama2c(header({4, 3, 2, 2, 1, 5, 7})));
  EXPECT_FALSE(is_llama2c(header({0, 3, 2, 2, 1, 5, 7})));
  EXPECT_FALSE(is_llama2c(header({4, -3, 2, 2, 1, 5, 7})));
  EXPECT_FALSE(is_llama2c(header({4, 3, 1 << 20, 2, 1, 5, 7})));
  EXPECT_FALSE(is_llama2c(header({4, 3, 2, 3, 1, 5, 7})));   // heads do not divide dim
  EXPECT_FALSE(is_llama2c(header({4, 3, 2, 2, 3, 5, 7})));   // more kv_heads than heads
  EXPECT_FALSE(is_llama2c(header({12, 3, 2, 6, 4, 5, 7})));  // kv_heads do not divide heads
  EXPECT_FALSE(is_llama2c(header({4, 3, 2, 4, 1, 5, 7})));   // head_size is odd
  EXPECT_FALSE(is_llama2c(header({4, 3, 2, 2, 1, 0, 7})));   // no vocabulary
  EXPECT_FALSE(is_llama2c(header({4, 3, 2, 2, 1, INT32_MIN, 7})));
  const Bytes whole = header({4, 3, 2, 2, 1, 5, 7});
  EXPECT_FALSE(is_llama2c(std::span<const std::byte>(whole).first(27)));
}

TEST(Llama2c, TheLargestPlausibleHeaderIsOnlyTooLarge) {
  EXPECT_THAT(llama2c_error(header({1 << 20, 1 << 24, 1 << 12, 1, 1, -(1 << 28), 1 << 28})),
              HasSubstr("the file has 28"));
}

TEST(Llama2c, NamesLaterExports) {
  const Bytes later = Bytes().u32(0x616b3432).u32(1).zeros(256);
  EXPECT_TRUE(is_llama2c(later));
  EXPECT_THAT(llama2c_error(later), AllOf(HasSubstr("ak42"), HasSubstr("legacy")));
}

TEST(Llama2c, OpensStories260K) {
  const std::string path = "../shared/data/stories260k/stories260K.bin";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
  const ModelFile model = open_model(path);
  EXPECT_EQ(model.kind, "llama2.c");
  EXPECT_EQ(model.metadata.get_int("llama.block_count", 1, 100), 5);
  EXPECT_EQ(model.metadata.get_int("llama.context_length", 1, 1000), 512);
  EXPECT_THAT(model.find("token_embd.weight")->shape, ElementsAre(512, 64));
  EXPECT_THAT(model.find("blk.4.attn_q.weight")->shape, ElementsAre(64, 64));
  EXPECT_THAT(model.find("blk.4.attn_k.weight")->shape, ElementsAre(32, 64));
  EXPECT_THAT(model.find("blk.4.ffn_gate.weight")->shape, ElementsAre(172, 64));
  EXPECT_THAT(model.find("blk.4.ffn_down.weight")->shape, ElementsAre(64, 172));
  EXPECT_EQ(model.find("output.weight"), nullptr);
}

}  // namespace
}  // namespace contexture
