#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "contexture/generation.h"
#include "jinja/template.h"
#include "text/tokenizer.h"

namespace contexture {

/// What follows an answer in a model's format: the token that ends it, or, in formats without one, the text that does.
struct TurnEnd {
  std::optional<TokenId> token = std::nullopt;
  std::string text = {};  ///< empty: none
};

/// The text of a conversation, and which of its bytes came from messages.
struct Rendering {
  std::string text;
  std::vector<ByteRange> content;  ///< ascending, apart
};

/// A conversation as JSON, and what goes with it.
struct ChatInput {
  nlohmann::ordered_json messages;   ///< an array of objects
  nlohmann::ordered_json tools;      ///< an array, or null
  nlohmann::ordered_json variables;  ///< an object: what else the template sees
  bool add_generation_prompt = true;
};

/// Writes a conversation down as a model was taught to read it.
class ChatTemplate {
 public:
  /// `source`: a Jinja template. Throws Error where it is none, and where it leaves out what the user says. It sees the
  /// special tokens that the vocabulary and the file's keys (tokenizer.ggml.*) name. `parse_special`: contents of
  /// messages may hold control tokens.
  ChatTemplate(std::string_view source, const Vocabulary& vocabulary, const Metadata& metadata = {},
               bool parse_special = false);

  /// The format of this name (chat_formats.h); without a name, the template that the model file brings
  /// (tokenizer.chat_template). Throws Error where there is neither.
  static ChatTemplate choose(const Metadata& metadata, const Vocabulary& vocabulary, const std::string& format = {},
                             bool parse_special = false);

  /// A conversation as text; `add_generation_prompt`: up to where the assistant's answer begins. A template that
  /// refuses a system message, or leaves it out, gets its text in front of the first user message; one that reads
  /// contents as typed parts alone gets them so. Throws Error where the template refuses the conversation.
  Rendering render(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const;

  /// The same of messages of any shape that the template reads: contents as text or as parts, tool calls, names; with
  /// tools, and variables of the template's own. None of it but the template's own words may hold control tokens.
  /// Throws Error where a variable has the name of one that the conversation sets.
  Rendering render(const ChatInput& input) const;

  /// The tokens of a rendering: special tokens are parsed in what the template wrote, but control tokens not in what
  /// came from messages, nor user-defined ones that the template writes ("<|im_end|>" in a message is text, so that no
  /// message can write turns; with parse_special it is that token). A begin token is added where the vocabulary asks
  /// for one and the text does not start with it.
  std::vector<TokenId> encode(const Tokenizer& tokenizer, const Rendering& rendering) const;
  /// The tokens of what follows a rendering's first bytes, without a begin token.
  std::vector<TokenId> encode_rest(const Tokenizer& tokenizer, const Rendering& rendering, size_t from) const;

  /// Found by rendering a conversation; nothing where the template refuses it.
  TurnEnd turn_end(const Tokenizer& tokenizer) const;

 private:
  /// Whose contents are given as [{"type": "text", "text": ...}] and not as a string.
  enum class Typed { none, all, all_but_system };

  Rendering render_json(const nlohmann::ordered_json& content, bool add_generation_prompt,
                        const jinja::Bounds& bounds) const;
  nlohmann::ordered_json typed(const nlohmann::ordered_json& message) const;
  Rendering render_as_it_is(std::span<const ChatMessage> messages, bool add_generation_prompt,
                            const jinja::Bounds& bounds = {}) const;
  std::string try_out(std::span<const ChatMessage> messages) const;
  Typed find_typed();
  std::vector<TokenId> find_guarded(std::string_view source, const Vocabulary& vocabulary) const;
  bool takes_system() const;

  jinja::Template template_;
  std::string tokens_;  // the special tokens' names and texts, as JSON
  bool parse_special_;
  Typed typed_ = Typed::none;
  bool takes_system_;             // writes system messages down
  std::vector<TokenId> guarded_;  // user-defined pieces that the template may mark turns with
};

}  // namespace contexture
