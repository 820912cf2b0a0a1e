#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "contexture/engine.h"

namespace contexture {

/// What a conversation starts from.
struct ConversationOptions {
  std::string system = {};       ///< what the assistant is told beforehand; empty: nothing
  std::string chat_format = {};  ///< "chatml", "llama3"...; empty: the chat template that the model file brings
  bool parse_special = false;    ///< "<|eot_id|>" in a message is that token, so that a message can write turns
  std::string name_space = {};   ///< as Request's
};

/// A conversation over an engine, which it shares with others. Its history stays in a context of its own: a turn costs
/// its new tokens only. Movable; one turn at a time. The engine must outlive it.
class CONTEXTURE_API Conversation {
 public:
  explicit Conversation(Engine& engine, const ConversationOptions& options = {});
  Conversation(Conversation&&) noexcept;
  ~Conversation();

  /// The assistant's answer. Where the context is full, the oldest turns are forgotten. After cancel(), and where
  /// `on_token` returned false, what was said so far stays as the answer. The seed grows by one with every turn.
  Generation say(std::string_view message, const Sampling& sampling = {}, const Limits& limits = {},
                 const std::function<bool(const GeneratedToken&)>& on_token = {});

  const std::vector<ChatMessage>& messages() const;

  /// Ends a running say(). From any thread, and from a signal handler.
  void cancel() noexcept;

 private:
  struct CONTEXTURE_LOCAL Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace contexture
