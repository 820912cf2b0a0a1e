#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "huggingface_writer.h"
#include "text/pretokenizer.h"

/// tokenizer.json: each component of it in small files, and whole ones made of the vocabularies in the data folder.
namespace contexture {
namespace {

using nlohmann::json;
using test::kData;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr EncodeOptions kPlain{.add_begin = false, .parse_special = true};

Vocabulary read_text(const std::string& text) {
  return vocabulary_from_bytes(std::as_bytes(std::span(text)), "some.json");
}
Vocabulary read(const json& file) {
  return read_text(file.dump());
}
void expect_tokenizer_refused(const json& file, const std::string& message) {
  EXPECT_THAT([&] { read(file); }, ThrowsMessage<Error>(AllOf(HasSubstr("some.json"), HasSubstr(message)))) << message;
}

json added(const char* content, TokenId id, json flags = json::object()) {
  json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  token.update(flags);
  return token;
}

/// Pieces a (0), b, c, Ġ, ab, abc (5), Ġa, and the special <e> (7) and, user-defined, <u> (8).
json byte_level() {
  json file = {{"added_tokens", {added("<e>", 7), added("<u>", 8, {{"special", false}})}},
               {"normalizer", nullptr},
               {"pre_tokenizer", json::parse(test::kGpt2Json)},
               {"post_processor", nullptr},
               {"model",
                {{"type", "BPE"},
                 {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"Ġ", 3}, {"ab", 4}, {"abc", 5}, {"Ġa", 6}}},
                 {"merges", {"a b", "ab c", "Ġ a"}}}}};
  return file;
}

/// Pieces <unk> (0), <s>, </s>, ▁, a, b (5), ▁a, ab, ▁▁ (8), <0x0A> (9), and the user-defined <u> (10).
json metaspace() {
  return {
      {"added_tokens", {added("<unk>", 0), added("<s>", 1), added("</s>", 2), added("<u>", 10, {{"special", false}})}},
      {"normalizer", json::parse(test::kMarksJson)},
      {"pre_tokenizer", nullptr},
      {"model", test::small_model_json()}};
}

json template_with(const char* before, const char* after) {
  json single = json::array(), tokens = json::object();
  const auto add = [&](const char* token) {
    if (token == nullptr) return;
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    tokens[token] = {{"id", token}, {"ids", {std::string(token) == "<s>" ? 1 : 2}}, {"tokens", {token}}};
  };
  add(before);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(after);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", json::array()}, {"special_tokens", tokens}};
}

// --- byte level

TEST(HuggingFace, ByteLevel) {
  const Vocabulary vocabulary = read(byte_level());
  EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::byte_bpe);
  EXPECT_EQ(vocabulary.pretokenizer, "gpt-2");
  EXPECT_EQ(vocabulary.pieces[5], "abc");
  EXPECT_THAT(vocabulary.merges, ElementsAre("a b", "ab c", "Ġ a"));
  EXPECT_EQ(vocabulary.types[6], PieceType::normal);
  EXPECT_EQ(vocabulary.types[7], PieceType::control);
  EXPECT_EQ(vocabulary.types[8], PieceType::user_defined);
  EXPECT_FALSE(vocabulary.add_begin);
  EXPECT_FALSE(vocabulary.add_end);
  EXPECT_EQ(vocabulary.begin, std::nullopt);
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THAT(tokenizer.encode("abc a<e>b<u>"), ElementsAre(5, 6, 7, 1, 8));
}

TEST(HuggingFace, MergesArePairsOrTexts) {
  json file = byte_level();
  file["model"]["merges"] = json::parse(R"([["a", "b"], ["ab", "c"], ["Ġ", "a"]])");
  EXPECT_THAT(Tokenizer(read(file)).encode("abc a"), ElementsAre(5, 6));
}

TEST(HuggingFace, IgnoreMerges) {
  json file = byte_level();
  file["model"]["merges"] = {"b c"};
  file["model"]["vocab"]["bc"] = 9;
  EXPECT_THAT(Tokenizer(read(file)).encode("abc"), ElementsAre(0, 9));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(Tokenizer(read(file)).encode("abc"), ElementsAre(5));
}

