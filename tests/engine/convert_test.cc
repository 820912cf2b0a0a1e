#include "engine/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <fstream>

#include "base/error.h"
#include "engine/logits.h"
#include "files/gguf_writer.h"
#include "files/support.h"
#include "support/log_watch.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using testing::HasSubstr;

TEST(Convert, KeepsEveryBitWhereTheTypeStays) {
  const std::vector<TokenId> tokens = random_tokens(9, 80);
  for (const Format format : {Format::f32, Format::f16, Format::bf16, Format::q8_0, Format::q4_0}) {
    const TemporaryFile in, out, again;
    write_random_model({.dim = 64, .ffn_dim = 96, .format = format, .tied = false, .rope_divisors = true}, in.path(),
                       /*with_vocabulary=*/true);
    const Conversion made = convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt, .threads = 2});
    EXPECT_EQ(made.tensors, open_model(in.path()).tensors.size());
    EXPECT_EQ(made.bytes, std::filesystem::file_size(out.path()));
    EXPECT_EQ(logits_of(in.path(), tokens), logits_of(out.path(), tokens)) << name(format);
    if (format == Format::f16 || format == Format::f32) {
      convert_model({.in = out.path(), .out = again.path(), .type = format});
      EXPECT_EQ(logits_of(in.path(), tokens), logits_of(again.path(), tokens)) << name(format);
    }
  }
}

TEST(Convert, HalvesBecomeNeighboursWithTheSameLogits) {
  const std::vector<TokenId> tokens = random_tokens(12, 80);
  for (const size_t rope_dim : {0, 16}) {
    const TemporaryFile in, out;
    write_random_model({.head_dim = 24, .rope_style = "halves", .rope_dim = rope_dim}, in.path());
    convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt});
    const ModelFile converted = open_model(out.path());
    EXPECT_FALSE(converted.metadata.has("llama.rope.style")) << "other programs do not know that key";
    const std::vector<float> before = logits_of(in.path(), tokens), after = logits_of(out.path(), tokens);
    ASSERT_EQ(before.size(), after.size());
    for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 2e-5) << i;
  }
}

TEST(Convert, Llama3ScalingBecomesATensor) {
  const std::vector<TokenId> tokens = random_tokens(30, 80);
  const TemporaryFile in, out;
  write_random_model({.rope_scaling = "llama3"}, in.path());
  convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt});
  const ModelFile converted = open_model(out.path());
  EXPECT_FALSE(converted.metadata.has("llama.rope.scaling.type")) << "other programs do not know this type";
  ASSERT_TRUE(converted.find("rope_freqs.weight"));
  const std::vector<float> before = logits_of(in.path(), tokens), after = logits_of(out.path(), tokens);
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 2e-5) << "divisors are f32: " << i;
}

TEST(Convert, ExpertsAreJoined) {
  const std::vector<TokenId> tokens = random_tokens(12, 80);
  const TemporaryFile in, out;
  write_random_model({.experts = 4, .experts_used = 2, .separate_experts = true}, in.path());
  convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt});
  EXPECT_TRUE(open_model(out.path()).find("blk.0.ffn_up_exps.weight"));
  EXPECT_EQ(logits_of(in.path(), tokens), logits_of(out.path(), tokens));
}

/// A copy of a GGUF file with its tensors changed; keeps what is new in memory.
class Changed {
 public:
  explicit Changed(const std::string& path) : file_(open_model(path)), tensors(file_.tensors) {}

