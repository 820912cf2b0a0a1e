#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "contexture/export.h"
#include "contexture/options.h"

namespace contexture {

/// A text as it is.
struct TextPrompt {
  std::string text;
  bool add_begin = true;      ///< the begin token precedes it, where the model wants one
  bool parse_special = true;  ///< "<|eot_id|>" in it is that token; false: it is text like any other
  bool goes_on = false;       ///< it follows other text: no space is put in front (Generation::cut_text)
};

/// Tokens as they are.
struct TokenPrompt {
  std::vector<int32_t> tokens;
};

/// A conversation, written down by the model's chat template up to where the assistant's answer begins.
struct ChatPrompt {
  std::string messages;        ///< a JSON array of any messages that the template reads: roles, contents as text or as
                               ///< parts, tool calls, names
  std::string tools = {};      ///< a JSON array; empty: none
  std::string variables = {};  ///< a JSON object of further variables that the template reads; empty: none
  std::string chat_format = {};  ///< "chatml", "llama3"...; empty: the template that the model file brings
  bool parse_special = false;    ///< control tokens in messages are those tokens, so that a message can write turns
  bool add_answer = true;        ///< the beginning of the assistant's answer follows
};

using Prompt = std::variant<TextPrompt, TokenPrompt, ChatPrompt>;

/// A part of a rendered conversation.
struct Segment {
  std::string text;
  bool content = false;  ///< it came from a message: it must never become control tokens
};

struct ModelOptions {
  std::string tokenizer_path = {};  ///< empty: inside the model file or beside it
  int threads = 0;                  ///< to load it with; 0: one a physical core
  bool weights = true;              ///< false: for its tokenizer, its templates and plans alone
};

/// What a model is.
struct ModelFacts {
  std::string name = {};    ///< as the file says, or the file's name
  std::string family = {};  ///< "llama", "qwen2"...
  size_t layers = 0;
  size_t heads = 0;     ///< of queries
  size_t kv_heads = 0;  ///< of K and V
  size_t head_dim = 0;
  size_t hidden = 0;      ///< channels of a hidden state, and of an embedding
  size_t vocabulary = 0;  ///< tokens
  size_t context = 0;     ///< tokens that it was made for
  size_t weights_bytes = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
};

/// A model: weights, tokenizer, chat templates, configuration. Immutable; copies are the same model, which lives as
/// long as anybody holds it. Free to use from any thread.
class CONTEXTURE_API Model {
 public:
  /// `path`: a GGUF file, a Hugging Face folder, a PyTorch checkpoint or its folder, a llama2.c file. Throws Error
  /// where there is none, or none that runs.
  static Model open(const std::string& path, const ModelOptions& options = {});

  const ModelFacts& facts() const;

  /// The tokens of a prompt. Throws Error where a template refuses the messages, or there is no tokenizer.
  std::vector<int32_t> tokens_of(const Prompt& prompt) const;
  /// The bytes of a sequence of tokens; control tokens add nothing, or their names with `show_special`.
  std::string text_of(std::span<const int32_t> tokens, bool show_special = false) const;
  /// The vocabulary's piece of a token, for people and tables.
  std::string piece_of(int32_t token) const;
  /// Whether the token ends a text.
  bool is_end(int32_t token) const;

  /// A conversation as text, in parts: which came from messages, and which the template wrote.
  std::vector<Segment> render(const ChatPrompt& prompt) const;

  /// What an engine of this model takes. Throws Error where it cannot be made.
  Plan plan(const EngineOptions& options) const;

  struct CONTEXTURE_LOCAL Impl;
  const std::shared_ptr<const Impl>& impl() const { return impl_; }

 private:
  explicit Model(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace contexture
