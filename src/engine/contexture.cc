#include "contexture/contexture.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "engine/conversation.h"
#include "engine/runtime.h"

namespace contexture {
namespace {

Format format_named(const std::string& name) {
  const std::optional<Format> format = format_from_name(name);
  if (!format) fail("unknown format '{}'; a cache is f32, f16 or bf16", printable(name));
  return *format;
}

RunOptions run_options(const LoadOptions& load) {
  RunOptions run;
  run.cache.layout = load.cache;
  run.cache.shape.k_format = format_named(load.k_format);
  run.cache.shape.v_format = format_named(load.v_format);
  run.cache.context = load.context;
  run.threads = load.threads > 0 ? load.threads : physical_cores();
  return run;
}

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::end:
      return "end";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::context:
      return "context";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return "?";
}

struct LanguageModel::Impl {
  LoadOptions load;
  OpenedModel opened;
  RunOptions run;
  std::optional<Runtime> runtime;
  std::atomic<bool> cancelled{false};

  explicit Impl(const LoadOptions& options)
      : load(options), opened(open_with_tokenizer(options.model_path, options.tokenizer_path)) {
    run = run_options(load);
    if (load.context > 0) prepare(load.context);
  }

  void prepare(size_t context) {
    if (runtime && runtime->plan().cache.context >= context) return;
    runtime.reset();
    run.cache.context = context;
    runtime.emplace(opened.file, run);
  }
};

LanguageModel::LanguageModel(const LoadOptions& options) : impl_(std::make_unique<Impl>(options)) {}
LanguageModel::LanguageModel(LanguageModel&&) noexcept = default;
LanguageModel::~LanguageModel() = default;

Generation LanguageModel::generate(std::string_view prompt, const GenerateOptions& options,
                                   const std::function<bool(const GeneratedToken&)>& on_token) {
  impl_->cancelled = false;
  const Tokenizer& tokenizer = impl_->opened.need_tokenizer();
  const std::vector<TokenId> ids =
      tokenizer.encode(prompt, {.add_begin = options.add_begin, .parse_special = options.parse_special});
  if (impl_->load.context == 0) {
    impl_->prepare(default_context(read_config(impl_->opened.file.metadata), ids.size(), options.max_tokens));
  }
  return contexture::generate(*impl_->runtime, tokenizer, ids, options,
                              {.on_token = on_token, .on_prefill = {}, .cancelled = &impl_->cancelled});
}

void LanguageModel::cancel() noexcept {
  impl_->cancelled = true;
}

struct Conversation::Impl {
  LoadOptions load;  // its texts are what the runtime's plan looks at
  OpenedModel opened;
  Runtime runtime;
  ChatTemplate chat_template;
  CachedConversation conversation;
  std::atomic<bool> cancelled{false};

  Impl(const LoadOptions& given, const ConversationOptions& options)
      : load(given),
        opened(open_with_tokenizer(load.model_path, load.tokenizer_path)),
        runtime(opened.file, with_context(opened.file, run_options(load))),
        chat_template(
            ChatTemplate::choose(opened.file.metadata, opened.need_tokenizer().vocabulary(), options.chat_format)),
        conversation(runtime, opened.need_tokenizer(), chat_template) {
    if (!options.system.empty()) conversation.set_messages({{"system", options.system}});
  }

  static RunOptions with_context(const ModelFile& file, RunOptions run) {
    if (run.cache.context == 0) run.cache.context = default_chat_context(read_config(file.metadata));
    return run;
  }
};

Conversation::Conversation(const LoadOptions& load, const ConversationOptions& options)
    : impl_(std::make_unique<Impl>(load, options)) {}
Conversation::Conversation(Conversation&&) noexcept = default;
Conversation::~Conversation() = default;

Generation Conversation::say(std::string_view message, const GenerateOptions& options,
                             const std::function<bool(const GeneratedToken&)>& on_token) {
  impl_->cancelled = false;
  return impl_->conversation.say(message, options,
                                 {.on_token = on_token, .on_prefill = {}, .cancelled = &impl_->cancelled});
}

const std::vector<ChatMessage>& Conversation::messages() const {
  return impl_->conversation.messages();
}

void Conversation::cancel() noexcept {
  impl_->cancelled = true;
}

}  // namespace contexture