TEST(HuggingFace, PreTokenizersAreKnownByTheirExpressions) {
  const std::string digits = R"({"type": "Digits", "individual_digits": true})";
  const std::string deepseek3 = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                "\r\n"
                                R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
                                "\r\n"
                                R"(]*|\s*[)"
                                "\r\n"
                                R"(]+|\s+(?!\S)|\s+)";
  const std::string qwen =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::pair<std::string, const char*> kCases[] = {
      {test::kGpt2Json, "gpt-2"},
      {test::kLlama3Json, "dbrx"},  // for it is the one without ignore_merges
      {test::kDeepseekCoderJson, "deepseek-coder"},
      {R"({"type": "Sequence", "pretokenizers": [)" + digits + ", " + test::kGpt2Json + "]}", "starcoder"},
      {test::splits_json({R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", deepseek3}), "deepseek-v3"},
      {test::splits_json({qwen}), "qwen2"},
      {test::splits_json({qwen}, "Removed", true), "qwen2"}};
  for (const auto& [pretokenizer, name] : kCases) {
    json file = byte_level();
    file["pre_tokenizer"] = json::parse(pretokenizer);
    EXPECT_EQ(read(file).pretokenizer, name);
  }
  json file = byte_level();
  file["pre_tokenizer"] = json::parse(test::kLlama3Json);
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(read(file).pretokenizer, "llama-bpe");
}

/// The new ones of those whose expressions are not taken as they are published.
TEST(HuggingFace, PreTokenizersAreKnownByWhatIsPublished) {
  const std::string gpt4o =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
      R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string jais =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
      R"(\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|)"
      R"(\s{1,2}(?!\S)|\s{1})";
  const std::string exaone =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|)"
      R"(\s*[\r\n]|\s+(?!\S)|\s+)";
  const std::pair<std::string, const char*> kCases[] = {
      {test::splits_json({R"(\d{1,3}(?=(?:\d{3})*\b))", gpt4o}), "tiny_aya"},
      {test::splits_json({R"(\p{N}+)", R"((?=(\d{3})+(?!\d)))"}), "superbpe"},
      {test::splits_json({jais}), "jais-2"},
      {test::splits_json({exaone}), "exaone-moe"}};
  for (const auto& [pretokenizer, name] : kCases) {
    json file = byte_level();
    file["pre_tokenizer"] = json::parse(pretokenizer);
    EXPECT_EQ(read(file).pretokenizer, name);
  }
}

/// Falcon's: digits are looked for among the characters that ByteLevel writes for bytes, some of which are superscripts
/// and fractions.
TEST(HuggingFace, FalconsPunctuationAndDigits) {
  json file = byte_level();
  file["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Punctuation", "behavior": "Contiguous"},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      {"type": "Digits", "individual_digits": false},
      {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": false}]})");
  file["model"]["vocab"].update(json{{"1", 9},
                                     {"11", 10},
                                     {"111", 11},
                                     {"Ġ1", 12},
                                     {"!", 13},
                                     {"!!", 14},
                                     {"Ġ!", 15},
                                     {"Â", 16},
                                     {"²", 17},
                                     {"Â²", 18},
                                     {"a1", 19}});
  file["model"]["merges"] = {"Ġ 1", "Ġ !", "1 1", "11 1", "! !", "Â ²", "a 1"};
  const Vocabulary vocabulary = read(file);
  EXPECT_EQ(vocabulary.pretokenizer, "falcon");
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THAT(tokenizer.encode(" 1"), ElementsAre(3, 9));
  EXPECT_THAT(tokenizer.encode("a11111"), ElementsAre(0, 11, 10));
  EXPECT_THAT(tokenizer.encode(" !!"), ElementsAre(3, 14));
  EXPECT_THAT(tokenizer.encode("\u00B2"), ElementsAre(16, 17));
  for (const char* behavior : {"Removed", "MergedWithPrevious", "MergedWithNext"}) {
    file["pre_tokenizer"]["pretokenizers"][0]["behavior"] = behavior;
    expect_tokenizer_refused(file, behavior);
  }
}

TEST(HuggingFace, ByteLevelMayPutASpaceBeforeAText) {
  json file = byte_level();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  const Tokenizer tokenizer(read(file));
  EXPECT_THAT(tokenizer.encode("a<e>a"), ElementsAre(6, 7, 6));
  EXPECT_THAT(tokenizer.encode(" a"), ElementsAre(6));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("abc a")), "abc a");
  file["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": true}]})");
  expect_tokenizer_refused(file, "add_prefix_space");
}

