#include "contexture/llm_decode_runner.h"

#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "engine/generate.h"
#include "engine/static_model.h"

namespace contexture {

struct LLMDecodeRunner::Impl {
  explicit Impl(LLMDecodeConfig given) : config(std::move(given)) {}

  LLMDecodeConfig config;
  std::optional<StaticModel> model;
  std::string error, finish;

  /// Runs `body`; false, and what it said, where it throws.
  template <class Body>
  bool attempt(const Body& body) {
    error.clear();
    const MoreTalkative while_it_works(log_level_of(config.log_level));
    try {
      body();
      return true;
    } catch (const std::exception& e) {
      error = e.what();
      return false;
    }
  }

  void load() {
    const std::optional<KvUpdate> update = kv_update_named(config.kv_updater);
    if (!update) fail("unknown kv_updater {}; it is smart-mask or shift-pointer", printable(config.kv_updater));
    std::optional<GraphMode> mode;
    if (!config.mode.empty()) {
      mode = graph_mode_named(config.mode);
      if (!mode) fail("unknown mode {}; it is kv, hybrid or prefill", printable(config.mode));
    }
    model.emplace(StaticLoadOptions{.directory = config.ctx_dir,
                                    .tokenizer_path = config.tokenizer_path,
                                    .backend = config.backend_so,
                                    .update = *update,
                                    .mode = mode,
                                    .threads = config.threads,
                                    .log_level = static_cast<uint32_t>(std::max(0, config.log_level))});
    const size_t found = model->runner().shards().size();
    const size_t expected = !config.use_multi_context ? 1 : static_cast<size_t>(std::max(0, config.num_shards));
    if (expected == 0 || expected == found) return;
    model.reset();
    fail("{}: expected {} shards, found {}; set use_multi_context and num_shards as it was compiled",
         printable(config.ctx_dir, 400), expected, found);
  }

  std::string answer(const std::string& prompt) {
    if (!model) fail("not initialized; call initialize() first, and look at what it returns");
    StaticRunner& runner = model->runner();
    const size_t before = runner.length();
    std::vector<TokenId> tokens = said;
    const std::vector<TokenId> now = model->tokenizer().encode(prompt, {.add_begin = tokens.empty()});
    tokens.insert(tokens.end(), now.begin(), now.end());
    GenerateOptions options;
    options.max_tokens = static_cast<size_t>(std::max(0, config.max_gen_tokens));
    options.sampling.temperature = 0;
    try {
      const Generation made =
          contexture::generate(model->executor(), model->tokenizer(), {.prompt = tokens, .options = options});
      finish = name(made.finish_reason);
      tokens.insert(tokens.end(), made.token_ids.begin(), made.token_ids.end());
      said = std::move(tokens);
      log_info("{} of {} tokens held, {} prompt tokens in {:.3f} s, {} made in {:.3f} s ({})", runner.length(),
               runner.capacity(), made.prefilled_tokens, made.prefill_seconds, made.token_ids.size(),
               made.decode_seconds, finish);
      return made.text;
    } catch (...) {
      runner.truncate(std::min(before, runner.length()));
      throw;
    }
  }

  std::vector<TokenId> said;  // prompts and answers; the last token may not have been run
};

LLMDecodeRunner::LLMDecodeRunner(const LLMDecodeConfig& config) : impl_(std::make_unique<Impl>(config)) {}
LLMDecodeRunner::~LLMDecodeRunner() = default;

bool LLMDecodeRunner::initialize() {
  return impl_->attempt([&] { impl_->load(); });
}

bool LLMDecodeRunner::generate(const std::string& prompt, std::string& output) {
  return impl_->attempt([&] { output = impl_->answer(prompt); });
}

void LLMDecodeRunner::reset() {
  impl_->said.clear();
  if (impl_->model) impl_->model->runner().truncate(0);
}

const std::string& LLMDecodeRunner::get_error() const {
  return impl_->error;
}

const std::string& LLMDecodeRunner::finish_reason() const {
  return impl_->finish;
}

size_t LLMDecodeRunner::context_tokens() const {
  return impl_->model ? impl_->model->runner().length() : 0;
}

}  // namespace contexture
