#include "engine/conversation.h"

#include <xxhash.h>

#include <algorithm>

#include "base/error.h"
#include "engine/generate.h"

namespace contexture {
namespace {

/// Takes the oldest turn away: up to the second user message. False where there is no turn but the last.
bool drop_turn(std::vector<ChatMessage>& messages) {
  const auto is_user = [](const ChatMessage& m) { return m.role == "user"; };
  const auto is_system = [](const ChatMessage& m) { return m.role == "system"; };
  const auto first = std::find_if_not(messages.begin(), messages.end(), is_system);
  if (first == messages.end()) return false;
  const auto second = std::find_if(first + 1, messages.end(), is_user);
  if (second == messages.end()) return false;
  messages.erase(first, second);
  return true;
}

/// Of a text and the tokens that stand for it, by number and by piece: those of another vocabulary are others.
std::string fingerprint(const Tokenizer& tokenizer, std::string_view text, std::span<const TokenId> tokens) {
  std::string all(text);
  for (const TokenId id : tokens) all += fmt::format("\n{} {}", id, tokenizer.piece(id));
  const XXH128_hash_t hash = XXH3_128bits(all.data(), all.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

/// A context that a scheduler of its own keeps.
class OwnTurns final : public TurnMaker {
 public:
  OwnTurns(Executor& executor, const Tokenizer& tokenizer)
      : scheduler_(executor, &tokenizer), kept_(scheduler_.kept().create()) {}

  TextLimits limits() const override { return limits_of(scheduler_.executor().capacities()); }
  size_t length() const override { return scheduler_.kept().at(kept_).tokens.size(); }
  Generation generate(const Submission& submission) override {
    // All of a conversation's turns are rotated alike: as a text that fills the context.
    return run_to_end(scheduler_, submission, {.kept = kept_, .planned_tokens = limits().context});
  }

 private:
  mutable Scheduler scheduler_;
  const KeptId kept_;
};

}  // namespace

size_t default_chat_context(const ModelConfig& config) {
  return std::min<size_t>(config.context, 4096);
}

std::unique_ptr<TurnMaker> turns_over(Executor& executor, const Tokenizer& tokenizer) {
  return std::make_unique<OwnTurns>(executor, tokenizer);
}

CachedConversation::CachedConversation(Executor& executor, const Tokenizer& tokenizer,
                                       const ChatTemplate& chat_template)
    : CachedConversation(turns_over(executor, tokenizer), tokenizer, chat_template) {}

CachedConversation::CachedConversation(std::unique_ptr<TurnMaker> turns, const Tokenizer& tokenizer,
                                       const ChatTemplate& chat_template)
    : maker_(std::move(turns)),
      tokenizer_(tokenizer),
      template_(chat_template),
      turn_end_(chat_template.turn_end(tokenizer)) {}

/// An answer's tokens need not be those that its text would be cut into. Where the text goes on from the last turn's
/// with the token that ends an answer (a special one: it cuts the text), the tokens of that turn are kept as they were.
std::vector<TokenId> CachedConversation::tokens_of(const std::vector<ChatMessage>& messages) const {
  const Rendering rendering = template_.render(messages);
  if (!said_.empty() && turn_end_.token && rendering.text.starts_with(said_)) {
    const std::vector<TokenId> rest = template_.encode_rest(tokenizer_, rendering, said_.size());
    if (!rest.empty() && rest[0] == *turn_end_.token) {
      std::vector<TokenId> tokens = said_tokens_;
      tokens.insert(tokens.end(), rest.begin(), rest.end());
      return tokens;
    }
  }
  return template_.encode(tokenizer_, rendering);
}

/// The tokens of a conversation that leaves room for an answer; turns are dropped where it would not. Then half of the
/// context is made free at once: what is dropped changes everything after it, and so all of that is run again.
std::vector<TokenId> CachedConversation::fit(std::vector<ChatMessage>& messages, size_t max_tokens) {
  dropped_turns_ = 0;
  const TextLimits limits = maker_->limits();
  const size_t context = limits.context;
  const size_t answer = std::min(std::max<size_t>(max_tokens, 1), context / 4);
  std::vector<TokenId> tokens = tokens_of(messages);
  if (tokens.size() + answer <= context) return tokens;
  while (tokens.size() > context / 2 && drop_turn(messages)) {
    ++dropped_turns_;
    tokens = tokens_of(messages);
  }
  if (tokens.size() >= context) {
    fail_as(ErrorKind::too_long, "this message makes {} tokens and the context has {}; shorten it, or {}",
            tokens.size(), context, limits.longer);
  }
  return tokens;
}

Generation CachedConversation::say(std::string_view text, const GenerateOptions& options,
                                   const GenerationCallbacks& callbacks) {
  std::vector<ChatMessage> messages = messages_;
  messages.push_back({"user", std::string(text)});
  const std::vector<TokenId> prompt = fit(messages, options.max_tokens);
  check_prompt(maker_->limits(), prompt);

  GenerateOptions turn = options;
  turn.sampling.seed += turns_;  // no two answers are drawn with the same numbers
  if (!turn_end_.text.empty()) turn.stop.push_back(turn_end_.text);
  Submission submission{.prompt = prompt, .options = turn, .callbacks = callbacks, .also_end = turn_end_.token};
  const Generation made = maker_->generate(submission);
  std::vector<TokenId> all = std::move(submission.prompt);
  all.insert(all.end(), made.token_ids.begin(), made.token_ids.end());
  if (made.finish_reason == FinishReason::cancelled && made.text.empty()) {
    dropped_turns_ = 0;
    return made;
  }
  // Tokens of a stop text are generated and not part of the answer.
  said_ = made.finish_reason == FinishReason::stop ? std::string() : template_.render(messages).text + made.text;
  said_tokens_ = std::move(all);
  messages.push_back({"assistant", made.text});
  messages_ = std::move(messages);
  ++turns_;
  return made;
}

SavedConversation CachedConversation::saved() const {
  SavedConversation saved{.messages = messages_, .turns = turns_};
  if (said_.empty()) return saved;
  saved.token_ids = said_tokens_;
  saved.fingerprint = fingerprint(tokenizer_, said_, said_tokens_);
  return saved;
}

void CachedConversation::restore(SavedConversation saved) {
  set_messages(std::move(saved.messages));
  turns_ = std::max(turns_, saved.turns);
  said_.clear();
  if (saved.token_ids.empty() || messages_.empty() || messages_.back().role != "assistant") return;
  for (const TokenId id : saved.token_ids) {
    if (id < 0 || static_cast<size_t>(id) >= tokenizer_.size()) return;
  }
  const std::vector<ChatMessage> before(messages_.begin(), messages_.end() - 1);
  std::string said = template_.render(before).text + messages_.back().content;
  if (fingerprint(tokenizer_, said, saved.token_ids) != saved.fingerprint) return;
  said_ = std::move(said);
  said_tokens_ = std::move(saved.token_ids);
}

void CachedConversation::set_messages(std::vector<ChatMessage> messages) {
  messages_ = std::move(messages);
  const auto is_answer = [](const ChatMessage& m) { return m.role == "assistant"; };
  turns_ = static_cast<size_t>(std::count_if(messages_.begin(), messages_.end(), is_answer));
  dropped_turns_ = 0;
}

}  // namespace contexture