TEST(HuggingFace, UnknownCharactersAreOneTokenWhereTheFileFusesThem) {
  json file = metaspace();
  EXPECT_THAT(Tokenizer(read(file)).encode("a!!"), ElementsAre(6, 0));
  file["model"]["fuse_unk"] = false;
  EXPECT_THAT(Tokenizer(read(file)).encode("a!!"), ElementsAre(6, 0, 0));
  file = byte_level();
  file["model"]["unk_token"] = "<e>";
  EXPECT_THAT(Tokenizer(read(file)).encode("a!! !"), ElementsAre(0, 7, 7, 3, 7));
  file["model"]["fuse_unk"] = true;
  EXPECT_THAT(Tokenizer(read(file)).encode("a!! !"), ElementsAre(0, 7, 3, 7));
}

TEST(HuggingFace, NfcBringsCharactersTogether) {
  json file = byte_level();
  file["model"]["vocab"].update(json{{"Ã", 9}, {"©", 10}, {"Ã©", 11}, {"e", 12}, {"Ì", 13}, {"ģ", 14}});
  file["model"]["merges"].push_back("Ã ©");
  EXPECT_THAT(Tokenizer(read(file)).encode("e\u0301"), ElementsAre(12, 13, 14));
  file["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer(read(file));
  EXPECT_THAT(tokenizer.encode("e\u0301<e>\u00E9"), ElementsAre(11, 7, 11));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("e\u0301")), "\u00E9");
}

// GPT-NeoX (Pythia, OLMo): GPT-2's words, NFC, and runs of spaces as added tokens that are not special.
TEST(HuggingFace, GptNeox) {
  json file = byte_level();
  file["normalizer"] = {{"type", "NFC"}};
  file["added_tokens"].push_back({{"id", 9},
                                  {"content", "  "},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", true},
                                  {"special", false}});
  const Vocabulary vocabulary = read(file);
  EXPECT_EQ(vocabulary.pretokenizer, "gpt-2");
  EXPECT_TRUE(vocabulary.nfc);
  EXPECT_THAT(Tokenizer(vocabulary).encode("abc  abc"), ElementsAre(5, 9, 5));
  EXPECT_TRUE(Pretokenizer::is_known("gpt-neox"));
  EXPECT_EQ(Pretokenizer("gpt-neox").split("it's  12 x"), Pretokenizer("gpt-2").split("it's  12 x"));
}

// --- metaspace

TEST(HuggingFace, MarksForSpaces) {
  const Vocabulary vocabulary = read(metaspace());
  EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::sentencepiece_bpe);
  EXPECT_EQ(vocabulary.unknown, 0);
  EXPECT_EQ(vocabulary.begin, 1);
  EXPECT_EQ(vocabulary.end, 2);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2));
  EXPECT_EQ(vocabulary.types[9], PieceType::byte);
  EXPECT_FALSE(vocabulary.add_begin);
  EXPECT_EQ(vocabulary.scores[8], 0);
  EXPECT_EQ(vocabulary.scores[6], -2);
  EXPECT_LT(vocabulary.scores[5], -2);
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THAT(tokenizer.encode("b"), ElementsAre(3, 5));
  EXPECT_THAT(tokenizer.encode(" b"), ElementsAre(8, 5));
  EXPECT_THAT(tokenizer.encode("ab\n"), ElementsAre(3, 7, 9));  // "a b" goes before "▁ a"
  EXPECT_THAT(tokenizer.encode("a!!"), ElementsAre(6, 0));
  EXPECT_THAT(tokenizer.encode("a</s>a<u>a"), ElementsAre(6, 2, 6, 10, 6));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a ab")), "a ab");
}

