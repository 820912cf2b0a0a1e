#include "engine/static_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace contexture {
namespace {

void log_lines(spdlog::level::level_enum level, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    spdlog::log(level, "{}", text.substr(at, end - at));
    at = end + 1;
  }
}

class StaticTurns : public TurnMaker {
 public:
  StaticTurns(StaticRunner& runner, const Tokenizer& tokenizer) : runner_(runner), tokenizer_(tokenizer) {}

  TextLimits limits() const override { return limits_of(runner_); }
  size_t length() const override { return runner_.length(); }
  Generation generate(size_t kept, std::span<const TokenId> prompt, const GenerateOptions& options,
                      const GenerationCallbacks& callbacks, std::optional<TokenId> also_end) override {
    runner_.truncate(std::min(kept, runner_.length()));
    return generate_static(runner_, tokenizer_, prompt, options, callbacks, also_end);
  }

 private:
  StaticRunner& runner_;
  const Tokenizer& tokenizer_;
};

std::string tokenizer_of(const ContextDirectory& directory, const std::string& given) {
  if (!given.empty()) return given;
  const std::optional<std::string> inside = directory.tokenizer_path();
  if (!inside) fail("{} has no tokenizer; name one with --tokenizer PATH", printable(directory.path(), 400));
  return *inside;
}

}  // namespace

StaticModel::StaticModel(const StaticLoadOptions& options)
    : directory_(options.directory), opened_(open_with_tokenizer(tokenizer_of(directory_, options.tokenizer_path))) {
  const int threads = options.threads > 0 ? options.threads : physical_cores();
  runner_ = std::make_unique<StaticRunner>(GraphBackend::load(options.backend), directory_.shards(),
                                           StaticRunOptions{.update = options.update,
                                                            .mode = options.mode,
                                                            .threads = static_cast<uint32_t>(threads),
                                                            .log_level = options.log_level});
  directory_.check(*runner_);
  const StaticShape& shape = runner_->shape();
  const StaticRunner::Memory memory = runner_->memory();
  spdlog::info("{}: {}, {} shards of {} layers, context {}, mode {}", directory_.path(), directory_.manifest().recipe,
               directory_.manifest().shards.size(), fmt::join(shape.layers_of_shard, "+"), shape.context,
               name(runner_->mode()));
  log_lines(spdlog::level::info, describe(runner_->kv()));
  spdlog::info("shared buffers: {} B beside K and V; {} views registered", memory.io, memory.registered);
  for (const Shard& shard : runner_->shards()) log_lines(spdlog::level::debug, describe(shard));
}

TextLimits StaticModel::limits() const {
  return limits_of(*runner_);
}

TextLimits limits_of(const StaticRunner& runner) {
  return {.context = runner.capacity(),
          .vocabulary = runner.shape().vocabulary,
          .longer = "compile it with a longer --context"};
}

std::unique_ptr<TurnMaker> static_turns(StaticRunner& runner, const Tokenizer& tokenizer) {
  return std::make_unique<StaticTurns>(runner, tokenizer);
}

Generation generate_static(StaticRunner& runner, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                           const GenerateOptions& options, const GenerationCallbacks& callbacks,
                           std::optional<TokenId> also_end) {
  Completion completion(limits_of(runner), tokenizer, prompt, options, callbacks, also_end);
  const std::vector<TokenId>& held = runner.tokens();
  const auto common = std::ranges::mismatch(held, prompt).in1 - held.begin();
  const size_t kept = std::min(static_cast<size_t>(common), prompt.size() - 1);
  runner.truncate(kept);
  completion.begin({.reused_tokens = kept});
  Sampler::Candidates candidates;
  while (!completion.is_finished()) {
    const std::span<const TokenId> tokens = completion.tokens();
    if (tokens.size() > runner.capacity()) {
      completion.finish(FinishReason::context);
      break;
    }
    size_t ran = 0;
    const size_t first = runner.length();
    const std::span<const float> logits =
        runner.feed(tokens.subspan(first), {.on_logits = {},
                                            .on_progress =
                                                [&](size_t done, size_t) {
                                                  completion.ran(done - ran, first + done);
                                                  ran = done;
                                                },
                                            .cancelled = callbacks.cancelled});
    if (logits.empty()) {
      completion.finish(FinishReason::cancelled);
    } else {
      completion.take(logits, candidates);
    }
  }
  return std::move(completion).result();
}

}  // namespace contexture
