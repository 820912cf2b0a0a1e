#include <array>
#include <charconv>
#include <cstdint>

#include "base/error.h"
#include "text/byte_bpe.h"
#include "text/vocabulary_readers.h"

/// tiktoken's file: a line a token, its bytes in base64, a space and its rank, which is its id:
///
///   IQ== 0
///   Ig== 1
///
/// Ranks count up from 0 and every byte is among the tokens. The special tokens are not in the file; they follow the
/// ranks. Only Llama 3's are known here, of the many models whose tokenizer has this form.
namespace contexture {
namespace {

constexpr size_t kLlama3Special = 256;
constexpr std::array<const char*, 11> kLlama3Names = {"<|begin_of_text|>",
                                                      "<|end_of_text|>",
                                                      "<|reserved_special_token_0|>",
                                                      "<|reserved_special_token_1|>",
                                                      "<|finetune_right_pad_id|>",
                                                      "<|step_id|>",
                                                      "<|start_header_id|>",
                                                      "<|end_header_id|>",
                                                      "<|eom_id|>",
                                                      "<|eot_id|>",
                                                      "<|python_tag|>"};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string_view take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

/// False where it is not base64 of at least one byte.
bool decode_base64(std::string_view text, std::string& bytes) {
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.clear();
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size() - padding; ++i) {
    const int digit = base64_digit(text[i]);
    if (digit < 0) return false;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 0) bytes += static_cast<char>(bits >> (6 - 2 * (i % 4)));
  }
  return true;
}

bool parse_line(std::string_view line, std::string& bytes, size_t& rank) {
  const size_t space = line.find(' ');
  if (space == line.npos || !decode_base64(line.substr(0, space), bytes)) return false;
  const char* end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data() + space + 1, end, rank);
  return error == std::errc() && stop == end;
}

void add_llama3_special(Vocabulary& vocabulary) {
  const TokenId first = static_cast<TokenId>(vocabulary.pieces.size());
  for (size_t i = 0; i < kLlama3Special; ++i) {
    const bool is_named = i < kLlama3Names.size();
    vocabulary.pieces.push_back(is_named ? kLlama3Names[i]
                                         : fmt::format("<|reserved_special_token_{}|>", i - kLlama3Names.size() + 2));
    vocabulary.types.push_back(PieceType::control);
  }
  vocabulary.begin = first;
  vocabulary.end = first + 1;
}

}  // namespace

bool is_tiktoken_vocabulary(std::span<const std::byte> bytes) {
  std::string_view text = as_text(bytes);
  std::string token;
  size_t rank = 0;
  return parse_line(take_line(text), token, rank);
}

Vocabulary read_tiktoken_vocabulary(std::span<const std::byte> bytes, const std::string& name, size_t expected_ranks) {
  Vocabulary vocabulary;
  vocabulary.algorithm = Vocabulary::Algorithm::byte_bpe;
  vocabulary.pretokenizer = "llama-bpe";
  vocabulary.add_space_prefix = false;
  std::string token;
  for (std::string_view text = as_text(bytes); !text.empty();) {
    size_t rank = 0;
    const size_t line = vocabulary.pieces.size();
    if (!parse_line(take_line(text), token, rank) || rank != line) {
      fail("{}: line {} is not a token in base64 and the rank {}; copy the file again", name, line + 1, line);
    }
    check_piece_count(line + 1, name);
    vocabulary.pieces.push_back(printable_of_bytes(token));
    vocabulary.types.push_back(PieceType::normal);
  }
  if (expected_ranks != 0 && vocabulary.pieces.size() != expected_ranks) {
    fail(
        "{}: {} ranks; of the tokenizers in tiktoken's format only Llama 3's, with {}, is known; convert the model to "
        "GGUF",
        name, vocabulary.pieces.size(), expected_ranks);
  }
  add_llama3_special(vocabulary);
  collect_end_tokens(vocabulary);
  check_vocabulary(vocabulary, name);
  return vocabulary;
}

}  // namespace contexture