TEST(HuggingFace, MetaspaceAndItsSchemes) {
  const auto with = [](const char* scheme, json split) {
    json file = metaspace();
    file["normalizer"] = nullptr;
    file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
    return Tokenizer(read(file));
  };
  EXPECT_THAT(with("always", false).encode("a</s>a"), ElementsAre(6, 2, 6));
  EXPECT_THAT(with("always", false).encode(" a"), ElementsAre(6));  // a space is there already
  EXPECT_THAT(with("always", false).encode("  b"), ElementsAre(8, 5));
  EXPECT_THAT(with("always", true).encode("  b"), ElementsAre(3, 3, 5));  // words begin at every "▁"
  EXPECT_THAT(with("first", false).encode("a</s>a"), ElementsAre(6, 2, 4));
  EXPECT_THAT(with("first", false).encode("</s>a"), ElementsAre(2, 4));
  EXPECT_EQ(with("first", false).decode(std::vector<TokenId>{6, 2, 6}), "a a");
  EXPECT_THAT(with("never", false).encode("a a"), ElementsAre(4, 6));
}

TEST(HuggingFace, GemmasReplaceWithoutPrefix) {
  json file = metaspace();
  file["normalizer"] = json::parse(R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})");
  file["pre_tokenizer"] = json::parse(
      R"({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false})");
  const Tokenizer tokenizer(read(file));
  EXPECT_THAT(tokenizer.encode("a  a"), ElementsAre(4, 8, 4));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(" a")), " a");
}

// --- tokens around and within a text

TEST(HuggingFace, TheTemplateSaysWhatATextBeginsAndEndsWith) {
  json file = metaspace();
  file["post_processor"] = template_with("<s>", nullptr);
  EXPECT_THAT(Tokenizer(read(file)).encode("a"), ElementsAre(1, 6));
  file["post_processor"] = template_with("<s>", "</s>");
  EXPECT_THAT(Tokenizer(read(file)).encode("a"), ElementsAre(1, 6, 2));
  file["post_processor"] = {{"type", "Sequence"},
                            {"processors", {{{"type", "ByteLevel"}}, template_with(nullptr, "</s>")}}};
  EXPECT_THAT(Tokenizer(read(file)).encode("a"), ElementsAre(6, 2));
  file["post_processor"] = template_with("<s>", nullptr);
  file["post_processor"]["single"].push_back(file["post_processor"]["single"][0]);
  file["post_processor"]["single"].push_back(file["post_processor"]["single"][0]);
  expect_tokenizer_refused(file, "several tokens after");
  file["post_processor"] = template_with("<s>", nullptr);
  file["post_processor"]["special_tokens"]["<s>"]["ids"] = {1, 2};
  expect_tokenizer_refused(file, "no one token");
  file["post_processor"]["special_tokens"]["<s>"]["ids"] = {11};
  expect_tokenizer_refused(file, "begin token is 11");
  file["post_processor"] = template_with("<s>", nullptr);
  file["post_processor"]["single"][1]["Sequence"]["id"] = "B";
  expect_tokenizer_refused(file, "no one text");
  file["post_processor"]["single"].erase(1);
  expect_tokenizer_refused(file, "no text");
}

