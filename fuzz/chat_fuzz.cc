#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat/chat_template.h"
#include "contexture/error.h"

namespace {

using namespace contexture;

/// Every byte is a token, and these are control tokens.
Vocabulary bytes_and_control_tokens() {
  Vocabulary vocabulary;
  vocabulary.algorithm = Vocabulary::Algorithm::sentencepiece_bpe;
  vocabulary.add_space_prefix = false;
  const auto add = [&](std::string piece, PieceType type) {
    vocabulary.pieces.push_back(std::move(piece));
    vocabulary.scores.push_back(0);
    vocabulary.types.push_back(type);
  };
  add("<unk>", PieceType::unknown);
  add(std::string(kSpaceMark), PieceType::normal);
  for (const char* piece : {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>"}) add(piece, PieceType::control);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), PieceType::byte);
  vocabulary.unknown = 0, vocabulary.begin = 2, vocabulary.end = 3;
  vocabulary.end_tokens = {3};
  return vocabulary;
}

}  // namespace

/// A template, a zero byte, and what a user says: a conversation becomes tokens or is refused in one line. The bytes of
/// the tokens are those of the text, and no control token is made of what came from a message.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer tokenizer(bytes_and_control_tokens());
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(input.find('\0'), size);
  if (zero > 4096) return 0;
  const std::string said(input.substr(std::min(zero + 1, size)));
  try {
    const ChatTemplate chat(input.substr(0, zero), tokenizer.vocabulary());
    const ChatMessage messages[] = {{"system", "Be brief."}, {"user", said}, {"assistant", said}, {"user", said + "?"}};
    const Rendering rendering = chat.render(messages);
    if (rendering.text.find(kSpaceMark) != std::string::npos) return 0;  // comes back as a space: places would be lost
    size_t at = 0;
    for (const TokenId id : chat.encode_rest(tokenizer, rendering, 0)) {
      const std::string bytes = tokenizer.bytes(id, /*show_special=*/true);
      const bool is_control = tokenizer.vocabulary().types[static_cast<size_t>(id)] == PieceType::control;
      if (is_control && touches(rendering.content, at, at + bytes.size())) std::abort();
      at += bytes.size();
    }
  } catch (const Error& error) {
    for (const char c : std::string_view(error.what())) {
      if (static_cast<unsigned char>(c) < 0x20) std::abort();  // one line
    }
  }
  return 0;
}
