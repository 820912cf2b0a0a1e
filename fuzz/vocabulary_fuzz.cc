#include <fuzzer/FuzzedDataProvider.h>

#include <cstdlib>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/vocabulary_readers.h"

/// Vocabularies from strangers: tokenizer.json, SentencePiece's .model, tiktoken's ranks, ExecuTorch's and llama2.c's
/// tokenizer.bin, and the keys of GGUF. Each is read or refused with an Error, what was read makes a tokenizer that
/// encodes any text, and written as metadata and read again it gives the same ids. The first byte of the input chooses;
/// the rest is the file.
namespace {

using namespace contexture;

std::vector<std::string> take_strings(FuzzedDataProvider& data) {
  std::vector<std::string> strings(data.ConsumeIntegralInRange<size_t>(0, 40));
  for (std::string& text : strings) text = data.ConsumeRandomLengthString(12);
  return strings;
}

/// Usually two tokens each, at times anything.
std::vector<std::string> take_merges(FuzzedDataProvider& data, const std::vector<std::string>& tokens) {
  if (tokens.empty() || data.ConsumeIntegralInRange(0, 20) == 0) return take_strings(data);
  const auto pick = [&] { return tokens[data.ConsumeIntegralInRange<size_t>(0, tokens.size() - 1)]; };
  std::vector<std::string> merges(data.ConsumeIntegralInRange<size_t>(0, 40));
  for (std::string& merge : merges) merge = pick() + " " + pick();
  return merges;
}

/// Usually as many as there are tokens, at times not.
size_t take_count(FuzzedDataProvider& data, size_t usual) {
  return data.ConsumeIntegralInRange(0, 20) == 0 ? data.ConsumeIntegralInRange<size_t>(0, 40) : usual;
}

Metadata take_metadata(FuzzedDataProvider& data) {
  const char* const kPretokenizers[] = {"default",    "llama-bpe",  "qwen2",  "deepseek-llm", "falcon",
                                        "starcoder",  "other",      "tekken", "deepseek-v3",  "kimi-k2",
                                        "gemma4",     "sarvam-moe", "jais-2", "superbpe",     "tiny_aya",
                                        "jina-v2-de", "whitespace"};
  const char* const kModels[] = {"llama", "gpt2", "gemma4", "t5"};
  Metadata metadata;
  metadata.set_string("tokenizer.ggml.model", data.PickValueInArray(kModels));
  metadata.set_string("tokenizer.ggml.pre", data.PickValueInArray(kPretokenizers));
  metadata.set_string("general.name", data.ConsumeBool() ? "phi-3" : "");
  const std::vector<std::string> tokens = take_strings(data);
  metadata.set_strings("tokenizer.ggml.tokens", tokens);
  std::vector<float> scores(take_count(data, tokens.size()));
  for (float& score : scores) score = data.ConsumeFloatingPointInRange<float>(-4, 4);
  metadata.set_floats("tokenizer.ggml.scores", scores);
  std::vector<int64_t> types(take_count(data, tokens.size()));
  for (int64_t& type : types) type = data.ConsumeIntegralInRange<int64_t>(-1, 7);
  metadata.set_ints("tokenizer.ggml.token_type", types);
  metadata.set_strings("tokenizer.ggml.merges", take_merges(data, tokens));
  for (const char* key : {"bos_token_id", "eos_token_id", "unknown_token_id", "eot_token_id"}) {
    if (data.ConsumeBool()) {
      metadata.set_int(std::string("tokenizer.ggml.") + key, data.ConsumeIntegralInRange<int64_t>(-1, 45));
    }
  }
  for (const char* key : {"ggml.add_bos_token", "ggml.add_eos_token", "ggml.add_space_prefix",
                          "ggml.remove_extra_whitespaces", "add_space_prefix", "prefix_once", "prefix_if_absent",
                          "user_defined_restarts_text", "fuse_unknown", "marks_after_cutting", "nfc"}) {
    if (data.ConsumeBool()) metadata.set_bool(std::string("tokenizer.") + key, data.ConsumeBool());
  }
  for (const char* key : {"strips_left", "strips_right", "single_words", "normalized", "end_token_ids"}) {
    std::vector<int64_t> ids(data.ConsumeIntegralInRange<size_t>(0, 3));
    for (int64_t& id : ids) id = data.ConsumeIntegralInRange<int64_t>(-1, 40);
    if (!ids.empty()) metadata.set_ints(std::string("tokenizer.") + key, ids);
  }
  return metadata;
}

Vocabulary take_vocabulary(int kind, std::span<const std::byte> file) {
  if (kind == 0) return vocabulary_from_bytes(file, "fuzz");
  if (kind == 1) return read_tiktoken_vocabulary(file, "fuzz", 0);
  FuzzedDataProvider data(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  return vocabulary_from_metadata(take_metadata(data));
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const std::vector<TokenId> ids = tokenizer.encode(text, {.add_begin = true, .parse_special = parse_special});
    for (const TokenId id : ids) {
      if (id < 0 || static_cast<size_t>(id) >= tokenizer.size()) std::abort();
    }
    tokenizer.decode(ids, true);
  }
}

/// (Ranks without a list of merges become one, which cannot say that two merges have the same rank.)
void check_round_trip(const Vocabulary& vocabulary, const Tokenizer& tokenizer, std::string_view text) {
  if (vocabulary.algorithm == Vocabulary::Algorithm::byte_bpe && vocabulary.merges.empty()) return;
  Metadata metadata;
  vocabulary_to_metadata(vocabulary, metadata);
  std::vector<TokenId> expected, ids;
  try {
    expected = tokenizer.encode(text);
  } catch (const Error&) {
    return;  // a text that the vocabulary cannot write
  }
  try {
    ids = Tokenizer(vocabulary_from_metadata(metadata)).encode(text);
  } catch (const Error&) {
    std::abort();
  }
  if (ids != expected) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> file = std::as_bytes(std::span(data + 1, size - 1));
  try {
    const Vocabulary vocabulary = take_vocabulary(data[0] % 3, file);
    const Tokenizer tokenizer(vocabulary);
    check_round_trip(vocabulary, tokenizer, "a Hello  ab\xE2\x96\x81\n <s>\xFF <u> e\xCC\x81 123");
    use(tokenizer, "Hello  ab\xE2\x96\x81\n <s>\xFF 123");
    use(tokenizer, {reinterpret_cast<const char*>(file.data()), std::min<size_t>(file.size(), 500)});
  } catch (const Error&) {
  }
  return 0;
}