TEST(HuggingFace, BertsAndRobertasPostProcessorsPutTwoTokensAroundAText) {
  json file = metaspace();
  for (const char* type : {"BertProcessing", "RobertaProcessing"}) {
    file["post_processor"] = {{"type", type}, {"cls", {"<s>", 1}}, {"sep", {"</s>", 2}}};
    EXPECT_THAT(Tokenizer(read(file)).encode("a"), ElementsAre(1, 6, 2));
  }
  file["post_processor"] = {{"type", "Sequence"},
                            {"processors", {file["post_processor"], template_with("<s>", nullptr)}}};
  expect_tokenizer_refused(file, "before");
  file["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"<s>"}}, {"sep", {"</s>", 2}}};
  expect_tokenizer_refused(file, "cls");
}

TEST(HuggingFace, AddedTokensSwallowSpaces) {
  json file = byte_level();
  file["added_tokens"][0]["lstrip"] = true;
  file["added_tokens"][1]["rstrip"] = true;
  const Tokenizer tokenizer(read(file));
  EXPECT_THAT(tokenizer.encode("a \t\u00A0<e> a<u>\n\u3000 a"), ElementsAre(0, 7, 6, 8, 0));
  EXPECT_THAT(tokenizer.encode("<u> \u00A0<e>"), ElementsAre(8, 7));
}

TEST(HuggingFace, HolesBetweenIdsAreUnusedPieces) {
  json file = byte_level();
  file["added_tokens"].push_back(added("<f>", 12));
  const Vocabulary vocabulary = read(file);
  ASSERT_EQ(vocabulary.pieces.size(), 13u);
  EXPECT_EQ(vocabulary.pieces[10], "[PAD10]");
  EXPECT_EQ(vocabulary.types[10], PieceType::unused);
  EXPECT_EQ(vocabulary.types[12], PieceType::control);
}

TEST(HuggingFace, EndTokensAreKnownByName) {
  json file = byte_level();
  TokenId id = 9;
  for (const char* name :
       {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<eos>", "<|end|>", "<|user|>"}) {
    file["added_tokens"].push_back(added(name, id++));
  }
  const Vocabulary vocabulary = read(file);
  EXPECT_EQ(vocabulary.end, 13);  // "<eos>" goes before "<|endoftext|>"
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(9, 10, 11, 12, 13, 14));
}

// --- what is refused

TEST(HuggingFace, OtherModelsAreRefusedByName) {
  const auto expect = [](const json& file, const char* type) {
    expect_tokenizer_refused(file, fmt::format("\"{}\"; only BPE is known", type));
  };
  for (const char* type : {"Unigram", "WordPiece", "WordLevel"}) {
    json file = byte_level();
    file["model"]["type"] = type;
    expect(file, type);
  }
  // Older files do not say it.
  json file = byte_level();
  file["model"] = {{"unk_id", 0}, {"vocab", json::parse(R"([["<unk>", 0.0], ["a", -1.5]])")}};
  expect(file, "Unigram");
  file["model"] = {{"vocab", {{"a", 0}}}, {"max_input_chars_per_word", 100}};
  expect(file, "WordPiece");
  file["model"].erase("max_input_chars_per_word");
  expect(file, "WordLevel");
}

TEST(HuggingFace, UnknownComponentsAreRefusedByName) {
  const auto refuse = [](const char* place, const char* value, const char* message) {
    json file = byte_level();
    file[json::json_pointer(place)] = json::parse(value);
    expect_tokenizer_refused(file, message);
  };
  refuse("/normalizer", R"({"type": "Lowercase"})", "Lowercase");
  refuse("/normalizer", R"({"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"})", "Regex");
  refuse("/normalizer", R"({"type": "Sequence", "normalizers": [{"type": "NFKC"}]})", "NFKC");
  refuse("/normalizer", R"({"type": "Prepend", "prepend": "▁"})", "other handling of spaces");
  refuse("/normalizer", R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})", "both ByteLevel and");
  refuse("/pre_tokenizer", R"({"type": "Whitespace"})", "Whitespace");
  refuse("/pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "not known: ");
  refuse("/pre_tokenizer", "null", "neither ByteLevel nor");
  refuse("/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false},
          {"type": "ByteLevel", "add_prefix_space": false}]})",
         "twice");
  refuse("/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false},
          {"type": "Punctuation"}]})",
         "after ByteLevel");
  refuse("/pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false},
          {"type": "Digits", "individual_digits": true}]})",
         "after ByteLevel");
  refuse("/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "x"}, "behavior": "Isolated", "invert": false})",
         "String");
  refuse("/model/continuing_subword_prefix", R"("##")", "continuing_subword_prefix");
  refuse("/model/byte_fallback", "true", "no piece for the byte 0");
  refuse("/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix");
  refuse("/model/dropout", "0.1", "dropout");
  json file = byte_level();
  file["pre_tokenizer"] = json::parse(test::splits_json({"(a+)+" + std::string(1000, 'x')}));
  EXPECT_THAT([&] { read(file); },
              ThrowsMessage<Error>(AllOf(HasSubstr("(a+)+xxx"), ::testing::Not(HasSubstr(std::string(300, 'x'))))));
  file["pre_tokenizer"] = json::parse(test::splits_json({"a"}, "MergedWithNext"));
  expect_tokenizer_refused(file, "MergedWithNext");
  // Bloom's expression leaves something between its matches.
  file["pre_tokenizer"] =
      json::parse(test::splits_json({" ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+"}));
  EXPECT_EQ(read(file).pretokenizer, "bloom");
  file["pre_tokenizer"]["pretokenizers"][0].update({{"behavior", "Removed"}, {"invert", true}});
  expect_tokenizer_refused(file, "drops what lies between");
  file = metaspace();
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}};
  expect_tokenizer_refused(file, "U+2581");
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "last"}};
  expect_tokenizer_refused(file, "last");
  file["pre_tokenizer"] = json::parse(
      R"({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false})");
  file["normalizer"] = nullptr;
  expect_tokenizer_refused(file, "neither ByteLevel nor");
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", {file["pre_tokenizer"], {{"type", "Metaspace"}, {"replacement", "▁"}}}}};
  expect_tokenizer_refused(file, "no U+2581 yet");
}

