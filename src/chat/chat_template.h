#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "contexture/contexture.h"
#include "jinja/template.h"
#include "text/tokenizer.h"

namespace contexture {

/// What follows an answer in a model's format: the token that ends it, or, in formats without one, the text that does.
struct TurnEnd {
  std::optional<TokenId> token = std::nullopt;
  std::string text = {};  ///< empty: none
};

/// Writes a conversation down as a model was taught to read it.
class ChatTemplate {
 public:
  /// `source`: a Jinja template. Throws Error where it is none. The vocabulary gives the texts of its begin and end
  /// tokens.
  ChatTemplate(std::string_view source, const Vocabulary& vocabulary);

  /// The format of this name (chat_formats.h); without a name, the template that the model file brings
  /// (tokenizer.chat_template). Throws Error where there is neither.
  static ChatTemplate choose(const Metadata& metadata, const Vocabulary& vocabulary, const std::string& format = {});

  /// The text of a conversation; `add_generation_prompt`: up to where the assistant's answer begins. A template that
  /// refuses a system message, or leaves it out, gets its text in front of the first user message. Throws Error where
  /// the template refuses the conversation. Contents are written as they are: the text of a control token in a message
  /// ("<|im_end|>") is read as that token by encode(), so that whoever writes a message could also write turns.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

  /// The tokens of a rendering: special tokens are parsed, and a begin token is added where the vocabulary asks for one
  /// and the text does not start with it.
  std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view rendering) const;

  /// Found by rendering a conversation; nothing where the template refuses it.
  TurnEnd turn_end(const Tokenizer& tokenizer) const;

 private:
  std::string render_as_it_is(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  bool takes_system() const;

  jinja::Template template_;
  std::string begin_, end_;
  bool takes_system_;  // writes system messages down
};

}  // namespace contexture
