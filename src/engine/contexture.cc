#include "contexture/contexture.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "engine/conversation.h"
#include "engine/scheduler.h"

namespace contexture {
namespace {

Format format_named(const std::string& name) {
  const std::optional<Format> format = format_from_name(name);
  if (!format) fail("unknown format '{}'; a cache is f32, f16, bf16, q8_0 or q4_0", printable(name));
  return *format;
}

/// `load` must outlive what this returns.
RunOptions run_options(const LoadOptions& load) {
  RunOptions run;
  run.cache.layout = load.cache;
  run.cache.shape.k_format = format_named(load.k_format);
  run.cache.shape.v_format = format_named(load.v_format);
  run.cache.sequences = std::max<size_t>(1, load.sequences);
  run.cache.context = load.context;
  run.cache.page_tokens = load.page_tokens;
  run.cache.pool_tokens = load.pool_tokens;
  run.cache.hot_tokens = load.hot_tokens;
  run.cache.sink_tokens = load.sink_tokens;
  run.cache.cold_k_format = format_named(load.cold_k_format);
  run.cache.cold_v_format = format_named(load.cold_v_format);
  run.cache.rotate = load.rotate;
  run.threads = load.threads > 0 ? load.threads : physical_cores();
  run.logit_rows = run.cache.sequences;
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
  ModelConfig config;
  std::optional<size_t> border;  // rotation_border
  std::optional<Runtime> runtime;
  std::atomic<bool> cancelled{false};

  explicit Impl(const LoadOptions& options)
      : load(options),
        opened(open_with_tokenizer(options.model_path, options.tokenizer_path)),
        config(read_config(opened.file.metadata)),
        border(rotation_border(opened.file)) {
    run = run_options(load);
    if (load.context > 0) prepare(load.context);
  }

  void prepare(size_t context) {
    if (runtime && runtime->plan().cache.context >= context &&
        is_long(runtime->plan().cache.context) == is_long(context)) {
      return;
    }
    runtime.reset();
    run.cache.context = context;
    runtime.emplace(opened.file, run);
  }

  /// Whether a run that plans for so many tokens makes another text than one that plans for few.
  bool is_long(size_t context) const { return border && context > *border; }

  Submission request(std::string_view prompt, const GenerateOptions& options,
                     const std::function<bool(const GeneratedToken&)>& on_token) {
    return {.prompt = opened.need_tokenizer().encode(
                prompt, {.add_begin = options.add_begin, .parse_special = options.parse_special}),
            .options = options,
            .callbacks = {.on_token = on_token, .on_prefill = {}, .cancelled = &cancelled},
            .also_end = std::nullopt};
  }

  std::vector<Generation> complete(const std::vector<Submission>& requests) {
    cancelled = false;
    std::vector<Generation> results(requests.size());
    for (const bool long_ones : {false, true}) {
      std::vector<size_t> places;
      size_t context = load.context;
      for (size_t i = 0; i < requests.size(); ++i) {
        const size_t needed = context_of(requests[i]);
        if (is_long(needed) != long_ones) continue;
        places.push_back(i);
        context = std::max(context, needed);
      }
      if (places.empty()) continue;
      prepare(context);
      Scheduler scheduler(*runtime, opened.need_tokenizer());
      for (const size_t i : places) scheduler.submit(requests[i]);
      std::vector<Generation> made = scheduler.run();
      for (size_t i = 0; i < places.size(); ++i) results[places[i]] = std::move(made[i]);
    }
    return results;
  }

  size_t context_of(const Submission& r) const {
    if (load.context > 0) return load.context;
    return default_context(config, r.prompt.size(), r.options.max_tokens);
  }
};

LanguageModel::LanguageModel(const LoadOptions& options) : impl_(std::make_unique<Impl>(options)) {}
LanguageModel::LanguageModel(LanguageModel&&) noexcept = default;
LanguageModel::~LanguageModel() = default;

Generation LanguageModel::generate(std::string_view prompt, const GenerateOptions& options,
                                   const std::function<bool(const GeneratedToken&)>& on_token) {
  return std::move(impl_->complete({impl_->request(prompt, options, on_token)}).front());
}

std::vector<Generation> LanguageModel::generate_all(
    std::span<const GenerationRequest> requests,
    const std::function<bool(size_t request, const GeneratedToken&)>& on_token) {
  if (requests.empty()) return {};
  std::vector<Submission> all;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto tell = [&on_token, i](const GeneratedToken& token) { return !on_token || on_token(i, token); };
    all.push_back(impl_->request(requests[i].prompt, requests[i].options, tell));
  }
  return impl_->complete(all);
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
        chat_template(ChatTemplate::choose(opened.file.metadata, opened.need_tokenizer().vocabulary(),
                                           options.chat_format, options.parse_special)),
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