TEST(HuggingFace, DamagedTables) {
  const auto refuse = [](const char* place, json value, const std::string& message) {
    json file = byte_level();
    file[json::json_pointer(place)] = std::move(value);
    expect_tokenizer_refused(file, message);
  };
  refuse("/model", nullptr, "\"model\" is missing");
  refuse("/model", 3, "something else");
  refuse("/model/vocab", nullptr, "vocab");
  refuse("/model/vocab", json::array({"a"}), "vocab");
  for (const json& id :
       {json(-1), json(0.5), json("0"), json(nullptr), json(uint64_t{1} << 31), json(UINT64_MAX), json(1 << 22)}) {
    refuse("/model/vocab/a", id, "the id of \"a\"");
    refuse("/added_tokens/0/id", id, "the id of \"<e>\"");
  }
  refuse("/model/vocab/a", 5000, "ids up to 5000");
  refuse("/model/vocab/a", 1, "same id 1");
  refuse("/added_tokens/0/id", 4, "same id 4");
  refuse("/model/vocab/<e>", 9, "has the ids 9 and 7");
  refuse("/added_tokens/0/content", 7, "content");
  refuse("/added_tokens", 7, "added_tokens");
  refuse("/added_tokens/0", 7, "something else");
  refuse("/added_tokens/0/special", "yes", "special");
  refuse("/model/merges", nullptr, "merges");
  refuse("/model/merges", json::array(), "no merges");
  for (const json& merge :
       {json("ab"), json("a b c"), json::array({"a"}), json::array({"a", "b", "c"}), json::array({"a", 1}), json(1)}) {
    refuse("/model/merges/1", merge, "merge 1 is no two pieces");
  }
  for (const char* merge : {"a x", "x a", "b a", " a", "a "}) refuse("/model/merges/1", merge, "merge 1, ");
  refuse("/model/unk_token", "x", "unk_token");
  refuse("/model/type", 7, "type");
  refuse("/model/ignore_merges", 7, "ignore_merges");
  refuse("/pre_tokenizer", 7, "something else");
  refuse("/pre_tokenizer", json{{"type", "Sequence"}}, "pretokenizers");
  refuse("/post_processor", json::array(), "something else");
}