  void encode(const std::string& name, Format format) {
    for (StoredTensor& t : tensors) {
      if (t.name != name) continue;
      size_t count = 1;
      for (const int64_t n : t.shape) count *= static_cast<size_t>(n);
      std::vector<float> values(count);
      info(t.format).decode(t.data.data(), values.data(), count);
      std::vector<std::byte>& bytes = memory_.emplace_back(bytes_of(format, count));
      info(format).encode(values.data(), bytes.data(), count);
      t.format = format;
      t.data = bytes;
    }
  }
  void add_vector(const std::string& name, size_t count, std::mt19937& random) {
    const std::vector<float> values = random_floats(random, count);
    std::vector<std::byte>& bytes = memory_.emplace_back(count * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    tensors.push_back({name, Format::f32, {static_cast<int64_t>(count)}, bytes});
  }
  void write(const std::string& path) const { write_gguf(path, file_.metadata, tensors); }

 private:
  ModelFile file_;
  std::deque<std::vector<std::byte>> memory_;

 public:
  std::vector<StoredTensor> tensors;
};

TEST(Convert, ExpertsOfDifferentFormatsAreJoinedToo) {
  const std::vector<TokenId> tokens = random_tokens(12, 80);
  const TemporaryFile uniform, in, out;
  write_random_model({.experts = 4, .experts_used = 2, .separate_experts = true}, uniform.path());
  Changed mixed(uniform.path());
  mixed.encode("blk.0.ffn_up.1.weight", Format::f16);
  mixed.encode("blk.1.ffn_down.0.weight", Format::bf16);
  mixed.encode("blk.1.ffn_gate.3.weight", Format::q8_0);
  mixed.write(in.path());
  convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt});
  const ModelFile converted = open_model(out.path());
  EXPECT_EQ(converted.find("blk.0.ffn_up_exps.weight")->format, Format::f32);
  const std::vector<float> before = logits_of(in.path(), tokens), after = logits_of(out.path(), tokens);
  // The expert that was q8_0 now meets activations that are not rounded to int8: some 1 % of one of 24 products.
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 0.05) << i;
}

TEST(Convert, BiasesGoWithTheirRows) {
  std::mt19937 random = fresh_random();
  const std::vector<TokenId> tokens = random_tokens(12, 80);
  const TemporaryFile plain, in, out;
  write_random_model({.rope_style = "halves"}, plain.path());  // 4 heads of 16 on 2
  Changed with_biases(plain.path());
  for (const size_t layer : {0, 1}) {
    with_biases.add_vector(fmt::format("blk.{}.attn_q.bias", layer), 64, random);
    with_biases.add_vector(fmt::format("blk.{}.attn_k.bias", layer), 32, random);
    with_biases.add_vector(fmt::format("blk.{}.attn_v.bias", layer), 32, random);
  }
  with_biases.write(in.path());
  convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt});
  const std::vector<float> before = logits_of(in.path(), tokens), after = logits_of(out.path(), tokens);
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(before[i], after[i], 2e-5) << i;
}

TEST(Convert, ThereAreAsManyTokensAsRows) {
  const TemporaryFile in, out, tokenizer;
  write_random_model({.vocabulary = 300}, in.path());
  // ExecuTorch's file, of 259: <unk>, <s>, </s> and the bytes.
  Bytes bytes;
  for (const int32_t head : {259, 1, 2, 6}) bytes.number(head);
  const auto add = [&](const std::string& piece) {
    bytes.number(0.f).number(static_cast<int32_t>(piece.size())).raw(piece);
  };
  for (const char* special : {"<unk>", "\n<s>\n", "\n</s>\n"}) add(special);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte));
  save(tokenizer.path(), bytes);
  convert_model({.in = in.path(), .out = out.path(), .tokenizer = tokenizer.path(), .type = std::nullopt});
  const ModelFile file = open_model(out.path());
  EXPECT_EQ(file.metadata.get_strings("tokenizer.ggml.tokens").size(), 300u);
  EXPECT_EQ(file.metadata.get_strings("tokenizer.ggml.tokens")[299], "[PAD299]");
  const OpenedModel opened = open_with_tokenizer(out.path());
  for (const TokenId id : opened.need_tokenizer().encode("abc [PAD299]")) EXPECT_LT(id, 259) << "text, not a token";
}

TEST(Convert, TypesAreWhereTheyShouldBe) {
  const TemporaryFile in, out;
  write_random_model({.dim = 256, .ffn_dim = 288, .tied = false}, in.path());
  convert_model({.in = in.path(), .out = out.path(), .type = Format::q4_k});
  const ModelFile file = open_model(out.path());
  EXPECT_EQ(file.find("blk.0.attn_q.weight")->format, Format::q4_k);
  EXPECT_EQ(file.find("token_embd.weight")->format, Format::q4_k);
  EXPECT_EQ(file.find("output.weight")->format, Format::q6_k);
  EXPECT_EQ(file.find("blk.0.ffn_down.weight")->format, Format::q5_0) << "rows of 288 are no whole blocks of 256";
  EXPECT_EQ(file.find("blk.0.attn_norm.weight")->format, Format::f32);
}

