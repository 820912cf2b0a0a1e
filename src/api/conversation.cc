#include "contexture/conversation.h"

#include "api/engine_impl.h"
#include "engine/conversation.h"

namespace contexture {
namespace {

/// Turns in a session of an engine's.
class EngineTurns final : public TurnMaker {
 public:
  /// `cancelled` ends a turn.
  EngineTurns(Engine& engine, std::string name_space, std::atomic<bool>& cancelled)
      : engine_(engine), session_(engine.session()), name_space_(std::move(name_space)), cancelled_(cancelled) {}

  TextLimits limits() const override { return engine_.impl().limits(); }
  size_t length() const override { return length_; }

  /// The events are taken here, so that the callbacks run on the caller's thread.
  Generation generate(const Submission& submission) override {
    const GenerationCallbacks callbacks = submission.callbacks;
    InnerRequest request{
        .submission = submission, .session = session_, .name_space = name_space_, .planned_tokens = limits().context};
    request.submission.callbacks = {.cancelled = &cancelled_};
    Stream stream(engine_.impl().start(std::move(request), {}));
    const EndOfTurn end{stream, cancelled_};
    size_t tokens = 0;
    std::string text;
    bool stopped = false;
    for (const Event& event : stream) {
      if (const auto* prefill = std::get_if<PrefillEvent>(&event)) {
        if (callbacks.on_prefill) callbacks.on_prefill(prefill->done, prefill->total);
      } else if (const auto* token = std::get_if<TokenEvent>(&event); token && !stopped) {
        tokens += token->id >= 0;
        text += token->text;
        stopped = callbacks.on_token && !callbacks.on_token({token->id, token->log_probability, token->text});
        if (stopped) cancelled_ = true;
      }
    }
    Generation made = stream.wait();
    if (stopped) cut_after(made, tokens, std::move(text));
    length_ = made.prompt_tokens + made.token_ids.size();
    return made;
  }

 private:
  /// A callback that throws ends the turn too: nothing runs on in the session.
  struct EndOfTurn {
    Stream& stream;
    std::atomic<bool>& cancelled;
    ~EndOfTurn() {
      if (stream.ended()) return;
      cancelled = true;
      while (stream.next()) {
      }
    }
  };

  Engine& engine_;
  const std::shared_ptr<Session> session_;
  const std::string name_space_;
  std::atomic<bool>& cancelled_;
  size_t length_ = 0;
};

}  // namespace

struct Conversation::Impl {
  Impl(Engine& engine, const ConversationOptions& options)
      : chat_template(engine.model().impl()->chat_template(options.chat_format, options.parse_special)),
        conversation(std::make_unique<EngineTurns>(engine, options.name_space, cancelled), engine.impl().tokenizer(),
                     chat_template) {
    if (!options.system.empty()) conversation.set_messages({{"system", options.system}});
  }

  std::atomic<bool> cancelled{false};
  const ChatTemplate& chat_template;
  CachedConversation conversation;
};

Conversation::Conversation(Engine& engine, const ConversationOptions& options)
    : impl_(std::make_unique<Impl>(engine, options)) {}
Conversation::Conversation(Conversation&&) noexcept = default;
Conversation::~Conversation() = default;

Generation Conversation::say(std::string_view message, const Sampling& sampling, const Limits& limits,
                             const std::function<bool(const GeneratedToken&)>& on_token) {
  impl_->cancelled = false;
  return impl_->conversation.say(
      message,
      {.max_tokens = limits.max_tokens, .sampling = sampling, .ignore_end = limits.ignore_end, .stop = limits.stop},
      {.on_token = on_token});
}

const std::vector<ChatMessage>& Conversation::messages() const {
  return impl_->conversation.messages();
}

void Conversation::cancel() noexcept {
  impl_->cancelled = true;
}

}  // namespace contexture