TEST(HuggingFace, NoJson) {
  for (const std::string& text :
       {std::string("{\"model\""), "{\"model\": " + std::string(100, '['), std::string("{\"a\": \"\xFF\"}")}) {
    EXPECT_THAT([&] { read_text(text); }, ThrowsMessage<Error>(HasSubstr("some.json"))) << text;
  }
}

/// Every beginning of a file, and every byte of it changed: read or refused, never a crash.
TEST(HuggingFace, SurvivesDamage) {
  for (const json& file : {byte_level(), metaspace()}) {
    const std::string text = file.dump();
    const auto try_read = [](const std::string& damaged) {
      try {
        Tokenizer(read_text(damaged)).encode("a text");
      } catch (const Error&) {
      }
    };
    for (size_t size = 0; size < text.size(); ++size) try_read(text.substr(0, size));
    for (size_t at = 0; at < text.size(); ++at) {
      for (const int value : {int{'0'}, int{'"'}, int{':'}, 0x80, text[at] ^ 1}) {
        std::string damaged = text;
        damaged[at] = static_cast<char>(value);
        try_read(damaged);
      }
    }
  }
}

// --- whole files

/// Random texts of both sorts.
std::vector<std::string> texts() {
  std::mt19937 random(8);
  std::vector<std::string> all;
  for (int i = 0; i < 1000; ++i) {
    all.push_back(test::random_text(random, random() % 60));
    all.push_back(test::english_like(random, random() % 200));
    all.push_back(test::random_bytes(random, random() % 10));
  }
  return all;
}

void expect_same_ids(const Tokenizer& a, const Tokenizer& b) {
  for (const std::string& text : texts()) {
    const std::vector<TokenId> ids = a.encode(text);
    ASSERT_EQ(ids, b.encode(text)) << ::testing::PrintToString(text);
    ASSERT_EQ(a.decode(ids), b.decode(ids));
  }
}

TEST(HuggingFace, ByteLevelVocabulariesGiveTheSameIds) {
  const std::pair<const char*, const std::string*> kFiles[] = {
      {"vocab/ggml-vocab-gpt-2.gguf", &test::kGpt2Json},
      {"vocab/ggml-vocab-deepseek-coder.gguf", &test::kDeepseekCoderJson}};
  for (const auto& [path, pretokenizer] : kFiles) {
    SKIP_WITHOUT(kData + path);
    Vocabulary vocabulary = test::open_vocabulary(kData + path);
    vocabulary.add_begin = false;
    json file = test::huggingface_json(vocabulary, /*merges_as_pairs=*/true);
    file["pre_tokenizer"] = json::parse(*pretokenizer);
    const Vocabulary from_json = read(file);
    EXPECT_EQ(from_json.pretokenizer, vocabulary.pretokenizer);
    EXPECT_EQ(from_json.pieces, vocabulary.pieces);
    EXPECT_EQ(from_json.end_tokens, vocabulary.end_tokens);
    expect_same_ids(Tokenizer(from_json), Tokenizer(vocabulary));
  }
}

/// Merges by score and merges by the list that the converter makes of it differ only where a piece overlaps itself.
TEST(HuggingFace, Llama2GivesTheSameIds) {
  SKIP_WITHOUT(kData + "llama2/tokenizer.model");
  Vocabulary vocabulary = test::open_vocabulary(kData + "llama2/tokenizer.model");
  vocabulary.add_begin = false;
  const Vocabulary from_json = read(test::metaspace_json(vocabulary));
  EXPECT_EQ(from_json.pieces, vocabulary.pieces);
  EXPECT_GT(from_json.merges.size(), 60'000u);
  EXPECT_EQ(from_json.begin, 1);
  EXPECT_THAT(from_json.end_tokens, ElementsAre(2));
  expect_same_ids(Tokenizer(from_json), Tokenizer(vocabulary));
}

}  // namespace
}  // namespace contexture
