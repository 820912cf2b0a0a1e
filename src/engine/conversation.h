#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "chat/chat_template.h"
#include "engine/completion.h"
#include "engine/plan.h"

namespace contexture {

/// Tokens of context where nobody asked for a number: the model's own, at most 4096.
size_t default_chat_context(const ModelConfig& config);

/// The one context that a conversation's history lives in, whatever runs it.
class TurnMaker {
 public:
  virtual ~TurnMaker() = default;
  virtual TextLimits limits() const = 0;
  virtual size_t length() const = 0;  ///< tokens held
  /// Completes the prompt. What the context has in common with it is not run again; what follows the first difference
  /// is forgotten.
  virtual Generation generate(const Submission& submission) = 0;
};

/// Over an executor that nobody else uses, which must outlive what this returns.
std::unique_ptr<TurnMaker> turns_over(Executor& executor, const Tokenizer& tokenizer);

/// A conversation as it is kept, to go on elsewhere as it would have here.
struct SavedConversation {
  std::vector<ChatMessage> messages = {};
  size_t turns = 0;                     // answered, those that were dropped included
  std::vector<TokenId> token_ids = {};  // of all up to the last answer, each answer's as they were generated; or none
  std::string fingerprint = {};         // of these tokens and their text, by which restore() knows them
};

/// A conversation whose history lives in one sequence: what a turn's text has in common with it is not run
/// again. Templates that rewrite history (some drop what an assistant thought) lose what follows the first difference.
class CachedConversation {
 public:
  /// All of these must outlive this.
  CachedConversation(Executor& executor, const Tokenizer& tokenizer, const ChatTemplate& chat_template);
  CachedConversation(std::unique_ptr<TurnMaker> turns, const Tokenizer& tokenizer, const ChatTemplate& chat_template);

  /// What the user says and the assistant answers; both become messages, also where the answer was cancelled (what was
  /// said so far stays; where nothing was, neither is kept). Where prompt and answer do not fit the context, the oldest
  /// turns are dropped, the system message is not. Throws Error where this one message does not fit; then nothing has
  /// changed. The seed grows by one with every turn: those of a conversation that goes on are counted too.
  Generation say(std::string_view text, const GenerateOptions& options, const GenerationCallbacks& callbacks = {});

  const std::vector<ChatMessage>& messages() const { return messages_; }
  /// Another conversation. What it shares with this one's beginning is still in the cache.
  void set_messages(std::vector<ChatMessage> messages);

  SavedConversation saved() const;
  /// Goes on from what saved() gave. Token ids that are not those of the messages' text are passed over: who edits a
  /// message edits its text.
  void restore(SavedConversation saved);

  size_t context_tokens() const { return maker_->length(); }
  /// Turns that the last say() dropped.
  size_t dropped_turns() const { return dropped_turns_; }

 private:
  std::vector<TokenId> tokens_of(const std::vector<ChatMessage>& messages) const;
  std::vector<TokenId> fit(std::vector<ChatMessage>& messages, size_t max_tokens);

  const std::unique_ptr<TurnMaker> maker_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& template_;
  const TurnEnd turn_end_;
  std::vector<ChatMessage> messages_;
  std::string said_;                  // the last turn's text, answer included...
  std::vector<TokenId> said_tokens_;  // ...and its tokens, the answer's as they were generated
  size_t turns_ = 0;                  // answered, those that were dropped included
  size_t dropped_turns_ = 0;
};

}  // namespace contexture
