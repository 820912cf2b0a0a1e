#include "text/vocabulary.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <unordered_map>

#include "base/error.h"
#include "base/mapped_file.h"
#include "text/vocabulary_readers.h"

namespace contexture {
namespace {

/// The longest piece of the known vocabularies is 256 bytes; the bound keeps work on a hostile one linear.
constexpr size_t kMaxPieceSize = 1024;

/// Names by which chat templates end a turn or a text. A file names one end token, at times the wrong one for a chat
/// (the end of a document where the template ends turns with another token); a model that emits one of these has said
/// its say, and going on would make it play the other side. So all of them end a text, whatever the file calls `eos`.
constexpr std::array<std::string_view, 28> kEndNames = {
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|END_OF_TURN_TOKEN|>",
    "<EOS_TOKEN>",
    "<|EOT|>",
    "<EOT>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<turn|>",
    "<|tool_response>",
    "[EOT]",
    "[EOS]",
    "_<EOT>",
    "[e~[",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",  // DeepSeek's, with U+FF5C and U+2581
};

/// Where the first is there with one of each other list, it ends a message of a turn that goes on (gpt-oss, Solar
/// Open), or nothing (Gemma 4).
struct NoEnd {
  std::string_view name;
  std::vector<std::string_view> one_of, and_one_of;
};

const std::vector<NoEnd>& no_ends() {
  static const std::vector<NoEnd> all = {{"<|end|>", {"<|call|>", "<|calls|>"}, {"<|return|>", "<|flush|>"}},
                                         {"</s>", {"<|tool_response>"}, {"<|tool_response>"}}};
  return all;
}

constexpr const char* kFileNames[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};

void check_id(const Vocabulary& vocabulary, std::optional<TokenId> id, const char* role, const std::string& name) {
  if (!id || (*id >= 0 && static_cast<size_t>(*id) < vocabulary.pieces.size())) return;
  fail("{}: the {} token is {}, but there are {} pieces; the file is damaged", name, role, *id,
       vocabulary.pieces.size());
}

}  // namespace

bool is_byte_name(std::string_view piece) {
  return piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>') &&
         std::isxdigit(static_cast<unsigned char>(piece[3])) && std::isxdigit(static_cast<unsigned char>(piece[4]));
}

void check_vocabulary(const Vocabulary& vocabulary, const std::string& name) {
  const size_t count = vocabulary.pieces.size();
  const bool is_sentencepiece = vocabulary.algorithm == Vocabulary::Algorithm::sentencepiece_bpe;
  if (count == 0) fail("{}: the vocabulary is empty; use a file with its tokenizer", name);
  if (count > kMaxPieces) fail("{}: {} pieces, more than any vocabulary has; the file is damaged", name, count);
  if (vocabulary.types.size() != count || (is_sentencepiece && vocabulary.scores.size() != count)) {
    fail("{}: {} pieces, but {} types and {} scores; the file is damaged", name, count, vocabulary.types.size(),
         vocabulary.scores.size());
  }
  for (size_t id = 0; id < count; ++id) {
    const std::string& piece = vocabulary.pieces[id];
    if (piece.size() > kMaxPieceSize) {
      fail("{}: piece {} is {} bytes long, more than {}; the file is damaged", name, id, piece.size(), kMaxPieceSize);
    }
    if (is_sentencepiece && std::isnan(vocabulary.scores[id])) {
      fail("{}: the score of piece {} is not a number; the file is damaged", name, id);
    }
    if (vocabulary.types[id] < PieceType::normal || vocabulary.types[id] > PieceType::byte) {
      fail("{}: piece {} has the unknown type {}; the file is damaged", name, id,
           static_cast<int>(vocabulary.types[id]));
    }
    if (vocabulary.types[id] == PieceType::byte && !is_byte_name(piece)) {
      fail("{}: piece {} should name a byte, as <0x0A> does, and reads \"{}\"; the file is damaged", name, id,
           printable(piece));
    }
  }
  check_id(vocabulary, vocabulary.begin, "begin", name);
  check_id(vocabulary, vocabulary.end, "end", name);
  check_id(vocabulary, vocabulary.unknown, "unknown", name);
  for (const TokenId id : vocabulary.end_tokens) check_id(vocabulary, id, "end", name);
  for (const auto* ids :
       {&vocabulary.strips_left, &vocabulary.strips_right, &vocabulary.single_words, &vocabulary.normalized}) {
    for (const TokenId id : *ids) check_id(vocabulary, id, "special", name);
  }
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::string_view merge = vocabulary.merges[i];
    const size_t space = merge.find(' ', 1);  // the left part may begin with one
    if (space != merge.npos && space + 1 < merge.size() && merge.size() <= 2 * kMaxPieceSize) continue;
    fail("{}: merge {} should be two pieces and a space between them, and reads \"{}\"; the file is damaged", name, i,
         printable(merge));
  }
  if ((vocabulary.add_begin && !vocabulary.begin) || (vocabulary.add_end && !vocabulary.end)) {
    fail("{}: a begin or end token is to be added to every text, but there is none; set bos_token_id, eos_token_id",
         name);
  }
}