TEST(Convert, SaysWhatFallsBackToWhat) {
  const auto convert = [](const RandomModel& model, Format type) {
    const TemporaryFile in, out;
    write_random_model(model, in.path());
    return convert_model({.in = in.path(), .out = out.path(), .type = type});
  };
  const std::vector<std::string> downs = {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"};
  const LogWatch log;
  const Conversion some = convert({.dim = 256, .ffn_dim = 288, .tied = false}, Format::q4_k);
  ASSERT_EQ(some.fallbacks.size(), 1u);
  EXPECT_EQ(some.fallbacks[0].wanted, Format::q4_k);
  EXPECT_EQ(some.fallbacks[0].written, Format::q5_0);
  EXPECT_EQ(some.fallbacks[0].tensors, downs);
  EXPECT_EQ(some.formats,
            (std::map<Format, size_t>{{Format::f32, 5}, {Format::q5_0, 2}, {Format::q4_k, 13}, {Format::q6_k, 1}}));
  EXPECT_THAT(log.text(),
              HasSubstr("no whole blocks of q4_k, so q5_0 instead: blk.*.ffn_down.weight (tensors: 2 of 21)"));

  const Conversion all = convert({.dim = 64, .ffn_dim = 100, .tied = false}, Format::q4_k);
  ASSERT_EQ(all.fallbacks.size(), 3u);  // in the order of the tensors
  for (const Conversion::Fallback& fallback : all.fallbacks) {
    const Format written = fallback.tensors == downs         ? Format::f16
                           : fallback.wanted == Format::q6_k ? Format::q8_0
                                                             : Format::q5_0;
    EXPECT_EQ(fallback.written, written) << fallback.tensors[0];
  }
  EXPECT_TRUE(convert({.dim = 256, .ffn_dim = 512}, Format::q4_k).fallbacks.empty());
  EXPECT_TRUE(convert({.dim = 64, .ffn_dim = 96}, Format::q4_0).fallbacks.size() == 1) << "the output's q6_k alone";
  EXPECT_TRUE(convert({.dim = 64, .ffn_dim = 96}, Format::q8_0).fallbacks.empty());
}

TEST(Convert, WithoutATokenizerTheFileSaysSo) {
  const TemporaryFile in, out;
  write_random_model({.vocabulary = 80}, in.path());
  convert_model({.in = in.path(), .out = out.path(), .type = std::nullopt});
  const ModelFile file = open_model(out.path());
  EXPECT_EQ(file.metadata.get_string("tokenizer.ggml.model"), "no_vocab");
  EXPECT_EQ(file.metadata.get_int("llama.vocab_size", 0, 100), 80);
  EXPECT_FALSE(open_with_tokenizer(out.path()).tokenizer);
}

// What a format does to the result of one product with normal weights: half a last bit (f16, bf16); the step of a block
// over its range, divided by sqrt(12), activations' included (8 bits: a range of 6 deviations; 4 bits: 4 with a
// minimum, 6 without). Two layers of seven products whose errors are independent add up to sqrt(14), about 4 times
// that, in most texts; where a token is torn between two others, attention makes more of it. A mistake in an encoder or
// an order of rows moves every logit by all of its size.
TEST(Convert, QuantisedLogitsStayNear) {
  const TemporaryFile in;
  write_random_model({.dim = 256, .layers = 2, .ffn_dim = 512}, in.path());
  std::vector<std::vector<TokenId>> texts(9);
  std::vector<std::vector<float>> exact;
  for (std::vector<TokenId>& text : texts) exact.push_back(logits_of(in.path(), text = random_tokens(8, 80)));
  for (const auto& [type, of_one_product] : {std::pair{Format::f16, 2.5e-4},
                                             {Format::bf16, 2e-3},
                                             {Format::q8_0, 0.01},
                                             {Format::q4_k, 0.08},
                                             {Format::q4_0, 0.11}}) {
    const TemporaryFile out;
    convert_model({.in = in.path(), .out = out.path(), .type = type});
    std::vector<double> errors;
    for (size_t t = 0; t < texts.size(); ++t) {
      const std::vector<float> rounded = logits_of(out.path(), texts[t]);
      double error = 0, spread = 0;
      for (size_t i = 0; i < rounded.size(); ++i) {
        error += (exact[t][i] - rounded[i]) * (exact[t][i] - rounded[i]), spread += exact[t][i] * exact[t][i];
      }
      EXPECT_GT(error, 0) << name(type);
      errors.push_back(std::sqrt(error / spread));
    }
    std::ranges::nth_element(errors, errors.begin() + 4);
    EXPECT_LT(errors[4], 4 * of_one_product) << name(type);
  }
}

TEST(Convert, KeepsTheTokenizer) {
  const TemporaryFile in, out;
  write_random_model({.vocabulary = 259}, in.path(), /*with_vocabulary=*/true);
  convert_model({.in = in.path(), .out = out.path(), .type = Format::f16});
  const OpenedModel before = open_with_tokenizer(in.path()), after = open_with_tokenizer(out.path());
  const std::string text = "some text, with bytes \xff";
  EXPECT_EQ(before.need_tokenizer().encode(text), after.need_tokenizer().encode(text));
}

std::string conversion_error(const ConvertTask& task) {
  return error_of([&] { convert_model(task); });
}

TEST(Convert, FailuresLeaveTheOldFile) {
  const TemporaryFile in, out;
  write_random_model({}, in.path());
  std::ofstream(out.path()) << "old";
  const std::atomic<bool> cancelled{true};
  EXPECT_THAT(conversion_error(
                  {.in = in.path(), .out = out.path(), .type = Format::f16, .force = true, .cancelled = &cancelled}),
              HasSubstr("interrupted"));
  EXPECT_THAT(conversion_error({.in = in.path(), .out = "/nonexistent/x.gguf", .type = Format::f16}),
              HasSubstr("/nonexistent/x.gguf"));

  const ModelFile good = open_model(in.path());
  std::vector<StoredTensor> tensors = good.tensors;
  std::vector<std::byte> huge(tensors[0].data.begin(), tensors[0].data.end());
  const float beyond = 1e6f;
  std::memcpy(huge.data(), &beyond, sizeof(beyond));
  tensors[0].data = huge;
  const TemporaryFile bad;
  write_gguf(bad.path(), good.metadata, tensors);
  EXPECT_THAT(conversion_error({.in = bad.path(), .out = out.path(), .type = Format::f16, .force = true}),
              HasSubstr("65504"));
  std::string kept;
  std::ifstream(out.path()) >> kept;
  EXPECT_EQ(kept, "old");
}

/// Writes the parts of a split model as PREFIX-00001-of-0000N.gguf.
std::vector<std::string> write_parts(const TemporaryFolder& folder, int64_t parts) {
  const TemporaryFile whole;
  write_random_model({}, whole.path());
  const ModelFile model = open_model(whole.path());
  std::vector<std::string> paths;
  for (int64_t part = 0; part < parts; ++part) {
    Metadata metadata = part == 0 ? model.metadata : Metadata();
    metadata.set_int("split.no", part);
    metadata.set_int("split.count", parts);
    metadata.set_int("split.tensors.count", static_cast<int64_t>(model.tensors.size()));
    const auto first = model.tensors.begin() + part * static_cast<int64_t>(model.tensors.size()) / parts,
               last = model.tensors.begin() + (part + 1) * static_cast<int64_t>(model.tensors.size()) / parts;
    paths.push_back(folder.file(fmt::format("n-{:05}-of-{:05}.gguf", part + 1, parts)));
    write_gguf(paths.back(), metadata, std::vector(first, last));
  }
  return paths;
}

/// A llama2.c model of zeros: one layer of 8 channels, 4 tokens.
Bytes llama2c_model() {
  Bytes bytes;
  for (const int32_t field : {8, 8, 1, 1, 1, 4, 8}) bytes.number(field);
  const int layer = 2 * 8 + 4 * 8 * 8 + 3 * 8 * 8, tables = 8 * 8, ends = 4 * 8 + 8;
  return bytes.zeros(sizeof(float) * (layer + tables + ends));
}

// A glob of parts gives IN and OUT.
TEST(Convert, NeverWritesOverWhatItReads) {
  const TemporaryFolder folder;
  const std::vector<std::string> parts = write_parts(folder, 3);
  std::filesystem::create_symlink(parts[1], folder.file("symbolic.gguf"));
  std::filesystem::create_hard_link(parts[2], folder.file("hard.gguf"));
  std::filesystem::create_directory(folder.file("sub"));
  std::filesystem::create_directory_symlink(folder.path(), folder.file("other"));
  for (const std::string& out :
       {parts[0], parts[1], parts[2], folder.file("symbolic.gguf"), folder.file("hard.gguf"),
        folder.file("sub/../n-00002-of-00003.gguf"), folder.file("other/n-00003-of-00003.gguf")}) {
    const std::vector<std::byte> before = load(out);
    for (const bool force : {false, true}) {
      EXPECT_THAT(conversion_error({.in = parts[0], .out = out, .type = std::nullopt, .force = force}),
                  testing::AllOf(HasSubstr(out), HasSubstr("reads")));
    }
    EXPECT_EQ(load(out), before);
  }
  EXPECT_EQ(conversion_error({.in = parts[1], .out = folder.file("whole.gguf"), .type = std::nullopt}), "");
  const auto over_part = [&](bool force) {
    return conversion_error({.in = folder.file("whole.gguf"), .out = parts[1], .type = std::nullopt, .force = force});
  };
  EXPECT_THAT(over_part(false), HasSubstr("no whole GGUF model")) << "not read then, but a part";
  EXPECT_EQ(over_part(true), "");
}

TEST(Convert, NeverWritesOverTheFolderOrTheTokenizerThatItReads) {
  const TemporaryFolder folder, elsewhere;
  const TemporaryFile in;
  write_random_model({.vocabulary = 259}, in.path());
  // Not read far enough to matter: what counts is that they are not replaced.
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) save(elsewhere.file(name), Bytes().raw("{}"));
  const std::string tokenizer = elsewhere.file("tokenizer.model");
  for (const auto& [given, out] : {std::pair{tokenizer, tokenizer},
                                   {elsewhere.path().string(), tokenizer},
                                   {elsewhere.path().string(), elsewhere.file("tokenizer.json")}}) {
    EXPECT_THAT(
        conversion_error({.in = in.path(), .out = out, .tokenizer = given, .type = std::nullopt, .force = true}),
        HasSubstr("reads"));
  }

  // A llama2.c model's tokenizer lies beside it.
  const std::string bin = folder.file("stories.bin"), beside = folder.file("tokenizer.bin");
  save(bin, llama2c_model());
  save(beside, Bytes().raw("any"));
  for (const std::string& out : {bin, beside}) {
    EXPECT_THAT(conversion_error({.in = bin, .out = out, .type = std::nullopt, .force = true}), HasSubstr("reads"));
  }
}

TEST(Convert, ReplacesNoFileThatIsNoModelUnasked) {
  const TemporaryFolder folder;
  const TemporaryFile in;
  write_random_model({}, in.path());
  const std::string out = folder.file("out.gguf");
  const auto convert = [&](bool force) {
    return conversion_error({.in = in.path(), .out = out, .type = std::nullopt, .force = force});
  };
  save(out, Bytes().raw("my thesis"));
  EXPECT_THAT(convert(false), testing::AllOf(HasSubstr(out), HasSubstr("no whole GGUF model"), HasSubstr("--force")));
  EXPECT_EQ(load(out).size(), 9u);
  EXPECT_EQ(convert(true), "");
  EXPECT_EQ(convert(false), "") << "now it is a model";
  write_gguf(out, {}, {});
  EXPECT_THAT(convert(false), HasSubstr("no whole GGUF model")) << "GGUF, but what? Traces are such files";
  save(out, Bytes());
  EXPECT_EQ(convert(false), "") << "nothing is lost";
  EXPECT_THAT(conversion_error({.in = in.path(), .out = folder.path().string(), .type = std::nullopt, .force = true}),
              HasSubstr("is a folder"));
}

}  // namespace
}  // namespace contexture
