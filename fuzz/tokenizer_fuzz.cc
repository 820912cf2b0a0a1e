#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "text/byte_bpe.h"
#include "text/merge_table.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

/// Texts from strangers: any bytes encode, decode to the same bytes, and stream as valid UTF-8. The first byte of the
/// input chooses the tokenizer; the rest is the text.
namespace {

using namespace contexture;

/// "<s>" is control and "<x>" user-defined; all bytes are there, and some merges.
Vocabulary sentencepiece() {
  Vocabulary vocabulary;
  const auto add = [&](std::string piece, PieceType type, float score) {
    vocabulary.pieces.push_back(std::move(piece));
    vocabulary.types.push_back(type);
    vocabulary.scores.push_back(score);
  };
  add("<unk>", PieceType::unknown, 0);
  add("<s>", PieceType::control, 0);
  add("</s>", PieceType::control, 0);
  add("<x>", PieceType::user_defined, 0);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), PieceType::byte, 0);
  float score = 0;
  for (const char* piece :
       {"\u2581", "a", "b", "e", "t", "h", "\u00E9", "\u2581a", "th", "\u2581t", "\u2581th", "the", "\u2581the",
        "\u2581\u2581", "aa", "ab", "aab", "\u2581\u2581\u2581\u2581", "\u00E9\u00E9"}) {
    add(piece, PieceType::normal, score -= 1);
  }
  vocabulary.unknown = 0, vocabulary.begin = 1, vocabulary.end = 2;
  return vocabulary;
}

Vocabulary byte_bpe(const char* pretokenizer) {
  Vocabulary vocabulary;
  vocabulary.algorithm = Vocabulary::Algorithm::byte_bpe;
  vocabulary.pretokenizer = pretokenizer;
  vocabulary.add_begin = false;
  for (int byte = 0; byte < 256; ++byte) vocabulary.pieces.push_back(printable_of_bytes(std::string(1, byte)));
  const std::pair<const char*, const char*> kMerges[] = {
      {" ", "t"}, {" ", " "},   {"\xC3", "\xA9"}, {"h", "e"},       {" t", "he"},         {"a", "a"}, {"aa", "a"},
      {"1", "2"}, {"\n", "\n"}, {"  ", "  "},     {"\xE4", "\xB8"}, {"\xE4\xB8", "\xAD"}, {"'", "s"}, {"!", "!"}};
  for (const auto& [left, right] : kMerges) {
    const std::string l = printable_of_bytes(left), r = printable_of_bytes(right);
    vocabulary.pieces.push_back(l + r);
    vocabulary.merges.push_back(l + " " + r);
  }
  vocabulary.types.assign(vocabulary.pieces.size(), PieceType::normal);
  for (const auto& [piece, type] : {std::pair("<s>", PieceType::control), std::pair("<x>", PieceType::user_defined)}) {
    vocabulary.pieces.push_back(piece);
    vocabulary.types.push_back(type);
  }
  return vocabulary;
}

std::vector<Tokenizer> make_tokenizers() {
  std::vector<Tokenizer> all;
  all.emplace_back(sentencepiece());
  Vocabulary other = sentencepiece();
  other.add_space_prefix = false;
  all.emplace_back(other);
  other = sentencepiece();
  other.user_defined_restarts_text = false;
  all.emplace_back(other);
  other = sentencepiece();
  other.normalized = {3};
  all.emplace_back(other);
  other.add_space_prefix = false;
  other.marks_after_cutting = true;
  other.single_words = {2, 3};
  all.emplace_back(other);
  for (const char* name : {"llama-bpe", "gpt-2", "qwen2", "deepseek-llm", "deepseek-coder", "falcon", "starcoder",
                           "default", "tekken", "gpt-4o", "deepseek-v3", "jais-2", "exaone-moe", "superbpe", "tiny_aya",
                           "afmoe", "kimi-k2", "youtu", "chameleon"}) {
    all.emplace_back(byte_bpe(name));
  }
  return all;
}

/// U+2581 is a space to SentencePiece.
std::string as_it_comes_back(const Tokenizer& tokenizer, std::string_view text) {
  std::string out(text);
  if (tokenizer.vocabulary().algorithm == Vocabulary::Algorithm::byte_bpe) return out;
  for (size_t at; (at = out.find("\u2581")) != out.npos;) out.replace(at, 3, " ");
  return out;
}

/// What a stream makes of bytes that are not UTF-8.
std::string repaired(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Sequence next = next_utf8(text);
    out += next.kind == Utf8Sequence::Kind::valid ? text.substr(0, next.size) : kReplacementCharacter;
    text.remove_prefix(next.size);
  }
  return out;
}

void check_round_trip(const Tokenizer& tokenizer, std::string_view text, bool parse_special) {
  const std::vector<TokenId> ids = tokenizer.encode(text, {.add_begin = false, .parse_special = parse_special});
  const std::string decoded = tokenizer.decode(ids, true);
  if (decoded != as_it_comes_back(tokenizer, text)) std::abort();
  StreamDecoder decoder(tokenizer, {}, true);
  std::string streamed;
  for (const TokenId id : ids) {
    const std::string part = decoder.push(id);
    if (valid_utf8_prefix(part) != part.size()) std::abort();
    streamed += part;
  }
  if (streamed + decoder.finish() != repaired(decoded)) std::abort();
}

/// The queue against the scan, on symbols of the text's making.
void check_merges(std::string_view text) {
  static const MergeTable table = [] {
    MergeTable merges;
    for (int32_t i = 0; i < 200; ++i) merges.add(i * 7 % 16, i * 5 % 23, static_cast<uint32_t>(i % 11), 8 + i % 24);
    return merges;
  }();
  std::vector<Symbol> by_scan;
  for (const char c : text.substr(0, 300)) by_scan.push_back({c % 16, 1});
  std::vector<Symbol> by_queue = by_scan;
  table.merge_short(by_scan);
  table.merge_long(by_queue);
  const auto same = [](const Symbol& a, const Symbol& b) { return a.id == b.id && a.size == b.size; };
  if (!std::equal(by_scan.begin(), by_scan.end(), by_queue.begin(), by_queue.end(), same)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<Tokenizer> tokenizers = make_tokenizers();
  if (size == 0) return 0;
  const Tokenizer& tokenizer = tokenizers[data[0] % tokenizers.size()];
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  check_round_trip(tokenizer, text, false);
  check_round_trip(tokenizer, text, true);
  check_merges(text);
  return 0;
}