void check_piece_count(size_t count, const std::string& name) {
  if (count > kMaxPieces) fail("{}: more than {} pieces; the file is damaged", name, kMaxPieces);
}

void score_by_merges(Vocabulary& vocabulary) {
  std::unordered_map<std::string_view, size_t> ids;
  ids.reserve(vocabulary.pieces.size());
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) ids.try_emplace(vocabulary.pieces[id], id);
  vocabulary.scores.assign(vocabulary.pieces.size(), -static_cast<float>(vocabulary.merges.size()) - 1);
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    std::string result = vocabulary.merges[rank];
    const size_t space = result.find(' ', 1);
    if (space == result.npos) continue;  // damage, which check_vocabulary finds
    const auto found = ids.find(result.erase(space, 1));
    if (found == ids.end()) continue;
    float& score = vocabulary.scores[found->second];
    score = std::max(score, -static_cast<float>(rank));
  }
}

void collect_end_tokens(Vocabulary& vocabulary) {
  std::vector<TokenId>& ends = vocabulary.end_tokens;
  if (vocabulary.end) ends.push_back(*vocabulary.end);
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const PieceType type = vocabulary.types[id];
    if (type != PieceType::control && type != PieceType::user_defined) continue;
    if (std::find(kEndNames.begin(), kEndNames.end(), vocabulary.pieces[id]) != kEndNames.end()) ends.push_back(id);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  const auto has_one = [&](const std::vector<std::string_view>& names) {
    return std::any_of(ends.begin(), ends.end(), [&](TokenId id) {
      return std::find(names.begin(), names.end(), vocabulary.pieces[id]) != names.end();
    });
  };
  for (const NoEnd& no_end : no_ends()) {
    if (!has_one(no_end.one_of) || !has_one(no_end.and_one_of)) continue;
    std::erase_if(ends, [&](TokenId id) { return id != vocabulary.end && vocabulary.pieces[id] == no_end.name; });
  }
}

std::string find_vocabulary_file(const std::string& folder) {
  for (const char* name : kFileNames) {
    std::error_code ignored;
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    if (std::filesystem::is_regular_file(path, ignored)) return path.string();
  }
  return {};
}

Vocabulary vocabulary_from_file(const std::string& path, int64_t vocabulary_size) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const std::string file = find_vocabulary_file(path);
    if (!file.empty()) return vocabulary_from_file(file, vocabulary_size);
    fail("{}: a folder with none of {}; name the tokenizer's file", printable(path, 400), fmt::join(kFileNames, ", "));
  }
  const MappedFile file(path);
  return vocabulary_from_bytes(file.bytes(), path, vocabulary_size);
}

Vocabulary vocabulary_from_bytes(std::span<const std::byte> bytes, const std::string& name, int64_t vocabulary_size) {
  constexpr size_t largest = size_t{256} << 20;  // the largest tokenizer.json known has 33 MB
  if (bytes.size() > largest) fail("{}: too large for a tokenizer", printable(name, 400));
  if (is_huggingface_vocabulary(bytes)) return read_huggingface_vocabulary(bytes, name);
  if (is_executorch_vocabulary(bytes)) return read_executorch_vocabulary(bytes, name);
  if (is_llama2c_vocabulary(bytes)) return read_llama2c_vocabulary(bytes, name, vocabulary_size);
  if (is_tiktoken_vocabulary(bytes)) return read_tiktoken_vocabulary(bytes, name);
  if (is_sentencepiece_vocabulary(bytes)) return read_sentencepiece_vocabulary(bytes, name);
  fail(
      "{}: not a tokenizer file of a known kind; give Hugging Face's tokenizer.json, SentencePiece's tokenizer.model, "
      "tiktoken's text of ranks, or ExecuTorch's or llama2.c's tokenizer.bin (a GGUF model brings its own)",
      name);
}

}  // namespace contexture
